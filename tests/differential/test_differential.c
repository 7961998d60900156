/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Long random sequences from several controls against a daemon with stub VMs, beside a simple model of
 * what has to come of each command: every answer is predicted (error, reason, count, and that tokens
 * rise), who holds a lease is compared with what observers were told, every delivery is counted, and guest
 * memory is compared octet by octet.
 *
 *     VMIBUS_DIFFERENTIAL_SEED=N        run this one sequence only, to see again what failed
 *     VMIBUS_DIFFERENTIAL_STEPS=N       so many commands in each sequence
 *     VMIBUS_DIFFERENTIAL_SECONDS=N     go on with random seeds for so long
 *
 * Where the daemon was built to fail on purpose, sequences run once more with everything failing now and
 * then.  Then anything may be refused and any connection may break, but what is answered OK has to be true,
 * what is refused has to have changed nothing, and a write whose answer was lost happened whole or not at
 * all.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "differential/connection.h"
#include "differential/handover.h"
#include "differential/sequence.h"
#include "differential/steps.h"
#include "harness.h"

#define STEPS 4000
#define STEPS_BETWEEN_COMPARISONS 40
#define ATTEMPTS 100000

/* --- comparing --------------------------------------------------------------------------------- */

static void compare_lease(int actor, const struct vm *vm, unsigned lease_class) {
    const struct actor_lease *seen = &sequence.actors[actor].leases[vm->at.slot][lease_class];
    const struct lease *lease = &vm->leases[lease_class - 1];
    bool held = seen->generation == vm->at.generation && seen->lease.state == VMIBUS_LEASE_STATE_HELD;

    if (held != (lease->holder >= 0) || (held && seen->lease.token != lease->token))
        sequence_fail("actor %d was told that the lease of class %u is %sheld by token %#llx; it is %sheld by %#llx", actor,
                      lease_class, held ? "" : "not ", (unsigned long long)seen->lease.token,
                      lease->holder >= 0 ? "" : "not ", (unsigned long long)lease->token);
}

static void compare(void) {
    struct vmibus_frame answer;

    for (unsigned v = 0; v < MODEL_VMS; v++)
        guest_compare(&model.vms[v].guest);
    for (int actor = 0; actor < MODEL_ACTORS && !sequence.relaxed; actor++) {
        if (!model.subscribed[actor])
            continue;
        /* Its answer comes after all that was published. */
        if (!actor_subscribe(&sequence.actors[actor], model.subscribed[actor], &answer))
            sequence_fail("actor %d was lost", actor);
        for (unsigned v = 0; v < MODEL_VMS; v++)
            for (unsigned c = 1; c <= MODEL_CLASSES; c++)
                compare_lease(actor, &model.vms[v], c);
    }
}

/* --- a step --------------------------------------------------------------------------------------- */

static int holder_or(const struct lease *lease, int actor) {
    return lease->holder >= 0 ? lease->holder : actor;
}

static void step(void) {
    int actor = (int)sequence_draw(MODEL_ACTORS);
    struct vm *vm = &model.vms[sequence_draw(MODEL_VMS)];
    struct lease *memwrite = model_lease(vm, VMIBUS_LEASE_CLASS_MEMWRITE);
    unsigned lease_class = 1 + (unsigned)sequence_draw(MODEL_CLASSES);
    uint64_t choice = sequence_draw(100);

    if (actor_is_lost(&sequence.actors[actor])) {
        handover_forget(actor);
        connection_make(actor);
    }
    /* Most of what happens is what most of it is about. */
    if (sequence_one_in(2))
        lease_class = VMIBUS_LEASE_CLASS_MEMWRITE;
    if (choice < 40)
        step_write(memwrite->holder >= 0 && !sequence_one_in(5) ? memwrite->holder : actor, vm);
    else if (choice < 62)
        step_acquire(actor, vm, lease_class);
    else if (choice < 72)
        step_release(sequence_one_in(4) ? actor : holder_or(model_lease(vm, lease_class), actor), vm, lease_class);
    else if (choice < 76)
        step_renew(actor, vm, lease_class);
    else if (choice < 79)
        step_expire(actor, vm, lease_class);
    else if (choice < 84)
        step_attach(actor, vm);
    else if (choice < 88)
        step_detach(actor, vm);
    else if (choice < 92)
        connection_change_subscription(actor);
    else if (choice < 95)
        connection_renew(actor);
    else
        step_power(actor, vm, choice < 99 ? VMIBUS_POWER_OPERATION_RESET : VMIBUS_POWER_OPERATION_QUIT);
}

/* --- beginning and end ---------------------------------------------------------------------------- */

static void begin(void) {
    for (unsigned v = 0; v < MODEL_VMS; v++) {
        struct vm *vm = &model.vms[v];
        char name[16];

        snprintf(name, sizeof(name), "stub-%u", v);
        vm->at = wire_find(sequence.daemon.bystander, name);
        for (unsigned c = 0; c < MODEL_CLASSES; c++)
            vm->leases[c] = (struct lease){.holder = -1};
        guest_open(&vm->guest, daemon_memory_pid(&sequence.daemon), v);
    }
    /* What the search for the VMs left behind is nothing that the daemon lost. */
    wire_subscribe(sequence.daemon.bystander, "stub-*", 0);
    for (int actor = 0; actor < MODEL_ACTORS; actor++)
        connection_make(actor);
}

/* Whatever failed, nothing stays closed: each lease can be had again. */
static void have_every_lease(void) {
    struct actor actor;

    ck_assert(actor_connect(&actor, sequence.daemon.path, geteuid()));
    for (unsigned v = 0; v < MODEL_VMS; v++)
        for (unsigned c = 1; c <= MODEL_CLASSES; c++) {
            struct vmibus_frame answer = {.ack.error = VMIBUS_ERROR_BUSY};

            for (unsigned i = 0; answer.ack.error && i < ATTEMPTS; i++) {
                struct vmibus_frame frame = sequence_command(VMIBUS_KIND_CMD_LEASE, &model.vms[v]);

                frame.cmd_lease.operation = VMIBUS_LEASE_OPERATION_ACQUIRE;
                frame.cmd_lease.lease_class = (uint8_t)c;
                frame.cmd_lease.mode = VMIBUS_LEASE_MODE_FAIL;
                ck_assert(actor_ask(&actor, &frame, NULL, 0, &answer));
            }
            if (answer.ack.error)
                sequence_fail("the lease of class %u on stub-%u is not to be had any more: error %u, reason %u", c, v,
                              answer.ack.error, answer.ack.reason);
        }
    actor_close(&actor);
}

static void end(void) {
    struct vmibus_frame answer, frame = wire_frame(VMIBUS_KIND_SUBSCRIBE);

    compare();
    for (int actor = 0; actor < MODEL_ACTORS; actor++)
        actor_close(&sequence.actors[actor]);
    have_every_lease();
    for (unsigned v = 0; v < MODEL_VMS; v++) {
        char name[16];

        snprintf(name, sizeof(name), "stub-%u", v);
        answer = wire_ask(sequence.daemon.bystander, &frame, name, strlen(name));
        ck_assert_uint_eq(answer.ack.error, VMIBUS_ERROR_OK);
        frame = wire_frame(VMIBUS_KIND_SUBSCRIBE);
        guest_close(&model.vms[v].guest);
    }
}

/* --- sequences and their seeds -------------------------------------------------------------------- */

static uint64_t number(const char *name, uint64_t otherwise) {
    const char *text = getenv(name);

    return text && *text ? strtoull(text, NULL, 0) : otherwise;
}

/* Has the daemon read another configuration. */
static void reload(const char *config) {
    daemon_reload(&sequence.daemon, config);
    daemon_await_log(&sequence.daemon, "the policy was read anew");
}

static void go_through(unsigned steps) {
    for (sequence.step = 0; sequence.step < steps; sequence.step++) {
        step();
        if (sequence.relaxed)
            handover_collect();
        if (sequence.step % STEPS_BETWEEN_COMPARISONS == 0)
            compare();
    }
}

static void run(uint64_t seed, const char *faults) {
    static char config[2048];
    const struct daemon_options options = {.config = config, .arguments = {"--sensor", "stub:respawn_ms=1"}};
    unsigned steps = (unsigned)number("VMIBUS_DIFFERENTIAL_STEPS", STEPS);

    sequence = (struct sequence){.seed = seed, .random = seed, .relaxed = faults};
    model = (struct model){.many = geteuid() == 0};
    /* Before anything else can fail. */
    fprintf(stderr, "VMIBUS_DIFFERENTIAL_SEED=%llu%s\n", (unsigned long long)seed, faults ? " with faults" : "");
    snprintf(config, sizeof(config), "%s", model_config());
    daemon_start(&sequence.daemon, &options);
    begin();
    if (faults) {
        snprintf(config, sizeof(config), "%s[faults]\nseed = %llu\n%s", model_config(), (unsigned long long)seed, faults);
        reload(config);
    }
    go_through(steps);
    if (faults)
        reload(model_config());
    end();
    daemon_stop(&sequence.daemon);
    fprintf(stderr, "%u steps, %u done, %u refused, %u connections lost\n", steps, sequence.done, sequence.refused, sequence.lost);
    ck_assert_uint_gt(sequence.done, steps / 10);
}

static uint64_t random_seed(void) {
    uint32_t seed;

    ck_assert_int_eq(getrandom(&seed, sizeof(seed), 0), sizeof(seed));
    return seed;
}

static uint64_t seconds_now(void) {
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec;
}

static const uint64_t known_seeds[] = {1, 2, 3};

static void run_seeds(const char *faults) {
    uint64_t chosen = number("VMIBUS_DIFFERENTIAL_SEED", 0);
    uint64_t until = seconds_now() + number("VMIBUS_DIFFERENTIAL_SECONDS", 0);

    if (chosen) {
        run(chosen, faults);
        return;
    }
    for (size_t i = 0; i < sizeof(known_seeds) / sizeof(known_seeds[0]); i++)
        run(known_seeds[i], faults);
    do {
        run(random_seed(), faults);
    } while (seconds_now() < until);
}

TEST(test_p04_p05_p07_random_sequences_end_as_predicted, .timeout = 7200) {
    run_seeds(NULL);
}

#ifdef HAVE_FAULT_INJECTION

static const char all_faults[] = "allocation = rate:50\nsocket-send = rate:50\nsocket-receive = rate:50\nfd-passing = rate:50\n"
                                 "monitor = rate:50\ntranslate = rate:50\nwrite = rate:50\naudit = rate:50\ntimer = rate:50\n";

TEST(test_p04_p05_p08_random_sequences_with_everything_failing_now_and_then, .timeout = 7200) {
    if (channels_are_apart())
        test_skip("a fault may end the connection of a sensor apart, and its VMs come back under other generations");
    run_seeds(all_faults);
}

#endif

HARNESS_SUITE("differential", HARNESS_QUICK)
