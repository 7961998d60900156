/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "transport/compromised.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

struct program {
    struct compromised_program header;
    const struct compromised_call *calls;
    const struct compromised_patch *patches;
    const uint8_t *original;
    uint8_t *data;
    int64_t *results;
};

static bool enabled;

void compromised_enable(void) {
    enabled = true;
}

static bool parse(struct program *program, const uint8_t *tail, size_t length) {
    struct compromised_program *header = &program->header;
    size_t calls, patches;

    if (length < sizeof(*header))
        return false;
    memcpy(header, tail, sizeof(*header));
    calls = header->n_calls * sizeof(struct compromised_call);
    patches = header->n_patches * sizeof(struct compromised_patch);
    if (length != sizeof(*header) + calls + patches + header->n_data)
        return false;
    program->calls = (const void *)(tail + sizeof(*header));
    program->patches = (const void *)(tail + sizeof(*header) + calls);
    program->original = tail + sizeof(*header) + calls + patches;
    return true;
}

static void patch(const struct program *program) {
    for (uint32_t i = 0; i < program->header.n_patches; i++) {
        struct compromised_patch place;
        uint64_t address;

        memcpy(&place, &program->patches[i], sizeof(place));
        address = (uint64_t)(uintptr_t)(program->data + place.to);
        memcpy(program->data + place.at, &address, sizeof(address));
    }
}

static long argument(const struct program *program, const struct compromised_call *call, unsigned i) {
    switch (call->meanings[i]) {
    case COMPROMISED_DATA:
        return (long)(uintptr_t)(program->data + call->arguments[i]);
    case COMPROMISED_RESULT:
        return (long)program->results[call->arguments[i]];
    default:
        return (long)call->arguments[i];
    }
}

static void execute(const struct program *program) {
    for (uint32_t i = 0; i < program->header.n_calls; i++) {
        struct compromised_call call;
        long result, values[6];

        memcpy(&call, &program->calls[i], sizeof(call));
        for (unsigned k = 0; k < 6; k++)
            values[k] = argument(program, &call, k);
        result = syscall((long)call.number, values[0], values[1], values[2], values[3], values[4], values[5]);
        program->results[i] = result == -1 ? -errno : result;
    }
}

static void say(int fd, const void *data, size_t length) {
    struct pollfd ready = {.fd = fd, .events = POLLOUT};

    for (size_t sent = 0; sent < length;) {
        ssize_t n = write(fd, (const uint8_t *)data + sent, length - sent);

        if (n < 0 && errno != EAGAIN)
            return;
        if (n < 0)
            (void)poll(&ready, 1, -1);
        else
            sent += (size_t)n;
    }
}

static void answer(int fd, const struct vmibus_frame *frame, const struct program *program) {
    struct vmibus_frame head = {.header = frame->header};
    size_t results = program->header.n_calls * sizeof(*program->results);

    head.header.direction = VMIBUS_DIRECTION_UP;
    head.header.tail_length = (uint32_t)(results + program->header.n_data);
    say(fd, &head, sizeof(head));
    say(fd, program->results, results);
    say(fd, program->data, program->header.n_data);
}

bool compromised_obey(int fd, const struct vmibus_frame *frame, const void *tail) {
    struct program program;

    if (!enabled || frame->header.kind != COMPROMISED_KIND || !parse(&program, tail, frame->header.tail_length))
        return false;
    program.results = calloc(program.header.n_calls + 1, sizeof(*program.results));
    program.data = malloc(program.header.n_data + 1);
    if (program.results && program.data) {
        memcpy(program.data, program.original, program.header.n_data);
        patch(&program);
        execute(&program);
        answer(fd, frame, &program);
    }
    free(program.results);
    free(program.data);
    return true;
}
