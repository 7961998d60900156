/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Watches of a real guest: a variable that the guest's agent changes, by the tables of its process and by its physical address,
 * in RAM that is a memory file and in RAM that is private to QEMU.  How long it takes is printed, not judged.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"
#include "perceiver.h"

static struct perceiver self;

static void begin_in(enum bed_ram ram) {
    const struct vmibus_sensor_option interval = {"interval-ms", "2"};

    perceiver_begin(&self, &(struct bed_options){.ram = ram});
    perceiver_load(&self, "watch", &interval);
    perceiver_load(&self, "linux", NULL);
}

static void begin(void) {
    begin_in(BED_RAM_MEMFD);
}

static void begin_private(void) {
    begin_in(BED_RAM_PRIVATE);
}

static void end(void) {
    perceiver_end(&self);
}

static bool is_agent(const struct vmibus_frame *frame, const uint8_t *tail, const void *data) {
    (void)tail;
    (void)data;
    return frame->header.kind == VMIBUS_KIND_PROCESS && frame->process.pid == 1;
}

static uint64_t agent_cr3(void) {
    uint64_t cr3;

    ck_assert_int_eq(
        vmibus_subscribe(self.bus, "*", VMIBUS_KIND_BIT(VMIBUS_KIND_PROCESS) | VMIBUS_KIND_BIT(VMIBUS_KIND_SENSOR)), 0);
    cr3 = perceiver_wait(&self, "the agent", is_agent, NULL)->frame.process.cr3;
    ck_assert_uint_ne(cr3, 0);
    return cr3;
}

static uint64_t fact(const char *key) {
    uint64_t value;
    char *line;

    ck_assert_int_eq(bed_last_fact(self.scene.bed, "VAR", "pid=1", &line), 0);
    ck_assert_int_eq(bed_field(line, key, &value), 0);
    free(line);
    return value;
}

static uint32_t watch(uint64_t cr3, uint64_t address, uint32_t flags) {
    struct vmibus_message reply;
    struct vmibus_frame frame;
    uint32_t number;

    vmibus_command_init(&frame, VMIBUS_KIND_WATCH, &self.scene.endpoint);
    frame.watch = (struct vmibus_watch){.cr3 = cr3,
                                        .address = address,
                                        .len = 8,
                                        .epoch = self.scene.epoch,
                                        .flags = flags,
                                        .operation = VMIBUS_WATCH_OPERATION_ADD};
    vmibus_call(self.bus, &frame, NULL, 0, &reply);
    ck_assert_msg(reply.frame.ack.error == 0, "error %u, reason %u", reply.frame.ack.error, reply.frame.ack.reason);
    number = (uint32_t)reply.frame.ack.value;
    vmibus_message_deinit(&reply);
    return number;
}

static bool is_change(const struct vmibus_frame *frame, const uint8_t *tail, const void *data) {
    (void)tail;
    return frame->header.kind == VMIBUS_KIND_WATCH_CHANGED && frame->watch_changed.watch == *(const uint32_t *)data;
}

/* The octets of the variable that the event shows. */
static void check_change(const struct perceived *event, uint64_t address, uint64_t before, uint64_t after) {
    const struct vmibus_watch_changed *changed = &event->frame.watch_changed;
    size_t from = changed->address - address;

    ck_assert_uint_lt(from, 8);
    ck_assert_uint_le(from + changed->len, 8);
    ck_assert_uint_eq(event->frame.header.tail_length, 2 * changed->len);
    ck_assert_mem_eq(event->tail, (const uint8_t *)&before + from, changed->len);
    ck_assert_mem_eq(event->tail + changed->len, (const uint8_t *)&after + from, changed->len);
}

static void change_and_see(void) {
    uint64_t gva = fact("gva"), gpa = fact("gpa"), before = fact("value"), cr3 = agent_cr3();
    uint32_t by_table = watch(cr3, gva, 0), by_gpa = watch(0, gpa, VMIBUS_WATCH_PHYSICAL);

    for (uint64_t i = 1; i <= 3; i++) {
        uint64_t after = UINT64_C(0x0101010101010101) * i, asked = scene_now();
        const struct perceived *event;
        char command[64];
        size_t next;

        snprintf(command, sizeof(command), "setvar 0x%016" PRIx64, after);
        ck_assert_int_eq(bed_serial_send(self.scene.bed, command), 0);
        next = self.next;
        event = perceiver_wait(&self, "a change by the process's tables", is_change, &by_table);
        check_change(event, gva, before, after);
        printf("# a variable that the guest set was told of %.1f ms after it was asked to\n", (double)(event->at - asked) / 1e6);
        self.next = next;
        check_change(perceiver_wait(&self, "a change at the address", is_change, &by_gpa), gpa, before, after);
        before = after;
    }
}

TEST(test_a_variable_of_a_process, .setup = begin, .teardown = end, .timeout = 600) {
    change_and_see();
}

TEST(test_p11_in_private_ram, .setup = begin_private, .teardown = end, .timeout = 600) {
    change_and_see();
}

TEST(test_p06_it_ends_with_a_reset, .setup = begin, .teardown = end, .timeout = 600) {
    uint32_t number = watch(0, fact("gpa"), VMIBUS_WATCH_PHYSICAL);
    uint64_t epoch = self.scene.epoch;
    const struct perceived *event;

    scene_qmp(&self.scene, "system_reset", NULL);
    do {
        event = perceiver_wait(&self, "the end", is_change, &number);
        ck_assert_uint_eq(event->frame.watch_changed.epoch, epoch);
    } while (!(event->frame.watch_changed.flags & VMIBUS_WATCH_CHANGE_ENDED));
    perceiver_run(&self, 200);
    for (; self.next < self.n; self.next++)
        ck_assert(!is_change(&self.events[self.next].frame, NULL, &number));
}

HARNESS_SUITE("watches of a guest", HARNESS_QUICK)
