/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "differential/guest.h"

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "stub/stub_map.h"

/* What no extent of data may be missing from: everything that a test writes to in the lower object. */
#define WINDOW_BEGIN UINT64_C(0x200000)
#define WINDOW_END UINT64_C(0xd00000)
#define STEP (UINT64_C(64) << 10)

static int open_object(pid_t daemon, unsigned vm, unsigned object) {
    char directory[32], path[64 + 256], target[128], wanted[64];
    struct dirent *entry;
    int fd = -1;
    DIR *list;

    snprintf(directory, sizeof(directory), "/proc/%d/fd", daemon);
    snprintf(wanted, sizeof(wanted), "/memfd:vmibus-stub-%u-%u (deleted)", vm, object);
    list = opendir(directory);
    ck_assert_ptr_nonnull(list);
    while (fd < 0 && (entry = readdir(list))) {
        ssize_t n;

        snprintf(path, sizeof(path), "%s/%s", directory, entry->d_name);
        n = readlink(path, target, sizeof(target) - 1);
        if (n > 0) {
            target[n] = '\0';
            if (strcmp(target, wanted) == 0)
                fd = open(path, O_RDONLY | O_CLOEXEC);
        }
    }
    closedir(list);
    return fd;
}

static void read_at(int fd, void *data, size_t length, uint64_t offset) {
    ck_assert_int_eq(pread(fd, data, length, (off_t)offset), (ssize_t)length);
}

/* Calls for each stretch of data. */
static void each_extent(int fd, uint64_t size, void (*call)(void *context, uint64_t begin, uint64_t end), void *context) {
    off_t begin, end = 0;

    while ((uint64_t)end < size && (begin = lseek(fd, end, SEEK_DATA)) >= 0) {
        end = lseek(fd, begin, SEEK_HOLE);
        ck_assert_int_gt(end, begin);
        call(context, (uint64_t)begin, (uint64_t)end);
    }
}

struct object_view {
    const struct guest *guest;
    unsigned object;
};

static void copy_extent(void *context, uint64_t begin, uint64_t end) {
    const struct object_view *view = context;

    read_at(view->guest->fds[view->object], view->guest->shadows[view->object] + begin, end - begin, begin);
}

void guest_open(struct guest *guest, pid_t daemon, unsigned vm) {
    guest_close(guest);
    *guest = (struct guest){.vm = vm, .fds = {-1, -1}};
    for (unsigned i = 0; i < (stub_is_split(vm) ? 2u : 1u); i++) {
        struct object_view view = {.guest = guest, .object = i};
        struct stat st;

        guest->fds[i] = open_object(daemon, vm, i);
        ck_assert_int_ge(guest->fds[i], 0);
        ck_assert_int_eq(fstat(guest->fds[i], &st), 0);
        guest->sizes[i] = (uint64_t)st.st_size;
        guest->shadows[i] = mmap(NULL, guest->sizes[i], PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        ck_assert_ptr_ne(guest->shadows[i], MAP_FAILED);
        each_extent(guest->fds[i], guest->sizes[i], copy_extent, &view);
    }
}

void guest_close(struct guest *guest) {
    for (unsigned i = 0; i < GUEST_OBJECTS; i++) {
        if (!guest->shadows[i])
            continue;
        munmap(guest->shadows[i], guest->sizes[i]);
        close(guest->fds[i]);
    }
    *guest = (struct guest){};
}

static unsigned object_of(uint64_t *gpa) {
    unsigned object = *gpa >= STUB_HIGH_GPA;

    *gpa -= object ? STUB_HIGH_GPA : 0;
    return object;
}

uint8_t *guest_at(const struct guest *guest, uint64_t gpa) {
    unsigned object = object_of(&gpa);

    ck_assert_uint_lt(gpa, guest->sizes[object]);
    return guest->shadows[object] + gpa;
}

void guest_read(const struct guest *guest, uint64_t gpa, void *data, size_t length) {
    unsigned object = object_of(&gpa);

    read_at(guest->fds[object], data, length, gpa);
}

static void compare_extent(void *context, uint64_t begin, uint64_t end) {
    const struct object_view *view = context;
    const uint8_t *shadow = view->guest->shadows[view->object];
    static uint8_t data[STEP];

    for (uint64_t at = begin, n; at < end; at += n) {
        n = end - at < STEP ? end - at : STEP;
        read_at(view->guest->fds[view->object], data, n, at);
        for (uint64_t i = 0; i < n && memcmp(data + i, shadow + at + i, n - i) != 0; i++) {
            if (data[i] == shadow[at + i] || (view->object == 0 && at + i - STUB_INPUT_GPA < STUB_INPUT_SIZE))
                continue;
            ck_abort_msg("stub-%u: the octet at %#llx of object %u is %#x, should be %#x", view->guest->vm,
                         (unsigned long long)(at + i), view->object, data[i], shadow[at + i]);
        }
    }
}

void guest_compare(const struct guest *guest) {
    for (unsigned i = 0; i < GUEST_OBJECTS && guest->shadows[i]; i++) {
        struct object_view view = {.guest = guest, .object = i};

        each_extent(guest->fds[i], guest->sizes[i], compare_extent, &view);
        compare_extent(&view, WINDOW_BEGIN, WINDOW_END);
    }
}
