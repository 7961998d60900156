/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a reader of this library can do beside reading octets at an address: everything here gives what its read function
 * would give, faster.
 */
#ifndef VMIBUS_GUEST_DIRECT_H
#define VMIBUS_GUEST_DIRECT_H

#include <vmibus/guest.h>

struct vmibus_guest_direct {
    /** vmibus_guest_translate() with the reader's context. */
    int (*translate)(void *context, const struct vmibus_guest_root *root, uint64_t gva,
                     struct vmibus_guest_translation *translation);

    /** vmibus_guest_read() with the reader's context. */
    int (*read)(void *context, const struct vmibus_guest_root *root, uint64_t gva, void *buffer,
                size_t len, size_t *done, struct vmibus_guest_translation *fault);

    /** The next stretch of RAM, with data or without, at or after *gpa. As next_data. */
    int (*next_range)(void *context, uint64_t *gpa, uint64_t *len);

    /** vmibus_guest_ram_next_data() with the reader's context. */
    int (*next_data)(void *context, uint64_t *gpa, uint64_t *len);

    /**
     * Where octets can be looked at in place, until anything else of the reader is called; they may change meanwhile.
     * @param len how many are wanted; receives how many there are
     * @return NULL: they must be read
     */
    const uint8_t *(*look)(void *context, uint64_t gpa, uint64_t *len);
};

#endif
