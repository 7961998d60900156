/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Buffers and reads into them, as tests of the authority's commands ask for them; pread(2) that can be held up. */
#ifndef TESTS_MEMORY_BUFFERS_H
#define TESTS_MEMORY_BUFFERS_H

#include "memory/fixture.h"

/** BUFFER ALLOCATE and FREE; forgets the answers before. */
struct vmibus_ack *buffer_allocate(struct fixture *fixture, struct client *client, uint64_t size);
struct vmibus_ack *buffer_give_back(struct fixture *fixture, struct client *client, uint32_t number);

/** A MEM_READ of the current epoch to the beginning of a buffer. */
struct vmibus_frame read_frame(struct fixture *fixture, uint64_t gva, uint64_t len, uint32_t buffer, uint32_t flags);

/** Sends one and returns the answer. */
struct vmibus_ack *buffer_read(struct fixture *fixture, struct client *client, uint64_t gva, uint64_t len, uint32_t buffer,
                               uint32_t flags);

/** One octet of a file. */
uint8_t octet_of(int fd, uint64_t offset);

/** What the program's pread(2) does instead, if it is not NULL; pread_really() reads. Also called on workers. */
extern ssize_t (*pread_hook)(int fd, void *buffer, size_t len, off_t offset);

ssize_t pread_really(int fd, void *buffer, size_t len, off_t offset);

/** From now on a long pread(2) on other threads than this one waits for pread_release(). */
void pread_block(void);

/** Waits until one does. */
void pread_wait_blocked(void);
void pread_release(void);

#endif
