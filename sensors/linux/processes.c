/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "processes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* --- the picture -------------------------------------------------------------------------------------------------- */

static bool reserve(struct process **items, size_t *room, size_t wanted) {
    size_t larger = *room ? *room : 64;
    struct process *grown;

    if (wanted <= *room)
        return true;
    while (larger < wanted)
        larger *= 2;
    grown = realloc(*items, larger * sizeof(*grown));
    if (!grown)
        return false;
    *items = grown;
    *room = larger;
    return true;
}

static int compare(const void *left, const void *right) {
    const struct process *a = left, *b = right;

    if (a->pid != b->pid)
        return a->pid < b->pid ? -1 : 1;
    return a->start_time < b->start_time ? -1 : a->start_time > b->start_time;
}

static bool add_fresh(struct processes *processes, const struct process *process) {
    if (processes->n_fresh == PROCESSES_MAX)
        return false;
    if (!reserve(&processes->fresh, &processes->room_fresh, processes->n_fresh + 1)) {
        processes->error = -ENOMEM;
        return false;
    }
    processes->fresh[processes->n_fresh] = *process;
    processes->fresh[processes->n_fresh++].missed = false;
    return true;
}

/* One that executes no other program than it was known with is told of as it was then. */
static bool take_known(void *context, const struct vmibus_linux_task *task) {
    struct processes *processes = context;
    const struct process wanted = {.pid = task->pid, .start_time = task->start_time};
    const struct process *known =
        processes->n ? bsearch(&wanted, processes->known, processes->n, sizeof(*processes->known), compare) : NULL;

    return known && known->task == task->task && known->executions == task->executions && add_fresh(processes, known);
}

static bool take(void *context, const struct vmibus_linux_task *task) {
    struct process process = {.task = task->task,
                              .start_time = task->start_time,
                              .executions = task->executions,
                              .cr3 = task->cr3,
                              .pid = task->pid,
                              .ppid = task->ppid,
                              .uid = task->uid};

    memcpy(process.comm, task->comm, sizeof(process.comm));
    return add_fresh(context, &process);
}

/* --- differences -------------------------------------------------------------------------------------------------- */

static bool tell(struct events *events, const struct process *process, enum vmibus_process_change change) {
    struct event *event = events_add(events, VMIBUS_KIND_PROCESS);
    struct vmibus_process *body;

    if (!event)
        return false;
    body = &event->frame.process;
    body->cr3 = process->cr3;
    body->task = process->task;
    body->start_time = process->start_time;
    body->pid = process->pid;
    body->ppid = process->ppid;
    body->uid = process->uid;
    body->change = (uint8_t)change;
    memcpy(body->comm, process->comm, sizeof(body->comm));
    return true;
}

/* The known processes as they become. */
struct merge {
    struct processes *processes;
    struct events *events;
    struct process *next;   /* room for all */
    size_t n;
    bool is_whole;          /* what is not in the picture is gone */
    bool is_steady;
    bool is_settled;        /* nothing is left to be seen to */
};

static void keep(struct merge *merge, const struct process *process) {
    merge->next[merge->n++] = *process;
}

/* What cannot be told stays as it was told last. */
static void merge_both(struct merge *merge, const struct process *known, const struct process *fresh) {
    if (fresh->executions == known->executions || tell(merge->events, fresh, VMIBUS_PROCESS_CHANGE_EXECUTED)) {
        keep(merge, fresh);
        return;
    }
    keep(merge, known);
    merge->is_settled = false;
}

static void merge_fresh(struct merge *merge, const struct process *fresh) {
    enum vmibus_process_change change =
        merge->processes->told_present ? VMIBUS_PROCESS_CHANGE_STARTED : VMIBUS_PROCESS_CHANGE_PRESENT;

    if (tell(merge->events, fresh, change))
        keep(merge, fresh);
    else
        merge->is_settled = false;
}

/* A list that changed while it was read may have hidden one; not twice. */
static void merge_gone(struct merge *merge, const struct process *known) {
    struct process gone = *known;

    if (merge->is_whole && (merge->is_steady || known->missed) && tell(merge->events, known, VMIBUS_PROCESS_CHANGE_EXITED))
        return;
    gone.missed = merge->is_whole;
    keep(merge, &gone);
    merge->is_settled = false;
}

/* The end of a list, which is NULL where it is empty. */
static const struct process *end_of(const struct process *list, size_t n) {
    return n ? list + n : list;
}

static void merge_all(struct merge *merge) {
    const struct process *known = merge->processes->known, *fresh = merge->processes->fresh;
    const struct process *known_end = end_of(known, merge->processes->n);
    const struct process *fresh_end = end_of(fresh, merge->processes->n_fresh);

    while (known < known_end || fresh < fresh_end) {
        int order = known == known_end ? 1 : fresh == fresh_end ? -1 : compare(known, fresh);

        if (order < 0)
            merge_gone(merge, known++);
        else if (order > 0)
            merge_fresh(merge, fresh++);
        else
            merge_both(merge, known++, fresh++);
    }
}

/* --- looking ------------------------------------------------------------------------------------------------------ */

static int take_picture(struct processes *processes, struct vmibus_linux *kernel, struct vmibus_linux_picture *picture) {
    int r;

    processes->n_fresh = 0;
    processes->error = 0;
    r = vmibus_linux_visit_unknown_tasks(kernel, take_known, take, processes, picture);
    if (r == 0)
        r = processes->error;
    if (r == 0 && processes->n_fresh)
        qsort(processes->fresh, processes->n_fresh, sizeof(*processes->fresh), compare);
    return r;
}

static int look_at_list(struct processes *processes, struct vmibus_linux *kernel, struct events *events) {
    struct merge merge = {.processes = processes, .events = events, .is_settled = true};
    struct vmibus_linux_picture picture;
    size_t room = 0;
    int r = take_picture(processes, kernel, &picture);

    if (r)
        return r;
    if (!reserve(&merge.next, &room, processes->n + processes->n_fresh + 1))
        return -ENOMEM;
    merge.is_whole = picture.flags & VMIBUS_LINUX_ENDED && picture.n_broken == 0;
    merge.is_steady = picture.flags & VMIBUS_LINUX_STEADY;
    merge_all(&merge);
    free(processes->known);
    processes->known = merge.next;
    processes->n = merge.n < PROCESSES_MAX ? merge.n : PROCESSES_MAX;
    processes->room = room;
    processes->settled = merge.is_settled && merge.is_whole && merge.is_steady;
    processes->told_present = processes->told_present || (merge.is_settled && merge.is_whole);
    return 0;
}

/* Whether a known process executes another program than it was told to. */
static bool any_executed(const struct processes *processes, struct vmibus_linux *kernel) {
    for (size_t i = 0; i < processes->n; i++) {
        uint64_t executions;

        if (vmibus_linux_read_executions(kernel, processes->known[i].task, &executions) ||
            executions != processes->known[i].executions)
            return true;
    }
    return false;
}

/*
 * The list may be behind the counters for a moment (the kernel counts an exit before it takes the task out), so a picture that
 * came of their change is followed by another one.
 */
int processes_look(struct processes *processes, struct vmibus_linux *kernel, struct events *events) {
    struct vmibus_linux_census census = {};
    bool same = vmibus_linux_count_tasks(kernel, &census) == 0 && census.forks == processes->census.forks &&
                census.threads == processes->census.threads;
    int r;

    if (same && processes->settled && !any_executed(processes, kernel))
        return 0;
    r = look_at_list(processes, kernel, events);
    if (r)
        return r;
    processes->settled = processes->settled && same;
    processes->census = census;
    return 0;
}

void processes_clear(struct processes *processes) {
    free(processes->known);
    free(processes->fresh);
    *processes = (struct processes){};
}
