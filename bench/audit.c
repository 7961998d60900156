/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What recording costs a write of 8 octets into a synthetic VM: audit = normal, with digests and without, and audit = strict,
 * against audit = off, all in one run.  Strict is the disk: a write and fdatasync(2) of as many octets there is its floor.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <vmibus/client.h>

#include "bench.h"
#include "instance.h"
#include "stub/stub_map.h"

#define RECORD_SIZE 352 /* of the chain */

enum way {
    WAY_OFF,
    WAY_BARE,
    WAY_NORMAL,
    WAY_STRICT,
    N_WAYS,
};

static const struct {
    const char *name;
    const char *config;
} ways[N_WAYS] = {
    [WAY_OFF] = {"off", "audit = off\n"},
    [WAY_BARE] = {"normal, no digests", "audit = normal\naudit-digest-bytes = 0\n"},
    [WAY_NORMAL] = {"normal", "audit = normal\n"},
    [WAY_STRICT] = {"strict", "audit = strict\n"},
};

struct writer {
    struct instance instance;
    char config[64];
    struct vmibus *bus;
    struct vmibus_endpoint endpoint;
    struct vmibus_write write;
    uint64_t octets;
};

static int writer_open(struct writer *writer, const struct bench *bench, enum way way) {
    const char *const arguments[] = {"--config", writer->config, "--stub=1", NULL};
    int fd, r;

    strcpy(writer->config, "/tmp/vmibus-bench-audit.XXXXXX");
    fd = mkstemp(writer->config);
    if (fd < 0)
        return -errno;
    dprintf(fd, "[daemon]\naudit-journal = no\n%s", ways[way].config);
    close(fd);
    r = instance_start(&writer->instance, bench->build, NULL, arguments);
    if (r == 0)
        r = instance_connect(&writer->instance, &writer->bus);
    if (r == 0)
        r = instance_find(writer->bus, "stub-0", &writer->endpoint, &writer->write.epoch);
    if (r == 0)
        r = vmibus_lease_acquire(writer->bus, &writer->endpoint, VMIBUS_LEASE_CLASS_MEMWRITE, VMIBUS_LEASE_MODE_FAIL, 0,
                           &writer->write.token, NULL);
    writer->write.cr3 = stub_process_cr3(0, 0);
    writer->write.gva = STUB_BUFFER_GVA;
    writer->write.data = &writer->octets;
    writer->write.len = sizeof(writer->octets);
    return r > 0 ? -EACCES : r;
}

static void writer_close(struct writer *writer) {
    writer->bus = vmibus_free(writer->bus);
    instance_stop(&writer->instance);
    if (*writer->config)
        unlink(writer->config);
}

static int sample_write(void *context, uint64_t *samples, size_t n) {
    struct writer *writer = context;

    for (size_t i = 0; i < n; i++) {
        uint64_t begun = bench_now();
        struct vmibus_message reply;
        int r = vmibus_memwrite(writer->bus, &writer->endpoint, &writer->write, &reply);

        samples[i] = bench_now() - begun;
        if (r)
            return r > 0 ? -EREMOTEIO : r;
    }
    return 0;
}

/* The disk alone. */
static int sample_disk(void *context, uint64_t *samples, size_t n) {
    static const char record[RECORD_SIZE];
    const int *fd = context;

    for (size_t i = 0; i < n; i++) {
        uint64_t begun = bench_now();

        if (write(*fd, record, sizeof(record)) != sizeof(record) || fdatasync(*fd) < 0)
            return -errno;
        samples[i] = bench_now() - begun;
    }
    return 0;
}

static int compare_memory(struct bench *bench, struct writer *writers) {
    struct bench_lane lanes[WAY_STRICT];
    int r;

    for (int i = 0; i < WAY_STRICT; i++)
        lanes[i] = (struct bench_lane){.name = ways[i].name, .sample = sample_write, .context = &writers[i]};
    r = bench_interleave(lanes, WAY_STRICT, bench->quick ? 21 : 61, 1000);
    if (r == 0) {
        bench_tell(bench, bench_ratio(&lanes[WAY_BARE], &lanes[WAY_OFF], false), "x", BENCH_TOLD, 0,
                   "normal without digests / off p50");
        bench_tell(bench, bench_ratio(&lanes[WAY_NORMAL], &lanes[WAY_OFF], false), "x", BENCH_TOLD, 0, "normal / off p50");
        bench_tell_lanes(bench, "write of 8 octets,", lanes, WAY_STRICT);
    }
    bench_lanes_free(lanes, WAY_STRICT);
    return r;
}

static int compare_disk(struct bench *bench, struct writer *strict, int fd) {
    struct bench_lane lanes[] = {
        {.name = "write and fdatasync", .sample = sample_disk, .context = &fd},
        {.name = "strict", .sample = sample_write, .context = strict},
    };
    int r = bench_interleave(lanes, 2, bench->quick ? 5 : 21, 50);

    if (r == 0) {
        bench_tell(bench, bench_ratio(&lanes[1], &lanes[0], false), "x", BENCH_TOLD, 0, "strict / (write and fdatasync) p50");
        bench_tell_lanes(bench, "write of 8 octets,", lanes, 2);
    }
    bench_lanes_free(lanes, 2);
    return r;
}

static int measure(struct bench *bench) {
    struct writer writers[N_WAYS] = {};
    char path[] = "/tmp/vmibus-bench-disk.XXXXXX";
    int fd = mkstemp(path), r = fd < 0 ? -errno : bench_place(true);

    for (int i = 0; r == 0 && i < N_WAYS; i++)
        r = writer_open(&writers[i], bench, (enum way)i);
    if (r == 0)
        r = compare_memory(bench, writers);
    if (r == 0)
        r = compare_disk(bench, &writers[WAY_STRICT], fd);
    for (int i = 0; i < N_WAYS; i++)
        writer_close(&writers[i]);
    if (fd >= 0) {
        close(fd);
        unlink(path);
    }
    return r;
}

int main(int argc, char **argv) {
    struct bench bench;
    int r = bench_begin(&bench, "audit", argc, argv);

    return r ? r : bench_end(&bench, measure(&bench));
}
