/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "loaded.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool take(void *context, const struct vmibus_linux_module *module) {
    struct loaded *loaded = context;

    if (loaded->n_fresh == LOADED_MAX)
        return false;
    loaded->fresh[loaded->n_fresh++] = *module;
    return true;
}

/* Memory of a module that is gone may become another's. */
static int compare(const void *left, const void *right) {
    const struct vmibus_linux_module *a = left, *b = right;

    if (a->module != b->module)
        return a->module < b->module ? -1 : 1;
    if (a->base != b->base)
        return a->base < b->base ? -1 : 1;
    return strcmp(a->name, b->name);
}

static bool tell(struct events *events, const struct vmibus_linux_module *module, enum vmibus_module_change change) {
    struct event *event = events_add(events, VMIBUS_KIND_MODULE);

    if (!event)
        return false;
    event->frame.module.base = module->base;
    event->frame.module.module = module->module;
    event->frame.module.size = module->size;
    event->frame.module.change = (uint8_t)change;
    event->tail_length = strlen(module->name);
    memcpy(event->tail, module->name, event->tail_length);
    return true;
}

/* What cannot be told is found again by the next look. Returns whether all could. */
static bool merge(struct loaded *loaded, struct events *events, bool is_whole, struct vmibus_linux_module *next, size_t *n) {
    enum vmibus_module_change change = loaded->told_present ? VMIBUS_MODULE_CHANGE_LOADED : VMIBUS_MODULE_CHANGE_PRESENT;
    bool all = true;

    for (size_t i = 0, j = 0; i < loaded->n || j < loaded->n_fresh;) {
        const struct vmibus_linux_module *known = loaded->known + i, *fresh = loaded->fresh + j;
        int order = i == loaded->n ? 1 : j == loaded->n_fresh ? -1 : compare(known, fresh);
        bool keep_known = order < 0 && !(is_whole && tell(events, known, VMIBUS_MODULE_CHANGE_UNLOADED));
        bool keep_fresh = order == 0 || (order > 0 && tell(events, fresh, change));

        all = all && !(order < 0 && keep_known) && !(order > 0 && !keep_fresh);
        if (keep_known || keep_fresh)
            next[(*n)++] = keep_known ? *known : *fresh;
        i += order <= 0;
        j += order >= 0;
    }
    return all;
}

static int reserve(struct loaded *loaded) {
    if (!loaded->fresh)
        loaded->fresh = malloc(LOADED_MAX * sizeof(*loaded->fresh));
    return loaded->fresh ? 0 : -ENOMEM;
}

int loaded_look(struct loaded *loaded, struct vmibus_linux *kernel, struct events *events) {
    struct vmibus_linux_picture picture;
    struct vmibus_linux_module *next;
    size_t n = 0;
    bool is_whole, all;
    int r = reserve(loaded);

    loaded->n_fresh = 0;
    if (r == 0)
        r = vmibus_linux_visit_modules(kernel, take, loaded, &picture);
    if (r)
        return r;
    next = malloc((loaded->n + loaded->n_fresh + 1) * sizeof(*next));
    if (!next)
        return -ENOMEM;
    if (loaded->n_fresh)
        qsort(loaded->fresh, loaded->n_fresh, sizeof(*loaded->fresh), compare);
    is_whole = picture.flags & VMIBUS_LINUX_ENDED && picture.flags & VMIBUS_LINUX_STEADY && picture.n_broken == 0;
    all = merge(loaded, events, is_whole, next, &n);
    free(loaded->known);
    loaded->known = next;
    loaded->n = n < LOADED_MAX ? n : LOADED_MAX;
    loaded->told_present = loaded->told_present || (all && is_whole);
    return 0;
}

void loaded_clear(struct loaded *loaded) {
    free(loaded->known);
    free(loaded->fresh);
    *loaded = (struct loaded){};
}
