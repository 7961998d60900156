/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See files.h. */
#include "files.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "path.h"
#include "task.h"

/** Most descriptors of a process that are visited: the kernel's default of fs.nr_open. */
#define FILES_MAX (1u << 20)

/** Descriptors that are read at once; so many bits of the bitmap are whole words. */
#define CHUNK 512u

/* Linux include/uapi/linux/magic.h; net/socket.c, fs/pipe.c, fs/anon_inodes.c, fs/nsfs.c make these. */
#define SOCKFS 0x534f434bu
#define PIPEFS 0x50495045u
#define ANON_INODE_FS 0x09041934u
#define NSFS 0x6e736673u

/* Linux include/uapi/asm-generic/fcntl.h: the guest's, whatever the host's. */
#define GUEST_CLOEXEC 02000000u

/* Where members lie (Linux include/linux/fs.h, fdtable.h). */
struct file_layout {
    struct linux_field fdt;
    struct {
        struct linux_field max_fds, fd, close_on_exec;
    } table;
    struct {
        struct linux_field inode, flags, position, private_data;
    } file;
    struct {
        struct linux_field mode, sb, number;
    } inode;
    struct linux_field magic;
};

#define TARGET(member) offsetof(struct file_layout, member)

static const struct linux_wish wishes[] = {
    {"files_struct", "fdt", TARGET(fdt), false},
    {"fdtable", "max_fds", TARGET(table.max_fds), false},
    {"fdtable", "fd", TARGET(table.fd), false},
    {"fdtable", "close_on_exec", TARGET(table.close_on_exec), false},
    {"file", "f_inode", TARGET(file.inode), false},
    {"file", "f_flags", TARGET(file.flags), false},
    {"file", "f_pos", TARGET(file.position), false},
    {"file", "private_data", TARGET(file.private_data), false},
    {"inode", "i_mode", TARGET(inode.mode), false},
    {"inode", "i_sb", TARGET(inode.sb), false},
    {"inode", "i_ino", TARGET(inode.number), false},
    {"super_block", "s_magic", TARGET(magic), false},
    {},
};

static int look_up(struct vmibus_linux *kernel, void *layout) {
    return linux_fields_resolve(kernel, wishes, layout);
}

static int get_layout(struct vmibus_linux *kernel, const struct file_layout **layoutp) {
    int r = linux_layout_get(kernel, &kernel->file_layout, sizeof(struct file_layout), look_up);

    *layoutp = kernel->file_layout;
    return r;
}

/* --- one file ----------------------------------------------------------------------------------------------------- */

/* A file, and the inode and file system that it is of. */
struct opened {
    uint64_t inode, flags, position, private_data;  /* of the file, in the order of its layout */
    uint64_t mode, sb, number;                      /* of the inode, as well */
    uint64_t magic;
};

static int read_opened(const struct vmibus_linux *kernel, const struct file_layout *layout, uint64_t file, struct opened *opened) {
    int r = linux_read_fields(kernel, file, &layout->file.inode, 4, &opened->inode);

    if (r == 0)
        r = linux_read_fields(kernel, opened->inode, &layout->inode.mode, 3, &opened->mode);
    if (r == 0)
        r = linux_read_field(kernel, opened->sb, &layout->magic, &opened->magic);
    return r;
}

static uint8_t kind_of(const struct opened *opened) {
    switch (opened->magic) {
    case SOCKFS:
        return S_ISSOCK(opened->mode) ? VMIBUS_LINUX_FILE_SOCKET : VMIBUS_LINUX_FILE_PATH;
    case PIPEFS:
        return VMIBUS_LINUX_FILE_PIPE;
    case ANON_INODE_FS:
        return VMIBUS_LINUX_FILE_ANONYMOUS;
    case NSFS:
        return VMIBUS_LINUX_FILE_NAMESPACE;
    default:
        return VMIBUS_LINUX_FILE_PATH;
    }
}

/* What cannot be read is left out by the caller; a name that cannot be is not. */
static int read_file(struct vmibus_linux *kernel, const struct file_layout *layout, uint64_t gva, struct vmibus_linux_file *file) {
    struct opened opened = {};
    int r = read_opened(kernel, layout, gva, &opened);

    if (r)
        return r;
    file->file = gva;
    file->inode = opened.number;
    file->position = opened.position;
    file->flags = (uint32_t)opened.flags & ~GUEST_CLOEXEC;
    file->mode = (uint16_t)opened.mode;
    file->kind = kind_of(&opened);
    file->socket = file->kind == VMIBUS_LINUX_FILE_SOCKET ? opened.private_data : 0;
    r = linux_path_of_file(kernel, gva, file->name, sizeof(file->name));
    file->named = r == 0;
    return r < 0 ? r : 0;
}

int files_find_socket(struct vmibus_linux *kernel, uint64_t file, uint64_t *socket) {
    const struct file_layout *layout;
    struct opened opened = {};
    int r = get_layout(kernel, &layout);

    *socket = 0;
    if (r == 0)
        r = read_opened(kernel, layout, file, &opened);
    if (r == 0 && kind_of(&opened) == VMIBUS_LINUX_FILE_SOCKET)
        *socket = opened.private_data;
    return r < 0 ? r : 0;
}

/* --- the table of a process --------------------------------------------------------------------------------------- */

struct table {
    uint64_t max_fds, fd, close_on_exec;    /* in the order of its layout */
};

static int find_table(struct vmibus_linux *kernel, const struct file_layout *layout, const struct vmibus_linux_task *task,
                      struct table *table) {
    const struct task_layout *tasks;
    uint64_t files, fdt;
    int r = task_layout_get(kernel, &tasks);

    if (r == 0)
        r = task_check(kernel, tasks, task);
    if (r)
        return r;
    r = linux_read_field(kernel, task->task, &tasks->task.files, &files);
    if (r == 0 && files == 0)
        return linux_because(kernel, VMIBUS_GUEST_NOT_FOUND, "process %u has no table of open files: it is ending", task->pid);
    if (r == 0)
        r = linux_read_field(kernel, files, &layout->fdt, &fdt);
    if (r == 0)
        r = linux_read_fields(kernel, fdt, &layout->table.max_fds, 3, &table->max_fds);
    return r ? linux_because(kernel, r, "the table of open files of process %u cannot be read", task->pid) : 0;
}

/* Visits CHUNK descriptors from @a first on, or as many as there are. 0; else what ends the visit. */
static int visit_chunk(struct vmibus_linux *kernel, const struct table *table, uint32_t first, files_fn visit, void *context,
                       struct vmibus_linux_picture *picture) {
    uint32_t n = table->max_fds - first < CHUNK ? (uint32_t)(table->max_fds - first) : CHUNK;
    uint64_t files[CHUNK], again[CHUNK], closed[CHUNK / 64] = {};
    int r = linux_read(kernel, table->fd + 8 * (uint64_t)first, files, 8 * n);

    if (r == 0)
        r = linux_read(kernel, table->close_on_exec + first / 8, closed, (n + 63) / 64 * 8);
    if (r)
        return linux_because(kernel, r, "the table of open files cannot be read");
    for (uint32_t i = 0; r == 0 && i < n; i++)
        if (files[i])
            r = visit(context, first + i, files[i], closed[i / 64] >> (i % 64) & 1);
    if (r == 0)
        r = linux_read(kernel, table->fd + 8 * (uint64_t)first, again, 8 * n);
    if (r == 0 && memcmp(files, again, 8 * n) != 0)
        picture->flags &= ~(uint32_t)VMIBUS_LINUX_STEADY;
    return r;
}

int files_visit(struct vmibus_linux *kernel, const struct vmibus_linux_task *task, uint64_t *budget, files_fn visit, void *context,
                struct vmibus_linux_picture *picture) {
    uint64_t bound = *budget < FILES_MAX ? *budget : FILES_MAX;
    struct table table = {}, again;
    const struct file_layout *layout;
    int r;

    *picture = (struct vmibus_linux_picture){.flags = VMIBUS_LINUX_ENDED | VMIBUS_LINUX_STEADY};
    r = get_layout(kernel, &layout);
    if (r == 0)
        r = find_table(kernel, layout, task, &table);
    if (r == 0 && table.max_fds > bound) {
        picture->flags = VMIBUS_LINUX_BOUNDED | VMIBUS_LINUX_STEADY;
        table.max_fds = bound;
    }
    *budget -= table.max_fds < *budget ? table.max_fds : *budget;
    for (uint32_t first = 0; r == 0 && first < table.max_fds; first += CHUNK)
        r = visit_chunk(kernel, &table, first, visit, context, picture);
    if (r) {
        picture->flags = 0;
        return r;
    }
    r = find_table(kernel, layout, task, &again);
    if (r == 0 && again.fd == table.fd && again.close_on_exec == table.close_on_exec)
        return 0;
    picture->flags &= ~(uint32_t)VMIBUS_LINUX_STEADY;
    return r < 0 ? r : 0;
}

struct showing {
    struct vmibus_linux *kernel;
    const struct file_layout *layout;
    vmibus_linux_file_fn visit;
    void *context;
    uint64_t n_seen, n_broken;
    struct vmibus_linux_file file;
};

/* What ends a visit that its caller ends. */
#define ENOUGH VMIBUS_GUEST_UNFINISHED

static int show(void *context, uint32_t fd, uint64_t gva, bool closed_on_exec) {
    struct showing *showing = context;
    struct vmibus_linux_file *file = &showing->file;
    int r;

    memset(file, 0, offsetof(struct vmibus_linux_file, name) + 1);
    r = read_file(showing->kernel, showing->layout, gva, file);
    if (r < 0)
        return r;
    if (r) {
        showing->n_broken++;
        return 0;
    }
    file->fd = fd;
    file->flags |= closed_on_exec ? GUEST_CLOEXEC : 0;
    showing->n_seen++;
    return showing->visit(showing->context, file) ? 0 : ENOUGH;
}

int vmibus_linux_visit_files(struct vmibus_linux *kernel, const struct vmibus_linux_task *task, vmibus_linux_file_fn visit,
                             void *context, struct vmibus_linux_picture *picture) {
    struct showing *showing;
    uint64_t budget = FILES_MAX;
    int r;

    *picture = (struct vmibus_linux_picture){};
    showing = malloc(sizeof(*showing));
    if (!showing)
        return -ENOMEM;
    memset(showing, 0, offsetof(struct showing, file));
    showing->kernel = kernel;
    showing->visit = visit;
    showing->context = context;
    r = get_layout(kernel, &showing->layout);
    if (r == 0)
        r = files_visit(kernel, task, &budget, show, showing, picture);
    picture->n_seen = showing->n_seen;
    picture->n_broken = showing->n_broken;
    free(showing);
    return r == ENOUGH ? 0 : r;
}
