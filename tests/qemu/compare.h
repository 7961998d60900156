/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What is read of a guest's kernel from outside, compared with what the guest's own /proc says. The guest runs meanwhile; each
 * comparison is repeated until nothing changed while it was made.
 */
#ifndef TESTS_QEMU_COMPARE_H
#define TESTS_QEMU_COMPARE_H

#include "facts.h"
#include "linux_bed.h"

#define CHECK_BED(bed, call) ck_assert_msg((call) == 0, "%s: %s", #call, bed_error(bed))

/** All symbols of vmlinux and of the modules, and looking them up both ways. */
void compare_symbols(struct linux_bed *guest);

/** The list of modules. */
void compare_modules(struct linux_bed *guest);

/** All of the log. */
void compare_log(struct linux_bed *guest);

/** Release, banner, build id, command line, names, clocks. */
void compare_facts(struct linux_bed *guest);

/** Processes and threads; starts the crowd of the agent and waits until it is as it stays. Returns the pid of its first process. */
uint32_t compare_tasks(struct linux_bed *guest);

/** Command lines, environments, programs and directories of a process, and its own memory by its own root. */
void compare_task_memory(struct linux_bed *guest, uint32_t pid);

/**
 * The mappings of the agent, its child, a shell, and of a process with many odd ones.
 * @param gate the last line of each but the child's, NULL: it is not looked for
 */
void compare_maps(struct linux_bed *guest, const char *gate);

/** The open files of a process. */
void compare_files(struct linux_bed *guest, uint32_t pid);

/** Sockets; those of the crowd have known owners. */
void compare_sockets(struct linux_bed *guest, uint32_t crowd);

#endif
