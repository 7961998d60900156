/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Writes of 1 MiB, eight under way at a time, against raw pwrite(2) of as much into RAM of the same
 * kind: from a buffer and as a socket's payload into a synthetic VM's shared RAM, and from a buffer into
 * the private RAM of another process, against raw writes to its /proc/PID/mem.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <vmibus/client.h>

#include "bench.h"
#include "instance.h"
#include "private_vm.h"
#include "stub/stub_map.h"

#define MIB (UINT64_C(1) << 20)
#define DEPTH 8u
#define SOURCES 4u  /* different ones; buffer and payloads together stay below what one user may hold */
#define FIRST (UINT64_C(16) << 20) /* where nothing that a synthetic kernel lives by lies */

/* A control with writes under way. */
struct stream {
    struct vmibus *bus;
    struct vmibus_endpoint endpoint;
    uint64_t epoch, token;
    struct vmibus_mapped_buffer *buffer;
    uint8_t *data;              /* the buffer's */
    size_t answered;
    int error;
    bool payload;
    uint64_t gva;
    uint32_t flags;
};

/* The floor: the same octets to as many places. */
struct raw {
    int file;
    uint64_t offset;
    const uint8_t *data;
};

/* A sample is the time for all, divided by their number: with several under way one alone has none. */
static void fill_samples(uint64_t *samples, size_t n, uint64_t begun) {
    uint64_t each = (bench_now() - begun) / n;

    for (size_t i = 0; i < n; i++)
        samples[i] = each;
}

static int sample_raw(void *context, uint64_t *samples, size_t n) {
    const struct raw *raw = context;
    uint64_t begun = bench_now();

    for (size_t i = 0; i < n; i++)
        if (pwrite(raw->file, raw->data + i % SOURCES * MIB, MIB, (off_t)(raw->offset + i % DEPTH * MIB)) != (ssize_t)MIB)
            return -EIO;
    fill_samples(samples, n, begun);
    return 0;
}

static void answered(struct vmibus *bus, struct vmibus_message *message, void *userdata) {
    struct stream *stream = userdata;

    (void)bus;
    if (message->frame.header.kind != VMIBUS_KIND_ACK || message->frame.ack.command != VMIBUS_KIND_CMD_MEMWRITE)
        return;
    stream->answered++;
    if (message->frame.ack.error && !stream->error) {
        fprintf(stderr, "throughput: error %u reason %u value 0x%lx\n", message->frame.ack.error, message->frame.ack.reason,
                message->frame.ack.value);
        stream->error = -EREMOTEIO;
    }
}

static int send_one(struct stream *stream, size_t index) {
    size_t place = index % DEPTH;
    struct vmibus_memwrite_source source = {.offset = index % SOURCES * MIB};
    struct vmibus_frame frame;

    vmibus_command_init(&frame, VMIBUS_KIND_CMD_MEMWRITE, &stream->endpoint);
    frame.cmd_memwrite.gva = stream->gva + place * MIB;
    frame.cmd_memwrite.len = MIB;
    frame.cmd_memwrite.token = stream->token;
    frame.cmd_memwrite.epoch = stream->epoch;
    frame.cmd_memwrite.flags = stream->flags;
    frame.cmd_memwrite.flags |= stream->payload ? VMIBUS_MEMWRITE_SRC_PAYLOAD : VMIBUS_MEMWRITE_SRC_BUFFER;
    if (!stream->payload) {
        source.buffer = stream->buffer->number;
        memcpy(frame.cmd_memwrite.data, &source, sizeof(source));
    }
    if (stream->payload)
        return vmibus_send(stream->bus, &frame, stream->data + index % SOURCES * MIB, MIB, NULL);
    return vmibus_send(stream->bus, &frame, NULL, 0, NULL);
}

static int sample_stream(void *context, uint64_t *samples, size_t n) {
    struct stream *stream = context;
    uint64_t begun = bench_now();
    size_t sent = 0;
    int r = 0;

    vmibus_set_handler(stream->bus, answered, stream);
    stream->answered = 0;
    while (stream->answered < n && !r) {
        while (!r && sent < n && sent - stream->answered < DEPTH) {
            r = send_one(stream, sent);
            sent += r == 0;
        }
        if (r == -ENOBUFS)
            r = 0;
        if (!r)
            r = vmibus_wait(stream->bus, 10000);
        if (!r)
            r = stream->error;
    }
    fill_samples(samples, n, begun);
    return r > 0 ? -EREMOTEIO : r;
}

static int open_stream(struct stream *stream) {
    int r = vmibus_lease_acquire(stream->bus, &stream->endpoint, VMIBUS_LEASE_CLASS_MEMWRITE, VMIBUS_LEASE_MODE_FAIL, 0,
                                 &stream->token, NULL);

    if (r == 0)
        r = vmibus_buffer_new(stream->bus, SOURCES * MIB, &stream->buffer, NULL);
    if (r == 0) {
        stream->data = stream->buffer->octets;
        memset(stream->data, 0x5a, SOURCES * MIB);
    }
    return r > 0 ? -EACCES : r;
}

static size_t blocks_of(const struct bench *bench) {
    return bench->quick ? 11 : 31;
}

static size_t samples_of(const struct bench *bench) {
    return bench->quick ? 64 : 200;
}

/* --- shared RAM, through a daemon ----------------------------------------------------------------- */

static int compare_shared(struct bench *bench, const char *mode, struct stream *buffered, struct raw *raw) {
    struct stream payload = *buffered;
    struct bench_lane lanes[] = {
        {.name = "pwrite", .sample = sample_raw, .context = raw},
        {.name = "from a buffer", .sample = sample_stream, .context = buffered},
        {.name = "as a payload", .sample = sample_stream, .context = &payload},
    };
    int r;

    payload.payload = true;
    r = bench_interleave(lanes, 3, blocks_of(bench), samples_of(bench));
    if (r == 0) {
        bench_tell(bench, 100 / bench_ratio(&lanes[1], &lanes[0], false), "%", BENCH_AT_LEAST, 60,
                   "%s, 1 MiB from a buffer, of raw pwrite", mode);
        bench_tell(bench, 100 / bench_ratio(&lanes[2], &lanes[0], false), "%", BENCH_AT_LEAST, 30,
                   "%s, 1 MiB as a payload, of raw pwrite", mode);
        bench_tell_lanes(bench, mode, lanes, 3);
    }
    bench_lanes_free(lanes, 3);
    return r;
}

static int measure_shared(struct bench *bench) {
    const char *const arguments[] = {"--stub=1", NULL};
    struct raw raw = {.file = memfd_create("floor", MFD_CLOEXEC)};
    struct stream stream = {.gva = stub_direct_gva(0) + FIRST};
    struct instance instance = {};
    int r = bench_place(false);

    if (r == 0 && (raw.file < 0 || ftruncate(raw.file, DEPTH * MIB) < 0))
        r = -errno;
    if (r == 0)
        r = instance_start(&instance, bench->build, NULL, arguments);
    if (r == 0)
        r = instance_connect(&instance, &stream.bus);
    if (r == 0)
        r = instance_find(stream.bus, "stub-0", &stream.endpoint, &stream.epoch);
    if (r == 0)
        r = open_stream(&stream);
    raw.data = stream.data;
    if (r == 0)
        r = compare_shared(bench, "shared", &stream, &raw);
    vmibus_buffer_free(stream.buffer);
    vmibus_free(stream.bus);
    instance_stop(&instance);
    if (raw.file >= 0)
        close(raw.file);
    return r;
}

/* --- private RAM, by a bus in this process --------------------------------------------------------- */

static int compare_private(struct bench *bench, struct stream *stream, struct raw *raw) {
    struct bench_lane lanes[] = {
        {.name = "/proc/PID/mem", .sample = sample_raw, .context = raw},
        {.name = "from a buffer", .sample = sample_stream, .context = stream},
    };
    int r = bench_interleave(lanes, 2, blocks_of(bench), samples_of(bench));

    if (r == 0) {
        bench_tell(bench, 100 / bench_ratio(&lanes[1], &lanes[0], false), "%", BENCH_AT_LEAST, 60,
                   "private, 1 MiB from a buffer, of raw /proc/PID/mem");
        bench_tell_lanes(bench, "private", lanes, 2);
    }
    bench_lanes_free(lanes, 2);
    return r;
}

static int measure_private(struct bench *bench) {
    struct stream stream = {.flags = VMIBUS_MEMWRITE_PHYSICAL, .gva = FIRST};
    struct private_vm vm;
    struct raw raw = {};
    int r = private_vm_start(&vm);

    if (r == 0) {
        stream.bus = vm.bus;
        stream.endpoint = vm.endpoint;
        stream.epoch = vm.epoch;
        r = open_stream(&stream);
    }
    raw = (struct raw){.file = vm.memory, .offset = vm.ram + FIRST, .data = stream.data};
    if (r == 0)
        r = compare_private(bench, &stream, &raw);
    vmibus_buffer_free(stream.buffer);
    private_vm_stop(&vm);
    return r;
}

int main(int argc, char **argv) {
    struct bench bench;
    int r = bench_begin(&bench, "throughput", argc, argv);

    if (r)
        return r;
    r = measure_shared(&bench);
    if (r == 0)
        r = measure_private(&bench);
    return bench_end(&bench, r);
}
