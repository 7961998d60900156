/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmibusctl modules: the modules of a Linux guest's kernel. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "linux_guest.h"
#include "frame_json.h"
#include "report.h"
#include "table.h"

struct modules {
    struct vmibus_linux_module *array;
    size_t n, room;
};

static bool keep(void *context, const struct vmibus_linux_module *module) {
    struct modules *modules = context;

    if (modules->n == modules->room) {
        modules->room = modules->room ? 2 * modules->room : 64;
        modules->array = reallocarray(modules->array, modules->room, sizeof(*modules->array));
        if (!modules->array)
            abort();
    }
    modules->array[modules->n++] = *module;
    return true;
}

static const char *state_name(uint32_t state) {
    static const char *const names[] = {
        [VMIBUS_LINUX_MODULE_LIVE] = "LIVE",
        [VMIBUS_LINUX_MODULE_COMING] = "COMING",
        [VMIBUS_LINUX_MODULE_GOING] = "GOING",
    };

    return state < sizeof(names) / sizeof(names[0]) ? names[state] : "?";
}

static void print_text(const struct modules *modules) {
    struct table *table = table_new(5);

    table_cell(table, "NAME");
    table_cell(table, "SIZE");
    table_cell(table, "USES");
    table_cell(table, "STATE");
    table_cell(table, "BASE");
    for (size_t i = 0; i < modules->n; i++) {
        const struct vmibus_linux_module *module = &modules->array[i];

        table_cell(table, "%s", module->name);
        table_cell(table, "%" PRIu64, module->size);
        table_cell(table, "%" PRIu32, module->references);
        table_cell(table, "%s", state_name(module->state));
        table_cell(table, "0x%" PRIx64, module->base);
    }
    table_print(table);
}

static struct json_list *json(const struct modules *modules) {
    struct json_list *list = json_list_new();

    for (size_t i = 0; i < modules->n; i++) {
        const struct vmibus_linux_module *module = &modules->array[i];
        struct json_object *object = json_object_new_object();

        json_object_object_add(object, "name", frame_json_text(module->name, strlen(module->name)));
        json_object_object_add(object, "base", json_object_new_uint64(module->base));
        json_object_object_add(object, "text_size", json_object_new_uint64(module->text_size));
        json_object_object_add(object, "size", json_object_new_uint64(module->size));
        json_object_object_add(object, "references", json_object_new_uint64(module->references));
        json_object_object_add(object, "state", json_object_new_string(state_name(module->state)));
        json_object_object_add(object, "module", json_object_new_uint64(module->module));
        json_list_add(list, object);
    }
    return list;
}

static int show(struct linux_guest *guest) {
    struct vmibus_linux_picture picture;
    struct modules modules = {0};
    int r = vmibus_linux_visit_modules(guest->kernel, keep, &modules, &picture);

    if (r)
        r = linux_guest_report(guest, r, "its modules cannot be read");
    else
        r = linux_guest_let_go(guest);
    if (r == STATUS_OK && guest->ctl->json) {
        linux_guest_print_json(guest, json(&modules), &picture);
    } else if (r == STATUS_OK) {
        print_text(&modules);
        linux_guest_say_picture(guest, &picture);
    }
    free(modules.array);
    return r;
}

static int run(struct vmibusctl *ctl, const struct arguments *arguments) {
    struct linux_guest guest;
    int r = linux_guest_begin(ctl, arguments, arguments->words[0], &guest);

    return linux_guest_end(&guest, r == STATUS_OK ? show(&guest) : r);
}

static const struct option_description options[] = {
    LINUX_GUEST_OPTIONS,
    {},
};

const struct verb verb_modules = {
    .name = "modules",
    .synopsis = "VM",
    .summary = "list the modules of a Linux guest's kernel",
    .min_words = 1,
    .max_words = 1,
    .options = options,
    .run = run,
};
