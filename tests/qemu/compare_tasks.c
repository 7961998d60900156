/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See compare.h. */
#include "compare.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"

#define TASKS 2048
#define NANOSECONDS_PER_TICK UINT64_C(10000000)

/* One task, as the guest says or as it was read. */
struct fact {
    uint64_t pid, tgid, ppid, start, kernel, uid, euid, gid;
    char state;
    char nested[256];   /* pids below the first namespace, separated by commas */
    char comm[64];
};

struct facts {
    struct fact facts[TASKS];
    size_t n;
};

static struct fact *add(struct facts *facts) {
    ck_assert_uint_lt(facts->n, TASKS);
    return &facts->facts[facts->n++];
}

static const struct fact *find(const struct facts *facts, uint64_t pid, uint64_t start) {
    for (size_t i = 0; i < facts->n; i++)
        if (facts->facts[i].pid == pid && facts->facts[i].start == start)
            return &facts->facts[i];
    return NULL;
}

static const struct fact *find_name(const struct facts *facts, const char *comm) {
    for (size_t i = 0; i < facts->n; i++)
        if (strcmp(facts->facts[i].comm, comm) == 0)
            return &facts->facts[i];
    return NULL;
}

static void ask_tasks(struct linux_bed *guest, struct facts *facts) {
    char *reply = linux_bed_ask(guest, "tasks"), *rest = reply, *line;

    facts->n = 0;
    while ((line = facts_next(&rest, "TASK"))) {
        struct fact *fact = add(facts);
        char ids[128], *second, *nested;

        *fact = (struct fact){.pid = facts_number(line, "pid"), .tgid = facts_number(line, "tgid"),
                              .ppid = facts_number(line, "ppid"), .start = facts_number(line, "start"),
                              .kernel = facts_number(line, "kthread")};
        facts_text(line, "state", false, ids, sizeof(ids));
        fact->state = ids[0];
        facts_text(line, "uid", false, ids, sizeof(ids));
        fact->uid = strtoull(ids, &second, 10);
        fact->euid = strtoull(second + 1, NULL, 10);
        facts_text(line, "gid", false, ids, sizeof(ids));
        fact->gid = strtoull(ids, NULL, 10);
        facts_text(line, "nspid", false, ids, sizeof(ids));
        nested = strchr(ids, ',');
        snprintf(fact->nested, sizeof(fact->nested), "%s", nested ? nested + 1 : "");
        facts_text(line, "comm", true, fact->comm, sizeof(fact->comm));
    }
    free(reply);
}

static bool take(void *context, const struct vmibus_linux_task *task) {
    struct fact *fact = add(context);
    size_t used = 0;

    *fact = (struct fact){.pid = task->pid, .tgid = task->tgid, .ppid = task->ppid,
                          .start = task->start_time / NANOSECONDS_PER_TICK, .kernel = task->flags & VMIBUS_LINUX_TASK_KERNEL,
                          .uid = task->uid, .euid = task->euid,
                          .gid = task->gid, .state = task->state};
    ck_assert_uint_eq(task->flags & ~(uint32_t)(VMIBUS_LINUX_TASK_KERNEL | VMIBUS_LINUX_TASK_THREAD), 0);
    ck_assert_int_eq(!(task->flags & VMIBUS_LINUX_TASK_THREAD), task->pid == task->tgid);
    ck_assert_int_eq(task->mm != 0, task->cr3 != 0);
    if (task->flags & VMIBUS_LINUX_TASK_KERNEL)
        ck_assert_uint_eq(task->mm, 0);
    for (unsigned i = 0; i < task->n_nested; i++)
        used += (size_t)snprintf(fact->nested + used, sizeof(fact->nested) - used, "%s%u", i ? "," : "", task->nested[i]);
    snprintf(fact->comm, sizeof(fact->comm), "%s", task->comm);
    return true;
}

/* Of a kernel thread, the guest tells more than its name (fs/proc/array.c, proc_task_name). */
static bool same(const struct fact *fact, const struct fact *read, bool with_state) {
    size_t len = strlen(read->comm);

    return fact->tgid == read->tgid && fact->ppid == read->ppid && fact->kernel == read->kernel && fact->uid == read->uid &&
           fact->euid == read->euid && fact->gid == read->gid && strcmp(fact->nested, read->nested) == 0 &&
           (!with_state || fact->state == read->state) &&
           (fact->kernel ? strncmp(fact->comm, read->comm, len) == 0 : strcmp(fact->comm, read->comm) == 0);
}

static void check_fact(const struct fact *fact, const struct fact *after, const struct fact *read) {
    /* What runs, or has just run, is in another state at each look. */
    bool with_state = fact->state == after->state && strchr("ZTtDX", fact->state);

    ck_assert_msg(read, "process %" PRIu64 " (%s), started %" PRIu64 ", was not read", fact->pid, fact->comm, fact->start);
    if (!same(fact, after, false))
        return;
    ck_assert_msg(same(fact, read, with_state),
                  "the guest says %" PRIu64 " tgid %" PRIu64 " ppid %" PRIu64 " %c kernel %" PRIu64 " uid %" PRIu64 " euid %" PRIu64
                  " gid %" PRIu64 " nested (%s) %s; read was tgid %" PRIu64 " ppid %" PRIu64 " %c kernel %" PRIu64 " uid %" PRIu64
                  " euid %" PRIu64 " gid %" PRIu64 " nested (%s) %s",
                  fact->pid, fact->tgid, fact->ppid, fact->state, fact->kernel, fact->uid, fact->euid, fact->gid, fact->nested,
                  fact->comm, read->tgid, read->ppid, read->state, read->kernel, read->uid, read->euid, read->gid, read->nested,
                  read->comm);
}

/* Everything that was there before and afterwards was read, and nothing else but what came or went meanwhile. */
static void check_facts(const struct facts *before, const struct facts *read, const struct facts *after) {
    uint64_t last = 0;

    for (size_t i = 0; i < before->n; i++) {
        const struct fact *fact = &before->facts[i], *again = find(after, fact->pid, fact->start);

        last = fact->start > last ? fact->start : last;
        if (again)
            check_fact(fact, again, find(read, fact->pid, fact->start));
    }
    for (size_t i = 0; i < read->n; i++) {
        const struct fact *fact = &read->facts[i];

        ck_assert_msg(find(before, fact->pid, fact->start) || find(after, fact->pid, fact->start) || fact->start >= last,
                      "process %" PRIu64 " (%s), started %" PRIu64 ", was read, but the guest has none", fact->pid, fact->comm,
                      fact->start);
        ck_assert_ptr_eq(find(read, fact->pid, fact->start), fact);
    }
}

/* The crowd says that it is there; some of its processes come to rest only then. */
static uint32_t await_crowd(struct linux_bed *guest, struct facts *facts) {
    char *line, *reply = linux_bed_ask(guest, "crowd");
    uint32_t pid;

    free(reply);
    CHECK_BED(guest->bed, bed_wait_serial(guest->bed, "CROWD", (int)harness_scale(LINUX_BED_ANSWER_MS), &line));
    pid = (uint32_t)facts_number(line, "pid");
    free(line);
    for (int i = 0; i < 200; i++) {
        const struct fact *stopped, *waiting;

        ask_tasks(guest, facts);
        stopped = find_name(facts, "stopped");
        waiting = find_name(facts, "uninterrupted");
        if (stopped && stopped->state == 'T' && waiting && waiting->state == 'D' && find_name(facts, "inner") &&
            find_name(facts, "borrower") && find_name(facts, "fifteen octets!"))
            return pid;
    }
    ck_abort_msg("the crowd has not come together");
}

static void read_tasks(struct linux_bed *guest, bool threads, struct facts *facts) {
    struct vmibus_linux_picture picture;
    int r;

    for (int i = 0; i < 50; i++) {
        facts->n = 0;
        r = vmibus_linux_visit_tasks(guest->kernel, threads, take, facts, &picture);
        ck_assert_msg(r == 0, "%d: %s", r, vmibus_linux_why(guest->kernel));
        ck_assert_uint_eq(picture.n_seen, facts->n);
        if (picture.flags == (VMIBUS_LINUX_ENDED | VMIBUS_LINUX_STEADY) && picture.n_broken == 0)
            return;
    }
    ck_abort_msg("no picture of the tasks is steady");
}

static void check_finding(struct linux_bed *guest, const struct facts *facts) {
    const struct fact *thread = find_name(facts, "fifteen octets!"), *inner = find_name(facts, "inner");
    struct vmibus_linux_task task;

    ck_assert(thread && inner);
    ck_assert_int_eq(vmibus_linux_find_task(guest->kernel, (uint32_t)thread->pid, &task), 0);
    ck_assert_str_eq(task.comm, "fifteen octets!");
    ck_assert_uint_eq(task.tgid, thread->tgid);
    ck_assert_int_eq(vmibus_linux_find_task(guest->kernel, (uint32_t)inner->pid, &task), 0);
    ck_assert_uint_eq(task.n_nested, 2);
    ck_assert_uint_eq(task.nested[1], 1);
    ck_assert_int_eq(vmibus_linux_find_task(guest->kernel, 4000000, &task), VMIBUS_GUEST_NOT_FOUND);
    ck_assert_int_eq(vmibus_linux_find_task(guest->kernel, 0, &task), VMIBUS_GUEST_NOT_FOUND);
}

uint32_t compare_tasks(struct linux_bed *guest) {
    static struct facts before, read, after, leaders;
    uint32_t crowd = await_crowd(guest, &before);

    read_tasks(guest, true, &read);
    ask_tasks(guest, &after);
    check_facts(&before, &read, &after);
    read_tasks(guest, false, &leaders);
    for (size_t i = 0; i < leaders.n; i++)
        ck_assert_uint_eq(leaders.facts[i].pid, leaders.facts[i].tgid);
    ck_assert_uint_lt(leaders.n, read.n);
    check_finding(guest, &read);
    return crowd;
}
