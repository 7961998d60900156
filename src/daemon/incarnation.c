/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/incarnation.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <vmibus/syscalls.h>

#include "daemon/log.h"
#include "util/fds.h"

VMIBUS_SYSCALLS("fsync openat renameat renameat2")

#define FILE_NAME "incarnation"
#define TEMPORARY_NAME "incarnation.new"

static int read_number(int directory, uint32_t *number) {
    _cleanup_fd_ int fd = openat(directory, FILE_NAME, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    char text[32] = "";
    unsigned long value;
    ssize_t length;
    char *end;

    *number = 0;
    if (fd < 0)
        return errno == ENOENT ? 0 : -errno;
    length = read(fd, text, sizeof(text) - 1);
    if (length < 0)
        return -errno;
    errno = 0;
    value = strtoul(text, &end, 10);
    /* Beginning anew after a damaged file could give out numbers that were used. It holds digits and a line's end, nothing else. */
    if (errno || *text < '0' || *text > '9' || *end != '\n' || end + 1 != text + length || value > UINT32_MAX)
        return -EBADMSG;
    *number = (uint32_t)value;
    return 0;
}

static int write_number(int directory, uint32_t number) {
    _cleanup_fd_ int fd = openat(directory, TEMPORARY_NAME, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (fd < 0)
        return -errno;
    if (dprintf(fd, "%u\n", number) < 0 || fsync(fd) < 0)
        return -errno;
    if (renameat(directory, TEMPORARY_NAME, directory, FILE_NAME) < 0 || fsync(directory) < 0)
        return -errno;
    return 0;
}

int incarnation_raise(int directory, uint32_t *incarnation) {
    return incarnation_raise_above(directory, 0, incarnation);
}

int incarnation_raise_or_tell(int directory, const char *path, uint32_t *incarnation) {
    int r = incarnation_raise(directory, incarnation);

    if (r == -EBADMSG)
        log_error("%s/incarnation holds no number; put one there that is higher than any used before", path);
    else if (r < 0)
        log_error("%s/incarnation cannot be raised: %s", path, strerror(-r));
    return r;
}

int incarnation_raise_above(int directory, uint32_t used, uint32_t *incarnation) {
    uint32_t number;
    int r = read_number(directory, &number);

    if (r < 0)
        return r;
    if (number < used)
        number = used;
    if (number == UINT32_MAX)
        return -EOVERFLOW;
    r = write_number(directory, number + 1);
    if (r == 0)
        *incarnation = number + 1;
    return r;
}

int incarnation_keep(int directory, uint32_t incarnation) {
    uint32_t number;
    int r = read_number(directory, &number);

    return r < 0 ? r : number == incarnation ? 0 : -ESTALE;
}
