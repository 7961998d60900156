/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fuzz target: the kernel's log.  The input is twenty 16-bit numbers, the lines of the note in the order that they are asked for,
 * the ring's address less the base, and then memory from the base on.  The visit ends, and each record is a text.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz/target.h"
#include "guest/linux/kernel.h"

#define BASE UINT64_C(0xffffffff80000000)
#define N_LINES 20

/* Stands in for the kernel object's functions. */
struct fuzzed {
    struct vmibus_linux kernel;
    uint16_t lines[N_LINES];
    size_t next_line;
    const uint8_t *memory;
    size_t len;
    size_t reads;
};

int linux_read(const struct vmibus_linux *kernel, uint64_t gva, void *buffer, size_t len) {
    struct fuzzed *fuzzed = (struct fuzzed *)(uintptr_t)kernel;
    uint64_t at = gva - BASE;

    fuzzed->reads++;
    if (at > fuzzed->len || len > fuzzed->len - at)
        return VMIBUS_GUEST_NOT_PRESENT;
    memcpy(buffer, fuzzed->memory + at, len);
    return 0;
}

bool linux_note_symbol(const struct vmibus_linux *kernel, const char *name, uint64_t *gva) {
    (void)kernel;
    (void)name;
    *gva = BASE;
    return true;
}

bool linux_note_number(const struct vmibus_linux *kernel, const char *key, uint32_t *value) {
    struct fuzzed *fuzzed = (struct fuzzed *)(uintptr_t)kernel;

    (void)key;
    *value = fuzzed->next_line < N_LINES ? fuzzed->lines[fuzzed->next_line++] : 0;
    return true;
}

static bool take(void *context, const struct vmibus_linux_record *record) {
    *(size_t *)context += record->len;
    if (record->len > UINT16_MAX || record->text[record->len] != '\0' || record->level > 7)
        abort();
    return true;
}

FUZZ_TARGET(printk) {
    struct vmibus_linux_picture picture;
    struct fuzzed fuzzed = {.reads = 0};
    size_t octets = 0;

    if (size < sizeof(fuzzed.lines))
        return 0;
    memcpy(fuzzed.lines, data, sizeof(fuzzed.lines));
    fuzzed.memory = data + sizeof(fuzzed.lines);
    fuzzed.len = size - sizeof(fuzzed.lines);
    if (vmibus_linux_visit_log(&fuzzed.kernel, take, &octets, &picture) < 0)
        abort();
    if (picture.flags & VMIBUS_LINUX_ENDED && picture.flags & VMIBUS_LINUX_BOUNDED)
        abort();
    if (picture.flags & VMIBUS_LINUX_STEADY && !(picture.flags & (VMIBUS_LINUX_ENDED | VMIBUS_LINUX_BOUNDED)))
        abort();
    return 0;
}
