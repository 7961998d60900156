/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "memory/fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "harness.h"
#include "util/clock.h"
#include "util/fds.h"

#define TABLES_GPA UINT64_C(0x20000)
#define OBJECT_SIZE (RAM_SIZE + ROM_SIZE)
#define ENTRY UINT64_C(0x63) /* present, writable, accessed, dirty */

/* --- the VM ------------------------------------------------------------------------------------ */

const char *vm_shm_path(void) {
    static char path[64];

    snprintf(path, sizeof(path), "/dev/shm/vmibus-test-%d", (int)getpid());
    return path;
}

static int vm_create(enum vm_kind kind) {
    int fd;

    if (kind == VM_SHM)
        fd = open(vm_shm_path(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    else
        fd = memfd_create("ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ftruncate(fd, OBJECT_SIZE), 0);
    if (kind == VM_SHM)
        ck_assert_int_eq(fchmod(fd, 0666), 0);
    if (kind == VM_SEALED)
        ck_assert_int_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), 0);
    return fd;
}

static void vm_build(struct vm *vm) {
    static const char format[] = "OSRELEASE=6.1.0-test\nBUILD-ID=0123456789abcdef\nPAGESIZE=4096\n"
                                 "SYMBOL(swapper_pg_dir)=%" PRIx64 "\nNUMBER(phys_base)=0\n";

    vm->next_table = TABLES_GPA;
    snprintf((char *)vm->ram + NOTE_GPA, PAGE, format, KERNEL_GVA);
    vm_map(vm, KERNEL_GVA, PGD_GPA, ENTRY, 1);
    for (uint64_t at = 0; at < MIB; at += PAGE)
        vm_map(vm, DATA_GVA + at, DATA_GPA + at, ENTRY, 1);
    for (uint64_t i = 0; i < 16; i++)
        vm_map(vm, SCATTER_GVA + i * PAGE, DATA_GPA + 2 * MIB - (i + 1) * PAGE, ENTRY, 1);
    vm_map(vm, READ_ONLY_GVA, DATA_GPA + MIB, ENTRY & ~UINT64_C(2), 1);
    vm_map(vm, OUTSIDE_GVA, OUTSIDE_GPA, ENTRY, 1);
    vm_map(vm, ROM_GVA, ROM_GPA, ENTRY, 1);
    vm_map(vm, RESERVED_GVA, 0x2000, ENTRY | 0x80, 2); /* a large page that is not aligned */
    vm_map(vm, LARGE_GVA, 4 * MIB, ENTRY | 0x80, 2);
}

void vm_init(struct vm *vm, enum vm_kind kind, uint8_t levels) {
    *vm = (struct vm){.fd = kind == VM_PRIVATE ? -1 : vm_create(kind), .levels = levels};
    vm->ram = mmap(NULL, OBJECT_SIZE, PROT_READ | PROT_WRITE,
                   kind == VM_PRIVATE ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED, vm->fd, 0);
    ck_assert_ptr_ne(vm->ram, MAP_FAILED);
    vm->rom = vm->ram + RAM_SIZE;
    vm_build(vm);
}

void vm_deinit(struct vm *vm) {
    if (vm->ram)
        munmap(vm->ram, OBJECT_SIZE);
    fd_close(vm->fd);
    unlink(vm_shm_path());
    *vm = (struct vm){.fd = -1};
}

void vm_map(struct vm *vm, uint64_t gva, uint64_t gpa, uint64_t flags, unsigned level) {
    uint64_t *table = (uint64_t *)(void *)(vm->ram + PGD_GPA);

    for (unsigned at = vm->levels; at > level; at--) {
        uint64_t *entry = &table[gva >> (12 + 9 * (at - 1)) & 511];

        if (!*entry) {
            *entry = vm->next_table | 0x27;
            vm->next_table += PAGE;
        }
        table = (uint64_t *)(void *)(vm->ram + (*entry & UINT64_C(0x000ffffffffff000)));
    }
    table[gva >> (12 + 9 * (level - 1)) & 511] = gpa | flags;
}

void vm_forget(struct vm *vm, uint64_t gpa, uint64_t len) {
    if (vm->fd < 0)
        ck_assert_int_eq(madvise(vm->ram + gpa, len, MADV_DONTNEED), 0);
    else
        ck_assert_int_eq(fallocate(vm->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)gpa, (off_t)len), 0);
}

uint64_t vm_blocks(const struct vm *vm) {
    struct stat st;

    ck_assert_int_eq(fstat(vm->fd, &st), 0);
    return (uint64_t)st.st_blocks;
}

/* --- journals ---------------------------------------------------------------------------------- */

static void journal_add(struct journal *journal, const struct vmibus_frame *frame,
                        const void *tail, const int *fds) {
    uint32_t len = frame->header.tail_length;

    ck_assert_uint_lt(journal->n, FRAMES_MAX);
    journal->frames[journal->n] = *frame;
    /* Who has read them all may begin anew by setting n to 0. */
    free(journal->tails[journal->n]);
    journal->tails[journal->n] = NULL;
    if (len) {
        journal->tails[journal->n] = malloc(len);
        memcpy(journal->tails[journal->n], tail, len);
    }
    journal->n++;
    if (!frame->header.fd_count)
        return;
    fds_close(journal->fds, journal->n_fds);
    journal->n_fds = frame->header.fd_count;
    for (size_t i = 0; i < journal->n_fds; i++)
        journal->fds[i] = fd_dup(fds[i]);
}

static void journal_deinit(struct journal *journal) {
    for (size_t i = 0; i < FRAMES_MAX; i++) {
        free(journal->tails[i]);
        journal->tails[i] = NULL;
    }
    fds_close(journal->fds, journal->n_fds);
    journal->n = journal->n_fds = 0;
}

struct vmibus_frame *last_of(struct journal *journal, enum vmibus_kind kind) {
    for (size_t i = journal->n; i-- > 0;)
        if (journal->frames[i].header.kind == kind)
            return &journal->frames[i];
    return NULL;
}

size_t count_of(const struct journal *journal, enum vmibus_kind kind) {
    size_t n = 0;

    for (size_t i = 0; i < journal->n; i++)
        n += journal->frames[i].header.kind == kind;
    return n;
}

static void hear(void *context, const struct vmibus_frame *frame, const void *tail) {
    struct fixture *fixture = context;

    journal_add(&fixture->link, frame, tail, NULL);
    if (frame->header.kind == VMIBUS_KIND_MEMCTX)
        fixture->epoch = frame->memctx.epoch;
}

static void reply(void *context, const struct vmibus_frame *frame, const void *tail,
                  const int *fds) {
    struct client *client = context;

    if (client->silent)
        return;
    if (frame->header.kind == VMIBUS_KIND_MEM_RETIRED) {
        client->retired = frame->mem_retired.epoch;
        client->n_retired++;
        return;
    }
    journal_add(&client->journal, frame, tail, fds);
}

uint32_t fixture_retire_ms = 600000;
bool fixture_small_writes_on_worker;

static void disconnected(void *context, enum vmibus_reason reason, uint64_t value, uint64_t bound) {
    struct client *client = context;

    ck_assert_int_eq(reason, VMIBUS_REASON_RETIRE_OVERDUE);
    ck_assert_uint_ne(value, 0);
    ck_assert_uint_eq(bound, fixture_retire_ms);
    client->n_disconnected++;
}

/* A sensor in this process cannot be made to go. */
static const struct authority_client_ops local_sensor_ops = {.reply = reply};
static const struct authority_client_ops client_ops = {.reply = reply, .disconnect = disconnected};

/* --- construction ------------------------------------------------------------------------------ */

void client_init(struct client *client, struct fixture *fixture, enum vmibus_role role, uid_t uid,
                 pid_t pid) {
    static uint8_t next_session = 1;

    *client = (struct client){
        .fixture = fixture,
        .session = {next_session++, 0xaa},
        .principal = {.uid = uid, .gid = uid, .pid = pid},
    };
    ck_assert_int_eq(ledger_ref_account(&fixture->ledger, uid, fixture->policy->limits,
                                        &client->account),
                     0);
    region_init(&client->region, &fixture->regions, fixture->memory_account);
    ck_assert_int_eq(authority_client_new(&client->handle, fixture->authority, client->session,
                                          &client->principal, client->account, &client->region, role,
                                          role == VMIBUS_ROLE_SENSOR && pid == 0 ? &local_sensor_ops : &client_ops,
                                          client),
                     0);
}

void client_deinit(struct client *client) {
    client->handle = authority_client_free(client->handle);
    region_deinit(&client->region);
    client->account = account_unref(client->account);
    journal_deinit(&client->journal);
}

void fixture_init_empty(struct fixture *fixture) {
    *fixture = (struct fixture){.slot = 1, .generation = 7};
    ck_assert_int_eq(loop_new(&fixture->loop), 0);
    ck_assert_int_eq(policy_new(&fixture->policy), 0);
    ledger_init(&fixture->ledger, fixture->policy->limits_total);
    /* Beside the accounts that tests count by. */
    ledger_init(&fixture->memory_ledger, fixture->policy->limits_total);
    ck_assert_int_eq(ledger_ref_account(&fixture->memory_ledger, 0, fixture->policy->limits_total, &fixture->memory_account), 0);
    ck_assert_int_eq(arena_init(&fixture->arena, FIXTURE_MEMORY), 0);
    ck_assert_int_eq(region_pool_init(&fixture->regions, &fixture->arena, FIXTURE_MEMORY), 0);
    fixture->audit_fd = memfd_create("audit", MFD_CLOEXEC);
    ck_assert_int_eq(audit_init(&fixture->audit, fixture->audit_fd, 64, 3), 0);
    fixture->opener = *opener_local();
    const struct authority_options options = {
        .loop = fixture->loop,
        .ledger = &fixture->ledger,
        .audit = &fixture->audit,
        .opener = &fixture->opener,
        .policy = fixture->policy,
        .incarnation = 3,
        .n_endpoints = 4,
        .retire_ms = fixture_retire_ms,
        .small_writes_on_worker = fixture_small_writes_on_worker,
        .link = hear,
        .link_context = fixture,
    };
    ck_assert_int_eq(authority_new(&fixture->authority, &options), 0);
    client_init(&fixture->sensor, fixture, VMIBUS_ROLE_SENSOR, geteuid(), 0);
    client_init(&fixture->control, fixture, VMIBUS_ROLE_CONTROL, geteuid(), 0);
    fixture->vm.fd = -1;
}

void fixture_init_levels(struct fixture *fixture, enum vm_kind kind, uint8_t levels) {
    fixture_init_empty(fixture);
    vm_init(&fixture->vm, kind, levels);
    link_open(fixture, fixture->generation, "vm");
}

void fixture_init(struct fixture *fixture, enum vm_kind kind) {
    fixture_init_levels(fixture, kind, 4);
}

void fixture_ready(struct fixture *fixture) {
    assert_ok(propose_layout(fixture, fixture->vm.fd < 0));
    assert_ok(propose_root(fixture));
    link_issue(fixture, &fixture->control, UINT64_C(3) << 32 | 1, 0);
}

void fixture_deinit(struct fixture *fixture) {
    client_deinit(&fixture->control);
    client_deinit(&fixture->sensor);
    authority_free(fixture->authority);
    loop_free(fixture->loop);
    audit_deinit(&fixture->audit);
    fd_close(fixture->audit_fd);
    policy_free(fixture->policy);
    ledger_deinit(&fixture->ledger);
    pool_deinit(&fixture->regions);
    arena_deinit(&fixture->arena);
    account_unref(fixture->memory_account);
    ledger_deinit(&fixture->memory_ledger);
    journal_deinit(&fixture->link);
    vm_deinit(&fixture->vm);
}

void fixture_grant(struct fixture *fixture, uint32_t uid, uint32_t capabilities) {
    struct policy_rule *rule;

    ck_assert_int_eq(policy_add_rule(fixture->policy, "test", &rule), 0);
    rule->subject = POLICY_USER;
    rule->id = uid;
    rule->capabilities = capabilities;
    authority_set_policy(fixture->authority, fixture->policy);
}

/* --- the link ---------------------------------------------------------------------------------- */

void link_open(struct fixture *fixture, uint64_t generation, const char *name) {
    struct vmibus_frame frame = {.header = {.kind = VMIBUS_KIND_ENDPOINT_OPENED}};

    fixture->generation = generation;
    snprintf(fixture->name, sizeof(fixture->name), "%s", name);
    frame.header.slot = fixture->slot;
    frame.header.generation = generation;
    frame.header.tail_length = (uint32_t)strlen(name);
    authority_hear_link(fixture->authority, &frame, name);
}

void link_close(struct fixture *fixture, uint64_t generation) {
    struct vmibus_frame frame = {.header = {.kind = VMIBUS_KIND_ENDPOINT_CLOSED}};

    frame.header.slot = fixture->slot;
    frame.header.generation = generation;
    frame.endpoint_closed.reason = VMIBUS_REASON_EXIT;
    authority_hear_link(fixture->authority, &frame, NULL);
}

void link_issue(struct fixture *fixture, const struct client *client, uint64_t token,
                uint64_t expires) {
    struct vmibus_frame frame = {.header = {.kind = VMIBUS_KIND_FENCE_ISSUE}};

    fixture->token = token;
    frame.header.slot = fixture->slot;
    frame.header.generation = fixture->generation;
    memcpy(frame.fence_issue.session, client->session, sizeof(client->session));
    frame.fence_issue.token = token;
    frame.fence_issue.expires = expires;
    frame.fence_issue.uid = client->principal.uid;
    authority_hear_link(fixture->authority, &frame, NULL);
}

void link_revoke(struct fixture *fixture, uint64_t token) {
    struct vmibus_frame frame = {.header = {.kind = VMIBUS_KIND_FENCE_REVOKE}};

    frame.header.slot = fixture->slot;
    frame.header.generation = fixture->generation;
    frame.fence_revoke.token = token;
    authority_hear_link(fixture->authority, &frame, NULL);
}

void link_session_closed(struct fixture *fixture, const struct client *client) {
    struct vmibus_frame frame = {.header = {.kind = VMIBUS_KIND_SESSION_CLOSED}};

    memcpy(frame.session_closed.session, client->session, sizeof(client->session));
    authority_hear_link(fixture->authority, &frame, NULL);
}

/* --- commands ---------------------------------------------------------------------------------- */

struct vmibus_frame frame_make(struct fixture *fixture, enum vmibus_kind kind) {
    return (struct vmibus_frame){
        .header =
            {
                .kind = (uint16_t)kind,
                .direction = VMIBUS_DIRECTION_DOWN,
                .version = VMIBUS_PROTOCOL_VERSION,
                .slot = fixture->slot,
                .generation = fixture->generation,
                .correlation = ++fixture->correlation,
                .timestamp = clock_now(),
            },
    };
}

/* As every sensor does, before it proposes a layout. */
static void tell_identity(struct client *client, const struct vmibus_frame *layout) {
    struct vmibus_frame frame = {.header = layout->header};

    frame.header.kind = VMIBUS_KIND_MEM_IDENTITY;
    frame.header.fd_count = 0;
    frame.header.flags = VMIBUS_FRAME_NO_ACK;
    frame.header.tail_length = (uint32_t)strlen(client->fixture->name);
    client->silent = true;
    authority_client_submit(client->handle, &frame, client->fixture->name, NULL, clock_now());
    client->silent = false;
}

void submit_only(struct client *client, struct vmibus_frame *frame, const void *tail,
                 const int *fds) {
    if (frame->header.kind == VMIBUS_KIND_MEM_LAYOUT && !client->unidentified)
        tell_identity(client, frame);
    authority_client_submit(client->handle, frame, tail, fds, clock_now());
}

void wait_answers(struct client *client, size_t n) {
    while (client->journal.n < n)
        ck_assert_int_ge(loop_dispatch(client->fixture->loop, -1), 0);
}

void wait_link(struct fixture *fixture, size_t n) {
    while (fixture->link.n < n)
        ck_assert_int_ge(loop_dispatch(fixture->loop, -1), 0);
}

struct vmibus_ack *submit(struct client *client, struct vmibus_frame *frame, const void *tail,
                          const int *fds) {
    size_t before = client->journal.n;
    struct vmibus_frame *answer;

    submit_only(client, frame, tail, fds);
    wait_answers(client, before + 1);
    answer = &client->journal.frames[before];
    ck_assert_uint_eq(answer->header.kind, VMIBUS_KIND_ACK);
    ck_assert_uint_eq(answer->header.correlation, frame->header.correlation);
    ck_assert_uint_eq(answer->ack.command, frame->header.kind);
    /* A layout in a process is proven with the process at hand. */
    if (answer->ack.error == VMIBUS_ERROR_IO && answer->ack.value == ENOSYS && harness_is_under_valgrind())
        test_skip("valgrind has no pidfd_open()");
    return &answer->ack;
}

struct vmibus_ack *propose_layout(struct fixture *fixture, bool by_process) {
    struct vmibus_frame frame = frame_make(fixture, VMIBUS_KIND_MEM_LAYOUT);
    uint64_t base = by_process ? (uintptr_t)fixture->vm.ram : 0;
    struct vmibus_layout_range ranges[] = {
        {.gpa = 0, .len = RAM_SIZE, .location = base},
        {.gpa = ROM_GPA,
         .len = ROM_SIZE,
         .location = base + RAM_SIZE,
         .flags = VMIBUS_RANGE_READ_ONLY},
    };

    ranges[0].object = ranges[1].object = by_process ? 0xffff : 0;
    frame.header.tail_length = sizeof(ranges);
    frame.header.fd_count = by_process ? 0 : 1;
    frame.mem_layout.range_count = 2;
    if (by_process) {
        frame.mem_layout.pid = (uint32_t)getpid();
        frame.mem_layout.start_time = start_time_of(getpid());
    }
    return submit(&fixture->sensor, &frame, ranges, &fixture->vm.fd);
}

struct vmibus_frame root_frame(struct fixture *fixture) {
    struct vmibus_frame frame = frame_make(fixture, VMIBUS_KIND_MEM_ROOT);

    frame.mem_root.epoch = fixture->epoch;
    frame.mem_root.cr3 = PGD_GPA;
    frame.mem_root.levels = fixture->vm.levels;
    frame.mem_root.note = NOTE_GPA;
    frame.mem_root.note_len = (uint32_t)strlen((const char *)fixture->vm.ram + NOTE_GPA);
    frame.mem_root.probe_gva = KERNEL_GVA;
    frame.mem_root.confidence = VMIBUS_CONFIDENCE_PROVEN;
    return frame;
}

struct vmibus_ack *propose_root(struct fixture *fixture) {
    struct vmibus_frame frame = root_frame(fixture);

    return submit(&fixture->sensor, &frame, NULL, NULL);
}

struct vmibus_frame write_frame(struct fixture *fixture, uint64_t gva, const void *source,
                                size_t len, uint32_t flags) {
    struct vmibus_frame frame = frame_make(fixture, VMIBUS_KIND_CMD_MEMWRITE);
    size_t octets = flags & VMIBUS_MEMWRITE_EXPECT ? 2 * len : len;

    if (octets > VMIBUS_MEMWRITE_INLINE)
        flags |= VMIBUS_MEMWRITE_SRC_PAYLOAD;
    frame.cmd_memwrite.gva = gva;
    frame.cmd_memwrite.len = (uint32_t)len;
    frame.cmd_memwrite.flags = flags;
    frame.cmd_memwrite.token = fixture->token;
    frame.cmd_memwrite.epoch = fixture->epoch;
    if (flags & VMIBUS_MEMWRITE_SRC_PAYLOAD)
        frame.header.tail_length = (uint32_t)octets;
    else
        memcpy(frame.cmd_memwrite.data, source, octets);
    return frame;
}

struct vmibus_ack *do_write(struct fixture *fixture, uint64_t gva, const void *source, size_t len,
                            uint32_t flags) {
    struct vmibus_frame frame = write_frame(fixture, gva, source, len, flags);

    return submit(&fixture->control, &frame, source, NULL);
}

bool is_filled(const uint8_t *octets, uint8_t value, size_t len) {
    return octets[0] == value && memcmp(octets, octets + 1, len - 1) == 0;
}

uint64_t start_time_of(pid_t pid) {
    char path[64], text[1024], *at;
    unsigned long long start_time = 0;
    FILE *file;
    size_t n;

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    file = fopen(path, "re");
    ck_assert_ptr_nonnull(file);
    n = fread(text, 1, sizeof(text) - 1, file);
    fclose(file);
    text[n] = '\0';
    at = strrchr(text, ')');
    ck_assert_ptr_nonnull(at);
    ck_assert_int_eq(sscanf(at + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d "
                                    "%*d %*d %*d %*d %llu",
                            &start_time),
                     1);
    return start_time;
}

/* --- writes that fail -------------------------------------------------------------------------- */

ssize_t (*pwrite_hook)(int fd, const void *buffer, size_t len, off_t offset);

ssize_t pwrite_really(int fd, const void *buffer, size_t len, off_t offset) {
    struct iovec local = {(void *)(uintptr_t)buffer, len}, remote = {(void *)(uintptr_t)offset, len};

    if (fd == FD_OWN_PROCESS)
        return syscall(SYS_process_vm_writev, (long)getpid(), &local, 1UL, &remote, 1UL, 0UL);
    return syscall(SYS_pwrite64, fd, buffer, len, offset);
}

/* The program's own definition takes the place of the C library's, under both of its names. */
ssize_t pwrite(int fd, const void *buffer, size_t len, off_t offset) {
    return pwrite_hook ? pwrite_hook(fd, buffer, len, offset)
                       : pwrite_really(fd, buffer, len, offset);
}

/* One stretch at a time, as the writer asks for it. */
ssize_t process_vm_writev(pid_t pid, const struct iovec *local, unsigned long n_local, const struct iovec *remote,
                          unsigned long n_remote, unsigned long flags) {
    ck_assert(pid == getpid() && n_local == 1 && n_remote == 1 && flags == 0);
    return pwrite(FD_OWN_PROCESS, local->iov_base, local->iov_len, (off_t)(uintptr_t)remote->iov_base);
}

ssize_t pwrite64(int fd, const void *buffer, size_t len, off64_t offset) {
    return pwrite(fd, buffer, len, offset);
}

static sem_t released;

static ssize_t pwrite_wait(int fd, const void *buffer, size_t len, off_t offset) {
    while (sem_wait(&released) < 0)
        continue;
    sem_post(&released);
    return pwrite_really(fd, buffer, len, offset);
}

void pwrite_block(void) {
    sem_init(&released, 0, 0);
    pwrite_hook = pwrite_wait;
}

void pwrite_release(void) {
    sem_post(&released);
}
