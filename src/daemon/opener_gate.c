/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/opener_gate.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <vmibus/syscalls.h>

#include "daemon/trusted_file.h"
#include "memory/maps.h"
#include "util/fds.h"
#include "util/list.h"

VMIBUS_SYSCALLS("fstatfs openat readlink readlinkat")

#define STATUS_MAX 8192
#define DELETED " (deleted)"

static struct opener_gate *gate_of(const struct opener *opener) {
    return container_of((struct opener *)opener, struct opener_gate, opener);
}

static int refuse(struct opener_gate *gate, const char *rule) {
    gate->refused = rule;
    return -EACCES;
}

static int gone_or(int error) {
    return error == ENOENT || error == ESRCH ? -ESRCH : -error;
}

/* --- the executable ---------------------------------------------------------------------------- */

static bool is_named_executable(const struct opener_config *rules, const char *path) {
    for (size_t i = 0; i < rules->n_executables; i++)
        if (fnmatch(rules->executables[i], path, FNM_PATHNAME | FNM_NOESCAPE) == 0)
            return true;
    return false;
}

/* Of vmibus are those that lie where this program lies, and are called as ours are. */
static bool is_vmibus(const char *path) {
    char own[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", own, sizeof(own) - 1);
    const char *slash = strrchr(path, '/');
    size_t folder = slash ? (size_t)(slash - path) + 1 : 0;

    if (n < 0 || strncmp(slash ? slash + 1 : path, "vmibus", strlen("vmibus")) != 0)
        return n < 0;
    own[n] = '\0';
    return strncmp(own, path, folder) == 0 && !strchr(own + folder, '/');
}

/*
 * A path is of the mount namespace of the process, which may show another file there than ours does: so what lies there for us must
 * be the very file that runs. One that was replaced since, as upgrades do, lies nowhere; it must be root's, and of the same file
 * system as the folder from which it came.
 */
static bool is_same_file(const char *path, const struct stat *running, bool deleted) {
    struct stat st;
    char folder[PATH_MAX];
    char *slash;

    if (!deleted)
        return stat(path, &st) == 0 && st.st_dev == running->st_dev && st.st_ino == running->st_ino;
    snprintf(folder, sizeof(folder), "%s", path);
    slash = strrchr(folder, '/');
    if (!slash || running->st_nlink != 0)
        return false;
    *slash = '\0';
    return stat(*folder ? folder : "/", &st) == 0 && st.st_dev == running->st_dev && trusted_is_roots(&st);
}

static int check_executable(struct opener_gate *gate, int directory) {
    struct stat running;
    char path[PATH_MAX];
    ssize_t n = readlinkat(directory, "exe", path, sizeof(path) - 1);
    bool deleted;

    if (n < 0 || fstatat(directory, "exe", &running, 0) < 0)
        return gone_or(errno);
    path[n] = '\0';
    deleted = n > (ssize_t)strlen(DELETED) && strcmp(path + n - strlen(DELETED), DELETED) == 0;
    if (deleted)
        path[n - (ssize_t)strlen(DELETED)] = '\0';
    if (is_vmibus(path))
        return refuse(gate, "it is a program of vmibus");
    if (!is_named_executable(gate->rules, path))
        return refuse(gate, "[opener] executables does not name what it runs");
    if (!is_same_file(path, &running, deleted))
        return refuse(gate, "what it runs is not what lies at that path on the host");
    return trusted_is_roots(&running) ? 0 : refuse(gate, "others than root can change what it runs");
}

/* --- the process ------------------------------------------------------------------------------- */

static int read_status(int directory, char text[static STATUS_MAX]) {
    _cleanup_fd_ int fd = openat(directory, "status", O_RDONLY | O_CLOEXEC);
    ssize_t n;

    if (fd < 0)
        return gone_or(errno);
    n = read(fd, text, STATUS_MAX - 1);
    if (n <= 0)
        return n < 0 ? gone_or(errno) : -ESRCH;
    text[n] = '\0';
    return 0;
}

/* proc(5): real, effective, saved and filesystem user; the name of the process, which is its own choice, has no line feed. */
static int check_user(struct opener_gate *gate, int directory) {
    char text[STATUS_MAX];
    const char *line;
    uid_t uids[4];
    pid_t group, pid;
    int r = read_status(directory, text);

    if (r < 0)
        return r;
    line = strstr(text, "\nTgid:");
    if (!line || sscanf(line, "\nTgid: %d", &group) != 1)
        return -ESRCH;
    line = strstr(line, "\nPid:");
    if (!line || sscanf(line, "\nPid: %d", &pid) != 1)
        return -ESRCH;
    line = strstr(line, "\nUid:");
    if (!line || sscanf(line, "\nUid: %u %u %u %u", &uids[0], &uids[1], &uids[2], &uids[3]) != 4)
        return -ESRCH;
    if (group != pid)
        return refuse(gate, "it is a thread, not a process");
    if (uids[1] != uids[0] || uids[2] != uids[0] || uids[3] != uids[0])
        return refuse(gate, "it has more than one user");
    return opener_users_contain(&gate->rules->users, uids[0]) ? 0 : refuse(gate, "[opener] users does not name its user");
}

static int check(struct opener_gate *gate, int directory) {
    int r = check_user(gate, directory);

    return r < 0 ? r : check_executable(gate, directory);
}

/*
 * The directory in /proc stays that of one process, and says so when that is dead. The opener finds the process by its number and
 * start time between two looks at one directory, so it is that very process.
 */
static int enter(struct opener_gate *gate, const struct opener_process *process, int *directory) {
    char path[32];
    int r;

    *directory = -1;
    gate->refused = NULL;
    if (process->pid == 1 || process->pid == (uint32_t)gate->own || process->pid == (uint32_t)getpid() ||
        process->pid == (uint32_t)gate->asker)
        return refuse(gate, "it is process 1, vmibus-opend or who asks");
    snprintf(path, sizeof(path), "/proc/%" PRIu32, process->pid);
    *directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (*directory < 0)
        return gone_or(errno);
    r = check(gate, *directory);
    if (r < 0)
        *directory = fd_close(*directory);
    return r;
}

/* Gives a descriptor back if the process is still what it was. */
static int leave_consume_fd(struct opener_gate *gate, int directory, int fd) {
    int r = fd < 0 ? fd : check(gate, directory);

    if (r < 0 && fd >= 0)
        fd_close(fd);
    fd_close(directory);
    return r < 0 ? r : fd;
}

typedef int (*open_fn)(const struct opener *opener, const struct opener_process *process);

static int pass(const struct opener *opener, const struct opener_process *process, open_fn fn) {
    struct opener_gate *gate = gate_of(opener);
    int directory, r = enter(gate, process, &directory);

    return r < 0 ? r : leave_consume_fd(gate, directory, fn(gate->inner, process));
}

static int gate_open_maps(const struct opener *opener, const struct opener_process *process) {
    return pass(opener, process, gate_of(opener)->inner->open_maps);
}

static int gate_open_process(const struct opener *opener, const struct opener_process *process) {
    return pass(opener, process, gate_of(opener)->inner->open_process);
}

static int pass_memory(const struct opener *opener, const struct opener_process *process, open_fn fn) {
    struct opener_gate *gate = gate_of(opener);

    return gate->rules->process_memory ? pass(opener, process, fn) : refuse(gate, "[opener] process-memory is 'no'");
}

static int gate_open_memory(const struct opener *opener, const struct opener_process *process) {
    return pass_memory(opener, process, gate_of(opener)->inner->open_memory);
}

static int gate_open_memory_to_read(const struct opener *opener, const struct opener_process *process) {
    return pass_memory(opener, process, gate_of(opener)->inner->open_memory_to_read);
}

static int gate_open_pagemap(const struct opener *opener, const struct opener_process *process) {
    return pass(opener, process, gate_of(opener)->inner->open_pagemap);
}

/* --- files ------------------------------------------------------------------------------------- */

static bool is_mapped_so(const struct maps *maps, const struct opener_file *file, int flags) {
    for (size_t i = 0; i < maps->n_entries; i++) {
        const struct maps_entry *entry = &maps->entries[i];

        if (entry->inode == file->inode && entry->device_major == file->device_major &&
            entry->device_minor == file->device_minor && (flags == O_RDONLY || (entry->shared && entry->writable)))
            return true;
    }
    return false;
}

static int check_mapped(struct opener_gate *gate, int directory, const struct opener_file *file, int flags) {
    _cleanup_fd_ int text = openat(directory, "maps", O_RDONLY | O_CLOEXEC);
    struct maps maps = {};
    bool mapped;
    int r;

    if (text < 0)
        return gone_or(errno);
    r = maps_read(&maps, text);
    mapped = r == 0 && is_mapped_so(&maps, file, flags);
    maps_deinit(&maps);
    if (r < 0)
        return r;
    if (mapped)
        return 0;
    return refuse(gate, flags == O_RDONLY ? "it has no such file mapped" : "it has no such file mapped shared and writable");
}

/* Attributes are taken without asking a server that may never answer; the file system is asked only once they have been seen. */
static int check_memory(struct opener_gate *gate, int fd, struct stat *st) {
    struct statx attributes;
    struct statfs fs;

    if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_BASIC_STATS, &attributes) < 0)
        return -errno;
    if (!S_ISREG(attributes.stx_mode))
        return refuse(gate, "it is no regular file");
    if (!opener_users_contain(&gate->rules->users, attributes.stx_uid))
        return refuse(gate, "[opener] users does not name the owner of the file");
    if (fstatfs(fd, &fs) < 0 || fstat(fd, st) < 0)
        return -errno;
    return fs.f_type == TMPFS_MAGIC || fs.f_type == HUGETLBFS_MAGIC ? 0 : refuse(gate, "the file is not in memory");
}

static int gate_open_file(const struct opener *opener, const struct opener_process *process, const struct opener_file *file,
                          int flags) {
    struct opener_gate *gate = gate_of(opener);
    struct stat st;
    int directory, fd, r;

    r = enter(gate, process, &directory);
    if (r < 0)
        return r;
    r = check_mapped(gate, directory, file, flags);
    fd = r < 0 ? r : gate->inner->open_file(gate->inner, process, file, flags);
    r = fd < 0 ? fd : check_memory(gate, fd, &st);
    if (r < 0 && fd >= 0)
        fd_close(fd);
    return leave_consume_fd(gate, directory, r < 0 ? r : fd);
}

static int gate_tighten(const struct opener *opener, int fd, mode_t mode) {
    struct opener_gate *gate = gate_of(opener);
    const mode_t owners = S_IRUSR | S_IWUSR;
    struct stat st;
    int r;

    gate->refused = NULL;
    r = check_memory(gate, fd, &st);
    if (r < 0)
        return r;
    if (st.st_nlink != 0)
        return refuse(gate, "the file has a name");
    if ((mode & ~st.st_mode) != 0 || (st.st_mode & owners & ~mode) != 0)
        return refuse(gate, "the mode has bits that the file has not, or lacks what its owner has");
    return gate->inner->tighten(gate->inner, fd, mode);
}

void opener_gate_init(struct opener_gate *gate, const struct opener *inner, const struct opener_config *rules, pid_t own,
                      pid_t asker) {
    *gate = (struct opener_gate){
        .opener =
            {
                .open_maps = gate_open_maps,
                .open_process = gate_open_process,
                .open_memory = gate_open_memory,
                .open_memory_to_read = gate_open_memory_to_read,
                .open_pagemap = gate_open_pagemap,
                .open_file = gate_open_file,
                .tighten = gate_tighten,
            },
        .inner = inner,
        .rules = rules,
        .own = own,
        .asker = asker,
    };
}
