/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A bus inside a virtual machine monitor: libvmibus-core only, no daemon, no socket.  The VM is real and
 * runs while its memory is changed.
 */
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include <vmibus/client.h>
#include <vmibus/core.h>

#include "harness.h"
#include "kvm/tiny_vmm.h"

struct embedding {
    struct tiny_vmm vmm;
    struct vmibus_core *core;
    struct vmibus *bus;
    struct vmibus_endpoint endpoint;
    struct vmibus_memctx memctx;
    uint64_t token;
};

static void heard(struct vmibus *bus, struct vmibus_message *message, void *userdata) {
    struct embedding *embedding = userdata;

    (void)bus;
    if (message->frame.header.kind != VMIBUS_KIND_MEMCTX)
        return;
    embedding->endpoint.slot = message->frame.header.slot;
    embedding->endpoint.generation = message->frame.header.generation;
    embedding->memctx = message->frame.memctx;
}

static void set_up(struct embedding *embedding) {
    const struct vmibus_core_options options = {.struct_size = sizeof(options), .incarnation = 1, .audit_fd = -1};
    struct vmibus_sensor_option ram = {.key = "ram"};
    const char *failure;
    char address[32];

    *embedding = (struct embedding){};
    failure = tiny_vmm_start(&embedding->vmm);
    if (failure)
        test_skip("%s", failure);
    snprintf(address, sizeof(address), "%llx", (unsigned long long)(uintptr_t)embedding->vmm.ram);
    ram.value = address;
    ck_assert_int_eq(vmibus_core_new(&embedding->core, &options), 0);
    ck_assert_int_eq(vmibus_core_add_sensor(embedding->core, &tiny_vmm_sensor, &ram, 1), 0);
    ck_assert_int_eq(vmibus_core_connect(embedding->core, &embedding->bus, "test"), 0);
    vmibus_set_handler(embedding->bus, heard, embedding);
    ck_assert_int_eq(vmibus_subscribe(embedding->bus, "tiny", VMIBUS_KIND_BIT(VMIBUS_KIND_MEMCTX)), 0);
    while (embedding->memctx.state != VMIBUS_MEMCTX_STATE_READY)
        ck_assert_int_eq(vmibus_wait(embedding->bus, -1), 0);
}

static void tear_down(struct embedding *embedding) {
    vmibus_free(embedding->bus);
    vmibus_core_free(embedding->core);
    tiny_vmm_stop(&embedding->vmm);
}

static int write_word(struct embedding *embedding, uint64_t gva, uint64_t word, struct vmibus_message *reply) {
    const struct vmibus_write write = {
        .gva = gva,
        .data = &word,
        .len = sizeof(word),
        .token = embedding->token,
        .epoch = embedding->memctx.epoch,
    };

    return vmibus_memwrite(embedding->bus, &embedding->endpoint, &write, reply);
}

static void acquire(struct embedding *embedding) {
    ck_assert_int_eq(vmibus_lease_acquire(embedding->bus, &embedding->endpoint, VMIBUS_LEASE_CLASS_MEMWRITE, VMIBUS_LEASE_MODE_FAIL,
                                          0, &embedding->token, NULL),
                     0);
}

/* The guest is seen to take up what was written: it copies the word while it runs. */
static void wait_for_echo(const struct embedding *embedding, uint64_t word) {
    while (tiny_vmm_peek(&embedding->vmm, TINY_OUTBOX) != word) {
        ck_assert(!__atomic_load_n(&embedding->vmm.failed, __ATOMIC_ACQUIRE));
        sched_yield();
    }
}

TEST(test_memctx_of_private_ram) {
    struct embedding embedding;

    set_up(&embedding);
    ck_assert_uint_eq(embedding.memctx.cr3, 0x1000);
    ck_assert_uint_eq(embedding.memctx.levels, 4);
    ck_assert_uint_eq(embedding.memctx.confidence, VMIBUS_CONFIDENCE_SAMPLED);
    ck_assert_uint_eq(embedding.memctx.ram_size, TINY_RAM);
    /* Anonymous memory has no descriptor that could be given. */
    ck_assert(!(embedding.memctx.access & VMIBUS_ACCESS_FD));
    ck_assert(embedding.memctx.access & VMIBUS_ACCESS_WRITE);
    tear_down(&embedding);
}

TEST(test_running_guest_sees_writes) {
    struct embedding embedding;
    uint64_t before;

    set_up(&embedding);
    acquire(&embedding);
    before = tiny_vmm_peek(&embedding.vmm, TINY_COUNTER);
    for (uint64_t i = 1; i <= 1000; i++) {
        uint64_t word = i << 32 | ~i % UINT32_MAX;

        ck_assert_int_eq(write_word(&embedding, TINY_INBOX, word, NULL), 0);
        wait_for_echo(&embedding, word);
    }
    ck_assert_uint_gt(tiny_vmm_peek(&embedding.vmm, TINY_COUNTER), before);
    tear_down(&embedding);
}

/* Writes into this very process go by process_vm_writev: its pid cannot be anybody else's. */
TEST(test_long_write_into_own_process) {
    static uint8_t data[64 << 10];
    struct embedding embedding;
    struct vmibus_write write = {.gva = TINY_KERNEL_BASE + 0x80010, .data = data, .len = sizeof(data)};
    struct vmibus_message reply;

    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 7 + i / 256);
    set_up(&embedding);
    acquire(&embedding);
    write.token = embedding.token;
    write.epoch = embedding.memctx.epoch;
    ck_assert_int_eq(vmibus_memwrite(embedding.bus, &embedding.endpoint, &write, &reply), 0);
    ck_assert_uint_eq(reply.frame.ack.count, sizeof(data));
    vmibus_message_deinit(&reply);
    ck_assert_int_eq(memcmp(embedding.vmm.ram + 0x80010, data, sizeof(data)), 0);
    wait_for_echo(&embedding, 0);
    tear_down(&embedding);
}

TEST(test_p05_no_write_without_lease) {
    struct embedding embedding;

    set_up(&embedding);
    ck_assert_int_eq(write_word(&embedding, TINY_INBOX, 7, NULL), VMIBUS_ERROR_NO_LEASE);
    acquire(&embedding);
    ck_assert_int_eq(write_word(&embedding, TINY_INBOX, 7, NULL), 0);
    wait_for_echo(&embedding, 7);
    ck_assert_int_eq(vmibus_lease_release(embedding.bus, &embedding.endpoint, VMIBUS_LEASE_CLASS_MEMWRITE, embedding.token), 0);
    ck_assert_int_eq(write_word(&embedding, TINY_INBOX, 8, NULL), VMIBUS_ERROR_STALE_TOKEN);
    ck_assert_uint_eq(tiny_vmm_peek(&embedding.vmm, TINY_INBOX), 7);
    tear_down(&embedding);
}

TEST(test_read_only_page_is_refused) {
    struct vmibus_message reply;
    struct embedding embedding;

    set_up(&embedding);
    acquire(&embedding);
    ck_assert_int_eq(write_word(&embedding, TINY_READ_ONLY + 0x20000, 9, &reply), VMIBUS_ERROR_READ_ONLY_PAGE);
    vmibus_message_deinit(&reply);
    ck_assert_uint_eq(tiny_vmm_peek(&embedding.vmm, TINY_INBOX), 0);
    tear_down(&embedding);
}

TEST(test_two_buses_in_one_process) {
    struct embedding first, second;

    set_up(&first);
    set_up(&second);
    acquire(&first);
    acquire(&second);
    ck_assert_int_eq(write_word(&first, TINY_INBOX, 1, NULL), 0);
    ck_assert_int_eq(write_word(&second, TINY_INBOX, 2, NULL), 0);
    wait_for_echo(&first, 1);
    wait_for_echo(&second, 2);
    tear_down(&first);
    tear_down(&second);
}

HARNESS_SUITE("embedding", HARNESS_QUICK)
