/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "log.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* The state of a descriptor: its id below, what it is above. */
#define STATE_SHIFT 62
#define ID_MASK ((UINT64_C(1) << STATE_SHIFT) - 1)

enum { STATE_COMMITTED = 1, STATE_FINALIZED = 2 };

/* Records that make no sense, after which the rest is not looked at: this is no log. */
#define BROKEN_MAX 1024

/*
 * Texts that are shown, together, and what a record counts for besides. Blocks of texts do not overlap, so they are never more than
 * the ring; but a guest may have each of its descriptors show all of it.
 */
#define SHOWN_MAX (UINT64_C(64) << 20)
#define SHOWN_RECORD 128

/* Octets of the id that a text block begins with. */
#define BLOCK_HEAD 8

/* --- the layout ------------------------------------------------------------------------------------------------ */

static const struct {
    const char *key;
    size_t target;
} lines[] = {
    {"SIZE(printk_ringbuffer)", offsetof(struct log_layout, ring_size)},
    {"OFFSET(printk_ringbuffer.desc_ring)", offsetof(struct log_layout, descriptors)},
    {"OFFSET(printk_ringbuffer.text_data_ring)", offsetof(struct log_layout, texts)},
    {"OFFSET(prb_desc_ring.count_bits)", offsetof(struct log_layout, count_bits)},
    {"OFFSET(prb_desc_ring.descs)", offsetof(struct log_layout, descs)},
    {"OFFSET(prb_desc_ring.infos)", offsetof(struct log_layout, infos)},
    {"OFFSET(prb_desc_ring.head_id)", offsetof(struct log_layout, head_id)},
    {"OFFSET(prb_desc_ring.tail_id)", offsetof(struct log_layout, tail_id)},
    {"OFFSET(prb_data_ring.size_bits)", offsetof(struct log_layout, size_bits)},
    {"OFFSET(prb_data_ring.data)", offsetof(struct log_layout, data)},
    {"SIZE(prb_desc)", offsetof(struct log_layout, desc_size)},
    {"OFFSET(prb_desc.state_var)", offsetof(struct log_layout, state)},
    {"OFFSET(prb_desc.text_blk_lpos)", offsetof(struct log_layout, block)},
    {"OFFSET(prb_data_blk_lpos.begin)", offsetof(struct log_layout, block_begin)},
    {"OFFSET(prb_data_blk_lpos.next)", offsetof(struct log_layout, block_next)},
    {"SIZE(printk_info)", offsetof(struct log_layout, info_size)},
    {"OFFSET(printk_info.seq)", offsetof(struct log_layout, sequence)},
    {"OFFSET(printk_info.ts_nsec)", offsetof(struct log_layout, time)},
    {"OFFSET(printk_info.text_len)", offsetof(struct log_layout, len)},
    {"OFFSET(printk_info.caller_id)", offsetof(struct log_layout, caller)},
};

/* Octets of a descriptor and of an info that are read; theirs are 24 and 88. */
#define DESC_MAX 256
#define INFO_MAX 512

/* Members that are read must lie in what is read of their structure. */
static bool is_possible(const struct log_layout *layout) {
    return layout->ring_size <= 4096 && layout->descriptors <= 4096 && layout->texts <= 4096 && layout->desc_size <= DESC_MAX &&
           layout->info_size <= INFO_MAX && (uint64_t)layout->state + 8 <= layout->desc_size &&
           (uint64_t)layout->block + layout->block_begin + 8 <= layout->desc_size &&
           (uint64_t)layout->block + layout->block_next + 8 <= layout->desc_size &&
           (uint64_t)layout->sequence + 8 <= layout->info_size && (uint64_t)layout->time + 8 <= layout->info_size &&
           (uint64_t)layout->len + 4 <= layout->info_size && (uint64_t)layout->caller + 4 <= layout->info_size;
}

int log_layout_get(struct vmibus_linux *kernel, struct log_layout *layout) {
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        uint32_t *target = (uint32_t *)(void *)((char *)layout + lines[i].target);

        if (!linux_note_number(kernel, lines[i].key, target))
            return linux_because(kernel, VMIBUS_GUEST_UNPROVEN,
                                 "the kernel's note does not describe its log, as it does since 5.10");
    }
    if (!is_possible(layout))
        return linux_because(kernel, VMIBUS_GUEST_UNPROVEN, "what the kernel's note says of its log cannot be");
    return 0;
}

int log_ring_get(struct vmibus_linux *kernel, const struct log_layout *layout, struct log_ring *ring) {
    uint64_t prb, descriptors, texts;
    int r;

    if (!linux_note_symbol(kernel, "prb", &prb))
        return linux_because(kernel, VMIBUS_GUEST_UNPROVEN, "the kernel's note does not say where its log is");
    r = linux_read_u64(kernel, prb, &prb);
    descriptors = prb + layout->descriptors;
    texts = prb + layout->texts;
    if (r == 0)
        r = linux_read_u32(kernel, descriptors + layout->count_bits, &ring->count_bits);
    if (r == 0)
        r = linux_read_u64(kernel, descriptors + layout->descs, &ring->descs);
    if (r == 0)
        r = linux_read_u64(kernel, descriptors + layout->infos, &ring->infos);
    if (r == 0)
        r = linux_read_u64(kernel, descriptors + layout->tail_id, &ring->tail);
    if (r == 0)
        r = linux_read_u64(kernel, descriptors + layout->head_id, &ring->head);
    if (r == 0)
        r = linux_read_u32(kernel, texts + layout->size_bits, &ring->size_bits);
    if (r == 0)
        r = linux_read_u64(kernel, texts + layout->data, &ring->data);
    if (r < 0)
        return r;
    if (r || ring->count_bits == 0 || ring->count_bits > LOG_DESCRIPTOR_BITS_MAX || ring->size_bits < 3 ||
        ring->size_bits > LOG_TEXT_BITS_MAX)
        return linux_because(kernel, VMIBUS_GUEST_UNPROVEN, "there is no log where the kernel has it");
    return 0;
}

bool log_text_find(uint32_t size_bits, uint64_t begin, uint64_t next, struct log_text *text) {
    uint64_t mask = (UINT64_C(1) << size_bits) - 1;

    *text = (struct log_text){0};
    if ((begin & 1) && (next & 1))  /* NO_LPOS, FAILED_LPOS: a record without text */
        return true;
    if (begin >> size_bits == next >> size_bits && next > begin)
        *text = (struct log_text){.offset = begin & mask, .size = next - begin};
    else if ((begin >> size_bits) + 1 == next >> size_bits)
        *text = (struct log_text){.offset = 0, .size = next & mask};
    return text->size > BLOCK_HEAD;
}

/* --- records --------------------------------------------------------------------------------------------------- */

struct reading {
    struct vmibus_linux *kernel;
    struct log_layout layout;
    struct log_ring ring;
    char *text;     /* LOG_TEXT_MAX + 1 octets */
    uint64_t texts; /* octets that were shown */
    uint64_t n;     /* records that were */
    bool steady;
};

static uint64_t get_u64(const uint8_t *octets, size_t offset) {
    uint64_t value;

    memcpy(&value, octets + offset, sizeof(value));
    return value;
}

/* Reads a text of at most len octets, whose block must begin with the descriptor's id. */
static int read_text(struct reading *reading, uint64_t id, const uint8_t *desc, uint32_t len, size_t *done) {
    const uint8_t *block = desc + reading->layout.block;
    struct log_text text;
    uint64_t owner;
    int r;

    *done = 0;
    if (!log_text_find(reading->ring.size_bits, get_u64(block, reading->layout.block_begin),
                       get_u64(block, reading->layout.block_next), &text))
        return VMIBUS_GUEST_UNPROVEN;
    if (text.size == 0)
        return 0;
    r = linux_read_u64(reading->kernel, reading->ring.data + text.offset, &owner);
    if (r == 0 && owner != id)
        r = VMIBUS_GUEST_UNPROVEN;
    if (r)
        return r;
    *done = len < text.size - BLOCK_HEAD ? len : (size_t)(text.size - BLOCK_HEAD);
    return linux_read(reading->kernel, reading->ring.data + text.offset + BLOCK_HEAD, reading->text, *done);
}

/* Facility and level follow the length: an octet, and the upper three bits of one. */
static int read_info(struct reading *reading, uint64_t index, struct vmibus_linux_record *record, uint32_t *len) {
    const struct log_layout *layout = &reading->layout;
    uint8_t info[INFO_MAX];
    int r = linux_read(reading->kernel, reading->ring.infos + index * layout->info_size, info, layout->info_size);

    if (r)
        return r;
    *record = (struct vmibus_linux_record){
        .sequence = get_u64(info, layout->sequence),
        .time = get_u64(info, layout->time),
        .facility = info[layout->len + 2],
        .level = info[layout->len + 3] >> 5,
    };
    memcpy(&record->caller, info + layout->caller, sizeof(record->caller));
    *len = (uint32_t)info[layout->len] | (uint32_t)info[layout->len + 1] << 8;
    return 0;
}

/* Reads a record. 0; NOT_FOUND: it is not one, or not yet, or not any more; or what went wrong. */
static int read_record(struct reading *reading, uint64_t id, struct vmibus_linux_record *record) {
    uint64_t index = id & ((UINT64_C(1) << reading->ring.count_bits) - 1), state, again;
    uint64_t gva = reading->ring.descs + index * reading->layout.desc_size;
    uint8_t desc[DESC_MAX];
    uint32_t len;
    int looked, r = linux_read(reading->kernel, gva, desc, reading->layout.desc_size);

    if (r)
        return r;
    state = get_u64(desc, reading->layout.state);
    if ((state & ID_MASK) != id || (state >> STATE_SHIFT != STATE_COMMITTED && state >> STATE_SHIFT != STATE_FINALIZED))
        return VMIBUS_GUEST_NOT_FOUND;
    r = read_info(reading, index, record, &len);
    if (r == 0)
        r = read_text(reading, id, desc, len, &record->len);
    if (r < 0)
        return r;
    /* What it said counts only if it was still there in the end. */
    looked = linux_read_u64(reading->kernel, gva + reading->layout.state, &again);
    if (looked < 0 || (looked == 0 && again == state))
        return looked < 0 ? looked : r;
    reading->steady = false;
    return VMIBUS_GUEST_NOT_FOUND;
}

/* Whether one more record may be shown. */
static bool is_within_bound(struct reading *reading, size_t len) {
    reading->texts += len;
    reading->n++;
    return reading->texts <= UINT64_C(1) << reading->ring.size_bits && reading->texts + reading->n * SHOWN_RECORD <= SHOWN_MAX;
}

/* The ids from the oldest to the newest; of a ring that cannot be, none. */
static int visit_records(struct reading *reading, vmibus_linux_record_fn visit, void *context,
                         struct vmibus_linux_picture *picture) {
    uint64_t n = ((reading->ring.head - reading->ring.tail) & ID_MASK) + 1;

    if (n > UINT64_C(1) << reading->ring.count_bits)
        return linux_because(reading->kernel, VMIBUS_GUEST_UNPROVEN, "the log's ends contradict each other");
    for (uint64_t i = 0; i < n; i++) {
        struct vmibus_linux_record record;
        int r = read_record(reading, (reading->ring.tail + i) & ID_MASK, &record);

        if (r < 0)
            return r;
        if (r == VMIBUS_GUEST_NOT_FOUND)
            continue;
        if (r) {
            if (++picture->n_broken > BROKEN_MAX)
                return 0;
            continue;
        }
        if (!is_within_bound(reading, record.len)) {
            picture->flags |= VMIBUS_LINUX_BOUNDED;
            return 0;
        }
        record.text = reading->text;
        reading->text[record.len] = '\0';
        picture->n_seen++;
        if (!visit(context, &record))
            return 0;
    }
    picture->flags |= VMIBUS_LINUX_ENDED;
    return 0;
}

int vmibus_linux_visit_log(struct vmibus_linux *kernel, vmibus_linux_record_fn visit, void *context,
                           struct vmibus_linux_picture *picture) {
    struct reading reading = {.kernel = kernel, .steady = true};
    struct log_ring after;
    int r = log_layout_get(kernel, &reading.layout);

    *picture = (struct vmibus_linux_picture){0};
    if (r == 0)
        r = log_ring_get(kernel, &reading.layout, &reading.ring);
    if (r)
        return r;
    reading.text = malloc(LOG_TEXT_MAX + 1);
    if (!reading.text)
        return -ENOMEM;
    r = visit_records(&reading, visit, context, picture);
    free(reading.text);
    if (r || !(picture->flags & (VMIBUS_LINUX_ENDED | VMIBUS_LINUX_BOUNDED)))
        return r;
    r = log_ring_get(kernel, &reading.layout, &after);
    if (r == 0 && reading.steady && after.head == reading.ring.head && after.tail == reading.ring.tail)
        picture->flags |= VMIBUS_LINUX_STEADY;
    return r < 0 ? r : 0;
}
