/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "intent.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <vmibus/syscalls.h>

#include "machine.h"

VMIBUS_SYSCALLS("openat rename renameat renameat2 unlink unlinkat")

/* Sixteen digits and the end of the line. */
#define TEXT_LENGTH 17

static bool intent_path(const struct machine *machine, char *path, size_t size) {
    int n;

    if (!machine->sensor->state_directory || !machine->process.pid)
        return false;
    n = snprintf(path, size, "%s/pause-%" PRIu32 "-%" PRIu64, machine->sensor->state_directory,
                 machine->process.pid, machine->process.start_time);

    return n > 0 && (size_t)n < size;
}

void intent_store(const struct machine *machine, uint64_t fingerprint) {
    char path[512], next[520], text[32];
    int fd, n;
    bool whole;

    if (!intent_path(machine, path, sizeof(path)))
        return;
    snprintf(next, sizeof(next), "%s.next", path);
    n = snprintf(text, sizeof(text), "%016" PRIx64 "\n", fingerprint);
    fd = open(next, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return;
    whole = write(fd, text, (size_t)n) == n;
    close(fd);
    if (!whole || rename(next, path) < 0)
        unlink(next);
}

bool intent_load(const struct machine *machine, uint64_t *fingerprintp) {
    char path[512], text[32] = "";
    ssize_t n;
    char *end;
    int fd;

    if (!intent_path(machine, path, sizeof(path)))
        return false;
    fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return false;
    n = read(fd, text, sizeof(text) - 1);
    close(fd);
    if (n != TEXT_LENGTH)
        return false;
    errno = 0;
    *fingerprintp = strtoull(text, &end, 16);

    return !errno && *end == '\n';
}

void intent_remove(const struct machine *machine) {
    char path[512];

    if (intent_path(machine, path, sizeof(path)))
        unlink(path);
}
