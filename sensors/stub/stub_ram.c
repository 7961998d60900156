/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* RAM of a synthetic VM: see stub_ram.h. */
#include "stub_ram.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <vmibus/syscalls.h>

VMIBUS_SYSCALLS("fallocate ftruncate memfd_create")

struct stub_ram *stub_ram_new(unsigned vm, uint64_t size) {
    struct stub_ram *ram = calloc(1, sizeof(*ram));

    if (!ram)
        return NULL;
    ram->references = 1;
    ram->vm = vm;
    ram->size = size;
    return ram;
}

struct stub_ram *stub_ram_ref(struct stub_ram *ram) {
    ram->references++;
    return ram;
}

static void ram_close(struct stub_ram *ram) {
    size_t i;

    if (ram->ring)
        munmap(ram->ring, STUB_INPUT_SIZE);
    ram->ring = NULL;
    for (i = 0; i < ram->n_fds; i++)
        close(ram->fds[i]);
    ram->n_fds = 0;
}

struct stub_ram *stub_ram_unref(struct stub_ram *ram) {
    if (ram && --ram->references == 0) {
        ram_close(ram);
        free(ram);
    }
    return NULL;
}

static int object_open(struct stub_ram *ram, uint64_t size) {
    char name[48];
    int fd;

    snprintf(name, sizeof(name), "vmibus-stub-%u-%zu", ram->vm, ram->n_fds);
    fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -errno;
    ram->fds[ram->n_fds] = fd;
    ram->sizes[ram->n_fds++] = size;
    if (ftruncate(fd, (off_t)size) < 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0)
        return -errno;
    return 0;
}

static int ring_map(struct stub_ram *ram) {
    void *ring = mmap(NULL, STUB_INPUT_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, ram->fds[0],
                      (off_t)STUB_INPUT_GPA);

    if (ring == MAP_FAILED)
        return -errno;
    ram->ring = ring;
    return 0;
}

int stub_ram_open(struct stub_ram *ram) {
    uint64_t low = stub_low_size(ram->vm, ram->size);
    int r = object_open(ram, low);

    if (r == 0 && low < ram->size)
        r = object_open(ram, ram->size - low);
    if (r == 0)
        r = ring_map(ram);
    if (r < 0)
        ram_close(ram);
    return r;
}

int stub_ram_reopen(struct stub_ram *ram, const int *fds, const uint64_t *sizes, size_t n) {
    int r = 0;

    for (size_t i = 0; r == 0 && i < n; i++) {
        int fd = fcntl(fds[i], F_DUPFD_CLOEXEC, 3);
        struct stat st;

        if (fd < 0) {
            r = -errno;
            break;
        }
        ram->fds[ram->n_fds] = fd;
        ram->sizes[ram->n_fds++] = sizes[i];
        if (fstat(fd, &st) < 0 || (uint64_t)st.st_size != sizes[i])
            r = -EINVAL;
    }
    if (r == 0)
        r = ring_map(ram);
    if (r < 0)
        ram_close(ram);
    return r;
}

int stub_ram_clear(struct stub_ram *ram) {
    size_t i;

    for (i = 0; i < ram->n_fds; i++)
        if (fallocate(ram->fds[i], FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
                      (off_t)ram->sizes[i]) < 0)
            return -errno;
    return 0;
}

/* The descriptor of the object that has all of it. -ERANGE: none has. */
static int object_find(const struct stub_ram *ram, uint64_t gpa, size_t len, uint64_t *offset) {
    size_t object = gpa >= STUB_HIGH_GPA && stub_is_split(ram->vm) ? 1 : 0;

    *offset = object == 1 ? gpa - STUB_HIGH_GPA : gpa;
    if (object >= ram->n_fds || len > ram->sizes[object] || *offset > ram->sizes[object] - len)
        return -ERANGE;
    return ram->fds[object];
}

int stub_ram_read(const struct stub_ram *ram, uint64_t gpa, void *data, size_t len) {
    uint64_t offset;
    int fd = object_find(ram, gpa, len, &offset);
    ssize_t got;

    if (fd < 0)
        return fd;
    got = pread(fd, data, len, (off_t)offset);
    if (got < 0)
        return -errno;
    return (size_t)got == len ? 0 : -EIO;
}

int stub_ram_write(struct stub_ram *ram, uint64_t gpa, const void *data, size_t len) {
    uint64_t offset;
    int fd = object_find(ram, gpa, len, &offset);
    ssize_t written;

    if (fd < 0)
        return fd;
    written = pwrite(fd, data, len, (off_t)offset);
    if (written < 0)
        return -errno;
    return (size_t)written == len ? 0 : -ENOSPC;
}

size_t stub_ram_ranges(const struct stub_ram *ram,
                       struct vmibus_layout_range ranges[STUB_RANGES_MAXIMUM]) {
    size_t i;

    for (i = 0; i < ram->n_fds; i++)
        ranges[i] = (struct vmibus_layout_range){
            .gpa = i == 0 ? 0 : STUB_HIGH_GPA,
            .len = ram->sizes[i],
            .location = 0,
            .object = (uint16_t)i,
        };
    return ram->n_fds;
}
