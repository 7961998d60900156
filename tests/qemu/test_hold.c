/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A real guest is held still by several controls and by writes at once: it stops once and goes on once,
 * and a compare-and-write is one.
 *
 * The guest is a boot sector that never ends: it counts, flips a bit, and counts again.  While it stands
 * still between rounds, both counts are equal, and the bit is the parity of either, unless a write of
 * somebody else has undone a flip.
 */
#include "harness.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "scene.h"

#define BYTE_GPA UINT64_C(0x10000)  /* bit 0 is the guest's, the others are the control's */
#define COUNT_GPA "0x10008"         /* the two counts; before and after the flip */
#define SUCCESSES 20

static const uint8_t code[] = {
    0xfa,                               /* cli */
    0xb8, 0x00, 0x10, 0x8e, 0xd8,       /* mov ax, 0x1000; mov ds, ax */
    0x66, 0xff, 0x06, 0x08, 0x00,       /* round: inc dword [8] */
    0x80, 0x36, 0x00, 0x00, 0x01,       /* xor byte [0], 1 */
    0x66, 0xff, 0x06, 0x0c, 0x00,       /* inc dword [12] */
    0xeb, 0xef,                         /* jmp round */
};

static struct bed *bed;
static struct scene scene;

static void boot(void) {
    scene_boot(&scene, code, sizeof(code), NULL, NULL);
    bed = scene.bed;
}

static void finish(void) {
    scene_end(&scene);
    bed = bed_stop(bed);
}

static void words_at(const char *gpa, uint32_t words[2]) {
    char command[40], *text;
    uint64_t at;

    snprintf(command, sizeof(command), "xp /2wx %s", gpa);
    ck_assert_int_eq(bed_hmp(bed, command, &text), 0);
    ck_assert_msg(sscanf(text, "%" SCNx64 ": %" SCNx32 " %" SCNx32, &at, &words[0], &words[1]) == 3, "%s", text);
    free(text);
}

static bool counts(struct scene *all, void *data) {
    uint32_t *words = data, before = words[0];

    (void)all;
    words_at(COUNT_GPA, words);
    return before && words[0] > before + 1000;
}

static void wait_for_guest(void) {
    uint32_t words[2] = {};

    ck_assert(scene_wait(&scene, counts, words));
}

static void control(struct vmibus *bus, enum vmibus_vm_operation operation) {
    ck_assert_int_eq(vmibus_control_vm(bus, &scene.endpoint, 0, operation, NULL), 0);
}

/* Compares the octet and writes it. Returns as vmibus_memwrite(). */
static int exchange(uint8_t expected, uint8_t octet, uint32_t flags) {
    const uint8_t data[2] = {expected, octet};
    const struct vmibus_write write = {
        .gva = BYTE_GPA,
        .data = data,
        .len = 1,
        .flags = VMIBUS_MEMWRITE_PHYSICAL | VMIBUS_MEMWRITE_EXPECT | flags,
        .token = scene.token,
        .epoch = scene.epoch,
    };

    return vmibus_memwrite(scene.bus, &scene.endpoint, &write, NULL);
}

/* The octet while the guest stands still between two rounds, and the parity of its flips. */
static uint8_t look(unsigned int *parity) {
    uint32_t words[2], octet[2];
    bool between = false;

    while (!between) {
        control(scene.bus, VMIBUS_VM_OPERATION_HOLD);
        words_at(COUNT_GPA, words);
        words_at("0x10000", octet);
        control(scene.bus, VMIBUS_VM_OPERATION_LET_GO);
        between = words[0] == words[1];
    }
    *parity = (words[0] ^ octet[0]) & 1;

    return (uint8_t)octet[0];
}

TEST(test_p04_compare_and_write_under_quiesce_loses_nothing, .timeout = 180) {
    unsigned int before, after, attempts = 0;
    uint8_t octet;

    boot();
    wait_for_guest();
    octet = look(&before) & 0xfe;
    for (unsigned int done = 0; done < SUCCESSES; attempts++) {
        uint8_t next = (uint8_t)(octet + 2);

        ck_assert_uint_lt(attempts, 100 * SUCCESSES);
        if (exchange(octet, next, VMIBUS_MEMWRITE_QUIESCE) != VMIBUS_ERROR_OK)
            continue; /* the bit was set */
        octet = next;
        done++;
        ck_assert_uint_eq(look(&after) & 0xfe, octet);
        ck_assert_msg(after == before, "write %u undid a flip", done);
    }
    printf("%d of %u compare-and-writes found what they expected\n", SUCCESSES, attempts);
    finish();
}

/* What QEMU has told before it answers is there. */
static void catch_up(void) {
    ck_assert_int_eq(bed_qmp(bed, "query-status", NULL, NULL), 0);
}

static void forget_events(void) {
    catch_up();
    bed_drop_events(bed);
}

static void expect_events(const char *name, bool any) {
    catch_up();
    ck_assert_int_eq(bed_wait_event(bed, name, any ? 20000 : 1, NULL) == 0, any);
}

TEST(test_p11_nested_holds_of_a_real_guest, .timeout = 180) {
    struct vmibus *others[4];
    uint64_t epoch;
    uint8_t octet;
    unsigned int parity;

    boot();
    wait_for_guest();
    epoch = scene.epoch;
    octet = look(&parity);
    forget_events();
    for (size_t i = 0; i < 4; i++) {
        ck_assert_int_eq(vmibus_core_connect(scene.core, &others[i], "other"), 0);
        control(others[i], VMIBUS_VM_OPERATION_HOLD);
    }
    for (unsigned int i = 0; i < 16; i++) {
        /* One of the two is there. */
        int r = exchange(octet, octet, VMIBUS_MEMWRITE_QUIESCE);

        ck_assert(r == VMIBUS_ERROR_OK || exchange(octet ^ 1, octet ^ 1, VMIBUS_MEMWRITE_QUIESCE) == VMIBUS_ERROR_OK);
    }
    for (size_t i = 0; i < 3; i++)
        control(others[i], VMIBUS_VM_OPERATION_LET_GO);
    vmibus_free(others[0]);
    expect_events("RESUME", false);
    vmibus_free(others[3]); /* its hold ends with it */
    for (size_t i = 1; i < 3; i++)
        vmibus_free(others[i]);
    wait_for_guest();
    expect_events("RESUME", true);
    expect_events("RESUME", false);
    ck_assert_uint_eq(scene.epoch, epoch);
    ck_assert_uint_eq(scene.n_ends, 0);
    finish();
}

TEST(test_p11_stops_once, .timeout = 180) {
    boot();
    wait_for_guest();
    forget_events();
    control(scene.bus, VMIBUS_VM_OPERATION_HOLD);
    control(scene.bus, VMIBUS_VM_OPERATION_HOLD);
    expect_events("STOP", true);
    control(scene.bus, VMIBUS_VM_OPERATION_LET_GO);
    control(scene.bus, VMIBUS_VM_OPERATION_LET_GO);
    expect_events("STOP", false);
    finish();
}

HARNESS_SUITE("qemu: a real guest held still", HARNESS_QUICK)
