/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A stub VM's memory as it should be, octet by octet, beside what it is.  It is read through the
 * descriptors that the daemon's process has open, so that the daemon is not asked.
 */
#ifndef TESTS_DIFFERENTIAL_GUEST_H
#define TESTS_DIFFERENTIAL_GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define GUEST_OBJECTS 2

struct guest {
    unsigned vm;
    int fds[GUEST_OBJECTS];             /**< -1: there is none */
    uint64_t sizes[GUEST_OBJECTS];
    uint8_t *shadows[GUEST_OBJECTS];
};

/** Takes what the memory of a VM is now for what it should be. */
void guest_open(struct guest *guest, pid_t daemon, unsigned vm);

/** Forgets it. Harmless on zeros. */
void guest_close(struct guest *guest);

/** Where the memory at a guest-physical address should be; there is as much as is needed to the end of its page. */
uint8_t *guest_at(const struct guest *guest, uint64_t gpa);

/** Reads what is there, not what should be: within one page. */
void guest_read(const struct guest *guest, uint64_t gpa, void *data, size_t length);

/** Compares all of it, except where the guest's input is. Fails the test at the first octet that differs. */
void guest_compare(const struct guest *guest);

#endif
