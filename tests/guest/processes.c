/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The agent's knowledge of processes, as /proc tells it, and the crowd: processes that have one of everything which
 * somebody who looks from outside may meet.
 *
 * The crowd is the agent's own program, started anew, so that no page of the agent becomes copy-on-write by it.
 */
#define _GNU_SOURCE
#include "agent.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <unistd.h>

#define PF_KTHREAD 0x00200000UL

/* ---- what /proc says ------------------------------------------------------------------------- */

/* The value of a line of /proc/PID/status, with its fields separated by commas. */
static void status_field(const char *status, const char *name, char *value, size_t size)
{
    const char *at = strstr(status, name);
    size_t n = 0;

    for (at = at ? at + strlen(name) : ""; *at && *at != '\n' && n < size - 1; at++)
        if (*at != ' ' && *at != '\t')
            value[n++] = *at;
        else if (n && value[n - 1] != ',')
            value[n++] = ',';
    value[n] = 0;
}

static void tell_task(const char *pid, const char *tid)
{
    char path[600], text[1024], status[4096], uid[64], gid[64], nested[256], *comm, *end;
    unsigned long long start;
    unsigned long flags;
    int ppid;
    char state;

    snprintf(path, sizeof(path), "/proc/%s/task/%s/stat", pid, tid);
    if (!slurp(path, text, sizeof(text)))
        return; /* it has just ended */
    snprintf(path, sizeof(path), "/proc/%s/task/%s/status", pid, tid);
    if (!slurp(path, status, sizeof(status)))
        return;
    comm = strchr(text, '(');
    end = strrchr(text, ')');
    if (!comm || !end ||
        sscanf(end + 2,
               "%c %d %*d %*d %*d %*d %lu %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu",
               &state, &ppid, &flags, &start) != 4)
        return;
    *end = 0;
    status_field(status, "\nUid:\t", uid, sizeof(uid));
    status_field(status, "\nGid:\t", gid, sizeof(gid));
    status_field(status, "\nNSpid:\t", nested, sizeof(nested));
    say("TASK pid=%s tgid=%s ppid=%d state=%c start=%llu kthread=%d uid=%s gid=%s nspid=%s comm=%s", tid,
        pid, ppid, state, start, !!(flags & PF_KTHREAD), uid, gid, nested, comm + 1);
}

/* Calls for each entry of a directory that is a number. */
static void each_number(const char *path, const char *of, void (*tell)(const char *of, const char *name))
{
    DIR *dir = opendir(path);
    struct dirent *entry;

    while (dir && (entry = readdir(dir)))
        if (isdigit((unsigned char)entry->d_name[0]))
            tell(of, entry->d_name);
    if (dir)
        closedir(dir);
}

static void tell_process(const char *of, const char *pid)
{
    char path[300];

    (void)of;
    snprintf(path, sizeof(path), "/proc/%s/task", pid);
    each_number(path, pid, tell_task);
}

void cmd_tasks(char *args)
{
    (void)args;
    each_number("/proc", NULL, tell_process);
    say("OK tasks");
}

static bool read_link(const char *path, char *target, size_t size)
{
    ssize_t n = readlink(path, target, size - 1);

    target[n < 0 ? 0 : n] = 0;
    return n >= 0;
}

static void tell_fd(const char *pid, const char *fd)
{
    char path[600], info[1024], target[1024], listing[64];
    unsigned long long position = 0;
    unsigned int flags = 0;

    snprintf(path, sizeof(path), "/proc/%s/fd/%s", pid, fd);
    if (!read_link(path, target, sizeof(target)))
        return;
    /* The agent has its own list open while it tells of itself. */
    snprintf(listing, sizeof(listing), "/proc/%s/fd", pid);
    if (strcmp(target, listing) == 0)
        return;
    snprintf(path, sizeof(path), "/proc/%s/fdinfo/%s", pid, fd);
    if (!slurp(path, info, sizeof(info)) || sscanf(info, "pos: %llu flags: %o", &position, &flags) != 2)
        return;
    say("FD pid=%s fd=%s flags=0x%x pos=%llu link=%s", pid, fd, flags, position, target);
}

void cmd_fds(char *args)
{
    static const char *const links[] = {"exe", "cwd"};
    char path[64], target[1024];

    snprintf(path, sizeof(path), "/proc/%.20s/fd", args);
    each_number(path, args, tell_fd);
    for (size_t i = 0; i < sizeof(links) / sizeof(links[0]); i++) {
        snprintf(path, sizeof(path), "/proc/%.20s/%s", args, links[i]);
        if (read_link(path, target, sizeof(target)))
            say("LINK pid=%s name=%s link=%s", args, links[i], target);
    }
    say("OK fds");
}

void cmd_hex(char *args)
{
    uint8_t octets[900];
    char text[2 * sizeof(octets) + 1] = "";
    int fd = open(args, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, octets, sizeof(octets));

    for (ssize_t i = 0; i < n; i++)
        snprintf(text + 2 * i, 3, "%02x", octets[i]);
    if (fd >= 0)
        close(fd);
    if (n < 0) {
        say("ERR hex %s", strerror(errno));
        return;
    }
    say("HEX file=%s octets=%s", args, text);
    say("OK hex");
}

/* ---- the crowd ------------------------------------------------------------------------------- */

/* What does not work is said; the test finds out what is missing. */
static int check(int r, const char *what)
{
    if (r < 0)
        say("WARN crowd %s errno=%d", what, errno);
    return r;
}

static void *stay(void *name)
{
    if (name)
        prctl(PR_SET_NAME, name);
    for (;;)
        pause();
    return NULL;
}

static void bring_up_loopback(void)
{
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    check(ioctl(fd, SIOCSIFFLAGS, &request), "lo");
    close(fd);
}

/* An address of the loopback device; of the second family, if six. */
static socklen_t loopback(bool six, uint16_t port, struct sockaddr_storage *address)
{
    struct sockaddr_in *in = (void *)address;
    struct sockaddr_in6 *in6 = (void *)address;

    memset(address, 0, sizeof(*address));
    if (six) {
        in6->sin6_family = AF_INET6;
        in6->sin6_port = htons(port);
        in6->sin6_addr = in6addr_loopback;
        return sizeof(*in6);
    }
    in->sin_family = AF_INET;
    in->sin_port = htons(port);
    in->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return sizeof(*in);
}

static int listen_at(bool six, uint16_t port)
{
    struct sockaddr_storage address;
    socklen_t len = loopback(six, port, &address);
    int fd = check(socket(six ? AF_INET6 : AF_INET, SOCK_STREAM, 0), "socket");

    check(bind(fd, (void *)&address, len), "bind");
    check(listen(fd, 5), "listen");
    return fd;
}

static int connect_to(bool six, int type, uint16_t port)
{
    struct sockaddr_storage address;
    socklen_t len = loopback(six, port, &address);
    int fd = check(socket(six ? AF_INET6 : AF_INET, type, 0), "socket");

    check(connect(fd, (void *)&address, len), "connect");
    return fd;
}

/* A connection of which one end has been closed stays for a minute: in TIME_WAIT, and half closed. */
static void make_inet(void)
{
    struct sockaddr_storage address;
    int four = listen_at(false, 7001), six = listen_at(true, 7002), near, udp;
    socklen_t len;

    connect_to(false, SOCK_STREAM, 7001);
    check(accept(four, NULL, NULL), "accept");
    connect_to(true, SOCK_STREAM, 7002);
    check(accept(six, NULL, NULL), "accept");
    near = connect_to(false, SOCK_STREAM, 7001);
    udp = check(accept(four, NULL, NULL), "accept");
    close(near);
    near = check(read(udp, &address, 1), "end");
    close(udp);
    near = connect_to(true, SOCK_STREAM, 7002);
    check(accept(six, NULL, NULL), "accept");
    close(near);

    udp = socket(AF_INET, SOCK_DGRAM, 0);
    len = loopback(false, 7003, &address);
    check(bind(udp, (void *)&address, len), "bind");
    udp = socket(AF_INET6, SOCK_DGRAM, 0);
    len = loopback(true, 7004, &address);
    ((struct sockaddr_in6 *)(void *)&address)->sin6_addr = in6addr_any;
    check(bind(udp, (void *)&address, len), "bind");
    connect_to(false, SOCK_DGRAM, 7003);
}

static void make_unix(void)
{
    struct sockaddr_un path = {.sun_family = AF_UNIX, .sun_path = "/tmp/crowd.socket"};
    struct sockaddr_un name = {.sun_family = AF_UNIX, .sun_path = "\0crowd"};
    int stream = socket(AF_UNIX, SOCK_STREAM, 0), fd, pair[2];

    check(bind(stream, (void *)&path, sizeof(path)), "bind");
    check(listen(stream, 5), "listen");
    fd = socket(AF_UNIX, SOCK_STREAM, 0);
    check(connect(fd, (void *)&path, sizeof(path)), "connect");
    check(accept(stream, NULL, NULL), "accept");
    fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    check(bind(fd, (void *)&name, offsetof(struct sockaddr_un, sun_path) + 6), "bind");
    check(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), "pair");
}

static void make_files(void)
{
    int fd = open("/tmp/crowd file", O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600), ends[2];
    struct epoll_event event = {.events = EPOLLIN};

    check((int)write(fd, "12345", 5), "write");
    check(dup2(fd, 900), "dup2");
    open("/tmp/deleted", O_RDWR | O_CREAT, 0600);
    unlink("/tmp/deleted");
    mkdir("/tmp/inside", 0755);
    open("/tmp/inside", O_RDONLY | O_DIRECTORY);
    open("/dev/null", O_WRONLY | O_NONBLOCK);
    open("/proc/self/ns/net", O_RDONLY);
    open("/proc/self/status", O_RDONLY);
    check(pipe2(ends, O_NONBLOCK), "pipe");
    fd = epoll_create1(EPOLL_CLOEXEC);
    check(epoll_ctl(fd, EPOLL_CTL_ADD, ends[0], &event), "epoll");
    eventfd(3, 0);
    timerfd_create(CLOCK_MONOTONIC, 0);
    memfd_create("crowd memory", 0);
    check(chdir("/tmp/inside"), "chdir");
}

/* One that has ended, one that is stopped, one that waits for a child to let go of its memory. */
static void make_states(void)
{
    pid_t pid = fork();

    if (pid == 0)
        _exit(0);
    pid = fork();
    if (pid == 0) {
        prctl(PR_SET_NAME, "stopped");
        raise(SIGSTOP);
        stay(NULL);
    }
    pid = fork();
    if (pid == 0) {
        prctl(PR_SET_NAME, "uninterrupted");
        if (syscall(SYS_clone, CLONE_VFORK | SIGCHLD, 0, 0, 0, 0) == 0)
            stay("borrower");
    }
}

/* A process in a pid namespace in a pid namespace. */
static void make_namespaces(void)
{
    if (check(fork(), "fork") != 0)
        return;
    prctl(PR_SET_NAME, "(outer) room");
    check(unshare(CLONE_NEWPID), "unshare");
    if (fork() != 0)
        stay(NULL);
    prctl(PR_SET_NAME, "middle");
    check(unshare(CLONE_NEWPID), "unshare");
    if (fork() == 0)
        stay("inner");
    stay(NULL);
}

static void make_threads(void)
{
    static char names[3][16] = {"crowd-one", "crowd-two", "fifteen octets!"};
    pthread_t thread;

    for (int i = 0; i < 3; i++)
        if (pthread_create(&thread, NULL, stay, names[i]) != 0)
            say("WARN crowd thread");
}

void crowd_main(void)
{
    prctl(PR_SET_NAME, "crowd");
    bring_up_loopback();
    make_inet();
    make_unix();
    make_files();
    make_states();
    make_namespaces();
    check(setresgid(2001, 2002, 2003), "gid");
    check(setresuid(1001, 1002, 1003), "uid");
    make_threads();
    say("CROWD pid=%d", getpid());
    stay(NULL);
    _exit(1);
}

void cmd_crowd(char *args)
{
    char *argv[] = {"/init", "crowd", "two words", "", "last", NULL};
    char *envp[] = {"CROWD=everybody", "EMPTY=", NULL};
    pid_t pid;
    int err;

    (void)args;
    err = posix_spawn(&pid, "/init", NULL, NULL, argv, envp);
    if (err)
        say("ERR crowd %s", strerror(err));
    else
        say("OK crowd");
}
