/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fake_tables.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define ENTRY_TABLE UINT64_C(7) /* present, writable, user */
#define ENTRY_ADDRESS UINT64_C(0xffffffffff000)

uint64_t fake_tables_random(struct fake_tables *tables) {
    tables->seed ^= tables->seed << 13;
    tables->seed ^= tables->seed >> 7;
    tables->seed ^= tables->seed << 17;
    return tables->seed;
}

static int make_pages(struct fake_tables *tables) {
    tables->n_free = (size_t)(tables->size / FAKE_PAGE) - 1;
    tables->free = malloc(tables->n_free * sizeof(*tables->free));
    if (!tables->free)
        return -ENOMEM;
    for (size_t i = 0; i < tables->n_free; i++)
        tables->free[i] = (i + 1) * FAKE_PAGE;
    for (size_t i = tables->n_free; i > 1; i--) {
        size_t other = (size_t)(fake_tables_random(tables) % i);
        uint64_t gpa = tables->free[i - 1];

        tables->free[i - 1] = tables->free[other];
        tables->free[other] = gpa;
    }
    return 0;
}

int fake_tables_init(struct fake_tables *tables, uint64_t size) {
    *tables = (struct fake_tables){.size = size, .seed = 88172645463325252u};
    tables->fd = memfd_create("ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (tables->fd < 0 || ftruncate(tables->fd, (off_t)size) < 0 || fcntl(tables->fd, F_ADD_SEALS, F_SEAL_SHRINK) < 0)
        return -errno;
    tables->memory = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, tables->fd, 0);
    if (tables->memory == MAP_FAILED) {
        tables->memory = NULL;
        return -errno;
    }
    memset(tables->memory, 1, (size_t)size);
    return make_pages(tables);
}

void fake_tables_deinit(struct fake_tables *tables) {
    if (tables->memory)
        munmap(tables->memory, (size_t)tables->size);
    if (tables->fd >= 0)
        close(tables->fd);
    free(tables->free);
}

uint64_t fake_tables_page(struct fake_tables *tables) {
    uint64_t gpa;

    if (tables->n_free == 0)
        abort();
    gpa = tables->free[--tables->n_free];
    memset(tables->memory + gpa, 0, FAKE_PAGE);
    return gpa;
}

void fake_tables_map(struct fake_tables *tables, const struct vmibus_guest_root *root, uint64_t gva, uint64_t gpa) {
    uint64_t table = root->cr3;

    for (unsigned level = root->levels;; level--) {
        uint64_t *entry = fake_tables_at(tables, table) + (gva >> (3 + 9 * level) & 511);

        if (level == 1) {
            *entry = gpa | ENTRY_TABLE;
            return;
        }
        if (*entry == 0)
            *entry = fake_tables_page(tables) | ENTRY_TABLE;
        table = *entry & ENTRY_ADDRESS;
    }
}
