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
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "daemon/daemon.h"
#include "differential/actor.h"
#include "differential/guest.h"
#include "harness.h"
#include "stub/stub_map.h"

#define ACTORS 4
#define VMS 2
#define CLASSES 3
#define STEPS 4000
#define STEPS_BETWEEN_COMPARISONS 40
#define ATTEMPTS 100000
#define WRITE_MAX 12000u
#define EVERYTHING                                                                                                            \
    (VMIBUS_KIND_BIT(VMIBUS_KIND_ROSTER) | VMIBUS_KIND_BIT(VMIBUS_KIND_LIFECYCLE) | VMIBUS_KIND_BIT(VMIBUS_KIND_MEMCTX) |     \
     VMIBUS_KIND_BIT(VMIBUS_KIND_MEMCTX_INVALIDATED) | VMIBUS_KIND_BIT(VMIBUS_KIND_LEASE))

/* Who the actors are: of different ranks, and one that may only watch and type. As an ordinary user all are the same. */
static const struct {
    uid_t uid;
    uint32_t rank;
    bool writes;
} characters[ACTORS] = {{0, 30, true}, {60001, 20, true}, {60002, 20, true}, {60003, 10, false}};

/* Few slots, so that they are used again. */
#define SETTINGS "[daemon]\nrevoke-timeout-ms = 100\nmax-endpoints = 4\n"
#define RULES                                                                                                                  \
    SETTINGS                                                                                                                   \
    "[rule zero]\nuser = 0\ncapabilities = all\nrank = 30\n"                                                                   \
    "[rule one]\nuser = 60001\ncapabilities = all\nrank = 20\n"                                                                \
    "[rule two]\nuser = 60002\ncapabilities = all\nrank = 20\n"                                                                \
    "[rule three]\nuser = 60003\ncapabilities = observe input preempt\nrank = 10\n"

/* --- what should be ---------------------------------------------------------------------------- */

struct waiter {
    int actor;
    uint64_t correlation;
    uint32_t rank;
};

struct lease {
    int holder;                     /* -1: nobody */
    uint64_t token;                 /* the holder's or the last one's */
    enum vmibus_reason reason;      /* why the last one lost it */
    struct waiter line[ACTORS];
    size_t n_line;
};

struct vm {
    struct wire_endpoint at;
    uint64_t last_epoch;            /* that ended in a reset; 0: none did */
    unsigned boot;
    struct lease leases[CLASSES];
    struct guest guest;
};

struct sequence {
    struct daemon daemon;
    uint64_t seed, random;
    unsigned step;
    bool relaxed;                   /* anything may be refused */
    bool many;                      /* actors are of different users */
    struct actor actors[ACTORS];
    uint64_t subscribed[ACTORS];    /* kinds */
    unsigned attached[ACTORS][VMS];
    struct vm vms[VMS];
    uint64_t highest;               /* token ever granted */
    uint64_t fences[ACTOR_SLOTS];   /* the highest token that the authority has heard of, by slot */
    unsigned done, refused, lost;
};

static struct sequence *s;

static uint64_t draw(uint64_t bound) {
    s->random += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t z = s->random;

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return (z ^ z >> 31) % bound;
}

static bool one_in(uint64_t n) {
    return draw(n) == 0;
}

static uint32_t rank_of(int actor) {
    return s->many ? characters[actor].rank : 0;
}

static bool may(int actor, unsigned lease_class) {
    return !s->many || characters[actor].writes || lease_class == VMIBUS_LEASE_CLASS_INPUT;
}

static struct lease *lease_of(struct vm *vm, unsigned lease_class) {
    return &vm->leases[lease_class - 1];
}

/* --- comparing answers ------------------------------------------------------------------------- */

static void mismatch(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

static void mismatch(const char *format, ...) {
    char text[512];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    ck_abort_msg("step %u: %s (VMIBUS_DIFFERENTIAL_SEED=%llu shows it again)", s->step, text, (unsigned long long)s->seed);
}

/* Whether a command was done, and that its answer is the one that has to come. */
static bool expect(const struct vmibus_frame *answer, enum vmibus_error error, enum vmibus_reason reason, uint64_t count) {
    const struct vmibus_ack *ack = &answer->ack;

    if (ack->error)
        s->refused++;
    else
        s->done++;
    if (ack->error == VMIBUS_ERROR_OK && error != VMIBUS_ERROR_OK)
        mismatch("command %#x was done and should have been refused with error %u, reason %u", ack->command, error, reason);
    if (s->relaxed && ack->error != VMIBUS_ERROR_OK)
        return false;
    if (ack->error != error || ack->reason != reason)
        mismatch("command %#x ended with error %u, reason %u; error %u, reason %u should be", ack->command, ack->error, ack->reason,
             error, reason);
    if (!error && ack->count != count)
        mismatch("command %#x did %llu, should be %llu", ack->command, (unsigned long long)ack->count, (unsigned long long)count);
    return !error;
}

/* --- leases ------------------------------------------------------------------------------------ */

static void line_remove(struct lease *lease, size_t i) {
    lease->n_line--;
    memmove(&lease->line[i], &lease->line[i + 1], (lease->n_line - i) * sizeof(lease->line[0]));
}

static int line_find(const struct lease *lease, int actor) {
    for (size_t i = 0; i < lease->n_line; i++)
        if (lease->line[i].actor == actor)
            return (int)i;
    return -1;
}

static void line_add(struct lease *lease, struct waiter waiter, bool preempts) {
    size_t i = lease->n_line;

    for (size_t j = 0; preempts && j < lease->n_line; j++)
        if (lease->line[j].rank < waiter.rank) {
            i = j;
            break;
        }
    memmove(&lease->line[i + 1], &lease->line[i], (lease->n_line - i) * sizeof(lease->line[0]));
    lease->line[i] = waiter;
    lease->n_line++;
}

/* A token was granted: it is higher than any before. */
static void take_grant(struct vm *vm, unsigned lease_class, int actor, const struct vmibus_ack *ack) {
    struct lease *lease = lease_of(vm, lease_class);

    /* With faults, grants of several leases are heard of in any order; those of one lease never are. */
    uint64_t before = s->relaxed ? lease->token : s->highest;

    if (ack->token <= before)
        mismatch("token %#llx after %#llx", (unsigned long long)ack->token, (unsigned long long)before);
    s->highest = ack->token > s->highest ? ack->token : s->highest;
    lease->holder = actor;
    lease->token = ack->token;
    lease->reason = VMIBUS_REASON_NONE;
    if (lease_class == VMIBUS_LEASE_CLASS_MEMWRITE)
        s->fences[vm->at.slot] = ack->token;
}

static void actor_is_gone(int actor);

/* Nobody holds it any more: the first in line does, and is told so. */
static void pass_on(struct vm *vm, unsigned lease_class) {
    struct lease *lease = lease_of(vm, lease_class);

    lease->holder = -1;
    while (!s->relaxed && lease->holder < 0 && lease->n_line > 0) {
        struct waiter first = lease->line[0];
        struct vmibus_frame answer;

        line_remove(lease, 0);
        if (!actor_answer(&s->actors[first.actor], first.correlation, &answer))
            mismatch("actor %d was lost waiting for a lease", first.actor);
        expect(&answer, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 0);
        take_grant(vm, lease_class, first.actor, &answer.ack);
    }
}

/* With faults nobody can say when a lease comes: what has come is taken, if it can be true. */
static void collect_grants(void) {
    for (unsigned v = 0; v < VMS; v++)
        for (unsigned c = 1; c <= CLASSES; c++) {
            struct lease *lease = lease_of(&s->vms[v], c);

            for (size_t i = 0; i < lease->n_line;) {
                struct waiter waiter = lease->line[i];
                struct vmibus_frame answer;
                int r = actor_poll_answer(&s->actors[waiter.actor], waiter.correlation, &answer);

                if (r < 0) {
                    actor_is_gone(waiter.actor);
                    i = 0;
                    continue;
                }
                if (r == 0) {
                    i++;
                    continue;
                }
                line_remove(lease, i);
                if (answer.ack.error == VMIBUS_ERROR_OK)
                    take_grant(&s->vms[v], c, waiter.actor, &answer.ack);
                i = 0;
            }
        }
}

static void end_lease(struct vm *vm, unsigned lease_class, enum vmibus_reason reason) {
    lease_of(vm, lease_class)->reason = reason;
    pass_on(vm, lease_class);
}

/* Of the leases that an actor holds the one that it has had longest; NULL: it holds none. */
static struct lease *longest_held(int actor, struct vm **vm, unsigned *lease_class) {
    struct lease *found = NULL;

    for (unsigned v = 0; v < VMS; v++)
        for (unsigned c = 1; c <= CLASSES; c++) {
            struct lease *lease = lease_of(&s->vms[v], c);

            if (lease->holder != actor || (found && found->token < lease->token))
                continue;
            found = lease;
            *vm = &s->vms[v];
            *lease_class = c;
        }
    return found;
}

/* The connection is gone, and with it whatever it held or waited for. */
static void actor_is_gone(int actor) {
    unsigned lease_class;
    struct vm *vm;

    for (unsigned v = 0; v < VMS; v++)
        for (unsigned c = 1; c <= CLASSES; c++) {
            struct lease *lease = lease_of(&s->vms[v], c);
            int place = line_find(lease, actor);

            if (place >= 0)
                line_remove(lease, (size_t)place);
        }
    while (longest_held(actor, &vm, &lease_class))
        end_lease(vm, lease_class, VMIBUS_REASON_DISCONNECTED);
    memset(s->attached[actor], 0, sizeof(s->attached[actor]));
    s->subscribed[actor] = 0;
}

static void lost(int actor) {
    if (!s->relaxed)
        mismatch("actor %d was lost", actor);
    s->lost++;
    actor_is_gone(actor);
}

static bool ask(int actor, struct vmibus_frame *frame, const void *tail, size_t length, struct vmibus_frame *answer) {
    if (actor_ask(&s->actors[actor], frame, tail, length, answer))
        return true;
    lost(actor);
    return false;
}

static struct vmibus_frame command(enum vmibus_kind kind, const struct vm *vm) {
    return actor_frame(kind, vm->at.slot, vm->at.generation);
}

/* What a token is worth at the bus: lease_check() as the manual has it. */
static enum vmibus_error judge_token(const struct lease *lease, int actor, uint64_t token, enum vmibus_reason *reason) {
    *reason = VMIBUS_REASON_NONE;
    if (token == 0) {
        if (lease->holder >= 0 && lease->holder != actor)
            *reason = VMIBUS_REASON_HELD;
        return VMIBUS_ERROR_NO_LEASE;
    }
    if (token != lease->token)
        *reason = VMIBUS_REASON_REVOKED;
    else if (lease->holder < 0)
        *reason = lease->reason;
    else if (lease->holder != actor)
        *reason = VMIBUS_REASON_NOT_RIGHTS_HOLDER;
    else
        return VMIBUS_ERROR_OK;
    return VMIBUS_ERROR_STALE_TOKEN;
}

/* Mostly the right one. */
static uint64_t choose_token(const struct lease *lease) {
    if (one_in(12))
        return 0;
    if (one_in(12))
        return lease->token + draw(3);
    return lease->token;
}

static void step_acquire(int actor, struct vm *vm, unsigned lease_class) {
    struct lease *lease = lease_of(vm, lease_class);
    struct vmibus_frame frame = command(VMIBUS_KIND_CMD_LEASE, vm), answer;
    unsigned mode = VMIBUS_LEASE_MODE_FAIL + (unsigned)draw(3);
    struct waiter waiter = {.actor = actor, .rank = rank_of(actor)};
    int r;

    frame.cmd_lease.operation = VMIBUS_LEASE_OPERATION_ACQUIRE;
    frame.cmd_lease.lease_class = (uint8_t)lease_class;
    frame.cmd_lease.mode = (uint8_t)mode;
    waiter.correlation = frame.header.correlation;
    if (s->relaxed) {
        if (!actor_send(&s->actors[actor], &frame, NULL, 0) ||
            (r = actor_poll_answer(&s->actors[actor], frame.header.correlation, &answer)) < 0)
            lost(actor);
        else if (r == 0)
            line_add(lease, waiter, false);
        else if (answer.ack.error == VMIBUS_ERROR_OK)
            take_grant(vm, lease_class, actor, &answer.ack);
        return;
    }
    if (!may(actor, lease_class)) {
        if (ask(actor, &frame, NULL, 0, &answer))
            expect(&answer, VMIBUS_ERROR_DENIED, VMIBUS_REASON_NO_CAPABILITY, 0);
    } else if (lease->holder < 0) {
        if (ask(actor, &frame, NULL, 0, &answer) && expect(&answer, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 0))
            take_grant(vm, lease_class, actor, &answer.ack);
    } else if (lease->holder == actor || line_find(lease, actor) >= 0 || mode == VMIBUS_LEASE_MODE_FAIL) {
        if (ask(actor, &frame, NULL, 0, &answer))
            expect(&answer, VMIBUS_ERROR_BUSY, VMIBUS_REASON_HELD, 0);
    } else if (mode == VMIBUS_LEASE_MODE_PREEMPT && rank_of(lease->holder) >= rank_of(actor)) {
        if (ask(actor, &frame, NULL, 0, &answer))
            expect(&answer, VMIBUS_ERROR_BUSY, VMIBUS_REASON_RANK, 0);
    } else {
        if (!actor_send(&s->actors[actor], &frame, NULL, 0))
            lost(actor);
        line_add(lease, waiter, mode == VMIBUS_LEASE_MODE_PREEMPT);
        if (mode == VMIBUS_LEASE_MODE_PREEMPT)
            end_lease(vm, lease_class, VMIBUS_REASON_PREEMPTED);
        else if (actor_poll_answer(&s->actors[actor], frame.header.correlation, &answer))
            mismatch("a lease that is held was granted");
    }
}

static void step_renew(int actor, struct vm *vm, unsigned lease_class) {
    struct lease *lease = lease_of(vm, lease_class);
    struct vmibus_frame frame = command(VMIBUS_KIND_CMD_LEASE, vm), answer;
    enum vmibus_reason reason;
    enum vmibus_error error;

    frame.cmd_lease.operation = VMIBUS_LEASE_OPERATION_RENEW;
    frame.cmd_lease.lease_class = (uint8_t)lease_class;
    frame.cmd_lease.token = choose_token(lease);
    error = judge_token(lease, actor, frame.cmd_lease.token, &reason);
    if (!may(actor, lease_class)) {
        error = VMIBUS_ERROR_DENIED;
        reason = VMIBUS_REASON_NO_CAPABILITY;
    }
    if (ask(actor, &frame, NULL, 0, &answer))
        expect(&answer, error, reason, 0);
}

static void step_release(int actor, struct vm *vm, unsigned lease_class) {
    struct lease *lease = lease_of(vm, lease_class);
    struct vmibus_frame frame = command(VMIBUS_KIND_CMD_LEASE, vm), answer;
    enum vmibus_reason reason;
    enum vmibus_error error;
    int place = line_find(lease, actor);

    frame.cmd_lease.operation = VMIBUS_LEASE_OPERATION_RELEASE;
    frame.cmd_lease.lease_class = (uint8_t)lease_class;
    frame.cmd_lease.token = place >= 0 ? 0 : choose_token(lease);
    error = judge_token(lease, actor, frame.cmd_lease.token, &reason);
    if (!may(actor, lease_class)) {
        error = VMIBUS_ERROR_DENIED;
        reason = VMIBUS_REASON_NO_CAPABILITY;
    } else if (frame.cmd_lease.token == 0 && place >= 0) {
        error = VMIBUS_ERROR_OK;
        reason = VMIBUS_REASON_NONE;
    }
    if (!ask(actor, &frame, NULL, 0, &answer) || !expect(&answer, error, reason, 0))
        return;
    if (place >= 0) {
        struct vmibus_frame cancelled;

        place = line_find(lease, actor); /* the connection may have lost and found itself meanwhile */
        if (place < 0)
            return;
        if (!actor_answer(&s->actors[actor], lease->line[place].correlation, &cancelled)) {
            lost(actor);
            return;
        }
        expect(&cancelled, VMIBUS_ERROR_BUSY, VMIBUS_REASON_CANCELLED, 0);
        line_remove(lease, (size_t)place);
    } else {
        end_lease(vm, lease_class, VMIBUS_REASON_RELEASED);
    }
}

/* A lease that ends by itself, at once. */
static void step_expire(int actor, struct vm *vm, unsigned lease_class) {
    struct lease *lease = lease_of(vm, lease_class);
    struct vmibus_frame frame = command(VMIBUS_KIND_CMD_LEASE, vm), answer;

    if (s->relaxed || lease->holder >= 0 || !may(actor, lease_class))
        return;
    frame.cmd_lease.operation = VMIBUS_LEASE_OPERATION_ACQUIRE;
    frame.cmd_lease.lease_class = (uint8_t)lease_class;
    frame.cmd_lease.mode = VMIBUS_LEASE_MODE_FAIL;
    frame.cmd_lease.ttl_ms = 1;
    if (!ask(actor, &frame, NULL, 0, &answer) || !expect(&answer, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 0))
        return;
    take_grant(vm, lease_class, actor, &answer.ack);
    if (!actor_await_loss(&s->actors[actor], answer.ack.token))
        lost(actor);
    end_lease(vm, lease_class, VMIBUS_REASON_LEASE_EXPIRED);
}

/* --- memory ------------------------------------------------------------------------------------ */

/* Where a write goes: the guest-physical address of its first octets, and how many lie there. */
struct place {
    uint64_t gpa;
    uint32_t len;
};

struct write {
    struct vmibus_frame frame;
    uint8_t tail[2 * STUB_BUFFER_SIZE + 1024];
    size_t tail_length;
    uint8_t *source;
    struct place places[8];
    size_t n_places;
    enum vmibus_error error;        /* of translation */
    enum vmibus_reason reason;
};

static void add_places(struct write *write, const struct vm *vm, uint64_t gva, uint32_t len, bool physical, unsigned process) {
    write->n_places = 0;
    while (len > 0) {
        uint32_t step = (uint32_t)(STUB_PAGE - gva % STUB_PAGE);
        uint64_t gpa = gva;

        if (step > len)
            step = len;
        if (!physical && gva >= STUB_LARGE_GVA) {
            gpa = gva - STUB_LARGE_GVA + STUB_LARGE_GPA;
        } else if (!physical && gva >= STUB_BUFFER_GVA + STUB_BUFFER_SIZE) {
            write->error = VMIBUS_ERROR_TRANSLATION;
            write->reason = VMIBUS_REASON_NOT_PRESENT;
            return;
        } else if (!physical && gva >= STUB_BUFFER_GVA) {
            gpa = gva % STUB_PAGE +
                  stub_buffer_gpa(vm->guest.vm, vm->boot, process, (unsigned)((gva - STUB_BUFFER_GVA) / STUB_PAGE));
        } else if (!physical && gva >= STUB_NOT_PRESENT_GVA) {
            write->error = VMIBUS_ERROR_TRANSLATION;
            write->reason = VMIBUS_REASON_NOT_PRESENT;
            return;
        } else if (!physical && gva >= STUB_READ_ONLY_GVA) {
            write->error = VMIBUS_ERROR_READ_ONLY_PAGE;
            write->reason = VMIBUS_REASON_NONE;
            return;
        } else if (!physical) {
            gpa = stub_data_gpa(vm->boot, process) + gva % STUB_PAGE;
        }
        write->places[write->n_places++] = (struct place){.gpa = gpa, .len = step};
        gva += step;
        len -= step;
    }
}

static void choose_target(struct write *write, const struct vm *vm) {
    struct vmibus_cmd_memwrite *body = &write->frame.cmd_memwrite;
    unsigned process = (unsigned)draw(STUB_PROCESSES);
    uint32_t bound = WRITE_MAX;

    body->cr3 = stub_process_cr3(vm->boot, process);
    switch (draw(6)) {
    case 0:
        body->cr3 = 0;
        body->flags |= VMIBUS_MEMWRITE_PHYSICAL;
        body->gva = STUB_FREE_GPA + draw(STUB_PAGE);
        bound = (uint32_t)(STUB_FREE_GPA + STUB_PAGE - body->gva);
        break;
    case 1:
        body->gva = STUB_LARGE_GVA + draw(STUB_LARGE_PAGE - WRITE_MAX);
        break;
    case 2:
        body->gva = STUB_DATA_GVA + draw(2 * STUB_PAGE);
        break;
    default:
        body->gva = STUB_BUFFER_GVA + draw(STUB_BUFFER_SIZE);
        break;
    }
    body->len = 1 + (uint32_t)draw(one_in(3) ? 24 : one_in(2) ? 300 : WRITE_MAX);
    if (body->len > bound)
        body->len = bound;
    add_places(write, vm, body->gva, body->len, body->flags & VMIBUS_MEMWRITE_PHYSICAL, process);
}

/* What is there, or something else in one octet. Returns the first octet that differs, or len. */
static uint32_t fill_expected(const struct write *write, const struct vm *vm, uint8_t *expected) {
    uint32_t at = 0, wrong;

    for (size_t i = 0; i < write->n_places; at += write->places[i++].len)
        memcpy(expected + at, guest_at(&vm->guest, write->places[i].gpa), write->places[i].len);
    if (!one_in(3) || at == 0)
        return write->frame.cmd_memwrite.len;
    wrong = (uint32_t)draw(at);
    expected[wrong] ^= 1u << draw(8);
    return wrong;
}

static uint32_t make_write(struct write *write, const struct vm *vm) {
    struct vmibus_cmd_memwrite *body = &write->frame.cmd_memwrite;
    uint32_t differs;

    choose_target(write, vm);
    if (one_in(3))
        body->flags |= VMIBUS_MEMWRITE_EXPECT;
    if (one_in(8))
        body->flags |= VMIBUS_MEMWRITE_DRY_RUN;
    differs = body->len;
    write->source = write->tail;
    if (body->flags & VMIBUS_MEMWRITE_EXPECT) {
        write->source += body->len;
        memset(write->tail, 0, body->len);
        differs = fill_expected(write, vm, write->tail);
    }
    for (uint32_t i = 0; i < body->len; i++)
        write->source[i] = (uint8_t)draw(256);
    write->tail_length = (size_t)(write->source - write->tail) + body->len;
    if (write->tail_length <= sizeof(body->data) && one_in(2)) {
        memcpy(body->data, write->tail, write->tail_length);
        write->tail_length = 0;
    } else {
        body->flags |= VMIBUS_MEMWRITE_SRC_PAYLOAD;
    }
    return differs;
}

/* Several extents in one command, each in a page of the buffer of its own; one of them may lead nowhere. */
static uint32_t make_table(struct write *write, const struct vm *vm) {
    struct vmibus_cmd_memwrite *body = &write->frame.cmd_memwrite;
    unsigned process = (unsigned)draw(STUB_PROCESSES), n = 1 + (unsigned)draw(STUB_BUFFER_PAGES);
    const struct vmibus_memwrite_source source = {.extents = n};
    struct vmibus_write_extent extents[STUB_BUFFER_PAGES] = {};
    uint32_t differs;

    body->cr3 = stub_process_cr3(vm->boot, process);
    body->flags = VMIBUS_MEMWRITE_TABLE | VMIBUS_MEMWRITE_SRC_PAYLOAD | (one_in(3) ? VMIBUS_MEMWRITE_EXPECT : 0) |
                  (one_in(8) ? VMIBUS_MEMWRITE_DRY_RUN : 0);
    memcpy(body->data, &source, sizeof(source));
    write->n_places = 0;
    for (unsigned i = 0; i < n; i++) {
        uint64_t offset = draw(STUB_PAGE);

        extents[i].gva = STUB_BUFFER_GVA + i * STUB_PAGE + offset;
        extents[i].len = 1 + (uint32_t)draw(STUB_PAGE - offset);
        body->len += extents[i].len;
        write->places[write->n_places++] = (struct place){
            .gpa = stub_buffer_gpa(vm->guest.vm, vm->boot, process, i) + offset,
            .len = extents[i].len,
        };
    }
    memcpy(write->tail, extents, n * sizeof(extents[0]));
    write->source = write->tail + n * sizeof(extents[0]);
    differs = body->len;
    if (body->flags & VMIBUS_MEMWRITE_EXPECT) {
        differs = fill_expected(write, vm, write->source);
        write->source += body->len;
    } else if (one_in(6)) {
        extents[draw(n)].gva = STUB_BUFFER_GVA + STUB_BUFFER_SIZE;
        memcpy(write->tail, extents, n * sizeof(extents[0]));
        write->error = VMIBUS_ERROR_TRANSLATION;
        write->reason = VMIBUS_REASON_NOT_PRESENT;
    }
    for (uint32_t i = 0; i < body->len; i++)
        write->source[i] = (uint8_t)draw(256);
    write->tail_length = (size_t)(write->source - write->tail) + body->len;
    return differs;
}

/* What the gates of the authority say, before anything is translated. */
static enum vmibus_error judge_write(int actor, const struct vm *vm, const struct vmibus_cmd_memwrite *body,
                                     enum vmibus_reason *reason) {
    const struct lease *lease = &vm->leases[VMIBUS_LEASE_CLASS_MEMWRITE - 1];

    *reason = VMIBUS_REASON_NONE;
    if (!may(actor, VMIBUS_LEASE_CLASS_MEMWRITE)) {
        *reason = VMIBUS_REASON_NO_CAPABILITY;
        return VMIBUS_ERROR_DENIED;
    }
    if (body->token == 0 || !s->fences[vm->at.slot])
        return VMIBUS_ERROR_NO_LEASE;
    if (body->token != lease->token || lease->holder < 0) {
        *reason = body->token <= s->fences[vm->at.slot] ? VMIBUS_REASON_REVOKED : VMIBUS_REASON_NONE;
        return VMIBUS_ERROR_STALE_TOKEN;
    }
    if (lease->holder != actor) {
        *reason = VMIBUS_REASON_NOT_RIGHTS_HOLDER;
        return VMIBUS_ERROR_STALE_TOKEN;
    }
    if (body->epoch != vm->at.epoch) {
        *reason = body->epoch && body->epoch == vm->last_epoch ? VMIBUS_REASON_RESET : VMIBUS_REASON_NONE;
        return VMIBUS_ERROR_STALE_EPOCH;
    }
    return VMIBUS_ERROR_OK;
}

static void apply(const struct write *write, const struct vm *vm) {
    const uint8_t *source = write->source;

    for (size_t i = 0; i < write->n_places; source += write->places[i++].len)
        memcpy(guest_at(&vm->guest, write->places[i].gpa), source, write->places[i].len);
}

/* Whether the first octet that the write would change was changed. */
static bool has_happened(const struct write *write, const struct vm *vm) {
    const uint8_t *source = write->source;

    for (size_t i = 0; i < write->n_places; source += write->places[i++].len) {
        uint8_t there[STUB_PAGE];

        guest_read(&vm->guest, write->places[i].gpa, there, write->places[i].len);
        if (memcmp(there, guest_at(&vm->guest, write->places[i].gpa), write->places[i].len) != 0)
            return true;
    }
    return false;
}

/* What could not be undone was told; then nobody can say more of it. */
static void forgive(const struct write *write, const struct vm *vm) {
    for (size_t i = 0; i < write->n_places; i++)
        guest_read(&vm->guest, write->places[i].gpa, guest_at(&vm->guest, write->places[i].gpa), write->places[i].len);
}

static void step_write(int actor, struct vm *vm) {
    static struct write write;
    struct vmibus_cmd_memwrite *body = &write.frame.cmd_memwrite;
    struct vmibus_frame answer;
    enum vmibus_reason reason;
    enum vmibus_error error;
    uint32_t differs;

    write.frame = command(VMIBUS_KIND_CMD_MEMWRITE, vm);
    write.error = VMIBUS_ERROR_OK;
    write.reason = VMIBUS_REASON_NONE;
    body->token = choose_token(&vm->leases[VMIBUS_LEASE_CLASS_MEMWRITE - 1]);
    body->epoch = one_in(15) ? vm->last_epoch : vm->at.epoch;
    differs = one_in(4) ? make_table(&write, vm) : make_write(&write, vm);
    error = judge_write(actor, vm, body, &reason);
    if (!error) {
        error = write.error;
        reason = write.reason;
    }
    if (!error && differs < body->len) {
        error = VMIBUS_ERROR_VALIDATION;
        reason = VMIBUS_REASON_TARGET_CHANGED;
    }
    if (!ask(actor, &write.frame, write.tail, write.tail_length, &answer)) {
        /* Whole or not at all; which of the two, memory tells. */
        if (!error && !(body->flags & VMIBUS_MEMWRITE_DRY_RUN) && has_happened(&write, vm))
            apply(&write, vm);
        return;
    }
    if (expect(&answer, error, reason, body->flags & VMIBUS_MEMWRITE_DRY_RUN ? 0 : body->len) &&
        !(body->flags & VMIBUS_MEMWRITE_DRY_RUN))
        apply(&write, vm);
    else if (s->relaxed && answer.ack.reason == VMIBUS_REASON_PARTIAL)
        forgive(&write, vm);
}

static void step_attach(int actor, struct vm *vm) {
    struct vmibus_frame frame = command(VMIBUS_KIND_MEM_ATTACH, vm), answer;
    unsigned v = vm->guest.vm;

    frame.mem_attach.epoch = one_in(2) ? 0 : vm->at.epoch;
    if (s->attached[actor][v] > 4 || !ask(actor, &frame, NULL, 0, &answer))
        return;
    if (!may(actor, VMIBUS_LEASE_CLASS_MEMWRITE)) {
        expect(&answer, VMIBUS_ERROR_DENIED, VMIBUS_REASON_NO_CAPABILITY, 0);
        return;
    }
    /* Whether descriptors come depends on who the actor is and what it was given; that is told as a reason, not as an error. */
    if (expect(&answer, VMIBUS_ERROR_OK, (enum vmibus_reason)answer.ack.reason, stub_is_split(v) ? 2 : 1)) {
        if (answer.ack.epoch != vm->at.epoch)
            mismatch("attached to epoch %#llx, current is %#llx", (unsigned long long)answer.ack.epoch,
                     (unsigned long long)vm->at.epoch);
        s->attached[actor][v]++;
    }
}

static void release_once(int actor, struct vm *vm) {
    struct vmibus_frame frame = command(VMIBUS_KIND_MEM_RELEASE, vm), answer;
    unsigned *attached = &s->attached[actor][vm->guest.vm];

    frame.mem_release.epoch = vm->at.epoch;
    if (!ask(actor, &frame, NULL, 0, &answer))
        return;
    if (*attached == 0)
        expect(&answer, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD, 0);
    else if (expect(&answer, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 0))
        (*attached)--;
}

/* --- power ------------------------------------------------------------------------------------- */

/* Everybody lets go of an epoch that ends, or would be made to. */
static void release_all(struct vm *vm) {
    for (int actor = 0; actor < ACTORS; actor++)
        while (s->attached[actor][vm->guest.vm])
            release_once(actor, vm);
}

/* The bystander sees it come up again, and knows its new name. */
static void find_again(struct vm *vm) {
    char name[16];

    snprintf(name, sizeof(name), "stub-%u", vm->guest.vm);
    vm->at = wire_find(s->daemon.bystander, name);
    vm->boot++;
    guest_open(&vm->guest, s->daemon.pid, vm->guest.vm);
}

static void step_power(int actor, struct vm *vm, enum vmibus_power_operation operation) {
    struct lease *lease = lease_of(vm, VMIBUS_LEASE_CLASS_POWER);
    struct vmibus_frame frame = command(VMIBUS_KIND_CMD_POWER, vm), answer;
    enum vmibus_reason reason;
    enum vmibus_error error;

    if (s->relaxed)
        return;
    frame.cmd_power.operation = (uint8_t)operation;
    frame.cmd_power.token = choose_token(lease);
    error = judge_token(lease, actor, frame.cmd_power.token, &reason);
    if (!may(actor, VMIBUS_LEASE_CLASS_POWER)) {
        error = VMIBUS_ERROR_DENIED;
        reason = VMIBUS_REASON_NO_CAPABILITY;
    }
    if (!error)
        release_all(vm);
    if (!ask(actor, &frame, NULL, 0, &answer) || !expect(&answer, error, reason, 1))
        return;
    if (operation == VMIBUS_POWER_OPERATION_QUIT) {
        for (unsigned c = 0; c < CLASSES; c++) {
            struct lease *gone = &vm->leases[c];

            for (; gone->n_line > 0; line_remove(gone, 0)) {
                if (!actor_answer(&s->actors[gone->line[0].actor], gone->line[0].correlation, &answer))
                    mismatch("actor %d was lost with an endpoint", gone->line[0].actor);
                expect(&answer, VMIBUS_ERROR_GONE, VMIBUS_REASON_NONE, 0);
            }
            *gone = (struct lease){.holder = -1, .reason = VMIBUS_REASON_NONE};
        }
        vm->last_epoch = 0;
        find_again(vm);
        return;
    }
    vm->last_epoch = vm->at.epoch;
    find_again(vm);
}

/* --- coming and going -------------------------------------------------------------------------- */

static void come(int actor) {
    unsigned attempts = 0;

    while (!actor_connect(&s->actors[actor], s->daemon.path, s->many ? characters[actor].uid : geteuid()))
        if (!s->relaxed || attempts++ > 1000)
            mismatch("actor %d is not let in", actor);
    s->subscribed[actor] = 0;
}

static void step_reconnect(int actor) {
    actor_close(&s->actors[actor]);
    actor_is_gone(actor);
    come(actor);
}

static void step_subscribe(int actor) {
    uint64_t kinds = s->subscribed[actor] ? 0 : EVERYTHING;
    struct vmibus_frame answer;

    if (!actor_subscribe(&s->actors[actor], kinds, &answer))
        lost(actor);
    else if (expect(&answer, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, answer.ack.count))
        s->subscribed[actor] = kinds;
}

/* --- comparing --------------------------------------------------------------------------------- */

static void compare_lease(int actor, const struct vm *vm, unsigned lease_class) {
    const struct actor_lease *seen = &s->actors[actor].leases[vm->at.slot][lease_class];
    const struct lease *lease = &vm->leases[lease_class - 1];
    bool held = seen->generation == vm->at.generation && seen->lease.state == VMIBUS_LEASE_STATE_HELD;

    if (held != (lease->holder >= 0) || (held && seen->lease.token != lease->token))
        mismatch("actor %d was told that the lease of class %u is %sheld by token %#llx; it is %sheld by %#llx", actor, lease_class,
             held ? "" : "not ", (unsigned long long)seen->lease.token, lease->holder >= 0 ? "" : "not ",
             (unsigned long long)lease->token);
}

static void compare(void) {
    struct vmibus_frame answer;

    for (unsigned v = 0; v < VMS; v++)
        guest_compare(&s->vms[v].guest);
    for (int actor = 0; actor < ACTORS && !s->relaxed; actor++) {
        if (!s->subscribed[actor])
            continue;
        /* Its answer comes after all that was published. */
        if (!actor_subscribe(&s->actors[actor], s->subscribed[actor], &answer))
            mismatch("actor %d was lost", actor);
        for (unsigned v = 0; v < VMS; v++)
            for (unsigned c = 1; c <= CLASSES; c++)
                compare_lease(actor, &s->vms[v], c);
    }
}

/* --- the sequence ------------------------------------------------------------------------------ */

static void step(void) {
    int actor = (int)draw(ACTORS);
    struct vm *vm = &s->vms[draw(VMS)];
    unsigned lease_class = 1 + (unsigned)draw(CLASSES);
    uint64_t choice = draw(100);

    if (actor_is_lost(&s->actors[actor])) {
        actor_is_gone(actor);
        come(actor);
    }
    /* Most of what happens is what most of it is about. */
    if (one_in(2))
        lease_class = VMIBUS_LEASE_CLASS_MEMWRITE;
    if (choice < 40)
        step_write(lease_of(vm, VMIBUS_LEASE_CLASS_MEMWRITE)->holder >= 0 && !one_in(5)
                       ? lease_of(vm, VMIBUS_LEASE_CLASS_MEMWRITE)->holder
                       : actor,
                   vm);
    else if (choice < 62)
        step_acquire(actor, vm, lease_class);
    else if (choice < 72)
        step_release(!one_in(4) && lease_of(vm, lease_class)->holder >= 0 ? lease_of(vm, lease_class)->holder : actor, vm,
                     lease_class);
    else if (choice < 76)
        step_renew(actor, vm, lease_class);
    else if (choice < 79)
        step_expire(actor, vm, lease_class);
    else if (choice < 84)
        step_attach(actor, vm);
    else if (choice < 88)
        release_once(actor, vm);
    else if (choice < 92)
        step_subscribe(actor);
    else if (choice < 95)
        step_reconnect(actor);
    else if (choice < 99)
        step_power(actor, vm, VMIBUS_POWER_OPERATION_RESET);
    else
        step_power(actor, vm, VMIBUS_POWER_OPERATION_QUIT);
}

static void begin(void) {
    for (unsigned v = 0; v < VMS; v++) {
        struct vm *vm = &s->vms[v];
        char name[16];

        snprintf(name, sizeof(name), "stub-%u", v);
        vm->at = wire_find(s->daemon.bystander, name);
        for (unsigned c = 0; c < CLASSES; c++)
            vm->leases[c] = (struct lease){.holder = -1};
        guest_open(&vm->guest, s->daemon.pid, v);
    }
    /* What the search for the VMs left behind is nothing that the daemon lost. */
    wire_subscribe(s->daemon.bystander, "stub-*", 0);
    for (int actor = 0; actor < ACTORS; actor++)
        come(actor);
}

/* Whatever failed, nothing stays closed: each lease can be had again. */
static void have_every_lease(void) {
    struct actor actor;

    ck_assert(actor_connect(&actor, s->daemon.path, geteuid()));
    for (unsigned v = 0; v < VMS; v++)
        for (unsigned c = 1; c <= CLASSES; c++) {
            struct vmibus_frame answer = {.ack.error = VMIBUS_ERROR_BUSY};

            for (unsigned i = 0; answer.ack.error && i < ATTEMPTS; i++) {
                struct vmibus_frame frame = command(VMIBUS_KIND_CMD_LEASE, &s->vms[v]);

                frame.cmd_lease.operation = VMIBUS_LEASE_OPERATION_ACQUIRE;
                frame.cmd_lease.lease_class = (uint8_t)c;
                frame.cmd_lease.mode = VMIBUS_LEASE_MODE_FAIL;
                ck_assert(actor_ask(&actor, &frame, NULL, 0, &answer));
            }
            if (answer.ack.error)
                mismatch("the lease of class %u on stub-%u is not to be had any more", c, v);
        }
    actor_close(&actor);
}

static void end(void) {
    struct vmibus_frame answer, frame = wire_frame(VMIBUS_KIND_SUBSCRIBE);

    compare();
    for (int actor = 0; actor < ACTORS; actor++)
        actor_close(&s->actors[actor]);
    have_every_lease();
    for (unsigned v = 0; v < VMS; v++) {
        char name[16];

        snprintf(name, sizeof(name), "stub-%u", v);
        answer = wire_ask(s->daemon.bystander, &frame, name, strlen(name));
        ck_assert_uint_eq(answer.ack.error, VMIBUS_ERROR_OK);
        frame = wire_frame(VMIBUS_KIND_SUBSCRIBE);
        guest_close(&s->vms[v].guest);
    }
}

static uint64_t number(const char *name, uint64_t otherwise) {
    const char *text = getenv(name);

    return text && *text ? strtoull(text, NULL, 0) : otherwise;
}

static void run(uint64_t seed, const char *faults) {
    static struct sequence sequence;
    static char config[2048];
    const struct daemon_options options = {.config = config, .arguments = {"--sensor", "stub:respawn_ms=1"}};
    unsigned steps = (unsigned)number("VMIBUS_DIFFERENTIAL_STEPS", STEPS);

    sequence = (struct sequence){.seed = seed, .random = seed, .many = geteuid() == 0, .relaxed = faults};
    s = &sequence;
    /* Before anything else can fail. */
    fprintf(stderr, "VMIBUS_DIFFERENTIAL_SEED=%llu%s\n", (unsigned long long)seed, faults ? " with faults" : "");
    snprintf(config, sizeof(config), "%s", s->many ? RULES : SETTINGS);
    daemon_start(&s->daemon, &options);
    begin();
    if (faults) {
        snprintf(config, sizeof(config), "%s[faults]\nseed = %llu\n%s", s->many ? RULES : SETTINGS,
                 (unsigned long long)seed, faults);
        daemon_reload(&s->daemon, config);
        daemon_await_log(&s->daemon, "the policy was read anew");
    }
    for (s->step = 0; s->step < steps; s->step++) {
        step();
        if (s->relaxed)
            collect_grants();
        if (s->step % STEPS_BETWEEN_COMPARISONS == 0)
            compare();
    }
    if (faults) {
        daemon_reload(&s->daemon, s->many ? RULES : SETTINGS);
        daemon_await_log(&s->daemon, "the policy was read anew");
    }
    end();
    daemon_stop(&s->daemon);
    fprintf(stderr, "%u steps, %u done, %u refused, %u connections lost\n", steps, s->done, s->refused, s->lost);
    ck_assert_uint_gt(s->done, steps / 10);
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
    run_seeds(all_faults);
}

#endif

HARNESS_SUITE("differential", HARNESS_QUICK)
