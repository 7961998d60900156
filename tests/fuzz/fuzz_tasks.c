/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fuzz target: tasks, files and sockets of a kernel that is sound but for some numbers. The input is records of 16 octets: which
 * read it is before (4), where (4; the upper two bits say how the next is meant), what (8: a number, an address in the kernel,
 * what stands at such an address, or a distance from it). Every visit ends within a bound of reads, and gives nothing that it
 * should not.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz/target.h"
#include "guest_lib/task_image.h"

#define RECORDS 64
#define LIVE 0x40000u /* what numbers are put in: the image is built below */
#define READS_BOUND 20000000

struct record {
    uint32_t when, where;
    uint64_t what;
};

static struct image *image;
static struct record records[RECORDS];
static uint64_t before[RECORDS];
static size_t n_records, n_applied;

static uint64_t place_of(const struct record *record) {
    return IMAGE_BASE + 4096 + record->where % (LIVE / 8) * 8;
}

static uint64_t value_of(const struct image *here, const struct record *record) {
    uint64_t address = IMAGE_BASE + 4096 + record->what % (LIVE / 8) * 8;

    switch (record->where >> 30) {
    case 0:
        return record->what;
    case 1:
        return address;
    case 2:
        return image_get(here, address);
    default:
        return image_get(here, place_of(record)) + (uint64_t)(int8_t)record->what * 8;
    }
}

static void apply(struct image *here, uint64_t gpa) {
    (void)gpa;
    if (here->reads > READS_BOUND)
        abort();
    while (n_applied < n_records && records[n_applied].when <= here->reads) {
        before[n_applied] = image_get(here, place_of(&records[n_applied]));
        image_put(here, place_of(&records[n_applied]), value_of(here, &records[n_applied]), 8);
        n_applied++;
    }
}

static void build(void) {
    uint64_t first, fds, sock, file;

    image = image_new();
    first = image_process(image, 1, 0, "first");
    image_thread(image, first, 2, "thread");
    image_thread(image, first, 3, "thread");
    image_process(image, 4, 1, "fourth");
    image_process(image, 5, 4, "fifth");
    fds = image_table(image, first, 64);
    sock = image_sock(image, image->listening, 3, 16, 500);
    file = image_file(image, 500, 0140777, 0x534f434b);
    image_put(image, file + FILE_PRIVATE, image_get(image, sock + SOCK_SOCKET), 8);
    image_put(image, fds + 24, file, 8);
    image_put(image, fds + 32, image_file(image, 501, 010600, 0x50495045), 8);
    image_sock(image, image->connected, 5, 8, 502);
    image_sock(image, image->connected, 5, 8, 503);
    image_sock(image, image->datagrams, 5, 16, 504);
    image_sock(image, image->locals, 5, 8, 505);
    if (image->used > LIVE + 4096)
        abort();
    image->before_read = apply;
}

static bool see_file(void *context, const struct vmibus_linux_file *file) {
    (void)context;
    if (memchr(file->name, 0, sizeof(file->name)) == NULL || (!file->named && file->name[0]))
        abort();
    return true;
}

static bool see_task(void *context, const struct vmibus_linux_task *task) {
    struct vmibus_linux_picture picture;
    char text[256];
    size_t len;

    if (task->pid == 0 || task->pid > 4194304 || task->n_nested > VMIBUS_LINUX_NESTED_MAX || task->comm[15])
        abort();
    if (++*(unsigned *)context > 50)
        return false;
    if (vmibus_linux_read_arguments(&image->kernel, task, text, sizeof(text), &len) < 0 || len > sizeof(text) ||
        vmibus_linux_read_environment(&image->kernel, task, text, sizeof(text), &len) < 0 || len > sizeof(text) ||
        vmibus_linux_visit_files(&image->kernel, task, see_file, NULL, &picture) < 0)
        abort();
    return true;
}

static bool see_socket(void *context, const struct vmibus_linux_socket *socket) {
    (void)context;
    if (socket->name_len > VMIBUS_LINUX_UNIX_NAME_MAX || socket->kind > VMIBUS_LINUX_SOCKET_UNIX)
        abort();
    return true;
}

static int by_time(const void *a, const void *b) {
    const struct record *one = a, *other = b;

    return one->when < other->when ? -1 : one->when > other->when;
}

FUZZ_TARGET(tasks) {
    struct vmibus_linux_picture picture;
    struct vmibus_linux_task task;
    unsigned n = 0;

    if (!image)
        build();
    n_records = size / sizeof(struct record) < RECORDS ? size / sizeof(struct record) : RECORDS;
    n_applied = 0;
    memcpy(records, data, n_records * sizeof(struct record));
    for (size_t i = 0; i < n_records; i++)
        records[i].when %= 4096;
    qsort(records, n_records, sizeof(records[0]), by_time);
    image->reads = 0;
    if (vmibus_linux_visit_tasks(&image->kernel, true, see_task, &n, &picture) < 0 ||
        vmibus_linux_find_task(&image->kernel, 5, &task) < 0 ||
        vmibus_linux_visit_sockets(&image->kernel, see_socket, NULL, &picture) < 0)
        abort();
    for (size_t i = n_applied; i-- > 0;)
        image_put(image, place_of(&records[i]), before[i], 8);
    return 0;
}
