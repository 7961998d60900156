/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The text of `info registers -a` of an x86 machine: which page tables its vCPUs use.
 *
 * Pure functions over text that nobody vouches for.
 */
#ifndef SENSORS_QEMU_REGISTERS_H
#define SENSORS_QEMU_REGISTERS_H

#include <stddef.h>
#include <stdint.h>

/** vCPUs that are looked at; further ones are ignored. */
#define REGISTERS_VCPUS_BOUND 64

/** CR3 of the vCPUs that page in long mode, and how many vCPUs there are. */
struct registers {
    uint64_t cr3[REGISTERS_VCPUS_BOUND];
    size_t n_cr3;
    size_t n_vcpus;
};

/**
 * Reads the registers.  A vCPU pages in long mode if CR0.PG, CR4.PAE and EFER.LMA are set (Intel
 * SDM volume 3, 4.1.1); others, and those whose text is not understood, add nothing.
 */
void registers_parse(const char *text, size_t len, struct registers *registers);

/**
 * A number that names what the text says of the vCPUs; never 0.  Two texts of a guest that did not
 * run in between have the same.
 */
uint64_t registers_fingerprint(const char *text, size_t len);

#endif
