/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The mappings of a process, from the text of /proc/PID/maps (proc(5); kernel fs/proc/task_mmu.c,
 * show_map_vma()).  The process names its mappings and decides their number: the text is hostile and
 * every bound is checked.
 */
#ifndef MEMORY_MAPS_H
#define MEMORY_MAPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MAPS_ENTRIES_MAX 262144u
#define MAPS_TEXT_MAX (UINT32_C(32) << 20)

/** One mapping. */
struct maps_entry {
    uint64_t start;
    uint64_t end;           /**< first address after it */
    uint64_t offset;        /**< in the file */
    uint64_t inode;         /**< 0: no file */
    uint32_t device_major;
    uint32_t device_minor;
    bool readable;
    bool writable;
    bool shared;
    bool special;           /**< heap, stack, vdso and the like: never guest RAM */
};

/** All mappings of a process, ascending, disjoint. All zeros: none. */
struct maps {
    struct maps_entry *entries;
    size_t n_entries;
    size_t capacity;
};

/** Parses one line without its newline. 0 or -EBADMSG. */
int maps_parse_line(const char *line, size_t len, struct maps_entry *entry);

/**
 * Parses a whole text.
 * @param maps all zeros; maps_deinit() afterwards, also after failure
 * @return 0, -EBADMSG (malformed, or not ascending), -EFBIG (over a bound), -ENOMEM
 */
int maps_parse(struct maps *maps, const char *text, size_t len);

/** Reads a text from a descriptor and parses it. Also returns what read(2) says. */
int maps_read(struct maps *maps, int fd);

/** Frees what was parsed. Harmless on zeros. */
void maps_deinit(struct maps *maps);

/** The mapping that contains an address, or NULL. */
const struct maps_entry *maps_find(const struct maps *maps, uint64_t address);

#endif
