/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The reading of a layout, one monitor command after the other.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "layout.h"

/* How the canonical name of a backend begins on machine types older than 4.0. */
#define OBJECTS_PREFIX "/objects/"

static int read_flat_view(struct layout *layout, qmp_reply_fn reply);
static int locate(struct layout *layout);

static void conclude(struct layout *layout, enum layout_outcome outcome, const char *message) {
    layout->reading = false;
    layout->done(layout->userdata, outcome, message);
}

/* Goes on to the next command, or ends with why that is not possible. */
static void proceed(struct layout *layout, int r) {
    if (r < 0)
        conclude(layout, LAYOUT_LOST, strerror(-r));
}

/* Ends the reading if the connection is gone. */
static bool is_lost(struct layout *layout, const struct qmp_reply *reply) {
    if (reply->outcome != QMP_LOST)
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

static bool is_backend(const struct layout *layout, const char *name) {
    for (size_t i = 0; i < layout->n_backends; i++)
        if (strcmp(layout->backends[i], name) == 0)
            return true;

    return false;
}

/* Cuts a flat view down to what the memory backends show. */
static void keep_backends(const struct layout *layout, struct mtree *tree) {
    size_t n = 0;

    for (size_t i = 0; i < tree->n_ranges; i++)
        if (tree->ranges[i].priority == 0 && is_backend(layout, tree->ranges[i].name))
            tree->ranges[n++] = tree->ranges[i];
    tree->n_ranges = n;
}

static void on_second_view(void *userdata, const struct qmp_reply *reply) {
    struct layout *layout = userdata;
    struct mtree again = {0};
    const char *text;
    size_t len;
    bool same;

    if (is_lost(layout, reply))
        return;
    text = qmp_text(reply, &len);
    same = text && mtree_parse(text, len, &again) == 0;
    if (same) {
        keep_backends(layout, &again);
        same = mtree_equal(&layout->tree, &again);
    }
    mtree_deinit(&again);

    if (!same)
        conclude(layout, LAYOUT_CHANGED, "the layout changed while it was read");
    else if (!layout_finish(&layout->result))
        conclude(layout, LAYOUT_UNPROVEN, "ranges overlap or wrap");
    else
        conclude(layout, LAYOUT_READ, NULL);
}

static void on_location(void *userdata, const struct qmp_reply *reply) {
    struct layout *layout = userdata;
    const struct mtree_range *range = &layout->tree.ranges[layout->position];
    uint64_t gpa = range->gpa + (layout->last ? range->len - 1 : 0), hva;
    struct vmibus_layout_range *result = &layout->result.ranges[layout->position];
    const char *text;

    if (is_lost(layout, reply))
        return;
    text = qmp_text(reply, NULL);
    if (!text || !layout_parse_location(text, gpa, range->name, &hva)) {
        conclude(layout, LAYOUT_CHANGED, "gpa2hva contradicts the flat view");
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
        if (hva < result->location || hva - result->location != range->len - 1) {
            conclude(layout, LAYOUT_UNPROVEN, "a range does not lie in one piece");
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

    return qmp_execute_human(layout->qmp, line, on_location, layout);
}

static void on_first_view(void *userdata, const struct qmp_reply *reply) {
    struct layout *layout = userdata;
    const char *text;
    size_t len;

    if (is_lost(layout, reply))
        return;
    text = qmp_text(reply, &len);
    if (!text || mtree_parse(text, len, &layout->tree) != 0) {
        conclude(layout, LAYOUT_UNPROVEN, "the flat view of guest memory is not understood");
        return;
    }
    keep_backends(layout, &layout->tree);
    if (!layout->tree.n_ranges || layout->tree.n_ranges > LAYOUT_RANGES_BOUND) {
        conclude(layout, LAYOUT_UNPROVEN,
                 layout->tree.n_ranges ? "too many RAM ranges" : "no RAM in the flat view");
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

static int read_flat_view(struct layout *layout, qmp_reply_fn reply) {
    return qmp_execute_human(layout->qmp, "info mtree -f", reply, layout);
}

/* Takes the names of the backends, each under both forms that a flat view may show. */
static bool take_backends(struct layout *layout, json_object *list) {
    size_t n = json_object_array_length(list);

    if (!n || n > LAYOUT_BACKENDS_BOUND)
        return false;
    layout->backends = calloc(2 * n, sizeof(*layout->backends));
    if (!layout->backends)
        return false;
    for (size_t i = 0; i < n; i++) {
        const char *id = qmp_string(json_object_array_get_idx(list, i), "id");

        /*
         * A backend in use without an id cannot be told from a device's memory: it is not listed,
         * so not RAM.
         */
        if (!id || !*id)
            continue;
        if (strlen(id) + strlen(OBJECTS_PREFIX) > MTREE_NAME_BOUND)
            return false;
        strcpy(layout->backends[layout->n_backends++], id);
        snprintf(layout->backends[layout->n_backends++], sizeof(*layout->backends),
                 OBJECTS_PREFIX "%s", id);
    }

    return layout->n_backends != 0;
}

static void on_backends(void *userdata, const struct qmp_reply *reply) {
    struct layout *layout = userdata;

    if (is_lost(layout, reply))
        return;
    if (reply->outcome != QMP_RETURN || !json_object_is_type(reply->value, json_type_array) ||
        !take_backends(layout, reply->value)) {
        conclude(layout, LAYOUT_UNPROVEN, "the memory backends are not understood");
        return;
    }
    proceed(layout, read_flat_view(layout, on_first_view));
}

static void on_sev(void *userdata, const struct qmp_reply *reply) {
    struct layout *layout = userdata;
    bool enabled = false;

    if (is_lost(layout, reply))
        return;
    if (reply->outcome == QMP_RETURN && !qmp_boolean(reply->value, "enabled", &enabled)) {
        conclude(layout, LAYOUT_UNPROVEN, "whether the guest is confidential is not told");
        return;
    }
    if (enabled) {
        conclude(layout, LAYOUT_CONFIDENTIAL, "a confidential guest (SEV)");
        return;
    }
    /* A build without SEV has no such command; then the machine's own word is needed. */
    if (reply->outcome == QMP_ERROR && !layout->confidential_known) {
        conclude(layout, LAYOUT_UNPROVEN, "whether the guest is confidential cannot be told");
        return;
    }
    proceed(layout, qmp_execute(layout->qmp, "query-memdev", NULL, on_backends, layout));
}

static void on_machine(void *userdata, const struct qmp_reply *reply) {
    struct layout *layout = userdata;

    if (is_lost(layout, reply))
        return;
    if (reply->outcome == QMP_RETURN) {
        if (!json_object_is_type(reply->value, json_type_string)) {
            conclude(layout, LAYOUT_UNPROVEN, "whether the guest is confidential is not told");
            return;
        }
        if (json_object_get_string_len(reply->value) != 0) {
            conclude(layout, LAYOUT_CONFIDENTIAL, "a confidential guest");
            return;
        }
        layout->confidential_known = true;
    }
    proceed(layout, qmp_execute(layout->qmp, "query-sev", NULL, on_sev, layout));
}

static void forget(struct layout *layout) {
    free(layout->backends);
    layout->backends = NULL;
    layout->n_backends = 0;
    mtree_deinit(&layout->tree);
    layout_ranges_deinit(&layout->result);
    layout->position = 0;
    layout->last = false;
    layout->confidential_known = false;
}

int layout_read(struct layout *layout, struct qmp *qmp, layout_done_fn done, void *userdata) {
    json_object *arguments;
    int r;

    if (layout->reading)
        return -EALREADY;
    forget(layout);
    layout->qmp = qmp;
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
    r = qmp_execute(qmp, "qom-get", arguments, on_machine, layout);
    if (r < 0)
        return r;
    layout->reading = true;

    return 0;
}

void layout_deinit(struct layout *layout) {
    forget(layout);
    layout->reading = false;
}
