/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/sandbox.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "daemon/counts.h"
#include "daemon/log.h"

int sandbox_close_process(bool open_to_user) {
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || (!open_to_user && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0))
        return -errno;
    return 0;
}

#ifdef HAVE_SECCOMP

#include <asm/ioctls.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/sandbox_notes.h"

#define NAMESPACES                                                                                                            \
    (CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWTIME)
#define SYSCALLS_MAX 1024

/* --- what a violation says ---------------------------------------------------------------------- */

/* By number; filled before the filter is in force, as a handler may not ask a library. */
static char *names[SYSCALLS_MAX];

static void remember_names(void) {
    for (int i = 0; i < SYSCALLS_MAX; i++)
        if (!names[i])
            names[i] = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, i);
}

static char *append(char *at, const char *end, const char *text) {
    while (*text && at < end)
        *at++ = *text++;
    return at;
}

static char *append_number(char *at, const char *end, unsigned number) {
    char digits[12];
    size_t n = sizeof(digits);

    digits[--n] = '\0';
    do
        digits[--n] = (char)('0' + number % 10);
    while ((number /= 10) > 0);
    return append(at, end, digits + n);
}

/* signal-safety(7). The process then ends by the signal, as it would without a handler. */
static void violation(int signal_number, siginfo_t *info, void *context) {
    const struct sigaction fall_back = {.sa_handler = SIG_DFL};
    unsigned number = (unsigned)info->si_syscall;
    char text[256], *at = text, *end = text + sizeof(text);
    ssize_t n;

    (void)context;
    at = append(at, end, program_invocation_short_name);
    at = append(at, end, ": system call ");
    at = append_number(at, end, number);
    at = append(at, end, " (");
    at = append(at, end, number < SYSCALLS_MAX && names[number] ? names[number] : "unknown");
    at = append(at, end, ") is not declared by any part of this program: the process ends. "
                         "If it is needed, report it; 'sandbox = no' does without the filter\n");
    n = write(STDERR_FILENO, text, (size_t)(at - text));
    (void)n;
    (void)sigaction(signal_number, &fall_back, NULL);
    counts_leave();
    (void)raise(signal_number);
}

static int take_violations(void) {
    struct sigaction action = {.sa_sigaction = violation, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGSYS);
    if (sigaction(SIGSYS, &action, NULL) < 0 || sigprocmask(SIG_UNBLOCK, &set, NULL) < 0)
        return -errno;
    return 0;
}

/* --- what no declaration allows ---------------------------------------------------------------- */

/* The kernel takes the lower half of what is an int to it. */
#define INT_IS(argument, value) SCMP_CMP(argument, SCMP_CMP_MASKED_EQ, UINT32_MAX, (uint32_t)(value))

/*
 * What reaches other processes by calls that are declared for this one: their signals (also those that the kernel sends for
 * whoever owns a descriptor), their limits, a terminal's input.
 */
static int refuse_others(scmp_filter_ctx filter) {
    const struct {
        int number;
        struct scmp_arg_cmp argument;
    } refused[] = {
        {SCMP_SYS(tgkill), SCMP_A0(SCMP_CMP_NE, (scmp_datum_t)getpid(), 0)},
        {SCMP_SYS(pidfd_send_signal), SCMP_A1(SCMP_CMP_NE, 0, 0)}, /* 0: whether it is there */
        {SCMP_SYS(prlimit64), SCMP_A0(SCMP_CMP_NE, 0, 0)},
        {SCMP_SYS(fcntl), INT_IS(1, F_SETOWN)},
        {SCMP_SYS(fcntl), INT_IS(1, F_SETOWN_EX)},
        {SCMP_SYS(fcntl), INT_IS(1, F_SETSIG)},
        {SCMP_SYS(ioctl), INT_IS(1, FIOSETOWN)},
        {SCMP_SYS(ioctl), INT_IS(1, SIOCSPGRP)},
        {SCMP_SYS(ioctl), INT_IS(1, TIOCSTI)},
        {SCMP_SYS(ioctl), INT_IS(1, TIOCLINUX)},
    };
    int r = 0;

    for (size_t i = 0; r == 0 && i < sizeof(refused) / sizeof(*refused); i++)
        r = seccomp_rule_add_array(filter, SCMP_ACT_TRAP, refused[i].number, 1, &refused[i].argument);
    return r;
}

static int find_fork(void *context, const char *name) {
    if (strcmp(name, "fork") == 0)
        *(bool *)context = true;
    return 0;
}

/* Threads are made by the same call as processes, which only who says `fork` may make. */
static int refuse_processes(scmp_filter_ctx filter) {
    const struct scmp_arg_cmp process = SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, 0);
    bool forks = false;
    int r = sandbox_notes_visit(find_fork, &forks);

    return r < 0 || forks ? r : seccomp_rule_add_array(filter, SCMP_ACT_TRAP, SCMP_SYS(clone), 1, &process);
}

/* A filter of its own: of several, the kernel goes by the strictest. */
static int refuse(void) {
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
    int r;

    if (!filter)
        return -ENOMEM;
    r = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);
    if (r == 0)
        r = refuse_others(filter);
    if (r == 0)
        r = refuse_processes(filter);
    if (r == 0)
        r = seccomp_load(filter);
    seccomp_release(filter);
    return r;
}

/* --- the filter -------------------------------------------------------------------------------- */

/* What is allowed only in part. */
static int allow_in_part(scmp_filter_ctx filter, int number) {
    const struct scmp_arg_cmp not_executable = SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0);

    if (number == SCMP_SYS(mmap) || number == SCMP_SYS(mprotect))
        return seccomp_rule_add(filter, SCMP_ACT_ALLOW, number, 1, not_executable);
    if (number == SCMP_SYS(socket) || number == SCMP_SYS(socketpair))
        return seccomp_rule_add(filter, SCMP_ACT_ALLOW, number, 1, SCMP_A0(SCMP_CMP_EQ, AF_UNIX, 0));
    if (number == SCMP_SYS(clone))
        return seccomp_rule_add(filter, SCMP_ACT_ALLOW, number, 1, SCMP_A0(SCMP_CMP_MASKED_EQ, NAMESPACES, 0));
    /* Its flags are in memory, which a filter cannot read: the C library then takes clone. */
    if (number == SCMP_SYS(clone3))
        return seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), number, 0);
    return 1;
}

static int allow(void *context, const char *name) {
    int number = *name >= '0' && *name <= '9' ? atoi(name) : seccomp_syscall_resolve_name(name), r;

    if (number == __NR_SCMP_ERROR || number < 0) /* of another machine, or newer than the library */
        return 0;
    r = allow_in_part(context, number);
    if (r > 0)
        r = seccomp_rule_add(context, SCMP_ACT_ALLOW, number, 0);
    return r == -EEXIST ? 0 : r;
}

/* Who asks for what may become executable, by a library that is loaded late, is told no and goes on. */
static int refuse_executable(scmp_filter_ctx filter) {
    const struct scmp_arg_cmp executable = SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, PROT_EXEC);
    int r = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EACCES), SCMP_SYS(mmap), 1, executable);

    return r < 0 ? r : seccomp_rule_add(filter, SCMP_ACT_ERRNO(EACCES), SCMP_SYS(mprotect), 1, executable);
}

static int limit(void) {
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_TRAP);
    int r;

    if (!filter)
        return -ENOMEM;
    r = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);
    if (r == 0)
        r = seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2);
    if (r == 0)
        r = sandbox_notes_visit(allow, filter);
    if (r == 0)
        r = refuse_executable(filter);
    if (r == 0)
        r = take_violations();
    if (r == 0) {
        remember_names();
        r = refuse();
    }
    if (r == 0)
        r = seccomp_load(filter);
    seccomp_release(filter);
    return r;
}

int sandbox_limit_syscalls(enum sandbox_wish wish) {
    int r;

    if (wish == SANDBOX_NO) {
        log_warning("sandbox = no: every system call stays within reach");
        return 0;
    }
    r = limit();
    if (r == 0)
        return 0;
    if (wish == SANDBOX_REQUIRE) {
        log_error("system calls cannot be taken out of reach: %s; boot a kernel with seccomp filters, or say 'sandbox = yes'",
                  strerror(-r));
        return r;
    }
    log_warning("system calls stay within reach: %s", strerror(-r));
    return 0;
}

#else

int sandbox_limit_syscalls(enum sandbox_wish wish) {
    if (wish == SANDBOX_REQUIRE) {
        log_error("system calls cannot be taken out of reach: this was built with --disable-seccomp; say 'sandbox = yes'");
        return -EOPNOTSUPP;
    }
    log_warning("system calls stay within reach: this was built with --disable-seccomp");
    return 0;
}

#endif
