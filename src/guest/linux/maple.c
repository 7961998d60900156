/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Descents of a maple tree, and the entries of a leaf.
 *
 * A node has slots; the pivot beside each is the last index that it is for, and the last slot in use, whose pivot is left
 * out, 0 or the node's own last index, is for the rest. A pointer to a node has its type in bits 3 to 6, and other marks below
 * its alignment.
 */
#include "maple.h"

#include <inttypes.h>
#include <string.h>

enum {
    HEIGHT_BOUND = 31, /* MAPLE_HEIGHT_MAX */

    /* enum maple_type */
    TYPE_LEAF = 1,
    TYPE_RANGE = 2,
    TYPE_ARANGE = 3,

    TYPE_SHIFT = 3,
    TYPE_MASK = 0x0f,
};

/* Pointers below are values of the tree itself, such as a place that is reserved (xa_is_node(), XA_ZERO_ENTRY). */
#define SPECIAL_VALUES UINT64_C(4096)
/* What is no pointer to an object, but the tree's own, has these bits set (xa_is_internal(), xa_is_value()). */
#define INTERNAL_BITS UINT64_C(3)

static const struct linux_wish wishes[] = {
    {"maple_range_64", "parent", offsetof(struct maple_fields, node_parent), false},
    {"maple_range_64", "pivot", offsetof(struct maple_fields, range_pivots), false},
    {"maple_range_64", "slot", offsetof(struct maple_fields, range_slots), false},
    {"maple_arange_64", "pivot", offsetof(struct maple_fields, arange_pivots), false},
    {"maple_arange_64", "slot", offsetof(struct maple_fields, arange_slots), false},
    {0},
};

static bool fits(const struct linux_field *field) {
    return field->size % 8 == 0 && field->offset <= MAPLE_NODE_SIZE && field->size <= MAPLE_NODE_SIZE - field->offset;
}

int maple_fields_resolve(struct vmibus_linux *kernel, struct maple_fields *fields) {
    int r = linux_fields_resolve(kernel, wishes, fields);

    if (r != 0)
        return r;
    if (fields->node_parent.size != 8 || !fits(&fields->node_parent) || !fits(&fields->range_pivots) ||
        !fits(&fields->range_slots) || !fits(&fields->arange_pivots) || !fits(&fields->arange_slots))
        return linux_because(kernel, VMIBUS_GUEST_UNPROVEN, "the kernel's maple tree has nodes of another shape than is known");
    return 0;
}

static uint64_t word_at(const uint8_t *node, uint32_t offset) {
    uint64_t word;

    memcpy(&word, node + offset, sizeof(word));
    return word;
}

/* The slots of a node, one after another. */
struct slots {
    const uint8_t *node;
    const struct linux_field *pivots, *values;
    uint64_t first, last; /* the range of the present slot */
    uint64_t max;         /* of the node */
    uint32_t i;
};

static struct slots slots_of(const struct maple_fields *fields, const uint8_t *node, unsigned int type, uint64_t min,
                             uint64_t max) {
    bool is_arange = type == TYPE_ARANGE;

    return (struct slots){
        .node = node,
        .pivots = is_arange ? &fields->arange_pivots : &fields->range_pivots,
        .values = is_arange ? &fields->arange_slots : &fields->range_slots,
        .first = min,
        .max = max,
    };
}

/* Finds the range of the present slot. False: the node contradicts itself. */
static bool look(struct slots *slots) {
    uint64_t pivot = slots->max;

    if (slots->i >= slots->values->size / 8)
        return false;
    if (slots->i < slots->pivots->size / 8)
        pivot = word_at(slots->node, slots->pivots->offset + slots->i * 8);
    if (pivot == 0 && slots->i > 0)
        pivot = slots->max;
    slots->last = pivot;
    return pivot >= slots->first && pivot <= slots->max;
}

static uint64_t value_of(const struct slots *slots) {
    return word_at(slots->node, slots->values->offset + slots->i * 8);
}

/* Goes on to the next slot. False: this was the last one. */
static bool advance(struct slots *slots) {
    if (slots->last == slots->max)
        return false;
    slots->first = slots->last + 1;
    slots->i++;
    return true;
}

static int contradiction(struct vmibus_linux *kernel, uint64_t node) {
    return linux_because(kernel, VMIBUS_GUEST_UNPROVEN, "the maple tree node at %#" PRIx64 " contradicts itself", node);
}

/* Reads the node that a pointer leads to. */
static int read_node(struct vmibus_linux *kernel, const struct maple_fields *fields, uint64_t pointer,
                     uint8_t node[MAPLE_NODE_SIZE]) {
    uint64_t gva = pointer & ~(uint64_t)(MAPLE_NODE_SIZE - 1);
    int r;

    if (!linux_is_kernel_address(kernel, gva))
        return contradiction(kernel, gva);
    r = linux_read(kernel, gva, node, MAPLE_NODE_SIZE);
    if (r != 0)
        return linux_because(kernel, r, "the maple tree node at %#" PRIx64 " cannot be read", gva);
    if ((word_at(node, fields->node_parent.offset) & ~(uint64_t)(MAPLE_NODE_SIZE - 1)) == gva)
        return linux_because(kernel, VMIBUS_GUEST_CHANGED, "the maple tree node at %#" PRIx64 " has been replaced", gva);
    return 0;
}

/* From a node to the one beneath that an index belongs to. */
static int take_child(struct vmibus_linux *kernel, const struct maple_fields *fields, struct maple_cursor *cursor,
                      unsigned int type, uint64_t index, uint64_t *pointer) {
    struct slots slots = slots_of(fields, cursor->leaf, type, cursor->min, cursor->max);

    do {
        if (!look(&slots))
            return contradiction(kernel, *pointer);
    } while (index > slots.last && advance(&slots));
    cursor->min = slots.first;
    cursor->max = slots.last;
    *pointer = value_of(&slots);
    return 0;
}

/* Reads the leaf that an index belongs to. */
static int descend(struct vmibus_linux *kernel, const struct maple_fields *fields, uint64_t root_gva, uint64_t index,
                   struct maple_cursor *cursor) {
    uint64_t pointer;
    int r = linux_read_u64(kernel, root_gva, &pointer);

    cursor->has_leaf = false;
    cursor->min = 0;
    cursor->max = UINT64_MAX;
    if (r != 0)
        return linux_because(kernel, r, "the root of a maple tree at %#" PRIx64 " cannot be read", root_gva);
    if (pointer == 0)
        return VMIBUS_GUEST_NOT_FOUND;
    if ((pointer & INTERNAL_BITS) != 2 || pointer < SPECIAL_VALUES)
        return contradiction(kernel, root_gva);
    for (int height = 0; height < HEIGHT_BOUND; height++) {
        unsigned int type = (unsigned int)(pointer >> TYPE_SHIFT & TYPE_MASK);

        r = read_node(kernel, fields, pointer, cursor->leaf);
        if (r != 0)
            return r;
        if (type == TYPE_LEAF) {
            cursor->has_leaf = true;
            return 0;
        }
        if (type != TYPE_RANGE && type != TYPE_ARANGE)
            return linux_because(kernel, VMIBUS_GUEST_UNPROVEN, "a maple tree has a node of type %u, which is not known", type);
        r = take_child(kernel, fields, cursor, type, index, &pointer);
        if (r != 0)
            return r;
    }
    return linux_because(kernel, VMIBUS_GUEST_UNPROVEN, "a maple tree is more than %d nodes high", HEIGHT_BOUND);
}

static bool is_object(uint64_t value) {
    return value >= SPECIAL_VALUES && (value & INTERNAL_BITS) == 0;
}

/* The first entry of the leaf whose range ends at or after an index. */
static int find_in_leaf(struct vmibus_linux *kernel, const struct maple_fields *fields, const struct maple_cursor *cursor,
                        uint64_t index, struct maple_entry *entry) {
    struct slots slots = slots_of(fields, cursor->leaf, TYPE_LEAF, cursor->min, cursor->max);

    do {
        if (!look(&slots))
            return linux_because(kernel, VMIBUS_GUEST_UNPROVEN, "a leaf of a maple tree contradicts itself");
        if (slots.last >= index && is_object(value_of(&slots))) {
            *entry = (struct maple_entry){.first = slots.first, .last = slots.last, .value = value_of(&slots)};
            return 0;
        }
    } while (advance(&slots));
    return VMIBUS_GUEST_NOT_FOUND;
}

int maple_next(struct vmibus_linux *kernel, const struct maple_fields *fields, uint64_t root_gva, uint64_t index,
               struct maple_cursor *cursor, struct maple_entry *entry) {
    for (int empty = 0;; empty++) {
        int r = 0;

        if (!cursor->has_leaf || index < cursor->min || index > cursor->max)
            r = descend(kernel, fields, root_gva, index, cursor);
        if (r == 0)
            r = find_in_leaf(kernel, fields, cursor, index, entry);
        if (r != VMIBUS_GUEST_NOT_FOUND || !cursor->has_leaf || cursor->max == UINT64_MAX)
            return r;
        /* Leaves without any entry do not stay: a tree that has many beside each other is none. */
        if (empty == HEIGHT_BOUND)
            return linux_because(kernel, VMIBUS_GUEST_UNPROVEN, "a maple tree has %d leaves without an entry", empty);
        index = cursor->max + 1;
    }
}
