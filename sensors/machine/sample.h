/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Roots of systems that leave no note: what a vCPU uses is taken for the root, once it has been the
 * same for a while.
 *
 * A sample is a vCPU's top page table, its paging depth, and a probe: an address that the system on
 * that vCPU cannot do without (where it runs or, where it runs a process, its interrupt table).  The
 * tables in RAM must map the probe to RAM, out of the reach of processes.  A later sample agrees if
 * a vCPU's tables map the same probe to the same place: a system with a table for each process maps
 * its own half in all of them.  Firmware pages too, and so does a kernel that has just begun: they
 * are told from a system that stays by SAMPLE_AGREE_NS.  Where Linux has its image the wait is
 * longer: it is likely one that boots slowly, and will leave a note.
 */
#ifndef SENSORS_MACHINE_SAMPLE_H
#define SENSORS_MACHINE_SAMPLE_H

#include <stdbool.h>
#include <stdint.h>

#include <vmibus/guest.h>

#include "registers.h"

/** How long samples must agree, and how many of them, before a root is made of them. */
#define SAMPLE_AGREE_NS (UINT64_C(15) * 1000 * 1000 * 1000)
#define SAMPLE_AGREE_IMAGE_NS (UINT64_C(60) * 1000 * 1000 * 1000)
#define SAMPLE_AGREE_COUNT 5

/** A sample. */
struct sample {
    uint64_t cr3; /**< without flags; 0: there is none */
    uint64_t probe_gva;
    uint64_t probe_gpa;
    uint8_t levels;
};

/** Samples in a row that agree. */
struct samples {
    struct sample last;
    uint64_t since; /* of the first */
    unsigned int count;
};

/**
 * Takes a sample. Any thread.
 * @param before  the sample before, if any
 * @param sample  receives one that agrees with @a before if there is one: its probe, and the table
 *                of a vCPU that has it; else another, or none
 * @return whether it agrees
 */
bool sample_take(struct vmibus_guest_ram *ram, const struct registers *registers,
                 const struct sample *before, struct sample *sample);

/** Counts a sample. Returns whether enough of them agree. */
bool samples_count(struct samples *samples, const struct sample *sample, bool agrees, uint64_t now);

#endif
