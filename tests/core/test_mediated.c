/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Buffers, reads through the memory authority and page walks by them, by a control in the bus's own process. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vmibus/client.h>
#include <vmibus/core.h>
#include <vmibus/guest.h>

#include "harness.h"
#include "stub/stub_map.h"

#define PAGE 4096u

static struct vmibus_core *core;
static struct vmibus *bus;
static struct vmibus_endpoint endpoint;
static struct vmibus_memctx memctx;

static void hear(struct vmibus *from, struct vmibus_message *message, void *userdata) {
    (void)from;
    (void)userdata;
    endpoint.slot = message->frame.header.slot;
    endpoint.generation = message->frame.header.generation;
    memctx = message->frame.memctx;
}

static void ready(void) {
    const struct vmibus_core_options options = {.struct_size = sizeof(options), .incarnation = 1, .audit_fd = -1};
    const struct vmibus_sensor_option option = {"vms", "1"};
    const char *modules = getenv("VMIBUS_SENSOR_DIR");
    char path[PATH_MAX];

    if (!modules)
        test_skip("VMIBUS_SENSOR_DIR does not tell where the built sensors are");
    snprintf(path, sizeof(path), "%s/stub.so", modules);
    ck_assert_int_eq(vmibus_core_new(&core, &options), 0);
    ck_assert_int_eq(vmibus_core_load_sensor(core, path, &option, 1), 0);
    ck_assert_int_eq(vmibus_core_connect(core, &bus, "reader"), 0);
    vmibus_set_handler(bus, hear, NULL);
    ck_assert_int_eq(vmibus_subscribe(bus, "*", VMIBUS_KIND_BIT(VMIBUS_KIND_MEMCTX)), 0);
    while (memctx.state != VMIBUS_MEMCTX_STATE_READY)
        ck_assert_int_eq(vmibus_wait(bus, 30000), 0);
}

static void teardown(void) {
    vmibus_free(bus);
    vmibus_core_free(core);
}

#define READY .setup = ready, .teardown = teardown

static struct vmibus_read read_of(const struct vmibus_mapped_buffer *buffer, uint64_t gva, uint32_t len) {
    return (struct vmibus_read){
        .cr3 = stub_process_cr3(0, 0),
        .gva = gva,
        .epoch = memctx.epoch,
        .buffer = buffer,
        .len = len,
    };
}

TEST(test_features_are_told, READY) {
    const uint64_t wanted = VMIBUS_FEATURE_MEM_READ | VMIBUS_FEATURE_BUFFERS;

    ck_assert_uint_eq(vmibus_get_welcome(bus)->features & wanted, wanted);
}

TEST(test_read_into_a_buffer, READY) {
    struct vmibus_mapped_buffer *buffer;
    struct vmibus_message reply;
    struct vmibus_read read;

    ck_assert_int_eq(vmibus_buffer_new(bus, PAGE + 1, &buffer, NULL), 0);
    ck_assert_uint_eq(buffer->size, 2 * PAGE);
    ck_assert_uint_eq(buffer->number, 1);
    read = read_of(buffer, STUB_BUFFER_GVA, 5000);
    ck_assert_int_eq(vmibus_read(bus, &endpoint, &read, &reply), 0);
    ck_assert_uint_eq(reply.frame.ack.count, 5000);
    vmibus_message_deinit(&reply);
    for (size_t i = 0; i < 5000; i++)
        ck_assert_uint_eq(buffer->octets[i], stub_buffer_octet(0, i));
    ck_assert_ptr_null(vmibus_buffer_free(buffer));
    ck_assert_int_eq(vmibus_buffer_new(bus, 1, &buffer, NULL), 0);
    ck_assert_uint_eq(buffer->number, 1);
    vmibus_buffer_free(buffer);
    ck_assert_ptr_null(vmibus_buffer_free(NULL));
}

TEST(test_what_ends_a_read_is_told, READY) {
    struct vmibus_mapped_buffer *buffer;
    struct vmibus_message reply;
    struct vmibus_read read;

    ck_assert_int_eq(vmibus_buffer_new(bus, 4 * PAGE, &buffer, NULL), 0);
    read = read_of(buffer, STUB_BUFFER_GVA + STUB_BUFFER_SIZE - 100, 3 * PAGE);
    ck_assert_int_eq(vmibus_read(bus, &endpoint, &read, &reply), VMIBUS_ERROR_TRANSLATION);
    ck_assert_uint_eq(reply.frame.ack.count, 100);
    ck_assert_uint_eq(reply.frame.ack.value, STUB_BUFFER_GVA + STUB_BUFFER_SIZE);
    vmibus_message_deinit(&reply);
    read.epoch++;
    ck_assert_int_eq(vmibus_read(bus, &endpoint, &read, NULL), VMIBUS_ERROR_STALE_EPOCH);
    vmibus_buffer_free(buffer);
}

TEST(test_a_refusal_explains_itself, READY) {
    struct vmibus_mapped_buffer *buffer = NULL;
    struct vmibus_message reply;

    ck_assert_int_eq(vmibus_buffer_new(bus, VMIBUS_BUFFER_BOUND + 1, &buffer, &reply), VMIBUS_ERROR_VALIDATION);
    ck_assert_uint_eq(reply.frame.ack.value, VMIBUS_BUFFER_BOUND);
    ck_assert_ptr_null(buffer);
    vmibus_message_deinit(&reply);
}

/* The members: what a translation is padded with, and entries that were not read, are anything. */
static void expect_same_walk(const struct vmibus_guest_translation *one, const struct vmibus_guest_translation *other) {
    ck_assert_uint_eq(one->gpa, other->gpa);
    ck_assert_uint_eq(one->page_size, other->page_size);
    ck_assert_uint_eq(one->rights, other->rights);
    ck_assert_uint_eq(one->depth, other->depth);
    ck_assert_uint_eq(one->level, other->level);
    for (size_t i = 0; i < one->depth; i++) {
        ck_assert_uint_eq(one->entries[i].gpa, other->entries[i].gpa);
        ck_assert_uint_eq(one->entries[i].value, other->entries[i].value);
    }
}

/* A walk without a RAM descriptor comes to what a walk with one comes to. */
TEST(test_walks_by_mediated_reads, READY) {
    const struct vmibus_guest_root root = {.cr3 = stub_process_cr3(0, 0), .levels = memctx.levels};
    struct vmibus_guest_translation with, without;
    struct vmibus_attachment *attachment;
    struct vmibus_guest_reader reader;
    struct vmibus_mediated *mediated;
    struct vmibus_guest_ram *ram;
    uint8_t octets[3 * PAGE];
    size_t done;

    ck_assert_int_eq(vmibus_mediated_new(bus, &endpoint, memctx.epoch, &mediated, NULL), 0);
    reader = (struct vmibus_guest_reader){.read = vmibus_mediated_read, .context = mediated};
    ck_assert_int_eq(vmibus_guest_translate(&reader, &root, STUB_BUFFER_GVA + 17, &without), 0);
    ck_assert_int_eq(vmibus_guest_read(&reader, &root, STUB_BUFFER_GVA, octets, sizeof(octets), &done, NULL), 0);
    for (size_t i = 0; i < sizeof(octets); i++)
        ck_assert_uint_eq(octets[i], stub_buffer_octet(0, i));
    ck_assert_int_eq(vmibus_attach(bus, &endpoint, 0, &attachment, NULL), 0);
    if (attachment->n_fds) {
        ck_assert_int_eq(vmibus_guest_ram_new(&ram, attachment->ranges, attachment->n_ranges, attachment->fds,
                                              attachment->n_fds),
                         0);
        reader = vmibus_guest_ram_reader(ram);
        ck_assert_int_eq(vmibus_guest_translate(&reader, &root, STUB_BUFFER_GVA + 17, &with), 0);
        expect_same_walk(&with, &without);
        vmibus_guest_ram_free(ram);
    }
    vmibus_release(attachment);
    vmibus_mediated_free(mediated);
}

TEST(test_mediated_results_are_those_of_a_reader, READY) {
    struct vmibus_mediated *mediated, *stale;
    uint64_t word;
    uint8_t *large = malloc(200000);

    ck_assert_int_eq(vmibus_mediated_new(bus, &endpoint, memctx.epoch, &mediated, NULL), 0);
    ck_assert_int_eq(vmibus_mediated_read(mediated, UINT64_C(1) << 40, &word, sizeof(word)), VMIBUS_GUEST_OUTSIDE_RAM);
    ck_assert_int_eq(vmibus_mediated_get_ack(mediated)->error, VMIBUS_ERROR_TRANSLATION);
    ck_assert_int_eq(vmibus_mediated_read(mediated, 0, large, 200000), 0);
    ck_assert_int_eq(vmibus_mediated_new(bus, &endpoint, memctx.epoch + 1, &stale, NULL), 0);
    ck_assert_int_eq(vmibus_mediated_read(stale, 0, &word, sizeof(word)), -ESTALE);
    vmibus_mediated_free(stale);
    vmibus_mediated_free(mediated);
    free(large);
}

/* Whichever goes first. */
TEST(test_buffers_outlive_their_connection, .setup = ready) {
    struct vmibus_mapped_buffer *buffer;

    ck_assert_int_eq(vmibus_buffer_new(bus, PAGE, &buffer, NULL), 0);
    vmibus_free(bus);
    buffer->octets[0] = 1;
    vmibus_buffer_free(buffer);
    vmibus_core_free(core);
}

HARNESS_SUITE("mediated", HARNESS_QUICK)
