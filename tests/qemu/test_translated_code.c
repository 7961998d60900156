/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What becomes of code of a guest under TCG that the bus changes: QEMU does not see the write, and may go on
 * running what it translated before.  What is seen is told; only that a write of the guest itself to the
 * same page ends it is demanded (vmibus-memory(7)).
 *
 * The guest is a boot sector that calls, for ever, code which leaves a number; it brings that code only where
 * there is none, so that a change outlives a reset.
 */
#include <inttypes.h>
#include <stdio.h>

#include "harness.h"
#include "scene.h"

#define NUMBER_GPA UINT64_C(0x9004) /* in the instruction that leaves it */
#define LEFT_GPA UINT64_C(0xa100)
#define ROUNDS_GPA UINT64_C(0xa104)
#define TOUCH_GPA UINT64_C(0xa108)  /* 1: the guest writes to its page of code, and then 0 here */
#define OLD 0x1111u
#define CHANGED 0x2222u
#define MANY 200000u

static const uint8_t code[] = {
    0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xd0,             /* cli; xor ax, ax; mov ds, ax; mov ss, ax */
    0xbc, 0x00, 0x70,                                     /* mov sp, 0x7000 */
    0x80, 0x3e, 0x00, 0x90, 0x00, 0x75, 0x12,             /* cmp byte [0x9000], 0; jne round */
    0x66, 0xc7, 0x06, 0x00, 0x90, 0xc7, 0x06, 0x00, 0xa1, /* mov dword [0x9000], ..: mov word [0xa100], */
    0x66, 0xc7, 0x06, 0x04, 0x90, 0x11, 0x11, 0xc3, 0x00, /* mov dword [0x9004], ..: 0x1111; ret */
    0xe8, 0xda, 0x13,                                     /* round: call 0x9000 */
    0x66, 0xff, 0x06, 0x04, 0xa1,                         /* inc dword [0xa104] */
    0x80, 0x3e, 0x08, 0xa1, 0x00, 0x74, 0xf1,             /* cmp byte [0xa108], 0; je round */
    0xfe, 0x06, 0x80, 0x90,                               /* inc byte [0x9080] */
    0xc6, 0x06, 0x08, 0xa1, 0x00, 0xeb, 0xe6,             /* mov byte [0xa108], 0; jmp round */
};

_Static_assert(0x7c00 + 35 + 3 + 0x13da == 0x9000, "where the call goes");

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
    return (word_at(TOUCH_GPA) & 0xff) == 0;
}

static void touch(void) {
    const uint8_t one = 1;

    write_at(TOUCH_GPA, &one, sizeof(one));
    ck_assert_msg(scene_wait(&scene, has_touched, NULL), "the guest does not write to its code");
}

static void change_code(void) {
    const uint16_t number = CHANGED;

    ck_assert_uint_eq(after_rounds(MANY), OLD);
    write_at(NUMBER_GPA, &number, sizeof(number));
    ck_assert_uint_eq(word_at(NUMBER_GPA) & 0xffff, CHANGED);
    printf("%u rounds after the write the guest runs the %s code\n", MANY, after_rounds(MANY) == OLD ? "old" : "changed");
}

static void finish(void) {
    scene_end(&scene);
    scene.bed = bed_stop(scene.bed);
}

TEST(test_changed_code_runs_after_a_write_of_the_guest, .timeout = 180) {
    scene_boot(&scene, code, sizeof(code), NULL, NULL);
    change_code();
    touch();
    ck_assert_uint_eq(after_rounds(2), CHANGED);
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
    printf("after a reset it runs the %s code\n", after_rounds(MANY) == OLD ? "old" : "changed");
    touch();
    ck_assert_uint_eq(after_rounds(2), CHANGED);
    finish();
}

HARNESS_SUITE("qemu: code that the bus changes", HARNESS_QUICK)
