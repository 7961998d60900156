/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Looking for torn values: a live vCPU reads what the bus writes, as fast as both can.
 *
 * Every write makes all octets of a place the same; the guest counts how often it sees a place whose
 * octets differ.  Of aligned values of 8, 4 and 2 octets that must never happen; of what crosses a
 * cache line or a page it may, and is told.  VMIBUS_TORN_WRITES: how many writes, other than 240000.
 */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vmibus/client.h>
#include <vmibus/core.h>

#include "harness.h"
#include "kvm/tiny_vmm.h"

#define WRITES_DEFAULT 240000u

/* Loads of 8 octets into rax: torn if turning them by an octet changes them. */
#define LOAD_8(low, middle) 0x48, 0x8b, 0x04, 0x25, low, middle, 0x02, 0x00
#define TURN_8 0x48, 0x89, 0xc3, 0x48, 0xc1, 0xc3, 0x08, 0x48, 0x39, 0xd8
#define LOAD_4(low) 0x8b, 0x04, 0x25, low, 0x00, 0x02, 0x00
#define TURN_4 0x89, 0xc3, 0xc1, 0xc3, 0x08, 0x39, 0xd8
#define LOAD_2(low) 0x66, 0x8b, 0x04, 0x25, low, 0x00, 0x02, 0x00
#define TURN_2 0x66, 0x89, 0xc3, 0x66, 0xc1, 0xc3, 0x08, 0x66, 0x39, 0xd8
#define COMPARE_8(low, middle) 0x48, 0x3b, 0x04, 0x25, low, middle, 0x02, 0x00
/* Counts at 0x21000 + low, unless the flags say equal. */
#define COUNT_8(low) 0x48, 0xff, 0x04, 0x25, low, 0x10, 0x02, 0x00
#define COUNT_TORN(low) 0x74, 0x08, COUNT_8(low)

static const uint8_t reading_guest[] = {
    LOAD_8(0x00, 0x00), TURN_8, COUNT_TORN(0x00),              /* 8 aligned octets at 0x20000 */
    LOAD_4(0x08), TURN_4, COUNT_TORN(0x08),                    /* 4 at 0x20008 */
    LOAD_2(0x10), TURN_2, COUNT_TORN(0x10),                    /* 2 at 0x20010 */
    LOAD_8(0x7c, 0x00), TURN_8, COUNT_TORN(0x18),              /* 8 across a cache line, at 0x2007c */
    LOAD_8(0x00, 0x01), COMPARE_8(0xf8, 0x01), COUNT_TORN(0x20), /* first and last of 256 octets at 0x20100 */
    LOAD_8(0xfc, 0x2f), TURN_8, COUNT_TORN(0x28),              /* 8 across a page, at 0x22ffc */
    COUNT_8(0x30), 0xe9, 0, 0, 0, 0,                           /* jmp to the beginning, filled in below */
};

/* What is written, and where the guest counts what it sees torn of it. */
static const struct place {
    uint32_t at, len, counter;
    bool may_tear;
    const char *what;
} places[] = {
    {0x20000, 8, 0x21000, false, "8 aligned octets"},
    {0x20008, 4, 0x21008, false, "4 aligned octets"},
    {0x20010, 2, 0x21010, false, "2 aligned octets"},
    {0x2007c, 8, 0x21018, true, "8 octets across a cache line"},
    {0x20100, 256, 0x21020, true, "256 octets"},
    {0x22ffc, 8, 0x21028, true, "8 octets across a page"},
};

#define N_PLACES (sizeof(places) / sizeof(*places))
#define ROUNDS 0x21030

struct hunt {
    struct tiny_vmm vmm;
    struct vmibus_core *core;
    struct vmibus *bus;
    struct vmibus_endpoint endpoint;
    struct vmibus_memctx memctx;
    uint64_t token;
};

static void heard(struct vmibus *bus, struct vmibus_message *message, void *userdata) {
    struct hunt *hunt = userdata;

    (void)bus;
    if (message->frame.header.kind != VMIBUS_KIND_MEMCTX)
        return;
    hunt->endpoint.slot = message->frame.header.slot;
    hunt->endpoint.generation = message->frame.header.generation;
    hunt->memctx = message->frame.memctx;
}

static void hunt_begin(struct hunt *hunt) {
    const struct vmibus_core_options options = {.struct_size = sizeof(options), .incarnation = 1, .audit_fd = -1};
    struct vmibus_sensor_option ram = {.key = "ram"};
    uint8_t code[sizeof(reading_guest)];
    int32_t back = -(int32_t)sizeof(code);
    const char *failure;
    char address[32];

    memcpy(code, reading_guest, sizeof(code));
    memcpy(code + sizeof(code) - sizeof(back), &back, sizeof(back));
    *hunt = (struct hunt){};
    failure = tiny_vmm_start_code(&hunt->vmm, code, sizeof(code));
    if (failure)
        test_skip("%s", failure);
    snprintf(address, sizeof(address), "%llx", (unsigned long long)(uintptr_t)hunt->vmm.ram);
    ram.value = address;
    ck_assert_int_eq(vmibus_core_new(&hunt->core, &options), 0);
    ck_assert_int_eq(vmibus_core_add_sensor(hunt->core, &tiny_vmm_sensor, &ram, 1), 0);
    ck_assert_int_eq(vmibus_core_connect(hunt->core, &hunt->bus, "test"), 0);
    vmibus_set_handler(hunt->bus, heard, hunt);
    ck_assert_int_eq(vmibus_subscribe(hunt->bus, "tiny", VMIBUS_KIND_BIT(VMIBUS_KIND_MEMCTX)), 0);
    while (hunt->memctx.state != VMIBUS_MEMCTX_STATE_READY)
        ck_assert_int_eq(vmibus_wait(hunt->bus, -1), 0);
    ck_assert_int_eq(vmibus_lease_acquire(hunt->bus, &hunt->endpoint, VMIBUS_LEASE_CLASS_MEMWRITE, VMIBUS_LEASE_MODE_FAIL, 0,
                                          &hunt->token, NULL),
                     0);
}

static void hunt_end(struct hunt *hunt) {
    vmibus_free(hunt->bus);
    vmibus_core_free(hunt->core);
    tiny_vmm_stop(&hunt->vmm);
}

static uint64_t peek(const struct hunt *hunt, uint32_t at) {
    return tiny_vmm_peek(&hunt->vmm, TINY_KERNEL_BASE + at);
}

/* One write for each place. */
static void write_each(struct hunt *hunt, const uint8_t *data) {
    for (size_t i = 0; i < N_PLACES; i++) {
        const struct vmibus_write write = {
            .gva = TINY_KERNEL_BASE + places[i].at,
            .data = data,
            .len = places[i].len,
            .token = hunt->token,
            .epoch = hunt->memctx.epoch,
        };

        ck_assert_int_eq(vmibus_memwrite(hunt->bus, &hunt->endpoint, &write, NULL), 0);
    }
}

/* All places by one command. */
static void write_table(struct hunt *hunt, const uint8_t *data) {
    const struct vmibus_write write = {.data = data, .token = hunt->token, .epoch = hunt->memctx.epoch};
    struct vmibus_write_extent extents[N_PLACES];
    struct vmibus_extent_result results[N_PLACES];

    for (size_t i = 0; i < N_PLACES; i++)
        extents[i] = (struct vmibus_write_extent){.gva = TINY_KERNEL_BASE + places[i].at, .len = places[i].len};
    ck_assert_int_eq(vmibus_memwrite_table(hunt->bus, &hunt->endpoint, &write, extents, N_PLACES, results, NULL), 0);
    for (size_t i = 0; i < N_PLACES; i++)
        ck_assert_uint_eq(results[i].written, places[i].len);
}

/* The vCPU has to have been there: on one busy processor it may take a while to get a turn. */
static void wait_for_the_guest(const struct hunt *hunt, uint64_t rounds) {
    while (peek(hunt, ROUNDS) < rounds) {
        ck_assert(!__atomic_load_n(&hunt->vmm.failed, __ATOMIC_ACQUIRE));
        sched_yield();
    }
}

static void hunt_for_torn(void (*write_places)(struct hunt *, const uint8_t *)) {
    const char *wish = getenv("VMIBUS_TORN_WRITES");
    unsigned long rounds = (wish ? strtoul(wish, NULL, 10) : WRITES_DEFAULT) / N_PLACES + 1;
    struct hunt hunt;
    uint8_t data[512];
    uint64_t before;

    hunt_begin(&hunt);
    wait_for_the_guest(&hunt, 1);
    before = peek(&hunt, ROUNDS);
    for (unsigned long i = 0; i < rounds; i++) {
        memset(data, (int)(i * 37 & 0xff), sizeof(data));
        write_places(&hunt, data);
    }
    wait_for_the_guest(&hunt, before + 1000);
    printf("%lu writes while the guest looked %lu times\n", rounds * N_PLACES, (unsigned long)(peek(&hunt, ROUNDS) - before));
    for (size_t i = 0; i < N_PLACES; i++) {
        uint64_t torn = peek(&hunt, places[i].counter);

        printf("%s: seen torn %lu times\n", places[i].what, (unsigned long)torn);
        ck_assert_msg(places[i].may_tear || torn == 0, "%s: seen torn", places[i].what);
    }
    hunt_end(&hunt);
}

TEST(test_p04_aligned_values_are_not_torn, .timeout = 600) {
    hunt_for_torn(write_each);
}

TEST(test_p04_aligned_extents_are_not_torn, .timeout = 600) {
    hunt_for_torn(write_table);
}

/* The guest can tell: octets that the host changes one by one are seen torn. */
TEST(test_the_guest_sees_what_is_torn) {
    struct hunt hunt;

    hunt_begin(&hunt);
    for (uint8_t i = 0; peek(&hunt, places[0].counter) == 0; i++)
        for (unsigned octet = 0; octet < 8; octet++)
            __atomic_store_n(&hunt.vmm.ram[places[0].at + octet], i, __ATOMIC_RELAXED);
    ck_assert_uint_eq(peek(&hunt, places[1].counter), 0);
    hunt_end(&hunt);
}

HARNESS_SUITE("torn values", HARNESS_QUICK)
