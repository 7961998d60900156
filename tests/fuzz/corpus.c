/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuzz/corpus.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* In a block of its own, so that a sanitizer sees what is read beyond. */
static void show_file(fuzz_target_fn target, int directory, const char *name) {
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

void corpus_show(const char *name, fuzz_target_fn target) {
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
