/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Looking for torn values: a live vCPU on /dev/kvm reads what the bus writes, as fast as both can.
 *
 * What is looked for is in torn/hunt.h.  VMIBUS_TORN_WRITES: how many writes, other than 240000.
 */
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include <vmibus/client.h>
#include <vmibus/core.h>

#include "harness.h"
#include "kvm/tiny_vmm.h"
#include "torn/hunt.h"

#define WRITES_DEFAULT 240000u

_Static_assert(HUNT_COUNTERS == 0x21000 && HUNT_OWN_OCTET == 0x20019, "as in the code");

/* dl is 0 when the vCPU starts. */
static const uint8_t prologue[] = {
    0xbd, 0x00, 0x10, 0x02, 0x00, /* mov ebp, 0x21000 */
    0xbf, 0x19, 0x00, 0x02, 0x00, /* mov edi, 0x20019 */
};

struct scenery {
    struct tiny_vmm vmm;
    struct vmibus_core *core;
    struct vmibus_memctx memctx;
    struct hunt hunt;
};

static void heard(struct vmibus *bus, struct vmibus_message *message, void *userdata) {
    struct scenery *scenery = userdata;

    (void)bus;
    if (message->frame.header.kind != VMIBUS_KIND_MEMCTX)
        return;
    scenery->hunt.endpoint.slot = message->frame.header.slot;
    scenery->hunt.endpoint.generation = message->frame.header.generation;
    scenery->memctx = message->frame.memctx;
}

static uint64_t peek(void *guest, uint32_t gpa) {
    const struct tiny_vmm *vmm = guest;

    ck_assert_msg(!__atomic_load_n(&vmm->failed, __ATOMIC_ACQUIRE), "the vCPU stopped by itself");
    return tiny_vmm_peek(vmm, TINY_KERNEL_BASE + gpa);
}

static void turn(void *guest) {
    (void)guest;
    sched_yield();
}

static void start_guest(struct tiny_vmm *vmm) {
    uint8_t code[sizeof(prologue) + HUNT_GUEST_MAX];
    size_t size = sizeof(prologue);
    const char *failure;

    memcpy(code, prologue, sizeof(prologue));
    size += hunt_put_guest(code + size);
    failure = tiny_vmm_start_code(vmm, code, size);
    if (failure)
        test_skip("%s", failure);
}

static void begin(struct scenery *scenery) {
    const struct vmibus_core_options options = {.struct_size = sizeof(options), .incarnation = 1, .audit_fd = -1};
    struct vmibus_sensor_option ram = {.key = "ram"};
    struct hunt *hunt = &scenery->hunt;
    char address[32];

    *scenery = (struct scenery){};
    *hunt = (struct hunt){.base = TINY_KERNEL_BASE, .vcpus = 1, .peek = peek, .turn = turn, .guest = &scenery->vmm};
    start_guest(&scenery->vmm);
    snprintf(address, sizeof(address), "%llx", (unsigned long long)(uintptr_t)scenery->vmm.ram);
    ram.value = address;
    ck_assert_int_eq(vmibus_core_new(&scenery->core, &options), 0);
    ck_assert_int_eq(vmibus_core_add_sensor(scenery->core, &tiny_vmm_sensor, &ram, 1), 0);
    ck_assert_int_eq(vmibus_core_connect(scenery->core, &hunt->bus, "test"), 0);
    vmibus_set_handler(hunt->bus, heard, scenery);
    ck_assert_int_eq(vmibus_subscribe(hunt->bus, "tiny", VMIBUS_KIND_BIT(VMIBUS_KIND_MEMCTX)), 0);
    while (scenery->memctx.state != VMIBUS_MEMCTX_STATE_READY)
        ck_assert_int_eq(vmibus_wait(hunt->bus, -1), 0);
    hunt->epoch = scenery->memctx.epoch;
    ck_assert_int_eq(vmibus_lease_acquire(hunt->bus, &hunt->endpoint, VMIBUS_LEASE_CLASS_MEMWRITE, VMIBUS_LEASE_MODE_FAIL, 0,
                                          &hunt->token, NULL),
                     0);
}

static void end(struct scenery *scenery) {
    vmibus_free(scenery->hunt.bus);
    vmibus_core_free(scenery->core);
    tiny_vmm_stop(&scenery->vmm);
}

static void look(hunt_write_fn *write) {
    struct scenery scenery;

    begin(&scenery);
    hunt_for_torn(&scenery.hunt, write, hunt_writes(WRITES_DEFAULT));
    end(&scenery);
}

TEST(test_p04_aligned_values_are_not_torn, .timeout = 600) {
    look(hunt_write_each);
}

TEST(test_p04_aligned_extents_are_not_torn, .timeout = 600) {
    look(hunt_write_table);
}

TEST(test_the_guest_sees_what_is_torn) {
    struct scenery scenery;

    begin(&scenery);
    hunt_calibrate(&scenery.hunt);
    end(&scenery);
}

HARNESS_SUITE("torn values", HARNESS_QUICK)
