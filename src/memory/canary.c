/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "memory/canary.h"

#include <string.h>

/*
 * Bits of a top-level entry that software or the processor may change at any time: accessed, and those
 * that the processor ignores (Intel SDM volume 3, tables 4-14 and 4-15).
 */
#define ENTRY_PRESENT UINT64_C(1)
#define ENTRY_STABLE UINT64_C(0x800ffffffffff09f)

#define ENTRY_SIZE sizeof(uint64_t)
#define TABLE_ADDRESS UINT64_C(0x000ffffffffff000)

static int read_guest(const struct vmibus_guest_reader *reader, uint64_t gpa, void *buffer,
                      size_t len) {
    return reader->read(reader->context, gpa, buffer, len);
}

static int read_entries(const struct canary *canary, const struct vmibus_guest_reader *reader,
                        uint64_t *entries) {
    return read_guest(reader, canary->table + CANARY_FIRST * ENTRY_SIZE, entries,
                      CANARY_ENTRIES * ENTRY_SIZE);
}

static int read_glance(const struct canary *canary, const struct vmibus_guest_reader *reader,
                       uint64_t *entry) {
    return read_guest(reader, canary->table + canary->glance * ENTRY_SIZE, entry, sizeof(*entry));
}

int canary_arm(struct canary *canary, const struct vmibus_guest_reader *reader,
               const struct vmibus_guest_root *root, uint64_t probe, uint64_t note,
               uint32_t note_len) {
    unsigned shift = root->levels == 5 ? 48 : 39;
    int r;

    *canary = (struct canary){
        .table = root->cr3 & TABLE_ADDRESS,
        .note = note,
        .note_len = note_len < CANARY_NOTE ? note_len : CANARY_NOTE,
        .glance = (uint32_t)(probe >> shift & 511),
    };
    r = read_entries(canary, reader, canary->entries);
    if (!r)
        r = read_glance(canary, reader, &canary->glance_entry);
    if (r)
        return r;
    for (size_t i = 0; i < CANARY_ENTRIES; i++)
        canary->entries[i] &= canary->entries[i] & ENTRY_PRESENT ? ENTRY_STABLE : 0;
    if (!(canary->glance_entry & ENTRY_PRESENT))
        return VMIBUS_GUEST_NOT_PRESENT;
    canary->glance_entry &= ENTRY_STABLE;
    return note ? read_guest(reader, note, canary->octets, canary->note_len) : 0;
}

/* What cannot be read any more is not what it was; a failure of the host says nothing about it. */
static int unread(int r) {
    return r < 0 ? r : CANARY_CHANGED;
}

static int note_compare(const struct canary *canary, const struct vmibus_guest_reader *reader) {
    uint8_t octets[CANARY_NOTE];
    int r;

    if (!canary->note)
        return 0;
    r = read_guest(reader, canary->note, octets, canary->note_len);
    if (r)
        return unread(r);
    return memcmp(octets, canary->octets, canary->note_len) ? CANARY_CHANGED : 0;
}

int canary_glance(const struct canary *canary, const struct vmibus_guest_reader *reader) {
    uint64_t entry;
    int r;

    r = read_glance(canary, reader, &entry);
    if (r)
        return unread(r);
    if ((entry & ENTRY_STABLE) != canary->glance_entry)
        return CANARY_CHANGED;
    return note_compare(canary, reader);
}

int canary_look(const struct canary *canary, const struct vmibus_guest_reader *reader) {
    uint64_t entries[CANARY_ENTRIES];
    int r;

    r = read_entries(canary, reader, entries);
    if (r)
        return unread(r);
    for (size_t i = 0; i < CANARY_ENTRIES; i++)
        if (canary->entries[i] && (entries[i] & ENTRY_STABLE) != canary->entries[i])
            return CANARY_CHANGED;
    return canary_glance(canary, reader);
}
