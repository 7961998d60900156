/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The kernel's log since 5.10: a ring of descriptors, a ring of texts (Linux kernel/printk/printk_ringbuffer.h).
 *
 * A descriptor's state holds its id and, in the two highest bits, whether its record is there.  Its text block is told by two
 * positions that only ever rise; the block begins with the id of its descriptor, and one that does not fit the end of the
 * ring lies at its beginning.
 */
#ifndef GUEST_LINUX_LOG_H
#define GUEST_LINUX_LOG_H

#include "kernel.h"

enum {
    LOG_DESCRIPTOR_BITS_MAX = 22,   /**< 4 Mi records, for the largest CONFIG_LOG_BUF_SHIFT */
    LOG_TEXT_BITS_MAX = 31,
    LOG_TEXT_MAX = 65535,           /**< the length of a text has 16 bits */
};

/** Where members lie, as the note tells. */
struct log_layout {
    uint32_t ring_size, descriptors, texts;                     /**< printk_ringbuffer: its desc_ring, its text_data_ring */
    uint32_t count_bits, descs, infos, head_id, tail_id;        /**< prb_desc_ring */
    uint32_t size_bits, data;                                   /**< prb_data_ring */
    uint32_t desc_size, state, block, block_begin, block_next;  /**< prb_desc, prb_data_blk_lpos */
    uint32_t info_size, sequence, time, len, caller;            /**< printk_info */
};

/** The log at one moment. */
struct log_ring {
    uint64_t descs, infos, data;    /**< addresses */
    uint64_t head, tail;            /**< ids, the newest and the oldest */
    uint32_t count_bits, size_bits;
};

/** Looks up the layout. 0, or UNPROVEN: the note does not have all of it, or something that cannot be. */
int log_layout_get(struct vmibus_linux *kernel, struct log_layout *layout);

/** Finds and checks the ring. 0, UNPROVEN, an outcome of reading, or a negative errno. */
int log_ring_get(struct vmibus_linux *kernel, const struct log_layout *layout, struct log_ring *ring);

/** Where a text lies in the ring. */
struct log_text {
    uint64_t offset;    /**< of its block, the id included */
    uint64_t size;      /**< of the block; 0: the record has no text */
};

/** Finds a text block by its two positions. False: they cannot be of one. */
bool log_text_find(uint32_t size_bits, uint64_t begin, uint64_t next, struct log_text *text);

#endif
