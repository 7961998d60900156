/* SPDX-License-Identifier: LGPL-2.1-or-later */
#define _GNU_SOURCE
#include "new_file.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "report.h"

static int refuse_existing(const char *path) {
    return report_failure("%s exists: name another file, or give --force to replace it", printable(path));
}

static int fail(const struct new_file *file) {
    return report_failure("%s: %s", printable(file->path), strerror(errno));
}

/* A file system without files that have no name. */
static int begin_named(struct new_file *file) {
    if (asprintf(&file->temporary, "%s.XXXXXX", file->path) < 0) {
        file->temporary = NULL;
        return report_failure("out of memory");
    }
    file->fd = mkostemp(file->temporary, O_CLOEXEC);
    if (file->fd >= 0)
        return STATUS_OK;
    free(file->temporary);
    file->temporary = NULL;
    return fail(file);
}

int new_file_begin(struct new_file *file, const char *path, bool replace) {
    struct stat status;
    char *copy;

    *file = (struct new_file){.path = path, .fd = -1, .replace = replace};
    if (!replace && lstat(path, &status) == 0)
        return refuse_existing(path);
    copy = strdup(path);
    if (!copy)
        return report_failure("out of memory");
    file->fd = open(dirname(copy), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    free(copy);
    if (file->fd >= 0)
        return STATUS_OK;
    return errno == EOPNOTSUPP || errno == EISDIR ? begin_named(file) : fail(file);
}

/* Gives a file without a name this one. */
static int name_it(const struct new_file *file, const char *name) {
    char path[64];

    snprintf(path, sizeof(path), "/proc/self/fd/%d", file->fd);
    return linkat(AT_FDCWD, path, AT_FDCWD, name, AT_SYMLINK_FOLLOW);
}

/* rename(2) alone can replace, so the file gets a name of its own first. */
static int name_for_replacing(struct new_file *file) {
    if (asprintf(&file->temporary, "%s.%ld", file->path, (long)getpid()) < 0) {
        file->temporary = NULL;
        return -1;
    }
    if (name_it(file, file->temporary) == 0)
        return 0;
    free(file->temporary);
    file->temporary = NULL;
    return -1;
}

int new_file_finish(struct new_file *file) {
    if (file->replace && !file->temporary && name_for_replacing(file) < 0)
        return fail(file);
    if (!file->temporary) {
        if (name_it(file, file->path) < 0)
            return errno == EEXIST ? refuse_existing(file->path) : fail(file);
        return STATUS_OK;
    }
    if (renameat2(AT_FDCWD, file->temporary, AT_FDCWD, file->path, file->replace ? 0 : RENAME_NOREPLACE) < 0)
        return errno == EEXIST ? refuse_existing(file->path) : fail(file);
    free(file->temporary);
    file->temporary = NULL;
    return STATUS_OK;
}

void new_file_abandon(struct new_file *file) {
    if (file->temporary)
        unlink(file->temporary);
    free(file->temporary);
    file->temporary = NULL;
    if (file->fd >= 0)
        close(file->fd);
    file->fd = -1;
}
