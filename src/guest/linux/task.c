/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See task.h. */
#include "task.h"

#include <stddef.h>
#include <string.h>

/* Linux include/linux/sched.h. */
#define PF_KTHREAD 0x00200000u
#define TASK_UNINTERRUPTIBLE 0x0002u
#define TASK_NOLOAD 0x0400u
#define TASK_RTLOCK_WAIT 0x1000u
#define TASK_REPORT 0x007fu

#define TARGET(member) offsetof(struct task_layout, member)

/* Linux include/linux/sched.h, cred.h, pid.h, mm_types.h, sched/signal.h, fs_struct.h; older names follow newer ones. */
static const struct linux_wish wishes[] = {
    {"task_struct", "__state", TARGET(task.state), false},
    {"task_struct", "state", TARGET(task.state), false},
    {"task_struct", "exit_state", TARGET(task.exit_state), false},
    {"task_struct", "flags", TARGET(task.flags), false},
    {"task_struct", "tasks", TARGET(task.tasks), false},
    {"task_struct", "thread_node", TARGET(task.thread_node), false},
    {"task_struct", "mm", TARGET(task.mm), false},
    {"task_struct", "pid", TARGET(task.pid), false},
    {"task_struct", "tgid", TARGET(task.tgid), false},
    {"task_struct", "real_parent", TARGET(task.real_parent), false},
    {"task_struct", "thread_pid", TARGET(task.thread_pid), true},
    {"task_struct", "start_boottime", TARGET(task.start_time), false},
    {"task_struct", "real_start_time", TARGET(task.start_time), false},
    {"task_struct", "real_cred", TARGET(task.real_cred), false},
    {"task_struct", "comm", TARGET(task.comm), false},
    {"task_struct", "signal", TARGET(task.signal), false},
    {"task_struct", "fs", TARGET(task.fs), false},
    {"task_struct", "files", TARGET(task.files), false},
    {"task_struct", "self_exec_id", TARGET(task.executions), true},
    {"cred", "uid", TARGET(cred.uid), false},
    {"cred", "euid", TARGET(cred.euid), false},
    {"cred", "gid", TARGET(cred.gid), false},
    {"pid", "level", TARGET(pid.level), false},
    {"pid", "numbers", TARGET(pid.numbers), false},
    {"upid", "nr", TARGET(upid_nr), false},
    {"mm_struct", "pgd", TARGET(mm.pgd), false},
    {"mm_struct", "arg_start", TARGET(mm.arg_start), false},
    {"mm_struct", "arg_end", TARGET(mm.arg_end), false},
    {"mm_struct", "env_start", TARGET(mm.env_start), false},
    {"mm_struct", "env_end", TARGET(mm.env_end), false},
    {"mm_struct", "exe_file", TARGET(mm.exe_file), true},
    {"signal_struct", "thread_head", TARGET(signal_thread_head), false},
    {"fs_struct", "pwd.mnt", TARGET(pwd.mnt), false},
    {"fs_struct", "pwd.dentry", TARGET(pwd.dentry), false},
    {},
};

/* The members of the task come first in the layout, each of them a struct linux_field. */
static int measure_copy(struct vmibus_linux *kernel, struct task_layout *layout) {
    const struct linux_field *fields = (const struct linux_field *)(const void *)&layout->task;

    for (size_t i = 0; i < sizeof(layout->task) / sizeof(*fields); i++) {
        uint64_t end = (uint64_t)fields[i].offset + fields[i].size;

        if (end > TASK_COPY_MAX)
            return linux_because(kernel, VMIBUS_GUEST_UNPROVEN, "its task_struct is longer than %u octets", TASK_COPY_MAX);
        layout->copy_size = end > layout->copy_size ? (uint32_t)end : layout->copy_size;
    }
    if (layout->task.comm.size < VMIBUS_LINUX_COMM_SIZE || layout->task.tasks.size != 16 || layout->task.thread_node.size != 16 ||
        layout->upid_size == 0 || layout->upid_size > 64)
        return linux_because(kernel, VMIBUS_GUEST_UNPROVEN, "its task_struct has members of strange sizes");
    return 0;
}

static int look_up(struct vmibus_linux *kernel, void *into) {
    struct task_layout *layout = into;
    int r = linux_fields_resolve(kernel, wishes, layout);

    if (r == 0)
        r = linux_structure_size(kernel, "upid", &layout->upid_size);
    if (r == 0)
        r = linux_symbol(kernel, "init_task", &layout->init_task);
    if (r == 0)
        r = measure_copy(kernel, layout);
    return r == VMIBUS_GUEST_NOT_FOUND ? linux_because(kernel, VMIBUS_GUEST_UNPROVEN, "the kernel has no init_task or upid") : r;
}

int task_layout_get(struct vmibus_linux *kernel, const struct task_layout **layoutp) {
    int r = linux_layout_get(kernel, &kernel->task_layout, sizeof(struct task_layout), look_up);

    *layoutp = kernel->task_layout;
    return r;
}

int task_copy(const struct vmibus_linux *kernel, const struct task_layout *layout, uint64_t gva, void *copy) {
    return linux_read(kernel, gva, copy, layout->copy_size);
}

static uint64_t get(const struct task_layout *layout, const void *copy, const struct linux_field *field) {
    uint64_t value = 0;

    return linux_get_field(copy, layout->copy_size, field, &value) ? value : 0;
}

uint32_t task_copy_pid(const struct task_layout *layout, const void *copy) {
    uint64_t pid = get(layout, copy, &layout->task.pid);

    return pid <= TASK_PID_MAX ? (uint32_t)pid : 0;
}

/* As the kernel tells it (Linux fs/proc/array.c, get_task_state; include/linux/sched.h, task_state_index). */
static char decode_state(uint32_t state, uint32_t exit_state) {
    static const char letters[] = "RSDTtXZP";
    uint32_t reported = (state | exit_state) & TASK_REPORT;

    if ((state & (TASK_UNINTERRUPTIBLE | TASK_NOLOAD)) == (TASK_UNINTERRUPTIBLE | TASK_NOLOAD))
        return 'I';
    if (state == TASK_RTLOCK_WAIT)
        return 'D';
    return letters[reported ? 32 - __builtin_clz(reported) : 0];
}

static int decode_ids(const struct vmibus_linux *kernel, const struct task_layout *layout, uint64_t cred, struct task_cache *cache,
                      struct vmibus_linux_task *task) {
    uint64_t values[3];
    int r = 0;

    if (cred != cache->cred || cred == 0) {
        cache->cred = 0;
        r = linux_read_fields(kernel, cred, &layout->cred.uid, 3, values);
        if (r < 0)
            return r;
        if (r) {
            task->flags |= VMIBUS_LINUX_TASK_IDS_UNKNOWN;
            return 0;
        }
        cache->cred = cred;
        cache->uid = (uint32_t)values[0];
        cache->euid = (uint32_t)values[1];
        cache->gid = (uint32_t)values[2];
    }
    task->uid = cache->uid;
    task->euid = cache->euid;
    task->gid = cache->gid;
    return 0;
}

static int decode_parent(const struct vmibus_linux *kernel, const struct task_layout *layout, uint64_t parent,
                         struct task_cache *cache, struct vmibus_linux_task *task) {
    uint64_t tgid;
    int r;

    if (parent != cache->parent || parent == 0) {
        cache->parent = 0;
        r = linux_read_field(kernel, parent, &layout->task.tgid, &tgid);
        if (r)
            return r < 0 ? r : 0;
        cache->parent = parent;
        cache->ppid = tgid <= TASK_PID_MAX ? (uint32_t)tgid : 0;
    }
    task->ppid = cache->ppid;
    return 0;
}

/* The table itself lies in RAM that the kernel maps: the root is where it maps it to. */
static int decode_cr3(const struct vmibus_linux *kernel, const struct task_layout *layout, struct task_cache *cache,
                      struct vmibus_linux_task *task) {
    struct vmibus_guest_translation translation;
    uint64_t pgd;
    int r;

    if (task->mm != cache->mm) {
        cache->mm = 0;
        r = linux_read_field(kernel, task->mm, &layout->mm.pgd, &pgd);
        if (r == 0)
            r = vmibus_guest_translate(&kernel->reader, &kernel->root, pgd, &translation);
        if (r < 0)
            return r;
        if (r || translation.gpa & 0xfff) {
            task->flags |= VMIBUS_LINUX_TASK_CR3_UNKNOWN;
            return 0;
        }
        cache->mm = task->mm;
        cache->cr3 = translation.gpa;
    }
    task->cr3 = cache->cr3;
    return 0;
}

/* The number of each level is in an array behind the structure; the first one is task->pid (Linux kernel/pid.c). */
static int decode_nested(const struct vmibus_linux *kernel, const struct task_layout *layout, uint64_t pid,
                         struct vmibus_linux_task *task) {
    uint8_t copy[64 * (VMIBUS_LINUX_NESTED_MAX + 1)];
    uint64_t level, number;
    int r;

    if (pid == 0)
        return 0;
    r = linux_read_field(kernel, pid, &layout->pid.level, &level);
    if (r == 0 && level > VMIBUS_LINUX_NESTED_MAX)
        r = VMIBUS_GUEST_UNPROVEN;
    if (r == 0 && level > 0)
        r = linux_read(kernel, pid + layout->pid.numbers.offset, copy, (level + 1) * layout->upid_size);
    for (uint64_t i = 1; r == 0 && i <= level; i++) {
        const uint8_t *entry = copy + i * layout->upid_size;

        if (!linux_get_field(entry, layout->upid_size, &layout->upid_nr, &number))
            r = VMIBUS_GUEST_UNPROVEN;
        else
            task->nested[task->n_nested++] = (uint32_t)number;
    }
    if (r > 0)
        task->flags |= VMIBUS_LINUX_TASK_NESTED_UNKNOWN;
    return r < 0 ? r : 0;
}

int task_decode(const struct task_layout *layout, uint64_t gva, const void *copy, struct vmibus_linux_task *task) {
    *task = (struct vmibus_linux_task){
        .task = gva,
        .pid = task_copy_pid(layout, copy),
        .tgid = (uint32_t)get(layout, copy, &layout->task.tgid),
        .start_time = get(layout, copy, &layout->task.start_time),
        .executions = get(layout, copy, &layout->task.executions),
        .state = decode_state((uint32_t)get(layout, copy, &layout->task.state),
                              (uint32_t)get(layout, copy, &layout->task.exit_state)),
        .flags = get(layout, copy, &layout->task.flags) & PF_KTHREAD ? VMIBUS_LINUX_TASK_KERNEL : 0,
    };
    memcpy(task->comm, (const uint8_t *)copy + layout->task.comm.offset, VMIBUS_LINUX_COMM_SIZE - 1);
    if (task->pid != task->tgid)
        task->flags |= VMIBUS_LINUX_TASK_THREAD;
    /* A kernel thread may borrow one for a while (kthread_use_mm): it is not its own. */
    if (!(task->flags & VMIBUS_LINUX_TASK_KERNEL))
        task->mm = get(layout, copy, &layout->task.mm);
    return task->pid == 0 || task->tgid == 0 || task->tgid > TASK_PID_MAX ? VMIBUS_GUEST_NOT_FOUND : 0;
}

int task_follow(const struct vmibus_linux *kernel, const struct task_layout *layout, const void *copy, struct task_cache *cache,
                struct vmibus_linux_task *task) {
    int r = decode_ids(kernel, layout, get(layout, copy, &layout->task.real_cred), cache, task);
    if (r == 0)
        r = decode_parent(kernel, layout, get(layout, copy, &layout->task.real_parent), cache, task);
    if (r == 0 && task->mm)
        r = decode_cr3(kernel, layout, cache, task);
    if (r == 0 && layout->task.thread_pid.size)
        r = decode_nested(kernel, layout, get(layout, copy, &layout->task.thread_pid), task);
    return r;
}

int task_check(struct vmibus_linux *kernel, const struct task_layout *layout, const struct vmibus_linux_task *task) {
    uint64_t pid, start_time;
    int r = linux_read_field(kernel, task->task, &layout->task.pid, &pid);

    if (r == 0)
        r = linux_read_field(kernel, task->task, &layout->task.start_time, &start_time);
    if (r < 0 || (r == 0 && pid == task->pid && start_time == task->start_time))
        return r;
    return linux_because(kernel, VMIBUS_GUEST_CHANGED, "process %u has ended", task->pid);
}
