/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A process with private RAM that stands for a VM, and a bus in this process that knows of it. */
#ifndef BENCH_PRIVATE_VM_H
#define BENCH_PRIVATE_VM_H

#include <stdint.h>
#include <sys/types.h>

#include <vmibus/client.h>
#include <vmibus/core.h>

#define PRIVATE_VM_RAM (UINT64_C(32) << 20)

struct private_vm {
    pid_t pid;
    int memory;                 /**< /proc/PID/mem */
    uint64_t ram;               /**< address there */
    struct vmibus_core *core;
    struct vmibus *bus;
    struct vmibus_endpoint endpoint;
    uint64_t epoch;             /**< without a root: for guest-physical addresses */
};

/** Makes it. 0 or a negative errno; private_vm_stop() either way. */
int private_vm_start(struct private_vm *vm);

/** Ends it. Harmless on zeros. */
void private_vm_stop(struct private_vm *vm);

#endif
