/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The page-table root of a Linux kernel: found by its VMCOREINFO note, believed by its tables.
 *
 * A note is only a claim: RAM keeps the notes, and the tables, of kernels that ran before a reset,
 * and any process of the guest can write one.  A claim must name an address in the kernel's image,
 * where no process can map anything, and the tables that it names must map that address to
 * themselves.  Where vCPUs are known, one of them must map it to the same place.  What is not so is
 * not believed.
 *
 * Where vCPUs are known, what their kernels' images point to is looked at first (kernel_image.h), and all of
 * RAM (sweep.h) only if that proves nothing.
 */
#include <vmibus/guest.h>

#include <errno.h>
#include <stdlib.h>

#include "kernel_image.h"
#include "paging.h"
#include "sweep.h"

/* With page-table isolation a process has two top tables: the kernel's, and behind it the one that
 * is in use in user mode, which maps next to nothing of the kernel: Linux
 * arch/x86/entry/calling.h. */
#define USER_TABLE PAGING_PAGE_SIZE

/* More kernels than this in one guest are an attack: they are judged, but not remembered. */
#define KERNELS_MAX 16

/* A page that claims to be a note costs as much as reading this many octets. */
#define CLAIM_COST 65536

struct vmibus_guest_search {
    struct sweep sweep;
    struct vmibus_guest_ram *ram;                    /* borrowed */
    struct vmibus_guest_kernel kernels[KERNELS_MAX]; /* believable by their tables; distinct */
    size_t n_kernels;
    bool imaged;   /* the vCPUs' images were looked at */
    uint64_t octets; /* read of RAM, but for the proofs */
    uint64_t swept;  /* of them by the sweep */
    bool claimed;  /* some page claimed to be a note */
    bool overflow; /* there were more kernels */
};

/* Finds where a root maps the kernel's top page table; UNPROVEN if not as a kernel does. */
static int map_swapper(struct vmibus_guest_ram *ram, struct vmibus_guest_root root, uint64_t gva,
                       uint64_t *gpa) {
    struct vmibus_guest_reader reader = vmibus_guest_ram_reader(ram);
    struct vmibus_guest_translation translation;
    int r = vmibus_guest_translate(&reader, &root, gva, &translation);

    if (r < 0 && r != -EIO)
        return r;
    if (r != 0 || (translation.rights & VMIBUS_GUEST_USER))
        return VMIBUS_GUEST_UNPROVEN;
    *gpa = translation.gpa;
    return 0;
}

/* Reads the note at gpa. */
static int read_note(struct vmibus_guest_ram *ram, uint64_t gpa, struct vmibus_guest_note *note) {
    char text[VMIBUS_GUEST_NOTE_MAX];
    int r = vmibus_guest_ram_read(ram, gpa, text, sizeof(text));

    if (r < 0 && r != -EIO)
        return r;
    if (r != 0 || vmibus_guest_note_parse(text, sizeof(text), note) != 0)
        return VMIBUS_GUEST_UNPROVEN;
    note->gpa = gpa;
    return 0;
}

/* The root that a note names. */
static int root_of_note(const struct vmibus_guest_note *note, struct vmibus_guest_root *root) {
    uint64_t offset = note->swapper_pg_dir - KERNEL_IMAGE_BEGIN, gpa = offset + note->phys_base;

    /* An address below the image wraps to an offset beyond its end. */
    if (offset >= KERNEL_IMAGE_SIZE || gpa == 0 || (gpa & ~PAGING_ADDRESS))
        return VMIBUS_GUEST_UNPROVEN;
    *root = (struct vmibus_guest_root){.cr3 = gpa, .levels = note->five_levels ? 5 : 4};
    return 0;
}

/* Makes a kernel of the claim at gpa, if the tables that it names bear it out. */
static int prove_by_own_tables(struct vmibus_guest_ram *ram, uint64_t gpa,
                               struct vmibus_guest_kernel *kernel) {
    uint64_t mapped;
    int r;

    *kernel = (struct vmibus_guest_kernel){0};
    r = read_note(ram, gpa, &kernel->note);
    if (r == 0)
        r = root_of_note(&kernel->note, &kernel->root);
    if (r == 0)
        r = map_swapper(ram, kernel->root, kernel->note.swapper_pg_dir, &mapped);
    if (r == 0 && mapped != kernel->root.cr3)
        r = VMIBUS_GUEST_UNPROVEN;
    if (r != 0)
        return r;
    kernel->evidence = VMIBUS_EVIDENCE_NOTE | VMIBUS_EVIDENCE_NOTE_MAPPED;
    kernel->confidence = VMIBUS_CONFIDENCE_NOTED;
    return 0;
}

static int agree_with_table(struct vmibus_guest_ram *ram, uint64_t table,
                            struct vmibus_guest_kernel *kernel) {
    struct vmibus_guest_root root = {.cr3 = table, .levels = kernel->root.levels};
    uint64_t mapped;
    int r = map_swapper(ram, root, kernel->note.swapper_pg_dir, &mapped);

    if (r == 0 && mapped != kernel->root.cr3)
        r = VMIBUS_GUEST_UNPROVEN;
    if (r != 0)
        return r;
    kernel->vcpu_cr3 = table;
    kernel->evidence |= VMIBUS_EVIDENCE_VCPU_CR3;
    kernel->confidence = VMIBUS_CONFIDENCE_PROVEN;
    return 0;
}

/* Looks for a vCPU that maps the kernel's top page table to where the kernel has it. */
static int prove_by_vcpus(struct vmibus_guest_ram *ram, const struct vmibus_guest_hints *hints,
                          struct vmibus_guest_kernel *kernel) {
    for (size_t i = 0; i < hints->n_vcpu_cr3; i++) {
        uint64_t table = hints->vcpu_cr3[i] & PAGING_ADDRESS;
        int r = agree_with_table(ram, table, kernel);

        if (r == VMIBUS_GUEST_UNPROVEN && (table & USER_TABLE))
            r = agree_with_table(ram, table & ~USER_TABLE, kernel);
        if (r != VMIBUS_GUEST_UNPROVEN)
            return r;
    }
    return VMIBUS_GUEST_UNPROVEN;
}

static void remember(struct vmibus_guest_search *search, const struct vmibus_guest_kernel *kernel) {
    for (size_t i = 0; i < search->n_kernels; i++)
        if (search->kernels[i].root.cr3 == kernel->root.cr3 &&
            search->kernels[i].note.swapper_pg_dir == kernel->note.swapper_pg_dir)
            return;
    if (search->n_kernels == KERNELS_MAX)
        search->overflow = true;
    else
        search->kernels[search->n_kernels++] = *kernel;
}

/* Judges the claim at gpa. Returns 0 if a vCPU proves it, UNPROVEN if there is more to look at. */
static int judge(struct vmibus_guest_search *search, uint64_t gpa,
                 const struct vmibus_guest_hints *hints, struct vmibus_guest_kernel *kernel) {
    int r = prove_by_own_tables(search->ram, gpa, kernel);

    search->claimed = true;
    if (r != 0)
        return r;
    r = prove_by_vcpus(search->ram, hints, kernel);
    if (r == VMIBUS_GUEST_UNPROVEN)
        remember(search, kernel);
    return r;
}

/* All of RAM was seen, and no vCPU agreed. What is remembered is judged anew: the guest ran on. */
static int conclude(struct vmibus_guest_search *search, const struct vmibus_guest_hints *hints,
                    struct vmibus_guest_kernel *kernel) {
    if (hints->n_vcpu_cr3 == 0) {
        if (search->n_kernels == 1 && !search->overflow)
            return prove_by_own_tables(search->ram, search->kernels[0].note.gpa, kernel);
        return search->claimed ? VMIBUS_GUEST_UNPROVEN : VMIBUS_GUEST_NOT_FOUND;
    }
    for (size_t i = 0; i < search->n_kernels; i++) {
        int r = judge(search, search->kernels[i].note.gpa, hints, kernel);

        if (r != VMIBUS_GUEST_UNPROVEN)
            return r;
    }
    return search->claimed ? VMIBUS_GUEST_UNPROVEN : VMIBUS_GUEST_NOT_FOUND;
}

/* --- the short way ---------------------------------------------------------------------------- */

/* What a page that an image leads to is judged with. */
struct claim {
    struct vmibus_guest_search *search;
    const struct vmibus_guest_hints *hints;
    struct vmibus_guest_kernel *kernel;
};

static int judge_claim(void *context, uint64_t gpa) {
    struct claim *claim = context;

    return judge(claim->search, gpa, claim->hints, claim->kernel);
}

/* Looks at the image that a table maps. Both halves of page-table isolation are tables. */
static int search_image(struct claim *claim, uint64_t cr3, uint8_t levels,
                        struct kernel_image_budget *budget) {
    struct vmibus_guest_root root = {.cr3 = cr3 & PAGING_ADDRESS, .levels = levels};
    int r = kernel_image_search(claim->search->ram, root, budget, judge_claim, claim);

    if (r != VMIBUS_GUEST_UNPROVEN || !(root.cr3 & USER_TABLE))
        return r;
    root.cr3 &= ~USER_TABLE;
    return kernel_image_search(claim->search->ram, root, budget, judge_claim, claim);
}

static int search_images(struct claim *claim) {
    const struct vmibus_guest_hints *hints = claim->hints;
    struct kernel_image_budget budget = KERNEL_IMAGE_BUDGET;
    int r = VMIBUS_GUEST_UNPROVEN;

    for (size_t i = 0; i < hints->n_vcpu_cr3 && r == VMIBUS_GUEST_UNPROVEN; i++) {
        uint8_t levels = hints->vcpu_levels ? hints->vcpu_levels[i] : 0;

        for (uint8_t depth = PAGING_LEVELS_MIN; depth <= PAGING_LEVELS_MAX; depth++)
            if (r == VMIBUS_GUEST_UNPROVEN && (!levels || levels == depth))
                r = search_image(claim, hints->vcpu_cr3[i], depth, &budget);
    }
    claim->search->octets += KERNEL_IMAGE_OCTETS_MAX - budget.octets;
    return r;
}

/* --- all of RAM ------------------------------------------------------------------------------- */

static int sweep_on(struct vmibus_guest_search *search, uint64_t *octets, uint64_t *gpa) {
    uint64_t before = *octets;
    int r = sweep_next(&search->sweep, octets, gpa);

    search->swept += before - *octets;
    search->octets += before - *octets;
    return r;
}

static int search_step(struct vmibus_guest_search *search, const struct vmibus_guest_hints *hints,
                       uint64_t octets, struct vmibus_guest_kernel *kernel) {
    struct claim claim = {.search = search, .hints = hints, .kernel = kernel};
    uint64_t gpa;
    int r;

    if (!search->imaged && hints->n_vcpu_cr3 > 0) {
        search->imaged = true;
        r = search_images(&claim);
        if (r != VMIBUS_GUEST_UNPROVEN)
            return r;
    }
    while ((r = sweep_on(search, &octets, &gpa)) == 0) {
        r = judge(search, gpa, hints, kernel);
        if (r != VMIBUS_GUEST_UNPROVEN)
            return r;
        octets -= octets < CLAIM_COST ? octets : CLAIM_COST;
    }
    return r == VMIBUS_GUEST_NOT_FOUND ? conclude(search, hints, kernel) : r;
}

int vmibus_guest_search_new(struct vmibus_guest_search **searchp, struct vmibus_guest_ram *ram) {
    struct vmibus_guest_search *search = calloc(1, sizeof(*search));
    int r;

    *searchp = NULL;
    if (!search)
        return -ENOMEM;
    search->ram = ram;
    r = sweep_init(&search->sweep, ram);
    if (r < 0) {
        free(search);
        return r;
    }
    *searchp = search;
    return 0;
}

struct vmibus_guest_search *vmibus_guest_search_free(struct vmibus_guest_search *search) {
    if (!search)
        return NULL;
    sweep_deinit(&search->sweep);
    free(search);
    return NULL;
}

int vmibus_guest_search_step(struct vmibus_guest_search *search,
                             const struct vmibus_guest_hints *hints, uint64_t octets,
                             struct vmibus_guest_kernel *kernel) {
    static const struct vmibus_guest_hints none;
    int r = search_step(search, hints ? hints : &none, octets, kernel);

    if (r != 0)
        *kernel = (struct vmibus_guest_kernel){0};
    kernel->octets = r == 0 ? search->octets : 0;
    kernel->swept = r == 0 ? search->swept : 0;
    return r;
}

int vmibus_guest_find_linux(struct vmibus_guest_ram *ram, const struct vmibus_guest_hints *hints,
                            struct vmibus_guest_kernel *kernel) {
    struct vmibus_guest_search *search;
    int r = vmibus_guest_search_new(&search, ram);

    if (r < 0)
        return r;
    do
        r = vmibus_guest_search_step(search, hints, UINT64_MAX, kernel);
    while (r == VMIBUS_GUEST_UNFINISHED);
    vmibus_guest_search_free(search);
    return r;
}
