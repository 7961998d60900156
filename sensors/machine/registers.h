/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The text of `info registers -a` of an x86 machine: which page tables its vCPUs use.
 *
 * Pure functions over text that nobody vouches for.
 */
#ifndef SENSORS_MACHINE_REGISTERS_H
#define SENSORS_MACHINE_REGISTERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** vCPUs that are looked at; further ones are ignored. */
#define REGISTERS_VCPUS_BOUND 64

/**
 * What the vCPUs that page in long mode use, one after the other in each array, and how many vCPUs
 * there are.
 */
struct registers {
    uint64_t cr3[REGISTERS_VCPUS_BOUND];
    uint8_t levels[REGISTERS_VCPUS_BOUND];
    /**
     * an address that the vCPU's system, not a process, has mapped: where it runs, or, in a process,
     * its interrupt table; 0: neither is known
     */
    uint64_t probe[REGISTERS_VCPUS_BOUND];
    bool in_process[REGISTERS_VCPUS_BOUND]; /**< the vCPU is not at the highest privilege */
    size_t n_cr3;
    size_t n_vcpus;
};

/**
 * Reads the registers.  A vCPU pages in long mode if CR0.PG, CR4.PAE and EFER.LMA are set (Intel
 * SDM volume 3, 4.1.1); others, those in system management mode, whose tables are not the system's,
 * and those whose text is not understood, add nothing.
 */
void registers_parse(const char *text, size_t len, struct registers *registers);

/**
 * A number that names what the text says of the vCPUs; never 0.  Two texts of a guest that did not
 * run in between have the same.
 */
uint64_t registers_fingerprint(const char *text, size_t len);

#endif
