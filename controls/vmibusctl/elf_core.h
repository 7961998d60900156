/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The head of an ELF core of a guest's physical memory: what stands before the memory itself.
 *
 * One PT_NOTE with the kernel's VMCOREINFO and the vCPUs' registers, one PT_LOAD for each range of RAM, whose p_paddr is the
 * guest-physical address; p_vaddr is the same, as QEMU's own dump has it.  crash(8) and drgn translate by the
 * kernel's page tables, which the VMCOREINFO leads them to.
 */
#ifndef VMIBUSCTL_ELF_CORE_H
#define VMIBUSCTL_ELF_CORE_H

#include <stddef.h>
#include <stdint.h>

#include <vmibus/protocol.h>

/** Where in the file the memory of the first range begins is a multiple of this. */
#define ELF_CORE_ALIGNMENT 4096u

/** What a core is made of. */
struct elf_core {
    const struct vmibus_ram_range *ranges;      /**< by gpa, disjoint */
    size_t n_ranges;                            /**< at most 65534 */
    const char *note;                           /**< text of VMCOREINFO, NULL: none */
    size_t note_len;
    const struct vmibus_vcpu_registers *vcpus;  /**< NULL: none */
    size_t n_vcpus;
};

/**
 * Makes the head.
 * @param headp receives it, malloc'ed
 * @param lenp  receives its octets, a multiple of ELF_CORE_ALIGNMENT: the memory of the ranges follows, one after the other
 * @return 0, -EINVAL (too many ranges) or -ENOMEM
 */
int elf_core_head(const struct elf_core *core, uint8_t **headp, size_t *lenp);

#endif
