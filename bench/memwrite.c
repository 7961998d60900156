/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An 8-octet CMD_MEMWRITE, against the raw ping-pong plus a raw pwrite of 8 octets into RAM of the same
 * kind.  First into a synthetic VM; with --qemu, into a variable of a live guest's kernel, which lies in
 * the very file that the floor writes to.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <vmibus/client.h>

#include "bed/bed.h"
#include "bench.h"
#include "instance.h"
#include "pingpong.h"
#include "stub/stub_map.h"
#include "syscalls.h"

#define COUNTED 1000
#define BOOT_MS 120000

/* Where to write, and what holds it. */
struct place {
    const char *name;   /* of the endpoint */
    uint64_t cr3;
    uint64_t gva;
    int file;           /* for the floor */
    off_t offset;
};

struct writer {
    struct vmibus *bus;
    struct vmibus_endpoint endpoint;
    struct vmibus_write write;
    uint64_t data;
};

static int writer_open(struct writer *writer, const struct instance *instance, const struct place *place) {
    int r = instance_connect(instance, &writer->bus);

    if (r == 0)
        r = instance_find(writer->bus, place->name, &writer->endpoint, &writer->write.epoch);
    if (r == 0)
        r = vmibus_lease_acquire(writer->bus, &writer->endpoint, VMIBUS_LEASE_CLASS_MEMWRITE, VMIBUS_LEASE_MODE_FAIL, 0,
                                 &writer->write.token, NULL);
    if (r == 0 && pread(place->file, &writer->data, sizeof(writer->data), place->offset) != sizeof(writer->data))
        r = -EIO;
    writer->write.cr3 = place->cr3;
    writer->write.gva = place->gva;
    writer->write.data = &writer->data;
    writer->write.len = sizeof(writer->data);
    return r > 0 ? -EACCES : r;
}

static int sample_write(void *context, uint64_t *samples, size_t n) {
    struct writer *writer = context;

    for (size_t i = 0; i < n; i++) {
        uint64_t begun = bench_now();
        struct vmibus_message reply;
        int r = vmibus_memwrite(writer->bus, &writer->endpoint, &writer->write, &reply);

        samples[i] = bench_now() - begun;
        if (r > 0)
            fprintf(stderr, "memwrite: error %d reason %u value 0x%lx\n", r, reply.frame.ack.reason, reply.frame.ack.value);
        if (r)
            return r > 0 ? -EREMOTEIO : r;
    }
    return 0;
}

static void count_calls(struct bench *bench, const char *where, const struct instance *instance, struct writer *writer) {
    static uint64_t samples[COUNTED];
    struct syscalls daemon;
    uint64_t before;
    int r = syscalls_begin(&daemon, instance->pid);

    if (r < 0) {
        bench_skip(bench, "system calls per write", strerror(-r));
        return;
    }
    before = syscalls_read(&daemon);
    if (sample_write(writer, samples, COUNTED) == 0)
        bench_tell(bench, (double)(syscalls_read(&daemon) - before) / COUNTED, "", BENCH_TOLD, 0,
                   "%s, system calls per write, vmibusd", where);
    syscalls_end(&daemon);
}

static int compare(struct bench *bench, const char *where, bool pinned, const struct instance *instance,
                   const struct place *place) {
    struct pingpong floor = {}, bare = {};
    struct writer writer = {};
    struct bench_lane lanes[] = {
        {.name = "ping-pong and pwrite", .sample = pingpong_sample, .context = &floor},
        {.name = "CMD_MEMWRITE", .sample = sample_write, .context = &writer},
        {.name = "ping-pong", .sample = pingpong_sample, .context = &bare},
    };
    char mode[64];
    int r = writer_open(&writer, instance, place);

    snprintf(mode, sizeof(mode), "%s, %s", pinned ? "pinned" : "unpinned", where);
    if (r == 0)
        r = pingpong_start(&floor, place->file, place->offset);
    if (r == 0)
        r = pingpong_start(&bare, -1, 0);
    if (r == 0)
        r = bench_interleave(lanes, 3, bench->quick ? 21 : 61, bench->quick ? 1000 : 2000);
    if (r == 0) {
        bench_tell(bench, bench_ratio(&lanes[1], &lanes[0], false), "x", pinned ? BENCH_AT_MOST : BENCH_TOLD, 1.3,
                   "%s, write / (ping-pong and pwrite) p50", mode);
        bench_tell(bench, bench_ratio(&lanes[1], &lanes[0], true), "x", BENCH_TOLD, 0, "%s, write / (ping-pong and pwrite) p99",
                   mode);
        bench_tell_lanes(bench, mode, lanes, 3);
    }
    if (r == 0 && pinned)
        count_calls(bench, where, instance, &writer);
    bench_lanes_free(lanes, 3);
    pingpong_stop(&floor);
    pingpong_stop(&bare);
    vmibus_free(writer.bus);
    return r;
}

/* --- a synthetic VM -------------------------------------------------------------------------------- */

static int measure_stub(struct bench *bench, bool pinned) {
    const char *const arguments[] = {"--stub=1", NULL};
    struct place place = {
        .name = "stub-0",
        .cr3 = stub_process_cr3(0, 0),
        .gva = STUB_BUFFER_GVA,
        .file = memfd_create("floor", MFD_CLOEXEC),
        .offset = (off_t)stub_buffer_gpa(0, 0, 0, 0),
    };
    struct instance instance = {};
    int r = bench_place(pinned);

    if (r == 0 && (place.file < 0 || ftruncate(place.file, (off_t)STUB_RAM_DEFAULT) < 0 ||
                   pwrite(place.file, "floor...", 8, place.offset) != 8))
        r = -errno;
    if (r == 0)
        r = instance_start(&instance, bench->build, NULL, arguments);
    if (r == 0)
        r = compare(bench, "stub", pinned, &instance, &place);
    instance_stop(&instance);
    if (place.file >= 0)
        close(place.file);
    return r;
}

/* --- a live guest ---------------------------------------------------------------------------------- */

/* The guest's RAM: a memfd among QEMU's descriptors. Found by its name, which QEMU gives it. */
static int open_guest_ram(pid_t pid) {
    char path[64], target[256];

    for (int fd = 3; fd < 256; fd++) {
        ssize_t n;

        snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)pid, fd);
        n = readlink(path, target, sizeof(target) - 1);
        if (n <= 0)
            continue;
        target[n] = '\0';
        if (strstr(target, "memfd:"))
            return open(path, O_RDWR | O_CLOEXEC);
    }
    return -ENOENT;
}

/* QEMU's own translation. It goes by the CR3 of the moment, so the guest is stopped for it; every CR3 maps the kernel. */
static int translate(struct bed *bed, uint64_t gva, uint64_t *gpa) {
    char command[64], *text = NULL;
    int r = bed_qmp(bed, "stop", NULL, NULL);

    snprintf(command, sizeof(command), "gva2gpa 0x%lx", gva);
    if (r == 0)
        r = bed_hmp(bed, command, &text);
    if (r == 0 && sscanf(text, "gpa: %lx", gpa) != 1)
        r = -ENXIO;
    free(text);
    return r < 0 ? r : bed_qmp(bed, "cont", NULL, NULL);
}

/* The kernel's variable panic_timeout, and whatever shares its eight octets: what is written is what is there. */
static int find_variable(struct bed *bed, struct place *place) {
    uint64_t gpa = 0;
    char *reply = NULL;
    int r = bed_wait_serial(bed, "READY", BOOT_MS, NULL);

    if (r == 0)
        r = bed_ask(bed, "kallsyms panic_timeout", BOOT_MS, &reply);
    if (r == 0)
        r = bed_field(reply, "addr", &place->gva);
    free(reply);
    place->gva &= ~UINT64_C(7);
    if (r == 0)
        r = translate(bed, place->gva, &gpa);
    place->offset = (off_t)gpa;
    return r;
}

/* The guest's vCPU never rests: it is kept off the CPU that the pinned measurement is made on. */
static int keep_off(pid_t pid) {
    cpu_set_t all, others;
    char path[64];
    struct dirent *entry;
    DIR *tasks;
    int last = -1;

    if (sched_getaffinity(0, sizeof(all), &all) < 0)
        return -errno;
    others = all;
    for (int i = 0; i < CPU_SETSIZE; i++)
        if (CPU_ISSET(i, &all))
            last = i;
    CPU_CLR(last, &others);
    snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    tasks = opendir(path);
    if (!tasks)
        return -errno;
    while (CPU_COUNT(&others) && (entry = readdir(tasks)))
        if (*entry->d_name != '.')
            (void)sched_setaffinity(atoi(entry->d_name), sizeof(others), &others);
    closedir(tasks);
    return 0;
}

static int measure_guest(struct bench *bench) {
    struct place place = {.name = "guest", .file = -1};
    const char *reason = "";
    struct instance instance = {};
    struct bed *bed = NULL;
    char argument[PATH_MAX];
    int r;

    if (!bed_available(false, &reason)) {
        bench_skip(bench, "writes into a live guest", reason);
        return 0;
    }
    r = bench_place(false);
    if (r == 0)
        r = bed_start(&bed, NULL);
    if (r == 0)
        r = keep_off(bed->pid);
    if (r == 0)
        r = find_variable(bed, &place);
    if (r < 0)
        fprintf(stderr, "guest: %s\n", bed_error(bed));
    if (r == 0) {
        place.file = open_guest_ram(bed->pid);
        r = place.file < 0 ? place.file : 0;
    }
    for (int pinned = 1; r == 0 && pinned >= 0; pinned--) {
        snprintf(argument, sizeof(argument), "--qmp=guest=%s", bed->qmp);
        r = bench_place(pinned);
        if (r == 0)
            r = instance_start(&instance, bench->build, NULL, (const char *const[]){argument, NULL});
        if (r == 0)
            r = compare(bench, "live guest", pinned, &instance, &place);
        instance_stop(&instance);
    }
    if (place.file >= 0)
        close(place.file);
    bed_stop(bed);
    return r;
}

int main(int argc, char **argv) {
    struct bench bench;
    int r = bench_begin(&bench, "memwrite", argc, argv);

    if (r)
        return r;
    r = measure_stub(&bench, true);
    if (r == 0)
        r = measure_stub(&bench, false);
    if (r == 0 && bench.qemu)
        r = measure_guest(&bench);
    return bench_end(&bench, r);
}
