/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 *   CPU#0
 *   RAX=000000000001ad40 RBX=0000000000000000 RCX=0000000000000000 RDX=4000000000000000
 *   R8 =0000000000023000 R9 =...
 *   RIP=ffffffff960592eb RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=1
 *   CS =0010 0000000000000000 ffffffff 00af9b00 DPL=0 CS64 [-RA]
 *   GDT=     fffffe0000001000 0000007f
 *   CR0=80050033 CR2=... CR3=... CR4=...
 *   EFER=0000000000000d01
 */
#include "vcpu_registers.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define ALL_SEEN 7u /* the three without which the rest means nothing: general registers, instruction pointer, CR3 */
#define NAME_BOUND 4
#define DIGITS_BOUND 16

/* Where a field is; size 1: it tells of one bit or digit. */
struct field {
    char name[NAME_BOUND + 1];
    uint8_t size;
    uint8_t seen; /* of ALL_SEEN */
    uint16_t offset;
};

#define FIELD(text, member, mark)                                                                  \
    {text, sizeof(((struct vmibus_vcpu_registers *)0)->member), mark,                              \
     offsetof(struct vmibus_vcpu_registers, member)}

static const struct field fields[] = {
    FIELD("RAX", rax, 1),  FIELD("EAX", rax, 1),  FIELD("RBX", rbx, 0),    FIELD("EBX", rbx, 0),    FIELD("RCX", rcx, 0),
    FIELD("ECX", rcx, 0),  FIELD("RDX", rdx, 0),  FIELD("EDX", rdx, 0),    FIELD("RSI", rsi, 0),    FIELD("ESI", rsi, 0),
    FIELD("RDI", rdi, 0),  FIELD("EDI", rdi, 0),  FIELD("RBP", rbp, 0),    FIELD("EBP", rbp, 0),    FIELD("RSP", rsp, 0),
    FIELD("ESP", rsp, 0),  FIELD("R8", r8, 0),    FIELD("R9", r9, 0),      FIELD("R10", r10, 0),    FIELD("R11", r11, 0),
    FIELD("R12", r12, 0),  FIELD("R13", r13, 0),  FIELD("R14", r14, 0),    FIELD("R15", r15, 0),    FIELD("RIP", rip, 2),
    FIELD("EIP", rip, 2),  FIELD("RFL", rflags, 0), FIELD("EFL", rflags, 0), FIELD("CPL", cpl, 0),  FIELD("HLT", halted, 0),
    FIELD("CR0", cr0, 0),  FIELD("CR2", cr2, 0),  FIELD("CR3", cr3, 4),    FIELD("CR4", cr4, 0),    FIELD("EFER", efer, 0),
    FIELD("CS", cs, 0),
};

/* Of these lines the number after the selector counts. */
static const struct field bases[] = {
    FIELD("FS", fs_base, 0),
    FIELD("GS", gs_base, 0),
    FIELD("GDT", gdt_base, 0),
    FIELD("IDT", idt_base, 0),
};

static bool is_digit(char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
}

/* Blanks, then digits. False: there are none, or too many. */
static bool read_number(const char **at, const char *end, uint64_t *value) {
    const char *p = *at;
    int n = 0;

    while (p < end && *p == ' ')
        p++;
    for (*value = 0; p < end && is_digit(*p) && n <= DIGITS_BOUND; p++, n++)
        *value = *value << 4 | (uint64_t)(*p <= '9' ? *p - '0' : *p - 'a' + 10);
    *at = p;

    return n > 0 && n <= DIGITS_BOUND;
}

static const struct field *find(const struct field *table, size_t n, const char *name, size_t len) {
    for (size_t i = 0; i < n; i++)
        if (strlen(table[i].name) == len && memcmp(table[i].name, name, len) == 0)
            return &table[i];

    return NULL;
}

static bool store(struct vmibus_vcpu_registers *registers, const struct field *field, uint64_t value) {
    if (field->size < sizeof(value) && value >> (8 * field->size))
        return false;
    /* Little-endian, as everything on this host is. */
    memcpy((char *)registers + field->offset, &value, field->size);

    return true;
}

/* The name before '=' at the beginning of a word; blanks may stand between. Length 0: there is none here. */
static size_t name_at(const char *at, const char *end, const char **number) {
    const char *p = at;
    size_t len;

    while (p < end && ((*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9')))
        p++;
    len = (size_t)(p - at);
    while (p < end && *p == ' ')
        p++;
    if (!len || len > NAME_BOUND || p == end || *p != '=')
        return 0;
    *number = p + 1;

    return len;
}

static bool read_base(const char *at, const char *end, const struct field *field, struct vmibus_vcpu_registers *registers) {
    bool has_selector = strlen(field->name) == 2;
    uint64_t value;

    if (has_selector && !read_number(&at, end, &value))
        return false;

    return read_number(&at, end, &value) && store(registers, field, value);
}

static bool read_line(const char *at, const char *end, struct vmibus_vcpu_registers *registers, unsigned int *seen) {
    while (at < end) {
        const char *number = NULL;
        size_t len = name_at(at, end, &number);
        const struct field *field = find(bases, sizeof(bases) / sizeof(bases[0]), at, len);
        const char *blank;
        uint64_t value;

        if (len && field)
            return read_base(number, end, field, registers);
        field = find(fields, sizeof(fields) / sizeof(fields[0]), at, len);
        if (len && field) {
            if (!read_number(&number, end, &value) || !store(registers, field, value))
                return false;
            *seen |= field->seen;
            at = number;
        }
        blank = memchr(at, ' ', (size_t)(end - at));
        at = blank ? blank + 1 : end;
    }

    return true;
}

size_t vcpu_registers_parse(const char *text, size_t len, struct vmibus_vcpu_registers *registers, size_t n_room) {
    const char *end = text + len;
    unsigned int seen = ALL_SEEN;
    size_t n = 0;

    while (text < end) {
        const char *newline = memchr(text, '\n', (size_t)(end - text));
        const char *stop = newline ? newline : end;

        if (stop > text && stop[-1] == '\r')
            stop--;
        if (stop - text >= 4 && memcmp(text, "CPU#", 4) == 0) {
            if (n == n_room || seen != ALL_SEEN)
                return 0;
            seen = 0;
            registers[n] = (struct vmibus_vcpu_registers){.vcpu = (uint32_t)n};
            n++;
        } else if (n && !read_line(text, stop, &registers[n - 1], &seen)) {
            return 0;
        }
        text = newline ? newline + 1 : end;
    }

    return seen == ALL_SEEN ? n : 0;
}
