/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reading page tables a table at a time: neighbouring pages of one write are translated by the same
 * tables, and each entry costs a system call.  What was read is remembered as long as the reader is
 * used, one translation of one write.
 */
#ifndef MEMORY_TABLES_H
#define MEMORY_TABLES_H

#include <stdbool.h>
#include <stdint.h>

#include <vmibus/guest.h>

#define TABLES_SIZE 4096u
#define TABLES_KEPT 8u

struct tables_reader {
    const struct vmibus_guest_reader *guest;    /**< borrowed */
    unsigned next;                              /**< to be forgotten next */
    struct {
        bool known;
        uint64_t gpa;
        uint8_t octets[TABLES_SIZE];
    } kept[TABLES_KEPT];
};

/** Prepares a reader of tables, and the callback of libvmibus-guest that reads through it. */
struct vmibus_guest_reader tables_reader_init(struct tables_reader *reader,
                                              const struct vmibus_guest_reader *guest);

#endif
