/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "memory/memctx.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/fds.h"

int memctx_new(struct memctx **memctxp) {
    struct memctx *memctx = calloc(1, sizeof(*memctx));

    if (!memctx)
        return -ENOMEM;
    memctx->refs = 1;
    memctx->process_fd = -1;
    memctx->memory_fd = -1;
    memctx->pagemap_fd = -1;
    memctx->maps_fd = -1;
    memctx->zeros_fd = -1;
    list_init(&memctx->retiring.link);
    *memctxp = memctx;
    return 0;
}

struct memctx *memctx_ref(struct memctx *memctx) {
    memctx->refs++;
    return memctx;
}

static void close_objects(struct memctx *memctx) {
    for (size_t i = 0; i < memctx->n_objects; i++)
        ram_object_deinit(&memctx->objects[i]);
    memctx->n_objects = 0;
    memctx->process_fd = fd_close(memctx->process_fd);
    memctx->memory_fd = fd_close(memctx->memory_fd);
    memctx->pagemap_fd = fd_close(memctx->pagemap_fd);
    memctx->maps_fd = fd_close(memctx->maps_fd);
    memctx->zeros_fd = fd_close(memctx->zeros_fd);
    charge_release(&memctx->descriptors);
}

struct memctx *memctx_unref(struct memctx *memctx) {
    if (!memctx)
        return NULL;
    if (--memctx->refs > 0) {
        /* Whoever is attached has descriptors of its own: the sensor does not pay for how long it stays. */
        if (memctx_ended(memctx) && memctx->refs == memctx->attachments)
            close_objects(memctx);
        return NULL;
    }
    assert(memctx->attachments == 0);
    retire_end(memctx);
    close_objects(memctx);
    account_unref(memctx->account);
    free(memctx->objects);
    free(memctx->ranges);
    free(memctx->addresses);
    free(memctx->process_ranges);
    free(memctx);
    return NULL;
}

void memctx_abandon(struct memctx *memctx) {
    retire_end(memctx);
    memctx->retiring.authority = NULL;
    charge_release(&memctx->descriptors);
    memctx->account = account_unref(memctx->account);
}

ptrdiff_t memctx_locate(const struct memctx *memctx, uint64_t gpa) {
    size_t low = 0, high = memctx->n_ranges;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct vmibus_ram_range *range = &memctx->ranges[middle];

        if (gpa < range->gpa)
            high = middle;
        else if (gpa - range->gpa >= range->len)
            low = middle + 1;
        else
            return (ptrdiff_t)middle;
    }
    return -1;
}

bool memctx_is_same_layout(const struct memctx *a, const struct memctx *b) {
    return a->n_ranges == b->n_ranges &&
           memcmp(a->ranges, b->ranges, a->n_ranges * sizeof(*a->ranges)) == 0;
}

static bool is_same_object(const struct ram_object *a, const struct ram_object *b) {
    return a->is_file == b->is_file && a->file.device_major == b->file.device_major &&
           a->file.device_minor == b->file.device_minor && a->file.inode == b->file.inode &&
           a->base == b->base && a->writable == b->writable && a->sealed == b->sealed;
}

bool memctx_is_same_backing(const struct memctx *a, const struct memctx *b) {
    if (a->process.pid != b->process.pid || a->process.start_time != b->process.start_time ||
        a->n_objects != b->n_objects)
        return false;
    for (size_t i = 0; i < a->n_objects; i++)
        if (!is_same_object(&a->objects[i], &b->objects[i]))
            return false;
    return a->n_ranges == b->n_ranges &&
           memcmp(a->addresses, b->addresses, a->n_ranges * sizeof(*a->addresses)) == 0;
}

static bool is_same_file(const struct ram_object *a, const struct ram_object *b) {
    return a->is_file && b->is_file && a->file.device_major == b->file.device_major &&
           a->file.device_minor == b->file.device_minor && a->file.inode == b->file.inode;
}

bool memctx_shares_memory(const struct memctx *a, const struct memctx *b) {
    if (a->process.pid && a->process.pid == b->process.pid && a->process.start_time == b->process.start_time)
        return true;
    for (size_t i = 0; i < a->n_objects; i++)
        for (size_t j = 0; j < b->n_objects; j++)
            if (is_same_file(&a->objects[i], &b->objects[j]))
                return true;
    return false;
}

int memctx_is_whole(const struct memctx *memctx) {
    for (size_t i = 0; i < memctx->n_objects; i++) {
        int r = ram_object_is_whole(&memctx->objects[i]);

        if (r <= 0)
            return r;
    }
    return 1;
}
