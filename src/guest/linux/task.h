/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Tasks: where their members lie, and reading one from a copy of its task_struct.
 *
 * A task_struct is copied once, from its beginning to the end of the last member that is wanted, so that what is said of
 * a task is of one moment, or nearly; what lies elsewhere (credentials, pids, the address space) is read after it.
 */
#ifndef GUEST_LINUX_TASK_H
#define GUEST_LINUX_TASK_H

#include "kernel.h"

/** Most octets of a task_struct that are copied: 10 KiB in distributions, more with the kernel's self-checks. */
#define TASK_COPY_MAX 16384

/** Highest pid (Linux include/linux/threads.h, PID_MAX_LIMIT). */
#define TASK_PID_MAX 4194304

/** Where members lie; kept in the kernel object. */
struct task_layout {
    uint64_t init_task;     /**< address of the first task, the head of the list */
    uint32_t copy_size;     /**< octets of a task_struct up to the last member of these */
    struct {
        struct linux_field state, exit_state, flags, tasks, thread_node, mm, pid, tgid, real_parent, thread_pid, start_time,
            real_cred, comm, signal, fs, files, executions;
    } task;
    struct {
        struct linux_field uid, euid, gid;
    } cred;
    struct {
        struct linux_field level, numbers;
    } pid;
    struct linux_field upid_nr;
    uint32_t upid_size;     /**< octets of an entry of pid.numbers */
    struct {
        struct linux_field pgd, arg_start, arg_end, env_start, env_end, exe_file;
    } mm;
    struct linux_field signal_thread_head;
    struct {
        struct linux_field mnt, dentry;
    } pwd;
};

/** What a visit remembers of the last task, because the next one often shares it. */
struct task_cache {
    uint64_t cred, parent, mm;      /**< addresses; 0: nothing is remembered */
    uint32_t uid, euid, gid, ppid;
    uint64_t cr3;
};

/** Looks up the layout once. 0, UNPROVEN or a negative errno. */
int task_layout_get(struct vmibus_linux *kernel, const struct task_layout **layoutp);

/** Copies the task_struct at @a gva; @a copy has room for TASK_COPY_MAX octets. As linux_read(). */
int task_copy(const struct vmibus_linux *kernel, const struct task_layout *layout, uint64_t gva, void *copy);

/** The pid that a copy holds; 0: it makes no sense as a task. */
uint32_t task_copy_pid(const struct task_layout *layout, const void *copy);

/** Makes a task of a copy, as far as that goes. 0; NOT_FOUND: it makes no sense as a task. */
int task_decode(const struct task_layout *layout, uint64_t gva, const void *copy, struct vmibus_linux_task *task);

/**
 * Reads what a task points to; what cannot be read, its flags say.
 * @param copy  the task was made of it
 * @param cache filled and used; the caller's, zeroed at the beginning of a visit
 * @return 0 or a negative errno
 */
int task_follow(const struct vmibus_linux *kernel, const struct task_layout *layout, const void *copy, struct task_cache *cache,
                struct vmibus_linux_task *task);

/** Whether a task is still the one that was read. 0; CHANGED: it has ended, which is said; or a negative errno. */
int task_check(struct vmibus_linux *kernel, const struct task_layout *layout, const struct vmibus_linux_task *task);

#endif
