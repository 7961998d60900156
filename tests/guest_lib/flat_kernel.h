/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * flat_kernel: a Linux kernel of a test's own making: an image of its memory at one address, its symbols, and BTF of the
 * structures that follow. It stands in for src/guest/linux/kernel.c and kallsyms.c, so whoever links it has the readers of
 * structures alone.
 *
 * The structures are those of Linux in names and members only: their layouts are the test's.
 */
#ifndef TESTS_GUEST_LIB_FLAT_KERNEL_H
#define TESTS_GUEST_LIB_FLAT_KERNEL_H

#include <stddef.h>
#include <stdint.h>

#include "guest/linux/kernel.h"

#define FLAT_BASE UINT64_C(0xffff888000000000)
#define FLAT_LEN (1 << 20)
#define FLAT_SYMBOLS 16

struct flat_kernel {
    struct vmibus_linux kernel; /**< to be given to the functions under test */
    uint8_t memory[FLAT_LEN];
    size_t used;
    struct {
        const char *name;
        uint64_t gva;
    } symbols[FLAT_SYMBOLS];
    size_t n_symbols;
    size_t reads;               /**< linux_read() so far */
    size_t fail_at;             /**< the number of the read, from 1, that fails; 0: none */
    int failure;                /**< ... with this */
    void (*before_read)(struct flat_kernel *flat, uint64_t gva); /**< to change things underfoot */
};

/* How address spaces are kept. */
enum flat_trees {
    FLAT_MAPLE,
    FLAT_RED_BLACK,
};

struct flat_list {
    uint64_t next, prev;
};

struct flat_dentry {
    uint64_t hash_next, hash_pprev, parent;
    uint32_t name_hash, name_len;
    uint64_t name, inode;
    char inline_name[32];
    uint64_t ops;
};

struct flat_dentry_operations {
    uint64_t d_revalidate, d_dname;
};

struct flat_mount {
    uint64_t mnt_parent, mnt_mountpoint;
    struct {
        uint64_t mnt_root, mnt_sb;
    } mnt;
};

struct flat_file {
    uint64_t mode;
    uint64_t path_mnt, path_dentry;
    uint64_t inode;
};

struct flat_inode {
    uint16_t mode;
    uint64_t super, number, private_data;
};

struct flat_namespace {
    uint64_t stashed, ops;
};

struct flat_super {
    uint64_t list;
    uint32_t device;
};

struct flat_mm {
    uint64_t root;      /**< of the maple tree or of the red-black tree */
    uint32_t users, map_count;
    uint64_t start_brk, brk, start_stack;
    uint64_t context_flags;
    uint64_t pgd, own_text[4];
};

struct flat_task {
    uint64_t mm, start_time;
    uint32_t pid, tgid;
    uint8_t rest[256];  /**< of what nobody asks for */
};

struct flat_area {
    uint64_t start, end, mm, flags;
    uint64_t rb_parent, rb_right, rb_left;
    uint64_t ops, page_offset, file, private_data, anon_name;
};

struct flat_operations {
    uint64_t open, name;
};

struct flat_special {
    uint64_t name, pages;
};

/* Linux include/linux/maple_tree.h, 64 bits. */
struct flat_range_node {
    uint64_t parent, pivot[15], slot[16];
};

struct flat_arange_node {
    uint64_t parent, pivot[9], slot[10], gap[10], meta;
};

/** Makes a kernel with the structures above. NULL where there is no memory. */
struct flat_kernel *flat_kernel_new(enum flat_trees trees);

/** Frees it. Takes and returns NULL. */
struct flat_kernel *flat_kernel_free(struct flat_kernel *flat);

/** Takes zeroed memory, at a multiple of 256 octets. Returns its address. Aborts when there is no more. */
uint64_t flat_take(struct flat_kernel *flat, size_t len);

/** The memory behind an address. */
void *flat_at(struct flat_kernel *flat, uint64_t gva);

/** Puts text there. Returns its address. */
uint64_t flat_text(struct flat_kernel *flat, const char *text);

void flat_symbol(struct flat_kernel *flat, const char *name, uint64_t gva);

/** Makes a mount on a dentry of another mount; of none: the topmost. Returns the address of its struct mount. */
uint64_t flat_mount(struct flat_kernel *flat, uint64_t parent, uint64_t mountpoint, uint64_t root);

/** Makes a dentry that is known by its parent; of none: the root of a file system. */
uint64_t flat_dentry(struct flat_kernel *flat, uint64_t parent, const char *name);

/** Makes an open file, its inode and super block. @a mount: of flat_mount(). */
uint64_t flat_file(struct flat_kernel *flat, uint64_t mount, uint64_t dentry, uint64_t inode, uint32_t device);

/** Makes an address space without areas. */
uint64_t flat_mm(struct flat_kernel *flat);

/** Makes a process, of which @a task tells; its mm is 0. */
void flat_task(struct flat_kernel *flat, uint32_t pid, struct vmibus_linux_task *task);

/** Makes an area, which is in no tree yet. */
uint64_t flat_area(struct flat_kernel *flat, uint64_t mm, uint64_t start, uint64_t end, uint64_t flags, uint64_t file);

/** Makes the tree of an address space of areas in rising order; a maple tree of leaves with @a fan entries, and nodes above. */
void flat_plant(struct flat_kernel *flat, enum flat_trees trees, uint64_t mm, const uint64_t *areas, size_t n, size_t fan);

#endif
