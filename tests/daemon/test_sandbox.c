/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a process can still do in the sandbox: each test takes a child for it, as there is no way back.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <vmibus/syscalls.h>

#include "daemon/counts.h"
#include "daemon/sandbox.h"
#include "daemon/sandbox_notes.h"
#include "harness.h"
#include "util/thread.h"

/* What the test's own children do besides. */
VMIBUS_SYSCALLS("openat unlink unlinkat mkdir mkdirat socket socketpair memfd_create ioctl")

static char text[4096]; /* what the last child wrote to standard error */

/* Runs a function in a child. Returns its exit status, or 128 + signal. */
static int in_child(int (*function)(void)) {
    int pair[2], status;
    size_t n = 0;
    ssize_t got;
    pid_t pid;

    ck_assert_int_eq(pipe2(pair, O_CLOEXEC), 0);
    pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        dup2(pair[1], STDERR_FILENO);
        status = function();
        counts_leave();
        _exit(status);
    }
    close(pair[1]);
    while (n < sizeof(text) - 1 && (got = read(pair[0], text + n, sizeof(text) - 1 - n)) > 0)
        n += (size_t)got;
    text[n] = '\0';
    close(pair[0]);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* --- system calls ------------------------------------------------------------------------------ */

#if defined(HAVE_SECCOMP) && !defined(VMIBUS_SANITIZED)

#include <seccomp.h>

static void enter(void) {
    if (sandbox_close_process(false) < 0 || sandbox_limit_syscalls(SANDBOX_REQUIRE) < 0)
        _exit(99);
}

static int do_nothing(void) {
    enter();
    return 0;
}

static int change_directory(void) {
    enter();
    return chdir("/");
}

static int execute(void) {
    enter();
    return execl("/bin/true", "true", NULL);
}

static int trace(void) {
    enter();
    return (int)syscall(SYS_ptrace, 16, 1, 0, 0);
}

static int connect_to_network(void) {
    enter();
    return socket(AF_INET, SOCK_STREAM, 0);
}

static int make_namespace(void) {
    enter();
    return (int)syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
}

static int leave_namespace(void) {
    enter();
    return unshare(CLONE_NEWNET);
}

static int make_process(void) {
    enter();
    return (int)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
}

static int signal_another(void) {
    enter();
    return (int)syscall(SYS_tgkill, getppid(), getppid(), 0);
}

static int limit_another(void) {
    struct rlimit limit = {};

    enter();
    return prlimit(getppid(), RLIMIT_NOFILE, NULL, &limit);
}

/* The kernel would send it for us; it looks at the lower half of the command only. */
static int have_another_signalled(void) {
    enter();
    return (int)syscall(SYS_fcntl, STDERR_FILENO, (1ul << 32) | F_SETOWN, getppid());
}

static int own_for_another(void) {
    int owner = getppid();

    enter();
    return ioctl(STDERR_FILENO, FIOSETOWN, &owner);
}

static void *change_directory_in_thread(void *argument) {
    (void)argument;
    return (void *)(long)chdir("/");
}

static int thread_after(void) {
    pthread_t thread;

    enter();
    if (thread_start(&thread, change_directory_in_thread, NULL) < 0)
        return 98;
    pthread_join(thread, NULL);
    return 0;
}

static pthread_barrier_t barrier;

static void *wait_and_change_directory(void *argument) {
    pthread_barrier_wait(&barrier);
    return change_directory_in_thread(argument);
}

/* One that was there before the filter is under it too. */
static int thread_before(void) {
    pthread_t thread;

    pthread_barrier_init(&barrier, NULL, 2);
    if (thread_start(&thread, wait_and_change_directory, NULL) < 0)
        return 98;
    enter();
    pthread_barrier_wait(&barrier);
    pthread_join(thread, NULL);
    return 0;
}

static int make_executable(void) {
    void *octets = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    enter();
    if (mprotect(octets, 4096, PROT_READ | PROT_EXEC) == 0 || errno != EACCES)
        return 1;
    return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED || errno != EACCES;
}

/* What anybody needs goes on: memory, threads, unix sockets. */
static int work(void) {
    enum { N = 64 };
    void *pieces[N];
    int pair[2];

    enter();
    for (size_t i = 0; i < N; i++)
        pieces[i] = malloc(4096 << (i % 12));
    for (size_t i = 0; i < N; i++)
        free(pieces[i]);
    return socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0 || write(pair[0], "x", 1) != 1;
}

TEST(test_p09_undeclared_system_calls_end_the_process) {
    const struct {
        int (*function)(void);
        const char *name;
    } attempts[] = {
        {change_directory, "(chdir)"}, {execute, "(execve)"},        {trace, "(ptrace)"},       {connect_to_network, "(socket)"},
        {make_process, "(clone)"},      {signal_another, "(tgkill)"},
        {limit_another, "(prlimit64)"}, {have_another_signalled, "(fcntl)"}, {own_for_another, "(ioctl)"}, {make_namespace, "(clone)"},   {leave_namespace, "(unshare)"}, {thread_after, "(chdir)"}, {thread_before, "(chdir)"},
    };

    ck_assert_int_eq(in_child(do_nothing), 0);
    ck_assert_int_eq(in_child(work), 0);
    for (size_t i = 0; i < sizeof(attempts) / sizeof(*attempts); i++) {
        ck_assert_int_eq(in_child(attempts[i].function), 128 + SIGSYS);
        ck_assert_msg(strstr(text, attempts[i].name), "'%s' is not in: %s", attempts[i].name, text);
        ck_assert_ptr_nonnull(strstr(text, "is not declared by any part of this program"));
    }
}

TEST(test_p09_nothing_becomes_executable) {
    ck_assert_int_eq(in_child(make_executable), 0);
}

/* --- kernels that have less -------------------------------------------------------------------- */

/* Answers a system call as a kernel without it does. */
static void take_away(int number) {
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);

    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (!filter || seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), number, 0) < 0 || seccomp_load(filter) < 0)
        _exit(97);
    seccomp_release(filter);
}

static int files_without_landlock(void) {
    take_away(SCMP_SYS(landlock_create_ruleset));
    return sandbox_limit_files(SANDBOX_YES, NULL, 0, true) < 0 || access("/etc", R_OK) < 0;
}

static int files_require_landlock(void) {
    take_away(SCMP_SYS(landlock_create_ruleset));
    return sandbox_limit_files(SANDBOX_REQUIRE, NULL, 0, true) != -ENOSYS;
}

TEST(test_p10_missing_landlock_is_told_and_fatal_only_if_required) {
    ck_assert_int_eq(in_child(files_without_landlock), 0);
    ck_assert_ptr_nonnull(strstr(text, "this kernel has no Landlock"));
    ck_assert_int_eq(in_child(files_require_landlock), 0);
    ck_assert_ptr_nonnull(strstr(text, "boot a kernel with Landlock, or say 'sandbox = yes'"));
}

/* libseccomp asks prctl and seccomp. */
static int syscalls_without_seccomp(void) {
    take_away(SCMP_SYS(seccomp));
    return sandbox_limit_syscalls(SANDBOX_YES) < 0 || chdir("/") < 0;
}

static int syscalls_require_seccomp(void) {
    take_away(SCMP_SYS(seccomp));
    return sandbox_limit_syscalls(SANDBOX_REQUIRE) >= 0;
}

TEST(test_p10_missing_seccomp_is_told_and_fatal_only_if_required) {
    ck_assert_int_eq(in_child(syscalls_without_seccomp), 0);
    ck_assert_ptr_nonnull(strstr(text, "system calls stay within reach"));
    ck_assert_int_eq(in_child(syscalls_require_seccomp), 0);
    ck_assert_ptr_nonnull(strstr(text, "say 'sandbox = yes'"));
}

#else

TEST(test_p09_undeclared_system_calls_end_the_process) {
    test_skip("this build has no filter of system calls");
}

#endif

static int tell_of_none(void) {
    return sandbox_limit_syscalls(SANDBOX_NO) < 0 || sandbox_limit_files(SANDBOX_NO, NULL, 0, true) < 0 || chdir("/") < 0;
}

TEST(test_no_sandbox_is_told) {
    ck_assert_int_eq(in_child(tell_of_none), 0);
    ck_assert_ptr_nonnull(strstr(text, "sandbox = no"));
}

/* --- files ------------------------------------------------------------------------------------- */

static char readable[64], writable[64], other[64];

static void make_file(const char *folder, const char *name) {
    char path[128];
    int fd;

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    ck_assert_int_ge(fd, 0);
    close(fd);
}

static void make_folders(void) {
    char *folders[] = {readable, writable, other};

    for (size_t i = 0; i < 3; i++) {
        strcpy(folders[i], "/tmp/vmibus-sandbox-XXXXXX");
        ck_assert_ptr_nonnull(mkdtemp(folders[i]));
        make_file(folders[i], "file");
    }
}

static void remove_folders(void) {
    const char *const folders[] = {readable, writable, other};
    char path[128];

    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof(path), "%s/file", folders[i]);
        unlink(path);
        ck_assert_int_eq(rmdir(folders[i]), 0);
    }
}

static int try_open(const char *folder, const char *name, int flags) {
    char path[128];
    int fd;

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    fd = open(path, flags | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    close(fd);
    return 0;
}

static int try_unlink(const char *folder, const char *name) {
    char path[128];

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    return unlink(path) < 0 ? -errno : 0;
}

#define EXPECT(expression, result)                                                                 \
    do {                                                                                           \
        int _got = (expression);                                                                   \
        if (_got != (result)) {                                                                    \
            fprintf(stderr, "%s: %s\n", #expression, strerror(-_got));                             \
            return 1;                                                                              \
        }                                                                                          \
    } while (0)

static int use_files(void) {
    const struct sandbox_path paths[] = {
        {.path = readable, .access = SANDBOX_READ}, {.path = writable, .access = SANDBOX_WRITE},
        {.path = "/nonexistent", .access = SANDBOX_READ}, {},
    };
    char path[128];
    int held, memory, again;

    snprintf(path, sizeof(path), "%s/file", other);
    held = open(path, O_RDWR | O_CLOEXEC);
    memory = memfd_create("memory", MFD_CLOEXEC);
    if (sandbox_close_process(false) < 0 || sandbox_limit_files(SANDBOX_REQUIRE, paths, 4, true) < 0)
        return 2;
    EXPECT(try_open(readable, "file", O_RDONLY), 0);
    EXPECT(try_open(readable, "file", O_RDWR), -EACCES);
    EXPECT(try_open(readable, "more", O_RDWR | O_CREAT), -EACCES);
    EXPECT(try_unlink(readable, "file"), -EACCES);
    EXPECT(try_open(writable, "file", O_RDWR | O_TRUNC), 0);
    EXPECT(try_open(writable, "more", O_RDWR | O_CREAT), 0);
    EXPECT(try_unlink(writable, "more"), 0);
    EXPECT(try_open(other, "file", O_RDONLY), -EACCES);
    EXPECT(try_open(other, "more", O_RDWR | O_CREAT), -EACCES);
    EXPECT(try_open("/etc", "passwd", O_RDONLY), -EACCES);
    EXPECT(try_open("/proc/self", "maps", O_RDONLY), -EACCES);
    /* What is open stays so, and memory can be opened anew; a file that is held cannot. */
    EXPECT(write(held, "x", 1) == 1 ? 0 : -errno, 0);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", memory);
    again = open(path, O_RDONLY | O_CLOEXEC);
    EXPECT(again >= 0 ? 0 : -errno, 0);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", held);
    again = open(path, O_RDONLY | O_CLOEXEC);
    EXPECT(again >= 0 ? 0 : -errno, -EACCES);
    return 0;
}

/* Another process of the same user, as opening its memory needs ptrace(2)'s leave. */
static int open_memory_of_others(void) {
    const struct sandbox_path paths[] = {{.path = "/", .access = SANDBOX_READ | SANDBOX_WRITE}};
    char path[64];

    snprintf(path, sizeof(path), "/proc/%d", (int)getppid());
    EXPECT(try_open(path, "mem", O_RDWR), 0);
    if (sandbox_close_process(false) < 0 || sandbox_limit_files(SANDBOX_REQUIRE, paths, 1, false) < 0)
        return 2;
    return try_open(path, "mem", O_RDWR) == 0;
}

static bool has_landlock(void) {
    return syscall(444, NULL, 0, 1u) > 0; /* landlock_create_ruleset, LANDLOCK_CREATE_RULESET_VERSION */
}

TEST(test_p09_files_out_of_reach) {
    if (!has_landlock())
        test_skip("this kernel has no Landlock");
    make_folders();
    ck_assert_msg(in_child(use_files) == 0, "%s", text);
    remove_folders();
}

/* Why who opens the memory of others cannot have Landlock. */
TEST(test_landlock_keeps_other_processes_out_of_reach) {
    if (!has_landlock())
        test_skip("this kernel has no Landlock");
    ck_assert_msg(in_child(open_memory_of_others) == 0, "%s", text);
}

/* --- notes ------------------------------------------------------------------------------------- */

struct heard {
    char names[256];
};

static int hear(void *context, const char *name) {
    struct heard *heard = context;

    strcat(strcat(heard->names, name), ",");
    return strcmp(name, "stop") == 0 ? -ECANCELED : 0;
}

static size_t put_note(char *at, const char *owner, const char *contents, size_t length, uint32_t type) {
    const uint32_t header[] = {(uint32_t)strlen(owner) + 1, (uint32_t)length, type};
    size_t n = sizeof(header);

    memcpy(at, header, n);
    strcpy(at + n, owner);
    n += (header[0] + 3) & ~3u;
    memcpy(at + n, contents, length);
    return n + ((length + 3) & ~(size_t)3);
}

TEST(test_notes_of_all_owners_and_none) {
    char segment[512] = {};
    struct heard heard = {};
    size_t n = 0;

    n += put_note(segment + n, "GNU", "ABI", 4, 1);
    n += put_note(segment + n, "vmibus", "chdir  open", 12, 1);
    n += put_note(segment + n, "vmibus", "other", 6, 2);
    n += put_note(segment + n, "vmibus", "unended", 7, 1);
    n += put_note(segment + n, "vmibus", "", 0, 1);
    n += put_note(segment + n, "vmibus", "last", 5, 1);
    ck_assert_int_eq(sandbox_notes_parse(segment, n, hear, &heard), 0);
    ck_assert_str_eq(heard.names, "chdir,open,last,");
    for (size_t cut = 0; cut < n; cut++) {
        heard.names[0] = '\0';
        ck_assert_int_eq(sandbox_notes_parse(segment, cut, hear, &heard), 0);
    }
    n = put_note(segment, "vmibus", "one stop two", 13, 1);
    heard.names[0] = '\0';
    ck_assert_int_eq(sandbox_notes_parse(segment, n, hear, &heard), -ECANCELED);
    ck_assert_str_eq(heard.names, "one,stop,");
}

static int count(void *context, const char *name) {
    (*(unsigned *)context)++;
    return *name == '\0' ? -EINVAL : 0;
}

TEST(test_notes_of_this_process) {
    unsigned n = 0;

    ck_assert_int_eq(sandbox_notes_visit(count, &n), 0);
    ck_assert_uint_gt(n, 50);
}

HARNESS_SUITE("sandbox", HARNESS_QUICK)
