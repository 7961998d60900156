/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "audit/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <vmibus/syscalls.h>

VMIBUS_SYSCALLS("eventfd2 fdatasync fsync io_uring_enter io_uring_register openat unlinkat")

#ifdef HAVE_LIBURING
#include <liburing.h>
#endif

#include "util/fault.h"
#include "util/fds.h"
#include "util/thread.h"

#define FILE_FLAGS (O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)
#define FILE_MODE 0600

/* Entries of the ring: a job has two steps at most, and one job is under way. */
#define RING_ENTRIES 4

/* What a step of the ring is; its user data. Errors of linked ones come with both. */
enum step {
    STEP_MAIN = 1,
    STEP_SYNC,
};

struct disk {
    struct loop_source source;  /* an eventfd, owned */
    disk_fn done;
    void *context;
    bool busy;
    struct disk_job job;
    size_t written;             /* octets of a write */
    int injected;
    bool by_ring;
    bool broken;                /* there is neither ring nor thread */
#ifdef HAVE_LIBURING
    struct io_uring ring;
    int main_result;
#endif
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t wanted;
    bool has_work, ends, finished; /* under the mutex */
};

static void raise_event(const struct disk *disk) {
    const uint64_t one = 1;

    (void)!write(disk->source.fd, &one, sizeof(one));
}

static void complete(struct disk *disk, int result) {
    disk->job.result = result;
    disk->busy = false;
}

/* --- by a thread ------------------------------------------------------------------------------- */

static int sync_directory(const struct disk_job *job) {
    return fsync(job->directory) < 0 ? -errno : 0;
}

static int do_create(const struct disk_job *job) {
    _cleanup_fd_ int fd = openat(job->directory, job->name, FILE_FLAGS, FILE_MODE);
    int r;

    if (fd < 0)
        return -errno;
    r = sync_directory(job);
    return r < 0 ? r : fd_steal(&fd);
}

static int do_write(const struct disk_job *job) {
    size_t written = 0;

    while (written < job->len) {
        ssize_t n = pwrite(job->fd, job->octets + written, job->len - written, (off_t)(job->offset + written));

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        written += (size_t)n;
    }
    return fdatasync(job->fd) < 0 ? -errno : 0;
}

static int do_job(const struct disk_job *job) {
    switch (job->operation) {
    case DISK_CREATE:
        return do_create(job);
    case DISK_WRITE:
        return do_write(job);
    case DISK_REMOVE:
        return unlinkat(job->directory, job->name, 0) < 0 ? -errno : sync_directory(job);
    }
    return -EINVAL;
}

static void *work(void *argument) {
    struct disk *disk = argument;

    pthread_mutex_lock(&disk->mutex);
    for (;;) {
        int r;

        while (!disk->has_work && !disk->ends)
            pthread_cond_wait(&disk->wanted, &disk->mutex);
        if (!disk->has_work)
            break;
        pthread_mutex_unlock(&disk->mutex);
        r = disk->injected ? disk->injected : do_job(&disk->job);
        pthread_mutex_lock(&disk->mutex);
        disk->job.result = r;
        disk->has_work = false;
        disk->finished = true;
        raise_event(disk);
    }
    pthread_mutex_unlock(&disk->mutex);
    return NULL;
}

static void thread_submit(struct disk *disk) {
    pthread_mutex_lock(&disk->mutex);
    disk->has_work = true;
    disk->finished = false;
    pthread_cond_signal(&disk->wanted);
    pthread_mutex_unlock(&disk->mutex);
}

static void thread_harvest(struct disk *disk) {
    pthread_mutex_lock(&disk->mutex);
    if (disk->finished)
        complete(disk, disk->job.result);
    disk->finished = false;
    pthread_mutex_unlock(&disk->mutex);
}

static int thread_init(struct disk *disk) {
    pthread_mutex_init(&disk->mutex, NULL);
    pthread_cond_init(&disk->wanted, NULL);
    return thread_start(&disk->thread, work, disk);
}

static void thread_deinit(struct disk *disk) {
    pthread_mutex_lock(&disk->mutex);
    disk->ends = true;
    pthread_cond_signal(&disk->wanted);
    pthread_mutex_unlock(&disk->mutex);
    pthread_join(disk->thread, NULL);
    pthread_cond_destroy(&disk->wanted);
    pthread_mutex_destroy(&disk->mutex);
}

/* --- by io_uring ------------------------------------------------------------------------------- */

#ifdef HAVE_LIBURING

static void put_sync(struct disk *disk, int fd, unsigned flags) {
    struct io_uring_sqe *sqe = io_uring_get_sqe(&disk->ring);

    io_uring_prep_fsync(sqe, fd, flags);
    io_uring_sqe_set_data64(sqe, STEP_SYNC);
}

static void put_write(struct disk *disk) {
    const struct disk_job *job = &disk->job;
    struct io_uring_sqe *sqe = io_uring_get_sqe(&disk->ring);

    io_uring_prep_write(sqe, job->fd, job->octets + disk->written, (unsigned)(job->len - disk->written),
                        job->offset + disk->written);
    io_uring_sqe_set_flags(sqe, IOSQE_IO_LINK);
    io_uring_sqe_set_data64(sqe, STEP_MAIN);
    put_sync(disk, job->fd, IORING_FSYNC_DATASYNC);
}

static void put_main(struct disk *disk) {
    const struct disk_job *job = &disk->job;
    struct io_uring_sqe *sqe;

    if (job->operation == DISK_WRITE) {
        put_write(disk);
        return;
    }
    sqe = io_uring_get_sqe(&disk->ring);
    if (job->operation == DISK_CREATE)
        io_uring_prep_openat(sqe, job->directory, job->name, FILE_FLAGS, FILE_MODE);
    else
        io_uring_prep_unlinkat(sqe, job->directory, job->name, 0);
    io_uring_sqe_set_data64(sqe, STEP_MAIN);
}

/* What the ring did not take must never be taken later, when the octets are others: the thread does it, from its beginning. */
static void leave_ring(struct disk *disk, int error) {
    bool made = disk->job.operation == DISK_CREATE && disk->main_result > 0;

    io_uring_queue_exit(&disk->ring);
    disk->by_ring = false;
    if (made)
        disk->main_result = fd_close(disk->main_result);
    if (thread_init(disk) == 0) {
        thread_submit(disk);
        return;
    }
    disk->broken = true;
    disk->injected = error;
    raise_event(disk);
}

static void submit(struct disk *disk) {
    int r;

    do {
        r = io_uring_submit(&disk->ring);
    } while (r == -EINTR);
    if (r < 0)
        leave_ring(disk, r);
}

static void ring_submit(struct disk *disk) {
    disk->written = 0;
    disk->main_result = 0;
    if (disk->injected) {
        raise_event(disk);
        return;
    }
    put_main(disk);
    submit(disk);
}

/* A link breaks when its first part fails or is short; then the second says that it was cancelled. */
static void take_write(struct disk *disk, int sync_result) {
    if (disk->main_result < 0) {
        complete(disk, disk->main_result == -EINTR || disk->main_result == -EAGAIN ? -EIO : disk->main_result);
        return;
    }
    disk->written += (size_t)disk->main_result;
    if (disk->written == disk->job.len && sync_result != -ECANCELED) {
        complete(disk, sync_result);
    } else if (disk->main_result == 0) {
        complete(disk, -EIO);
    } else {
        put_write(disk);
        submit(disk);
    }
}

/* A file that was made and is in no directory for sure is none. */
static void take_sync(struct disk *disk, int result) {
    if (disk->job.operation == DISK_WRITE) {
        take_write(disk, result);
    } else if (result < 0 && disk->job.operation == DISK_CREATE) {
        fd_close(disk->main_result);
        complete(disk, result);
    } else {
        complete(disk, result < 0 ? result : disk->main_result);
    }
}

static void take_step(struct disk *disk, enum step step, int result) {
    if (step == STEP_SYNC) {
        take_sync(disk, result);
        return;
    }
    disk->main_result = result;
    if (disk->job.operation == DISK_WRITE)
        return; /* the other part of the link follows */
    if (result < 0) {
        complete(disk, result);
        return;
    }
    put_sync(disk, disk->job.directory, 0);
    submit(disk);
}

static void ring_harvest(struct disk *disk) {
    struct io_uring_cqe *cqe;

    if (disk->busy && disk->injected)
        complete(disk, disk->injected);
    while (disk->by_ring && disk->busy && io_uring_peek_cqe(&disk->ring, &cqe) == 0) {
        enum step step = (enum step)io_uring_cqe_get_data64(cqe);
        int result = cqe->res;

        io_uring_cqe_seen(&disk->ring, cqe);
        take_step(disk, step, result);
    }
}

static const uint8_t needed[] = {IORING_OP_WRITE, IORING_OP_FSYNC, IORING_OP_OPENAT, IORING_OP_UNLINKAT};

#define N_NEEDED (sizeof(needed) / sizeof(*needed))

/* The kernel must know what is asked of it: openat and unlinkat came later than the rest (5.11). */
static bool ring_can(struct io_uring *ring) {
    struct io_uring_probe *probe = io_uring_get_probe_ring(ring);
    bool can = probe;

    for (size_t i = 0; can && i < N_NEEDED; i++)
        can = io_uring_opcode_supported(probe, needed[i]);
    io_uring_free_probe(probe);
    return can;
}

/* What liburing 2.3 declares and does not export. */
static bool ring_register(const struct io_uring *ring, unsigned operation, const void *argument, unsigned n) {
    return syscall(SYS_io_uring_register, ring->ring_fd, operation, argument, n) == 0;
}

/* A filter of system calls does not see what a ring does (seccomp(2)), so this one does nothing else from its beginning. */
static bool ring_limit(struct io_uring *ring) {
    struct io_uring_restriction restrictions[N_NEEDED + 1] = {
        [N_NEEDED] = {.opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED, .sqe_flags = IOSQE_IO_LINK},
    };

    for (size_t i = 0; i < N_NEEDED; i++)
        restrictions[i] = (struct io_uring_restriction){.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = needed[i]};
    return ring_register(ring, IORING_REGISTER_RESTRICTIONS, restrictions, N_NEEDED + 1) &&
           ring_register(ring, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
}

static bool ring_init(struct disk *disk) {
    if (io_uring_queue_init(RING_ENTRIES, &disk->ring, IORING_SETUP_R_DISABLED) < 0)
        return false;
    if (ring_can(&disk->ring) && io_uring_ring_dontfork(&disk->ring) == 0 &&
        io_uring_register_eventfd(&disk->ring, disk->source.fd) == 0 && ring_limit(&disk->ring))
        return true;
    io_uring_queue_exit(&disk->ring);
    return false;
}

static void ring_deinit(struct disk *disk) {
    io_uring_queue_exit(&disk->ring);
}

#else

static bool ring_init(struct disk *disk) {
    (void)disk;
    return false;
}

static void ring_submit(struct disk *disk) {
    (void)disk;
}

static void ring_harvest(struct disk *disk) {
    (void)disk;
}

static void ring_deinit(struct disk *disk) {
    (void)disk;
}

#endif

/* --- both -------------------------------------------------------------------------------------- */

static void harvest(struct disk *disk) {
    uint64_t count;

    (void)!read(disk->source.fd, &count, sizeof(count));
    if (disk->broken)
        complete(disk, disk->injected);
    else if (disk->by_ring)
        ring_harvest(disk);
    else
        thread_harvest(disk);
}

static void event_came(struct loop_source *source, uint32_t events) {
    struct disk *disk = container_of(source, struct disk, source);
    bool was_busy = disk->busy;
    struct disk_job job;

    (void)events;
    harvest(disk);
    if (!was_busy || disk->busy)
        return;
    job = disk->job;
    disk->done(disk->context, &job);
}

int disk_new(struct disk **diskp, struct loop *loop, enum disk_way way, disk_fn done, void *context) {
    struct disk *disk = calloc(1, sizeof(*disk));
    int fd, r;

    if (!disk)
        return -ENOMEM;
    disk->done = done;
    disk->context = context;
    fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    r = fd < 0 ? -errno : loop_source_init(&disk->source, loop, fd, EPOLLIN, event_came);
    disk->source.fd = fd;
    if (r == 0) {
        disk->by_ring = way == DISK_ANY && ring_init(disk);
        r = disk->by_ring ? 0 : thread_init(disk);
    }
    if (r < 0) {
        loop_source_deinit(&disk->source);
        fd_close(fd);
        free(disk);
        return r;
    }
    *diskp = disk;
    return 0;
}

/* For who has nothing else to do. */
static bool wait_for_end(struct disk *disk, unsigned timeout_ms) {
    struct pollfd event = {.fd = disk->source.fd, .events = POLLIN};

    while (disk->busy) {
        if (poll(&event, 1, (int)timeout_ms) <= 0)
            return false;
        harvest(disk);
    }
    return true;
}

bool disk_wait(struct disk *disk, unsigned timeout_ms) {
    struct disk_job job;

    if (!disk->busy)
        return true;
    if (!wait_for_end(disk, timeout_ms))
        return false;
    job = disk->job;
    disk->done(disk->context, &job);
    return true;
}

int disk_free(struct disk *disk, unsigned timeout_ms, struct disk_job *job) {
    bool was_busy;

    if (!disk)
        return 0;
    was_busy = disk->busy;
    loop_source_deinit(&disk->source);
    if (!wait_for_end(disk, timeout_ms)) {
        if (!disk->by_ring && !disk->broken)
            pthread_detach(disk->thread);
        return -ETIMEDOUT;
    }
    *job = disk->job;
    if (disk->by_ring)
        ring_deinit(disk);
    else if (!disk->broken)
        thread_deinit(disk);
    fd_close(disk->source.fd);
    free(disk);
    return was_busy;
}

void disk_begin(struct disk *disk, const struct disk_job *job) {
    disk->job = *job;
    disk->busy = true;
    disk->injected = fault_hit(FAULT_AUDIT);
    if (disk->broken) {
        disk->injected = -EIO;
        raise_event(disk);
    } else if (disk->by_ring) {
        ring_submit(disk);
    } else {
        thread_submit(disk);
    }
}

bool disk_is_busy(const struct disk *disk) {
    return disk->busy;
}

bool disk_is_ring(const struct disk *disk) {
    return disk->by_ring;
}
