/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "elf_core.h"

#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/procfs.h>
#include <sys/user.h>

/* Names of notes, with the NUL that belongs to them. */
static const char vmcoreinfo_name[] = "VMCOREINFO", core_name[] = "CORE";

static size_t padded(size_t len) {
    return (len + 3) & ~(size_t)3;
}

static size_t note_size(size_t name_size, size_t desc_size) {
    return sizeof(Elf64_Nhdr) + padded(name_size) + padded(desc_size);
}

static size_t notes_size(const struct elf_core *core) {
    return (core->note ? note_size(sizeof(vmcoreinfo_name), core->note_len) : 0) +
           core->n_vcpus * note_size(sizeof(core_name), sizeof(struct elf_prstatus));
}

static uint8_t *put_note(uint8_t *at, const char *name, size_t name_size, uint32_t type, const void *desc, size_t desc_size) {
    const Elf64_Nhdr head = {.n_namesz = (Elf64_Word)name_size, .n_descsz = (Elf64_Word)desc_size, .n_type = type};

    memcpy(at, &head, sizeof(head));
    memcpy(at + sizeof(head), name, name_size);
    memcpy(at + sizeof(head) + padded(name_size), desc, desc_size);
    return at + note_size(name_size, desc_size);
}

/* What the kernel would tell of a processor that crashed (Linux include/linux/elfcore.h). */
static void fill_status(const struct vmibus_vcpu_registers *vcpu, struct elf_prstatus *status) {
    const struct user_regs_struct registers = {
        .r15 = vcpu->r15, .r14 = vcpu->r14, .r13 = vcpu->r13, .r12 = vcpu->r12, .rbp = vcpu->rbp, .rbx = vcpu->rbx,
        .r11 = vcpu->r11, .r10 = vcpu->r10, .r9 = vcpu->r9, .r8 = vcpu->r8, .rax = vcpu->rax, .rcx = vcpu->rcx,
        .rdx = vcpu->rdx, .rsi = vcpu->rsi, .rdi = vcpu->rdi, .orig_rax = UINT64_MAX, .rip = vcpu->rip, .cs = vcpu->cs,
        .eflags = vcpu->rflags, .rsp = vcpu->rsp, .fs_base = vcpu->fs_base, .gs_base = vcpu->gs_base,
    };

    memset(status, 0, sizeof(*status));
    status->pr_pid = (int)vcpu->vcpu + 1;
    memcpy(&status->pr_reg, &registers, sizeof(registers));
}

static void put_notes(const struct elf_core *core, uint8_t *at) {
    struct elf_prstatus status;

    for (size_t i = 0; i < core->n_vcpus; i++) {
        fill_status(&core->vcpus[i], &status);
        at = put_note(at, core_name, sizeof(core_name), NT_PRSTATUS, &status, sizeof(status));
    }
    if (core->note)
        put_note(at, vmcoreinfo_name, sizeof(vmcoreinfo_name), 0, core->note, core->note_len);
}

static void put_segments(const struct elf_core *core, size_t notes_at, size_t head_len, Elf64_Phdr *segments) {
    uint64_t offset = head_len;

    segments[0] = (Elf64_Phdr){.p_type = PT_NOTE, .p_offset = notes_at, .p_filesz = notes_size(core), .p_memsz = notes_size(core)};
    for (size_t i = 0; i < core->n_ranges; i++) {
        const struct vmibus_ram_range *range = &core->ranges[i];

        segments[i + 1] = (Elf64_Phdr){
            .p_type = PT_LOAD,
            .p_flags = PF_R | PF_W | PF_X,
            .p_offset = offset,
            .p_vaddr = range->gpa,
            .p_paddr = range->gpa,
            .p_filesz = range->len,
            .p_memsz = range->len,
        };
        offset += range->len;
    }
}

int elf_core_head(const struct elf_core *core, uint8_t **headp, size_t *lenp) {
    size_t n_segments = core->n_ranges + 1, notes_at = sizeof(Elf64_Ehdr) + n_segments * sizeof(Elf64_Phdr);
    size_t len = (notes_at + notes_size(core) + ELF_CORE_ALIGNMENT - 1) & ~(size_t)(ELF_CORE_ALIGNMENT - 1);
    const Elf64_Ehdr head = {
        .e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
        .e_type = ET_CORE,
        .e_machine = EM_X86_64,
        .e_version = EV_CURRENT,
        .e_phoff = sizeof(head),
        .e_ehsize = sizeof(head),
        .e_phentsize = sizeof(Elf64_Phdr),
        .e_phnum = (Elf64_Half)n_segments,
    };
    uint8_t *octets;

    *headp = NULL;
    if (n_segments >= PN_XNUM)
        return -EINVAL;
    octets = calloc(1, len);
    if (!octets)
        return -ENOMEM;
    memcpy(octets, &head, sizeof(head));
    put_segments(core, notes_at, len, (Elf64_Phdr *)(void *)(octets + sizeof(head)));
    put_notes(core, octets + notes_at);
    *headp = octets;
    *lenp = len;
    return 0;
}
