/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The address space that --pid means. It is that of the process when it was looked up: a process that ends, or executes another
 * program, takes it away, and its page tables become other memory.
 */
#ifndef VMIBUSCTL_PROCESS_SPACE_H
#define VMIBUSCTL_PROCESS_SPACE_H

#include "guest_memory.h"

/** The option, for the table of a verb. */
#define PROCESS_SPACE_OPTION {"pid", "PID", "translate by the page tables of this process of a Linux guest"}

/**
 * Makes the address space of a process the one that @a memory is read by.
 * @param pid     what --pid says; NULL: nothing is changed
 * @param memory  attached, with the kernel's root
 * @return a status, after having said what was wrong
 */
int process_space_enter(const char *pid, struct guest_memory *memory);

/**
 * Whether --pid goes with the other options of a verb.
 * @return a status: it does not, with --physical or --cr3, which has been said
 */
int process_space_check(const struct arguments *arguments);

/**
 * Finds the root of a process of a VM whose memory is not attached otherwise.
 * @param pid what --pid says
 * @return a status, after having said what was wrong
 */
int process_space_find(struct vmibusctl *ctl, const struct vm *vm, const char *pid, uint64_t *cr3);

#endif
