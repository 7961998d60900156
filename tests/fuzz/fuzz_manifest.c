/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Fuzz target: a sensor's manifest.  What is accepted names itself, and a module beside it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "daemon/manifest.h"
#include "fuzz/target.h"

static int fd = -1;
static char directory[] = "/tmp/vmibus-fuzz-manifest.XXXXXX";
static char path[64];

static void remove_directory(void) {
    unlink(path);
    rmdir(directory);
}

/* A link to what is written anew for each input. */
static void make_directory(void) {
    char file[64];

    fd = memfd_create("manifest", MFD_CLOEXEC);
    if (fd < 0 || !mkdtemp(directory))
        abort();
    snprintf(file, sizeof(file), "/proc/self/fd/%d", fd);
    snprintf(path, sizeof(path), "%s/name.sensor", directory);
    if (symlink(file, path) < 0)
        abort();
    atexit(remove_directory);
}

FUZZ_TARGET(manifest) {
    static struct config_error error;
    struct manifest manifest;
    int r;

    if (fd < 0)
        make_directory();
    if (ftruncate(fd, 0) < 0 || pwrite(fd, data, size, 0) != (ssize_t)size)
        abort();
    r = manifest_read(&manifest, directory, "name", &error);
    if (r < 0 ? !error.text[0] : strcmp(manifest.name, "name") != 0 || !manifest.module[0] || strchr(manifest.module, '/'))
        abort();
    return 0;
}
