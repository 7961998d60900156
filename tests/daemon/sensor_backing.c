/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A sensor for tests: VMs whose RAM lies in files of different kinds, made as loosely as others make them.  Each key of its
 * section is a kind, and the name of its VM: memfd, huge (yes), unlinked, named (a path), private-named (a path; mode 0600).
 * At the beginning of the RAM is its name.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <vmibus/sensor.h>
#include <vmibus/syscalls.h>

VMIBUS_SYSCALLS("fchmod ftruncate memfd_create mmap munmap openat unlink")

#define VMS 8
#define RAM_SIZE (UINT64_C(4) << 20)

struct backing {
    struct vmibus_sensor_endpoint *endpoints[VMS];
    int fds[VMS];
    size_t n;
};

static int make_file(const char *kind, const char *path) {
    int fd;

    if (strcmp(kind, "memfd") == 0)
        return memfd_create("backing", MFD_CLOEXEC | MFD_ALLOW_SEALING); /* mode 0777 */
    if (strcmp(kind, "huge") == 0)
        return memfd_create("backing", MFD_CLOEXEC | MFD_HUGETLB);
    fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd >= 0 && strcmp(kind, "private-named") != 0)
        (void)fchmod(fd, 0666);
    if (fd >= 0 && strcmp(kind, "unlinked") == 0)
        (void)unlink(path);
    return fd;
}

/* By a mapping: hugetlbfs cannot be written otherwise. */
static int fill(int fd, const char *name) {
    char *ram;

    if (ftruncate(fd, (off_t)RAM_SIZE) < 0)
        return -errno;
    ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (ram == MAP_FAILED)
        return -errno;
    strcpy(ram, name);
    munmap(ram, RAM_SIZE);
    return 0;
}

static int add(struct backing *backing, struct vmibus_sensor_host *host, const struct vmibus_sensor_api *api,
               const struct vmibus_sensor_option *option) {
    const struct vmibus_layout_range range = {.len = RAM_SIZE};
    const struct vmibus_sensor_offer offer = {.name = option->key, .groups = VMIBUS_GROUP_MEMORY};
    struct vmibus_sensor_layout layout = {.ranges = &range, .n_ranges = 1, .n_fds = 1};
    size_t i = backing->n;
    int r;

    backing->fds[i] = make_file(option->key, option->value);
    if (backing->fds[i] < 0)
        return -errno;
    backing->n++;
    r = fill(backing->fds[i], option->key);
    if (r == 0)
        r = api->offer(host, &offer, backing, &backing->endpoints[i]);
    layout.fds = &backing->fds[i];
    return r == 0 ? api->layout(backing->endpoints[i], &layout) : r;
}

static void stop(void *instance) {
    struct backing *backing = instance;

    for (size_t i = 0; i < backing->n; i++)
        close(backing->fds[i]);
    free(backing);
}

static int start(struct vmibus_sensor_host *host, const struct vmibus_sensor_api *api, const struct vmibus_sensor_option *options,
                 size_t n_options, void **instancep) {
    struct backing *backing = calloc(1, sizeof(*backing));
    int r = 0;

    if (!backing)
        return -ENOMEM;
    for (size_t i = 0; i < n_options && i < VMS && r == 0; i++)
        r = add(backing, host, api, &options[i]);
    if (r < 0) {
        stop(backing);
        return r;
    }
    *instancep = backing;
    return api->announce(host, VMIBUS_SENSOR_STATE_READY, NULL);
}

static int execute(void *instance, void *userdata, const struct vmibus_sensor_command *command) {
    (void)instance;
    (void)userdata;
    (void)command;
    return -EOPNOTSUPP;
}

VMIBUS_PUBLIC const struct vmibus_sensor_module vmibus_sensor_module = {
    .struct_size = sizeof(vmibus_sensor_module),
    .abi = VMIBUS_SENSOR_ABI,
    .name = "backing",
    .groups = VMIBUS_GROUP_MEMORY,
    .start = start,
    .stop = stop,
    .execute = execute,
};
