/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A RAM object: the file, or the process's private memory, that stretches of guest RAM lie in.
 *
 * Only files of memory file systems (tmpfs with memfd, hugetlbfs) are taken: others can block a reader
 * for as long as whoever serves them likes.
 */
#ifndef MEMORY_OBJECT_H
#define MEMORY_OBJECT_H

#include <stdbool.h>
#include <stdint.h>

#include "memory/opener.h"
#include "memory/view.h"

struct ram_object {
    bool is_file;               /**< false: private memory of the process, which has no descriptor */
    struct opener_file file;    /**< of private memory: what shows where it was not written to; all zeros: nothing */
    int fd;                     /**< owned; -1 if there is none; of private memory: the file, read-only */
    bool writable;              /**< fd may be written */
    bool huge;                  /**< hugetlbfs: can be read through fd, not written */
    bool sealed;                /**< can never shrink */
    uint64_t extent;            /**< the file must be at least so long */
    uint64_t base;              /**< private memory without a file: host-virtual address of offset 0 */
    struct view view;
};

/** Prepares an object of which nothing is open. */
void ram_object_init(struct ram_object *object);

/** Closes what it has. */
void ram_object_deinit(struct ram_object *object);

/**
 * Takes a descriptor for the object, after looking at what it is.
 * @param fd   a file description of our own, read-write or read-only; consumed, also on failure
 * @param file what it has to be; NULL: whatever it is
 * @return 0, -ESTALE (another file), -EMEDIUMTYPE (no memory file system), or what fstat(2) says
 */
int ram_object_consume_fd(struct ram_object *object, int fd, const struct opener_file *file);

/** Whether the file is at least so long; memory always is. 1 yes, 0 no, or a negative errno. Any thread. */
int ram_object_reaches(const struct ram_object *object, uint64_t end);

/** Whether the file is still as long as it has to be. 1 yes, 0 no, or a negative errno. */
int ram_object_is_whole(const struct ram_object *object);

/** Maps the object for plain loads, if it is such that this is safe. Failing does not matter. */
void ram_object_map(struct ram_object *object);

/** Opens a file anew that a descriptor refers to, so that nothing is shared with its other users. */
int ram_object_reopen(int fd, int flags);

#endif
