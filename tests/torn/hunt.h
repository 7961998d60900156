/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Looking for torn values: a guest that reads all the time what the bus writes, and the writes.
 *
 * Every write makes all octets of a place the same; a vCPU of the guest counts how often it sees a place
 * whose octets differ.  Of aligned values of 8, 4, 2 octets and of 1 that must never happen; of what crosses a
 * cache line or a page it may, unless the guest stands still meanwhile.  Who starts the guest brings its vCPUs to
 * where the loop begins, and says how its memory is looked at.
 */
#ifndef TESTS_TORN_HUNT_H
#define TESTS_TORN_HUNT_H

#include <stddef.h>
#include <stdint.h>

#include <vmibus/client.h>

/** At least as long as the guest's loop. */
#define HUNT_GUEST_MAX 192u

/** All places and counters lie in these guest-physical addresses; zeros before the guest starts. */
#define HUNT_BEGIN 0x20000u
#define HUNT_END 0x24000u

/** What the first vCPU begins the loop with: rbp, its counters, and rdi, its octet.  dl is 0. */
#define HUNT_COUNTERS 0x21000u
#define HUNT_OWN_OCTET 0x20019u
/** The same of the second. */
#define HUNT_SECOND_COUNTERS 0x21100u
#define HUNT_SECOND_OCTET 0x20017u

struct hunt {
    struct vmibus *bus;
    struct vmibus_endpoint endpoint;
    uint64_t token;     /**< of the MEMWRITE lease */
    uint64_t epoch;
    uint64_t base;      /**< where guest-physical 0 is in the addresses that writes name */
    uint32_t flags;     /**< VMIBUS_MEMWRITE_ of every write */
    unsigned int vcpus; /**< that run the loop: 1 or 2 */
    uint64_t (*peek)(void *guest, uint32_t gpa); /**< 8 aligned octets of the guest; fails the test if the guest has ended */
    void (*turn)(void *guest); /**< lets all others go on, while the guest is waited for */
    void *guest;        /**< given to both */
};

/** Writes one octet into all of every place. */
typedef void hunt_write_fn(struct hunt *hunt, uint8_t octet);

/** One command for each place. */
hunt_write_fn hunt_write_each;

/** All places by one command. */
hunt_write_fn hunt_write_table;

/**
 * Puts the guest's loop somewhere: 64-bit code that needs neither stack nor interrupts, wherever it lies, and sees
 * guest-physical memory from address 0. Returns its size.
 */
size_t hunt_put_guest(uint8_t *at);

/** How many writes: VMIBUS_TORN_WRITES, or as many as told, fewer in a sanitizer build. */
unsigned long hunt_writes(unsigned long otherwise);

/** Writes so many times at least while the guest looks, tells what it saw; fails the test if an aligned value was torn. */
void hunt_for_torn(struct hunt *hunt, hunt_write_fn *write, unsigned long writes);

/** The same with QUIESCE, by one command for each place or for all in turn: then nothing may be seen torn. */
void hunt_quiesced(struct hunt *hunt, unsigned long writes);

/** Shows that the guest can tell: what commands write octet by octet it sees torn, and a change of its own octets too. */
void hunt_calibrate(struct hunt *hunt);

#endif
