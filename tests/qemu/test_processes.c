/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Processes and modules of a real guest as they come and go, told by the sensor for Linux, against what the guest was asked to do.
 * How long it takes is printed, not judged.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"
#include "perceiver.h"

static struct perceiver self;

struct wanted {
    const char *comm;       /* NULL: any */
    uint32_t pid;           /* 0: any */
    uint8_t changes;        /* bits: 1 << enum vmibus_process_change */
};

#define PRESENT (1u << VMIBUS_PROCESS_CHANGE_PRESENT)
#define STARTED (1u << VMIBUS_PROCESS_CHANGE_STARTED)
#define EXECUTED (1u << VMIBUS_PROCESS_CHANGE_EXECUTED)
#define EXITED (1u << VMIBUS_PROCESS_CHANGE_EXITED)

static bool is_process(const struct vmibus_frame *frame, const uint8_t *tail, const void *data) {
    const struct wanted *wanted = data;

    (void)tail;
    return frame->header.kind == VMIBUS_KIND_PROCESS && wanted->changes & 1u << frame->process.change &&
           (!wanted->pid || wanted->pid == frame->process.pid) &&
           (!wanted->comm || strncmp((const char *)frame->process.comm, wanted->comm, sizeof(frame->process.comm)) == 0);
}

static const struct vmibus_process *wait_process(const char *what, const char *comm, uint32_t pid, uint8_t changes) {
    const struct wanted wanted = {.comm = comm, .pid = pid, .changes = changes};
    uint64_t begin = scene_now();
    const struct perceived *event = perceiver_wait(&self, what, is_process, &wanted);

    printf("# %s: pid %" PRIu32 ", %.16s, told %.1f ms after it was asked for\n", what, event->frame.process.pid,
           event->frame.process.comm, event->at > begin ? (double)(event->at - begin) / 1e6 : 0);
    return &event->frame.process;
}

static bool is_module(const struct vmibus_frame *frame, const uint8_t *tail, const void *data) {
    const struct vmibus_module *wanted = data;

    return frame->header.kind == VMIBUS_KIND_MODULE && frame->module.change == wanted->change &&
           frame->header.tail_length == strlen("virtio_mem") && memcmp(tail, "virtio_mem", frame->header.tail_length) == 0;
}

static void wait_module(const char *what, enum vmibus_module_change change) {
    const struct vmibus_module wanted = {.change = (uint8_t)change};
    const struct perceived *event = perceiver_wait(&self, what, is_module, &wanted);

    ck_assert_uint_ne(event->frame.module.base, 0);
    ck_assert_uint_gt(event->frame.module.size, 4095);
}

static void ask(const char *command) {
    ck_assert_int_eq(bed_serial_send(self.scene.bed, command), 0);
}

static void subscribe(void) {
    const uint64_t kinds =
        VMIBUS_KIND_BIT(VMIBUS_KIND_PROCESS) | VMIBUS_KIND_BIT(VMIBUS_KIND_MODULE) | VMIBUS_KIND_BIT(VMIBUS_KIND_SENSOR);

    ck_assert_int_eq(vmibus_subscribe(self.bus, "*", kinds), 0);
}

static void begin(void) {
    perceiver_begin(&self, &(struct bed_options){});
    perceiver_load(&self, "linux", NULL);
    subscribe();
}

static void end(void) {
    perceiver_end(&self);
}

TEST(test_what_the_guest_does_is_told, .setup = begin, .teardown = end, .timeout = 600) {
    const struct vmibus_process *process = wait_process("the first process", "vmibus-agent", 1, PRESENT);
    uint32_t pid;
    char command[64];

    ck_assert_uint_ne(process->cr3, 0);
    ck_assert_uint_ne(process->task, 0);
    ck_assert_uint_eq(process->epoch, self.scene.epoch);
    process = wait_process("a thread of the kernel", "kthreadd", 2, PRESENT);
    ck_assert_uint_eq(process->cr3, 0);
    wait_module("a module that is there", VMIBUS_MODULE_CHANGE_PRESENT);

    ask("exec sleep 100000 >/dev/null 2>&1 &");
    pid = wait_process("a process that starts", "sleep", 0, STARTED | EXECUTED)->pid;
    snprintf(command, sizeof(command), "exec kill %" PRIu32, pid);
    ask(command);
    (void)wait_process("a process that is killed", "sleep", pid, EXITED);

    ask("exec sh -c 'sleep 3; exec tail -f /dev/null' >/dev/null 2>&1 &");
    pid = wait_process("a shell", "sh", 0, STARTED | EXECUTED)->pid;
    pid = wait_process("another program", "tail", 0, EXECUTED)->pid;
    snprintf(command, sizeof(command), "exec kill %" PRIu32, pid);
    ask(command);
    (void)wait_process("its end", "tail", pid, EXITED);

    ask("exec rmmod virtio_mem");
    wait_module("a module that goes", VMIBUS_MODULE_CHANGE_UNLOADED);
    ask("exec insmod /modules/virtio_mem.ko");
    wait_module("a module that comes", VMIBUS_MODULE_CHANGE_LOADED);
}

TEST(test_p06_each_epoch_begins_anew, .setup = begin, .teardown = end, .timeout = 600) {
    uint64_t epoch = self.scene.epoch;

    (void)wait_process("the first process", "vmibus-agent", 1, PRESENT);
    scene_qmp(&self.scene, "system_reset", NULL);
    do {
        perceiver_run(&self, 50);
        self.next = self.n;
    } while (self.scene.epoch == epoch || !self.scene.epoch || self.scene.state != VMIBUS_MEMCTX_STATE_READY);
    for (size_t i = 0; i < self.n; i++)
        ck_assert(self.events[i].frame.header.kind != VMIBUS_KIND_PROCESS || self.events[i].frame.process.epoch == epoch ||
                  self.events[i].frame.process.epoch == self.scene.epoch);
    self.next = 0;
    while (wait_process("a process of the next boot", NULL, 1, PRESENT | STARTED)->epoch != self.scene.epoch)
        ;
}

HARNESS_SUITE("processes as they come and go", HARNESS_QUICK)
