/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What asking whether an epoch goes on costs a reader: vmibus_epoch_is_current() before and after each look at something, on
 * a page that is shared as epoch pages are.
 */
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include <vmibus/client.h>

#include "bench.h"

#define RUNS 101
#define LOOKS 500000u
#define EPOCH 7u

__attribute__((noinline)) static unsigned ask(const struct vmibus_attachment *attachment, const volatile uint64_t *word) {
    unsigned current = 0;

    for (unsigned i = 0; i < LOOKS; i++) {
        current += vmibus_epoch_is_current(attachment);
        (void)*word;
        current += vmibus_epoch_is_current(attachment);
    }
    return current;
}

static int measure(struct bench *bench, const struct vmibus_epoch_page *page) {
    const struct vmibus_attachment attachment = {.epoch = EPOCH, .current = &page->epoch};
    double samples[RUNS];
    uint64_t word = 1;

    for (unsigned i = 0; i < RUNS; i++) {
        uint64_t start = bench_now();

        if (ask(&attachment, &word) != 2 * LOOKS)
            return -EBADMSG;
        samples[i] = (double)(bench_now() - start) / (2.0 * LOOKS);
    }
    bench_tell(bench, bench_median(samples, RUNS), "ns", BENCH_AT_MOST, 2, "asking whether an epoch goes on");
    return 0;
}

/* As the authority makes a page and a reader maps it. */
static int share_page(const struct vmibus_epoch_page **page) {
    int fd = memfd_create("epoch", MFD_CLOEXEC);
    struct vmibus_epoch_page *written;

    if (fd < 0 || ftruncate(fd, 4096) < 0)
        return -errno;
    written = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    *page = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (written == MAP_FAILED || *page == MAP_FAILED)
        return -ENOMEM;
    written->epoch = EPOCH;
    return 0;
}

int main(int argc, char **argv) {
    const struct vmibus_epoch_page *page = NULL;
    struct bench bench;
    int r = bench_begin(&bench, "epoch", argc, argv);

    if (r)
        return r;
    r = bench_place(true);
    if (r == 0)
        r = share_page(&page);
    if (r == 0)
        r = measure(&bench, page);
    return bench_end(&bench, r);
}
