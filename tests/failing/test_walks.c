/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Every call that can fail does, once: in what is made when a daemon starts, and in what it writes. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "audit/recorder.h"
#include "audit/verify.h"
#include "client/socket_link.h"
#include "core/core.h"
#include "daemon/config.h"
#include "daemon/incarnation.h"
#include "daemon/opener_config.h"
#include "daemon/opener_server.h"
#include "daemon/state.h"
#include "failing.h"
#include "harness.h"
#include "memory/opener_remote.h"
#include "transport/listener.h"
#include "util/audit.h"
#include "util/fds.h"
#include "util/handover.h"
#include "util/loop.h"

static char folder[] = "/tmp/vmibus-failing.XXXXXX";

static void make_folder(void) {
    ck_assert_ptr_nonnull(mkdtemp(folder));
}

static void remove_folder(void) {
    char command[64];

    snprintf(command, sizeof(command), "rm -rf %s", folder);
    ck_assert_int_eq(system(command), 0);
}

static const char *in_folder(const char *name) {
    static char path[128];

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    return path;
}

static unsigned int walk(int (*operation)(void *), const char *spared) {
    return failing_walk(&(struct failing_walk){.operation = operation, .spared = spared});
}

/* --- the harness itself ------------------------------------------------------------------------ */

static int swallow(void *context) {
    void *volatile memory = malloc(1);

    free(memory);
    (void)context;
    return 0;
}

TEST(test_calls_fail_in_their_turn) {
    unsigned int n;
    int fd, second, error;

    failing_arm(FAILING_ERROR, 2);
    fd = dup(STDERR_FILENO);
    second = dup(STDERR_FILENO);
    error = errno;
    n = failing_disarm();
    ck_assert_int_eq(second, -1);
    ck_assert_int_eq(error, EMFILE);
    ck_assert_uint_eq(n, 2);
    fd_close(fd);
    ck_assert_int_eq(failing_error(), EMFILE);
    ck_assert_str_eq(failing_name(), "dup() #2");
    ck_assert_uint_eq(walk(swallow, "open malloc"), 1);
}

/* --- util -------------------------------------------------------------------------------------- */

static void nothing_happens(struct loop_source *source, uint32_t events) {
    (void)source;
    (void)events;
}

static void nothing_is_due(struct loop_timer *timer) {
    (void)timer;
}

static int use_loop(void *context) {
    int *fd = context;
    struct loop_source source = {};
    struct loop_timer timers[40];
    struct loop *loop;
    int r = loop_new(&loop);

    if (r < 0)
        return r;
    for (size_t i = 0; i < 40; i++)
        loop_timer_init(&timers[i], loop, nothing_is_due);
    for (size_t i = 0; r == 0 && i < 40; i++)
        r = loop_timer_set(&timers[i], UINT64_MAX - i);
    if (r == 0)
        r = loop_source_init(&source, loop, *fd, EPOLLIN, nothing_happens);
    if (r == 0)
        r = loop_source_modify(&source, EPOLLIN | EPOLLOUT);
    loop_source_deinit(&source);
    for (size_t i = 0; i < 40; i++)
        loop_timer_cancel(&timers[i]);
    loop_free(loop);
    return r;
}

TEST(test_loop) {
    int fds[2];

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    ck_assert_uint_ge(failing_walk(&(struct failing_walk){.operation = use_loop, .context = &fds[0], .spared = "epoll_ctl"}), 4);
    fd_close(fds[0]);
    fd_close(fds[1]);
}

#define TEXT_TAG 7
#define FD_TAG 8

static int hand_over(void *context) {
    static const uint8_t token[HANDOVER_TOKEN] = "a token";
    struct handover_writer writer = {};
    struct handover handover = {};
    int fd, r, *fds;

    (void)context;
    handover_begin(&writer, 1);
    for (size_t i = 0; i < 200; i++)
        handover_put(&writer, TEXT_TAG, "what is left to the next", 24);
    handover_put_fd(&writer, FD_TAG, STDERR_FILENO);
    handover_end(&writer);
    fd = handover_seal(&writer, token, "test");
    handover_writer_deinit(&writer);
    if (fd < 0)
        return fd;
    fds = malloc(sizeof(*fds));
    if (!fds) {
        fd_close(fd);
        return -ENOMEM;
    }
    *fds = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
    r = *fds < 0 ? -errno : 0;
    if (r == 0)
        r = handover_open(&handover, fd, fds, 1);
    else
        free(fds);
    handover_close(&handover);
    fd_close(fd);
    return r;
}

TEST(test_handover) {
    /* A file whose seals cannot be told is not this user's to read. */
    ck_assert_uint_ge(failing_walk(&(struct failing_walk){.operation = hand_over, .translates = true}), 8);
    ck_assert_uint_ge(failing_walk(&(struct failing_walk){.operation = hand_over, .way = FAILING_SHORT}), 1);
}

/* --- the state directory ----------------------------------------------------------------------- */

static int use_state(void *context) {
    int directory = state_open(in_folder("state")), fd, r;
    uint32_t incarnation;

    (void)context;
    if (directory < 0)
        return directory;
    r = incarnation_raise(directory, &incarnation);
    if (r == 0)
        r = incarnation_keep(directory, incarnation);
    fd = r == 0 ? state_open_audit(directory, "bus") : -1;
    if (r == 0 && fd < 0)
        r = fd;
    fd_close(fd);
    fd_close(directory);
    return r;
}

TEST(test_state, .setup = make_folder, .teardown = remove_folder) {
    /* dprintf() does without a buffer. */
    ck_assert_uint_ge(walk(use_state, "malloc"), 10);
}

/* Whatever failed, a number is never given twice. */
TEST(test_p05_incarnation_rises_over_every_failure, .setup = make_folder, .teardown = remove_folder) {
    uint32_t highest = 0, incarnation;
    int directory;

    ck_assert_int_eq(mkdir(in_folder("state"), 0700), 0);
    directory = open(in_folder("state"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (int way = FAILING_ERROR; way <= FAILING_SHORT; way++)
        for (unsigned int n = 1;; n++) {
            int r;

            failing_arm(way, n);
            r = incarnation_raise(directory, &incarnation);
            failing_disarm();
            if (r == 0) {
                ck_assert_uint_gt(incarnation, highest);
                highest = incarnation;
            }
            if (!failing_error())
                break;
        }
    ck_assert_int_eq(incarnation_raise(directory, &incarnation), 0);
    ck_assert_uint_gt(incarnation, highest);
    fd_close(directory);
}

/* --- configuration ----------------------------------------------------------------------------- */

static void write_file(const char *name, const char *text) {
    FILE *file = fopen(in_folder(name), "we");

    ck_assert_ptr_nonnull(file);
    fputs(text, file);
    fclose(file);
}

static int read_config(void *context) {
    struct config config;
    struct config_error error;
    int r = config_init(&config);

    (void)context;
    if (r == 0)
        r = config_read(&config, in_folder("vmibusd.conf"), &error);
    config_deinit(&config);
    return r;
}

TEST(test_config, .setup = make_folder, .teardown = remove_folder) {
    write_file("vmibusd.conf", "[daemon]\nsocket = /run/a\nstate-directory = /var/b\n"
                               "[sensor stub]\nvms = 2\nram-mib = 4\n"
                               "[rule one]\nuser = root\nendpoints = web-*\ncapabilities = all\n[rule two]\ngroup = root\nrank = 3\ncapabilities = mem-read\n");
    ck_assert_int_eq(mkdir(in_folder("vmibusd.conf.d"), 0755), 0);
    write_file("vmibusd.conf.d/10.conf", "[rule three]\nuser = 7\ncapabilities = mem-read\n");
    ck_assert_uint_ge(failing_walk(&(struct failing_walk){.operation = read_config, .translates = true, .spared = "malloc"}), 10);
}

static int read_opener_config(void *context) {
    struct opener_config config;
    struct opener_config_error error;
    int r = opener_config_init(&config);

    (void)context;
    if (r == 0)
        r = opener_config_read(&config, in_folder("vmibusd.conf"), &error);
    if (r == 0)
        r = opener_config_complete(&config, &error);
    opener_config_deinit(&config);
    return r;
}

TEST(test_opener_config, .setup = make_folder, .teardown = remove_folder) {
    if (geteuid() != 0)
        test_skip("only root's files are believed");
    write_file("vmibusd.conf", "[opener]\nsocket = /run/a\nusers = root\nmemory-users = root\nexecutables = /usr/bin/a /usr/bin/b\n");
    /* A stream does without a buffer. */
    ck_assert_uint_ge(failing_walk(&(struct failing_walk){.operation = read_opener_config, .translates = true, .spared = "malloc"}), 10);
}

/* --- audit ------------------------------------------------------------------------------------- */

static int record(void *context) {
    int *directory = context;
    struct audit audit = {};
    struct recorder recorder = {};
    struct recorder_options options = {
        .audit = &audit, .directory = *directory, .writer = "bus", .digest_bound = 4096, .segment_bytes = 1u << 20,
        .commit_ms = 1, .patience_ms = 10000, .way = DISK_THREAD,
    };
    struct loop *loop = NULL;
    int log = memfd_create("log", MFD_CLOEXEC), r = log < 0 ? -errno : loop_new(&loop), begun;

    if (r == 0)
        r = audit_init(&audit, log, 64, 1);
    if (r == 0) {
        options.loop = loop;
        begun = recorder_init(&recorder, &options);
        recorder_deinit(&recorder);
        audit_deinit(&audit);
        r = begun;
    }
    loop_free(loop);
    fd_close(log);
    return r;
}

TEST(test_recorder, .setup = make_folder, .teardown = remove_folder) {
    int directory = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    /* A disk that fails is told of, and waited for. */
    ck_assert_uint_ge(failing_walk(&(struct failing_walk){.operation = record, .context = &directory, .translates = true,
                                                          .spared = "*"}), 10);
    fd_close(directory);
}

/* A start that lacks something must not go on in the wrong place: that would look like somebody's forgery. */
TEST(test_chain_is_whole_after_every_failure, .setup = make_folder, .teardown = remove_folder) {
    int directory = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct verify_result result;

    ck_assert_int_eq(record(&directory), 0);
    for (int way = FAILING_ERROR; way <= FAILING_SHORT; way++)
        for (unsigned int n = 1;; n++) {
            failing_arm(way, n);
            (void)record(&directory);
            failing_disarm();
            ck_assert_int_eq(verify_chain(directory, &(struct verify_options){.writer = "bus"}, &result), 0);
            ck_assert_msg(result.verdict <= VERIFY_TORN, "%s failed: %s in file %llu at %llu", failing_name(), result.wrong,
                          (unsigned long long)result.bad_segment, (unsigned long long)result.bad_offset);
            if (!failing_error())
                break;
        }
    ck_assert_int_eq(result.verdict, VERIFY_GOOD);
    fd_close(directory);
}

/* Whatever fails at a start, the records of the daemon before are still there. */
TEST(test_intents_outlive_a_start_that_fails) {
    const struct vmibus_audit_record intent = {.kind = VMIBUS_KIND_CMD_MEMWRITE};
    struct vmibus_audit_header header;
    int log = memfd_create("log", MFD_CLOEXEC);
    struct audit audit;

    ck_assert_int_eq(audit_init(&audit, log, 64, 1), 0);
    ck_assert_uint_eq(audit_begin(&audit, &intent), 1);
    audit_deinit(&audit);
    for (int way = FAILING_ERROR; way <= FAILING_SHORT; way++)
        for (unsigned int n = 1;; n++) {
            int r;

            failing_arm(way, n);
            r = audit_init(&audit, log, 64, 2);
            failing_disarm();
            if (r == 0)
                audit_deinit(&audit);
            ck_assert_int_eq(pread(log, &header, sizeof(header), 0), sizeof(header));
            ck_assert_uint_eq(header.written, 1);
            if (!failing_error())
                break;
        }
    fd_close(log);
}

/* --- sockets ----------------------------------------------------------------------------------- */

static int bind_listener(void *context) {
    int fd = listener_bind(in_folder("control"), 0600);

    (void)context;
    if (fd < 0)
        return fd;
    fd_close(fd);
    return 0;
}

static int bind_opener(void *context) {
    int fd = opener_server_bind(in_folder("opener"));

    (void)context;
    if (fd < 0)
        return fd;
    fd_close(fd);
    return 0;
}

/* The file that is left behind is removed by the next, so the first has one less to do. */
TEST(test_listening_sockets, .setup = make_folder, .teardown = remove_folder) {
    const struct failing_walk listener = {.operation = bind_listener, .translates = true};
    const struct failing_walk opener = {.operation = bind_opener, .translates = true};

    ck_assert_uint_ge(failing_walk(&listener), 5);
    ck_assert_uint_ge(failing_walk(&opener), 5);
}

static int connect_link(void *context) {
    struct socket_link *link;
    int r = socket_link_connect(&link, in_folder("control"));

    (void)context;
    if (r == 0)
        socket_link_ops.close(link);
    return r;
}

TEST(test_link, .setup = make_folder, .teardown = remove_folder) {
    int fd = listener_bind(in_folder("control"), 0600);

    ck_assert_int_ge(fd, 0);
    /* Neither a send buffer that stays as small as it was does harm, nor one that is set although it is large. */
    ck_assert_uint_ge(walk(connect_link, "getsockopt setsockopt"), 4);
    fd_close(fd);
}

static int make_opener(void *context) {
    const struct opener *opener;
    int r = opener_remote_new(&opener, in_folder("opener"));

    (void)context;
    if (r == 0)
        opener_remote_free(opener);
    return r;
}

/* Nobody answers at the socket: each call ends with an error however far it came. */
static int ask_opener(void *context) {
    const struct opener *opener;
    const struct opener_process process = {.pid = 1, .start_time = 1};
    int r = opener_remote_new(&opener, in_folder("opener"));

    (void)context;
    if (r < 0)
        return r;
    r = opener->open_process(opener, &process);
    opener_remote_free(opener);
    return r < 0 ? 0 : -EBADF;
}

TEST(test_opener, .setup = make_folder, .teardown = remove_folder) {
    ck_assert_uint_ge(walk(make_opener, NULL), 1);
    ck_assert_uint_ge(walk(ask_opener, "*"), 3);
}

/* --- a whole bus ------------------------------------------------------------------------------- */

static int run_core(void *context) {
    const struct vmibus_core_options options = {.struct_size = sizeof(options), .incarnation = 1, .audit_fd = -1,
                                                .n_endpoints = 4, .n_connections = 4};
    struct vmibus_core *core;
    struct vmibus *bus = NULL;
    int r = vmibus_core_new(&core, &options);

    (void)context;
    if (r < 0)
        return r;
    r = vmibus_core_connect(core, &bus, "control");
    for (int i = 0; r == 0 && i < 3; i++)
        r = vmibus_core_dispatch(core, 0);
    vmibus_free(bus);
    vmibus_core_free(core);
    return r;
}

TEST(test_core, .timeout = 300) {
    ck_assert_uint_ge(failing_walk(&(struct failing_walk){.operation = run_core, .translates = true, .spared = "*"}), 20);
}

HARNESS_SUITE("walks", HARNESS_QUICK)
