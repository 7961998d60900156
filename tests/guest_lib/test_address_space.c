/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Address spaces and paths in kernels of the tests' own making: both kinds of trees, all kinds of names, and everything that
 * a hostile kernel could put in their place.
 */
#include "harness.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "flat_kernel.h"
#include "guest/linux/path.h"

#define PAGE UINT64_C(0x1000)
#define RW 0x73u /* VM_READ, VM_WRITE and what comes with them */

/* What a visit saw. */
struct seen {
    struct vmibus_linux_mapping mappings[512]; /* names are not valid */
    char names[512][128];
    bool is_named[512];
    size_t n;
    size_t stop_at; /* 0: never */
};

static struct flat_kernel *flat;
static struct seen seen;
static struct vmibus_linux_picture picture;
static struct vmibus_linux_task task;

static bool keep(void *context, const struct vmibus_linux_mapping *mapping) {
    struct seen *into = context;

    if (into->n < 512) {
        into->mappings[into->n] = *mapping;
        into->is_named[into->n] = mapping->name != NULL;
        snprintf(into->names[into->n], sizeof(into->names[0]), "%s", mapping->name ? mapping->name : "");
    }
    return ++into->n != into->stop_at;
}

static int visit(uint64_t mm) {
    seen.n = 0;
    flat->kernel.why[0] = '\0';
    task.mm = ((struct flat_task *)flat_at(flat, task.task))->mm = mm;
    return vmibus_linux_visit_mappings(&flat->kernel, &task, keep, &seen, &picture);
}

static void check_whole(size_t n) {
    ck_assert_uint_eq(seen.n, n);
    ck_assert_uint_eq(picture.n_seen, n);
    ck_assert_uint_eq(picture.n_broken, 0);
    ck_assert_uint_eq(picture.flags, VMIBUS_LINUX_ENDED | VMIBUS_LINUX_STEADY);
}

static void begin(enum flat_trees trees) {
    flat = flat_kernel_new(trees);
    ck_assert_ptr_nonnull(flat);
    flat_task(flat, 300, &task);
    seen.stop_at = 0;
}

static void end(void) {
    flat = flat_kernel_free(flat);
}

/* An address space of n areas of one to three pages, every other one right behind the one before. */
static uint64_t plant(enum flat_trees trees, uint64_t *areas, size_t n, size_t fan) {
    uint64_t mm = flat_mm(flat), at = 0x10000;

    for (size_t i = 0; i < n; i++) {
        at += i % 2 ? 0 : (i + 1) * 16 * PAGE;
        areas[i] = flat_area(flat, mm, at, at + (i % 3 + 1) * PAGE, RW, 0);
        at += (i % 3 + 1) * PAGE;
    }
    flat_plant(flat, trees, mm, areas, n, fan);
    return mm;
}

/* --- trees -------------------------------------------------------------------------------------------------------------- */

/* Sizes at which leaves, and nodes above them, are full or hold one. */
TEST(test_all_areas_are_found_in_their_order, .iterations = 2) {
    static const size_t sizes[] = {0, 1, 2, 5, 6, 7, 49, 50, 51, 300, 512};

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        uint64_t areas[512], mm;

        begin(_i == 0 ? FLAT_MAPLE : FLAT_RED_BLACK);
        mm = plant(_i == 0 ? FLAT_MAPLE : FLAT_RED_BLACK, areas, sizes[i], 5);
        ck_assert_msg(visit(mm) == 0, "%s", flat->kernel.why);
        check_whole(sizes[i]);
        for (size_t j = 0; j < sizes[i]; j++) {
            const struct flat_area *area = flat_at(flat, areas[j]);

            ck_assert_uint_eq(seen.mappings[j].area, areas[j]);
            ck_assert_uint_eq(seen.mappings[j].start, area->start);
            ck_assert_uint_eq(seen.mappings[j].end, area->end);
            ck_assert_uint_eq(seen.mappings[j].flags, VMIBUS_LINUX_MAPPING_READ | VMIBUS_LINUX_MAPPING_WRITE);
        }
        end();
    }
}

TEST(test_a_visit_ends_when_it_is_told_to, .iterations = 2) {
    uint64_t areas[20], mm;

    begin((enum flat_trees)_i);
    mm = plant((enum flat_trees)_i, areas, 20, 5);
    seen.stop_at = 7;
    ck_assert_int_eq(visit(mm), 0);
    ck_assert_uint_eq(seen.n, 7);
    ck_assert_uint_eq(picture.flags, 0);
    end();
}

/* --- names -------------------------------------------------------------------------------------------------------------- */

static void check_name(size_t i, const char *name) {
    ck_assert_msg(seen.is_named[i] && strcmp(seen.names[i], name) == 0, "mapping %zu is named %s, not %s", i, seen.names[i], name);
}

TEST(test_p06_names_are_those_of_proc) {
    uint64_t areas[12], mm, top, root, usr, other, mounted, file, ops_special, ops_other, special, anon, maker;
    struct flat_mm *space;
    struct flat_area *area;
    size_t n = 0;

    begin(FLAT_MAPLE);
    mm = flat_mm(flat);
    root = flat_dentry(flat, 0, "/");
    top = flat_mount(flat, 0, 0, root);
    usr = flat_dentry(flat, root, "usr");
    other = flat_dentry(flat, 0, "/");
    mounted = flat_mount(flat, top, usr, other);
    for (size_t i = 0; i < 12; i++)
        areas[i] = flat_area(flat, mm, (i + 1) * 0x10000, (i + 1) * 0x10000 + PAGE, 0, 0);

    /* 0: a file on a mount, whose name is too long to lie in the dentry */
    file = flat_dentry(flat, flat_dentry(flat, other, "lib"), "a name that is longer than thirty-two octets");
    file = flat_file(flat, mounted, file, 77, 8 << 20 | 0x123);
    area = flat_at(flat, areas[n++]);
    area->file = file;
    area->page_offset = 3;
    area->flags = 0x85;
    /* 1: the same file again */
    area = flat_at(flat, areas[n++]);
    area->file = file;
    /* 2: deleted */
    file = flat_file(flat, top, flat_dentry(flat, root, "gone"), 5, 1);
    ((struct flat_dentry *)flat_at(flat, ((struct flat_file *)flat_at(flat, file))->path_dentry))->hash_pprev = 0;
    area = flat_at(flat, areas[n++]);
    area->file = file;
    /* 3: one that makes its own name */
    maker = flat_take(flat, 16);
    flat_symbol(flat, "simple_dname", 0xffffffff81234560);
    ((struct flat_dentry_operations *)flat_at(flat, maker))->d_dname = 0xffffffff81234560;
    file = flat_file(flat, top, flat_dentry(flat, 0, "memfd:x"), 6, 1);
    ((struct flat_dentry *)flat_at(flat, ((struct flat_file *)flat_at(flat, file))->path_dentry))->ops = maker;
    area = flat_at(flat, areas[n++]);
    area->file = file;
    /* 4: special, 5: with operations that name nothing */
    flat_symbol(flat, "special_mapping_name", 0xffffffff81000010);
    ops_special = flat_take(flat, sizeof(struct flat_operations));
    ((struct flat_operations *)flat_at(flat, ops_special))->name = 0xffffffff81000010;
    ops_other = flat_take(flat, sizeof(struct flat_operations));
    ((struct flat_operations *)flat_at(flat, ops_other))->name = 0xffffffff81000020;
    special = flat_take(flat, sizeof(struct flat_special));
    ((struct flat_special *)flat_at(flat, special))->name = flat_text(flat, "[vdso]");
    area = flat_at(flat, areas[n++]);
    area->ops = ops_special;
    area->private_data = special;
    area = flat_at(flat, areas[n++]);
    area->ops = ops_other;
    /* 6: heap, 7: stack, 8: named by the process, 9: of the root of a mount */
    space = flat_at(flat, mm);
    space->start_brk = ((struct flat_area *)flat_at(flat, areas[n]))->start + 8;
    space->brk = space->start_brk + 8;
    n++;
    space->start_stack = ((struct flat_area *)flat_at(flat, areas[n++]))->start + 16;
    anon = flat_take(flat, 64);
    memcpy((char *)flat_at(flat, anon) + 4, "my memory", 10);
    area = flat_at(flat, areas[n++]);
    area->anon_name = anon;
    area = flat_at(flat, areas[n++]);
    area->file = flat_file(flat, mounted, other, 2, 9);
    area = flat_at(flat, areas[n++]);
    area->file = flat_file(flat, top, root, 2, 9);
    flat_plant(flat, FLAT_MAPLE, mm, areas, 12, 5);

    ck_assert_msg(visit(mm) == 0, "%s", flat->kernel.why);
    check_whole(12);
    check_name(0, "/usr/lib/a name that is longer than thirty-two octets");
    check_name(1, "/usr/lib/a name that is longer than thirty-two octets");
    ck_assert_uint_eq(seen.mappings[0].offset, 3 * PAGE);
    ck_assert_uint_eq(seen.mappings[0].inode, 77);
    ck_assert_uint_eq(seen.mappings[0].device_major, 8);
    ck_assert_uint_eq(seen.mappings[0].device_minor, 0x123);
    ck_assert_uint_eq(seen.mappings[0].flags,
                      VMIBUS_LINUX_MAPPING_READ | VMIBUS_LINUX_MAPPING_EXECUTE | VMIBUS_LINUX_MAPPING_SHARED);
    ck_assert_uint_eq(seen.mappings[1].offset, 0);
    check_name(2, "/gone (deleted)");
    check_name(3, "/memfd:x (deleted)");
    check_name(4, "[vdso]");
    check_name(5, "");
    check_name(6, "[heap]");
    check_name(7, "[stack]");
    check_name(8, "[anon:my memory]");
    check_name(9, "/usr");
    check_name(10, "/");
    check_name(11, "");
    end();
}

/* --- what a running guest does ------------------------------------------------------------------------------------------- */

static uint64_t changing_area;

static void grow(struct flat_kernel *self, uint64_t gva) {
    if (gva == changing_area)
        ((struct flat_area *)flat_at(self, gva))->page_offset++;
}

TEST(test_p06_what_changes_meanwhile_is_not_steady, .iterations = 2) {
    uint64_t areas[20], mm;

    begin((enum flat_trees)_i);
    mm = plant((enum flat_trees)_i, areas, 20, 5);
    changing_area = areas[7];
    flat->before_read = grow;
    ck_assert_int_eq(visit(mm), 0);
    ck_assert_uint_eq(seen.n, 20);
    ck_assert_uint_eq(picture.flags, VMIBUS_LINUX_ENDED);
    flat->before_read = NULL;
    ((struct flat_mm *)flat_at(flat, mm))->map_count++;
    ck_assert_int_eq(visit(mm), 0);
    ck_assert_uint_eq(picture.flags, VMIBUS_LINUX_ENDED);
    end();
}

/* A node that is replaced while the walk is at it: the tree has its successor from then on. */
static uint64_t dying_node, successor, parent_slot;

static void replace(struct flat_kernel *self, uint64_t gva) {
    if (gva != dying_node)
        return;
    memcpy(flat_at(self, successor), flat_at(self, dying_node), 256);
    *(uint64_t *)flat_at(self, parent_slot) = successor | (*(uint64_t *)flat_at(self, parent_slot) & 255);
    ((struct flat_range_node *)flat_at(self, dying_node))->parent = dying_node;
}

TEST(test_p06_a_node_that_is_replaced_is_looked_up_again) {
    uint64_t areas[30], mm;
    struct flat_arange_node *top;

    begin(FLAT_MAPLE);
    mm = plant(FLAT_MAPLE, areas, 30, 5);
    top = flat_at(flat, ((struct flat_mm *)flat_at(flat, mm))->root & ~UINT64_C(255));
    dying_node = top->slot[2] & ~UINT64_C(255);
    parent_slot = (((struct flat_mm *)flat_at(flat, mm))->root & ~UINT64_C(255)) + offsetof(struct flat_arange_node, slot) + 16;
    successor = flat_take(flat, 256);
    flat->before_read = replace;
    ck_assert_msg(visit(mm) == 0, "%s", flat->kernel.why);
    check_whole(30);
    end();
}

/* An area that becomes longer just when it is read: the tree says so too, from then on. */
static void lengthen(struct flat_kernel *self, uint64_t gva) {
    struct flat_area *area = flat_at(self, gva < FLAT_BASE ? FLAT_BASE : gva);
    uint64_t *words = (uint64_t *)(void *)self->memory;

    if (gva != changing_area)
        return;
    changing_area = 0;
    for (size_t i = 0; i < self->used / 8; i++)
        if (words[i] == area->end - 1)
            words[i] += PAGE;
    area->end += PAGE;
}

TEST(test_p06_an_area_that_grows_meanwhile_is_seen_as_it_became) {
    uint64_t areas[30], mm, end_before;

    begin(FLAT_MAPLE);
    mm = plant(FLAT_MAPLE, areas, 30, 5);
    changing_area = areas[11];
    end_before = ((struct flat_area *)flat_at(flat, areas[11]))->end;
    flat->before_read = lengthen;
    ck_assert_int_eq(visit(mm), 0);
    check_whole(30);
    ck_assert_uint_eq(seen.mappings[11].end, end_before + PAGE);
    end();
}

TEST(test_p06_the_address_space_of_a_process_that_ended) {
    uint64_t areas[3], mm;

    begin(FLAT_MAPLE);
    mm = plant(FLAT_MAPLE, areas, 3, 5);
    ((struct flat_mm *)flat_at(flat, mm))->users = 0;
    ck_assert_int_eq(visit(mm), VMIBUS_GUEST_CHANGED);
    ck_assert_int_eq(visit(0), VMIBUS_GUEST_NOT_FOUND);
    ck_assert_int_eq(visit(UINT64_MAX), VMIBUS_GUEST_UNPROVEN);
    ck_assert_uint_eq(seen.n, 0);
    end();
}

/* What is in use where it was: but by whom? */
TEST(test_p06_an_address_space_that_another_process_has_since_is_not_shown, .iterations = 3) {
    uint64_t areas[3], mm;
    struct flat_task *own;

    begin(FLAT_MAPLE);
    mm = plant(FLAT_MAPLE, areas, 3, 5);
    ck_assert_int_eq(visit(mm), 0);
    own = flat_at(flat, task.task);
    if (_i == 0)
        own->mm = flat_mm(flat);    /* it executed another program */
    else if (_i == 1)
        own->start_time++;          /* another process has its pid */
    else
        own->mm = 0;                /* it is ending */
    seen.n = 0;
    ck_assert_int_eq(vmibus_linux_visit_mappings(&flat->kernel, &task, keep, &seen, &picture), VMIBUS_GUEST_CHANGED);
    ck_assert_uint_eq(seen.n, 0);
    ck_assert_ptr_nonnull(strstr(flat->kernel.why, "process 300"));
    end();
}

static void execute(struct flat_kernel *self, uint64_t gva) {
    if (gva == changing_area)
        ((struct flat_task *)flat_at(self, task.task))->mm = 0;
}

TEST(test_p06_an_address_space_that_is_given_back_meanwhile_is_not_steady) {
    uint64_t areas[20], mm;

    begin(FLAT_MAPLE);
    mm = plant(FLAT_MAPLE, areas, 20, 5);
    changing_area = areas[7];
    flat->before_read = execute;
    ck_assert_int_eq(visit(mm), 0);
    ck_assert_uint_eq(picture.flags, VMIBUS_LINUX_ENDED);
    end();
}

/* --- what a hostile one does --------------------------------------------------------------------------------------------- */

static struct flat_arange_node *top_of(uint64_t mm) {
    return flat_at(flat, ((struct flat_mm *)flat_at(flat, mm))->root & ~UINT64_C(255));
}

/* After what was done to the tree: the walk ends, and does not say that it is whole. */
static void check_broken(uint64_t mm) {
    int r = visit(mm);

    ck_assert_msg(r == 0 || r == VMIBUS_GUEST_UNPROVEN, "%d", r);
    ck_assert_msg(picture.n_broken > 0 || !(picture.flags & VMIBUS_LINUX_ENDED), "seen %zu", seen.n);
    ck_assert_uint_gt(strlen(flat->kernel.why), 0);
    ck_assert_uint_lt(flat->reads, 100000);
}

TEST(test_p09_nodes_that_contradict_themselves, .iterations = 11) {
    const char *why = _i == 1 || _i == 7 ? "contradicts itself" : _i == 10 ? "nodes high" : "";
    uint64_t areas[60], mm, root;
    struct flat_arange_node *top;

    begin(FLAT_MAPLE);
    mm = plant(FLAT_MAPLE, areas, 60, 5);
    root = ((struct flat_mm *)flat_at(flat, mm))->root;
    top = top_of(mm);
    switch (_i) {
    case 0: /* beneath itself */
        top->slot[1] = root & ~UINT64_C(3);
        break;
    case 1: /* falling pivots */
        top->pivot[1] = top->pivot[0] - 1;
        break;
    case 2: /* types that are none */
        top->slot[1] |= 0x78;
        break;
    case 3: /* not in the kernel */
        top->slot[1] = 0x400000 | 1 << 3 | 4;
        break;
    case 4: /* nowhere */
        top->slot[0] = UINT64_C(0xffffffffffffff00) | 1 << 3 | 4;
        break;
    case 5: /* dead for good */
        top->parent = root & ~UINT64_C(255);
        break;
    case 6: /* a root that is none */
        ((struct flat_mm *)flat_at(flat, mm))->root = 0x1234;
        break;
    case 7: /* beyond the end of the node */
        for (int i = 0; i < 9; i++)
            top->pivot[i] = (uint64_t)i + 1;
        break;
    case 10: /* one slot for everything, which leads to its own node */
        top->pivot[0] = UINT64_MAX;
        top->slot[0] = root & ~UINT64_C(3);
        break;
    case 8: /* the whole tree leads to one leaf again and again */
        for (int i = 0; i < 10; i++)
            top->slot[i] = top->slot[3];
        break;
    default: /* a leaf whose entries are of other places */
        top = flat_at(flat, top->slot[0] & ~UINT64_C(255));
        ((struct flat_range_node *)flat_at(flat, top->slot[1] & ~UINT64_C(255)))->slot[1] = areas[0];
        break;
    }
    check_broken(mm);
    ck_assert_msg(strstr(flat->kernel.why, why), "%s", flat->kernel.why);
    end();
}

/* A leaf without entries, or a node with ten of what is one lower. */
static uint64_t plant_nothing(uint64_t first, unsigned int height) {
    uint64_t gva = flat_take(flat, 256), width = 0x1000;
    struct flat_arange_node *node = flat_at(flat, gva);

    for (unsigned int i = 1; i < height; i++)
        width *= 10;
    if (height == 0) {
        node->pivot[0] = first + width - 1;
        return gva | 1 << 3 | 4;
    }
    for (uint64_t i = 0; i < 10; i++) {
        node->slot[i] = plant_nothing(first + i * width, height - 1);
        if (i < 9)
            node->pivot[i] = first + (i + 1) * width - 1;
    }
    return gva | 3 << 3 | 4;
}

TEST(test_p09_a_tree_of_nothing_but_leaves_without_entries) {
    uint64_t mm;

    begin(FLAT_MAPLE);
    mm = flat_mm(flat);
    ((struct flat_mm *)flat_at(flat, mm))->root = plant_nothing(0, 3) | 2;
    check_broken(mm);
    ck_assert_msg(strstr(flat->kernel.why, "leaves"), "%s", flat->kernel.why);
    end();
}

TEST(test_p09_areas_that_lie_are_left_out, .iterations = 2) {
    uint64_t areas[20], mm;

    begin(FLAT_MAPLE);
    mm = plant(FLAT_MAPLE, areas, 20, 5);
    if (_i == 0)
        ((struct flat_area *)flat_at(flat, areas[9]))->end += PAGE;
    else
        ((struct flat_area *)flat_at(flat, areas[9]))->mm += 8;
    ck_assert_int_eq(visit(mm), 0);
    ck_assert_uint_eq(seen.n, 19);
    ck_assert_uint_eq(picture.n_broken, 1);
    ck_assert_uint_eq(seen.mappings[9].area, areas[10]);
    end();
}

TEST(test_p09_red_black_trees_that_loop_or_lie, .iterations = 4) {
    uint64_t areas[30], mm;
    struct flat_area *area;

    begin(FLAT_RED_BLACK);
    mm = plant(FLAT_RED_BLACK, areas, 30, 5);
    area = flat_at(flat, areas[7]);
    switch (_i) {
    case 0: /* below itself */
        area->rb_left = areas[7] + offsetof(struct flat_area, rb_parent);
        break;
    case 1:
        area->rb_right = areas[15] + offsetof(struct flat_area, rb_parent);
        break;
    case 2:
        area->rb_left = 0x1234;
        break;
    default:
        area->end = area->start;
        break;
    }
    check_broken(mm);
    end();
}

/* A guest that makes another area each time it is asked. */
static uint64_t next_start;

static void make_another(struct flat_kernel *self, uint64_t gva) {
    struct flat_area *area;

    if (gva != changing_area)
        return;
    area = flat_at(self, gva);
    area->start = next_start;
    area->end = next_start + PAGE;
    next_start += PAGE;
}

TEST(test_p09_areas_without_end_meet_the_bound, .timeout = 120) {
    uint64_t mm;

    begin(FLAT_RED_BLACK);
    mm = plant(FLAT_RED_BLACK, &changing_area, 1, 5);
    next_start = 0;
    flat->before_read = make_another;
    ck_assert_int_eq(visit(mm), 0);
    ck_assert_uint_eq(seen.n, 1 << 18);
    ck_assert_uint_eq(picture.flags, VMIBUS_LINUX_BOUNDED);
    end();
}

/* Whatever stands in the memory: no walk outside, none without end. */
TEST(test_p09_noise_in_all_structures, .timeout = 120) {
    for (unsigned int seed = 1; seed <= 300; seed++) {
        uint64_t areas[60], mm, root, file;
        unsigned int state = seed;

        begin(seed % 2 ? FLAT_MAPLE : FLAT_RED_BLACK);
        root = flat_dentry(flat, 0, "/");
        file = flat_file(flat, flat_mount(flat, 0, 0, root), flat_dentry(flat, flat_dentry(flat, root, "a"), "b"), 1, 1);
        mm = plant(seed % 2 ? FLAT_MAPLE : FLAT_RED_BLACK, areas, 60, 5);
        for (size_t i = 0; i < 60; i += 7)
            ((struct flat_area *)flat_at(flat, areas[i]))->file = file;
        for (unsigned int i = 0; i < seed % 40; i++) {
            uint64_t at = FLAT_BASE + (uint64_t)rand_r(&state) * 8 % flat->used;
            uint64_t *word = flat_at(flat, at);

            if (rand_r(&state) % 3)
                *word ^= UINT64_C(1) << (rand_r(&state) % 64);
            else
                *word = FLAT_BASE + (uint64_t)rand_r(&state) % flat->used;
        }
        visit(mm);
        ck_assert_uint_lt(flat->reads, 2000000);
        end();
    }
}

/* --- paths ---------------------------------------------------------------------------------------------------------------- */

static uint64_t root_dentry, top_mount, leaf_dentry;
static char text[VMIBUS_LINUX_PATH_SIZE];

static void begin_path(const char *name) {
    begin(FLAT_MAPLE);
    root_dentry = flat_dentry(flat, 0, "/");
    top_mount = flat_mount(flat, 0, 0, root_dentry);
    leaf_dentry = flat_dentry(flat, flat_dentry(flat, root_dentry, "directory"), name);
}

static int path_of(size_t size) {
    memset(text, 'x', sizeof(text));
    return linux_path_of(&flat->kernel, top_mount + offsetof(struct flat_mount, mnt), leaf_dentry, text, size);
}

static struct flat_dentry *leaf(void) {
    return flat_at(flat, leaf_dentry);
}

TEST(test_paths_fit_or_are_refused) {
    size_t exact = sizeof("/directory/leaf");

    begin_path("leaf");
    ck_assert_int_eq(path_of(sizeof(text)), 0);
    ck_assert_str_eq(text, "/directory/leaf");
    ck_assert_int_eq(path_of(exact), 0);
    ck_assert_str_eq(text, "/directory/leaf");
    ck_assert_int_eq(text[exact], 'x');
    for (size_t size = 1; size < exact; size++) {
        ck_assert_int_eq(path_of(size), VMIBUS_GUEST_UNPROVEN);
        ck_assert_str_eq(text, "");
    }
    end();
}

TEST(test_p09_paths_without_end_are_refused) {
    begin_path("leaf");
    ((struct flat_dentry *)flat_at(flat, leaf()->parent))->parent = leaf_dentry;
    ck_assert_int_eq(path_of(sizeof(text)), VMIBUS_GUEST_UNPROVEN);
    end();
    /* Names of no octets: the slashes alone must fill the room. */
    begin_path("");
    ((struct flat_dentry *)flat_at(flat, leaf()->parent))->parent = leaf_dentry;
    ck_assert_int_eq(path_of(sizeof(text)), VMIBUS_GUEST_UNPROVEN);
    end();
    /* Mounts on each other. */
    begin_path("leaf");
    ((struct flat_mount *)flat_at(flat, top_mount))->mnt_parent = flat_mount(flat, top_mount, root_dentry, root_dentry);
    ck_assert_int_eq(path_of(sizeof(text)), VMIBUS_GUEST_UNPROVEN);
    ck_assert_uint_lt(flat->reads, 10000);
    end();
}

TEST(test_p09_names_that_lie_are_refused) {
    begin_path("leaf");
    leaf()->name_len = UINT32_MAX;
    ck_assert_int_eq(path_of(sizeof(text)), VMIBUS_GUEST_UNPROVEN);
    leaf()->name_len = 1025;
    ck_assert_int_eq(path_of(sizeof(text)), VMIBUS_GUEST_UNPROVEN);
    leaf()->name_len = 3;
    ck_assert_int_eq(path_of(sizeof(text)), VMIBUS_GUEST_CHANGED);
    leaf()->name_len = 5;
    ck_assert_int_eq(path_of(sizeof(text)), VMIBUS_GUEST_CHANGED);
    leaf()->name_len = 4;
    leaf()->name = 0;
    ck_assert_int_gt(path_of(sizeof(text)), 0);
    leaf()->name = UINT64_MAX - 2;
    ck_assert_int_gt(path_of(sizeof(text)), 0);
    leaf()->name = leaf_dentry + sizeof(struct flat_dentry) - 2;
    ck_assert_int_gt(path_of(sizeof(text)), 0);
    end();
}

TEST(test_a_file_of_a_mount_that_it_was_moved_out_of) {
    begin_path("leaf");
    ((struct flat_mount *)flat_at(flat, top_mount))->mnt.mnt_root = flat_dentry(flat, root_dentry, "elsewhere");
    ck_assert_int_eq(path_of(sizeof(text)), 0);
    ck_assert_str_eq(text, "/directory/leaf");
    end();
}

TEST(test_names_that_file_systems_make) {
    static const struct {
        const char *maker, *text;
    } makers[] = {
        {"simple_dname", "/made (deleted)"}, {"pipefs_dname", "pipe:[42]"}, {"sockfs_dname", "socket:[42]"},
        {"anon_inodefs_dname", "anon_inode:made"}, {"ns_dname", "net:[42]"}, {"unknown_dname", "made"},
    };

    for (size_t i = 0; i < sizeof(makers) / sizeof(makers[0]); i++) {
        uint64_t operations, kind, name_space, file;
        struct linux_inode inode;

        begin_path("made");
        operations = flat_take(flat, 16);
        kind = flat_take(flat, 16);
        ((struct flat_special *)flat_at(flat, kind))->name = flat_text(flat, "net");
        ((struct flat_dentry_operations *)flat_at(flat, operations))->d_dname = 0xffffffff81000100 + i;
        flat_symbol(flat, makers[i].maker, 0xffffffff81000100 + i);
        leaf()->ops = operations;
        file = flat_file(flat, top_mount, leaf_dentry, 42, 11);
        name_space = flat_take(flat, sizeof(struct flat_namespace));
        ((struct flat_namespace *)flat_at(flat, name_space))->ops = kind;
        ((struct flat_inode *)flat_at(flat, leaf()->inode))->private_data = name_space;
        ck_assert_int_eq(linux_path_of_file(&flat->kernel, file, text, sizeof(text)), 0);
        ck_assert_str_eq(text, makers[i].text);
        ck_assert_int_eq(linux_inode_of_file(&flat->kernel, file, &inode), 0);
        ck_assert_uint_eq(inode.number, 42);
        ck_assert_uint_eq(inode.device, 11);
        ck_assert_uint_eq(inode.mode, 0100644);
        end();
    }
}

/* --- what fails ---------------------------------------------------------------------------------------------------------- */

/* Areas of files in a folder of a mount on a mount, and of none; twice as many as a leaf has room for. */
static uint64_t plant_files(enum flat_trees trees) {
    uint64_t root = flat_dentry(flat, 0, "/"), at = flat_dentry(flat, root, "mnt"), other = flat_dentry(flat, 0, "/");
    uint64_t outer = flat_mount(flat, 0, root, root), inner = flat_mount(flat, outer, at, other), mm = flat_mm(flat), areas[10];

    for (size_t i = 0; i < 10; i++) {
        uint64_t dentry = flat_dentry(flat, i % 2 ? root : other, "program"), from = 0x10000 + 16 * PAGE * i;
        uint64_t file = i % 3 ? flat_file(flat, i % 2 ? outer : inner, dentry, 100 + i, 8) : 0;

        areas[i] = flat_area(flat, mm, from, from + PAGE, RW, file);
    }
    flat_plant(flat, trees, mm, areas, 10, 5);
    return mm;
}

/* Each read fails in its turn: an error of the reader is passed on, and what is not whole is not called so. */
TEST(test_p12_each_read_that_fails, .iterations = 4, .timeout = 60) {
    enum flat_trees trees = _i & 1 ? FLAT_MAPLE : FLAT_RED_BLACK;
    size_t k = 1;
    uint64_t mm;

    begin(trees);
    mm = plant_files(trees);
    ck_assert_int_eq(visit(mm), 0);
    check_whole(10);
    for (flat->failure = _i & 2 ? -EIO : VMIBUS_GUEST_NOT_PRESENT;; k++) {
        int r;

        flat->reads = 0;
        flat->fail_at = k;
        r = visit(mm);
        if (flat->reads < k)
            break;
        if (flat->failure < 0)
            ck_assert_msg(r == flat->failure, "read %zu: %d", k, r);
        ck_assert_msg(r != 0 || seen.n == 10 || picture.n_broken > 0 || !(picture.flags & VMIBUS_LINUX_STEADY), "read %zu", k);
    }
    ck_assert_uint_gt(k, 20);
    end();
}

/* Each number of the kernel's memory in its turn is something else: a visit ends, and shows no more than it should. */
TEST(test_p12_each_number_may_be_anything, .iterations = 2, .timeout = 120) {
    enum flat_trees trees = _i ? FLAT_MAPLE : FLAT_RED_BLACK;
    uint64_t mm;

    begin(trees);
    mm = plant_files(trees);
    for (uint64_t at = FLAT_BASE; at < FLAT_BASE + flat->used; at += 8) {
        uint64_t honest, lies[6];

        memcpy(&honest, flat_at(flat, at), 8);
        memcpy(lies, (uint64_t[6]){0, UINT64_MAX, at, honest + 8, 4096, honest ^ UINT64_C(1) << 31}, sizeof(lies));
        for (size_t i = 0; honest && i < 6; i++) {
            int r;

            memcpy(flat_at(flat, at), &lies[i], 8);
            flat->reads = 0;
            r = visit(mm);
            ck_assert_msg(r >= 0, "%#" PRIx64 " is %#" PRIx64 ": %d", at, lies[i], r);
            ck_assert_uint_lt(flat->reads, 100000);
            ck_assert_uint_le(seen.n, 512);
            memcpy(flat_at(flat, at), &honest, 8);
        }
    }
    end();
}

HARNESS_SUITE("address space", HARNESS_QUICK)
