/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "identity.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <vmibus/syscalls.h>

#include "machine/machine.h"

VMIBUS_SYSCALLS("openat")

/* Octets of a process's arguments looked at: libvirt spends some hundred on each device. */
#define ARGUMENTS_BOUND ((size_t)1 << 20)

/* The value of a parameter in the URI's query. Returns a string to be freed, or NULL. */
static char *parameter(const char *uri, const char *name) {
    const char *at = strchr(uri, '?');
    size_t len = strlen(name);

    while (at) {
        at++;
        if (strncmp(at, name, len) == 0 && at[len] == '=')
            return strndup(at + len + 1, strcspn(at + len + 1, "&#"));
        at = strchr(at, '&');
    }

    return NULL;
}

/* The folder of the user's own libvirtd. */
static char *session_directory(const char *uri) {
    char *socket = parameter(uri, "socket"), *directory = NULL;
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    int n = -1;

    if (socket && strrchr(socket, '/'))
        n = asprintf(&directory, "%.*s/qemu/run", (int)(strrchr(socket, '/') - socket), socket);
    else if (!socket && runtime)
        n = asprintf(&directory, "%s/libvirt/qemu/run", runtime);
    free(socket);

    return n < 0 ? NULL : directory;
}

char *identity_directory(const char *uri) {
    const char *authority = strstr(uri, "://"), *path = authority ? strchr(authority + 3, '/') : NULL;
    size_t len = path ? strcspn(path, "?#") : 0;

    /* A host in the URI is another one. */
    if (!path || path != authority + 3)
        return NULL;
    if (len == strlen("/system") && strncmp(path, "/system", len) == 0)
        return strdup("/run/libvirt/qemu");
    if (len == strlen("/session") && strncmp(path, "/session", len) == 0)
        return session_directory(uri);

    return NULL;
}

bool identity_has_uuid(const char *arguments, size_t len, const uint8_t *uuid) {
    const char *end = arguments + len;
    bool next = false;

    while (arguments < end) {
        size_t n = strnlen(arguments, (size_t)(end - arguments));
        uint8_t found[16];

        if (arguments + n == end)
            return false; /* cut off */
        if (next)
            return machine_parse_uuid(arguments, found) && memcmp(found, uuid, sizeof(found)) == 0;
        next = strcmp(arguments, "-uuid") == 0;
        arguments += n + 1;
    }

    return false;
}

static bool has_arguments(uint32_t pid, const uint8_t *uuid) {
    char path[32], *text = malloc(ARGUMENTS_BOUND);
    size_t len = 0;
    ssize_t n = 0;
    bool has;
    int fd;

    snprintf(path, sizeof(path), "/proc/%u/cmdline", pid);
    fd = text ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    while (fd >= 0 && len < ARGUMENTS_BOUND && (n = read(fd, text + len, ARGUMENTS_BOUND - len)) > 0)
        len += (size_t)n;
    if (fd >= 0)
        close(fd);
    has = text && n >= 0 && identity_has_uuid(text, len, uuid);
    free(text);

    return has;
}

/* Reads the process's number, and who owns the file. 0: there is none. */
static uint32_t read_number(const char *directory, const char *name, uid_t *ownerp) {
    char path[PATH_MAX], text[16] = "", *end;
    struct stat status;
    unsigned long pid;
    ssize_t n = -1;
    int fd;

    if (strchr(name, '/') || snprintf(path, sizeof(path), "%s/%s.pid", directory, name) >= (int)sizeof(path))
        return 0;
    fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return 0;
    if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode))
        n = read(fd, text, sizeof(text) - 1);
    close(fd);
    if (n <= 0 || *text < '1' || *text > '9')
        return 0;
    pid = strtoul(text, &end, 10);
    *ownerp = status.st_uid;

    return (*end == '\0' || *end == '\n') && pid <= INT_MAX ? (uint32_t)pid : 0;
}

void identity_find(const char *directory, const char *name, const uint8_t *uuid, struct process *process) {
    uid_t owner;
    uint32_t pid = directory ? read_number(directory, name, &owner) : 0;

    *process = (struct process)PROCESS_NONE;
    if (!pid || process_of_pid(pid, process) < 0 || !process->pid)
        return;
    if ((owner != 0 && owner != process->uid) || !has_arguments(pid, uuid) || process_has_ended(process))
        process_deinit(process);
}
