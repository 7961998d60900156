/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Plain loads; see mapping.h. */
#include "mapping.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <vmibus/syscalls.h>

#include "util/octets.h"

VMIBUS_SYSCALLS("fstatfs")

/* The clock that file times are taken from moves in steps; two changes in one step look like one. */
#define CLOCK_STEP_NS UINT64_C(20000000)

/* Words of marks that a bit of used stands for. */
#define WORDS_TOGETHER 64u

/* The marks where nothing is mapped: of the first pages, none. */
static uint64_t no_marks[1];

/* --- making ----------------------------------------------------------------------------------- */

/* The size counts that the file has once it cannot shrink any more: so the seals are looked at first. */
static bool may_be_mapped(int fd, struct stat *status) {
    struct statfs fs;
    int seals = fcntl(fd, F_GET_SEALS);

    return seals >= 0 && seals & F_SEAL_SHRINK && fstat(fd, status) == 0 && status->st_size > 0 && fstatfs(fd, &fs) == 0 &&
           fs.f_type == TMPFS_MAGIC;
}

/*
 * Where the process locks all its future memory, mmap() would bring in each page of what can be read, holes too: so it
 * cannot be read at first.
 */
static bool map_unlocked(uint8_t *where, size_t len, int fd, uint64_t offset) {
    if (mmap(where, len, PROT_NONE, MAP_SHARED | MAP_NORESERVE | MAP_FIXED, fd, (off_t)offset) ==
        MAP_FAILED)
        return false;
    if (munlock(where, len) < 0 || mprotect(where, len, PROT_READ) < 0)
        return false;
    /* Neither in a core file nor in a child is a guest's memory wanted; failing is no harm. */
    (void)madvise(where, len, MADV_DONTDUMP);
    (void)madvise(where, len, MADV_DONTFORK);
    return true;
}

static void look_first(struct mapping_file *file, int fd) {
    struct stat status;

    if (!may_be_mapped(fd, &status))
        return;
    file->is_mapped = true;
    file->size = (uint64_t)status.st_size;
    file->blocks = status.st_blocks;
    file->changed = status.st_ctim;
}

static uint64_t nanoseconds(const struct timespec *time) {
    return (uint64_t)time->tv_sec * 1000000000u + (uint64_t)time->tv_nsec;
}

static uint64_t now(void) {
    struct timespec time;

    clock_gettime(CLOCK_REALTIME, &time);
    return nanoseconds(&time);
}

/* The whole pages of a range that its file has now; then they stay. */
static bool find_pages(const struct mapping *mapping, const struct vmibus_ram_range *range,
                       uint64_t *gpa, uint64_t *end) {
    const struct mapping_file *file = &mapping->files[range->object];
    uint64_t there = file->size > range->offset ? file->size - range->offset : 0;
    uint64_t range_end = range->gpa + (there < range->len ? there : range->len);

    *gpa = (range->gpa + PAGING_PAGE_SIZE - 1) & ~(PAGING_PAGE_SIZE - 1);
    *end = (range_end < mapping->space_size ? range_end : mapping->space_size) & ~(PAGING_PAGE_SIZE - 1);
    return file->is_mapped && (range->gpa ^ range->offset) % PAGING_PAGE_SIZE == 0 && *gpa < *end;
}

static bool map_ranges(struct mapping *mapping) {
    uint8_t *space = mmap(NULL, (size_t)mapping->space_size, PROT_NONE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    bool any = false;

    if (space == MAP_FAILED)
        return false;
    mapping->space = space;
    for (size_t i = 0; i < mapping->n_ranges; i++) {
        const struct vmibus_ram_range *range = &mapping->ranges[i];
        uint64_t gpa, end;

        if (!find_pages(mapping, range, &gpa, &end) ||
            !map_unlocked(space + gpa, (size_t)(end - gpa), mapping->fds[range->object],
                          range->offset + (gpa - range->gpa)))
            continue;
        mapping->ends[i] = end;
        any = true;
    }
    return any;
}

static void set_limit(struct mapping *mapping, uint64_t limit) {
    mapping->limit = limit;
    mapping->outside = PAGING_ADDRESS & -limit;
    mapping->table_bits = mapping->outside | PAGING_PRESENT | PAGING_LARGE;
    mapping->page_bits = mapping->outside | PAGING_PRESENT;
}

static int make_marks(struct mapping *mapping) {
    uint64_t limit = MAPPING_WORD, words;

    while (limit < mapping->space_size)
        limit *= 2;
    words = limit / MAPPING_WORD;
    mapping->used = calloc(words / WORDS_TOGETHER / 64 + 1, sizeof(*mapping->used));
    mapping->marks = calloc(words, sizeof(*mapping->marks));
    if (!mapping->used || !mapping->marks)
        return -ENOMEM;
    set_limit(mapping, limit);
    return 0;
}

static void unmap(struct mapping *mapping) {
    if (mapping->space)
        munmap((void *)(uintptr_t)mapping->space, (size_t)mapping->space_size);
    mapping->space = NULL;
}

int mapping_init(struct mapping *mapping, const struct vmibus_ram_range *ranges, size_t n_ranges,
                 const int *fds, size_t n_fds, bool may_map) {
    uint64_t end = ranges[n_ranges - 1].gpa + ranges[n_ranges - 1].len;

    *mapping = (struct mapping){
        .marks = no_marks,
        .loads = MAPPING_LOADS,
        .space_size = end < MAPPING_GPA_MAX ? end : MAPPING_GPA_MAX,
        .ranges = ranges,
        .n_ranges = n_ranges,
        .fds = fds,
        .n_files = n_fds,
        .forgotten_at = now(),
    };
    set_limit(mapping, MAPPING_WORD);
    mapping->files = calloc(n_fds, sizeof(*mapping->files));
    mapping->ends = calloc(n_ranges, sizeof(*mapping->ends));
    if (!mapping->files || !mapping->ends)
        return -ENOMEM;
    if (!may_map)
        return 0;
    for (size_t i = 0; i < n_fds; i++)
        look_first(&mapping->files[i], fds[i]);
    if (map_ranges(mapping))
        return make_marks(mapping);
    unmap(mapping);
    return 0;
}

void mapping_deinit(struct mapping *mapping) {
    unmap(mapping);
    if (mapping->marks != no_marks)
        free(mapping->marks);
    free(mapping->used);
    free(mapping->ends);
    free(mapping->files);
    *mapping = (struct mapping){0};
}

/* --- marks ------------------------------------------------------------------------------------ */

static void mark_in_word(struct mapping *mapping, uint64_t gpa, uint64_t pages) {
    uint64_t word = gpa >> MAPPING_WORD_SHIFT;
    uint64_t bits = pages < 64 ? (UINT64_C(1) << pages) - 1 : ~UINT64_C(0);

    mapping->marks[word] |= bits << gpa / PAGING_PAGE_SIZE % 64;
    mapping->used[word / WORDS_TOGETHER / 64] |= UINT64_C(1) << word / WORDS_TOGETHER % 64;
}

void mapping_mark(struct mapping *mapping, const struct vmibus_ram_range *range, uint64_t gpa,
                  uint64_t len) {
    uint64_t end = gpa + len, mapped_end = mapping->ends[range - mapping->ranges];

    gpa = gpa < range->gpa ? range->gpa : gpa;
    gpa = (gpa + PAGING_PAGE_SIZE - 1) & ~(PAGING_PAGE_SIZE - 1);
    end = (end < mapped_end ? end : mapped_end) & ~(PAGING_PAGE_SIZE - 1);
    while (gpa < end) {
        uint64_t left = MAPPING_WORD - gpa % MAPPING_WORD;
        uint64_t step = end - gpa < left ? end - gpa : left;

        mark_in_word(mapping, gpa, step / PAGING_PAGE_SIZE);
        gpa += step;
    }
}

void mapping_mark_read(struct mapping *mapping, const struct vmibus_ram_range *range, uint64_t gpa,
                       const uint8_t *octets, size_t len) {
    if (mapping->ends[range - mapping->ranges] == 0)
        return;
    while (len > 0) {
        size_t left = (size_t)(PAGING_PAGE_SIZE - gpa % PAGING_PAGE_SIZE);
        size_t step = len < left ? len : left;

        if (!octets_are_zero(octets, step))
            mapping_mark(mapping, range, gpa & ~(PAGING_PAGE_SIZE - 1), PAGING_PAGE_SIZE);
        gpa += step;
        octets += step;
        len -= step;
    }
}

/* Octets from gpa on whose pages are marked, or are not, within the word of gpa. */
static uint64_t stretch_in_word(const struct mapping *mapping, uint64_t gpa, bool marked) {
    uint64_t word = mapping->marks[gpa >> MAPPING_WORD_SHIFT];
    uint64_t others = (marked ? ~word : word) >> gpa / PAGING_PAGE_SIZE % 64;
    uint64_t pages;

    if (others == 0)
        return MAPPING_WORD - gpa % MAPPING_WORD;
    pages = (uint64_t)__builtin_ctzll(others);
    return pages ? pages * PAGING_PAGE_SIZE - gpa % PAGING_PAGE_SIZE : 0;
}

static uint64_t stretch(const struct mapping *mapping, uint64_t gpa, uint64_t max, bool marked) {
    uint64_t len = 0, step;

    do {
        if (gpa + len >= mapping->limit)
            return marked ? len : max;
        step = stretch_in_word(mapping, gpa + len, marked);
        len += step;
    } while (step > 0 && len < max && (gpa + len) % MAPPING_WORD == 0);
    return len < max ? len : max;
}

uint64_t mapping_run(const struct mapping *mapping, uint64_t gpa, uint64_t max) {
    return stretch(mapping, gpa, max, true);
}

uint64_t mapping_gap(const struct mapping *mapping, uint64_t gpa, uint64_t max) {
    return stretch(mapping, gpa, max, false);
}

/* --- forgetting ------------------------------------------------------------------------------- */

static void forget(struct mapping *mapping) {
    uint64_t words = mapping->limit / MAPPING_WORD;

    for (uint64_t i = 0; i <= words / WORDS_TOGETHER / 64; i++) {
        for (uint64_t bits = mapping->used[i]; bits; bits &= bits - 1) {
            uint64_t first = (i * 64 + (uint64_t)__builtin_ctzll(bits)) * WORDS_TOGETHER;
            uint64_t n = words - first < WORDS_TOGETHER ? words - first : WORDS_TOGETHER;

            memset(&mapping->marks[first], 0, n * sizeof(*mapping->marks));
        }
        mapping->used[i] = 0;
    }
}

struct look {
    bool shrank;
    bool changed;
    uint64_t newest; /* change of any file */
};

static void look_at_file(struct mapping_file *file, int fd, struct look *look) {
    struct stat status;
    uint64_t changed;

    if (fstat(fd, &status) < 0) {
        look->shrank = true;
        return;
    }
    changed = nanoseconds(&status.st_ctim);
    look->shrank |= status.st_blocks < file->blocks;
    look->changed |= status.st_blocks != file->blocks || changed != nanoseconds(&file->changed);
    if (changed > look->newest)
        look->newest = changed;
    file->blocks = status.st_blocks;
    file->changed = status.st_ctim;
}

/* The clock may be set back: the differences are taken as unsigned, so that this ends all trust. */
void mapping_refresh(struct mapping *mapping) {
    struct look look = {0};
    uint64_t time;

    mapping->loads = MAPPING_LOADS;
    if (!mapping->space)
        return;
    for (size_t i = 0; i < mapping->n_files; i++)
        if (mapping->files[i].is_mapped)
            look_at_file(&mapping->files[i], mapping->fds[i], &look);
    mapping->is_stale |= look.changed;
    if (!look.shrank && !mapping->is_stale)
        return;
    time = now();
    if (!look.shrank && time - mapping->forgotten_at < MAPPING_TRUST_NS)
        return;
    forget(mapping);
    mapping->forgotten_at = time;
    mapping->is_stale = time - look.newest < CLOCK_STEP_NS;
}
