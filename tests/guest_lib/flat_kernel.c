/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See flat_kernel.h. */
#include "flat_kernel.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fake_btf.h"
#include "guest/linux/btf.h"


/* --- what the kernel object does ----------------------------------------------------------------------------------- */

static struct flat_kernel *flat_of(const struct vmibus_linux *kernel) {
    return (struct flat_kernel *)((uintptr_t)kernel - offsetof(struct flat_kernel, kernel));
}

int linux_read(const struct vmibus_linux *kernel, uint64_t gva, void *buffer, size_t len) {
    struct flat_kernel *flat = flat_of(kernel);
    uint64_t at = gva - FLAT_BASE;

    if (++flat->reads == flat->fail_at)
        return flat->failure;
    if (flat->before_read)
        flat->before_read(flat, gva);
    if (at > FLAT_LEN || len > FLAT_LEN - at)
        return VMIBUS_GUEST_NOT_PRESENT;
    memcpy(buffer, flat->memory + at, len);
    return 0;
}

int linux_symbol(struct vmibus_linux *kernel, const char *name, uint64_t *gva) {
    struct flat_kernel *flat = flat_of(kernel);

    for (size_t i = 0; i < flat->n_symbols; i++)
        if (strcmp(flat->symbols[i].name, name) == 0) {
            *gva = flat->symbols[i].gva;
            return 0;
        }
    return VMIBUS_GUEST_NOT_FOUND;
}

/* --- its layouts ------------------------------------------------------------------------------------------------------ */

/* A member of a structure of the kernel: its type is by its size, unless it is a structure or array itself. */
struct member {
    const char *name;
    size_t offset, size;
    uint32_t type;
};

static uint32_t type_by_size(size_t size) {
    return size == 8 ? 1 : size == 4 ? 2 : size == 2 ? 3 : 4;
}

static uint32_t describe(struct fake_btf *btf, const char *name, size_t size, const struct member *members, size_t n) {
    uint32_t id = fake_btf_type(btf, name, FAKE_STRUCT, 0, (uint32_t)size);

    for (size_t i = 0; i < n; i++)
        fake_btf_member(btf, members[i].name, members[i].type ? members[i].type : type_by_size(members[i].size),
                        (uint32_t)members[i].offset * 8);
    return id;
}

#define AT(structure, name, member) {name, offsetof(struct structure, member), sizeof(((struct structure *)0)->member), 0}
#define OF(structure, name, member, type) {name, offsetof(struct structure, member), 0, type}
#define DESCRIBE(name, structure, ...) \
    describe(&btf, name, sizeof(struct structure), (const struct member[]){__VA_ARGS__}, \
             sizeof((const struct member[]){__VA_ARGS__}) / sizeof(struct member))

static void describe_files(struct fake_btf *btf_in) {
    static struct fake_btf btf;
    uint32_t hash, name, vfsmount, path, text;

    btf = *btf_in;
    text = fake_btf_array(&btf, 4, 32);
    hash = describe(&btf, NULL, 16, (const struct member[]){{"next", 0, 8, 0}, {"pprev", 8, 8, 0}}, 2);
    name = describe(&btf, NULL, 16, (const struct member[]){{"hash", 0, 4, 0}, {"len", 4, 4, 0}, {"name", 8, 8, 0}}, 3);
    vfsmount = describe(&btf, "vfsmount", 16, (const struct member[]){{"mnt_root", 0, 8, 0}, {"mnt_sb", 8, 8, 0}}, 2);
    path = describe(&btf, "path", 16, (const struct member[]){{"mnt", 0, 8, 0}, {"dentry", 8, 8, 0}}, 2);
    DESCRIBE("dentry", flat_dentry, OF(flat_dentry, "d_hash", hash_next, hash), AT(flat_dentry, "d_parent", parent),
             OF(flat_dentry, "d_name", name_hash, name), AT(flat_dentry, "d_inode", inode),
             OF(flat_dentry, "d_iname", inline_name, text), AT(flat_dentry, "d_op", ops));
    DESCRIBE("dentry_operations", flat_dentry_operations, AT(flat_dentry_operations, "d_dname", d_dname));
    DESCRIBE("mount", flat_mount, AT(flat_mount, "mnt_parent", mnt_parent), AT(flat_mount, "mnt_mountpoint", mnt_mountpoint),
             OF(flat_mount, "mnt", mnt, vfsmount));
    DESCRIBE("file", flat_file, OF(flat_file, "f_path", path_mnt, path), AT(flat_file, "f_inode", inode));
    DESCRIBE("inode", flat_inode, AT(flat_inode, "i_mode", mode), AT(flat_inode, "i_sb", super), AT(flat_inode, "i_ino", number),
             AT(flat_inode, "i_private", private_data));
    DESCRIBE("ns_common", flat_namespace, AT(flat_namespace, "ops", ops));
    DESCRIBE("super_block", flat_super, AT(flat_super, "s_dev", device));
    DESCRIBE("proc_ns_operations", flat_special, AT(flat_special, "name", name));
    *btf_in = btf;
}

static void describe_spaces(struct fake_btf *btf_in, enum flat_trees trees) {
    static struct fake_btf btf;
    uint32_t root, counter, context, rb, array_9, array_10, array_15, array_16;

    btf = *btf_in;
    root = describe(&btf, NULL, 8, (const struct member[]){{trees == FLAT_MAPLE ? "ma_root" : "rb_node", 0, 8, 0}}, 1);
    counter = describe(&btf, NULL, 4, (const struct member[]){{"counter", 0, 4, 0}}, 1);
    context = describe(&btf, NULL, 8, (const struct member[]){{"flags", 0, 8, 0}}, 1);
    rb = describe(&btf, "rb_node", 24, (const struct member[]){{"rb_right", 8, 8, 0}, {"rb_left", 16, 8, 0}}, 2);
    array_9 = fake_btf_array(&btf, 1, 9);
    array_10 = fake_btf_array(&btf, 1, 10);
    array_15 = fake_btf_array(&btf, 1, 15);
    array_16 = fake_btf_array(&btf, 1, 16);
    DESCRIBE("mm_struct", flat_mm, OF(flat_mm, trees == FLAT_MAPLE ? "mm_mt" : "mm_rb", root, root),
             OF(flat_mm, "mm_users", users, counter), AT(flat_mm, "map_count", map_count), AT(flat_mm, "start_brk", start_brk),
             AT(flat_mm, "brk", brk), AT(flat_mm, "start_stack", start_stack), AT(flat_mm, "pgd", pgd),
             AT(flat_mm, "arg_start", own_text[0]), AT(flat_mm, "arg_end", own_text[1]), AT(flat_mm, "env_start", own_text[2]),
             AT(flat_mm, "env_end", own_text[3]), OF(flat_mm, "context", context_flags, context));
    DESCRIBE("vm_area_struct", flat_area, AT(flat_area, "vm_start", start), AT(flat_area, "vm_end", end),
             AT(flat_area, "vm_mm", mm), AT(flat_area, "vm_flags", flags), OF(flat_area, "vm_rb", rb_parent, rb),
             AT(flat_area, "vm_ops", ops), AT(flat_area, "vm_pgoff", page_offset), AT(flat_area, "vm_file", file),
             AT(flat_area, "vm_private_data", private_data), AT(flat_area, "anon_name", anon_name));
    DESCRIBE("vm_operations_struct", flat_operations, AT(flat_operations, "name", name));
    DESCRIBE("vm_special_mapping", flat_special, AT(flat_special, "name", name));
    DESCRIBE("anon_vma_name", flat_special, {"kref", 0, 4, 0}, {"name", 4, 1, 0});
    DESCRIBE("list_head", flat_list, AT(flat_list, "next", next));
    DESCRIBE("maple_range_64", flat_range_node, AT(flat_range_node, "parent", parent),
             OF(flat_range_node, "pivot", pivot, array_15), OF(flat_range_node, "slot", slot, array_16));
    DESCRIBE("maple_arange_64", flat_arange_node, AT(flat_arange_node, "parent", parent),
             OF(flat_arange_node, "pivot", pivot, array_9), OF(flat_arange_node, "slot", slot, array_10));
    *btf_in = btf;
}

/* A task of which only the process and its address space are told; everything else lies somewhere in the rest. */
static void describe_tasks(struct fake_btf *btf_in) {
    static struct fake_btf btf;
    const uint32_t rest = (uint32_t)offsetof(struct flat_task, rest);
    uint32_t list, text, path, upid;

    btf = *btf_in;
    list = describe(&btf, NULL, 16, (const struct member[]){{"next", 0, 8, 0}}, 1);
    path = describe(&btf, NULL, 16, (const struct member[]){{"mnt", 0, 8, 0}, {"dentry", 8, 8, 0}}, 2);
    text = fake_btf_array(&btf, 4, VMIBUS_LINUX_COMM_SIZE);
    upid = describe(&btf, "upid", 16, (const struct member[]){{"nr", 0, 4, 0}}, 1);
    DESCRIBE("task_struct", flat_task, AT(flat_task, "mm", mm), AT(flat_task, "start_boottime", start_time),
             AT(flat_task, "pid", pid), AT(flat_task, "tgid", tgid), {"__state", rest, 4, 0}, {"tasks", rest, 0, list},
             {"thread_node", rest, 0, list}, {"comm", rest, 0, text}, {"exit_state", rest, 4, 0}, {"flags", rest, 4, 0},
             {"real_parent", rest, 8, 0}, {"real_cred", rest, 8, 0}, {"signal", rest, 8, 0}, {"fs", rest, 8, 0},
             {"files", rest, 8, 0});
    describe(&btf, "cred", 16, (const struct member[]){{"uid", 0, 4, 0}, {"euid", 4, 4, 0}, {"gid", 8, 4, 0}}, 3);
    describe(&btf, "pid", 32, (const struct member[]){{"level", 0, 4, 0}, {"numbers", 16, 0, upid}}, 2);
    describe(&btf, "signal_struct", 16, (const struct member[]){{"thread_head", 0, 0, list}}, 1);
    describe(&btf, "fs_struct", 16, (const struct member[]){{"pwd", 0, 0, path}}, 1);
    *btf_in = btf;
}

static struct btf *make_btf(enum flat_trees trees) {
    static struct fake_btf fake;
    char why[BTF_WHY_BOUND];
    struct btf *btf;
    void *octets;
    size_t len;

    fake_btf_begin(&fake, 1, 0);
    fake_btf_int(&fake, "u64", 8, 64);
    fake_btf_int(&fake, "u32", 4, 32);
    fake_btf_int(&fake, "u16", 2, 16);
    fake_btf_int(&fake, "u8", 1, 8);
    describe_files(&fake);
    describe_tasks(&fake);
    describe_spaces(&fake, trees);
    fake_btf_type(&fake, NULL, FAKE_ENUM, 0, 4);
    fake_btf_value(&fake, "XONLY", 1);
    octets = fake_btf_octets(&fake, &len);
    if (btf_new(&btf, NULL, octets, len, why) != 0)
        abort();
    return btf;
}

/* --- its memory ------------------------------------------------------------------------------------------------------- */

struct flat_kernel *flat_kernel_new(enum flat_trees trees) {
    struct flat_kernel *flat = calloc(1, sizeof(*flat));

    if (flat)
        flat->kernel.btf = make_btf(trees);
    if (flat)
        flat_symbol(flat, "init_task", flat_take(flat, sizeof(struct flat_task)));
    return flat;
}

struct flat_kernel *flat_kernel_free(struct flat_kernel *flat) {
    if (!flat)
        return NULL;
    btf_free(flat->kernel.btf);
    free(flat->kernel.task_layout);
    free(flat->kernel.path_layout);
    free(flat->kernel.mapping_layout);
    free(flat);
    return NULL;
}

uint64_t flat_take(struct flat_kernel *flat, size_t len) {
    size_t at = flat->used;

    if (len > FLAT_LEN - at - 256)
        abort();
    flat->used = (at + len + 255) / 256 * 256;
    return FLAT_BASE + at;
}

void *flat_at(struct flat_kernel *flat, uint64_t gva) {
    if (gva - FLAT_BASE >= FLAT_LEN)
        abort();
    return flat->memory + (gva - FLAT_BASE);
}

uint64_t flat_text(struct flat_kernel *flat, const char *text) {
    uint64_t gva = flat_take(flat, strlen(text) + 1);

    memcpy(flat_at(flat, gva), text, strlen(text) + 1);
    return gva;
}

void flat_symbol(struct flat_kernel *flat, const char *name, uint64_t gva) {
    if (flat->n_symbols == FLAT_SYMBOLS)
        abort();
    flat->symbols[flat->n_symbols].name = name;
    flat->symbols[flat->n_symbols++].gva = gva;
}

uint64_t flat_mount(struct flat_kernel *flat, uint64_t parent, uint64_t mountpoint, uint64_t root) {
    uint64_t gva = flat_take(flat, sizeof(struct flat_mount));
    struct flat_mount *mount = flat_at(flat, gva);

    mount->mnt_parent = parent ? parent : gva;
    mount->mnt_mountpoint = mountpoint ? mountpoint : root;
    mount->mnt.mnt_root = root;
    return gva;
}

uint64_t flat_dentry(struct flat_kernel *flat, uint64_t parent, const char *name) {
    uint64_t gva = flat_take(flat, sizeof(struct flat_dentry));
    struct flat_dentry *dentry = flat_at(flat, gva);

    dentry->parent = parent ? parent : gva;
    dentry->hash_pprev = FLAT_BASE;
    dentry->name_len = (uint32_t)strlen(name);
    if (strlen(name) < sizeof(dentry->inline_name)) {
        memcpy(dentry->inline_name, name, strlen(name) + 1);
        dentry->name = gva + offsetof(struct flat_dentry, inline_name);
    } else {
        dentry->name = flat_text(flat, name);
    }
    return gva;
}

uint64_t flat_file(struct flat_kernel *flat, uint64_t mount, uint64_t dentry, uint64_t number, uint32_t device) {
    uint64_t gva = flat_take(flat, sizeof(struct flat_file)), inode_gva = flat_take(flat, sizeof(struct flat_inode));
    uint64_t super_gva = flat_take(flat, sizeof(struct flat_super));
    struct flat_file *file = flat_at(flat, gva);
    struct flat_inode *inode = flat_at(flat, inode_gva);
    struct flat_dentry *named = flat_at(flat, dentry);
    struct flat_super *super = flat_at(flat, super_gva);

    file->path_mnt = mount + offsetof(struct flat_mount, mnt);
    file->path_dentry = dentry;
    file->inode = inode_gva;
    named->inode = inode_gva;
    inode->number = number;
    inode->mode = 0100644;
    inode->super = super_gva;
    super->device = device;
    return gva;
}

uint64_t flat_mm(struct flat_kernel *flat) {
    uint64_t gva = flat_take(flat, sizeof(struct flat_mm));
    struct flat_mm *mm = flat_at(flat, gva);

    mm->users = 1;
    mm->start_brk = mm->brk = mm->start_stack = UINT64_MAX;
    return gva;
}

void flat_task(struct flat_kernel *flat, uint32_t pid, struct vmibus_linux_task *task) {
    uint64_t gva = flat_take(flat, sizeof(struct flat_task));

    *(struct flat_task *)flat_at(flat, gva) = (struct flat_task){.start_time = gva, .pid = pid, .tgid = pid};
    *task = (struct vmibus_linux_task){.task = gva, .start_time = gva, .pid = pid, .tgid = pid};
}

uint64_t flat_area(struct flat_kernel *flat, uint64_t mm, uint64_t start, uint64_t end, uint64_t flags, uint64_t file) {
    uint64_t gva = flat_take(flat, sizeof(struct flat_area));
    struct flat_area *area = flat_at(flat, gva);

    *area = (struct flat_area){.start = start, .end = end, .mm = mm, .flags = flags, .file = file};
    return gva;
}

/* --- its trees -------------------------------------------------------------------------------------------------------- */

static uint64_t plant_red_black(struct flat_kernel *flat, const uint64_t *areas, size_t n) {
    struct flat_area *area;

    if (n == 0)
        return 0;
    area = flat_at(flat, areas[n / 2]);
    area->rb_left = plant_red_black(flat, areas, n / 2);
    area->rb_right = plant_red_black(flat, areas + n / 2 + 1, n - n / 2 - 1);
    return areas[n / 2] + offsetof(struct flat_area, rb_parent);
}

/* A subtree and the last index that it is for. */
struct branch {
    uint64_t pointer, last;
};

/* A leaf: the areas and the gaps between them. The last pivot stays 0, as the last of a node may. */
static struct branch plant_leaf(struct flat_kernel *flat, const uint64_t *areas, size_t n, uint64_t first, bool is_last) {
    uint64_t gva = flat_take(flat, sizeof(struct flat_range_node));
    struct flat_range_node *node = flat_at(flat, gva);
    size_t slot = 0;

    for (size_t i = 0; i < n; i++) {
        const struct flat_area *area = flat_at(flat, areas[i]);

        if (area->start > first)
            node->pivot[slot++] = area->start - 1;
        node->pivot[slot] = area->end - 1;
        node->slot[slot++] = areas[i];
        first = area->end;
    }
    if (!is_last && slot > 1)
        node->pivot[slot - 1] = 0;
    return (struct branch){.pointer = gva | 1 << 3 | 4, .last = is_last ? UINT64_MAX : first - 1};
}

static struct branch plant_inner(struct flat_kernel *flat, const struct branch *children, size_t n) {
    uint64_t gva = flat_take(flat, sizeof(struct flat_arange_node));
    struct flat_arange_node *node = flat_at(flat, gva);

    for (size_t i = 0; i < n; i++) {
        node->slot[i] = children[i].pointer;
        if (i < 9 && (i + 1 < n || n == 1))
            node->pivot[i] = children[i].last;
        ((struct flat_range_node *)flat_at(flat, children[i].pointer & ~UINT64_C(255)))->parent = gva | i << 3 | 6;
    }
    return (struct branch){.pointer = gva | 3 << 3 | 4, .last = children[n - 1].last};
}

static uint64_t plant_maple(struct flat_kernel *flat, const uint64_t *areas, size_t n, size_t fan) {
    static struct branch branches[4096];
    size_t n_branches = 0;
    uint64_t first = 0;

    for (size_t i = 0; i < n; i += fan, n_branches++) {
        size_t here = n - i < fan ? n - i : fan;

        branches[n_branches] = plant_leaf(flat, areas + i, here, first, i + here == n);
        first = branches[n_branches].last + 1;
    }
    while (n_branches > 1) {
        size_t n_above = 0;

        for (size_t i = 0; i < n_branches; i += 10)
            branches[n_above++] = plant_inner(flat, branches + i, n_branches - i < 10 ? n_branches - i : 10);
        n_branches = n_above;
    }
    return n_branches == 0 ? 0 : branches[0].pointer | 2;
}

void flat_plant(struct flat_kernel *flat, enum flat_trees trees, uint64_t mm_gva, const uint64_t *areas, size_t n, size_t fan) {
    struct flat_mm *mm = flat_at(flat, mm_gva);

    mm->root = trees == FLAT_MAPLE ? plant_maple(flat, areas, n, fan) : plant_red_black(flat, areas, n);
    mm->map_count = (uint32_t)n;
}
