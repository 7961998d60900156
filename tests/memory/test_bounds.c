/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Writes that policy bounds: where, how much, how fast, and what it protects. */
#include <string.h>

#include "harness.h"
#include "memory/fixture.h"
#include "policy/write_bounds.h"

#define ENTRY_PRESENT UINT64_C(1)
#define ENTRY_WRITABLE UINT64_C(2)
#define ENTRY_NX (UINT64_C(1) << 63)
#define NX_GVA UINT64_C(0xffffffff8c000000) /* DATA_GPA + 4 MiB, not executable */
#define NX_GPA (DATA_GPA + 4 * MIB)

static struct fixture fx;
static struct policy_rule *rule;
static const uint8_t eight[8] = {1, 2, 3, 4, 5, 6, 7, 8};

/* A control with one rule, whose bounds the test sets. */
static void ready_bounded(void) {
    fixture_init(&fx, VM_SEALED);
    vm_map(&fx.vm, NX_GVA, NX_GPA, ENTRY_PRESENT | ENTRY_WRITABLE | ENTRY_NX, 1);
    fixture_grant(&fx, fx.control.principal.uid, CAPABILITIES_ALL);
    rule = list_first(&fx.policy->rules, struct policy_rule, link);
    fixture_ready(&fx);
}

static void teardown(void) {
    fixture_deinit(&fx);
}

#define BOUNDED .setup = ready_bounded, .teardown = teardown

static void bounds_changed(void) {
    authority_set_policy(fx.authority, fx.policy);
}

static void set_ranges(struct write_ranges *ranges, uint64_t first, uint64_t last) {
    *ranges = (struct write_ranges){.n = 1, .at = {{first, last}}};
    bounds_changed();
}

static struct vmibus_ack *write_at(uint64_t gva, size_t len, uint32_t flags) {
    static uint8_t source[65536];

    ck_assert_uint_le(len, sizeof(source));
    memset(source, 0xa5, sizeof(source));
    return do_write(&fx, gva, source, len, flags);
}

TEST(test_virtual_range, BOUNDED) {
    set_ranges(&rule->write.place.gva, DATA_GVA, DATA_GVA + PAGE - 1);
    assert_ok(write_at(DATA_GVA, 8, 0));
    assert_ok(write_at(DATA_GVA + PAGE - 8, 8, 0));
    assert_refused(write_at(DATA_GVA + PAGE - 7, 8, 0), VMIBUS_ERROR_DENIED, VMIBUS_REASON_WRITE_RANGE);
    assert_refused(write_at(DATA_GVA + PAGE, 8, 0), VMIBUS_ERROR_DENIED, VMIBUS_REASON_WRITE_RANGE);
    /* The same octets by a physical address have no virtual one. */
    assert_refused(write_at(DATA_GPA, 8, VMIBUS_MEMWRITE_PHYSICAL), VMIBUS_ERROR_DENIED, VMIBUS_REASON_WRITE_RANGE);
    ck_assert_uint_eq(fx.vm.ram[DATA_GPA + PAGE - 8], 0xa5);
    ck_assert_uint_eq(fx.vm.ram[DATA_GPA + PAGE], 0);
}

/* Tables of the writer's choosing could show any octet at an address that is allowed. */
TEST(test_virtual_range_is_the_kernels, BOUNDED) {
    struct vmibus_frame frame = write_frame(&fx, DATA_GVA, eight, 8, 0);

    set_ranges(&rule->write.place.gva, DATA_GVA, DATA_GVA + PAGE - 1);
    memcpy(fx.vm.ram + NX_GPA, fx.vm.ram + PGD_GPA, PAGE);
    frame.cmd_memwrite.cr3 = NX_GPA;
    assert_refused(submit(&fx.control, &frame, NULL, NULL), VMIBUS_ERROR_DENIED, VMIBUS_REASON_WRITE_RANGE);
    ck_assert(is_filled(fx.vm.ram + DATA_GPA, 0, 8));
    frame.cmd_memwrite.cr3 = PGD_GPA;
    assert_ok(submit(&fx.control, &frame, NULL, NULL));
    /* Where a physical range is what bounds it, any tables will do. */
    rule->write.place.gva.n = 0;
    set_ranges(&rule->write.place.gpa, DATA_GPA, DATA_GPA + PAGE - 1);
    frame.cmd_memwrite.cr3 = NX_GPA;
    assert_ok(submit(&fx.control, &frame, NULL, NULL));
}

/* Whatever address a write names, it is the physical one that counts; and nothing of it is done. */
TEST(test_p04_physical_range, BOUNDED) {
    struct vmibus_ack *ack;

    set_ranges(&rule->write.place.gpa, DATA_GPA, DATA_GPA + 2 * PAGE - 1);
    assert_ok(write_at(DATA_GVA + PAGE, 8, 0));
    assert_ok(write_at(DATA_GPA + PAGE, 8, VMIBUS_MEMWRITE_PHYSICAL));
    assert_refused(write_at(SCATTER_GVA, 8, 0), VMIBUS_ERROR_DENIED, VMIBUS_REASON_WRITE_RANGE);
    ack = write_at(DATA_GVA, 16 * PAGE, 0);
    assert_refused(ack, VMIBUS_ERROR_DENIED, VMIBUS_REASON_WRITE_RANGE);
    ck_assert_uint_eq(ack->value, DATA_GVA + 2 * PAGE);
    ck_assert(is_filled(fx.vm.ram + DATA_GPA, 0, 16));
}

TEST(test_size, BOUNDED) {
    struct vmibus_ack *ack;

    rule->write.size = 16;
    bounds_changed();
    assert_ok(write_at(DATA_GVA, 16, 0));
    ack = write_at(DATA_GVA, 17, 0);
    assert_refused(ack, VMIBUS_ERROR_DENIED, VMIBUS_REASON_WRITE_SIZE);
    ck_assert_uint_eq(ack->value, 16);
    assert_refused(write_at(DATA_GVA, 17, VMIBUS_MEMWRITE_DRY_RUN), VMIBUS_ERROR_DENIED, VMIBUS_REASON_WRITE_SIZE);
}

/* A rate so low that the test's own time does not matter. */
TEST(test_rate, BOUNDED) {
    struct vmibus_ack *ack;

    rule->write.rate = 1;
    bounds_changed();
    /* Neither what is not to be written nor what is refused counts. */
    assert_ok(write_at(DATA_GVA, 4096, VMIBUS_MEMWRITE_DRY_RUN));
    ck_assert_uint_eq(write_at(EMPTY_GVA, 4096, 0)->error, VMIBUS_ERROR_TRANSLATION);
    ck_assert_uint_eq(write_at(EMPTY_GVA, 65536, 0)->error, VMIBUS_ERROR_TRANSLATION);
    assert_ok(write_at(DATA_GVA, 4096, 0));
    ack = write_at(DATA_GVA, 8, 0);
    assert_refused(ack, VMIBUS_ERROR_BUSY, VMIBUS_REASON_WRITE_RATE);
    ck_assert_uint_gt(ack->value, 0);
    ck_assert_uint_le(ack->value, UINT64_C(4103000000));
    /* A change of policy forgives nothing. */
    bounds_changed();
    assert_refused(write_at(DATA_GVA, 8, 0), VMIBUS_ERROR_BUSY, VMIBUS_REASON_WRITE_RATE);
}

TEST(test_kernel_text_is_protected_by_every_address, BOUNDED) {
    rule->write.place.protect = PROTECT_KERNEL_TEXT;
    bounds_changed();
    assert_ok(write_at(NX_GVA, 8, 0));
    assert_ok(write_at(NX_GPA, 8, VMIBUS_MEMWRITE_PHYSICAL));
    /* The pages at DATA_GVA may be executed. */
    assert_refused(write_at(DATA_GVA, 8, 0), VMIBUS_ERROR_DENIED, VMIBUS_REASON_PROTECTED);
    assert_refused(write_at(DATA_GPA, 8, VMIBUS_MEMWRITE_PHYSICAL), VMIBUS_ERROR_DENIED, VMIBUS_REASON_PROTECTED);
    vm_map(&fx.vm, NX_GVA + PAGE, DATA_GPA, ENTRY_PRESENT | ENTRY_WRITABLE | ENTRY_NX, 1);
    assert_refused(write_at(NX_GVA + PAGE, 8, 0), VMIBUS_ERROR_DENIED, VMIBUS_REASON_PROTECTED);
    ck_assert(is_filled(fx.vm.ram + DATA_GPA, 0, 16));
}

TEST(test_page_tables_are_protected, BOUNDED) {
    struct vmibus_ack *ack;

    rule->write.place.protect = PROTECT_PAGE_TABLES;
    bounds_changed();
    assert_ok(write_at(DATA_GVA, 8, 0));
    ack = write_at(PGD_GPA + 8, 8, VMIBUS_MEMWRITE_PHYSICAL);
    assert_refused(ack, VMIBUS_ERROR_DENIED, VMIBUS_REASON_PROTECTED);
    ck_assert_uint_eq(ack->value, PGD_GPA + 8);
    assert_refused(write_at(KERNEL_GVA, 8, VMIBUS_MEMWRITE_READ_ONLY_PAGE), VMIBUS_ERROR_DENIED, VMIBUS_REASON_PROTECTED);
}

/* The RAM is there a second time, at ALIAS_GPA, where no table of the kernel says so. */
#define ALIAS_GPA UINT64_C(0x10000000)

TEST(test_p12_what_is_protected_has_no_other_address, BOUNDED) {
    const struct vmibus_layout_range ranges[] = {{.gpa = 0, .len = RAM_SIZE}, {.gpa = ALIAS_GPA, .len = RAM_SIZE}};
    struct vmibus_frame frame = frame_make(&fx, VMIBUS_KIND_MEM_LAYOUT);
    int twice[] = {fx.vm.fd, fx.vm.fd};

    for (uint16_t object = 0; object < 2; object++) {
        struct vmibus_layout_range proposed[] = {ranges[0], ranges[1]};

        proposed[1].object = object; /* the same descriptor, or another one of the same file */
        frame.header.tail_length = sizeof(proposed);
        frame.header.fd_count = 2;
        frame.mem_layout.range_count = 2;
        assert_ok(submit(&fx.sensor, &frame, proposed, twice));
        assert_ok(propose_root(&fx));
        rule->write.place.protect = 0;
        bounds_changed();
        assert_ok(write_at(ALIAS_GPA + DATA_GPA + PAGE, 8, VMIBUS_MEMWRITE_PHYSICAL));
        rule->write.place.protect = PROTECT_KERNEL_TEXT;
        bounds_changed();
        assert_refused(write_at(ALIAS_GPA + DATA_GPA, 8, VMIBUS_MEMWRITE_PHYSICAL), VMIBUS_ERROR_DENIED,
                       VMIBUS_REASON_PROTECTED);
        ck_assert(is_filled(fx.vm.ram + DATA_GPA, 0, 8));
    }
}

/* One rule's range and another's freedom: rules only add. */
TEST(test_another_rule_adds, BOUNDED) {
    set_ranges(&rule->write.place.gpa, NX_GPA, NX_GPA + PAGE - 1);
    assert_refused(write_at(DATA_GVA, 8, 0), VMIBUS_ERROR_DENIED, VMIBUS_REASON_WRITE_RANGE);
    fixture_grant(&fx, fx.control.principal.uid, VMIBUS_CAP_OBSERVE); /* lets write nothing, so bounds nothing */
    assert_refused(write_at(DATA_GVA, 8, 0), VMIBUS_ERROR_DENIED, VMIBUS_REASON_WRITE_RANGE);
    fixture_grant(&fx, fx.control.principal.uid, VMIBUS_CAP_MEM_WRITE);
    assert_ok(write_at(DATA_GVA, 8, 0));
    ck_assert_mem_ne(fx.vm.ram + DATA_GPA, eight, 8);
}

HARNESS_SUITE("bounds", HARNESS_QUICK)
