/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Paths, from the last name to the first: dentry to parent, and from the root of a mount to where it is mounted.
 *
 * Names are put in front of each other into the caller's room, so its size bounds how many there can be, each having a slash at
 * least; how often a mount is left is bounded beside it. A dentry is copied once, and its name with the NUL
 * that the kernel keeps behind it: where there is none, it was renamed meanwhile.
 */
#include "path.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum {
    MOUNTS_BOUND = 256,      /* mounts on each other on the way up */
    NAME_BOUND = 1024,       /* octets of a name; of a file 255, of what has none on any disk maybe more */
    DENTRY_BOUND = 512,      /* octets of a dentry that are copied */
    FILE_SYSTEM_NAME = 32,   /* octets of the name of a kind of namespace */
};

/* Functions that make the names of files which have no path (struct dentry_operations, d_dname). */
enum name_maker {
    MAKER_SIMPLE,
    MAKER_PIPE,
    MAKER_SOCKET,
    MAKER_ANONYMOUS,
    MAKER_NAMESPACE,
    N_MAKERS,
};

static const char *const maker_names[N_MAKERS] = {
    [MAKER_SIMPLE] = "simple_dname",           /* fs/d_path.c */
    [MAKER_PIPE] = "pipefs_dname",             /* fs/pipe.c */
    [MAKER_SOCKET] = "sockfs_dname",           /* net/socket.c */
    [MAKER_ANONYMOUS] = "anon_inodefs_dname",  /* fs/anon_inodes.c */
    [MAKER_NAMESPACE] = "ns_dname",            /* fs/nsfs.c */
};

struct path_layout {
    struct linux_field dentry_parent, dentry_name, dentry_name_len, dentry_hashed, dentry_ops, dentry_inode;
    struct linux_field ops_name;
    struct linux_field mount_vfs, mount_parent, mount_mountpoint;
    struct linux_field vfsmount_root;
    struct linux_field file_mnt, file_dentry, file_inode;
    struct linux_field inode_number, inode_mode, inode_super, inode_private;
    struct linux_field super_device;
    struct linux_field namespace_operations, namespace_name;
    uint32_t dentry_size;
    uint64_t makers[N_MAKERS]; /* addresses; 0: the kernel has none such */
};

#define WISH(structure, path, field) {structure, path, offsetof(struct path_layout, field), false}
#define OPTION(structure, path, field) {structure, path, offsetof(struct path_layout, field), true}

static const struct linux_wish wishes[] = {
    WISH("dentry", "d_parent", dentry_parent),
    WISH("dentry", "d_name.name", dentry_name),
    WISH("dentry", "d_name.len", dentry_name_len),
    WISH("dentry", "d_hash.pprev", dentry_hashed),
    WISH("dentry", "d_op", dentry_ops),
    WISH("dentry", "d_inode", dentry_inode),
    WISH("dentry_operations", "d_dname", ops_name),
    WISH("mount", "mnt", mount_vfs),
    WISH("mount", "mnt_parent", mount_parent),
    WISH("mount", "mnt_mountpoint", mount_mountpoint),
    WISH("vfsmount", "mnt_root", vfsmount_root),
    WISH("file", "f_path.mnt", file_mnt),
    WISH("file", "f_path.dentry", file_dentry),
    WISH("file", "f_inode", file_inode),
    WISH("inode", "i_ino", inode_number),
    WISH("inode", "i_mode", inode_mode),
    WISH("inode", "i_sb", inode_super),
    OPTION("inode", "i_private", inode_private),
    WISH("super_block", "s_dev", super_device),
    OPTION("ns_common", "ops", namespace_operations),
    OPTION("proc_ns_operations", "name", namespace_name),
    {0},
};

static int look_up(struct vmibus_linux *kernel, void *into) {
    struct path_layout *layout = into;
    int r = linux_fields_resolve(kernel, wishes, layout);

    if (r == 0)
        r = linux_structure_size(kernel, "dentry", &layout->dentry_size);
    if (r == 0 && layout->dentry_size > DENTRY_BOUND)
        r = linux_because(kernel, VMIBUS_GUEST_UNPROVEN, "the kernel's struct dentry would have %u octets", layout->dentry_size);
    for (int i = 0; r == 0 && i < N_MAKERS; i++) {
        r = linux_symbol(kernel, maker_names[i], &layout->makers[i]);
        if (r == VMIBUS_GUEST_NOT_FOUND) {
            layout->makers[i] = 0;
            r = 0;
        }
    }
    return r;
}

static int get_layout(struct vmibus_linux *kernel, const struct path_layout **layoutp) {
    int r = linux_layout_get(kernel, &kernel->path_layout, sizeof(struct path_layout), look_up);

    *layoutp = kernel->path_layout;
    return r;
}

/* --- one dentry ---------------------------------------------------------------------------------------------------- */

/* What of a dentry is needed. */
struct dentry {
    uint64_t gva, parent, inode, ops;
    bool is_hashed;
    size_t name_len;
    char name[NAME_BOUND + 1];
};

static int read_name(struct vmibus_linux *kernel, const struct path_layout *layout, const uint8_t *copy, uint64_t name,
                     struct dentry *dentry) {
    uint64_t inside = name - dentry->gva;

    if (dentry->name_len > NAME_BOUND)
        return linux_because(kernel, VMIBUS_GUEST_UNPROVEN, "the name of a file has %zu octets", dentry->name_len);
    if (inside < layout->dentry_size && dentry->name_len < layout->dentry_size - inside) {
        memcpy(dentry->name, copy + inside, dentry->name_len + 1);
    } else {
        int r = linux_read(kernel, name, dentry->name, dentry->name_len + 1);

        if (r != 0)
            return linux_because(kernel, r, "the name of a file at %#" PRIx64 " cannot be read", name);
    }
    if (strnlen(dentry->name, dentry->name_len + 1) != dentry->name_len)
        return linux_because(kernel, VMIBUS_GUEST_CHANGED, "a file is being renamed");
    return 0;
}

static int read_dentry(struct vmibus_linux *kernel, const struct path_layout *layout, uint64_t gva, struct dentry *dentry) {
    uint8_t copy[DENTRY_BOUND];
    uint64_t name, name_len, pprev = 0;
    size_t size = layout->dentry_size;
    int r = linux_read(kernel, gva, copy, size);

    if (r != 0)
        return linux_because(kernel, r, "the dentry at %#" PRIx64 " cannot be read", gva);
    *dentry = (struct dentry){.gva = gva};
    if (!linux_get_field(copy, size, &layout->dentry_parent, &dentry->parent) ||
        !linux_get_field(copy, size, &layout->dentry_inode, &dentry->inode) ||
        !linux_get_field(copy, size, &layout->dentry_ops, &dentry->ops) ||
        !linux_get_field(copy, size, &layout->dentry_hashed, &pprev) ||
        !linux_get_field(copy, size, &layout->dentry_name, &name) ||
        !linux_get_field(copy, size, &layout->dentry_name_len, &name_len))
        return linux_because(kernel, VMIBUS_GUEST_UNPROVEN, "the members of the kernel's struct dentry lie outside it");
    dentry->is_hashed = pprev != 0;
    dentry->name_len = (size_t)name_len;
    return read_name(kernel, layout, copy, name, dentry);
}

/* --- text that grows to its front ---------------------------------------------------------------------------------- */

struct front {
    char *text;
    size_t at; /* where it begins */
};

static int prepend(struct vmibus_linux *kernel, struct front *front, const char *octets, size_t len) {
    if (len > front->at)
        return linux_because(kernel, VMIBUS_GUEST_UNPROVEN, "the path of a file has no end, or is longer than was asked for");
    front->at -= len;
    memcpy(front->text + front->at, octets, len);
    return 0;
}

static int prepend_name(struct vmibus_linux *kernel, struct front *front, const struct dentry *dentry) {
    int r = prepend(kernel, front, dentry->name, dentry->name_len);

    return r == 0 ? prepend(kernel, front, "/", 1) : r;
}

/* --- names of files that have no path -------------------------------------------------------------------------------- */

static int prepend_number(struct vmibus_linux *kernel, const struct path_layout *layout, const struct dentry *dentry,
                          const char *what, struct front *front) {
    char text[FILE_SYSTEM_NAME + 32];
    uint64_t number;
    int r = linux_read_field(kernel, dentry->inode, &layout->inode_number, &number);

    if (r != 0)
        return linux_because(kernel, r, "the inode of a file cannot be read");
    snprintf(text, sizeof(text), "%s:[%" PRIu64 "]", what, number);
    return prepend(kernel, front, text, strlen(text));
}

/* "net:[4026531840]"; what kind it is, the operations of the namespace say, which the inode is private to (fs/nsfs.c). */
static int prepend_namespace(struct vmibus_linux *kernel, const struct path_layout *layout, const struct dentry *dentry,
                             struct front *front) {
    const struct linux_field *const steps[] = {&layout->inode_private, &layout->namespace_operations, &layout->namespace_name};
    char what[FILE_SYSTEM_NAME];
    uint64_t at = dentry->inode;
    int r = 0;

    for (size_t i = 0; r == 0 && i < sizeof(steps) / sizeof(steps[0]); i++)
        r = linux_read_field(kernel, at, steps[i], &at);
    if (r != 0 || linux_read_text(kernel, at, what, sizeof(what)) != 0 || what[0] == '\0')
        return prepend_number(kernel, layout, dentry, "namespace", front);
    return prepend_number(kernel, layout, dentry, what, front);
}

static int prepend_made(struct vmibus_linux *kernel, const struct path_layout *layout, const struct dentry *dentry,
                        uint64_t maker, struct front *front) {
    int which = 0, r;

    while (which < N_MAKERS && layout->makers[which] != maker)
        which++;
    switch (which) {
    case MAKER_PIPE:
        return prepend_number(kernel, layout, dentry, "pipe", front);
    case MAKER_SOCKET:
        return prepend_number(kernel, layout, dentry, "socket", front);
    case MAKER_NAMESPACE:
        return prepend_namespace(kernel, layout, dentry, front);
    case MAKER_ANONYMOUS:
        r = prepend(kernel, front, dentry->name, dentry->name_len);
        return r == 0 ? prepend(kernel, front, "anon_inode:", strlen("anon_inode:")) : r;
    case MAKER_SIMPLE:
        r = prepend(kernel, front, " (deleted)", strlen(" (deleted)"));
        return r == 0 ? prepend_name(kernel, front, dentry) : r;
    default:
        return prepend(kernel, front, dentry->name, dentry->name_len);
    }
}

/* --- paths ----------------------------------------------------------------------------------------------------------- */

/* A place in the tree of mounts. */
struct place {
    uint64_t mount;  /* of its struct mount, in which the vfsmount lies */
    uint64_t root;   /* dentry that the mount begins with */
    uint64_t dentry;
};

static int enter_mount(struct vmibus_linux *kernel, const struct path_layout *layout, uint64_t mount, struct place *place) {
    int r = linux_read_field(kernel, mount + layout->mount_vfs.offset, &layout->vfsmount_root, &place->root);

    place->mount = mount;
    return r == 0 ? 0 : linux_because(kernel, r, "the mount at %#" PRIx64 " cannot be read", mount);
}

/* From the root of a mount to what it is mounted on. True in *is_top: it is on nothing. */
static int leave_mount(struct vmibus_linux *kernel, const struct path_layout *layout, struct place *place, bool *is_top) {
    uint64_t parent, mountpoint;
    int r = linux_read_field(kernel, place->mount, &layout->mount_parent, &parent);

    if (r == 0)
        r = linux_read_field(kernel, place->mount, &layout->mount_mountpoint, &mountpoint);
    if (r != 0)
        return linux_because(kernel, r, "the mount at %#" PRIx64 " cannot be read", place->mount);
    *is_top = parent == place->mount;
    if (*is_top)
        return 0;
    place->dentry = mountpoint;
    return enter_mount(kernel, layout, parent, place);
}

/* Puts in front all names from a place up to the top. `dentry` has been read for the place. */
static int climb(struct vmibus_linux *kernel, const struct path_layout *layout, struct place place, struct dentry *dentry,
                 struct front *front) {
    unsigned int mounts = 0;
    bool is_top = false;

    for (int r;;) {
        if (place.dentry == place.root) {
            if (++mounts > MOUNTS_BOUND)
                return linux_because(kernel, VMIBUS_GUEST_UNPROVEN, "more than %d mounts lie on each other", MOUNTS_BOUND);
            r = leave_mount(kernel, layout, &place, &is_top);
            if (r != 0 || is_top)
                return r;
            continue;
        }
        r = dentry->gva == place.dentry ? 0 : read_dentry(kernel, layout, place.dentry, dentry);
        if (r != 0)
            return r;
        /* The top of a file system, but not of the mount: it was moved out of the mount, which is where the kernel ends too. */
        if (dentry->parent == place.dentry)
            return 0;
        r = prepend_name(kernel, front, dentry);
        if (r != 0)
            return r;
        place.dentry = dentry->parent;
    }
}

static int make_path(struct vmibus_linux *kernel, const struct path_layout *layout, struct place place, struct front *front) {
    struct dentry dentry;
    uint64_t maker = 0;
    size_t end = front->at;
    bool is_root;
    int r = read_dentry(kernel, layout, place.dentry, &dentry);

    if (r != 0)
        return r;
    is_root = dentry.parent == place.dentry;
    if (dentry.ops != 0) {
        r = linux_read_field(kernel, dentry.ops, &layout->ops_name, &maker);
        if (r != 0)
            return linux_because(kernel, r, "the operations of a dentry cannot be read");
    }
    if (maker != 0 && !(is_root && place.dentry == place.root))
        return prepend_made(kernel, layout, &dentry, maker, front);
    if (!is_root && !dentry.is_hashed) {
        r = prepend(kernel, front, " (deleted)", strlen(" (deleted)"));
        end = front->at;
    }
    if (r == 0)
        r = climb(kernel, layout, place, &dentry, front);
    return r == 0 && front->at == end ? prepend(kernel, front, "/", 1) : r;
}

int linux_path_of(struct vmibus_linux *kernel, uint64_t mnt, uint64_t dentry, char *text, size_t size) {
    const struct path_layout *layout;
    struct front front = {.text = text, .at = size - 1};
    struct place place = {.dentry = dentry};
    int r;

    if (size == 0)
        return -EINVAL;
    text[0] = '\0';
    text[size - 1] = '\0';
    r = get_layout(kernel, &layout);
    if (r == 0)
        r = enter_mount(kernel, layout, mnt - layout->mount_vfs.offset, &place);
    if (r == 0)
        r = make_path(kernel, layout, place, &front);
    if (r != 0) {
        text[0] = '\0';
        return r;
    }
    memmove(text, text + front.at, size - front.at);
    return 0;
}

int linux_path_of_file(struct vmibus_linux *kernel, uint64_t file, char *text, size_t size) {
    const struct path_layout *layout;
    uint64_t mnt, dentry;
    int r = get_layout(kernel, &layout);

    if (size > 0)
        text[0] = '\0';
    if (r != 0)
        return r;
    r = linux_read_field(kernel, file, &layout->file_mnt, &mnt);
    if (r == 0)
        r = linux_read_field(kernel, file, &layout->file_dentry, &dentry);
    if (r != 0)
        return linux_because(kernel, r, "the struct file at %#" PRIx64 " cannot be read", file);
    return linux_path_of(kernel, mnt, dentry, text, size);
}

int linux_inode_of_file(struct vmibus_linux *kernel, uint64_t file, struct linux_inode *inode) {
    const struct path_layout *layout;
    uint64_t super, mode = 0, device = 0;
    int r = get_layout(kernel, &layout);

    *inode = (struct linux_inode){0};
    if (r != 0)
        return r;
    r = linux_read_field(kernel, file, &layout->file_inode, &inode->gva);
    if (r == 0)
        r = linux_read_field(kernel, inode->gva, &layout->inode_number, &inode->number);
    if (r == 0)
        r = linux_read_field(kernel, inode->gva, &layout->inode_mode, &mode);
    if (r == 0)
        r = linux_read_field(kernel, inode->gva, &layout->inode_super, &super);
    if (r == 0)
        r = linux_read_field(kernel, super, &layout->super_device, &device);
    if (r != 0)
        return linux_because(kernel, r, "the inode of the struct file at %#" PRIx64 " cannot be read", file);
    inode->mode = (uint32_t)mode;
    inode->device = (uint32_t)device;
    return 0;
}
