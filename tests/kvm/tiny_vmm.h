/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The smallest virtual machine monitor that embeds a bus: one vCPU in 64-bit mode on /dev/kvm, whose RAM is
 * private memory of this process, and the sensor that tells the bus of it.
 *
 * The guest of tiny_vmm_start() copies the word at TINY_INBOX to TINY_OUTBOX and counts at TINY_COUNTER, for
 * ever; others bring code of their own.
 */
#ifndef TESTS_KVM_TINY_VMM_H
#define TESTS_KVM_TINY_VMM_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vmibus/sensor.h>

/* Guest-virtual addresses: the kernel half maps guest-physical memory from 0, and so does the lower half. */
#define TINY_KERNEL_BASE UINT64_C(0xffffffff80000000)
#define TINY_INBOX (TINY_KERNEL_BASE + 0x20000)
#define TINY_OUTBOX (TINY_KERNEL_BASE + 0x20008)
#define TINY_COUNTER (TINY_KERNEL_BASE + 0x20010)
#define TINY_READ_ONLY UINT64_C(0x40000000) /* one 2 MiB page that shows the same RAM, not writable */
#define TINY_RAM (2u << 20)

struct tiny_vmm {
    uint8_t *ram;
    int kvm, vm, vcpu;
    void *run;              /**< struct kvm_run */
    size_t run_size;
    pthread_t thread;
    bool running;
    bool failed;            /**< the vCPU stopped by itself */
};

/** Makes and starts a VM. NULL, or why it cannot be had. */
const char *tiny_vmm_start(struct tiny_vmm *vmm);

/** The same with a guest of other code: it runs in 64-bit mode, without a stack, and sees its RAM from address 0. */
const char *tiny_vmm_start_code(struct tiny_vmm *vmm, const uint8_t *code, size_t size);

/** Stops it and frees everything. */
void tiny_vmm_stop(struct tiny_vmm *vmm);

/** A word of the guest's memory as the host sees it. */
uint64_t tiny_vmm_peek(const struct tiny_vmm *vmm, uint64_t gva);

/** The sensor that offers the VM of this process; its option "ram" is the address of the RAM, in hexadecimal. */
extern const struct vmibus_sensor_module tiny_vmm_sensor;

#endif
