/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Parser of `info registers -a` (QEMU, target/i386/cpu-dump.c).  The lines that matter, for each
 * vCPU:
 *
 *   CPU#0
 *   CR0=80050033 CR2=... CR3=000000000a5c2000 CR4=00350ef0
 *   EFER=0000000000000d01
 */
#include <stdbool.h>
#include <string.h>

#include "registers.h"

#define CR0_PG (UINT64_C(1) << 31)
#define CR4_PAE (UINT64_C(1) << 5)
#define EFER_LMA (UINT64_C(1) << 10)

/* What is known of one vCPU so far. */
struct vcpu {
    uint64_t cr0, cr3, cr4, efer;
    bool has_cr3;
};

/* Reads NAME=hexadecimal in [at, end), where NAME stands at the beginning of a word. */
static bool read_field(const char *at, const char *end, const char *name, uint64_t *valuep) {
    size_t len = strlen(name);

    for (const char *p = at; (size_t)(end - p) > len; p++) {
        uint64_t value = 0;
        int digits = 0;

        if ((p != at && p[-1] != ' ') || memcmp(p, name, len) != 0)
            continue;
        for (p += len; p < end && digits <= 16; p++, digits++) {
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
    if (!vcpu->has_cr3 || !(vcpu->cr0 & CR0_PG) || !(vcpu->cr4 & CR4_PAE) ||
        !(vcpu->efer & EFER_LMA))
        return;
    if (registers->n_cr3 < REGISTERS_VCPUS_BOUND)
        registers->cr3[registers->n_cr3++] = vcpu->cr3;
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
        } else if (read_field(text, stop, "CR0=", &vcpu.cr0)) {
            read_field(text, stop, "CR4=", &vcpu.cr4);
            vcpu.has_cr3 = read_field(text, stop, "CR3=", &vcpu.cr3);
        } else if (stop - text > 5 && memcmp(text, "EFER=", 5) == 0) {
            read_field(text, stop, "EFER=", &vcpu.efer);
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
