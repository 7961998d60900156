/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The parser of /proc/PID/maps. */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "harness.h"
#include "memory/maps.h"
#include "util/fds.h"

static int parse(const char *line, struct maps_entry *entry) {
    return maps_parse_line(line, strlen(line), entry);
}

TEST(test_maps_lines) {
    struct maps_entry entry;

    ck_assert_int_eq(parse("7f0000000000-7f0000200000 rw-s 00100000 00:01 1234567     "
                           "                  /memfd:ram (deleted)",
                           &entry),
                     0);
    ck_assert_uint_eq(entry.start, 0x7f0000000000);
    ck_assert_uint_eq(entry.end, 0x7f0000200000);
    ck_assert_uint_eq(entry.offset, 0x100000);
    ck_assert_uint_eq(entry.device_major, 0);
    ck_assert_uint_eq(entry.device_minor, 1);
    ck_assert_uint_eq(entry.inode, 1234567);
    ck_assert(entry.readable && entry.writable && entry.shared && !entry.special);
    ck_assert_int_eq(parse("1000-2000 ---p 00000000 fd:1f 0", &entry), 0);
    ck_assert(!entry.readable && !entry.writable && !entry.shared && !entry.special);
    ck_assert_uint_eq(entry.device_major, 0xfd);
    ck_assert_uint_eq(entry.device_minor, 0x1f);
    ck_assert_int_eq(parse("1000-2000 rw-p 00000000 00:00 0    [heap]", &entry), 0);
    ck_assert(entry.special);
    ck_assert_int_eq(parse("1000-2000 rw-p 00000000 00:00 0    [anon:ram]", &entry), 0);
    ck_assert(!entry.special);
    ck_assert_int_eq(parse("1000-2000 rw-p 00000000 00:00 0    [", &entry), 0);
    ck_assert(entry.special);
    ck_assert_int_eq(parse("1000-2000 rw-s 00000000 00:01 5    [heap]", &entry), 0);
    ck_assert(!entry.special); /* a file may be called anything */
    ck_assert_int_eq(parse("ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0  [vsyscall]",
                           &entry),
                     0);
}

TEST(test_maps_malformed_lines) {
    static const char *const wrong[] = {
        "",
        " ",
        "-",
        "1000",
        "1000-",
        "1000-2000",
        "1000-2000 ",
        "1000-2000 rw-s",
        "1000-2000 rw-s ",
        "1000-2000 rw-s 0",
        "1000-2000 rw-s 0 ",
        "1000-2000 rw-s 0 00:01",
        "1000-2000 rw-s 0 00:01 ",
        "1000-2000 rw-s 0 00-01 5",
        "1000-2000 rwxs0 0 00:01 5",
        "1000-2000 rw?s 0 00:01 5",
        "1000-2000 rw-x 0 00:01 5",
        "1000-2000 rw-s 0 00:01 5f",
        "1000-2000 rw-s 0 00:01 -5",
        "2000-1000 rw-s 0 00:01 5",
        "1000-1000 rw-s 0 00:01 5",
        "1000-0x2000 rw-s 0 00:01 5",
        "+1000-2000 rw-s 0 00:01 5",
        "10000000000000000-20000000000000000 rw-s 0 00:01 5",
        "1000-2000 rw-s 0 100000000:01 5",
        "1000-2000 rw-s 0 00:01 18446744073709551616",
    };
    struct maps_entry entry;

    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        ck_assert_msg(parse(wrong[i], &entry) == -EBADMSG, "taken: %s", wrong[i]);
    ck_assert_int_eq(parse("1000-2000 rw-s 0 ffffffff:ffffffff 18446744073709551615", &entry), 0);
}

TEST(test_maps_texts) {
    static const char good[] = "1000-2000 rw-p 0 00:00 0\n2000-3000 rw-p 0 00:00 0\n";
    static const char overlapping[] = "1000-2001 rw-p 0 00:00 0\n2000-3000 rw-p 0 00:00 0\n";
    static const char half[] = "1000-2000 rw-p 0 00:00 0\n2000-3000 rw-p 0 00:00 0";
    struct maps maps = {};

    ck_assert_int_eq(maps_parse(&maps, good, strlen(good)), 0);
    ck_assert_uint_eq(maps.n_entries, 2);
    ck_assert_ptr_null(maps_find(&maps, 0xfff));
    ck_assert_ptr_eq(maps_find(&maps, 0x1000), &maps.entries[0]);
    ck_assert_ptr_eq(maps_find(&maps, 0x1fff), &maps.entries[0]);
    ck_assert_ptr_eq(maps_find(&maps, 0x2000), &maps.entries[1]);
    ck_assert_ptr_null(maps_find(&maps, 0x3000));
    maps_deinit(&maps);
    ck_assert_int_eq(maps_parse(&maps, "", 0), 0);
    ck_assert_ptr_null(maps_find(&maps, 0));
    ck_assert_int_eq(maps_parse(&maps, overlapping, strlen(overlapping)), -EBADMSG);
    maps_deinit(&maps);
    ck_assert_int_eq(maps_parse(&maps, half, strlen(half)), -EBADMSG);
    maps_deinit(&maps);
}

/* A process with more mappings than anybody needs is refused, not followed. */
TEST(test_p09_maps_are_bounded) {
    size_t n = MAPS_ENTRIES_MAX + 1, room = n * 64, len = 0;
    char *text = malloc(room);
    struct maps maps = {};

    for (size_t i = 1; i <= n; i++)
        len += (size_t)snprintf(text + len, room - len, "%zx000-%zx000 rw-p 0 00:00 0\n", i, i + 1);
    ck_assert_int_eq(maps_parse(&maps, text, len), -EFBIG);
    maps_deinit(&maps);
    free(text);
}

TEST(test_p09_endless_text_is_bounded) {
    int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    struct maps maps = {};

    ck_assert_int_eq(maps_read(&maps, fd), -EFBIG);
    maps_deinit(&maps);
    fd_close(fd);
}

TEST(test_maps_of_this_process) {
    int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC), memfd = memfd_create("a\nb", 0);
    const struct maps_entry *entry;
    struct maps maps = {};
    void *map;

    ck_assert_int_eq(ftruncate(memfd, 8192), 0);
    map = mmap(NULL, 4096, PROT_READ, MAP_SHARED, memfd, 4096);
    ck_assert_int_eq(maps_read(&maps, fd), 0);
    entry = maps_find(&maps, (uintptr_t)map);
    ck_assert_ptr_nonnull(entry);
    ck_assert_uint_eq(entry->offset, 4096);
    ck_assert(entry->shared && entry->readable && !entry->writable);
    entry = maps_find(&maps, (uintptr_t)__builtin_frame_address(0));
    ck_assert_ptr_nonnull(entry);
    /* The stack that valgrind gives to a program has no name. */
    ck_assert(entry->special || harness_is_under_valgrind());
    maps_deinit(&maps);
    munmap(map, 4096);
    fd_close(memfd);
    fd_close(fd);
}

HARNESS_SUITE("memory: maps", HARNESS_QUICK)
