/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a memory write costs inside the authority: all gates, the page walk, the canary, the write and
 * the audit, against the bare pwrite(2) that is its floor.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bench.h"
#include "memory/authority.h"
#include "memory/opener.h"
#include "util/fds.h"

#define RAM_SIZE (UINT64_C(8) << 20)
#define PGD UINT64_C(0x1000)
#define NOTE UINT64_C(0x10000)
#define DATA UINT64_C(0x200000)
#define KERNEL_GVA UINT64_C(0xffffffff82000000)
#define DATA_GVA UINT64_C(0xffffffff83000000)
#define DATA_PAGES 512u
#define SESSION "0123456789abcde"
#define MEMORY (1 << 20) /* for what the clients hold */

/* A guest's RAM with 4 or 5 levels of tables, and an authority over it. */
struct rig {
    uint8_t *ram;
    int fd;
    uint64_t next_table;
    uint8_t levels;
    struct loop *loop;
    struct ledger ledger;
    struct policy *policy;
    struct audit audit;
    int audit_fd;
    struct account *account;
    struct arena arena;
    struct pool regions;
    struct region region;
    struct authority *authority;
    struct authority_client *sensor;
    struct authority_client *control;
    uint64_t epoch;
    uint16_t error;             /* of the last answer */
    struct vmibus_frame write;
    size_t next;
};

static void map_page(struct rig *rig, uint64_t gva, uint64_t gpa) {
    uint64_t *table = (uint64_t *)(void *)(rig->ram + PGD);

    for (unsigned level = rig->levels; level > 1; level--) {
        uint64_t *entry = &table[gva >> (12 + 9 * (level - 1)) & 511];

        if (!*entry) {
            *entry = rig->next_table | 0x27;
            rig->next_table += 4096;
        }
        table = (uint64_t *)(void *)(rig->ram + (*entry & ~UINT64_C(0xfff)));
    }
    table[gva >> 12 & 511] = gpa | 0x63;
}

static int build_guest(struct rig *rig, bool sealed) {
    rig->fd = memfd_create("ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (rig->fd < 0 || ftruncate(rig->fd, RAM_SIZE) < 0 ||
        (sealed && fcntl(rig->fd, F_ADD_SEALS, F_SEAL_SHRINK) < 0))
        return -EIO;
    rig->ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, rig->fd, 0);
    if (rig->ram == MAP_FAILED)
        return -EIO;
    rig->next_table = 0x20000;
    sprintf((char *)rig->ram + NOTE, "OSRELEASE=6.1.0\nPAGESIZE=4096\nSYMBOL(swapper_pg_dir)=%llx\n",
            (unsigned long long)KERNEL_GVA);
    map_page(rig, KERNEL_GVA, PGD);
    for (uint64_t i = 0; i < DATA_PAGES; i++)
        map_page(rig, DATA_GVA + i * 4096, DATA + i * 4096);
    memset(rig->ram + DATA, 1, DATA_PAGES * 4096);
    return 0;
}

static void on_link(void *context, const struct vmibus_frame *frame, const void *tail) {
    struct rig *rig = context;

    (void)tail;
    if (frame->header.kind == VMIBUS_KIND_MEMCTX)
        rig->epoch = frame->memctx.epoch;
}

static void on_reply(void *context, const struct vmibus_frame *frame, const void *tail,
                     const int *fds) {
    struct rig *rig = context;

    (void)tail;
    (void)fds;
    rig->error = frame->ack.error;
}

static const struct authority_client_ops client_ops = {.reply = on_reply};

static int submit(struct rig *rig, struct authority_client *client, struct vmibus_frame *frame,
                  const void *tail) {
    frame->header.slot = 1;
    frame->header.generation = 1;
    authority_client_submit(client, frame, tail, &rig->fd, bench_now());
    return rig->error;
}

static int build_authority(struct rig *rig) {
    const struct principal principal = {.uid = geteuid()};
    struct authority_options options = {
        .ledger = &rig->ledger,
        .audit = &rig->audit,
        .opener = opener_local(),
        .incarnation = 1,
        .n_endpoints = 4,
        .link = on_link,
        .link_context = rig,
    };

    if (loop_new(&options.loop) < 0 || policy_new(&rig->policy) < 0)
        return -EIO;
    rig->loop = options.loop;
    options.policy = rig->policy;
    ledger_init(&rig->ledger, rig->policy->limits_total);
    rig->audit_fd = memfd_create("audit", MFD_CLOEXEC);
    if (audit_init(&rig->audit, rig->audit_fd, 65536, 1) < 0 ||
        ledger_ref_account(&rig->ledger, principal.uid, rig->policy->limits, &rig->account) < 0 ||
        authority_new(&rig->authority, &options) < 0 ||
        arena_init(&rig->arena, MEMORY) < 0 || region_pool_init(&rig->regions, &rig->arena, MEMORY) < 0)
        return -EIO;
    region_init(&rig->region, &rig->regions, rig->account);
    if (authority_client_new(&rig->sensor, rig->authority, (const uint8_t *)SESSION, &principal, rig->account, &rig->region,
                             VMIBUS_ROLE_SENSOR, &client_ops, rig) ||
        authority_client_new(&rig->control, rig->authority, (const uint8_t *)SESSION, &principal, rig->account, &rig->region,
                             VMIBUS_ROLE_CONTROL, &client_ops, rig))
        return -EIO;
    return 0;
}

static int prove(struct rig *rig) {
    struct vmibus_layout_range range = {.len = RAM_SIZE};
    struct vmibus_frame frame = {.header = {.kind = VMIBUS_KIND_ENDPOINT_OPENED, .slot = 1,
                                            .generation = 1, .tail_length = 2}};

    authority_hear_link(rig->authority, &frame, "vm");
    frame = (struct vmibus_frame){.header = {.kind = VMIBUS_KIND_MEM_LAYOUT, .fd_count = 1,
                                             .tail_length = sizeof(range)}};
    frame.mem_layout.range_count = 1;
    if (submit(rig, rig->sensor, &frame, &range))
        return -EIO;
    frame = (struct vmibus_frame){.header = {.kind = VMIBUS_KIND_MEM_ROOT}};
    frame.mem_root.epoch = rig->epoch;
    frame.mem_root.cr3 = PGD;
    frame.mem_root.levels = rig->levels;
    frame.mem_root.note = NOTE;
    frame.mem_root.note_len = (uint32_t)strlen((char *)rig->ram + NOTE);
    frame.mem_root.probe_gva = KERNEL_GVA;
    if (submit(rig, rig->sensor, &frame, NULL))
        return -EIO;
    frame = (struct vmibus_frame){.header = {.kind = VMIBUS_KIND_FENCE_ISSUE, .slot = 1,
                                             .generation = 1}};
    memcpy(frame.fence_issue.session, SESSION, 16);
    frame.fence_issue.token = 1;
    frame.fence_issue.uid = geteuid();
    authority_hear_link(rig->authority, &frame, NULL);
    rig->write = (struct vmibus_frame){.header = {.kind = VMIBUS_KIND_CMD_MEMWRITE, .slot = 1,
                                                  .generation = 1}};
    rig->write.cmd_memwrite.len = 8;
    rig->write.cmd_memwrite.token = 1;
    rig->write.cmd_memwrite.epoch = rig->epoch;
    return 0;
}

static void rig_free(struct rig *rig) {
    authority_client_free(rig->sensor);
    authority_client_free(rig->control);
    authority_free(rig->authority);
    region_deinit(&rig->region);
    pool_deinit(&rig->regions);
    arena_deinit(&rig->arena);
    account_unref(rig->account);
    ledger_deinit(&rig->ledger);
    audit_deinit(&rig->audit);
    fd_close(rig->audit_fd);
    policy_free(rig->policy);
    loop_free(rig->loop);
    munmap(rig->ram, RAM_SIZE);
    fd_close(rig->fd);
}

/* Pages in turn, so that neither lane lives in one cache line. */
static uint64_t next_offset(struct rig *rig) {
    return (uint64_t)(rig->next++ % DATA_PAGES) * 4096 + 64;
}

static int sample_bare(void *context, uint64_t *samples, size_t n) {
    struct rig *rig = context;

    for (size_t i = 0; i < n; i++) {
        off_t offset = (off_t)(DATA + next_offset(rig));
        uint64_t begin = bench_now();

        if (pwrite(rig->fd, &begin, sizeof(begin), offset) != sizeof(begin))
            return -EIO;
        samples[i] = bench_now() - begin;
    }
    return 0;
}

static int sample_authority(void *context, uint64_t *samples, size_t n) {
    struct rig *rig = context;

    for (size_t i = 0; i < n; i++) {
        uint64_t begin;

        rig->write.cmd_memwrite.gva = DATA_GVA + next_offset(rig);
        begin = bench_now();
        authority_client_submit(rig->control, &rig->write, NULL, NULL, begin);
        samples[i] = bench_now() - begin;
        if (rig->error)
            return -EIO;
    }
    return 0;
}

static int measure(struct bench *bench, const char *mode, bool sealed, uint8_t levels) {
    struct rig rig = {.fd = -1, .levels = levels};
    struct bench_lane lanes[] = {
        {.name = "pwrite", .sample = sample_bare, .context = &rig},
        {.name = "authority", .sample = sample_authority, .context = &rig},
    };
    int r;

    if (build_guest(&rig, sealed) < 0 || build_authority(&rig) < 0 || prove(&rig) < 0)
        return -EIO;
    r = bench_interleave(lanes, 2, bench->quick ? 5 : 21, bench->quick ? 2000 : 20000);
    if (r == 0)
        bench_tell_lanes(bench, mode, lanes, 2);
    bench_lanes_free(lanes, 2);
    rig_free(&rig);
    return r;
}

int main(int argc, char **argv) {
    struct bench bench = {};
    int r = bench_begin(&bench, "memory", argc, argv);

    if (r)
        return r;
    r = bench_place(true);
    if (r == 0)
        r = measure(&bench, "sealed, 4 levels", true, 4);
    if (r == 0)
        r = measure(&bench, "sealed, 5 levels", true, 5);
    if (r == 0)
        r = measure(&bench, "unsealed, 4 levels", false, 4);
    return bench_end(&bench, r);
}
