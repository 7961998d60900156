/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Files that are made, written durably and removed without the loop waiting: one thing at a time.
 *
 * By io_uring(7), whose eventfd wakes the loop; a thread does the same where that is forbidden (sysctl, seccomp) or not built
 * in.  A write is done when its octets are on the disk: write and fdatasync(2) are linked.  The making and the removal of a file
 * are done when the directory is on the disk too.
 *
 * A disk may take as long as it likes.  Who frees a `struct disk` waits for what is under way up to a bound; after it the thread
 * and what it could touch are left to it for ever.
 */
#ifndef AUDIT_DISK_H
#define AUDIT_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/loop.h"

struct disk;
struct disk_job;

enum disk_operation {
    DISK_CREATE,    /**< result: the descriptor of the file, which is made if it is not there */
    DISK_WRITE,
    DISK_REMOVE,
};

typedef void (*disk_fn)(void *context, const struct disk_job *job);

/** Something to be done. What it points to must stay until it is. */
struct disk_job {
    enum disk_operation operation;
    int directory;          /**< CREATE, REMOVE */
    const char *name;       /**< in it */
    int fd;                 /**< WRITE */
    const uint8_t *octets;
    size_t len;
    uint64_t offset;
    int result;             /**< out: 0 or a descriptor; a negative errno */
};

/** How it is done. */
enum disk_way {
    DISK_ANY,       /**< by io_uring if that can be */
    DISK_THREAD,
};

/**
 * @param done called on the loop's thread when a job is done; may begin the next one
 * @return 0 or a negative errno
 */
int disk_new(struct disk **diskp, struct loop *loop, enum disk_way way, disk_fn done, void *context);

/**
 * Frees it, after waiting for what is under way; done is not called any more.
 * @param job       receives the job that was under way; its operation is meaningless if there was none
 * @return 1: a job was under way and is done; 0: none was; -ETIMEDOUT: it is not done, and what it points to must be left alone
 */
int disk_free(struct disk *disk, unsigned timeout_ms, struct disk_job *job);

/** Begins a job; none may be under way. */
void disk_begin(struct disk *disk, const struct disk_job *job);

/** Waits for the job under way, which is then told of as by the loop. False: it is not done in time. */
bool disk_wait(struct disk *disk, unsigned timeout_ms);

/** Whether a job is under way. */
bool disk_is_busy(const struct disk *disk);

/** Whether it goes by io_uring. */
bool disk_is_ring(const struct disk *disk);

#endif
