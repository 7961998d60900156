/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fake_disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "harness.h"

struct disk {
    disk_fn done;
    void *context;
    bool busy;
    struct disk_job job;
};

uint64_t fake_disk_writes;

static struct disk *the_disk;

int disk_new(struct disk **diskp, struct loop *loop, enum disk_way way, disk_fn done, void *context) {
    (void)loop;
    (void)way;
    the_disk = *diskp = calloc(1, sizeof(struct disk));
    **diskp = (struct disk){.done = done, .context = context};
    return 0;
}

static int do_job(const struct disk_job *job) {
    int fd;

    switch (job->operation) {
    case DISK_CREATE:
        fd = openat(job->directory, job->name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        return fd < 0 ? -errno : fd;
    case DISK_WRITE:
        fake_disk_writes++;
        return pwrite(job->fd, job->octets, job->len, (off_t)job->offset) == (ssize_t)job->len ? 0 : -EIO;
    case DISK_REMOVE:
        return unlinkat(job->directory, job->name, 0) < 0 ? -errno : 0;
    }
    return -EINVAL;
}

/* timeout_ms 0 in no test: what is under way is done. */
int disk_free(struct disk *disk, unsigned timeout_ms, struct disk_job *job) {
    bool was_busy = disk->busy;

    (void)timeout_ms;
    if (was_busy)
        disk->job.result = do_job(&disk->job);
    *job = disk->job;
    free(disk);
    the_disk = NULL;
    return was_busy;
}

void disk_begin(struct disk *disk, const struct disk_job *job) {
    ck_assert(!disk->busy);
    disk->job = *job;
    disk->busy = true;
}

/* Whoever waits at the start waits in vain. */
bool disk_wait(struct disk *disk, unsigned timeout_ms) {
    (void)timeout_ms;
    return !disk->busy;
}

bool disk_is_busy(const struct disk *disk) {
    return disk->busy;
}

bool disk_is_ring(const struct disk *disk) {
    (void)disk;
    return false;
}

const struct disk_job *fake_disk_job(void) {
    return the_disk && the_disk->busy ? &the_disk->job : NULL;
}

void fake_disk_do(int error, size_t partly) {
    struct disk_job job = the_disk->job;

    ck_assert(the_disk->busy);
    if (error && job.operation == DISK_WRITE && partly)
        ck_assert_int_eq(pwrite(job.fd, job.octets, partly, (off_t)job.offset), (ssize_t)partly);
    job.result = error ? error : do_job(&job);
    the_disk->busy = false;
    the_disk->done(the_disk->context, &job);
}
