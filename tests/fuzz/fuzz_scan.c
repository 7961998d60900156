/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fuzz target: scans and scatter reads.  The input is a head, then the guest's memory from 0 on, with its tables in it.
 * Each step ends and gets somewhere, what is found stands there, by rising address; scattered reads end as single ones do.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <vmibus/guest.h>

#include "fuzz/target.h"

struct input {
    uint64_t cr3;
    uint64_t from;
    uint64_t last;
    uint64_t gvas[3];
    uint32_t lens[3];
    uint16_t step;
    uint8_t pattern_len;
    uint8_t flags; /* 1: five levels; 2: memory changes underfoot; 4: physical; 8: a mask; from 16 on: alignment */
    uint8_t octets[8];
    uint8_t mask[8];
};

struct guest {
    uint8_t *memory;
    size_t len;
    unsigned int reads;
    int changing;
};

#define STEPS 8
#define READS_IN_A_STEP 8192

static int read_memory(void *context, uint64_t gpa, void *buffer, size_t len) {
    struct guest *guest = context;

    guest->reads++;
    if (gpa > guest->len || len > guest->len - gpa)
        return VMIBUS_GUEST_OUTSIDE_RAM;
    memcpy(buffer, guest->memory + gpa, len);
    if (guest->changing && len > 0)
        guest->memory[gpa] ^= 0x81;
    return 0;
}

static int is_there(const struct vmibus_guest_pattern *pattern, const uint8_t *octets) {
    for (size_t i = 0; i < pattern->len; i++)
        if ((octets[i] ^ pattern->octets[i]) & (pattern->mask ? pattern->mask[i] : 0xff))
            return 0;
    return 1;
}

static void check_match(const struct guest *guest, const struct vmibus_guest_reader *reader,
                        const struct vmibus_guest_root *root, const struct vmibus_guest_pattern *pattern,
                        uint64_t address) {
    uint8_t octets[8];

    if (guest->changing)
        return;
    if (root) {
        if (vmibus_guest_read(reader, root, address, octets, pattern->len, NULL, NULL) != 0)
            abort();
    } else {
        memcpy(octets, guest->memory + address, pattern->len);
    }
    if (!is_there(pattern, octets))
        abort();
}

static void scan_on(struct guest *guest, const struct vmibus_guest_reader *reader, const struct vmibus_guest_root *root,
                    const struct vmibus_guest_pattern *pattern, const struct input *input,
                    struct vmibus_guest_scan *scan) {
    uint64_t matches[16], before = 0;
    unsigned int any = 0;
    int r = VMIBUS_GUEST_UNFINISHED;

    for (unsigned int i = 0; i < STEPS && r == VMIBUS_GUEST_UNFINISHED; i++) {
        size_t found;

        guest->reads = 0;
        r = vmibus_guest_scan_step(scan, 1 + input->step, matches, 1 + i % 16, &found);
        if (r < 0 || found > 1 + i % 16 || guest->reads > READS_IN_A_STEP)
            abort();
        for (size_t k = 0; k < found; k++, any = 1) {
            if (matches[k] < input->from || (any && matches[k] <= before) ||
                input->last - matches[k] < pattern->len - 1 || (pattern->align && matches[k] % pattern->align))
                abort();
            before = matches[k];
            check_match(guest, reader, root, pattern, before);
        }
    }
}

static void scatter(const struct vmibus_guest_reader *reader, const struct vmibus_guest_root *root,
                    const struct input *input) {
    static uint8_t buffers[3][10000];
    struct vmibus_guest_scatter reads[3];

    for (size_t i = 0; i < 3; i++)
        reads[i] = (struct vmibus_guest_scatter){
            .gva = input->gvas[i], .buffer = buffers[i], .len = input->lens[i] % sizeof(buffers[i])};
    if (vmibus_guest_read_scatter(reader, root, reads, 3) > 3)
        abort();
    for (size_t i = 0; i < 3; i++)
        if (reads[i].done > reads[i].len || (reads[i].result == 0) != (reads[i].done == reads[i].len))
            abort();
}

FUZZ_TARGET(scan) {
    struct vmibus_guest_pattern pattern;
    struct vmibus_guest_reader reader;
    struct vmibus_guest_root root;
    struct vmibus_guest_scan *scan;
    struct guest guest = {0};
    struct input input;
    int r;

    if (size < sizeof(input))
        return 0;
    memcpy(&input, data, sizeof(input));
    guest.len = size - sizeof(input);
    guest.memory = malloc(guest.len + 1);
    if (!guest.memory)
        return 0;
    memcpy(guest.memory, data + sizeof(input), guest.len);
    guest.changing = input.flags & 2;
    root = (struct vmibus_guest_root){.cr3 = input.cr3, .levels = input.flags & 1 ? 5 : 4};
    reader = (struct vmibus_guest_reader){.read = read_memory, .context = &guest};
    pattern = (struct vmibus_guest_pattern){
        .octets = input.octets,
        .mask = input.flags & 8 ? input.mask : NULL,
        .len = input.pattern_len % 10,
        .align = UINT64_C(1) << (input.flags >> 4),
    };
    if (pattern.len <= 8) {
        const struct vmibus_ram_range ranges[] = {{.len = guest.len / 2}, {.gpa = guest.len / 2, .len = guest.len - guest.len / 2}};

        if (input.flags & 4)
            r = vmibus_guest_scan_new_physical(&scan, &reader, ranges, 2, &pattern, input.from, input.last);
        else
            r = vmibus_guest_scan_new(&scan, &reader, &root, &pattern, input.from, input.last);
        if (r == 0)
            scan_on(&guest, &reader, input.flags & 4 ? NULL : &root, &pattern, &input, scan);
        vmibus_guest_scan_free(scan);
    }
    scatter(&reader, &root, &input);
    free(guest.memory);
    return 0;
}
