/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Guest RAM by plain loads, where these can neither fault nor make the host grow.
 *
 * Ranges whose object allows it are mapped read-only, each once, at its place in one stretch of addresses, so that gpa 0
 * has an address and all else follows.  The object must be a file of tmpfs (a memfd is one) that is sealed against
 * shrinking: then no load lies behind its end, and none raises SIGBUS for that.  What still can is the host failing: a page
 * that its memory lost (hwpoison; QEMU gets the signal as well), or one that cannot be read from swap.  hugetlbfs is left
 * out: it knows no holes, and a load from one takes a huge page, or kills where there is none.
 *
 * A load from a hole of the file allocates the page.  So a page is loaded from only while it is marked as one that holds
 * data: because pread(2) brought something else than zeros from it, or SEEK_DATA said so.  Everything else is read by
 * pread(2), which brings zeros from holes, and marks what has got data.
 *
 * A guest's balloon may give a page back after it was marked.  So after every MAPPING_LOADS pages that were loaded from,
 * the files are looked at (fstat(2)): a file that has fewer blocks had holes punched, and all marks go.  Punching also
 * changes its times, as does the first write to a page: where it has as many blocks or more, all marks go too, but only
 * every MAPPING_TRUST_NS, or a guest that takes memory would have none.  Thus a load can undo a hole on MAPPING_LOADS
 * pages at most where the file became smaller between two looks, and for MAPPING_TRUST_NS where it became larger at the
 * same time.  Where the kernel gives tmpfs huge pages (shmem_enabled), an allocation may be one of them.
 *
 * Such an allocation can fail (Linux mm/shmem.c, shmem_fault()): where the commit limit is reached (vm.overcommit_memory=2), or the
 * size of the tmpfs, the load raises SIGBUS; where the reader's memory cgroup is full, its OOM killer comes.  It takes a page that
 * was punched between two looks, so it is as rare as that, but it is the host's memory that decides and not the guest alone.
 *
 * A process that locks its memory (mlockall(2) with MCL_CURRENT) while it has RAM mapped fills all its holes; one that
 * did so with MCL_FUTURE before does not, because the mapping is unlocked before it can be read.
 */
#ifndef VMIBUS_GUEST_MAPPING_H
#define VMIBUS_GUEST_MAPPING_H

#include <vmibus/guest.h>

#include <stdbool.h>
#include <time.h>

#include "paging.h"

#define MAPPING_LOADS 4096 /* 16 MiB; looking costs some 400 ns, so a nanosecond for a walk and a read */
#define MAPPING_TRUST_NS UINT64_C(100000000)

#define MAPPING_WORD_SHIFT 18u /* a word of marks: 64 pages, a bit each */
#define MAPPING_WORD (UINT64_C(1) << MAPPING_WORD_SHIFT)

/* Above that, RAM is read by pread(2): the table of marks would be too large. */
#define MAPPING_GPA_MAX (UINT64_C(1) << 40)

/* One object. */
struct mapping_file {
    bool is_mapped;
    uint64_t size;
    blkcnt_t blocks; /* these two at the last look */
    struct timespec changed;
};

struct mapping {
    const uint8_t *space;   /* where gpa 0 is, or would be; NULL: nothing is mapped */
    uint64_t *marks;        /* by gpa, up to limit; never NULL */
    uint64_t limit;         /* a power of two */
    int64_t loads;          /* pages that may be loaded from until the files are looked at */
    uint64_t outside;       /* the bits of an entry's address that lead behind limit */
    uint64_t table_bits;    /* of an entry that leads to a table within limit, PRESENT is set alone of these */
    uint64_t page_bits;     /* the same of an entry on level 1 */
    uint64_t space_size;
    uint64_t *used;         /* a bit for each 64 words of marks: some of them may be set */
    const struct vmibus_ram_range *ranges; /* borrowed */
    uint64_t *ends;         /* by range: where what is mapped of it ends; 0: nothing is */
    struct mapping_file *files;
    size_t n_ranges, n_files;
    const int *fds;         /* borrowed */
    uint64_t forgotten_at;  /* when all marks went, CLOCK_REALTIME in nanoseconds */
    bool is_stale;          /* a file changed since */
};

/**
 * Maps what may be mapped; what cannot be is left out.
 * @param may_map false: nothing is
 * @param ranges sound ones by gpa, at least one; borrowed as long as the mapping lasts, as is fds
 * @param fds    the objects
 * @return 0 or -ENOMEM; mapping_deinit() either way
 */
int mapping_init(struct mapping *mapping, const struct vmibus_ram_range *ranges, size_t n_ranges,
                 const int *fds, size_t n_fds, bool may_map);

/** Unmaps it all. Harmless for one that is all zeros. */
void mapping_deinit(struct mapping *mapping);

/** Looks at the files, and forgets what may have become untrue. */
void mapping_refresh(struct mapping *mapping);

/** Marks the pages that lie wholly in [gpa, gpa + len) of a range as holding data. */
void mapping_mark(struct mapping *mapping, const struct vmibus_ram_range *range, uint64_t gpa,
                  uint64_t len);

/** Marks the pages of [gpa, gpa + len) of a range, of which octets were read that are not all zeros. */
void mapping_mark_read(struct mapping *mapping, const struct vmibus_ram_range *range, uint64_t gpa,
                       const uint8_t *octets, size_t len);

/** How many octets from gpa on, at most max, lie in pages that are marked. */
uint64_t mapping_run(const struct mapping *mapping, uint64_t gpa, uint64_t max);

/** How many octets from gpa on, at most max, lie in pages that are not marked. */
uint64_t mapping_gap(const struct mapping *mapping, uint64_t gpa, uint64_t max);

/** Whether the page of a gpa below limit is marked. */
static inline bool mapping_is_marked(const struct mapping *mapping, uint64_t gpa) {
    return mapping->marks[gpa >> MAPPING_WORD_SHIFT] >> (gpa / PAGING_PAGE_SIZE % 64) & 1;
}

/** Where the octet at gpa is, up to the end of its page; NULL if its page is not marked. */
static inline const uint8_t *mapping_at(const struct mapping *mapping, uint64_t gpa) {
    if (__builtin_expect(gpa >= mapping->limit || !mapping_is_marked(mapping, gpa), 0))
        return NULL;
    return mapping->space + gpa;
}

/** Has to be called before pages are loaded from. */
static inline void mapping_charge(struct mapping *mapping, uint64_t pages) {
    mapping->loads -= (int64_t)pages;
    if (__builtin_expect(mapping->loads < 0, 0))
        mapping_refresh(mapping);
}

#endif
