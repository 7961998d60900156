/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "policy/principal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <vmibus/syscalls.h>

#include "util/fds.h"

VMIBUS_SYSCALLS("getsockopt openat pidfd_open pidfd_send_signal")

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

#define STATUS_MAX 8192

/*
 * By each of these a process can open a file that its mode and owner keep from it: at once, or after it has changed the
 * file, itself, a program, another process or the kernel.
 */
#define CAPABILITY(name) (UINT64_C(1) << (name))
static const uint64_t opening = CAPABILITY(CAP_CHOWN) | CAPABILITY(CAP_DAC_OVERRIDE) | CAPABILITY(CAP_FOWNER) |
                                CAPABILITY(CAP_SETUID) | CAPABILITY(CAP_SETGID) | CAPABILITY(CAP_SETPCAP) |
                                CAPABILITY(CAP_SETFCAP) | CAPABILITY(CAP_SYS_ADMIN) | CAPABILITY(CAP_SYS_CHROOT) |
                                CAPABILITY(CAP_SYS_MODULE) | CAPABILITY(CAP_SYS_PTRACE) | CAPABILITY(CAP_SYS_RAWIO) |
                                CAPABILITY(CAP_MAC_ADMIN) | CAPABILITY(CAP_MAC_OVERRIDE) | CAPABILITY(CAP_MKNOD);

/* A pidfd of the peer; the pid alone, where the socket gives none, may have become another's. */
static int open_peer(int fd, pid_t pid) {
    socklen_t length = sizeof(int);
    int pidfd;

    if (getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &length) == 0)
        return pidfd;
    if (errno != ENOPROTOOPT)
        return -1;
    return pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
}

static bool is_alive(int pidfd) {
    return syscall(SYS_pidfd_send_signal, pidfd, 0, NULL, 0) == 0 || errno == EPERM;
}

static bool read_status(pid_t pid, char text[STATUS_MAX]) {
    _cleanup_fd_ int fd = -1;
    ssize_t n;

    snprintf(text, STATUS_MAX, "/proc/%d/status", (int)pid);
    fd = open(text, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return false;
    n = read(fd, text, STATUS_MAX - 1);
    text[n > 0 ? n : 0] = '\0';
    return n > 0;
}

/* The lines "Uid:", "CapPrm:" and "CapEff:" of proc(5). The name in the first line cannot imitate one: its newlines are escaped. */
static bool parse_status(const char *text, struct principal *principal) {
    const char *uids = strstr(text, "\nUid:"), *permitted = strstr(text, "\nCapPrm:"), *effective = strstr(text, "\nCapEff:");
    unsigned int real, current, saved, file_system;
    uint64_t can_raise, has;

    if (!uids || !permitted || !effective ||
        sscanf(uids, "\nUid: %u %u %u %u", &real, &current, &saved, &file_system) != 4 ||
        sscanf(permitted, "\nCapPrm: %" SCNx64, &can_raise) != 1 || sscanf(effective, "\nCapEff: %" SCNx64, &has) != 1)
        return false;
    principal->others[0] = real;
    principal->others[1] = saved;
    principal->others[2] = file_system;
    principal->n_others = 3;
    principal->is_privileged = ((can_raise | has) & opening) != 0;
    return true;
}

static void learn_reach(struct principal *principal, int fd) {
    _cleanup_fd_ int pidfd = open_peer(fd, principal->pid);
    char text[STATUS_MAX];

    principal->is_privileged = true;
    if (pidfd < 0 || principal->pid <= 0 || !read_status(principal->pid, text) || !is_alive(pidfd))
        return;
    if (!parse_status(text, principal))
        principal->is_privileged = true;
}

int principal_from_socket(struct principal *principal, int fd) {
    struct ucred credentials;
    socklen_t length = sizeof(credentials);

    *principal = (struct principal){};
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length) < 0)
        return -errno;
    principal->uid = credentials.uid;
    principal->gid = credentials.gid;
    principal->pid = credentials.pid;
    length = sizeof(principal->groups);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, principal->groups, &length) == 0)
        principal->n_groups = length / sizeof(gid_t);
    else if (errno != ERANGE)
        return -errno;
    /* With more groups than fit, the supplementary ones grant nothing: less right is safe, more is not. */
    learn_reach(principal, fd);
    return 0;
}

int principal_from_self(struct principal *principal) {
    int n;

    *principal = (struct principal){.uid = geteuid(), .gid = getegid(), .is_self = true};
    n = getgroups(PRINCIPAL_GROUPS, principal->groups);
    if (n < 0)
        return errno == EINVAL ? 0 : -errno;
    principal->n_groups = (size_t)n;
    return 0;
}

bool principal_can_be(const struct principal *principal, uid_t uid) {
    if (principal->uid == uid)
        return true;
    for (size_t i = 0; i < principal->n_others; i++)
        if (principal->others[i] == uid)
            return true;
    return false;
}

bool principal_in_group(const struct principal *principal, gid_t gid) {
    if (principal->gid == gid)
        return true;
    for (size_t i = 0; i < principal->n_groups; i++)
        if (principal->groups[i] == gid)
            return true;
    return false;
}
