/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tasks.h"

#include <stdlib.h>

#include "report.h"
#include "units.h"

static bool take(void *context, const struct vmibus_linux_task *task) {
    struct tasks *tasks = context;

    if (tasks->n >= LINUX_GUEST_ENTRIES_MAX) {
        tasks->bounded = true;
        return false;
    }
    if (tasks->n == tasks->room) {
        size_t room = tasks->room ? 2 * tasks->room : 256;
        struct vmibus_linux_task *more = realloc(tasks->tasks, room * sizeof(*more));

        tasks->out_of_memory = !more;
        if (!more)
            return false;
        tasks->tasks = more;
        tasks->room = room;
    }
    tasks->tasks[tasks->n++] = *task;
    return true;
}

static int by_pid(const void *a, const void *b) {
    const struct vmibus_linux_task *one = a, *other = b;

    return one->pid < other->pid ? -1 : one->pid > other->pid;
}

int tasks_collect(const struct linux_guest *guest, bool threads, struct tasks *tasks) {
    int r = vmibus_linux_visit_tasks(guest->kernel, threads, take, tasks, &tasks->picture);

    if (r)
        return linux_guest_report(guest, r, "its processes cannot be read");
    if (tasks->out_of_memory)
        return report_failure("out of memory");
    if (tasks->bounded)
        tasks->picture.flags |= VMIBUS_LINUX_BOUNDED;
    if (tasks->n)
        qsort(tasks->tasks, tasks->n, sizeof(*tasks->tasks), by_pid);
    return STATUS_OK;
}

const struct vmibus_linux_task *tasks_find(const struct tasks *tasks, uint32_t pid) {
    const struct vmibus_linux_task key = {.pid = pid};

    return tasks->n ? bsearch(&key, tasks->tasks, tasks->n, sizeof(key), by_pid) : NULL;
}

void tasks_deinit(struct tasks *tasks) {
    free(tasks->tasks);
    *tasks = (struct tasks){};
}

int tasks_lookup(const struct linux_guest *guest, const char *word, struct vmibus_linux_task *task) {
    uint64_t pid;
    int r;

    if (!units_parse_number(word, UINT32_MAX, &pid) || pid == 0)
        return vmibusctl_usage("pid", word, "it is the number of a process, as `vmibusctl ps` shows it");
    r = vmibus_linux_find_task(guest->kernel, (uint32_t)pid, task);
    return r ? linux_guest_report(guest, r, "the process cannot be looked at") : STATUS_OK;
}
