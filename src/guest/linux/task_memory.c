/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a process says of itself in its own memory: command line and environment; and the paths that the kernel keeps for it.
 *
 * Its own memory is read by its own page tables. A page that is not in memory (swapped out, or never touched) is no error:
 * what comes before it is given.
 */
#include <string.h>

#include "path.h"
#include "task.h"

/* Where a process keeps its arguments and environment (Linux include/linux/mm_types.h). */
struct own_text {
    uint64_t arg_start, arg_end, env_start, env_end;
};

/* What could not be read, for vmibus_linux_why(). Returns r. */
static int say_unreadable(struct vmibus_linux *kernel, int r, const struct vmibus_linux_task *task, const char *what) {
    return r ? linux_because(kernel, r, "the %s of process %u cannot be read", what, task->pid) : 0;
}

static int find_own_text(struct vmibus_linux *kernel, const struct vmibus_linux_task *task, struct own_text *own) {
    const struct task_layout *layout;
    uint64_t values[4];
    int r = task_layout_get(kernel, &layout);

    if (r == 0 && (task->mm == 0 || task->cr3 == 0))
        return linux_because(kernel, VMIBUS_GUEST_NOT_FOUND, "process %u has no address space of its own", task->pid);
    if (r == 0)
        r = task_check(kernel, layout, task);
    if (r == 0)
        r = say_unreadable(kernel, linux_read_fields(kernel, task->mm, &layout->mm.arg_start, 4, values), task, "mm_struct");
    if (r == 0)
        *own = (struct own_text){.arg_start = values[0], .arg_end = values[1], .env_start = values[2], .env_end = values[3]};
    return r;
}

/* Reads a stretch of a process's memory, as much of it as there is room for, after what is in @a text already. */
static int read_stretch(struct vmibus_linux *kernel, const struct vmibus_linux_task *task, uint64_t start, uint64_t end,
                        char *text, size_t size, size_t *len) {
    const struct vmibus_guest_root root = {.cr3 = task->cr3, .levels = kernel->root.levels};
    size_t part, done = 0;
    int r;

    if (end <= start || *len >= size)
        return 0;
    part = end - start < size - *len ? (size_t)(end - start) : size - *len;
    if (!linux_charge(kernel, part))
        return VMIBUS_GUEST_UNFINISHED;
    r = vmibus_guest_read(&kernel->reader, &root, start, text + *len, part, &done, NULL);
    *len += done < part ? done : part;
    return say_unreadable(kernel, r, task, "own memory");
}

/*
 * A process that names itself anew (setproctitle) writes over the NUL at the end of its arguments, into its environment behind
 * them: then it is one text up to its NUL (Linux fs/proc/base.c, get_mm_proctitle).
 */
int vmibus_linux_read_arguments(struct vmibus_linux *kernel, const struct vmibus_linux_task *task, char *text, size_t size,
                                size_t *len) {
    struct own_text own;
    const char *nul;
    int r;

    *len = 0;
    r = find_own_text(kernel, task, &own);
    if (r == 0)
        r = read_stretch(kernel, task, own.arg_start, own.arg_end, text, size, len);
    if (r || *len == 0 || *len != own.arg_end - own.arg_start || text[*len - 1] == '\0' || own.env_start != own.arg_end)
        return r;
    r = read_stretch(kernel, task, own.env_start, own.env_end, text, size, len);
    nul = memchr(text, '\0', *len);
    if (!nul)
        return r;
    *len = (size_t)(nul - text) + 1;
    return 0;
}

int vmibus_linux_read_environment(struct vmibus_linux *kernel, const struct vmibus_linux_task *task, char *text, size_t size,
                                  size_t *len) {
    struct own_text own;
    int r;

    *len = 0;
    r = find_own_text(kernel, task, &own);
    return r ? r : read_stretch(kernel, task, own.env_start, own.env_end, text, size, len);
}

int vmibus_linux_read_program(struct vmibus_linux *kernel, const struct vmibus_linux_task *task, char *path) {
    const struct task_layout *layout;
    uint64_t file;
    int r = task_layout_get(kernel, &layout);

    path[0] = '\0';
    if (r)
        return r;
    if (layout->mm.exe_file.size == 0)
        return linux_because(kernel, VMIBUS_GUEST_UNPROVEN, "the kernel's mm_struct has no exe_file");
    if (task->mm == 0)
        return linux_because(kernel, VMIBUS_GUEST_NOT_FOUND, "process %u has no address space of its own", task->pid);
    r = task_check(kernel, layout, task);
    if (r == 0)
        r = say_unreadable(kernel, linux_read_field(kernel, task->mm, &layout->mm.exe_file, &file), task, "mm_struct");
    return r ? r : linux_path_of_file(kernel, file, path, VMIBUS_LINUX_PATH_SIZE);
}

int vmibus_linux_read_directory(struct vmibus_linux *kernel, const struct vmibus_linux_task *task, char *path) {
    const struct task_layout *layout;
    uint64_t fs, pwd[2];
    int r = task_layout_get(kernel, &layout);

    path[0] = '\0';
    if (r)
        return r;
    r = task_check(kernel, layout, task);
    if (r == 0)
        r = say_unreadable(kernel, linux_read_field(kernel, task->task, &layout->task.fs, &fs), task, "task_struct");
    if (r == 0 && fs == 0)
        return linux_because(kernel, VMIBUS_GUEST_NOT_FOUND, "process %u has no directory that it works in", task->pid);
    if (r == 0)
        r = say_unreadable(kernel, linux_read_fields(kernel, fs, &layout->pwd.mnt, 2, pwd), task, "fs_struct");
    return r ? r : linux_path_of(kernel, pwd[0], pwd[1], path, VMIBUS_LINUX_PATH_SIZE);
}
