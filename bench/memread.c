/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * MEM_READ into a buffer, of a synthetic VM, against the raw ping-pong plus a raw pread of as many octets
 * of RAM of the same kind into shared memory.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <vmibus/client.h>

#include "bench.h"
#include "instance.h"
#include "pingpong.h"
#include "stub/stub_map.h"
#include "syscalls.h"

#define COUNTED 1000

struct reader {
    struct vmibus *bus;
    struct vmibus_endpoint endpoint;
    struct vmibus_mapped_buffer *buffer;
    struct vmibus_read read;
};

static int reader_open(struct reader *reader, const struct instance *instance, uint32_t len) {
    int r = instance_connect(instance, &reader->bus);

    if (r == 0)
        r = instance_find(reader->bus, "stub-0", &reader->endpoint, &reader->read.epoch);
    if (r == 0)
        r = vmibus_buffer_new(reader->bus, len, &reader->buffer, NULL);
    reader->read.cr3 = stub_process_cr3(0, 0);
    reader->read.gva = STUB_BUFFER_GVA;
    reader->read.buffer = reader->buffer;
    reader->read.len = len;
    return r > 0 ? -EACCES : r;
}

static void reader_close(struct reader *reader) {
    vmibus_buffer_free(reader->buffer);
    reader->bus = vmibus_free(reader->bus);
}

static int sample_read(void *context, uint64_t *samples, size_t n) {
    const struct reader *reader = context;

    for (size_t i = 0; i < n; i++) {
        uint64_t begun = bench_now();
        struct vmibus_message reply;
        int r = vmibus_read(reader->bus, &reader->endpoint, &reader->read, &reply);

        samples[i] = bench_now() - begun;
        if (r > 0)
            fprintf(stderr, "memread: error %d reason %u value 0x%lx\n", r, reply.frame.ack.reason, reply.frame.ack.value);
        if (r)
            return r > 0 ? -EREMOTEIO : r;
    }
    return 0;
}

static void count_calls(struct bench *bench, const struct instance *instance, struct reader *reader) {
    static uint64_t samples[COUNTED];
    struct syscalls daemon;
    uint64_t before;
    int r = syscalls_begin(&daemon, instance->pid);

    if (r < 0) {
        bench_skip(bench, "system calls per read", strerror(-r));
        return;
    }
    before = syscalls_read(&daemon);
    if (sample_read(reader, samples, COUNTED) == 0)
        bench_tell(bench, (double)(syscalls_read(&daemon) - before) / COUNTED, "", BENCH_TOLD, 0,
                   "system calls per read, vmibusd");
    syscalls_end(&daemon);
}

/* RAM of the same kind, with data where the VM has some. */
static int make_file(size_t len) {
    char *octets = malloc(len);
    int fd = memfd_create("floor", MFD_CLOEXEC);

    if (octets)
        memset(octets, 'r', len);
    if (!octets || fd < 0 || pwrite(fd, octets, len, 0) != (ssize_t)len) {
        if (fd >= 0)
            close(fd);
        fd = -ENOMEM;
    }
    free(octets);
    return fd;
}

static int compare(struct bench *bench, const struct instance *instance, bool pinned, uint32_t len, int file) {
    struct pingpong floor = {};
    struct reader reader = {};
    struct bench_lane lanes[] = {
        {.name = "ping-pong and pread", .sample = pingpong_sample, .context = &floor},
        {.name = "MEM_READ", .sample = sample_read, .context = &reader},
    };
    enum bench_relation at_most = pinned && len == 4096 ? BENCH_AT_MOST : BENCH_TOLD;
    char mode[64];
    int r = reader_open(&reader, instance, len);

    snprintf(mode, sizeof(mode), "%s, %u KiB", pinned ? "pinned" : "unpinned", len / 1024);
    if (r == 0)
        r = pingpong_start_reading(&floor, file, 0, len);
    if (r == 0)
        r = bench_interleave(lanes, 2, bench->quick ? 21 : 61, bench->quick ? 1000 : 2000);
    if (r == 0) {
        bench_tell(bench, bench_ratio(&lanes[1], &lanes[0], false), "x", at_most, 1.6, "%s, read / (ping-pong and pread) p50",
                   mode);
        bench_tell(bench, bench_ratio(&lanes[1], &lanes[0], true), "x", BENCH_TOLD, 0, "%s, read / (ping-pong and pread) p99",
                   mode);
        bench_tell_lanes(bench, mode, lanes, 2);
    }
    if (r == 0 && at_most == BENCH_AT_MOST)
        count_calls(bench, instance, &reader);
    bench_lanes_free(lanes, 2);
    pingpong_stop(&floor);
    reader_close(&reader);
    return r;
}

static int measure(struct bench *bench, bool pinned) {
    static const uint32_t lens[] = {4096, STUB_BUFFER_SIZE};
    const char *const arguments[] = {"--stub=1", NULL};
    struct instance instance = {};
    int r = bench_place(pinned);

    if (r == 0)
        r = instance_start(&instance, bench->build, NULL, arguments);
    for (size_t i = 0; r == 0 && i < sizeof(lens) / sizeof(lens[0]); i++) {
        int file = make_file(lens[i]);

        r = file < 0 ? file : compare(bench, &instance, pinned, lens[i], file);
        if (file >= 0)
            close(file);
    }
    instance_stop(&instance);
    return r;
}

int main(int argc, char **argv) {
    return bench_pinned_and_not("memread", argc, argv, measure);
}
