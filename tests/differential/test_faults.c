/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Every location at which something can be made to fail, once with every rule, under a workload that uses
 * all of the daemon: it goes on serving, what it answers OK is true, what it refuses has changed nothing,
 * and when the fault is over nothing is left of it: no charge, no descriptor, no class that stays closed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/daemon.h"
#include "differential/actor.h"
#include "differential/guest.h"
#include "harness.h"
#include "stub/stub_map.h"

#ifndef HAVE_FAULT_INJECTION

TEST(test_p04_p08_p09_each_fault_at_each_location) {
    test_skip("built without --enable-fault-injection");
}

#else

#define SETTINGS "[daemon]\nrevoke-timeout-ms = 100\nhello-timeout-ms = 2000\n"
#define VMS 2
#define ROUNDS 4
#define ATTEMPTS 200000
#define LONG_WRITE 10000u

static struct daemon daemon_under_test;
static struct daemon *const d = &daemon_under_test;

struct vm {
    struct wire_endpoint at;
    unsigned boot;
    struct guest guest;
};

static struct vm vms[VMS];
static uint64_t highest;            /* token ever granted */
static uint8_t pattern;             /* each write has another */
static unsigned n_done;

static struct vmibus_frame command(enum vmibus_kind kind, const struct vm *vm) {
    return actor_frame(kind, vm->at.slot, vm->at.generation);
}

/* --- the workload ------------------------------------------------------------------------------ */

/* A token, or 0. */
static uint64_t acquire(struct actor *actor, const struct vm *vm, enum vmibus_lease_class lease_class, uint32_t ttl_ms) {
    struct vmibus_frame frame = command(VMIBUS_KIND_CMD_LEASE, vm), answer;

    frame.cmd_lease.operation = VMIBUS_LEASE_OPERATION_ACQUIRE;
    frame.cmd_lease.lease_class = (uint8_t)lease_class;
    frame.cmd_lease.mode = VMIBUS_LEASE_MODE_FAIL;
    frame.cmd_lease.ttl_ms = ttl_ms;
    if (!actor_ask(actor, &frame, NULL, 0, &answer) || answer.ack.error)
        return 0;
    ck_assert_uint_gt(answer.ack.token, highest);
    highest = answer.ack.token;
    n_done++;
    return answer.ack.token;
}

static bool release(struct actor *actor, const struct vm *vm, enum vmibus_lease_class lease_class, uint64_t token) {
    struct vmibus_frame frame = command(VMIBUS_KIND_CMD_LEASE, vm), answer;

    frame.cmd_lease.operation = VMIBUS_LEASE_OPERATION_RELEASE;
    frame.cmd_lease.lease_class = (uint8_t)lease_class;
    frame.cmd_lease.token = token;
    return actor_ask(actor, &frame, NULL, 0, &answer) && !answer.ack.error;
}

/* Puts into the shadow what was answered to be there; after a lost answer, what is there, if it is all or nothing. */
static void settle(const struct vm *vm, const uint8_t *source, uint32_t len, bool answered, const struct vmibus_ack *ack) {
    bool partial = answered && ack->reason == VMIBUS_REASON_PARTIAL;
    bool happened = answered && !ack->error;
    uint8_t there[STUB_PAGE];

    for (uint32_t at = 0, n; at < len; at += n) {
        uint64_t gpa = stub_buffer_gpa(vm->guest.vm, vm->boot, 0, (unsigned)(at / STUB_PAGE));
        uint8_t *shadow = guest_at(&vm->guest, gpa);

        n = len - at < STUB_PAGE ? len - at : STUB_PAGE;
        guest_read(&vm->guest, gpa, there, n);
        if (!answered && at == 0)
            happened = memcmp(there, source, n) == 0;
        if (partial)
            memcpy(shadow, there, n);
        else if (happened)
            memcpy(shadow, source + at, n);
        ck_assert_msg(memcmp(there, shadow, n) == 0, "a write of %u octets that ended with error %u, reason %u left something else",
                      len, answered ? ack->error : 0, answered ? ack->reason : 0);
    }
}

static void write_memory(struct actor *actor, const struct vm *vm, uint64_t token, uint32_t len) {
    struct vmibus_frame frame = command(VMIBUS_KIND_CMD_MEMWRITE, vm), answer;
    uint8_t source[LONG_WRITE];
    bool answered;

    memset(source, ++pattern, sizeof(source));
    frame.cmd_memwrite.cr3 = stub_process_cr3(vm->boot, 0);
    frame.cmd_memwrite.gva = STUB_BUFFER_GVA; /* frames that do not adjoin: a long write is several steps */
    frame.cmd_memwrite.len = len;
    frame.cmd_memwrite.token = token;
    frame.cmd_memwrite.epoch = vm->at.epoch;
    frame.cmd_memwrite.flags = VMIBUS_MEMWRITE_SRC_PAYLOAD;
    answered = actor_ask(actor, &frame, source, len, &answer);
    settle(vm, source, len, answered, &answer.ack);
    n_done += answered && !answer.ack.error;
}

static void attach(struct actor *actor, const struct vm *vm) {
    struct vmibus_frame frame = command(VMIBUS_KIND_MEM_ATTACH, vm), answer;

    if (!actor_ask(actor, &frame, NULL, 0, &answer))
        return;
    n_done += !answer.ack.error;
    frame = command(VMIBUS_KIND_MEM_RELEASE, vm);
    frame.mem_release.epoch = vm->at.epoch;
    if (!answer.ack.error) {
        if (actor_ask(actor, &frame, NULL, 0, &answer))
            ck_assert_uint_eq(answer.ack.error, VMIBUS_ERROR_OK);
    } else if (actor_ask(actor, &frame, NULL, 0, &answer)) {
        ck_assert_uint_eq(answer.ack.error, VMIBUS_ERROR_VALIDATION);
    }
}

static void type(struct actor *actor, const struct vm *vm, uint64_t token) {
    struct vmibus_frame frame = command(VMIBUS_KIND_CMD_INPUT, vm), answer;

    frame.cmd_input.token = token;
    frame.cmd_input.count = 1;
    frame.cmd_input.events[0] = (struct vmibus_input_event){.type = VMIBUS_INPUT_TYPE_KEY, .code = 30, .value = 1};
    if (!actor_ask(actor, &frame, NULL, 0, &answer))
        return;
    n_done += !answer.ack.error;
    /* Once more, but later, so that it waits for its time. */
    frame = command(VMIBUS_KIND_CMD_INPUT, vm);
    frame.header.timestamp = answer.header.timestamp;
    frame.cmd_input.token = token;
    frame.cmd_input.count = 1;
    frame.cmd_input.not_before_us = 2000;
    frame.cmd_input.events[0] = (struct vmibus_input_event){.type = VMIBUS_INPUT_TYPE_KEY, .code = 31, .value = 1};
    (void)actor_ask(actor, &frame, NULL, 0, &answer);
}

static void power(struct actor *actor, const struct vm *vm, uint64_t token, enum vmibus_power_operation operation) {
    struct vmibus_frame frame = command(VMIBUS_KIND_CMD_POWER, vm), answer;

    frame.cmd_power.token = token;
    frame.cmd_power.operation = (uint8_t)operation;
    if (actor_ask(actor, &frame, NULL, 0, &answer))
        n_done += !answer.ack.error;
}

/* One control's visit to a VM. It may be cut short anywhere, and be turned away. */
static void visit(const struct vm *vm, unsigned round) {
    uint64_t kinds = VMIBUS_KIND_BIT(VMIBUS_KIND_ROSTER) | VMIBUS_KIND_BIT(VMIBUS_KIND_LIFECYCLE) |
                     VMIBUS_KIND_BIT(VMIBUS_KIND_LEASE) | VMIBUS_KIND_BIT(VMIBUS_KIND_MEMCTX);
    struct vmibus_frame answer;
    struct actor actor;
    uint64_t token;

    if (!actor_connect(&actor, d->path, geteuid()))
        return;
    (void)actor_subscribe(&actor, kinds, &answer);
    token = acquire(&actor, vm, VMIBUS_LEASE_CLASS_MEMWRITE, 0);
    for (unsigned i = 0; token && i < 4 && !actor_is_lost(&actor); i++) {
        write_memory(&actor, vm, token, 1 + i * 8);
        write_memory(&actor, vm, token, LONG_WRITE);
    }
    attach(&actor, vm);
    if (token && round % 2)
        (void)release(&actor, vm, VMIBUS_LEASE_CLASS_MEMWRITE, token);
    token = acquire(&actor, vm, VMIBUS_LEASE_CLASS_INPUT, round == 2 ? 5 : 0);
    if (token) {
        type(&actor, vm, token);
        (void)release(&actor, vm, VMIBUS_LEASE_CLASS_INPUT, token);
    }
    /* The last one ends the epoch, and nobody goes near the memory after it. */
    if (round == ROUNDS - 1) {
        token = acquire(&actor, vm, VMIBUS_LEASE_CLASS_POWER, 0);
        if (token)
            power(&actor, vm, token, VMIBUS_POWER_OPERATION_RESET);
    }
    actor_close(&actor);
}

/* --- before and after -------------------------------------------------------------------------- */

/* A lease of each class can be had again: the fault has closed nothing for good. */
static uint64_t acquire_again(struct actor *actor, const struct vm *vm, enum vmibus_lease_class lease_class) {
    uint64_t token = 0;

    for (unsigned i = 0; !token && i < ATTEMPTS; i++)
        token = acquire(actor, vm, lease_class, 0);
    ck_assert_msg(token, "a lease of class %u is not to be had any more", lease_class);
    return token;
}

/* Resets the VM, so that whatever became of its memory context, there is one now. */
static void begin_anew(struct vm *vm, unsigned v) {
    char name[16];
    struct actor actor;
    struct vmibus_frame frame = wire_frame(VMIBUS_KIND_SUBSCRIBE), answer;
    uint64_t token;
    struct stub_input_header input;

    snprintf(name, sizeof(name), "stub-%u", v);
    ck_assert(actor_connect(&actor, d->path, geteuid()));
    (void)acquire_again(&actor, vm, VMIBUS_LEASE_CLASS_MEMWRITE);
    (void)acquire_again(&actor, vm, VMIBUS_LEASE_CLASS_INPUT);
    /* Whoever lost INPUT before, no key is down any more. */
    guest_read(&vm->guest, STUB_INPUT_GPA, &input, sizeof(input));
    ck_assert_uint_eq(input.held, 0);
    token = acquire_again(&actor, vm, VMIBUS_LEASE_CLASS_POWER);
    frame = command(VMIBUS_KIND_CMD_POWER, vm);
    frame.cmd_power.token = token;
    frame.cmd_power.operation = VMIBUS_POWER_OPERATION_RESET;
    ck_assert(actor_ask(&actor, &frame, NULL, 0, &answer));
    ck_assert_uint_eq(answer.ack.error, VMIBUS_ERROR_OK);
    actor_close(&actor);
    vm->at = wire_find(d->bystander, name);
    frame = wire_frame(VMIBUS_KIND_SUBSCRIBE);
    answer = wire_ask(d->bystander, &frame, name, strlen(name));
    ck_assert_uint_eq(answer.ack.error, VMIBUS_ERROR_OK);
    guest_open(&vm->guest, d->pid, v);
    /* The kernel moves between two places; the note tells which. */
    vm->boot = guest_at(&vm->guest, stub_note_gpa(0))[0] == 'O' ? 0 : 1;
}

static void set_faults(const char *rules) {
    char config[512];

    snprintf(config, sizeof(config), SETTINGS "%s", rules);
    daemon_reload(d, config);
    daemon_await_log(d, "the policy was read anew");
}

static void try_fault(const char *location, const char *rule) {
    char text[128];

    for (unsigned v = 0; v < VMS; v++)
        begin_anew(&vms[v], v);
    snprintf(text, sizeof(text), "[faults]\nseed = 1\n%s = %s\n", location, rule);
    set_faults(text);
    n_done = 0;
    for (unsigned round = 0; round < ROUNDS; round++)
        for (unsigned v = 0; v < VMS; v++)
            visit(&vms[v], round);
    snprintf(text, sizeof(text), SETTINGS);
    daemon_reload(d, text);
    if (strcmp(rule, "off") != 0) {
        snprintf(text, sizeof(text), "fault injection: %s = %s was hit ", location, rule);
        daemon_await_log(d, text);
    }
    daemon_await_log(d, "the policy was read anew");
    if (strcmp(rule, "off") == 0 || strncmp(rule, "delay", 5) == 0)
        ck_assert_uint_ge(n_done, ROUNDS * VMS * 10);
}

/* --- the walk ---------------------------------------------------------------------------------- */

static const char *const locations[] = {"allocation", "socket-send", "socket-receive", "fd-passing", "monitor",
                                        "translate",  "write",       "audit",          "timer"};
static const char *const rules[] = {"off", "fail", "drop-every:2", "fail-after:10", "rate:4", "delay-ms:1"};

static void begin_all(void) {
    const struct daemon_options options = {.config = SETTINGS};

    daemon_start(d, &options);
    for (unsigned v = 0; v < VMS; v++) {
        char name[16];

        snprintf(name, sizeof(name), "stub-%u", v);
        vms[v].at = wire_find(d->bystander, name);
        guest_open(&vms[v].guest, d->pid, v);
    }
}

static void end_all(void) {
    for (unsigned v = 0; v < VMS; v++) {
        begin_anew(&vms[v], v);
        guest_close(&vms[v].guest);
    }
    daemon_stop(d);
}

TEST(test_p04_p08_p09_each_fault_at_each_location, .iterations = 9, .timeout = 120) {
    begin_all();
    for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++)
        try_fault(locations[_i], rules[i]);
    end_all();
}

/* Keys could not be released, and nothing was there to wake whoever would try again. */
TEST(test_p05_input_is_had_again_after_neither_release_nor_timer_worked) {
    begin_all();
    set_faults("[faults]\nmonitor = fail\ntimer = fail\n");
    for (unsigned round = 0; round < ROUNDS; round++)
        for (unsigned v = 0; v < VMS; v++)
            visit(&vms[v], round);
    set_faults("");
    end_all();
}

TEST(test_bad_rules_are_told_with_their_line) {
    static const struct {
        const char *config, *complaint;
    } cases[] = {
        {"[faults]\nnowhere = fail\n", "vmibusd.conf:2: unknown location 'nowhere' in [faults]"},
        {"[faults]\n\nwrite = sometimes\n", "vmibusd.conf:3: write = sometimes: known are off, fail, drop-every:N"},
        {"[faults]\nseed = none\n", "vmibusd.conf:2: seed = none: a number from 1 is wanted"},
    };
    struct daemon_options options = {};

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        options.config = cases[i].config;
        daemon_spawn(d, &options);
        ck_assert_int_eq(daemon_await_exit(d), 1);
        ck_assert_msg(strstr(d->log, cases[i].complaint), "it said: %s", d->log);
        daemon_remove(d);
    }
    ck_assert_int_eq(setenv("VMIBUS_FAULTS", "write=fail,everything=fail", 1), 0);
    options.config = "";
    daemon_spawn(d, &options);
    ck_assert_int_eq(daemon_await_exit(d), 1);
    ck_assert_msg(strstr(d->log, "VMIBUS_FAULTS: 'everything=fail'"), "it said: %s", d->log);
    daemon_remove(d);
}

TEST(test_a_daemon_that_fails_on_purpose_says_so) {
    struct daemon_options options = {.config = "[faults]\nwrite = fail\n"};
    struct vmibus_frame frame, answer;
    struct wire_endpoint at;

    ck_assert_int_eq(setenv("VMIBUS_FAULTS", "audit=rate:7,seed=5", 1), 0);
    daemon_spawn(d, &options);
    daemon_await_log(d, "WAS BUILT TO FAIL ON PURPOSE");
    daemon_await_log(d, "fault injection: write = fail");
    daemon_await_log(d, "fault injection: audit = rate:7");
    daemon_await_log(d, "fault injection: seed = 5");
    daemon_await_log(d, "serving at");
    d->bystander = wire_open(d->path, NULL);
    at = wire_find(d->bystander, "stub-0");
    frame = wire_command(VMIBUS_KIND_CMD_MEMWRITE, &at);
    frame.cmd_memwrite.token = wire_acquire(d->bystander, &at, VMIBUS_LEASE_CLASS_MEMWRITE);
    frame.cmd_memwrite.epoch = at.epoch;
    frame.cmd_memwrite.cr3 = stub_process_cr3(0, 0);
    frame.cmd_memwrite.gva = STUB_BUFFER_GVA;
    frame.cmd_memwrite.len = 8;
    answer = wire_ask(d->bystander, &frame, NULL, 0);
    ck_assert_uint_eq(answer.ack.error, VMIBUS_ERROR_IO);
    ck_assert_uint_eq(answer.ack.count, 0);
    daemon_kill(d);
    daemon_remove(d);
}

#endif

HARNESS_SUITE("faults", HARNESS_QUICK)
