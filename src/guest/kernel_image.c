/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The short way to a note; see kernel_image.h. */
#include "kernel_image.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "paging.h"

static const char note_begin[] = "OSRELEASE=";
#define NOTE_BEGIN_LEN (sizeof(note_begin) - 1)

#define CHUNK_SIZE (UINT64_C(256) * 1024)
#define TABLE_ENTRIES 512u
#define LARGE_PAGE_SIZE (UINT64_C(1) << 21)

/*
 * Where KASLR may put the direct map: from where it lies without, on; vmalloc's area, 32 TiB or 12800,
 * lies behind it, and that of the processors' entry code behind both (Linux
 * Documentation/arch/x86/x86_64/mm.rst, arch/x86/mm/kaslr.c; before 4.20 at the lower one).  Small
 * numbers, such as an octet or 16 bits that are -1, look like addresses just outside.
 */
#define POINTERS_BEGIN_4 UINT64_C(0xffff880000000000)
#define POINTERS_END_4 UINT64_C(0xfffffe0000000000)
#define POINTERS_BEGIN_5 UINT64_C(0xff10000000000000)
#define POINTERS_END_5 UINT64_C(0xffff000000000000)

struct scan {
    struct vmibus_guest_ram *ram;
    struct vmibus_guest_root root;
    struct kernel_image_budget *budget;
    kernel_image_claim_fn claim;
    void *context;
    uint64_t run_gpa, run_len; /* data that lie in one piece, and are still to be read */
    uint64_t pointers_begin, pointers_len;
    uint64_t last; /* the pointer before: tables of them repeat themselves */
    /* The page that was translated last; one that is stale costs a look at the wrong place. */
    uint64_t page_gva, page_gpa, page_size;
    uint64_t chunk[CHUNK_SIZE / sizeof(uint64_t)];
};

/* What cannot be read holds nothing: a guest may say anything, and a host lose a page. */
static int read_or_nothing(struct scan *scan, uint64_t gpa, void *buffer, size_t len) {
    int r;

    if (scan->budget->octets < len)
        return VMIBUS_GUEST_UNPROVEN;
    scan->budget->octets -= len;
    r = vmibus_guest_ram_read(scan->ram, gpa, buffer, len);
    return r > 0 || r == -EIO ? VMIBUS_GUEST_UNPROVEN : r;
}

static int translate(struct scan *scan, uint64_t gva, uint64_t *gpa) {
    struct vmibus_guest_reader reader = vmibus_guest_ram_reader(scan->ram);
    struct vmibus_guest_translation translation;
    int r;

    if (gva - scan->page_gva >= scan->page_size) {
        r = vmibus_guest_translate(&reader, &scan->root, gva, &translation);
        if (r != 0)
            return r > 0 || r == -EIO ? VMIBUS_GUEST_UNPROVEN : r;
        scan->page_size = translation.page_size;
        scan->page_gva = gva & ~(translation.page_size - 1);
        scan->page_gpa = translation.gpa & ~(translation.page_size - 1);
    }
    *gpa = scan->page_gpa + (gva - scan->page_gva);
    return 0;
}

static int follow(struct scan *scan, uint64_t pointer) {
    char begin[NOTE_BEGIN_LEN];
    uint64_t gpa;
    int r;

    if (scan->budget->pointers == 0 || scan->budget->claims == 0)
        return VMIBUS_GUEST_UNPROVEN;
    scan->budget->pointers--;
    r = translate(scan, pointer, &gpa);
    if (r == 0)
        r = read_or_nothing(scan, gpa, begin, sizeof(begin));
    if (r != 0)
        return r;
    if (memcmp(begin, note_begin, sizeof(begin)) != 0)
        return VMIBUS_GUEST_UNPROVEN;
    scan->budget->claims--;
    return scan->claim(scan->context, gpa);
}

/* Reads the data that have been gathered, and follows their pointers. */
static int flush(struct scan *scan) {
    size_t n = (size_t)(scan->run_len / sizeof(uint64_t));
    int r;

    if (n == 0)
        return VMIBUS_GUEST_UNPROVEN;
    r = read_or_nothing(scan, scan->run_gpa, scan->chunk, (size_t)scan->run_len);
    scan->run_len = 0;
    if (r != 0)
        return r;
    for (size_t i = 0; i < n; i++) {
        uint64_t value = scan->chunk[i];

        /* One branch that is hardly ever taken: this is where the time goes. */
        if ((value - scan->pointers_begin >= scan->pointers_len) | (value % PAGING_PAGE_SIZE != 0))
            continue;
        if (value == scan->last)
            continue;
        scan->last = value;
        r = follow(scan, value);
        if (r != VMIBUS_GUEST_UNPROVEN)
            return r;
    }
    return VMIBUS_GUEST_UNPROVEN;
}

/* Gathers data in pieces as large as they lie in RAM. */
static int gather(struct scan *scan, uint64_t gpa, uint64_t len) {
    while (len > 0) {
        uint64_t room = CHUNK_SIZE - scan->run_len, n;

        if (room == 0 || (scan->run_len > 0 && gpa != scan->run_gpa + scan->run_len)) {
            int r = flush(scan);

            if (r != VMIBUS_GUEST_UNPROVEN)
                return r;
            continue;
        }
        if (scan->run_len == 0)
            scan->run_gpa = gpa;
        n = len < room ? len : room;
        scan->run_len += n;
        gpa += n;
        len -= n;
    }
    return VMIBUS_GUEST_UNPROVEN;
}

/* Whether an entry leads to something that can be written to through it. */
static bool leads_on(uint64_t entry) {
    return (entry & PAGING_PRESENT) && (entry & PAGING_WRITABLE);
}

static int scan_page_table(struct scan *scan, uint64_t gpa) {
    uint64_t entries[TABLE_ENTRIES];
    int r = read_or_nothing(scan, gpa, entries, sizeof(entries));

    if (r != 0)
        return r;
    for (size_t i = 0; i < TABLE_ENTRIES; i++) {
        if (!leads_on(entries[i]))
            continue;
        r = gather(scan, entries[i] & PAGING_ADDRESS, PAGING_PAGE_SIZE);
        if (r != VMIBUS_GUEST_UNPROVEN)
            return r;
    }
    return VMIBUS_GUEST_UNPROVEN;
}

/* From the end: that is where the variables lie that no file initialises, and the one is among them. */
static int scan_directory(struct scan *scan, uint64_t gpa) {
    uint64_t entries[TABLE_ENTRIES];
    int r = read_or_nothing(scan, gpa, entries, sizeof(entries));

    if (r != 0)
        return r;
    for (size_t i = TABLE_ENTRIES; i-- > 0;) {
        uint64_t at = entries[i] & PAGING_ADDRESS;

        if (!leads_on(entries[i]))
            continue;
        if (entries[i] & PAGING_LARGE)
            r = gather(scan, at & ~(LARGE_PAGE_SIZE - 1), LARGE_PAGE_SIZE);
        else
            r = scan_page_table(scan, at);
        if (r != VMIBUS_GUEST_UNPROVEN)
            return r;
    }
    return flush(scan);
}

/* The page directory of the image's area, which is 1 GiB: exactly one. */
static int find_directory(struct scan *scan, uint64_t *directory) {
    uint64_t table = scan->root.cr3 & PAGING_ADDRESS;

    for (unsigned int level = scan->root.levels; level >= PAGING_LARGE_LEVEL_MAX; level--) {
        uint64_t entry, index = KERNEL_IMAGE_BEGIN >> paging_shift(level) & (TABLE_ENTRIES - 1);
        int r = read_or_nothing(scan, table + index * sizeof(entry), &entry, sizeof(entry));

        if (r != 0)
            return r;
        if (!leads_on(entry) || (entry & PAGING_LARGE))
            return VMIBUS_GUEST_UNPROVEN;
        table = entry & PAGING_ADDRESS;
    }
    *directory = table;
    return 0;
}

static bool was_seen(struct kernel_image_budget *budget, uint64_t directory) {
    for (size_t i = 0; i < budget->n_seen; i++)
        if (budget->seen[i] == directory)
            return true;
    if (budget->n_seen < KERNEL_IMAGE_SEEN_MAX)
        budget->seen[budget->n_seen++] = directory;
    return false;
}

int kernel_image_search(struct vmibus_guest_ram *ram, struct vmibus_guest_root root,
                        struct kernel_image_budget *budget, kernel_image_claim_fn claim, void *context) {
    struct scan *scan = calloc(1, sizeof(*scan));
    uint64_t directory;
    int r;

    if (!scan)
        return -ENOMEM;
    scan->ram = ram;
    scan->root = root;
    scan->budget = budget;
    scan->claim = claim;
    scan->context = context;
    scan->pointers_begin = root.levels == 5 ? POINTERS_BEGIN_5 : POINTERS_BEGIN_4;
    scan->pointers_len = (root.levels == 5 ? POINTERS_END_5 : POINTERS_END_4) - scan->pointers_begin;
    r = find_directory(scan, &directory);
    if (r == 0)
        r = was_seen(budget, directory) ? VMIBUS_GUEST_UNPROVEN : scan_directory(scan, directory);
    free(scan);
    return r;
}
