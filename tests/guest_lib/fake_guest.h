/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fake_guest: guest-physical memory in an array, with page tables and notes put there by a test.
 *
 * Nothing here uses the code under test; what is wrong aborts the test.
 */
#ifndef TESTS_GUEST_LIB_FAKE_GUEST_H
#define TESTS_GUEST_LIB_FAKE_GUEST_H

#include <stddef.h>
#include <stdint.h>

#include <vmibus/guest.h>

#define FAKE_PAGE UINT64_C(0x1000)

/* Bits of entries, by the numbers of the Intel SDM. */
#define ENTRY_PRESENT (UINT64_C(1) << 0)
#define ENTRY_WRITABLE (UINT64_C(1) << 1)
#define ENTRY_USER (UINT64_C(1) << 2)
#define ENTRY_LARGE (UINT64_C(1) << 7)
#define ENTRY_NX (UINT64_C(1) << 63)
#define ENTRY_TABLE (ENTRY_PRESENT | ENTRY_WRITABLE | ENTRY_USER)

/** Where Linux maps its image. */
#define FAKE_IMAGE UINT64_C(0xffffffff80000000)

struct fake_guest {
    uint8_t *memory;     /**< from gpa 0 on; the test's */
    uint64_t len;        /**< octets; what lies behind is outside RAM */
    uint64_t next_table; /**< where fake_guest_page() takes pages from */

    /* What the reader was asked. */
    size_t reads;
    uint64_t read_gpa[64]; /**< of the first reads */

    /** If set, called after each read, to change memory underfoot. */
    void (*after_read)(struct fake_guest *guest, uint64_t gpa);
    int fail_at_read; /**< the number of the read, from 1, that fails; 0: none */
    int failure;      /**< ... with this */
};

/** A page that was not used yet, zeroed; its gpa. */
uint64_t fake_guest_page(struct fake_guest *guest);

/** The entry that translates gva on a level, making tables above it as need be. */
uint64_t *fake_guest_entry(struct fake_guest *guest, struct vmibus_guest_root root, uint64_t gva,
                           unsigned int level);

/** Maps a page: level 1 is 4 KiB, 2 is 2 MiB, 3 is 1 GiB. flags come on top of PRESENT. */
void fake_guest_map(struct fake_guest *guest, struct vmibus_guest_root root, uint64_t gva,
                    uint64_t gpa, unsigned int level, uint64_t flags);

/** A way to read the array. */
struct vmibus_guest_reader fake_guest_reader(struct fake_guest *guest);

/** A kernel to put into a guest. */
struct fake_kernel {
    struct vmibus_guest_root root; /**< filled */
    uint64_t swapper;              /**< filled: virtual */
    uint64_t phys_base;
    uint8_t levels;
};

/** Makes a kernel's top table, which maps the image of the kernel, itself included. */
void fake_guest_boot(struct fake_guest *guest, struct fake_kernel *kernel);

/** Writes the note of a kernel at gpa. Returns its length. */
size_t fake_guest_note(struct fake_guest *guest, uint64_t gpa, const struct fake_kernel *kernel);

/** Makes the top table of a process: a user page, and the kernel half of the kernel's. */
uint64_t fake_guest_process(struct fake_guest *guest, const struct fake_kernel *kernel);

#endif
