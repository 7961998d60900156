/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Parser of `info registers -a` (QEMU, target/i386/cpu-dump.c).  The lines that matter, for each
 * vCPU:
 *
 *   CPU#0
 *   RIP=ffffffff81e0b0cb RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=1
 *   IDT=     fffffe0000000000 00000fff
 *   CR0=80050033 CR2=... CR3=000000000a5c2000 CR4=00350ef0
 *   EFER=0000000000000d01
 */
#include <stdbool.h>
#include <string.h>

#include "registers.h"

#define CR0_PG (UINT64_C(1) << 31)
#define CR4_PAE (UINT64_C(1) << 5)
#define CR4_LA57 (UINT64_C(1) << 12)
#define EFER_LMA (UINT64_C(1) << 10)

/* What is known of one vCPU so far. */
struct vcpu {
    uint64_t cr0, cr3, cr4, efer;
    uint64_t rip, cpl, smm, idt;
    bool has_cr3, has_rip;
};

/* Reads NAME=hexadecimal in [at, end), where NAME stands at the beginning of a word, and blanks
 * may stand before the number. */
static bool read_field(const char *at, const char *end, const char *name, uint64_t *valuep) {
    size_t len = strlen(name);

    for (const char *p = at; (size_t)(end - p) > len; p++) {
        uint64_t value = 0;
        int digits = 0;

        if ((p != at && p[-1] != ' ') || memcmp(p, name, len) != 0)
            continue;
        for (p += len; p < end && *p == ' '; p++)
            ;
        for (; p < end && digits <= 16; p++, digits++) {
            if (*p >= '0' && *p <= '9')
                value = value << 4 | (uint64_t)(*p - '0');
            else if (*p >= 'a' && *p <= 'f')
                value = value << 4 | (uint64_t)(*p - 'a' + 10);
            else
                break;
        }
        if (!digits || digits > 16)
            return false;
        *valuep = value;
        return true;
    }

    return false;
}

static void conclude(struct registers *registers, const struct vcpu *vcpu) {
    size_t n = registers->n_cr3;

    if (!vcpu->has_cr3 || !(vcpu->cr0 & CR0_PG) || !(vcpu->cr4 & CR4_PAE) ||
        !(vcpu->efer & EFER_LMA) || vcpu->smm || n == REGISTERS_VCPUS_BOUND)
        return;
    registers->cr3[n] = vcpu->cr3;
    registers->levels[n] = vcpu->cr4 & CR4_LA57 ? 5 : 4;
    registers->probe[n] = vcpu->has_rip && !vcpu->cpl ? vcpu->rip : vcpu->idt;
    registers->in_process[n] = vcpu->cpl != 0;
    registers->n_cr3++;
}

static void read_line(const char *at, const char *end, struct vcpu *vcpu) {
    if (read_field(at, end, "CR0=", &vcpu->cr0)) {
        read_field(at, end, "CR4=", &vcpu->cr4);
        vcpu->has_cr3 = read_field(at, end, "CR3=", &vcpu->cr3);
    } else if (end - at > 4 && memcmp(at, "RIP=", 4) == 0) {
        vcpu->has_rip = read_field(at, end, "RIP=", &vcpu->rip) &&
                        read_field(at, end, "CPL=", &vcpu->cpl);
        read_field(at, end, "SMM=", &vcpu->smm);
    } else if (end - at > 4 && memcmp(at, "IDT=", 4) == 0) {
        read_field(at, end, "IDT=", &vcpu->idt);
    } else if (end - at > 5 && memcmp(at, "EFER=", 5) == 0) {
        read_field(at, end, "EFER=", &vcpu->efer);
    }
}

void registers_parse(const char *text, size_t len, struct registers *registers) {
    const char *end = text + len;
    struct vcpu vcpu = {0};

    *registers = (struct registers){0};
    while (text < end) {
        const char *newline = memchr(text, '\n', (size_t)(end - text));
        const char *stop = newline ? newline : end;

        if (stop - text >= 4 && memcmp(text, "CPU#", 4) == 0) {
            conclude(registers, &vcpu);
            vcpu = (struct vcpu){0};
            registers->n_vcpus++;
        } else {
            read_line(text, stop, &vcpu);
        }
        text = newline ? newline + 1 : end;
    }
    conclude(registers, &vcpu);
}

/* FNV-1a, 64 bits. */
uint64_t registers_fingerprint(const char *text, size_t len) {
    uint64_t hash = UINT64_C(0xcbf29ce484222325);

    for (size_t i = 0; i < len; i++) {
        hash ^= (unsigned char)text[i];
        hash *= UINT64_C(0x100000001b3);
    }

    return hash ? hash : 1;
}
