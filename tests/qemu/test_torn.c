/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Looking for torn values: the vCPUs of a real QEMU under TCG read what the bus writes, as fast as all can.
 *
 * What is looked for is in torn/hunt.h; here is the boot sector that brings one or two processors to its loop.
 * TCG stops a vCPU only where it would leave the translated block, so that what one load sees, and what two in a
 * row see, is never of two moments under QUIESCE.  VMIBUS_TORN_WRITES: how many writes, other than 50000.
 */
#include <stdio.h>
#include <string.h>

#include <vmibus/names.h>

#include "harness.h"
#include "scene.h"
#include "torn/hunt.h"

#define WRITES_DEFAULT 50000u
#define WRITES_QUIESCED 100u

/* Where the number of the processors that are to be waited for stands in the code below. */
#define SECOND_VCPUS 0x99

_Static_assert(HUNT_BEGIN == 0x20000 && HUNT_END == 0x24000 && HUNT_COUNTERS == 0x21000 && HUNT_OWN_OCTET == 0x20019 &&
                   HUNT_SECOND_COUNTERS == 0x21100 && HUNT_SECOND_OCTET == 0x20017,
               "as in the code");

/*
 * From real into 64-bit mode (Intel SDM volume 3, 10.8.5), for the first processor and, by INIT and startup
 * interrupts (11.4.4), for a second; pages of 1 GiB show RAM from 0 and the local APIC.
 */
static const uint8_t boot[] = {
    0xfa,                                                 /* cli */
    0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0, 0xfc,             /* xor ax, ax; mov ds, ax; mov es, ax; cld */
    0xbf, 0x00, 0x10, 0xb9, 0x00, 0x10, 0xf3, 0xab,       /* mov di, 0x1000; mov cx, 0x1000; rep stosw */
    0xc7, 0x06, 0x00, 0x10, 0x03, 0x20,                   /* mov word [0x1000], 0x2003: one table of 512 GiB, */
    0xc6, 0x06, 0x00, 0x20, 0x83,                         /* mov byte [0x2000], 0x83: in it RAM */
    0x66, 0xc7, 0x06, 0x18, 0x20, 0x83, 0x00, 0x00, 0xc0, /* mov dword [0x2018], 0xc0000083: and APIC */
    0xc6, 0x06, 0x00, 0x80, 0xea,                         /* mov byte [0x8000], 0xea: jmp 0:0x7c32, where the second */
    0x66, 0xc7, 0x06, 0x01, 0x80, 0x32, 0x7c, 0x00, 0x00, /* mov dword [0x8001], 0x7c32: processor begins */
    /* 0x7c32: both */
    0x66, 0xb8, 0x20, 0x00, 0x00, 0x00, 0x0f, 0x22, 0xe0, /* mov eax, 0x20; mov cr4, eax: PAE */
    0x66, 0xb8, 0x00, 0x10, 0x00, 0x00, 0x0f, 0x22, 0xd8, /* mov eax, 0x1000; mov cr3, eax */
    0x66, 0xb9, 0x80, 0x00, 0x00, 0xc0, 0x0f, 0x32,       /* mov ecx, 0xc0000080; rdmsr: EFER */
    0x80, 0xcc, 0x01, 0x0f, 0x30,                         /* or ah, 1; wrmsr: LME */
    0x0f, 0x01, 0x16, 0xcd, 0x7c,                         /* lgdt [0x7ccd] */
    0x66, 0xb8, 0x01, 0x00, 0x00, 0x80, 0x0f, 0x22, 0xc0, /* mov eax, 0x80000001; mov cr0, eax: PG, PE */
    0xea, 0x64, 0x7c, 0x08, 0x00,                         /* jmp 8:0x7c64 */
    /* 0x7c64: in 64-bit mode */
    0xb9, 0x1b, 0x00, 0x00, 0x00, 0x0f, 0x32,             /* mov ecx, 0x1b; rdmsr: IA32_APIC_BASE */
    0xf6, 0xc4, 0x01, 0x74, 0x38,                         /* test ah, 1; jz second: it is not the first */
    0xbf, 0x00, 0x00, 0x02, 0x00,                         /* mov edi, 0x20000 */
    0xb9, 0x00, 0x08, 0x00, 0x00,                         /* mov ecx, 0x800 */
    0x31, 0xc0, 0xf3, 0x48, 0xab,                         /* xor eax, eax; rep stosq */
    0xbb, 0x00, 0x03, 0xe0, 0xfe,                         /* mov ebx, 0xfee00300: the interrupt command register */
    0xc7, 0x03, 0x00, 0x45, 0x0c, 0x00,                   /* mov dword [rbx], 0xc4500: INIT to all others */
    0xc7, 0x03, 0x08, 0x46, 0x0c, 0x00,                   /* again: mov dword [rbx], 0xc4608: they start at 0x8000, */
    0xf3, 0x90,                                           /* pause */
    0x80, 0x3c, 0x25, 0x00, 0x14, 0x02, 0x00, 0x00,       /* cmp byte [0x21400], 0: filled in at SECOND_VCPUS */
    0x72, 0xee,                                           /* jb again: unless they were not ready for it */
    0xbd, 0x00, 0x10, 0x02, 0x00,                         /* mov ebp, 0x21000 */
    0xbf, 0x19, 0x00, 0x02, 0x00,                         /* mov edi, 0x20019 */
    0xeb, 0x11,                                           /* jmp loop */
    0xbd, 0x00, 0x11, 0x02, 0x00,                         /* second: mov ebp, 0x21100 */
    0xbf, 0x17, 0x00, 0x02, 0x00,                         /* mov edi, 0x20017 */
    0xfe, 0x04, 0x25, 0x00, 0x14, 0x02, 0x00,             /* inc byte [0x21400] */
    0x31, 0xd2, 0xeb, 0x16,                               /* loop: xor edx, edx; jmp behind what follows */
    0, 0, 0, 0, 0, 0, 0, 0,                               /* 0x7cbd: the descriptor table: nothing, */
    0xff, 0xff, 0x00, 0x00, 0x00, 0x9b, 0xaf, 0x00,       /* and 64-bit code */
    0x0f, 0x00, 0xbd, 0x7c, 0x00, 0x00,                   /* 0x7ccd: its size less one, its place */
};

_Static_assert(sizeof(boot) == 0xd3, "or the addresses in it are wrong");

static struct scene scene;
static struct vmibus_mediated *memory;

static uint64_t peek(void *guest, uint32_t gpa) {
    uint64_t value;
    int r = vmibus_mediated_read(memory, gpa, &value, sizeof(value));

    (void)guest;
    ck_assert_msg(r == 0, "reading: %d; epochs ended: %zu, the last for %s", r, scene.n_ends,
                  scene.n_ends ? vmibus_reason_name(scene.ends[scene.n_ends - 1].reason) : "nothing");
    return value;
}

/* What lets the guest go on after QUIESCE comes with it. */
static void turn(void *guest) {
    (void)guest;
    scene_turn(&scene, 1);
}

static void begin(struct hunt *hunt, unsigned int vcpus) {
    uint8_t code[sizeof(boot) + HUNT_GUEST_MAX];
    size_t size = sizeof(boot);

    memcpy(code, boot, sizeof(boot));
    code[SECOND_VCPUS] = (uint8_t)(vcpus - 1);
    size += hunt_put_guest(code + size);
    scene_boot(&scene, code, size, vcpus == 1 ? "1" : "2", "tcg,thread=multi");
    ck_assert_int_eq(vmibus_mediated_new(scene.bus, &scene.endpoint, scene.epoch, &memory, NULL), 0);
    *hunt = (struct hunt){
        .bus = scene.bus,
        .endpoint = scene.endpoint,
        .token = scene.token,
        .epoch = scene.epoch,
        .flags = VMIBUS_MEMWRITE_PHYSICAL,
        .vcpus = vcpus,
        .peek = peek,
        .turn = turn,
    };
}

static void end(void) {
    memory = vmibus_mediated_free(memory);
    scene_end(&scene);
    scene.bed = bed_stop(scene.bed);
}

static void look(unsigned int vcpus, hunt_write_fn *write) {
    struct hunt hunt;

    begin(&hunt, vcpus);
    hunt_for_torn(&hunt, write, hunt_writes(WRITES_DEFAULT));
    end();
}

TEST(test_p04_aligned_values_are_not_torn_for_tcg, .timeout = 600) {
    look(1, hunt_write_each);
}

TEST(test_p04_aligned_extents_are_not_torn_for_tcg, .timeout = 600) {
    look(1, hunt_write_table);
}

TEST(test_p04_aligned_values_are_not_torn_for_two_vcpus, .timeout = 600) {
    look(2, hunt_write_each);
}

TEST(test_p04_aligned_extents_are_not_torn_for_two_vcpus, .timeout = 600) {
    look(2, hunt_write_table);
}

static void look_quiesced(unsigned int vcpus) {
    struct hunt hunt;

    begin(&hunt, vcpus);
    hunt_quiesced(&hunt, WRITES_QUIESCED);
    end();
}

TEST(test_p04_nothing_is_torn_under_quiesce, .timeout = 180) {
    look_quiesced(1);
}

TEST(test_p04_nothing_is_torn_under_quiesce_for_two_vcpus, .timeout = 180) {
    look_quiesced(2);
}

TEST(test_the_guest_sees_what_is_torn, .timeout = 180) {
    struct hunt hunt;

    begin(&hunt, 2);
    hunt_calibrate(&hunt);
    end();
}

HARNESS_SUITE("qemu: torn values", HARNESS_QUICK)
