/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fuzz target: the page walk.  The input is 24 octets (CR3, address, length, flags), then the
 * guest's memory from 0 on.  A walk ends, reads no entry twice, and its result is what its entries
 * say.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <vmibus/guest.h>

#include "fuzz/target.h"

struct input {
    uint64_t cr3;
    uint64_t gva;
    uint32_t len;
    uint32_t flags; /* 1: five levels; 2: memory changes underfoot */
};

struct guest {
    uint8_t *memory;
    size_t len;
    unsigned int reads;
    int changing;
};

static int read_memory(void *context, uint64_t gpa, void *buffer, size_t len) {
    struct guest *guest = context;

    guest->reads++;
    if (gpa > guest->len || len > guest->len - gpa)
        return VMIBUS_GUEST_OUTSIDE_RAM;
    memcpy(buffer, guest->memory + gpa, len);
    if (guest->changing && len > 0)
        guest->memory[gpa] ^= 0xff;
    return 0;
}

static void check(const struct guest *guest, const struct vmibus_guest_root *root, uint64_t gva,
                  int r, const struct vmibus_guest_translation *found) {
    uint64_t address = UINT64_C(0xffffffffff000), table = root->cr3 & address, entry = 0;

    if (r < 0 || r > VMIBUS_GUEST_OUTSIDE_RAM || guest->reads > root->levels ||
        found->depth > root->levels || found->level > root->levels || found->level < 1)
        abort();
    for (unsigned int i = 0; i < found->depth; i++) {
        uint64_t index = gva >> (12 + 9 * (root->levels - 1 - i)) & 511;

        entry = found->entries[i].value;
        if (found->entries[i].gpa != table + index * 8)
            abort();
        table = entry & address;
    }
    if (r != 0)
        return;
    if (!(entry & 1) || found->depth != root->levels - found->level + 1u ||
        found->page_size != UINT64_C(1) << (12 + 9 * (found->level - 1)) || found->level > 3 ||
        (found->gpa ^ gva) & (found->page_size - 1) ||
        (found->gpa ^ entry) & address & ~(found->page_size - 1))
        abort();
}

FUZZ_TARGET(pagewalk) {
    struct vmibus_guest_translation found;
    struct vmibus_guest_reader reader;
    struct vmibus_guest_root root;
    struct guest guest = {0};
    struct input input;
    uint8_t buffer[8192];
    size_t done;
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

    r = vmibus_guest_translate(&reader, &root, input.gva, &found);
    check(&guest, &root, input.gva, r, &found);
    input.len %= sizeof(buffer) + 1;
    r = vmibus_guest_read(&reader, &root, input.gva, buffer, input.len, &done, &found);
    if (done > input.len || (r == 0) != (done == input.len))
        abort();
    free(guest.memory);
    return 0;
}
