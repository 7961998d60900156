/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The root of a guest that pages and leaves no note: a boot sector with tables of its own, of either depth, running
 * where it is loaded or in the kernel's half.  Time has to pass before it is believed, so these tests take some.
 */
#include "harness.h"
#include "scene.h"

#define TABLES_GPA UINT64_C(0x10000) /* PML5, PML4, PDPT, PD: a page each */
#define COUNTER_GPA UINT64_C(0x6000)
#define FREE_GPA UINT64_C(0x6100)
#define HIGH_GVA UINT64_C(0xffffffffc0000000) /* above the image of a Linux */

/* What differs between the guests. */
#define AT_CR4 0x5b  /* 0x00, or 0x10: LA57 */
#define AT_CR3 0x64  /* 0x10: the PML4, or 0x00: the PML5 */
#define AT_RIP 0x96  /* 0xc0: high, or 0x00: low */

static const uint8_t boot[] = {
    0xfa, 0xb8, 0x00, 0x10, 0x8e, 0xc0, 0x31, 0xff,       /* cli; mov es, 0x1000; xor di, di */
    0xb9, 0x00, 0x40, 0x31, 0xc0, 0x8e, 0xd8,             /* mov cx, 0x4000; xor ax, ax; mov ds, ax */
    0xfc, 0xf3, 0xaa,                                     /* cld; rep stosb: all tables are empty */
    0x26, 0x66, 0xc7, 0x06, 0x00, 0x00, 0x03, 0x10, 0x01, 0x00, /* PML5[0] = PML4 */
    0x26, 0x66, 0xc7, 0x06, 0xf8, 0x0f, 0x03, 0x10, 0x01, 0x00, /* PML5[511] = PML4 */
    0x26, 0x66, 0xc7, 0x06, 0x00, 0x10, 0x03, 0x20, 0x01, 0x00, /* PML4[0] = PDPT */
    0x26, 0x66, 0xc7, 0x06, 0xf8, 0x1f, 0x03, 0x20, 0x01, 0x00, /* PML4[511] = PDPT */
    0x26, 0x66, 0xc7, 0x06, 0x00, 0x20, 0x03, 0x30, 0x01, 0x00, /* PDPT[0] = PD */
    0x26, 0x66, 0xc7, 0x06, 0xf8, 0x2f, 0x03, 0x30, 0x01, 0x00, /* PDPT[511] = PD */
    0x26, 0x66, 0xc7, 0x06, 0x00, 0x30, 0x83, 0x00, 0x00, 0x00, /* PD[0] = 0, 2 MiB */
    0x66, 0xb8, 0x20, 0x00, 0x00, 0x00, 0x0f, 0x22, 0xe0, /* mov cr4, PAE */
    0x66, 0xb8, 0x00, 0x10, 0x01, 0x00, 0x0f, 0x22, 0xd8, /* mov cr3, 0x11000 */
    0x66, 0xb9, 0x80, 0x00, 0x00, 0xc0, 0x0f, 0x32,       /* mov ecx, EFER; rdmsr */
    0x80, 0xcc, 0x01, 0x0f, 0x30,                         /* or ah, LME; wrmsr */
    0x0f, 0x20, 0xc0, 0x66, 0x0d, 0x01, 0x00, 0x00, 0x80, /* mov eax, cr0; or eax, PG | PE */
    0x0f, 0x01, 0x16, 0xb2, 0x7c, 0x0f, 0x22, 0xc0,       /* lgdt [0x7cb2]; mov cr0, eax */
    0x66, 0xea, 0x90, 0x7c, 0x00, 0x00, 0x08, 0x00,       /* jmp 8:0x7c90 */
    0x48, 0xc7, 0xc0, 0x99, 0x7c, 0x00, 0xc0, 0xff, 0xe0, /* mov rax, 0xffffffffc0007c99; jmp rax */
    0xff, 0x04, 0x25, 0x00, 0x60, 0x00, 0x00, 0xeb, 0xf7, /* round: inc dword [0x6000]; jmp round */
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,       /* the GDT: nothing, */
    0x00, 0x00, 0x00, 0x00, 0x00, 0x9a, 0x20, 0x00,       /* code of 64 bits */
    0x0f, 0x00, 0xa2, 0x7c, 0x00, 0x00,                   /* 15, 0x7ca2 */
};

_Static_assert(sizeof(boot) == 0xb8, "the addresses in it");

static const struct guest {
    uint8_t cr4, cr3, rip, levels;
    uint64_t root, base;
} guests[] = {
    {0x00, 0x10, 0xc0, 4, TABLES_GPA + 0x1000, HIGH_GVA},
    {0x10, 0x00, 0xc0, 5, TABLES_GPA, HIGH_GVA},
    {0x00, 0x10, 0x00, 4, TABLES_GPA + 0x1000, 0},
};

static struct scene scene;

static void begin(const struct guest *guest) {
    uint8_t code[sizeof(boot)];

    memcpy(code, boot, sizeof(boot));
    code[AT_CR4] = guest->cr4;
    code[AT_CR3] = guest->cr3;
    code[AT_RIP] = guest->rip;
    scene_boot(&scene, code, sizeof(code), NULL, NULL);
}

static int write_at(uint64_t gva, uint32_t flags, uint64_t value) {
    const struct vmibus_write write = {
        .gva = gva,
        .data = &value,
        .len = sizeof(value),
        .flags = flags,
        .token = scene.token,
        .epoch = scene.epoch,
    };

    return vmibus_memwrite(scene.bus, &scene.endpoint, &write, NULL);
}

static uint64_t read_at(uint64_t gpa) {
    struct vmibus_mediated *memory;
    uint64_t value;

    ck_assert_int_eq(vmibus_mediated_new(scene.bus, &scene.endpoint, scene.epoch, &memory, NULL), 0);
    ck_assert_int_eq(vmibus_mediated_read(memory, gpa, &value, sizeof(value)), 0);
    vmibus_mediated_free(memory);
    return value;
}

static bool has_ended(struct scene *at, void *data) {
    return at->n_ends > *(const size_t *)data;
}

static void check_root(const struct guest *guest) {
    ck_assert_uint_eq(scene.memctx.confidence, VMIBUS_CONFIDENCE_SAMPLED);
    ck_assert_uint_eq(scene.memctx.evidence, VMIBUS_EVIDENCE_LAYOUT_MAPS | VMIBUS_EVIDENCE_VCPU_CR3 | VMIBUS_EVIDENCE_CANARY);
    ck_assert_uint_eq(scene.memctx.cr3, guest->root);
    ck_assert_uint_eq(scene.memctx.vcpu_cr3, guest->root);
    ck_assert_uint_eq(scene.memctx.levels, guest->levels);
    ck_assert_uint_eq(scene.memctx.note, 0);
}

TEST(test_p12_root_of_a_guest_without_a_note_is_sampled, .timeout = 240, .iterations = 3) {
    const struct guest *guest = &guests[_i];
    size_t ends;

    begin(guest);
    ends = scene.n_ends;
    ck_assert_uint_eq(scene.state, VMIBUS_MEMCTX_STATE_PENDING);
    scene_wait_ready(&scene);
    check_root(guest);
    ck_assert_uint_eq(scene.n_ends, ends);

    /* It translates. */
    ck_assert_int_eq(write_at(guest->base + FREE_GPA, 0, 0x1122334455667788), 0);
    ck_assert_uint_eq(read_at(FREE_GPA), 0x1122334455667788);
    ck_assert_int_ne(write_at(UINT64_C(0xffff888000000000) + FREE_GPA, 0, 1), 0);

    /* The entry that maps what runs is its canary, in either half. */
    ck_assert_int_eq(write_at(guest->root + (guest->base ? 511 * 8 : 0), VMIBUS_MEMWRITE_PHYSICAL, 0), 0);
    ck_assert_int_ne(write_at(FREE_GPA, VMIBUS_MEMWRITE_PHYSICAL, 1), 0);
    ck_assert(scene_wait(&scene, has_ended, &ends));
    ck_assert_uint_eq(scene.ends[ends].reason, VMIBUS_REASON_CANARY);
    scene_end(&scene);
    scene.bed = bed_stop(scene.bed);
}

HARNESS_SUITE("qemu: sampled roots", HARNESS_QUICK)
