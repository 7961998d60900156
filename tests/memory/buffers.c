/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "memory/buffers.h"

#include <pthread.h>
#include <semaphore.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "harness.h"

/* What earlier answers held is not wanted any more; they have no tails. */
static void forget(struct client *client) {
    client->journal.n = 0;
}

struct vmibus_ack *buffer_allocate(struct fixture *fixture, struct client *client, uint64_t size) {
    struct vmibus_frame frame = frame_make(fixture, VMIBUS_KIND_BUFFER);

    forget(client);
    frame.buffer.operation = VMIBUS_BUFFER_OPERATION_ALLOCATE;
    frame.buffer.size = size;
    return submit(client, &frame, NULL, NULL);
}

struct vmibus_ack *buffer_give_back(struct fixture *fixture, struct client *client, uint32_t number) {
    struct vmibus_frame frame = frame_make(fixture, VMIBUS_KIND_BUFFER);

    forget(client);
    frame.buffer.operation = VMIBUS_BUFFER_OPERATION_FREE;
    frame.buffer.buffer = number;
    return submit(client, &frame, NULL, NULL);
}

struct vmibus_frame read_frame(struct fixture *fixture, uint64_t gva, uint64_t len, uint32_t buffer, uint32_t flags) {
    struct vmibus_frame frame = frame_make(fixture, VMIBUS_KIND_MEM_READ);

    frame.mem_read.gva = gva;
    frame.mem_read.len = (uint32_t)len;
    frame.mem_read.buffer = buffer;
    frame.mem_read.flags = flags;
    frame.mem_read.epoch = fixture->epoch;
    return frame;
}

struct vmibus_ack *buffer_read(struct fixture *fixture, struct client *client, uint64_t gva, uint64_t len, uint32_t buffer,
                               uint32_t flags) {
    struct vmibus_frame frame = read_frame(fixture, gva, len, buffer, flags);

    forget(client);
    return submit(client, &frame, NULL, NULL);
}

uint8_t octet_of(int fd, uint64_t offset) {
    uint8_t octet = 0;

    ck_assert_int_eq(syscall(SYS_pread64, fd, &octet, 1, offset), 1);
    return octet;
}

/* --- reads that are held up ---------------------------------------------------------------------- */

#define HELD_UP 65536u

static _Atomic bool blocking;
static pthread_t tester;
static sem_t blocked, released;

ssize_t (*pread_hook)(int fd, void *buffer, size_t len, off_t offset);

ssize_t pread_really(int fd, void *buffer, size_t len, off_t offset) {
    return syscall(SYS_pread64, fd, buffer, len, offset);
}

/* The program's own definition takes the place of the C library's, under both of its names. */
ssize_t pread(int fd, void *buffer, size_t len, off_t offset) {
    if (pread_hook)
        return pread_hook(fd, buffer, len, offset);
    /* Walks and canaries read less: they come before and after. */
    if (blocking && len >= HELD_UP && !pthread_equal(pthread_self(), tester)) {
        sem_post(&blocked);
        while (sem_wait(&released) < 0)
            continue;
        sem_post(&released);
    }
    return pread_really(fd, buffer, len, offset);
}

ssize_t pread64(int fd, void *buffer, size_t len, off64_t offset) {
    return pread(fd, buffer, len, offset);
}

void pread_block(void) {
    tester = pthread_self();
    sem_init(&blocked, 0, 0);
    sem_init(&released, 0, 0);
    blocking = true;
}

void pread_wait_blocked(void) {
    while (sem_wait(&blocked) < 0)
        continue;
}

void pread_release(void) {
    blocking = false;
    sem_post(&released);
}
