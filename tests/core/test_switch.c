/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Two sensors provide the memory of one VM in a whole bus: who is heard, and what becomes of the epoch when one of them goes. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <vmibus/client.h>
#include <vmibus/core.h>

#include "harness.h"

#define RAM_SIZE 65536
#define GROUPS (VMIBUS_GROUP_LIFECYCLE | VMIBUS_GROUP_MEMORY)

/* One sensor: what it was started with, and what it was told. */
struct party {
    struct vmibus_sensor_host *host;
    const struct vmibus_sensor_api *api;
    struct vmibus_sensor_endpoint *endpoint;
    uint32_t active;
    unsigned int n_active, n_verdicts;
    uint64_t epoch;
    enum vmibus_error error;
    enum vmibus_reason reason;
};

static struct party first, second;
static struct vmibus_core *core;
static struct vmibus *bus;
static int ram;

static int start_first(struct vmibus_sensor_host *host, const struct vmibus_sensor_api *api,
                       const struct vmibus_sensor_option *options, size_t n_options, void **instancep) {
    (void)options;
    (void)n_options;
    first = (struct party){.host = host, .api = api};
    *instancep = &first;
    return api->announce(host, VMIBUS_SENSOR_STATE_READY, NULL);
}

static int start_second(struct vmibus_sensor_host *host, const struct vmibus_sensor_api *api,
                        const struct vmibus_sensor_option *options, size_t n_options, void **instancep) {
    (void)options;
    (void)n_options;
    second = (struct party){.host = host, .api = api};
    *instancep = &second;
    return api->announce(host, VMIBUS_SENSOR_STATE_READY, NULL);
}

static void stop(void *instance) {
    (void)instance;
}

static void hear_verdict(void *instance, void *userdata, uint64_t epoch, enum vmibus_error error, enum vmibus_reason reason) {
    struct party *party = instance;

    (void)userdata;
    party->n_verdicts++;
    party->epoch = epoch;
    party->error = error;
    party->reason = reason;
}

static void hear_active(void *instance, void *userdata, uint32_t groups) {
    struct party *party = instance;

    ck_assert_ptr_eq(userdata, party);
    party->n_active++;
    party->active = groups;
}

#define MODULE(start_function, module_name)                                                                                  \
    {                                                                                                                        \
        .struct_size = sizeof(struct vmibus_sensor_module), .abi = VMIBUS_SENSOR_ABI, .name = module_name, .groups = GROUPS, \
        .start = start_function, .stop = stop, .layout_result = hear_verdict, .active = hear_active                          \
    }

static const struct vmibus_sensor_module first_module = MODULE(start_first, "first");
static const struct vmibus_sensor_module second_module = MODULE(start_second, "second");

static void offer(struct party *party, const char *name, uint8_t uuid) {
    const struct vmibus_sensor_offer what = {.name = name, .uuid = {uuid}, .groups = GROUPS};

    ck_assert_int_eq(party->api->offer(party->host, &what, party, &party->endpoint), 0);
}

/* Proposes the RAM, and waits for what the authority says. */
static void propose(struct party *party) {
    const struct vmibus_layout_range range = {.len = RAM_SIZE};
    const struct vmibus_sensor_layout layout = {.ranges = &range, .n_ranges = 1, .fds = &ram, .n_fds = 1};
    unsigned int n = party->n_verdicts;

    ck_assert_int_eq(party->api->layout(party->endpoint, &layout), 0);
    while (party->n_verdicts == n)
        ck_assert_int_ge(vmibus_core_dispatch(core, -1), 0);
}

static uint64_t current, ended;
static unsigned int n_ended;

static void hear(struct vmibus *connection, struct vmibus_message *message, void *userdata) {
    (void)connection;
    (void)userdata;
    if (message->frame.header.kind == VMIBUS_KIND_MEMCTX && message->frame.memctx.state != VMIBUS_MEMCTX_STATE_NONE)
        current = message->frame.memctx.epoch;
    if (message->frame.header.kind == VMIBUS_KIND_MEMCTX_INVALIDATED) {
        ended = message->frame.memctx_invalidated.epoch;
        n_ended++;
    }
}

static void listen_anew(void) {
    ck_assert_int_eq(vmibus_dispatch(bus), 0);
}

static void begin(void) {
    const struct vmibus_core_options options = {.struct_size = sizeof(options), .incarnation = 1, .audit_fd = -1};

    ram = memfd_create("ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    ck_assert_int_ge(ram, 0);
    ck_assert_int_eq(ftruncate(ram, RAM_SIZE), 0);
    ck_assert_int_eq(vmibus_core_new(&core, &options), 0);
    ck_assert_int_eq(vmibus_core_add_sensor(core, &first_module, NULL, 0), 0);
    ck_assert_int_eq(vmibus_core_add_sensor(core, &second_module, NULL, 0), 0);
    ck_assert_int_eq(vmibus_core_connect(core, &bus, "test"), 0);
    vmibus_set_handler(bus, hear, NULL);
    ck_assert_int_eq(
        vmibus_subscribe(bus, "*", VMIBUS_KIND_BIT(VMIBUS_KIND_MEMCTX) | VMIBUS_KIND_BIT(VMIBUS_KIND_MEMCTX_INVALIDATED)), 0);
}

static void end(void) {
    vmibus_free(bus);
    vmibus_core_free(core);
    close(ram);
}

TEST(test_p06_same_memory_keeps_its_epoch_over_a_switch, .setup = begin, .teardown = end) {
    uint64_t epoch;

    offer(&first, "vm", 7);
    offer(&second, "vm", 7);
    ck_assert_uint_eq(first.n_active, 0); /* for all that it offers, as it believes anyway */
    ck_assert_uint_eq(second.active, 0);
    propose(&first);
    epoch = first.epoch;
    ck_assert_uint_ne(epoch, 0);
    first.api->withdraw(first.endpoint, VMIBUS_REASON_WITHDRAWN);
    ck_assert_uint_eq(second.active, GROUPS);
    propose(&second);
    ck_assert_int_eq(second.error, VMIBUS_ERROR_OK);
    ck_assert_uint_eq(second.epoch, epoch);
    listen_anew();
    ck_assert_uint_eq(current, epoch);
    ck_assert_uint_eq(n_ended, 0);
    /* With the last one it ends, once. */
    ck_assert_int_eq(second.api->provide(second.endpoint, VMIBUS_GROUP_LIFECYCLE), 0);
    listen_anew();
    ck_assert_uint_eq(ended, epoch);
    ck_assert_uint_eq(n_ended, 1);
}

/* Who is not active neither begins nor ends epochs of others. */
TEST(test_p09_only_the_active_one_speaks_of_memory, .setup = begin, .teardown = end) {
    const struct vmibus_mem_root none = {.reason = VMIBUS_REASON_CONFIDENTIAL};

    offer(&first, "vm", 7);
    propose(&first);
    offer(&second, "vm", 7);
    propose(&second);
    ck_assert_int_eq(second.error, VMIBUS_ERROR_DENIED);
    ck_assert_int_eq(second.reason, VMIBUS_REASON_OTHER_PROVIDER);
    (void)second.api->end_epoch(second.endpoint, VMIBUS_REASON_RESET);
    (void)second.api->root(second.endpoint, &none);
    (void)second.api->memory_busy(second.endpoint, true, VMIBUS_REASON_MIGRATION);
    propose(&first);
    ck_assert_int_eq(first.error, VMIBUS_ERROR_OK);
    listen_anew();
    ck_assert_uint_eq(current, first.epoch);
    ck_assert_uint_eq(n_ended, 0);
}

/* A handle goes over to the older endpoint, and lives there. */
TEST(test_handle_of_a_vm_that_is_another_one_too, .setup = begin, .teardown = end) {
    const struct vmibus_sensor_offer learnt = {.name = "guest", .uuid = {7}};

    offer(&first, "vm", 7);
    offer(&second, "guest", 0);
    propose(&second);
    ck_assert_int_eq(second.error, VMIBUS_ERROR_OK);
    ck_assert_int_eq(second.api->identify(second.endpoint, &learnt), 0);
    ck_assert_uint_eq(second.active, 0);
    ck_assert_uint_ge(second.n_active, 1);
    listen_anew();
    first.api->withdraw(first.endpoint, VMIBUS_REASON_WITHDRAWN);
    ck_assert_uint_eq(second.active, GROUPS);
    propose(&second);
    ck_assert_int_eq(second.error, VMIBUS_ERROR_OK);
    listen_anew();
    ck_assert_uint_eq(current, second.epoch);
}

HARNESS_SUITE("switches in a whole bus", HARNESS_QUICK)
