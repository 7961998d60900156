/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * QEMU as the attacker, played by a child process: it pulls its RAM away, blocks pages, lies about
 * what its RAM is, and dies so that another process gets its pid.  Nobody else is written to, killed,
 * or made to wait.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <linux/sched.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"
#include "memory/buffers.h"
#include "memory/fixture.h"
#include "memory/state.h"
#include "util/fds.h"

#define TEST_SECONDS 20 /* whoever is made to wait is noticed after these */

static struct fixture fx;

static const uint8_t eight[8] = {1, 2, 3, 4, 5, 6, 7, 8};

/* --- a process that plays QEMU ----------------------------------------------------------------- */

struct qemu {
    pid_t pid;
    int said;       /* readable when it has said something */
    int release;    /* it ends when this is closed, or written to */
};

/* What it does when it is told to turn on us. */
static void (*turn)(void);

/* In the child: says that it is ready, waits until it may end, or is to turn. */
static void linger(int say, int release) {
    char octet = 'r';
    ssize_t n;

    for (;;) {
        if (write(say, &octet, 1) != 1)
            _exit(1);
        n = read(release, &octet, 1);
        if (n <= 0 || !turn)
            _exit(n < 0);
        turn();
    }
}

/* Starts one that has a copy of the fixture's private memory, or shares its file, and does something with it first. */
static void qemu_start(struct qemu *qemu, void (*prepare)(void)) {
    int say[2], release[2];
    char octet;

    ck_assert_int_eq(pipe2(say, O_CLOEXEC), 0);
    ck_assert_int_eq(pipe2(release, O_CLOEXEC), 0);
    qemu->pid = fork();
    ck_assert_int_ge(qemu->pid, 0);
    if (qemu->pid == 0) {
        close(release[1]);
        if (prepare)
            prepare();
        linger(say[1], release[0]);
    }
    close(say[1]);
    close(release[0]);
    qemu->said = say[0];
    qemu->release = release[1];
    ck_assert_int_eq(read(say[0], &octet, 1), 1);
}

/* Has it turn, and waits until it has. */
static void qemu_turn(const struct qemu *qemu) {
    char octet = 't';

    ck_assert_int_eq(write(qemu->release, &octet, 1), 1);
    ck_assert_int_eq(read(qemu->said, &octet, 1), 1);
}

/* Those that were started after it hold its pipes too, so they are ended first. */
static void qemu_end(struct qemu *qemu) {
    int status;

    qemu->said = fd_close(qemu->said);
    qemu->release = fd_close(qemu->release);
    ck_assert_int_eq(waitpid(qemu->pid, &status, 0), qemu->pid);
}

static struct vmibus_ack *propose_qemu(const struct qemu *qemu, const void *location) {
    struct vmibus_frame frame = frame_make(&fx, VMIBUS_KIND_MEM_LAYOUT);
    struct vmibus_layout_range range = {
        .len = RAM_SIZE, .location = (uintptr_t)location, .object = 0xffff};

    frame.header.tail_length = sizeof(range);
    frame.mem_layout.range_count = 1;
    frame.mem_layout.pid = (uint32_t)qemu->pid;
    frame.mem_layout.start_time = start_time_of(qemu->pid);
    return submit(&fx.sensor, &frame, &range, NULL);
}

static void need_root(void) {
    if (geteuid() != 0)
        test_skip("this needs root");
}

/* --- it cuts its file off, between the look at its end and the first octet ---------------------- */

static ssize_t cut_off_then_write(int fd, const void *buffer, size_t len, off_t offset) {
    pwrite_hook = NULL;
    if (ftruncate(fx.vm.fd, 0) < 0)
        return -1;
    return pwrite_really(fd, buffer, len, offset);
}

TEST(test_p09_file_that_is_cut_off_under_a_write, .iterations = 4, .timeout = TEST_SECONDS) {
    static uint8_t source[2 * PAGE];
    uint32_t len = _i < 2 ? 8 : sizeof(source);
    struct vmibus_ack *ack;

    fixture_init(&fx, _i % 2 ? VM_SHM : VM_UNSEALED);
    fixture_ready(&fx);
    pwrite_hook = cut_off_then_write;
    ack = do_write(&fx, DATA_GVA, source, len, 0);
    ck_assert_uint_eq(ack->error, VMIBUS_ERROR_STALE_EPOCH);
    ck_assert_uint_eq(ack->reason, VMIBUS_REASON_BACKING_CHANGED);
    ck_assert_uint_eq(count_of(&fx.link, VMIBUS_KIND_MEMCTX_INVALIDATED), 1);
    ck_assert_uint_eq(last_of(&fx.link, VMIBUS_KIND_MEMCTX_INVALIDATED)->memctx_invalidated.reason,
                      VMIBUS_REASON_BACKING_CHANGED);
    fixture_deinit(&fx);
}

/* --- it dies in the middle of a write, and another process gets its pid ------------------------- */

static struct qemu victim;
static pid_t impostor;
static int impostor_release;

/* A process with this very pid, and the same memory at the same place. */
static pid_t take_pid(pid_t pid) {
    struct clone_args arguments = {
        .exit_signal = SIGCHLD, .set_tid = (uintptr_t)&pid, .set_tid_size = 1};

    return (pid_t)syscall(SYS_clone3, &arguments, sizeof(arguments));
}

static ssize_t die_then_write(int fd, const void *buffer, size_t len, off_t offset) {
    const uint8_t *there = fx.vm.ram + DATA_GPA;
    int release[2];
    char octet;

    pwrite_hook = NULL;
    if (pipe2(release, O_CLOEXEC) < 0)
        return -1;
    qemu_end(&victim);
    impostor = take_pid(victim.pid);
    if (impostor == 0) {
        close(release[1]);
        _exit(read(release[0], &octet, 1) == 0 && is_filled(there, 0, 2 * PAGE) ? 0 : 1);
    }
    close(release[0]);
    impostor_release = release[1];
    return pwrite_really(fd, buffer, len, offset);
}

TEST(test_p09_pid_is_taken_by_another_process_under_a_write, .iterations = 2,
     .timeout = TEST_SECONDS) {
    static uint8_t source[2 * PAGE];
    int status;

    need_root();
    memset(source, 0x77, sizeof(source));
    fixture_init(&fx, VM_PRIVATE);
    qemu_start(&victim, NULL);
    assert_ok(propose_qemu(&victim, fx.vm.ram));
    assert_ok(propose_root(&fx));
    link_issue(&fx, &fx.control, 1, 0);
    pwrite_hook = die_then_write;
    assert_refused(do_write(&fx, DATA_GVA, source, _i ? sizeof(source) : 8, 0),
                   VMIBUS_ERROR_STALE_EPOCH, VMIBUS_REASON_EXIT);
    ck_assert_int_eq(impostor, victim.pid);
    fd_close(impostor_release);
    ck_assert_int_eq(waitpid(impostor, &status, 0), impostor);
    ck_assert_int_eq(status, 0);
    fixture_deinit(&fx);
}

/* --- it blocks its own pages ------------------------------------------------------------------- */

static uint64_t blocked_gpa;

/* From here on whoever touches the page waits for a word that never comes. */
static void block_page(void) {
    struct uffdio_api api = {.api = UFFD_API};
    struct uffdio_register page = {
        .range = {.start = (uintptr_t)(fx.vm.ram + blocked_gpa), .len = PAGE},
        .mode = UFFDIO_REGISTER_MODE_MISSING,
    };
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);

    if (madvise(fx.vm.ram + blocked_gpa, PAGE, MADV_DONTNEED) < 0 || fd < 0 ||
        ioctl(fd, UFFDIO_API, &api) < 0 || ioctl(fd, UFFDIO_REGISTER, &page) < 0)
        _exit(1);
}

/* A page of data, of the tables, or the note, in private memory, or behind a file. */
TEST(test_p09_page_that_blocks_stalls_nobody, .iterations = 6, .timeout = TEST_SECONDS) {
    static const uint64_t pages[] = {DATA_GPA, PGD_GPA, NOTE_GPA};
    static uint8_t source[2 * PAGE];
    bool is_private = _i < 3;
    struct qemu qemu;

    need_root();
    blocked_gpa = pages[_i % 3];
    fixture_init(&fx, is_private ? VM_PRIVATE : VM_UNSEALED);
    qemu_start(&qemu, block_page);
    assert_ok(propose_qemu(&qemu, fx.vm.ram));
    propose_root(&fx);
    link_issue(&fx, &fx.control, 1, 0);
    /* What comes of it is no matter: it comes. */
    do_write(&fx, DATA_GVA, eight, 8, 0);
    do_write(&fx, DATA_GVA, source, sizeof(source), 0);
    if (fx.authority->endpoints[1].current)
        memory_endpoint_look(&fx.authority->endpoints[1]);
    qemu_end(&qemu);
    fixture_deinit(&fx);
}

TEST(test_p09_stopped_process_stalls_nobody, .iterations = 2, .timeout = TEST_SECONDS) {
    static uint8_t source[2 * PAGE];
    struct qemu qemu;

    need_root();
    fixture_init(&fx, _i ? VM_UNSEALED : VM_PRIVATE);
    qemu_start(&qemu, NULL);
    ck_assert_int_eq(kill(qemu.pid, SIGSTOP), 0);
    assert_ok(propose_qemu(&qemu, fx.vm.ram));
    assert_ok(propose_root(&fx));
    link_issue(&fx, &fx.control, 1, 0);
    assert_ok(do_write(&fx, DATA_GVA, eight, 8, 0));
    assert_ok(do_write(&fx, DATA_GVA, source, sizeof(source), 0));
    ck_assert_int_eq(kill(qemu.pid, SIGCONT), 0);
    qemu_end(&qemu);
    fixture_deinit(&fx);
}

/* --- its RAM is a file of a server that does not answer ------------------------------------------ */

static char fuse_path[64];
static int fuse_fd;
static void *fuse_map;
static size_t fuse_len = RAM_SIZE;

static void fuse_answer(const struct fuse_in_header *in, int error, const void *body, size_t len) {
    struct {
        struct fuse_out_header header;
        uint8_t body[256];
    } out = {.header = {.len = (uint32_t)(sizeof(out.header) + len),
                        .error = error,
                        .unique = in->unique}};

    if (len)
        memcpy(out.body, body, len);
    if (write(fuse_fd, &out, out.header.len) < 0 && errno != ENOENT)
        _exit(1);
}

/* Answers as much as it takes to open and map a file, but never what is in it, until it is killed. */
static void fuse_serve(void) {
    static uint8_t request[1 << 17] __attribute__((aligned(8)));
    const struct fuse_in_header *in = (const void *)request;

    while (read(fuse_fd, request, sizeof(request)) > 0) {
        if (in->opcode == FUSE_INIT) {
            const struct fuse_init_out init = {
                .major = FUSE_KERNEL_VERSION, .minor = 31, .max_write = 4096};
            fuse_answer(in, 0, &init, sizeof(init));
        } else if (in->opcode == FUSE_GETATTR) {
            const struct fuse_attr_out attributes = {
                .attr_valid = 3600,
                .attr = {.ino = 1, .size = RAM_SIZE, .mode = S_IFREG | 0666, .nlink = 1}};
            fuse_answer(in, 0, &attributes, sizeof(attributes));
        } else if (in->opcode == FUSE_OPEN) {
            const struct fuse_open_out opened = {.fh = 1};
            fuse_answer(in, 0, &opened, sizeof(opened));
        } else if (in->opcode != FUSE_FORGET && in->opcode != FUSE_READ) {
            fuse_answer(in, -ENOSYS, NULL, 0);
        }
    }
}

static void fuse_mount(void) {
    char options[100];
    int fd;

    fuse_fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (fuse_fd < 0)
        test_skip("/dev/fuse cannot be opened");
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        test_skip("there is no mount namespace to be had");
    snprintf(fuse_path, sizeof(fuse_path), "/tmp/vmibus-fuse-XXXXXX");
    fd = mkostemp(fuse_path, O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    fd_close(fd);
    snprintf(options, sizeof(options), "fd=%d,rootmode=100666,user_id=0,group_id=0,allow_other",
             fuse_fd);
    if (mount("vmibus", fuse_path, "fuse", 0, options) < 0) {
        unlink(fuse_path);
        test_skip("FUSE cannot be mounted here");
    }
}

static void map_fuse(void) {
    int fd = open(fuse_path, O_RDWR | O_CLOEXEC);
    struct stat st; /* what is asked for is the file's size, which the kernel knows from then on */

    fd_close(fuse_fd); /* or the server would live on in it */
    if (fd < 0 || fstat(fd, &st) < 0 ||
        mmap(fuse_map, fuse_len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
        _exit(1);
}

TEST(test_p09_file_of_a_silent_server_is_not_even_opened, .timeout = TEST_SECONDS) {
    struct qemu qemu;
    pid_t server;

    need_root();
    fuse_mount();
    fixture_init(&fx, VM_SEALED);
    server = fork();
    if (server == 0) {
        fuse_serve();
        _exit(0);
    }
    fuse_map = mmap(NULL, RAM_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    qemu_start(&qemu, map_fuse);
    ck_assert_int_eq(kill(server, SIGSTOP), 0);
    assert_refused(propose_qemu(&qemu, fuse_map), VMIBUS_ERROR_UNSUPPORTED,
                   VMIBUS_REASON_LAYOUT_UNPROVEN);
    /* Without its server's last word no file of it can be closed. */
    ck_assert_int_eq(kill(server, SIGKILL), 0);
    ck_assert_int_eq(waitpid(server, NULL, 0), server);
    fd_close(fuse_fd);
    qemu_end(&qemu);
    ck_assert_int_eq(umount2(fuse_path, MNT_DETACH), 0);
    unlink(fuse_path);
    munmap(fuse_map, RAM_SIZE);
    fixture_deinit(&fx);
}

/* --- its memory never answers ------------------------------------------------------------------ */

enum stall { STALL_WRITE, STALL_READ, STALL_LOOK, STALL_ROOT, N_STALLS };

/* An endpoint in a slot of its own, and what the fixture says to it. */
struct place {
    struct qemu qemu;
    uint32_t slot;
    uint64_t generation, epoch;
};

static int silent_fds[N_STALLS];    /* by what stalls on it */
static sem_t stalled, let_go;

static bool is_silent(int fd, bool writing) {
    for (int stall = 0; stall < N_STALLS; stall++)
        if (silent_fds[stall] == fd && (stall == STALL_WRITE) == writing)
            return true;
    return false;
}

static void stall(void) {
    sem_post(&stalled);
    while (sem_wait(&let_go) < 0)
        continue;
    sem_post(&let_go);
}

static ssize_t stalling_pwrite(int fd, const void *buffer, size_t len, off_t offset) {
    if (is_silent(fd, true))
        stall();
    return pwrite_really(fd, buffer, len, offset);
}

static ssize_t stalling_pread(int fd, void *buffer, size_t len, off_t offset) {
    if (is_silent(fd, false))
        stall();
    return pread_really(fd, buffer, len, offset);
}

static void stalls_init(void) {
    for (int stall = 0; stall < N_STALLS; stall++)
        silent_fds[stall] = -1;
    sem_init(&stalled, 0, 0);
    sem_init(&let_go, 0, 0);
    pwrite_hook = stalling_pwrite;
    pread_hook = stalling_pread;
}

static void go_to(const struct place *place) {
    fx.slot = place->slot;
    fx.generation = place->generation;
    fx.epoch = place->epoch;
    fx.token = place->generation;
}

static struct memory_endpoint *endpoint_of(const struct place *place) {
    return &fx.authority->endpoints[place->slot];
}

/* A VM with private RAM moves in. */
static void settle(struct place *place, uint32_t slot, uint64_t generation, bool with_root) {
    fx.slot = place->slot = slot;
    place->generation = generation;
    link_open(&fx, generation, "vm");
    qemu_start(&place->qemu, NULL);
    assert_ok(propose_qemu(&place->qemu, fx.vm.ram));
    if (with_root)
        assert_ok(propose_root(&fx));
    link_issue(&fx, &fx.control, generation, 0);
    place->epoch = fx.epoch;
}

/* Asks for something that does not come to an end. */
static void ask(const struct place *place, enum stall what, uint32_t buffer) {
    struct vmibus_frame frame;

    go_to(place);
    switch (what) {
    case STALL_WRITE:
        frame = write_frame(&fx, DATA_GVA, eight, sizeof(eight), 0);
        submit_only(&fx.control, &frame, NULL, NULL);
        break;
    case STALL_READ:
        frame = read_frame(&fx, DATA_GVA, 8, buffer, 0);
        submit_only(&fx.control, &frame, NULL, NULL);
        break;
    case STALL_LOOK:
        memory_endpoint_look(endpoint_of(place));
        break;
    default:
        frame = root_frame(&fx);
        submit_only(&fx.sensor, &frame, NULL, NULL);
    }
}

static void ask_in_vain(const struct place *place, enum stall what, uint32_t buffer) {
    silent_fds[what] = endpoint_of(place)->current->memory_fd;
    ask(place, what, buffer);
    while (sem_wait(&stalled) < 0)
        continue;
}

/* All that can be asked is answered. */
static void expect_service(const struct place *place, uint32_t buffer) {
    struct vmibus_frame frame;

    go_to(place);
    assert_ok(do_write(&fx, DATA_GVA, eight, sizeof(eight), 0));
    frame = read_frame(&fx, DATA_GVA, 8, buffer, 0);
    assert_ok(submit(&fx.control, &frame, NULL, NULL));
    memory_endpoint_look(endpoint_of(place));
    frame = root_frame(&fx);
    assert_ok(submit(&fx.sensor, &frame, NULL, NULL));
    frame = frame_make(&fx, VMIBUS_KIND_MEM_QUERY);
    frame.mem_query.query = VMIBUS_MEMORY_QUERY_HOLDERS;
    assert_ok(submit(&fx.control, &frame, NULL, NULL));
    ck_assert_ptr_nonnull(endpoint_of(place)->current);
    ck_assert_uint_eq(endpoint_of(place)->current->epoch, place->epoch);
}

static void wait_for_those_that_left(void) {
    while (!list_is_empty(&fx.authority->completions.leaving))
        ck_assert_int_ge(loop_dispatch(fx.loop, -1), 0);
}

static void expect_late_answer(enum stall what) {
    const struct journal *journal = what == STALL_ROOT ? &fx.sensor.journal : &fx.control.journal;
    const struct vmibus_ack *ack = &journal->frames[journal->n - 1].ack;

    if (what == STALL_LOOK)
        return;
    ck_assert_uint_eq(ack->error, what == STALL_ROOT ? VMIBUS_ERROR_GONE : VMIBUS_ERROR_STALE_EPOCH);
    ck_assert_uint_eq(ack->command, what == STALL_WRITE  ? VMIBUS_KIND_CMD_MEMWRITE
                                    : what == STALL_READ ? VMIBUS_KIND_MEM_READ
                                                         : VMIBUS_KIND_MEM_ROOT);
}

/* Neither another VM nor the next one in the same slot; what comes back late changes nothing. */
TEST(test_p09_memory_that_never_answers_stalls_nobody, .iterations = N_STALLS, .timeout = TEST_SECONDS) {
    const enum stall what = (enum stall)_i;
    struct place silent, bystander, next;
    size_t n_control, n_sensor;
    uint32_t buffer;

    need_root();
    fixture_init(&fx, VM_PRIVATE);
    stalls_init();
    buffer = (uint32_t)buffer_allocate(&fx, &fx.control, PAGE)->value;
    settle(&silent, 1, 7, what != STALL_ROOT);
    settle(&bystander, 2, 7, true);
    ask_in_vain(&silent, what, buffer);
    expect_service(&bystander, buffer);
    go_to(&silent);
    memory_endpoint_look(endpoint_of(&silent));
    memory_endpoint_look(endpoint_of(&silent));
    ck_assert_uint_eq(worker_jobs(endpoint_of(&silent)->worker), what == STALL_LOOK ? 1 : 2);
    link_close(&fx, 7);
    settle(&next, 1, 8, true);
    expect_service(&next, buffer);
    expect_service(&bystander, buffer);
    n_control = fx.control.journal.n;
    n_sensor = fx.sensor.journal.n;
    sem_post(&let_go);
    wait_for_those_that_left();
    ck_assert_uint_eq(fx.control.journal.n, n_control + (what == STALL_WRITE || what == STALL_READ));
    ck_assert_uint_eq(fx.sensor.journal.n, n_sensor + (what == STALL_ROOT));
    expect_late_answer(what);
    expect_service(&next, buffer);
    qemu_end(&next.qemu);
    qemu_end(&bystander.qemu);
    qemu_end(&silent.qemu);
    fixture_deinit(&fx);
}

/* A client that goes is not waited for either, and what it asked for is dropped. */
TEST(test_p09_client_goes_while_memory_does_not_answer, .iterations = N_STALLS, .timeout = TEST_SECONDS) {
    const enum stall what = (enum stall)_i;
    struct client *client = what == STALL_ROOT ? &fx.sensor : &fx.control;
    struct place silent;
    uint32_t buffer;

    need_root();
    fixture_init(&fx, VM_PRIVATE);
    stalls_init();
    buffer = (uint32_t)buffer_allocate(&fx, &fx.control, PAGE)->value;
    settle(&silent, 1, 7, what != STALL_ROOT);
    ask_in_vain(&silent, what, buffer);
    client->handle = authority_client_free(client->handle);
    sem_post(&let_go);
    while (worker_jobs(endpoint_of(&silent)->worker) > 0)
        ck_assert_int_ge(loop_dispatch(fx.loop, -1), 0);
    /* The tables have spoken, whoever asked them. */
    ck_assert(memctx_is_ready(endpoint_of(&silent)->current));
    qemu_end(&silent.qemu);
    fixture_deinit(&fx);
}

/* The end does not wait for it; its descriptors stay with the threads, so they are not compared. */
TEST(test_p09_memory_that_never_answers_is_left_behind, .timeout = 2 * TEST_SECONDS, .ignore_fds = true) {
    static const enum stall order[] = {STALL_WRITE, STALL_READ, STALL_LOOK, STALL_ROOT};
    struct place places[N_STALLS];
    uint32_t buffer;

    need_root();
    fixture_init(&fx, VM_PRIVATE);
    stalls_init();
    buffer = (uint32_t)buffer_allocate(&fx, &fx.control, PAGE)->value;
    for (uint32_t i = 0; i < N_STALLS; i++) {
        settle(&places[i], i + 1, 7, order[i] != STALL_ROOT);
        ask_in_vain(&places[i], order[i], buffer);
        /* What waits behind it is refused. */
        ask(&places[i], STALL_WRITE, buffer);
        ask(&places[i], STALL_READ, buffer);
    }
    for (uint32_t i = N_STALLS; i-- > 0;)
        qemu_end(&places[i].qemu);
    fixture_deinit(&fx);
}

/* The same by a file of a server, which it maps over its RAM once that is proven. */
TEST(test_p09_file_of_a_silent_server_over_its_memory_stalls_nobody, .iterations = 2, .timeout = TEST_SECONDS) {
    static uint8_t source[2 * PAGE];
    struct place silent, bystander;
    struct vmibus_frame frame;
    uint32_t buffer;
    pid_t server;

    need_root();
    fuse_mount();
    fixture_init(&fx, VM_PRIVATE);
    buffer = (uint32_t)buffer_allocate(&fx, &fx.control, PAGE)->value;
    server = fork();
    if (server == 0) {
        fuse_serve();
        _exit(0);
    }
    fuse_map = fx.vm.ram + DATA_GPA;
    fuse_len = 2 * PAGE;
    turn = map_fuse;
    settle(&silent, 1, 7, true);
    settle(&bystander, 2, 7, true);
    qemu_turn(&silent.qemu);
    go_to(&silent);
    frame = write_frame(&fx, DATA_GVA, source, _i ? sizeof(source) : 8, 0);
    submit_only(&fx.control, &frame, source, NULL);
    expect_service(&bystander, buffer);
    expect_service(&bystander, buffer);
    go_to(&silent);
    ck_assert_uint_eq(worker_jobs(endpoint_of(&silent)->worker), 1);
    link_close(&fx, 7);
    /* This very connection ends with its last descriptor, of which each of them has one. */
    qemu_end(&bystander.qemu);
    ck_assert_int_eq(kill(server, SIGKILL), 0);
    ck_assert_int_eq(waitpid(server, NULL, 0), server);
    fd_close(fuse_fd);
    wait_for_those_that_left();
    qemu_end(&silent.qemu);
    ck_assert_int_eq(umount2(fuse_path, MNT_DETACH), 0);
    unlink(fuse_path);
    fixture_deinit(&fx);
}

/* --- it keeps the inode of its shared RAM locked ------------------------------------------------- */

/* What is chosen for that: small writes are not executed where they are received. */
TEST(test_p09_small_write_to_a_locked_file_stalls_nobody, .timeout = TEST_SECONDS) {
    struct vmibus_frame frame;
    uint32_t buffer;
    size_t n;

    fixture_small_writes_on_worker = true;
    fixture_init(&fx, VM_SEALED);
    fixture_ready(&fx);
    buffer = (uint32_t)buffer_allocate(&fx, &fx.control, PAGE)->value;
    pwrite_block();
    frame = write_frame(&fx, DATA_GVA, eight, sizeof(eight), 0);
    n = fx.control.journal.n;
    submit_only(&fx.control, &frame, NULL, NULL);
    frame = root_frame(&fx);
    assert_ok(submit(&fx.sensor, &frame, NULL, NULL));
    memory_endpoint_look(&fx.authority->endpoints[1]);
    ck_assert_uint_eq(fx.control.journal.n, n);
    /* It is not overtaken by what its client asks for afterwards. */
    frame = read_frame(&fx, DATA_GVA, sizeof(eight), buffer, 0);
    submit_only(&fx.control, &frame, NULL, NULL);
    ck_assert_uint_eq(fx.control.journal.n, n);
    pwrite_release();
    wait_answers(&fx.control, n + 2);
    ck_assert_uint_eq(fx.control.journal.frames[n].ack.command, VMIBUS_KIND_CMD_MEMWRITE);
    assert_ok(&fx.control.journal.frames[n].ack);
    assert_ok(&fx.control.journal.frames[n + 1].ack);
    fixture_deinit(&fx);
}

HARNESS_SUITE("memory: QEMU as the attacker", HARNESS_QUICK)
