/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "monitor.h"

/* How the path of a backend begins, and its region's name on machine types older than 4.0. */
#define OBJECTS_PREFIX "/objects/"

/* What QEMU allows in an id (util/id.c, id_wellformed()). */
static bool is_well_formed(const char *name) {
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._";
    size_t len = strlen(name);

    return len && len + strlen(OBJECTS_PREFIX) <= MTREE_NAME_BOUND && strspn(name, allowed) == len;
}

static bool take_size(json_object *object, const char *key, uint64_t *sizep) {
    json_object *member = monitor_member(object, key, json_type_int);
    int64_t size = member ? json_object_get_int64(member) : -1;

    *sizep = (uint64_t)size;

    return size >= 0;
}

static int take_backend(struct backends *backends, json_object *memdev) {
    struct backend *backend = &backends->list[backends->n_backends];
    const char *name = monitor_string(memdev, "id");

    if (!name || !*name)
        return json_object_is_type(memdev, json_type_object) ? 0 : BACKENDS_MALFORMED;
    if (!is_well_formed(name) || !take_size(memdev, "size", &backend->size) ||
        backends_find(backends, name))
        return BACKENDS_MALFORMED;
    strcpy(backend->name, name);
    backend->is_ram = true;
    backends->n_backends++;

    return 0;
}

int backends_take(struct backends *backends, json_object *memdevs) {
    size_t n;
    int r = 0;

    if (!json_object_is_type(memdevs, json_type_array))
        return BACKENDS_MALFORMED;
    n = json_object_array_length(memdevs);
    if (n > BACKENDS_BOUND)
        return BACKENDS_TOO_MANY;
    backends->list = calloc(n ? n : 1, sizeof(*backends->list));
    if (!backends->list)
        return -ENOMEM;
    for (size_t i = 0; i < n && !r; i++)
        r = take_backend(backends, json_object_array_get_idx(memdevs, i));
    if (!r && !backends->n_backends)
        r = BACKENDS_NONE;
    if (r)
        backends_deinit(backends);

    return r;
}

/* Whether a memory device shows RAM. */
static int is_ram(json_object *data, const char *type, bool *ramp) {
    uint64_t size;

    *ramp = strcmp(type, "dimm") == 0;
    if (strcmp(type, "virtio-mem") != 0)
        return 0;
    if (!take_size(data, "size", &size))
        return BACKENDS_MALFORMED;
    *ramp = size != 0;

    return 0;
}

static int take_device(struct backends *backends, json_object *device) {
    const char *type = monitor_string(device, "type");
    json_object *data = monitor_member(device, "data", json_type_object);
    const char *memdev = monitor_string(data, "memdev");
    struct backend *backend;
    bool ram;
    int r;

    if (!type || !data)
        return BACKENDS_MALFORMED;
    r = is_ram(data, type, &ram);
    if (r)
        return r;
    backend = memdev ? backends_find(backends, memdev) : NULL;
    if (backend)
        backend->is_ram = backend->is_ram && ram;

    return 0;
}

int backends_take_devices(struct backends *backends, json_object *devices) {
    size_t n;
    int r = 0;

    if (!json_object_is_type(devices, json_type_array))
        return BACKENDS_MALFORMED;
    n = json_object_array_length(devices);
    if (n > BACKENDS_BOUND)
        return BACKENDS_TOO_MANY;
    for (size_t i = 0; i < n && !r; i++)
        r = take_device(backends, json_object_array_get_idx(devices, i));

    return r;
}

void backends_deinit(struct backends *backends) {
    free(backends->list);
    *backends = (struct backends){0};
}

struct backend *backends_find(const struct backends *backends, const char *region) {
    if (strncmp(region, OBJECTS_PREFIX, strlen(OBJECTS_PREFIX)) == 0)
        region += strlen(OBJECTS_PREFIX);
    for (size_t i = 0; i < backends->n_backends; i++)
        if (strcmp(backends->list[i].name, region) == 0)
            return &backends->list[i];

    return NULL;
}

bool backend_locate(struct backend *backend, uint64_t offset, uint64_t len, uint64_t location) {
    uint64_t begin, end;

    if (__builtin_add_overflow(offset, len, &end) || end > backend->size ||
        __builtin_sub_overflow(location, offset, &begin) ||
        __builtin_add_overflow(begin, backend->size, &end))
        return false;
    if (backend->is_located)
        return backend->location == begin;
    backend->location = begin;
    backend->is_located = true;

    return true;
}
