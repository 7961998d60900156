/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Steps on memory: writes whose effect is known octet by octet, and attachments.
 *
 * A write goes to memory of the stub whose place is known (stub/stub_map.h): what should be there afterwards is
 * written into the shadow of the guest, or nothing is.
 */
#include <string.h>

#include "differential/connection.h"
#include "differential/sequence.h"
#include "differential/steps.h"
#include "stub/stub_map.h"

#define WRITE_MAX 12000u

/* --- where it goes ----------------------------------------------------------------------------- */

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

/* Where one page of it leads. False: nowhere, and the write says why. */
static bool translate(struct write *write, const struct vm *vm, uint64_t gva, unsigned process, uint64_t *gpa) {
    if (gva >= STUB_LARGE_GVA) {
        *gpa = gva - STUB_LARGE_GVA + STUB_LARGE_GPA;
        return true;
    }
    if (gva >= STUB_BUFFER_GVA && gva < STUB_BUFFER_GVA + STUB_BUFFER_SIZE) {
        unsigned page = (unsigned)((gva - STUB_BUFFER_GVA) / STUB_PAGE);

        *gpa = gva % STUB_PAGE + stub_buffer_gpa(vm->guest.vm, vm->boot, process, page);
        return true;
    }
    if (gva >= STUB_NOT_PRESENT_GVA) {
        write->error = VMIBUS_ERROR_TRANSLATION;
        write->reason = VMIBUS_REASON_NOT_PRESENT;
        return false;
    }
    if (gva >= STUB_READ_ONLY_GVA) {
        write->error = VMIBUS_ERROR_READ_ONLY_PAGE;
        write->reason = VMIBUS_REASON_NONE;
        return false;
    }
    *gpa = stub_data_gpa(vm->boot, process) + gva % STUB_PAGE;
    return true;
}

static void add_places(struct write *write, const struct vm *vm, unsigned process) {
    const struct vmibus_cmd_memwrite *body = &write->frame.cmd_memwrite;
    uint64_t gva = body->gva;
    uint32_t len = body->len;

    write->n_places = 0;
    while (len > 0) {
        uint32_t step = (uint32_t)(STUB_PAGE - gva % STUB_PAGE);
        uint64_t gpa = gva;

        if (step > len)
            step = len;
        if (!(body->flags & VMIBUS_MEMWRITE_PHYSICAL) && !translate(write, vm, gva, process, &gpa))
            return;
        write->places[write->n_places++] = (struct place){.gpa = gpa, .len = step};
        gva += step;
        len -= step;
    }
}

static void choose_target(struct write *write, const struct vm *vm) {
    struct vmibus_cmd_memwrite *body = &write->frame.cmd_memwrite;
    unsigned process = (unsigned)sequence_draw(STUB_PROCESSES);
    uint32_t bound = WRITE_MAX;

    body->cr3 = stub_process_cr3(vm->boot, process);
    switch (sequence_draw(6)) {
    case 0:
        body->cr3 = 0;
        body->flags |= VMIBUS_MEMWRITE_PHYSICAL;
        body->gva = STUB_FREE_GPA + sequence_draw(STUB_PAGE);
        bound = (uint32_t)(STUB_FREE_GPA + STUB_PAGE - body->gva);
        break;
    case 1:
        body->gva = STUB_LARGE_GVA + sequence_draw(STUB_LARGE_PAGE - WRITE_MAX);
        break;
    case 2:
        body->gva = STUB_DATA_GVA + sequence_draw(2 * STUB_PAGE);
        break;
    default:
        body->gva = STUB_BUFFER_GVA + sequence_draw(STUB_BUFFER_SIZE);
        break;
    }
    body->len = 1 + (uint32_t)sequence_draw(sequence_one_in(3) ? 24 : sequence_one_in(2) ? 300 : WRITE_MAX);
    if (body->len > bound)
        body->len = bound;
    add_places(write, vm, process);
}

/* --- what is written --------------------------------------------------------------------------- */

/* What is there, or something else in one octet. Returns the first octet that differs, or len. */
static uint32_t fill_expected(const struct write *write, const struct vm *vm, uint8_t *expected) {
    uint32_t at = 0, wrong;

    for (size_t i = 0; i < write->n_places; at += write->places[i++].len)
        memcpy(expected + at, guest_at(&vm->guest, write->places[i].gpa), write->places[i].len);
    if (!sequence_one_in(3) || at == 0)
        return write->frame.cmd_memwrite.len;
    wrong = (uint32_t)sequence_draw(at);
    expected[wrong] ^= 1u << sequence_draw(8);
    return wrong;
}

/* Random octets from the source on, which end the tail. */
static void fill_source(struct write *write) {
    uint32_t len = write->frame.cmd_memwrite.len;

    for (uint32_t i = 0; i < len; i++)
        write->source[i] = (uint8_t)sequence_draw(256);
    write->tail_length = (size_t)(write->source - write->tail) + len;
}

/* One extent. Returns as fill_expected(). */
static uint32_t make_write(struct write *write, const struct vm *vm) {
    struct vmibus_cmd_memwrite *body = &write->frame.cmd_memwrite;
    uint32_t differs;

    choose_target(write, vm);
    if (sequence_one_in(3))
        body->flags |= VMIBUS_MEMWRITE_EXPECT;
    if (sequence_one_in(8))
        body->flags |= VMIBUS_MEMWRITE_DRY_RUN;
    differs = body->len;
    write->source = write->tail;
    if (body->flags & VMIBUS_MEMWRITE_EXPECT) {
        write->source += body->len;
        memset(write->tail, 0, body->len);
        differs = fill_expected(write, vm, write->tail);
    }
    fill_source(write);
    if (write->tail_length <= sizeof(body->data) && sequence_one_in(2)) {
        memcpy(body->data, write->tail, write->tail_length);
        write->tail_length = 0;
    } else {
        body->flags |= VMIBUS_MEMWRITE_SRC_PAYLOAD;
    }
    return differs;
}

/* Each in a page of the buffer of its own. */
static void choose_extents(struct write *write, const struct vm *vm, unsigned process, struct vmibus_write_extent *extents,
                           unsigned n) {
    write->n_places = 0;
    for (unsigned i = 0; i < n; i++) {
        uint64_t offset = sequence_draw(STUB_PAGE);

        extents[i].gva = STUB_BUFFER_GVA + i * STUB_PAGE + offset;
        extents[i].len = 1 + (uint32_t)sequence_draw(STUB_PAGE - offset);
        write->frame.cmd_memwrite.len += extents[i].len;
        write->places[write->n_places++] = (struct place){
            .gpa = stub_buffer_gpa(vm->guest.vm, vm->boot, process, i) + offset,
            .len = extents[i].len,
        };
    }
}

/* Several extents in one command; one of them may lead nowhere. Returns as fill_expected(). */
static uint32_t make_table(struct write *write, const struct vm *vm) {
    struct vmibus_cmd_memwrite *body = &write->frame.cmd_memwrite;
    unsigned process = (unsigned)sequence_draw(STUB_PROCESSES), n = 1 + (unsigned)sequence_draw(STUB_BUFFER_PAGES);
    const struct vmibus_memwrite_source source = {.extents = n};
    struct vmibus_write_extent extents[STUB_BUFFER_PAGES] = {};
    uint32_t differs;

    body->cr3 = stub_process_cr3(vm->boot, process);
    body->flags = VMIBUS_MEMWRITE_TABLE | VMIBUS_MEMWRITE_SRC_PAYLOAD | (sequence_one_in(3) ? VMIBUS_MEMWRITE_EXPECT : 0) |
                  (sequence_one_in(8) ? VMIBUS_MEMWRITE_DRY_RUN : 0);
    memcpy(body->data, &source, sizeof(source));
    choose_extents(write, vm, process, extents, n);
    memcpy(write->tail, extents, n * sizeof(extents[0]));
    write->source = write->tail + n * sizeof(extents[0]);
    differs = body->len;
    if (body->flags & VMIBUS_MEMWRITE_EXPECT) {
        differs = fill_expected(write, vm, write->source);
        write->source += body->len;
    } else if (sequence_one_in(6)) {
        extents[sequence_draw(n)].gva = STUB_BUFFER_GVA + STUB_BUFFER_SIZE;
        memcpy(write->tail, extents, n * sizeof(extents[0]));
        write->error = VMIBUS_ERROR_TRANSLATION;
        write->reason = VMIBUS_REASON_NOT_PRESENT;
    }
    fill_source(write);
    return differs;
}

/* --- what comes of it -------------------------------------------------------------------------- */

static void apply(const struct write *write, const struct vm *vm) {
    const uint8_t *source = write->source;

    for (size_t i = 0; i < write->n_places; source += write->places[i++].len)
        memcpy(guest_at(&vm->guest, write->places[i].gpa), source, write->places[i].len);
}

/* Whether anything is not as it was where the write goes. */
static bool has_happened(const struct write *write, const struct vm *vm) {
    for (size_t i = 0; i < write->n_places; i++) {
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

/* Chooses a write, and predicts its answer. */
static enum vmibus_error make_any(struct write *write, int actor, const struct vm *vm, enum vmibus_reason *reason) {
    struct vmibus_cmd_memwrite *body = &write->frame.cmd_memwrite;
    enum vmibus_error error;
    uint32_t differs;

    write->frame = sequence_command(VMIBUS_KIND_CMD_MEMWRITE, vm);
    write->error = VMIBUS_ERROR_OK;
    write->reason = VMIBUS_REASON_NONE;
    body->token = sequence_choose_token(&vm->leases[VMIBUS_LEASE_CLASS_MEMWRITE - 1]);
    body->epoch = sequence_one_in(15) ? vm->last_epoch : vm->at.epoch;
    differs = sequence_one_in(4) ? make_table(write, vm) : make_write(write, vm);
    error = model_judge_write(actor, vm, body, reason);
    if (error)
        return error;
    *reason = write->reason;
    if (write->error)
        return write->error;
    if (differs == body->len)
        return VMIBUS_ERROR_OK;
    *reason = VMIBUS_REASON_TARGET_CHANGED;
    return VMIBUS_ERROR_VALIDATION;
}

void step_write(int actor, struct vm *vm) {
    static struct write write;
    enum vmibus_reason reason;
    enum vmibus_error error = make_any(&write, actor, vm, &reason);
    bool dry = write.frame.cmd_memwrite.flags & VMIBUS_MEMWRITE_DRY_RUN;
    struct vmibus_frame answer;

    if (!connection_ask(actor, &write.frame, write.tail, write.tail_length, &answer)) {
        /* Whole or not at all; which of the two, memory tells. */
        if (!error && !dry && has_happened(&write, vm))
            apply(&write, vm);
        return;
    }
    if (sequence_expect(&answer, error, reason, dry ? 0 : write.frame.cmd_memwrite.len) && !dry)
        apply(&write, vm);
    else if (sequence.relaxed && answer.ack.reason == VMIBUS_REASON_PARTIAL)
        forgive(&write, vm);
}

/* --- attachments ------------------------------------------------------------------------------- */

void step_attach(int actor, struct vm *vm) {
    struct vmibus_frame frame = sequence_command(VMIBUS_KIND_MEM_ATTACH, vm), answer;
    unsigned v = vm->guest.vm;

    frame.mem_attach.epoch = sequence_one_in(2) ? 0 : vm->at.epoch;
    if (model.attached[actor][v] > 4 || !connection_ask(actor, &frame, NULL, 0, &answer))
        return;
    if (!model_may(actor, VMIBUS_LEASE_CLASS_MEMWRITE)) {
        sequence_expect(&answer, VMIBUS_ERROR_DENIED, VMIBUS_REASON_NO_CAPABILITY, 0);
        return;
    }
    /* Whether descriptors come depends on who the actor is and what it was given; that is told as a reason, not as an error. */
    if (sequence_expect(&answer, VMIBUS_ERROR_OK, (enum vmibus_reason)answer.ack.reason, stub_is_split(v) ? 2 : 1)) {
        if (answer.ack.epoch != vm->at.epoch)
            sequence_fail("attached to epoch %#llx, current is %#llx", (unsigned long long)answer.ack.epoch,
                          (unsigned long long)vm->at.epoch);
        model.attached[actor][v]++;
    }
}

void step_detach(int actor, struct vm *vm) {
    struct vmibus_frame frame = sequence_command(VMIBUS_KIND_MEM_RELEASE, vm), answer;
    unsigned *attached = &model.attached[actor][vm->guest.vm];

    frame.mem_release.epoch = vm->at.epoch;
    if (!connection_ask(actor, &frame, NULL, 0, &answer))
        return;
    if (*attached == 0)
        sequence_expect(&answer, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD, 0);
    else if (sequence_expect(&answer, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 0))
        (*attached)--;
}
