/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What becomes of code of a guest under TCG that the bus changes: QEMU does not see the write, and may go on
 * running what it translated before.  How long it does is told; only that it ends when the guest itself writes
 * to the code is demanded (vmibus-memory(7)).
 *
 * The guest is a boot sector that calls, for ever, code which leaves a number; it brings that code only where
 * there is none, so that a change outlives a reset.
 */
#include <stdio.h>

#include "harness.h"
#include "scene.h"

#define NUMBER_GPA 0x5004           /* in the instruction that leaves it */
#define BESIDE_GPA 0x5800           /* in the same page */
#define LEFT_GPA UINT64_C(0x6100)
#define ROUNDS_GPA UINT64_C(0x6104)
#define TOUCH_GPA UINT64_C(0x6108)  /* not 0: where the guest is to write what is there already, and then 0 here */
#define OLD 0x1111u
#define CHANGED 0x2222u
#define MANY 200000u

/* Below 0x7000, which is where the firmware begins to clear memory when it starts a boot sector. */
static const uint8_t code[] = {
    0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xd0,             /* cli; xor ax, ax; mov ds, ax; mov ss, ax */
    0xbc, 0x00, 0x70,                                     /* mov sp, 0x7000 */
    0x80, 0x3e, 0x00, 0x50, 0x00, 0x75, 0x12,             /* cmp byte [0x5000], 0; jne round */
    0x66, 0xc7, 0x06, 0x00, 0x50, 0xc7, 0x06, 0x00, 0x61, /* mov dword [0x5000], ..: mov word [0x6100], */
    0x66, 0xc7, 0x06, 0x04, 0x50, 0x11, 0x11, 0xc3, 0x00, /* mov dword [0x5004], ..: 0x1111; ret */
    0xe8, 0xda, 0xd3,                                     /* round: call 0x5000 */
    0x66, 0xff, 0x06, 0x04, 0x61,                         /* inc dword [0x6104] */
    0x8b, 0x1e, 0x08, 0x61, 0x85, 0xdb, 0x74, 0xf0,       /* mov bx, [0x6108]; test bx, bx; jz round */
    0x8a, 0x07, 0x88, 0x07,                               /* mov al, [bx]; mov [bx], al */
    0xc7, 0x06, 0x08, 0x61, 0x00, 0x00, 0xeb, 0xe4,       /* mov word [0x6108], 0; jmp round */
};

_Static_assert(0x7c00 + 35 + 3 - 0x2c26 == 0x5000, "where the call goes");

static struct scene scene;

static uint32_t word_at(uint64_t gpa) {
    struct vmibus_mediated *memory;
    uint32_t word;

    ck_assert_int_eq(vmibus_mediated_new(scene.bus, &scene.endpoint, scene.epoch, &memory, NULL), 0);
    ck_assert_int_eq(vmibus_mediated_read(memory, gpa, &word, sizeof(word)), 0);
    vmibus_mediated_free(memory);
    return word;
}

static void write_at(uint64_t gpa, const void *data, uint32_t len) {
    const struct vmibus_write write = {
        .gva = gpa,
        .data = data,
        .len = len,
        .flags = VMIBUS_MEMWRITE_PHYSICAL,
        .token = scene.token,
        .epoch = scene.epoch,
    };

    ck_assert_int_eq(vmibus_memwrite(scene.bus, &scene.endpoint, &write, NULL), 0);
}

static bool has_run(struct scene *all, void *data) {
    (void)all;
    return word_at(ROUNDS_GPA) >= *(const uint32_t *)data;
}

/* So many rounds from now on. Returns what the code left last. */
static uint16_t after_rounds(uint32_t rounds) {
    uint32_t until = word_at(ROUNDS_GPA) + rounds;

    ck_assert_msg(scene_wait(&scene, has_run, &until), "the guest does not run");
    return (uint16_t)word_at(LEFT_GPA);
}

static bool has_touched(struct scene *all, void *data) {
    (void)all;
    (void)data;
    return (word_at(TOUCH_GPA) & 0xffff) == 0;
}

static void let_guest_write(uint16_t gpa) {
    write_at(TOUCH_GPA, &gpa, sizeof(gpa));
    ck_assert_msg(scene_wait(&scene, has_touched, NULL), "the guest does not write to its code");
}

/* Which code runs, after a while. */
static void tell(const char *what) {
    printf("%u rounds after %s the guest runs the %s code\n", MANY, what, after_rounds(MANY) == OLD ? "old" : "changed");
}

static void change_code(void) {
    const uint16_t number = CHANGED;

    ck_assert_uint_eq(after_rounds(MANY), OLD);
    write_at(NUMBER_GPA, &number, sizeof(number));
    ck_assert_uint_eq(word_at(NUMBER_GPA) & 0xffff, CHANGED);
    tell("the write");
}

/* The guest's own write is one that QEMU sees, also of the octets that are there. */
static void demand_end(void) {
    let_guest_write(NUMBER_GPA);
    ck_assert_uint_eq(after_rounds(2), CHANGED);
}

static void finish(void) {
    scene_end(&scene);
    scene.bed = bed_stop(scene.bed);
}

TEST(test_changed_code_runs_after_a_write_of_the_guest, .timeout = 180) {
    scene_boot(&scene, code, sizeof(code), NULL, NULL);
    change_code();
    let_guest_write(BESIDE_GPA);
    tell("a write of its own to the same page");
    demand_end();
    finish();
}

static bool has_other_epoch(struct scene *all, void *data) {
    return all->epoch && all->epoch != *(const uint64_t *)data;
}

TEST(test_changed_code_and_a_reset, .timeout = 180) {
    uint64_t before;

    scene_boot(&scene, code, sizeof(code), NULL, NULL);
    change_code();
    before = scene.epoch;
    ck_assert_int_eq(vmibus_power(scene.bus, &scene.endpoint, scene.power, VMIBUS_POWER_OPERATION_RESET, NULL), 0);
    ck_assert_msg(scene_wait(&scene, has_other_epoch, &before), "no memory context was published after the reset");
    ck_assert_uint_eq(word_at(NUMBER_GPA) & 0xffff, CHANGED);
    tell("a reset");
    demand_end();
    finish();
}

HARNESS_SUITE("qemu: code that the bus changes", HARNESS_QUICK)
