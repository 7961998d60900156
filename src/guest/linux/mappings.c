/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What /proc/PID/maps shows (Linux fs/proc/task_mmu.c, show_map_vma()): the areas of an address space with their names.
 *
 * The tree is walked twice: once for the visits, once to see whether it is still the same. An area that stays wrong after it was
 * asked for again is left out and counted; a tree that does ends the visit.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "areas.h"
#include "path.h"
#include "task.h"

enum {
    AREAS_BOUND = 1 << 18,  /* areas of an address space; vm.max_map_count is 65530 unless an administrator changed it */
    TRIES_BOUND = 8,        /* times that the same address is asked for */
    NAME_BOUND = 256,       /* octets of a name that is not a path */
    NAMES_BOUND = 64 << 20, /* octets of all names: each area may have one of 4096 */

    HAS_VSYSCALL_BIT = 1,   /* MM_CONTEXT_HAS_VSYSCALL, Linux arch/x86/include/asm/mmu.h */
    DEVICE_MINOR_BITS = 20, /* MINORBITS, Linux include/linux/kdev_t.h */
    PAGE_BITS = 12,
};

/* Linux include/linux/mm.h, vm_flags. */
#define VM_READ UINT64_C(0x01)
#define VM_WRITE UINT64_C(0x02)
#define VM_EXEC UINT64_C(0x04)
#define VM_MAYSHARE UINT64_C(0x80)

struct mapping_layout {
    struct area_fields areas;
    struct linux_field mm_start_brk, mm_brk, mm_start_stack, mm_context_flags;
    struct linux_field ops_name;
    struct linux_field special_name;
    struct linux_field anon_name_text;
    uint64_t special_namer; /* address of the function that names special areas; 0: not known */
    uint64_t gate_area;     /* address of the area that all processes have; 0: not known */
    uint64_t vsyscall_mode; /* address of the number that says whether they do; 0: not known */
    int64_t vsyscall_none;  /* ... that they do not */
};

#define WISH(structure, path, field) {structure, path, offsetof(struct mapping_layout, field), false}
#define OPTION(structure, path, field) {structure, path, offsetof(struct mapping_layout, field), true}

static const struct linux_wish wishes[] = {
    WISH("mm_struct", "start_brk", mm_start_brk),
    WISH("mm_struct", "brk", mm_brk),
    WISH("mm_struct", "start_stack", mm_start_stack),
    OPTION("mm_struct", "context.flags", mm_context_flags),
    WISH("vm_operations_struct", "name", ops_name),
    OPTION("vm_special_mapping", "name", special_name),
    OPTION("anon_vma_name", "name", anon_name_text),
    {0},
};

/* A symbol that the kernel may lack. */
static int look_up_symbol(struct vmibus_linux *kernel, const char *name, uint64_t *gva) {
    int r = linux_symbol(kernel, name, gva);

    if (r != VMIBUS_GUEST_NOT_FOUND)
        return r;
    *gva = 0;
    return 0;
}

static int look_up(struct vmibus_linux *kernel, void *into) {
    struct mapping_layout *layout = into;
    int r = area_fields_resolve(kernel, &layout->areas);

    if (r == 0)
        r = linux_fields_resolve(kernel, wishes, layout);
    if (r == 0)
        r = look_up_symbol(kernel, "special_mapping_name", &layout->special_namer);
    if (r == 0)
        r = look_up_symbol(kernel, "gate_vma", &layout->gate_area);
    if (r == 0)
        r = look_up_symbol(kernel, "vsyscall_mode", &layout->vsyscall_mode);
    /* enum { EMULATE, XONLY, NONE }, before 5.2 without XONLY. */
    if (r == 0 && linux_enumerator(kernel, "XONLY", &layout->vsyscall_none) != 0)
        layout->vsyscall_none = 0;
    layout->vsyscall_none++;
    return r;
}

static int get_layout(struct vmibus_linux *kernel, const struct mapping_layout **layoutp) {
    int r = linux_layout_get(kernel, &kernel->mapping_layout, sizeof(struct mapping_layout), look_up);

    *layoutp = kernel->mapping_layout;
    return r;
}

/* A visit. */
struct visit {
    struct vmibus_linux *kernel;
    const struct mapping_layout *layout;
    const struct task_layout *tasks;
    const struct vmibus_linux_task *task;
    uint64_t mm;            /* its address space */
    uint64_t start_brk, brk, start_stack;
    uint64_t sum;           /* over all areas in their order: the same again if nothing changed */
    uint64_t n;             /* areas, broken ones included */
    uint64_t n_octets;      /* of names that were shown */
    /* The file that was named last: its areas mostly adjoin. */
    uint64_t file;
    struct linux_inode inode;
    char path[VMIBUS_LINUX_PATH_SIZE];
    char name[NAME_BOUND];
};

/* --- names ----------------------------------------------------------------------------------------------------------- */

/* Names the file, unless it was the last one too. A path that changes under the hand is read again. */
static int name_file(struct visit *visit, uint64_t file) {
    int r;

    if (visit->file == file)
        return 0;
    visit->file = 0;
    r = linux_inode_of_file(visit->kernel, file, &visit->inode);
    if (r != 0)
        visit->inode = (struct linux_inode){0};
    for (int i = 0; r == 0 && i < TRIES_BOUND; i++) {
        r = linux_path_of_file(visit->kernel, file, visit->path, sizeof(visit->path));
        if (r == 0) {
            visit->file = file;
            return 0;
        }
        if (r == VMIBUS_GUEST_CHANGED && i < TRIES_BOUND - 1)
            r = 0;
    }
    return r;
}

/* The name of an area such as the vdso, "" if it is none: its own function names it, from its description. */
static int name_special(struct visit *visit, const struct area *area) {
    const struct mapping_layout *layout = visit->layout;
    uint64_t namer = 0, name;
    int r = linux_read_field(visit->kernel, area->ops, &layout->ops_name, &namer);

    visit->name[0] = '\0';
    if (r != 0 || namer == 0 || namer != layout->special_namer || layout->special_name.size == 0)
        return r;
    r = linux_read_field(visit->kernel, area->private_data, &layout->special_name, &name);
    return r == 0 ? linux_read_text(visit->kernel, name, visit->name, sizeof(visit->name)) : r;
}

/* "[anon:NAME]", as the process named it (prctl(PR_SET_VMA)). */
static int name_anonymous(struct visit *visit, const struct area *area, const char *kind) {
    size_t len = strlen(kind);
    int r = linux_read_text(visit->kernel, area->anon_name + visit->layout->anon_name_text.offset, visit->name + len,
                            sizeof(visit->name) - len - 1);

    if (r != 0)
        return r;
    memcpy(visit->name, kind, len);
    strcat(visit->name, "]");
    return 0;
}

static int name_area(struct visit *visit, const struct area *area, const char **name) {
    bool is_named = area->anon_name != 0 && visit->layout->anon_name_text.size > 0;
    int r = 0;

    *name = visit->name;
    visit->name[0] = '\0';
    if (area->file != 0) {
        r = name_file(visit, area->file);
        if (r == 0 && is_named)
            return name_anonymous(visit, area, "[anon_shmem:");
        *name = visit->path;
        return r;
    }
    if (area->ops != 0) {
        r = name_special(visit, area);
        if (r != 0 || visit->name[0] != '\0')
            return r;
    }
    if (area->start <= visit->brk && area->end >= visit->start_brk)
        *name = "[heap]";
    else if (area->start <= visit->start_stack && area->end >= visit->start_stack)
        *name = "[stack]";
    else if (is_named)
        r = name_anonymous(visit, area, "[anon:");
    return r;
}

/* --- the visit --------------------------------------------------------------------------------------------------------- */

static void describe(const struct visit *visit, const struct area *area, const char *name, struct vmibus_linux_mapping *mapping) {
    *mapping = (struct vmibus_linux_mapping){
        .start = area->start,
        .end = area->end,
        .area = area->gva,
        .file = area->file,
        .name = name,
        .flags = (area->flags & VM_READ ? VMIBUS_LINUX_MAPPING_READ : 0) |
                 (area->flags & VM_WRITE ? VMIBUS_LINUX_MAPPING_WRITE : 0) |
                 (area->flags & VM_EXEC ? VMIBUS_LINUX_MAPPING_EXECUTE : 0) |
                 (area->flags & VM_MAYSHARE ? VMIBUS_LINUX_MAPPING_SHARED : 0),
    };
    if (area->file == 0)
        return;
    mapping->offset = area->page_offset << PAGE_BITS;
    mapping->inode = visit->inode.number;
    mapping->device_major = visit->inode.device >> DEVICE_MINOR_BITS;
    mapping->device_minor = visit->inode.device & ((1u << DEVICE_MINOR_BITS) - 1);
}

/* What ends a visit that its caller ends. */
#define ENOUGH VMIBUS_GUEST_UNFINISHED

/* Hands an area over. 0, ENOUGH or a negative errno. */
static int show(struct visit *visit, const struct area *area, const char *special, vmibus_linux_mapping_fn call, void *context,
                struct vmibus_linux_picture *picture) {
    struct vmibus_linux_mapping mapping;
    const char *name = special;

    if (!name) {
        int r = visit->n_octets > NAMES_BOUND ? VMIBUS_GUEST_UNPROVEN : name_area(visit, area, &name);

        if (r < 0)
            return r;
        /* Named or not, the area is there. */
        picture->n_broken += r != 0;
        name = r ? NULL : name;
    }
    visit->n_octets += name ? strlen(name) : 0;
    describe(visit, area, name, &mapping);
    picture->n_seen++;
    return call(context, &mapping) ? 0 : ENOUGH;
}

static void add_to_sum(struct visit *visit, uint64_t value) {
    visit->sum = (visit->sum ^ value) * UINT64_C(0x9e3779b97f4a7c15);
    visit->sum ^= visit->sum >> 29;
}

static void add_area(struct visit *visit, const struct area *area) {
    add_to_sum(visit, area->gva);
    add_to_sum(visit, area->start);
    add_to_sum(visit, area->end);
    add_to_sum(visit, area->flags);
    add_to_sum(visit, area->page_offset);
    add_to_sum(visit, area->file);
}

/* The next area, asked for again as long as it changes. `after` as of area_next(). */
static int next_area(struct visit *visit, uint64_t address, struct area_walk *walk, struct area *area, uint64_t *after) {
    int r = VMIBUS_GUEST_CHANGED;

    for (int i = 0; i < TRIES_BOUND && (r == VMIBUS_GUEST_CHANGED || r == VMIBUS_GUEST_UNPROVEN); i++)
        r = area_next(visit->kernel, &visit->layout->areas, visit->mm, address, walk, area, after);
    return r;
}

/* How a walk ended. */
enum walk_end {
    WALK_ENDED,
    WALK_BOUNDED,
    WALK_CUT,       /* by whoever visits, or the tree cannot be followed */
};

/* Walks all areas, and hands them over if `call` is there. Returns 0 and how it ended, or a negative errno. */
static int walk_areas(struct visit *visit, vmibus_linux_mapping_fn call, void *context, struct vmibus_linux_picture *picture,
                      enum walk_end *end) {
    struct area_walk walk = {0};
    uint64_t address = 0, after;

    visit->sum = 0;
    *end = WALK_ENDED;
    for (visit->n = 0;; visit->n++) {
        struct area area;
        int r = next_area(visit, address, &walk, &area, &after);

        if (r < 0 || r == VMIBUS_GUEST_NOT_FOUND)
            return r < 0 ? r : 0;
        if (visit->n == AREAS_BOUND) {
            *end = WALK_BOUNDED;
            return 0;
        }
        if (r != 0) {
            picture->n_broken += call != NULL;
            *end = WALK_CUT;
            if (after <= address)
                return 0;
            /* The tree can be followed behind the area that is wrong. */
            *end = WALK_ENDED;
            address = after;
            continue;
        }
        add_area(visit, &area);
        address = area.end;
        r = call ? show(visit, &area, NULL, call, context, picture) : 0;
        if (r) {
            *end = WALK_CUT;
            return r < 0 ? r : 0;
        }
    }
}

/*
 * The area that the kernel shows to all, behind theirs (Linux arch/x86/entry/vsyscall/vsyscall_64.c, get_gate_vma()).
 */
static int show_gate(struct visit *visit, vmibus_linux_mapping_fn call, void *context, struct vmibus_linux_picture *picture) {
    const struct mapping_layout *layout = visit->layout;
    struct area area;
    uint64_t flags = UINT64_C(1) << HAS_VSYSCALL_BIT;
    uint32_t mode;
    int r;

    if (layout->gate_area == 0 || layout->vsyscall_mode == 0)
        return 0;
    r = linux_read_u32(visit->kernel, layout->vsyscall_mode, &mode);
    if (r == 0 && (int64_t)mode == layout->vsyscall_none)
        return 0;
    if (r == 0 && layout->mm_context_flags.size > 0)
        r = linux_read_field(visit->kernel, visit->mm, &layout->mm_context_flags, &flags);
    if (r == 0 && !(flags >> HAS_VSYSCALL_BIT & 1))
        return 0;
    if (r == 0)
        r = area_read(visit->kernel, &layout->areas, layout->gate_area, &area);
    if (r)
        return r < 0 ? r : 0;
    area.file = 0;
    return show(visit, &area, "[vsyscall]", call, context, picture);
}

/* Whether the address space is still that of the task: one that was given back may soon be another process's. */
static int check_owner(const struct visit *visit) {
    uint64_t mm;
    int r = task_check(visit->kernel, visit->tasks, visit->task);

    if (r != 0)
        return r;
    r = linux_read_field(visit->kernel, visit->task->task, &visit->tasks->task.mm, &mm);
    if (r < 0 || (r == 0 && mm == visit->mm))
        return r;
    return linux_because(visit->kernel, VMIBUS_GUEST_CHANGED, "process %u has another address space than it had, or none",
                         visit->task->pid);
}

/* Reads what is needed of the address space; it must be in use. */
static int open_space(struct visit *visit, uint64_t *n_areas) {
    struct vmibus_linux *kernel = visit->kernel;
    const struct mapping_layout *layout = visit->layout;
    uint64_t users;
    int r = linux_is_kernel_address(kernel, visit->mm) ? 0 : VMIBUS_GUEST_UNPROVEN;

    if (r == 0)
        r = linux_read_field(kernel, visit->mm, &layout->areas.mm_users, &users);
    if (r == 0)
        r = linux_read_field(kernel, visit->mm, &layout->areas.mm_count, n_areas);
    if (r == 0)
        r = linux_read_field(kernel, visit->mm, &layout->mm_start_brk, &visit->start_brk);
    if (r == 0)
        r = linux_read_field(kernel, visit->mm, &layout->mm_brk, &visit->brk);
    if (r == 0)
        r = linux_read_field(kernel, visit->mm, &layout->mm_start_stack, &visit->start_stack);
    if (r != 0)
        return linux_because(kernel, r < 0 ? r : VMIBUS_GUEST_UNPROVEN, "there is no mm_struct at %#" PRIx64, visit->mm);
    if (users == 0)
        return linux_because(kernel, VMIBUS_GUEST_CHANGED, "nobody uses the mm_struct at %#" PRIx64 " any more", visit->mm);
    return 0;
}

static int visit_space(struct visit *visit, vmibus_linux_mapping_fn call, void *context, struct vmibus_linux_picture *picture) {
    uint64_t n_before = 0, n_after = 0, n, sum;
    enum walk_end end = WALK_CUT;
    int r = check_owner(visit);

    if (r == 0)
        r = open_space(visit, &n_before);
    if (r == 0)
        r = walk_areas(visit, call, context, picture, &end);
    if (r == 0 && end == WALK_ENDED)
        r = show_gate(visit, call, context, picture);
    if (r != 0 || end == WALK_CUT)
        return r == ENOUGH ? 0 : r;
    picture->flags |= end == WALK_ENDED ? VMIBUS_LINUX_ENDED : VMIBUS_LINUX_BOUNDED;
    n = visit->n;
    sum = visit->sum;
    r = walk_areas(visit, NULL, NULL, picture, &end);
    if (r != 0)
        return r;
    r = linux_read_field(visit->kernel, visit->mm, &visit->layout->areas.mm_count, &n_after);
    if (r == 0 && (visit->n != n || visit->sum != sum || n_before != n_after || (n_after != n && end != WALK_BOUNDED)))
        r = VMIBUS_GUEST_CHANGED;
    if (r == 0)
        r = check_owner(visit);
    picture->flags |= r == 0 ? VMIBUS_LINUX_STEADY : 0;
    return r < 0 ? r : 0;
}

int vmibus_linux_visit_mappings(struct vmibus_linux *kernel, const struct vmibus_linux_task *task, vmibus_linux_mapping_fn call,
                                void *context, struct vmibus_linux_picture *picture) {
    const struct mapping_layout *layout;
    const struct task_layout *tasks;
    struct visit *visit;
    int r;

    *picture = (struct vmibus_linux_picture){0};
    r = get_layout(kernel, &layout);
    if (r == 0)
        r = task_layout_get(kernel, &tasks);
    if (r != 0)
        return r;
    if (task->mm == 0)
        return linux_because(kernel, VMIBUS_GUEST_NOT_FOUND, "process %u has no address space of its own", task->pid);
    visit = calloc(1, sizeof(*visit));
    if (!visit)
        return -ENOMEM;
    visit->kernel = kernel;
    visit->layout = layout;
    visit->tasks = tasks;
    visit->task = task;
    visit->mm = task->mm;
    r = visit_space(visit, call, context, picture);
    free(visit);
    return r;
}
