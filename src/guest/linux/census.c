/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What tells cheaply whether a visit of the tasks would find something else than the last one.
 *
 * Both counters change under the lock that the list of tasks changes under (Linux kernel/fork.c, copy_process; kernel/exit.c,
 * __unhash_process).
 */
#include "task.h"

static int read_counter(struct vmibus_linux *kernel, const char *name, size_t size, uint64_t *value) {
    uint64_t gva;
    int r = linux_symbol(kernel, name, &gva);

    *value = 0;
    if (r == VMIBUS_GUEST_NOT_FOUND)
        return linux_because(kernel, VMIBUS_GUEST_UNPROVEN, "the kernel has no %s", name);
    return r ? r : linux_read(kernel, gva, value, size);
}

int vmibus_linux_count_tasks(struct vmibus_linux *kernel, struct vmibus_linux_census *census) {
    int r = read_counter(kernel, "total_forks", sizeof(uint64_t), &census->forks);

    return r ? r : read_counter(kernel, "nr_threads", sizeof(uint32_t), &census->threads);
}

int vmibus_linux_read_executions(struct vmibus_linux *kernel, uint64_t task, uint64_t *executions) {
    const struct task_layout *layout;
    int r = task_layout_get(kernel, &layout);

    *executions = 0;
    if (r || layout->task.executions.size == 0)
        return r;
    return linux_read_field(kernel, task, &layout->task.executions, executions);
}
