/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The text of `info registers -a` of an x86 machine in full: what each vCPU holds.
 *
 * Pure functions over text that nobody vouches for.
 */
#ifndef SENSORS_MACHINE_VCPU_REGISTERS_H
#define SENSORS_MACHINE_VCPU_REGISTERS_H

#include <stddef.h>

#include <vmibus/protocol.h>

/** vCPUs that are told at most. */
#define VCPU_REGISTERS_BOUND 1024

/**
 * Reads the registers of all vCPUs, in the order of the text (QEMU 7.2, target/i386/cpu-dump.c).  Outside long mode the names
 * are others (EAX, EIP), and there is less.
 * @param registers room for @a n_room
 * @return how many there are; 0: the text is not understood, wholly or in part, or is of more vCPUs than there is room for
 */
size_t vcpu_registers_parse(const char *text, size_t len, struct vmibus_vcpu_registers *registers, size_t n_room);

#endif
