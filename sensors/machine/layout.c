/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The reading of a layout, one monitor command after the other.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "layout.h"

#define BACKEND_REMEDY                                                                              \
    "start QEMU with -object memory-backend-memfd,id=ram0,size=SIZE,share=on -machine "            \
    "memory-backend=ram0"
#define CONFIDENTIAL_UNKNOWN                                                                       \
    "QEMU does not tell whether the guest is confidential; use a QEMU from 7.2 on"

static int read_flat_view(struct layout *layout, monitor_reply_fn reply);
static int locate(struct layout *layout);

static void conclude(struct layout *layout, enum layout_outcome outcome, const char *message) {
    layout->reading = false;
    layout->done(layout->userdata, outcome, message);
}

/* Ends with a sentence for people: what is not as it should be, and what would be. */
static void __attribute__((format(printf, 2, 3)))
refuse(struct layout *layout, const char *format, ...) {
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(layout->message, sizeof(layout->message), format, arguments);
    va_end(arguments);
    conclude(layout, LAYOUT_UNPROVEN, layout->message);
}

/* Goes on to the next command, or ends with why that is not possible. */
static void proceed(struct layout *layout, int r) {
    if (r < 0)
        conclude(layout, LAYOUT_LOST, strerror(-r));
}

/* Ends the reading if the connection is gone. */
static bool is_lost(struct layout *layout, const struct monitor_reply *reply) {
    if (reply->outcome != MONITOR_LOST)
        return false;
    conclude(layout, LAYOUT_LOST, "the monitor was lost");

    return true;
}

void layout_ranges_deinit(struct layout_ranges *ranges) {
    free(ranges->ranges);
    *ranges = (struct layout_ranges){0};
}

void layout_ranges_move(struct layout_ranges *to, struct layout_ranges *from) {
    free(to->ranges);
    *to = *from;
    *from = (struct layout_ranges){0};
}

bool layout_ranges_equal(const struct layout_ranges *a, const struct layout_ranges *b) {
    if (a->n_ranges != b->n_ranges)
        return false;

    return !a->n_ranges || memcmp(a->ranges, b->ranges, a->n_ranges * sizeof(*a->ranges)) == 0;
}

bool layout_parse_location(const char *text, uint64_t gpa, const char *name, uint64_t *hvap) {
    char head[MTREE_NAME_BOUND + 64];
    uint64_t hva = 0;
    int digits = 0, len;

    len = snprintf(head, sizeof(head), "Host virtual address for 0x%" PRIx64 " (%s) is 0x", gpa,
                   name);
    if (len < 0 || (size_t)len >= sizeof(head) || strncmp(text, head, (size_t)len) != 0)
        return false;
    for (text += len; digits <= 16; text++, digits++) {
        if (*text >= '0' && *text <= '9')
            hva = hva << 4 | (uint64_t)(*text - '0');
        else if (*text >= 'a' && *text <= 'f')
            hva = hva << 4 | (uint64_t)(*text - 'a' + 10);
        else
            break;
    }
    if (!digits || digits > 16 || (*text && strcmp(text, "\r\n") != 0 && strcmp(text, "\n") != 0) ||
        !hva)
        return false;
    *hvap = hva;

    return true;
}

static bool is_shown_before(const struct layout_ranges *ranges, size_t index) {
    const struct vmibus_layout_range *range = &ranges->ranges[index];

    for (size_t i = 0; i < index; i++) {
        const struct vmibus_layout_range *other = &ranges->ranges[i];

        if (range->location < other->location + other->len &&
            other->location < range->location + range->len)
            return true;
    }

    return false;
}

bool layout_finish(struct layout_ranges *ranges) {
    size_t n = 0;

    for (size_t i = 0; i < ranges->n_ranges; i++) {
        struct vmibus_layout_range range = ranges->ranges[i],
                                   *previous = n ? &ranges->ranges[n - 1] : NULL;
        uint64_t last;

        if (!range.len || __builtin_add_overflow(range.gpa, range.len - 1, &last) ||
            __builtin_add_overflow(range.location, range.len, &last))
            return false;
        if (previous && range.gpa - previous->gpa < previous->len)
            return false;
        if (previous && range.gpa - previous->gpa == previous->len &&
            range.location - previous->location == previous->len && range.flags == previous->flags)
            previous->len += range.len;
        else
            ranges->ranges[n++] = range;
    }
    ranges->n_ranges = n;
    for (size_t i = 0; i < n; i++)
        if (is_shown_before(ranges, i))
            ranges->ranges[i].flags |= VMIBUS_RANGE_ALIAS;

    return true;
}

static bool is_ram(const struct layout *layout, const struct mtree_range *range) {
    const struct backend *backend = backends_find(&layout->backends, range->name);

    return backend && backend->is_ram && range->priority == 0 && !range->persistent;
}

/* Cuts a flat view down to RAM. */
static void keep_ram(const struct layout *layout, struct mtree *tree) {
    size_t n = 0;

    for (size_t i = 0; i < tree->n_ranges; i++)
        if (is_ram(layout, &tree->ranges[i]))
            tree->ranges[n++] = tree->ranges[i];
    tree->n_ranges = n;
}

/* Whether a flat view shows the RAM that was located. */
static bool shows_the_same(const struct layout *layout, const struct mtree *view) {
    size_t n = 0;

    for (size_t i = 0; i < view->n_ranges; i++) {
        if (!is_ram(layout, &view->ranges[i]))
            continue;
        if (n == layout->tree.n_ranges ||
            !mtree_range_equal(&view->ranges[i], &layout->tree.ranges[n]))
            return false;
        n++;
    }

    return n == layout->tree.n_ranges;
}

static void on_second_view(void *userdata, const struct monitor_reply *reply) {
    struct layout *layout = userdata;
    const char *text;
    size_t len;
    bool same;

    if (is_lost(layout, reply))
        return;
    text = monitor_text(reply, &len);
    same = text && mtree_parse(text, len, &layout->view) == 0 &&
           shows_the_same(layout, &layout->view);

    if (!same)
        conclude(layout, LAYOUT_CHANGED,
                 "the layout changed while it was read; wait until the guest has booted");
    else if (!layout_finish(&layout->result))
        refuse(layout, "its RAM ranges overlap or wrap; a QEMU from 7.2 on does not say so");
    else
        conclude(layout, LAYOUT_READ, NULL);
}

static void on_location(void *userdata, const struct monitor_reply *reply) {
    struct layout *layout = userdata;
    const struct mtree_range *range = &layout->tree.ranges[layout->position];
    uint64_t gpa = range->gpa + (layout->last ? range->len - 1 : 0), hva;
    struct vmibus_layout_range *result = &layout->result.ranges[layout->position];
    const char *text;

    if (is_lost(layout, reply))
        return;
    text = monitor_text(reply, NULL);
    if (!text || !layout_parse_location(text, gpa, range->name, &hva)) {
        conclude(layout, LAYOUT_CHANGED,
                 "gpa2hva contradicts the flat view; wait until the guest has booted");
        return;
    }

    if (!layout->last) {
        *result = (struct vmibus_layout_range){
            .gpa = range->gpa,
            .len = range->len,
            .location = hva,
            .object = LAYOUT_OBJECT_NONE,
            .flags = range->read_only ? VMIBUS_RANGE_READ_ONLY : 0,
        };
        layout->last = true;
    } else {
        if (hva < result->location || hva - result->location != range->len - 1 ||
            !backend_locate(backends_find(&layout->backends, range->name), range->offset,
                            range->len, result->location)) {
            refuse(layout,
                   "memory backend %s does not lie in one piece, or another memory region has "
                   "its name; give it another id",
                   range->name);
            return;
        }
        layout->last = false;
        layout->position++;
    }
    if (layout->position == layout->tree.n_ranges)
        proceed(layout, read_flat_view(layout, on_second_view));
    else
        proceed(layout, locate(layout));
}

static int locate(struct layout *layout) {
    const struct mtree_range *range = &layout->tree.ranges[layout->position];
    char line[64];

    snprintf(line, sizeof(line), "gpa2hva 0x%" PRIx64,
             range->gpa + (layout->last ? range->len - 1 : 0));

    return monitor_execute_human(layout->monitor, line, on_location, layout);
}

static void on_first_view(void *userdata, const struct monitor_reply *reply) {
    struct layout *layout = userdata;
    const char *text;
    size_t len;

    if (is_lost(layout, reply))
        return;
    text = monitor_text(reply, &len);
    if (!text || mtree_parse(text, len, &layout->tree) != 0) {
        refuse(layout, "the answer to 'info mtree -f' is not understood; use a QEMU from 7.2 on");
        return;
    }
    keep_ram(layout, &layout->tree);
    if (!layout->tree.n_ranges) {
        refuse(layout, "no memory backend is seen by the guest; " BACKEND_REMEDY);
        return;
    }
    if (layout->tree.n_ranges > LAYOUT_RANGES_BOUND) {
        refuse(layout, "it has %zu RAM ranges, and the bound is %d; use fewer, larger DIMMs",
               layout->tree.n_ranges, LAYOUT_RANGES_BOUND);
        return;
    }
    layout->result.ranges = calloc(layout->tree.n_ranges, sizeof(*layout->result.ranges));
    if (!layout->result.ranges) {
        conclude(layout, LAYOUT_LOST, "out of memory");
        return;
    }
    layout->result.n_ranges = layout->tree.n_ranges;
    proceed(layout, locate(layout));
}

static int read_flat_view(struct layout *layout, monitor_reply_fn reply) {
    return monitor_execute_human(layout->monitor, "info mtree -f", reply, layout);
}

static void on_devices(void *userdata, const struct monitor_reply *reply) {
    struct layout *layout = userdata;

    if (is_lost(layout, reply))
        return;
    if (reply->outcome != MONITOR_RETURN || backends_take_devices(&layout->backends, reply->value)) {
        refuse(layout,
               "the answer to query-memory-devices is not understood; use a QEMU from 7.2 on");
        return;
    }
    proceed(layout, read_flat_view(layout, on_first_view));
}

static void on_backends(void *userdata, const struct monitor_reply *reply) {
    struct layout *layout = userdata;
    int r;

    if (is_lost(layout, reply))
        return;
    r = backends_take(&layout->backends, reply->outcome == MONITOR_RETURN ? reply->value : NULL);
    if (r < 0)
        conclude(layout, LAYOUT_LOST, strerror(-r));
    else if (r == BACKENDS_NONE)
        refuse(layout, "it has no memory backend with an id; " BACKEND_REMEDY);
    else if (r == BACKENDS_TOO_MANY)
        refuse(layout, "it has more than %d memory backends; use fewer, larger ones",
               BACKENDS_BOUND);
    else if (r)
        refuse(layout, "the answer to query-memdev is not understood; use a QEMU from 7.2 on");
    else
        proceed(layout, monitor_execute(layout->monitor, "query-memory-devices", NULL, on_devices, layout));
}

static void on_sev(void *userdata, const struct monitor_reply *reply) {
    struct layout *layout = userdata;
    bool enabled = false;

    if (is_lost(layout, reply))
        return;
    if (reply->outcome == MONITOR_RETURN && !monitor_boolean(reply->value, "enabled", &enabled)) {
        refuse(layout, CONFIDENTIAL_UNKNOWN);
        return;
    }
    if (enabled) {
        conclude(layout, LAYOUT_CONFIDENTIAL, "a confidential guest (SEV)");
        return;
    }
    /* A build without SEV has no such command; then the machine's own word is needed. */
    if (reply->outcome == MONITOR_ERROR && !layout->confidential_known) {
        refuse(layout, CONFIDENTIAL_UNKNOWN);
        return;
    }
    proceed(layout, monitor_execute(layout->monitor, "query-memdev", NULL, on_backends, layout));
}

static void on_machine(void *userdata, const struct monitor_reply *reply) {
    struct layout *layout = userdata;

    if (is_lost(layout, reply))
        return;
    if (reply->outcome == MONITOR_RETURN) {
        if (!json_object_is_type(reply->value, json_type_string)) {
            refuse(layout, CONFIDENTIAL_UNKNOWN);
            return;
        }
        if (json_object_get_string_len(reply->value) != 0) {
            conclude(layout, LAYOUT_CONFIDENTIAL, "a confidential guest");
            return;
        }
        layout->confidential_known = true;
    }
    proceed(layout, monitor_execute(layout->monitor, "query-sev", NULL, on_sev, layout));
}

static void forget(struct layout *layout) {
    backends_deinit(&layout->backends);
    mtree_deinit(&layout->tree);
    mtree_deinit(&layout->view);
    layout_ranges_deinit(&layout->result);
    layout->position = 0;
    layout->last = false;
    layout->confidential_known = false;
}

enum layout_sight layout_compare(const struct layout *layout, const char *text, size_t len) {
    enum layout_sight sight = LAYOUT_SIGHT_OTHER;
    struct mtree view;

    if (mtree_parse(text, len, &view) != 0)
        return LAYOUT_SIGHT_OTHER;
    if (!shows_the_same(layout, &view))
        sight = LAYOUT_SIGHT_OTHER_RAM;
    else if (mtree_equal(&view, &layout->view))
        sight = LAYOUT_SIGHT_SAME;
    mtree_deinit(&view);

    return sight;
}

int layout_read(struct layout *layout, struct monitor *monitor, layout_done_fn done, void *userdata) {
    json_object *arguments;
    int r;

    if (layout->reading)
        return -EALREADY;
    forget(layout);
    layout->monitor = monitor;
    layout->done = done;
    layout->userdata = userdata;

    /*
     * The machine's property names the object that protects the guest, whatever its kind: SEV, TDX,
     * PEF.
     */
    arguments = json_object_new_object();
    if (!arguments ||
        json_object_object_add(arguments, "path", json_object_new_string("/machine")) < 0 ||
        json_object_object_add(arguments, "property",
                               json_object_new_string("confidential-guest-support")) < 0) {
        json_object_put(arguments);
        return -ENOMEM;
    }
    r = monitor_execute(monitor, "qom-get", arguments, on_machine, layout);
    if (r < 0)
        return r;
    layout->reading = true;

    return 0;
}

void layout_deinit(struct layout *layout) {
    forget(layout);
    layout->reading = false;
}
