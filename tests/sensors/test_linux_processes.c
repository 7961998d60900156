/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the sensor for Linux finds different from look to look, in a kernel of the test's own making. */
#include "harness.h"

#include <string.h>

#include "guest_lib/task_image.h"
#include "linux/processes.h"

static struct image *image;
static struct processes processes;
static struct events events;
static uint64_t init, shell;

static void count(int64_t forks, int64_t threads) {
    image_put(image, image->counters, image_get(image, image->counters) + (uint64_t)forks, 8);
    image_put(image, image->counters + 8, image_get(image, image->counters + 8) + (uint64_t)threads, 4);
}

static uint64_t fork_process(uint32_t pid, const char *comm) {
    uint64_t task = image_process(image, pid, 1, comm);

    count(1, 1);
    return task;
}

static void take_out(uint64_t node) {
    uint64_t next = image_get(image, node), previous = image_get(image, node + 8);

    image_put(image, previous, next, 8);
    image_put(image, next + 8, previous, 8);
}

static void end_process(uint64_t task) {
    take_out(task + TASK_TASKS);
    count(0, -1);
}

static void execute(uint64_t task, const char *comm) {
    image_put(image, task + TASK_EXECUTIONS, image_get(image, task + TASK_EXECUTIONS) + 1, 8);
    for (size_t i = 0; i < 16; i++)
        image_put(image, task + TASK_COMM + i, i < strlen(comm) ? (uint8_t)comm[i] : 0, 1);
}

static void look(void) {
    events_clear(&events);
    ck_assert_int_eq(processes_look(&processes, &image->kernel, &events), 0);
}

static void begin(void) {
    image = image_new();
    init = fork_process(1, "init");
    shell = fork_process(2, "sh");
    look();
    ck_assert_uint_eq(events.n, 2);
    for (size_t i = 0; i < 2; i++) {
        ck_assert_uint_eq(events.items[i].frame.header.kind, VMIBUS_KIND_PROCESS);
        ck_assert_uint_eq(events.items[i].frame.process.change, VMIBUS_PROCESS_CHANGE_PRESENT);
        ck_assert_uint_eq(events.items[i].frame.process.pid, i + 1);
    }
    look();
    ck_assert_uint_eq(events.n, 0);
}

static void end(void) {
    events_clear(&events);
    processes_clear(&processes);
    image_free(image);
}

#define WITH_KERNEL .setup = begin, .teardown = end

static void expect(uint32_t pid, enum vmibus_process_change change, const char *comm) {
    const struct vmibus_process *told;

    ck_assert_uint_eq(events.n, 1);
    told = &events.items[0].frame.process;
    ck_assert_uint_eq(told->pid, pid);
    ck_assert_uint_eq(told->change, change);
    ck_assert_str_eq((const char *)told->comm, comm);
}

TEST(test_what_starts, WITH_KERNEL) {
    uint64_t task = fork_process(3, "child");

    look();
    expect(3, VMIBUS_PROCESS_CHANGE_STARTED, "child");
    ck_assert_uint_eq(events.items[0].frame.process.task, task);
    ck_assert_uint_eq(events.items[0].frame.process.cr3, image->process_root);
    ck_assert_uint_eq(events.items[0].frame.process.ppid, 1);
    ck_assert_uint_eq(events.items[0].frame.process.uid, 1003);
    look();
    ck_assert_uint_eq(events.n, 0);
}

TEST(test_what_executes, WITH_KERNEL) {
    execute(shell, "ls");
    look();
    expect(2, VMIBUS_PROCESS_CHANGE_EXECUTED, "ls");
    look();
    ck_assert_uint_eq(events.n, 0);
    /* Another name alone is no other program (prctl). */
    image_put(image, shell + TASK_COMM, 'k', 1);
    look();
    ck_assert_uint_eq(events.n, 0);
}

TEST(test_what_exits, WITH_KERNEL) {
    end_process(shell);
    look();
    expect(2, VMIBUS_PROCESS_CHANGE_EXITED, "sh");
    look();
    ck_assert_uint_eq(events.n, 0);
}

/* The counter of threads falls before the list is shorter (Linux kernel/exit.c). */
TEST(test_a_list_that_is_behind_its_counters, WITH_KERNEL) {
    count(0, -1);
    look();
    ck_assert_uint_eq(events.n, 0);
    take_out(shell + TASK_TASKS);
    look();
    expect(2, VMIBUS_PROCESS_CHANGE_EXITED, "sh");
}

TEST(test_a_pid_that_is_used_again, WITH_KERNEL) {
    uint64_t task;

    end_process(shell);
    task = fork_process(2, "other");
    image_put(image, task + TASK_START, 999000000, 8);
    look();
    ck_assert_uint_eq(events.n, 2);
    ck_assert_uint_eq(events.items[0].frame.process.change, VMIBUS_PROCESS_CHANGE_EXITED);
    ck_assert_str_eq((const char *)events.items[0].frame.process.comm, "sh");
    ck_assert_uint_eq(events.items[1].frame.process.change, VMIBUS_PROCESS_CHANGE_STARTED);
    ck_assert_uint_eq(events.items[1].frame.process.start_time, 999000000);
}

/* A thread that executes a program takes the pid and the start time of the first one (Linux fs/exec.c, de_thread). */
TEST(test_a_program_that_a_thread_executes, WITH_KERNEL) {
    uint64_t task;

    end_process(shell);
    task = fork_process(2, "sh");
    execute(task, "ls");
    look();
    expect(2, VMIBUS_PROCESS_CHANGE_EXECUTED, "ls");
    ck_assert_uint_eq(events.items[0].frame.process.task, task);
}

TEST(test_nothing_is_read_twice_where_nothing_changed, WITH_KERNEL) {
    size_t reads;

    look();
    reads = image->reads;
    look();
    ck_assert_uint_eq(events.n, 0);
    ck_assert_uint_lt(image->reads - reads, 24);
}

/* --- pictures that cannot be trusted ------------------------------------------------------------------------------ */

TEST(test_p09_a_list_that_does_not_end_ends_nobody, WITH_KERNEL) {
    uint64_t last = fork_process(3, "last");

    look();
    end_process(shell);
    /* It leads out of memory. */
    image_put(image, init + TASK_TASKS, UINT64_C(0xffffc00000000000), 8);
    for (unsigned int i = 0; i < 5; i++) {
        look();
        ck_assert_uint_eq(events.n, 0);
    }
    image_put(image, init + TASK_TASKS, last + TASK_TASKS, 8);
    look();
    expect(2, VMIBUS_PROCESS_CHANGE_EXITED, "sh");
}

TEST(test_p09_a_ring_ends_nobody, WITH_KERNEL) {
    uint64_t last = fork_process(3, "last");

    look();
    image_put(image, last + TASK_TASKS, init + TASK_TASKS, 8);
    count(1, 0);
    for (unsigned int i = 0; i < 5; i++) {
        look();
        ck_assert_uint_eq(events.n, 0);
    }
}

static void go_away(struct image *from, uint64_t gpa) {
    (void)gpa;
    from->before_read = NULL;
    end_process(shell);
}

TEST(test_p09_one_that_goes_while_it_is_read_is_told_once, WITH_KERNEL) {
    size_t exits = 0;

    (void)fork_process(3, "last");
    image->before_read = go_away;
    for (unsigned int i = 0; i < 4; i++) {
        look();
        for (size_t j = 0; j < events.n; j++)
            exits += events.items[j].frame.process.change == VMIBUS_PROCESS_CHANGE_EXITED;
    }
    ck_assert_uint_eq(exits, 1);
}

/* More than a look tells: none is lost, each is told once, and those of the beginning as such. */
TEST(test_p09_many_at_once_are_told_in_portions) {
    size_t told = 0, n = EVENTS_MAX + 100;

    image = image_new();
    for (uint32_t i = 0; i < n; i++)
        (void)fork_process(i + 1, "many");
    for (unsigned int i = 0; i < 4; i++) {
        look();
        ck_assert_uint_le(events.n, EVENTS_MAX);
        for (size_t j = 0; j < events.n; j++)
            ck_assert_uint_eq(events.items[j].frame.process.change, VMIBUS_PROCESS_CHANGE_PRESENT);
        told += events.n;
    }
    ck_assert_uint_eq(told, n);
    end();
}

/* Kernels without the counters: every look reads the list. */
TEST(test_without_counters, WITH_KERNEL) {
    image->counters = 0;
    look();
    (void)image_process(image, 9, 1, "child");
    look();
    expect(9, VMIBUS_PROCESS_CHANGE_STARTED, "child");
}

HARNESS_SUITE("linux processes", HARNESS_QUICK)
