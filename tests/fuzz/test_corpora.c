/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Each fuzz target is shown what is committed in its folder of tests/fuzz/corpus: what a fuzzer once found stays found, with any
 * compiler and sanitizer.
 */
#include <errno.h>
#include <fcntl.h>
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "harness.h"

typedef int (*target_fn)(const uint8_t *data, size_t size);

/* In a block of its own, so that a sanitizer sees what is read beyond. */
static void show_file(target_fn target, int directory, const char *name) {
    int fd = openat(directory, name, O_RDONLY | O_CLOEXEC);
    struct stat st;
    uint8_t *data;

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(fstat(fd, &st), 0);
    data = malloc(st.st_size ? (size_t)st.st_size : 1);
    ck_assert_int_eq(read(fd, data, (size_t)st.st_size), st.st_size);
    close(fd);
    (void)target(data, (size_t)st.st_size);
    free(data);
}

static void show_corpus(const char *name, target_fn target) {
    const char *top = getenv("top_srcdir");
    const struct dirent *entry;
    char path[4096];
    unsigned n = 0;
    DIR *directory;

    snprintf(path, sizeof(path), "%s/tests/fuzz/corpus/%s", top ? top : ".", name);
    directory = opendir(path);
    ck_assert_msg(directory != NULL, "%s: there is no corpus (errno %d)", path, errno);
    while ((entry = readdir(directory))) {
        if (entry->d_name[0] == '.')
            continue;
        fprintf(stderr, "%s/%s\n", name, entry->d_name);
        show_file(target, dirfd(directory), entry->d_name);
        n++;
    }
    closedir(directory);
    ck_assert_uint_gt(n, 0);
}

/* Some targets keep what they need as long as the process lives. */
#define CORPUS(name)                                                                  \
    int fuzz_##name(const uint8_t *data, size_t size);                                \
    TEST(test_p09_corpus_of_##name, .timeout = 120, .ignore_fds = true) {             \
        show_corpus(#name, fuzz_##name);                                              \
    }

CORPUS(audit_chain)
CORPUS(btf)
CORPUS(client)
CORPUS(config)
CORPUS(frames)
CORPUS(handover)
CORPUS(kallsyms)
CORPUS(link_to_bus)
CORPUS(link_to_memory)
CORPUS(manifest)
CORPUS(maps)
CORPUS(note)
CORPUS(opener)
CORPUS(opener_config)
CORPUS(pagewalk)
CORPUS(peers)
CORPUS(ppm)
CORPUS(printk)
CORPUS(root)
CORPUS(scan)
CORPUS(sensor_peer)
CORPUS(shape)
CORPUS(space)
CORPUS(tasks)
#ifdef HAVE_JSON_C /* what sensors of hosts read of a monitor */
CORPUS(backends)
CORPUS(gpa2hva)
CORPUS(mtree)
CORPUS(qmp)
CORPUS(registers)
CORPUS(stat)
CORPUS(vcpu_registers)
#endif

HARNESS_SUITE("corpora", HARNESS_QUICK)
