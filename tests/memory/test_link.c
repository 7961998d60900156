/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The authority while it does not hear the bus, and what a bus that comes again tells it. */
#include <string.h>

#include "harness.h"
#include "memory/fixture.h"

static struct fixture fx;

static void begin(void) {
    fixture_init(&fx, VM_SEALED);
    fixture_ready(&fx);
}

static void end(void) {
    fixture_deinit(&fx);
}

static void say_synced(void) {
    const struct vmibus_frame frame = {.header = {.kind = VMIBUS_KIND_LINK_SYNCED}};

    authority_hear_link(fx.authority, &frame, NULL);
}

static struct vmibus_ack *write_octet(void) {
    const uint8_t octet = 0x5a;

    return do_write(&fx, DATA_GVA, &octet, 1, 0);
}

TEST(test_p05_fence_is_suspended_without_a_link, .setup = begin, .teardown = end) {
    assert_ok(write_octet());
    authority_link_lost(fx.authority);
    assert_refused(write_octet(), VMIBUS_ERROR_BUSY, VMIBUS_REASON_NO_LINK);
    link_open(&fx, fx.generation, "vm");
    link_issue(&fx, &fx.control, fx.token, 0);
    assert_refused(write_octet(), VMIBUS_ERROR_BUSY, VMIBUS_REASON_NO_LINK);
    say_synced();
    assert_ok(write_octet());
}

TEST(test_p05_fence_of_another_session_is_not_renewed, .setup = begin, .teardown = end) {
    struct client other;

    client_init(&other, &fx, VMIBUS_ROLE_CONTROL, 0, 0);
    authority_link_lost(fx.authority);
    link_open(&fx, fx.generation, "vm");
    link_issue(&fx, &other, fx.token, 0);
    say_synced();
    assert_refused(write_octet(), VMIBUS_ERROR_STALE_TOKEN, VMIBUS_REASON_REVOKED);
    client_deinit(&other);
}

/* A write that waits until the guest stands still is refused with the link that was to tell so. */
TEST(test_p04_quiesced_write_does_not_outlast_the_link, .setup = begin, .teardown = end) {
    const uint8_t octet = 0x5a;
    struct vmibus_frame frame = write_frame(&fx, DATA_GVA, &octet, 1, VMIBUS_MEMWRITE_QUIESCE);
    size_t before = fx.control.journal.n;

    submit_only(&fx.control, &frame, NULL, NULL);
    ck_assert_uint_eq(fx.control.journal.n, before);
    authority_link_lost(fx.authority);
    wait_answers(&fx.control, before + 1);
    assert_refused(&fx.control.journal.frames[before].ack, VMIBUS_ERROR_BUSY, VMIBUS_REASON_NO_LINK);
}

TEST(test_p06_endpoint_that_is_not_told_again_is_gone, .setup = begin, .teardown = end) {
    authority_link_lost(fx.authority);
    say_synced();
    ck_assert_ptr_nonnull(last_of(&fx.link, VMIBUS_KIND_MEMCTX_INVALIDATED));
    ck_assert_uint_eq(write_octet()->error, VMIBUS_ERROR_GONE);
}

TEST(test_p06_context_is_published_again, .setup = begin, .teardown = end) {
    size_t before = count_of(&fx.link, VMIBUS_KIND_MEMCTX);

    authority_link_lost(fx.authority);
    link_open(&fx, fx.generation, "vm");
    say_synced();
    ck_assert_uint_eq(count_of(&fx.link, VMIBUS_KIND_MEMCTX), before + 1);
    ck_assert(last_of(&fx.link, VMIBUS_KIND_MEMCTX)->header.flags & VMIBUS_FRAME_RETAINED);
    ck_assert_uint_eq(last_of(&fx.link, VMIBUS_KIND_MEMCTX)->memctx.epoch, fx.epoch);
}

TEST(test_p12_layout_of_an_unidentified_vm_is_refused) {
    fixture_init(&fx, VM_SEALED);
    fx.sensor.unidentified = true;
    assert_refused(propose_layout(&fx, false), VMIBUS_ERROR_DENIED, VMIBUS_REASON_OTHER_IDENTITY);
    fx.sensor.unidentified = false;
    assert_ok(propose_layout(&fx, false));
    fixture_deinit(&fx);
}

HARNESS_SUITE("link", HARNESS_QUICK)
