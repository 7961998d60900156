/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "directory.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <vmibus/syscalls.h>

#include "vm.h"

VMIBUS_SYSCALLS("connect getdents64 openat readlink readlinkat recvmsg sendto socket")

#define PATTERNS_DEFAULT "*.qmp *.sock"
/* What happens at once is looked at once. */
#define LOOK_NS (20 * NANOSECONDS_PER_MS)
#define RETRY_NS (10000 * NANOSECONDS_PER_MS)

/* --- rules ----------------------------------------------------------------------------------- */

static int add_owner(struct directory_rules *rules, const char *word) {
    char *end;
    unsigned long number = strtoul(word, &end, 10);
    const struct passwd *user = *end ? getpwnam(word) : NULL;
    uid_t *owners;

    if (*end && !user)
        return -EINVAL;
    if (!*end && number >= (uid_t)-1)
        return -EINVAL;
    owners = reallocarray(rules->owners, rules->n_owners + 1, sizeof(*owners));
    if (!owners)
        return -ENOMEM;
    rules->owners = owners;
    owners[rules->n_owners++] = user ? user->pw_uid : (uid_t)number;
    return 0;
}

int directory_rules_set_owners(struct directory_rules *rules, const char *words) {
    char *copy = strdup(words), *rest = NULL;
    int r = copy ? 0 : -ENOMEM;

    for (char *word = r ? NULL : strtok_r(copy, " ", &rest); word && r == 0; word = strtok_r(NULL, " ", &rest))
        r = add_owner(rules, word);
    free(copy);
    return r;
}

void directory_rules_deinit(struct directory_rules *rules) {
    free(rules->patterns);
    free(rules->owners);
    *rules = (struct directory_rules){0};
}

static size_t limit_of(const struct directory_rules *rules) {
    return rules->limit ? rules->limit : DIRECTORY_LIMIT_DEFAULT;
}

static bool is_trusted(const struct directory_rules *rules, uid_t owner) {
    if (owner == 0 || owner == geteuid())
        return true;
    for (size_t i = 0; i < rules->n_owners; i++)
        if (rules->owners[i] == owner)
            return true;
    return false;
}

static bool strangers_may_write(const struct stat *status) {
    return (status->st_mode & S_IWOTH) || ((status->st_mode & S_IWGRP) && status->st_gid != 0 && status->st_gid != getegid());
}

static bool fits(const struct directory_rules *rules, const char *file) {
    const char *at = rules->patterns ? rules->patterns : PATTERNS_DEFAULT;
    char pattern[NAME_MAX + 1];

    while (*(at += strspn(at, " "))) {
        size_t len = strcspn(at, " ");

        if (len < sizeof(pattern)) {
            memcpy(pattern, at, len);
            pattern[len] = '\0';
            if (fnmatch(pattern, file, FNM_PERIOD) == 0)
                return true;
        }
        at += len;
    }
    return false;
}

/* --- telling --------------------------------------------------------------------------------- */

/* The first refusal is told; the others are counted. */
static void __attribute__((format(printf, 2, 3))) refuse(struct directory *directory, const char *format, ...) {
    va_list arguments;
    int n;

    if (directory->n_refused++)
        return;
    n = snprintf(directory->message, sizeof(directory->message), "directory %s: ", directory->path);
    if (n < 0 || (size_t)n >= sizeof(directory->message))
        return;
    va_start(arguments, format);
    vsnprintf(directory->message + n, sizeof(directory->message) - (size_t)n, format, arguments);
    va_end(arguments);
    /* A file's name may hold anything. */
    for (char *at = directory->message; *at; at++)
        if ((unsigned char)*at < ' ' || *at == 0x7f)
            *at = '?';
}

static void tell_how_many(struct directory *directory) {
    size_t len = strlen(directory->message);

    if (directory->n_refused > 1)
        snprintf(directory->message + len, sizeof(directory->message) - len, " (and %u more)", directory->n_refused - 1);
}

/* --- the way to it ----------------------------------------------------------------------------- */

/* Whoever may write to a directory on the way could put another one there. In a sticky one nobody can who does not own it. */
static bool way_is_safe(struct directory *directory, const char *resolved) {
    char way[PATH_MAX];
    struct stat status;

    for (const char *at = resolved; *at; at = strchrnul(at + 1, '/')) {
        size_t len = at == resolved ? 1 : (size_t)(at - resolved);

        memcpy(way, resolved, len);
        way[len] = '\0';
        if (lstat(way, &status) < 0) {
            refuse(directory, "%s: %s", way, strerror(errno));
            return false;
        }
        if (!is_trusted(&directory->qemu->directory_rules, status.st_uid) ||
            (strangers_may_write(&status) && !(status.st_mode & S_ISVTX))) {
            refuse(directory, "%s, on the way to it, may be changed by others than root and vmibusd's user; chmod go-w it", way);
            return false;
        }
    }
    return true;
}

/* A descriptor of the directory, if it is there and to be trusted; else -1. */
static int open_directory(struct directory *directory, char *resolved) {
    struct stat status;
    int fd;

    if (!realpath(directory->path, resolved)) {
        if (errno != ENOENT)
            refuse(directory, "%s", strerror(errno));
        return -1;
    }
    if (!way_is_safe(directory, resolved))
        return -1;
    fd = open(resolved, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) < 0) {
        refuse(directory, "%s", strerror(errno));
    } else if (!is_trusted(&directory->qemu->directory_rules, status.st_uid)) {
        refuse(directory, "its owner, uid %u, is neither root nor vmibusd's user nor in directory-owners", status.st_uid);
    } else if (strangers_may_write(&status)) {
        refuse(directory, "others may write to it, and could make VMs; chmod go-w it");
    } else {
        return fd;
    }
    if (fd >= 0)
        close(fd);
    return -1;
}

/* --- files ------------------------------------------------------------------------------------- */

static bool is_same_file(const struct stat *status, ino_t inode, const struct timespec *changed) {
    return status->st_ino == inode && status->st_ctim.tv_sec == changed->tv_sec && status->st_ctim.tv_nsec == changed->tv_nsec;
}

/* One that is another file by now is not dismissed any more. */
static bool is_dismissed(struct directory *directory, const char *name, const struct stat *status) {
    struct dismissed *dismissed;

    SLIST_FOREACH(dismissed, &directory->dismissed, link)
        if (strcmp(dismissed->name, name) == 0)
            break;
    if (!dismissed)
        return false;
    if (is_same_file(status, dismissed->inode, &dismissed->changed))
        return true;
    SLIST_REMOVE(&directory->dismissed, dismissed, dismissed, link);
    free(dismissed);
    return false;
}

int directory_dismiss(struct directory *directory, const char *name, ino_t inode, struct timespec changed) {
    size_t size = strlen(name) + 1;
    struct dismissed *dismissed = malloc(sizeof(*dismissed) + size);

    if (!dismissed)
        return -ENOMEM;
    dismissed->inode = inode;
    dismissed->changed = changed;
    memcpy(dismissed->name, name, size);
    SLIST_INSERT_HEAD(&directory->dismissed, dismissed, link);
    return 0;
}

static void see_again(struct directory *directory, struct vm *vm, const struct stat *status) {
    bool is_other = !is_same_file(status, vm->file.inode, &vm->file.changed);

    vm->file.seen = directory->looks;
    vm->file.gone = false;
    vm->file.inode = status->st_ino;
    vm->file.changed = status->st_ctim;
    if (is_other)
        vm_try(vm);
}

static void follow(struct directory *directory, const char *path, const char *name, const struct stat *status) {
    struct qemu *qemu = directory->qemu;
    struct vm *vm;
    int r;

    if (qemu->n_vms >= limit_of(&qemu->directory_rules)) {
        refuse(directory, "%s is left alone: %zu VMs are followed already; raise directory-limit", name,
               limit_of(&qemu->directory_rules));
        return;
    }
    r = vm_new(qemu, name, strlen(name), path, directory);
    if (r < 0) {
        refuse(directory, "%s cannot be followed: %s", name, strerror(-r));
        return;
    }
    vm = vm_find(qemu, name);
    vm->file.seen = directory->looks;
    vm->file.inode = status->st_ino;
    vm->file.changed = status->st_ctim;
}

/* Its name without the suffix. False: it names no VM, and why was told. */
static bool name_of(struct directory *directory, const char *file, char *name) {
    const char *dot = strrchr(file, '.');
    size_t len = dot ? (size_t)(dot - file) : strlen(file);

    if (!directory_name_is_valid(file, len)) {
        refuse(directory, "%s is no name of a VM: 1 to %d octets are wanted, no control characters", file, VMIBUS_NAME_BOUND);
        return false;
    }
    memcpy(name, file, len);
    name[len] = '\0';
    return true;
}

static bool is_trusted_socket(struct directory *directory, const char *file, const struct stat *status) {
    if (S_ISLNK(status->st_mode))
        refuse(directory, "%s is a link, which is not followed; let QEMU make its socket here", file);
    else if (!S_ISSOCK(status->st_mode))
        refuse(directory, "%s is no socket; move it away, or set directory-pattern", file);
    else if (!is_trusted(&directory->qemu->directory_rules, status->st_uid))
        refuse(directory, "%s is of uid %u, who is neither root nor vmibusd's user nor in directory-owners", file, status->st_uid);
    else
        return true;
    return false;
}

static void see_file(struct directory *directory, int fd, const char *resolved, const char *file) {
    char name[NAME_MAX + 1], path[PATH_MAX];
    struct stat status;
    struct vm *vm;

    /* What is gone by now is looked at next time. */
    if (fstatat(fd, file, &status, AT_SYMLINK_NOFOLLOW) < 0 || !is_trusted_socket(directory, file, &status) ||
        !name_of(directory, file, name) || is_dismissed(directory, name, &status))
        return;
    vm = vm_find(directory->qemu, name);
    if (snprintf(path, sizeof(path), "%s/%s", resolved, file) >= (int)sizeof(((struct sockaddr_un *)NULL)->sun_path))
        refuse(directory, "the path of %s is too long for a socket; use a shorter one", file);
    else if (!vm)
        follow(directory, path, name, &status);
    else if (vm->file.directory == directory && strcmp(vm->path, path) == 0)
        see_again(directory, vm, &status);
    else if (!vm->file.directory || !vm->file.gone)
        refuse(directory, "%s is left alone: a VM %s is followed already, by %s", file, name, vm->path);
}

/* --- looking ----------------------------------------------------------------------------------- */

static void see_files(struct directory *directory, int fd, const char *resolved) {
    size_t bound = limit_of(&directory->qemu->directory_rules) * DIRECTORY_FILES_PER_VM;
    DIR *entries = fdopendir(fd);
    const struct dirent *entry;

    if (!entries) {
        refuse(directory, "%s", strerror(errno));
        close(fd);
        return;
    }
    while ((entry = readdir(entries))) {
        if (bound-- == 0) {
            refuse(directory, "it has too many files for %zu VMs; give monitors a directory of their own",
                   limit_of(&directory->qemu->directory_rules));
            break;
        }
        if (fits(&directory->qemu->directory_rules, entry->d_name))
            see_file(directory, dirfd(entries), resolved, entry->d_name);
    }
    closedir(entries);
}

/* The VMs whose files are gone go with their processes. */
static void see_gone(struct directory *directory) {
    struct vm *vm, *following;

    for (vm = TAILQ_FIRST(&directory->qemu->vms); vm; vm = following) {
        following = TAILQ_NEXT(vm, link);
        if (vm->file.directory != directory || vm->file.seen == directory->looks)
            continue;
        vm->file.gone = true;
        if (vm_is_absent(vm))
            vm_free(vm);
    }
}

static void on_event(void *userdata) {
    directory_look(userdata);
}

static void watch(struct directory *directory) {
    char below[PATH_MAX];
    int r;

    if (directory->arrival)
        return;
    snprintf(below, sizeof(below), "%s/.", directory->path);
    r = arrival_new(&directory->arrival, directory->qemu->api, directory->qemu->host, below,
                    IN_DELETE | IN_MOVED_FROM | IN_ATTRIB, on_event, directory);
    if (r < 0) {
        directory->arrival = NULL;
        refuse(directory, "it cannot be watched: %s; raise fs.inotify.max_user_instances and max_user_watches", strerror(-r));
        directory->qemu->api->timer_set(directory->timer, RETRY_NS);
    }
}

/* The watch stands before anything is looked at, so nothing is missed. */
static void look(void *userdata) {
    struct directory *directory = userdata;
    char resolved[PATH_MAX];
    int fd;

    directory->looks++;
    directory->n_refused = 0;
    *directory->message = '\0';
    watch(directory);
    fd = open_directory(directory, resolved);
    if (fd >= 0)
        see_files(directory, fd, resolved);
    see_gone(directory);
    tell_how_many(directory);
    qemu_announce(directory->qemu);
}

void directory_look(struct directory *directory) {
    directory->qemu->api->timer_set(directory->timer, LOOK_NS);
}

/* --- coming and going -------------------------------------------------------------------------- */

int directory_new(struct qemu *qemu, const char *path) {
    struct directory *directory = calloc(1, sizeof(*directory));
    int r;

    if (!directory)
        return -ENOMEM;
    directory->qemu = qemu;
    SLIST_INIT(&directory->dismissed);
    directory->path = strdup(path);
    TAILQ_INSERT_TAIL(&qemu->directories, directory, link);
    r = directory->path ? qemu->api->timer_new(qemu->host, look, directory, &directory->timer) : -ENOMEM;
    if (r < 0) {
        directory_free(directory);
        return r;
    }
    qemu->api->timer_set(directory->timer, 1); /* not from within start() */
    return 0;
}

void directory_free(struct directory *directory) {
    struct dismissed *dismissed;

    while ((dismissed = SLIST_FIRST(&directory->dismissed))) {
        SLIST_REMOVE_HEAD(&directory->dismissed, link);
        free(dismissed);
    }
    TAILQ_REMOVE(&directory->qemu->directories, directory, link);
    directory->arrival = arrival_free(directory->arrival);
    directory->qemu->api->timer_free(directory->timer);
    free(directory->path);
    free(directory);
}
