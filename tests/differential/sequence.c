/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "differential/sequence.h"

#include <stdarg.h>
#include <stdio.h>

#include "harness.h"

struct sequence sequence;

uint64_t sequence_draw(uint64_t bound) {
    sequence.random += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t z = sequence.random;

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return (z ^ z >> 31) % bound;
}

bool sequence_one_in(uint64_t n) {
    return sequence_draw(n) == 0;
}

uint64_t sequence_choose_token(const struct lease *lease) {
    if (sequence_one_in(12))
        return 0;
    if (sequence_one_in(12))
        return lease->token + sequence_draw(3);
    return lease->token;
}

struct vmibus_frame sequence_command(enum vmibus_kind kind, const struct vm *vm) {
    return actor_frame(kind, vm->at.slot, vm->at.generation);
}

void sequence_fail(const char *format, ...) {
    char text[512];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    ck_abort_msg("step %u: %s (VMIBUS_DIFFERENTIAL_SEED=%llu shows it again)", sequence.step, text,
                 (unsigned long long)sequence.seed);
}

bool sequence_expect(const struct vmibus_frame *answer, enum vmibus_error error, enum vmibus_reason reason, uint64_t count) {
    const struct vmibus_ack *ack = &answer->ack;

    if (ack->error)
        sequence.refused++;
    else
        sequence.done++;
    if (ack->error == VMIBUS_ERROR_OK && error != VMIBUS_ERROR_OK)
        sequence_fail("command %#x was done and should have been refused with error %u, reason %u", ack->command, error, reason);
    if (sequence.relaxed && ack->error != VMIBUS_ERROR_OK)
        return false;
    if (ack->error != error || ack->reason != reason)
        sequence_fail("command %#x ended with error %u, reason %u; error %u, reason %u should be", ack->command, ack->error,
                      ack->reason, error, reason);
    if (!error && ack->count != count)
        sequence_fail("command %#x did %llu, should be %llu", ack->command, (unsigned long long)ack->count,
                      (unsigned long long)count);
    return !error;
}
