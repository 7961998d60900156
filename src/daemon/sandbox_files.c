/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The files that stay within reach: Landlock, by its system calls, as no C library has functions for them. */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <vmibus/syscalls.h>

#include "daemon/counts.h"
#include "daemon/log.h"
#include "daemon/sandbox.h"
#include "util/fds.h"

VMIBUS_SYSCALLS("openat")

/* landlock(7); the kernel's header may be older than the kernel. */
#define ACCESS_EXECUTE (1u << 0)
#define ACCESS_WRITE_FILE (1u << 1)
#define ACCESS_READ_FILE (1u << 2)
#define ACCESS_READ_DIR (1u << 3)
#define ACCESS_REMOVE_DIR (1u << 4)
#define ACCESS_REMOVE_FILE (1u << 5)
#define ACCESS_MAKE_CHAR (1u << 6)
#define ACCESS_MAKE_DIR (1u << 7)
#define ACCESS_MAKE_REG (1u << 8)
#define ACCESS_MAKE_SOCK (1u << 9)
#define ACCESS_MAKE_FIFO (1u << 10)
#define ACCESS_MAKE_BLOCK (1u << 11)
#define ACCESS_MAKE_SYM (1u << 12)
#define ACCESS_REFER (1u << 13)     /* version 2 */
#define ACCESS_TRUNCATE (1u << 14)  /* version 3 */
#define ACCESS_IOCTL_DEV (1u << 15) /* version 5 */

#define ACCESS_OF_FILES (ACCESS_EXECUTE | ACCESS_WRITE_FILE | ACCESS_READ_FILE | ACCESS_TRUNCATE | ACCESS_IOCTL_DEV)

#define RULESET_VERSION 1u
#define RULE_PATH_BENEATH 1

#define SCOPE_ABSTRACT_UNIX_SOCKET (1u << 0) /* version 6 */

/* A kernel that knows less of it takes it as long as the rest is zero. */
struct ruleset {
    uint64_t handled_fs;
    uint64_t handled_net;
    uint64_t scoped;
};

struct path_beneath {
    uint64_t allowed;
    int32_t parent;
} __attribute__((packed));

#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#define SYS_landlock_add_rule 445
#define SYS_landlock_restrict_self 446
#endif

static int landlock_version(void) {
    int version = (int)syscall(SYS_landlock_create_ruleset, NULL, 0, RULESET_VERSION);

    return version < 0 ? -errno : version;
}

/* Every access that a version knows of. */
static uint64_t known_accesses(int version) {
    uint64_t accesses = ACCESS_REFER - 1;

    if (version >= 2)
        accesses |= ACCESS_REFER;
    if (version >= 3)
        accesses |= ACCESS_TRUNCATE;
    if (version >= 5)
        accesses |= ACCESS_IOCTL_DEV;
    return accesses;
}

static uint64_t accesses_of(unsigned access) {
    uint64_t accesses = 0;

    if (access & (SANDBOX_READ | SANDBOX_WRITE))
        accesses |= ACCESS_READ_FILE | ACCESS_READ_DIR;
    if (access & SANDBOX_WRITE)
        accesses |= ACCESS_WRITE_FILE | ACCESS_TRUNCATE | ACCESS_MAKE_REG | ACCESS_MAKE_DIR | ACCESS_MAKE_SOCK |
                    ACCESS_REMOVE_FILE | ACCESS_REMOVE_DIR | ACCESS_REFER;
    if (access & SANDBOX_REMOVE)
        accesses |= ACCESS_REMOVE_FILE;
    return accesses;
}

static int add_path(int ruleset, uint64_t handled, const struct sandbox_path *path) {
    struct path_beneath rule = {.allowed = accesses_of(path->access) & handled};
    _cleanup_fd_ int fd = -1;
    struct stat st;

    if (!path->path)
        return 0;
    fd = open(path->path, O_PATH | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT || errno == EACCES ? 0 : -errno;
    if (fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISDIR(st.st_mode))
        rule.allowed &= ACCESS_OF_FILES;
    rule.parent = fd;
    return syscall(SYS_landlock_add_rule, ruleset, RULE_PATH_BENEATH, &rule, 0) < 0 ? -errno : 0;
}

static int restrict_to(int version, const struct sandbox_path *paths, size_t n_paths, bool abstract) {
    const struct ruleset attributes = {
        .handled_fs = known_accesses(version),
        .scoped = version >= 6 && !abstract ? SCOPE_ABSTRACT_UNIX_SOCKET : 0,
    };
    _cleanup_fd_ int ruleset = (int)syscall(SYS_landlock_create_ruleset, &attributes, sizeof(attributes), 0);
    const struct sandbox_path counts = {.path = COUNTS_FOLDER, .access = SANDBOX_WRITE};
    int r = ruleset < 0 ? -errno : add_path(ruleset, attributes.handled_fs, &counts);

    for (size_t i = 0; r == 0 && i < n_paths; i++)
        r = add_path(ruleset, attributes.handled_fs, &paths[i]);
    if (r == 0 && syscall(SYS_landlock_restrict_self, ruleset, 0) < 0)
        r = -errno;
    return r;
}

int sandbox_limit_files(enum sandbox_wish wish, const struct sandbox_path *paths, size_t n_paths, bool abstract) {
    int r;

    if (wish == SANDBOX_NO)
        return 0;
    r = landlock_version();
    if (r > 0)
        r = restrict_to(r, paths, n_paths, abstract);
    if (r >= 0)
        return 0;
    if (wish == SANDBOX_REQUIRE) {
        log_error("files cannot be taken out of reach: %s; boot a kernel with Landlock, or say 'sandbox = yes'", strerror(-r));
        return r;
    }
    log_warning("files stay within reach: this kernel has no Landlock (%s)", strerror(-r));
    return 0;
}
