/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Tasks, files and sockets of a kernel that may say anything: what is sound is read, what is not ends, and says so. Whether what is
 * read is true, tests/qemu/test_linux_tasks.c compares with real guests.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "guest/linux/socket_owners.h"
#include "harness.h"
#include "task_image.h"

#if defined(__has_feature) && !defined(__SANITIZE_THREAD__)
#if __has_feature(thread_sanitizer)
#define __SANITIZE_THREAD__ 1
#endif
#endif

#define SOUND (VMIBUS_LINUX_ENDED | VMIBUS_LINUX_STEADY)
#define SEEN_MAX 4096

/* A visit ends by a bound, not by patience: so many reads are more than any of these needs. */
#define READS_BOUND 200000

static struct image *image;

static void begin(void) {
    image = image_new();
    ck_assert_ptr_nonnull(image);
}

static void end(void) {
    image = image_free(image);
}

#define IMAGE_TEST(name) TEST(name, .setup = begin, .teardown = end)

struct seen {
    struct vmibus_linux_task tasks[SEEN_MAX];
    size_t n;
    size_t stop_after;
};

static struct seen seen;

static bool see(void *context, const struct vmibus_linux_task *task) {
    struct seen *s = context;

    ck_assert_uint_lt(s->n, SEEN_MAX);
    ck_assert(task->comm[VMIBUS_LINUX_COMM_SIZE - 1] == '\0');
    ck_assert_uint_le(task->n_nested, VMIBUS_LINUX_NESTED_MAX);
    s->tasks[s->n++] = *task;
    return s->n != s->stop_after;
}

static struct vmibus_linux_picture visit(bool threads) {
    struct vmibus_linux_picture picture;
    int r;

    seen.n = 0;
    image->reads = 0;
    r = vmibus_linux_visit_tasks(&image->kernel, threads, see, &seen, &picture);
    ck_assert_msg(r == 0, "%d: %s", r, vmibus_linux_why(&image->kernel));
    ck_assert_uint_eq(picture.n_seen, seen.n);
    ck_assert_uint_lt(image->reads, READS_BOUND);
    return picture;
}

/* --- what is sound ------------------------------------------------------------------------------------------------- */

IMAGE_TEST(test_tasks_are_read_whole) {
    uint64_t task = image_process(image, 1, 0, "init"), other = image_process(image, 7, 1, "seventh"), pids;
    struct vmibus_linux_picture picture;

    image_thread(image, other, 8, "thread");
    image_put(image, other + TASK_STATE, 0x402, 4);
    pids = image_get(image, other + TASK_THREAD_PID);
    image_put(image, pids + PID_LEVEL, 2, 4);
    image_put(image, pids + PID_NUMBERS + 16, 70, 4);
    image_put(image, pids + PID_NUMBERS + 32, 700, 4);
    picture = visit(true);
    ck_assert_uint_eq(picture.flags, SOUND);
    ck_assert_uint_eq(picture.n_broken, 0);
    ck_assert_uint_eq(seen.n, 3);
    ck_assert_uint_eq(seen.tasks[0].task, task);
    ck_assert_uint_eq(seen.tasks[0].ppid, 0);
    ck_assert_str_eq(seen.tasks[0].comm, "init");
    ck_assert_uint_eq(seen.tasks[1].pid, 7);
    ck_assert_uint_eq(seen.tasks[1].ppid, 1);
    ck_assert_uint_eq(seen.tasks[1].uid, 1007);
    ck_assert_uint_eq(seen.tasks[1].gid, 2007);
    ck_assert_uint_eq(seen.tasks[1].euid, 3007);
    ck_assert_int_eq(seen.tasks[1].state, 'I');
    ck_assert_uint_eq(seen.tasks[1].start_time, 7000000);
    ck_assert_uint_eq(seen.tasks[1].cr3, image->process_root);
    ck_assert_uint_eq(seen.tasks[1].n_nested, 2);
    ck_assert_uint_eq(seen.tasks[1].nested[0], 70);
    ck_assert_uint_eq(seen.tasks[1].nested[1], 700);
    ck_assert_uint_eq(seen.tasks[1].flags, 0);
    ck_assert_uint_eq(seen.tasks[2].pid, 8);
    ck_assert_uint_eq(seen.tasks[2].tgid, 7);
    ck_assert_uint_eq(seen.tasks[2].flags, VMIBUS_LINUX_TASK_THREAD);
    picture = visit(false);
    ck_assert_uint_eq(seen.n, 2);
    ck_assert_uint_eq(picture.flags, SOUND);
}

/* Knows all but the seventh. */
static bool knows(void *context, const struct vmibus_linux_task *task) {
    (void)context;
    ck_assert_uint_eq(task->uid + task->ppid + task->cr3, 0);
    return task->pid != 7;
}

IMAGE_TEST(test_what_is_known_is_not_read_further) {
    struct vmibus_linux_picture picture;
    unsigned long all;

    for (uint32_t pid = 1; pid < 50; pid++)
        image_process(image, pid, pid / 2, "process");
    visit(false);
    all = (unsigned long)image->reads;
    image->reads = seen.n = 0;
    ck_assert_int_eq(vmibus_linux_visit_unknown_tasks(&image->kernel, knows, see, &seen, &picture), 0);
    ck_assert_uint_eq(picture.flags, SOUND);
    ck_assert_uint_eq(picture.n_seen, 49);
    ck_assert_uint_eq(seen.n, 1);
    ck_assert_uint_eq(seen.tasks[0].ppid, 3);
    ck_assert_uint_eq(seen.tasks[0].uid, 1007);
    ck_assert_uint_eq(seen.tasks[0].cr3, image->process_root);
    ck_assert_uint_lt(image->reads, all * 3 / 4);
}

IMAGE_TEST(test_a_kernel_without_processes_has_none) {
    struct vmibus_linux_picture picture = visit(true);

    ck_assert_uint_eq(seen.n, 0);
    ck_assert_uint_eq(picture.flags, SOUND);
}

IMAGE_TEST(test_states) {
    static const struct {
        uint32_t state, exit_state;
        char letter;
    } states[] = {
        {0, 0, 'R'}, {1, 0, 'S'},  {2, 0, 'D'},     {4, 0, 'T'},     {8, 0, 't'},      {0x40, 0, 'P'},       {0, 0x10, 'X'},
        {0, 0x20, 'Z'}, {0x402, 0, 'I'}, {0x1000, 0, 'D'}, {0x102, 0, 'D'}, {0x80, 0x20, 'Z'}, {UINT32_MAX, 0, 'I'}, {0x80, 0, 'R'},
    };
    uint64_t task = image_process(image, 1, 0, "init");

    for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++) {
        image_put(image, task + TASK_STATE, states[i].state, 4);
        image_put(image, task + TASK_EXIT_STATE, states[i].exit_state, 4);
        visit(false);
        ck_assert_msg(seen.tasks[0].state == states[i].letter, "0x%x 0x%x: %c", states[i].state, states[i].exit_state,
                      seen.tasks[0].state);
    }
}

IMAGE_TEST(test_finding) {
    struct vmibus_linux_task task;
    uint64_t leader = image_process(image, 1, 0, "init");

    image_thread(image, leader, 2, "thread");
    image_process(image, 3, 1, "third");
    ck_assert_int_eq(vmibus_linux_find_task(&image->kernel, 3, &task), 0);
    ck_assert_str_eq(task.comm, "third");
    ck_assert_int_eq(vmibus_linux_find_task(&image->kernel, 2, &task), 0);
    ck_assert_str_eq(task.comm, "thread");
    ck_assert_int_eq(vmibus_linux_find_task(&image->kernel, 4, &task), VMIBUS_GUEST_NOT_FOUND);
    ck_assert_int_eq(vmibus_linux_find_task(&image->kernel, 0, &task), VMIBUS_GUEST_NOT_FOUND);
    image_put(image, image->init_task + TASK_TASKS, 0, 8);
    ck_assert_int_eq(vmibus_linux_find_task(&image->kernel, 4, &task), VMIBUS_GUEST_CHANGED);
}

IMAGE_TEST(test_a_caller_may_stop) {
    struct vmibus_linux_picture picture;

    for (uint32_t pid = 1; pid < 10; pid++)
        image_process(image, pid, 0, "many");
    seen.stop_after = 4;
    picture = visit(true);
    ck_assert_uint_eq(seen.n, 4);
    ck_assert_uint_eq(picture.flags & VMIBUS_LINUX_ENDED, 0);
}

/* --- what is not ------------------------------------------------------------------------------------------------------ */

IMAGE_TEST(test_p12_a_list_in_a_circle_ends) {
    uint64_t second, fourth;
    struct vmibus_linux_picture picture;

    image_process(image, 1, 0, "first");
    second = image_process(image, 2, 1, "second");
    image_process(image, 3, 1, "third");
    fourth = image_process(image, 4, 1, "fourth");
    image_put(image, fourth + TASK_TASKS, second + TASK_TASKS, 8);
    picture = visit(true);
    ck_assert_uint_eq(seen.n, 4);
    ck_assert_uint_eq(picture.flags, 0);
    ck_assert_uint_eq(picture.n_broken, 1);
}

/* What points to itself, and back to itself, is linked as far as it says. */
IMAGE_TEST(test_p12_an_entry_that_points_to_itself_ends) {
    uint64_t task = image_process(image, 1, 0, "first");
    struct vmibus_linux_picture picture;

    image_put(image, task + TASK_TASKS, task + TASK_TASKS, 8);
    picture = visit(true);
    ck_assert_uint_eq(seen.n, 1);
    ck_assert_uint_eq(picture.flags, 0);
    image_put(image, task + TASK_TASKS + 8, task + TASK_TASKS, 8);
    picture = visit(true);
    ck_assert_uint_eq(seen.n, 0);
    ck_assert_uint_eq(picture.flags, 0);
}

IMAGE_TEST(test_p12_pointers_to_nowhere_end) {
    static const uint64_t nowhere[] = {0, 8, UINT64_C(0x400000), UINT64_C(0x8000000000000000), UINT64_C(0xffffffffffffffff),
                                       IMAGE_BASE + IMAGE_LEN, IMAGE_BASE + IMAGE_LEN - 8, UINT64_C(0xdead000000000100)};
    uint64_t task = image_process(image, 1, 0, "first"), signal = image_get(image, task + TASK_SIGNAL);

    image_process(image, 2, 1, "second");
    for (size_t i = 0; i < sizeof(nowhere) / sizeof(nowhere[0]); i++) {
        uint64_t next = image_get(image, task + TASK_TASKS);
        struct vmibus_linux_picture picture;

        image_put(image, task + TASK_TASKS, nowhere[i], 8);
        picture = visit(true);
        ck_assert_uint_eq(seen.n, 1);
        ck_assert_uint_eq(picture.flags & VMIBUS_LINUX_ENDED, 0);
        image_put(image, task + TASK_TASKS, next, 8);
        image_put(image, task + TASK_SIGNAL, nowhere[i], 8);
        picture = visit(true);
        ck_assert_uint_eq(seen.n, 2);
        if (nowhere[i])
            ck_assert_uint_eq(picture.flags & VMIBUS_LINUX_ENDED, 0);
        image_put(image, task + TASK_SIGNAL, signal, 8);
    }
    ck_assert_uint_eq(visit(true).flags, SOUND);
}

IMAGE_TEST(test_p12_threads_in_a_circle_keep_no_process_from_being_seen) {
    uint64_t first = image_process(image, 1, 0, "first"), thread = image_thread(image, first, 10, "thread");
    struct vmibus_linux_picture picture;

    image_process(image, 2, 1, "second");
    image_put(image, thread + TASK_THREAD_NODE, first + TASK_THREAD_NODE, 8);
    picture = visit(true);
    ck_assert_uint_eq(seen.n, 3);
    ck_assert_uint_eq(seen.tasks[2].pid, 2);
    ck_assert_uint_eq(picture.flags & VMIBUS_LINUX_ENDED, 0);
}

IMAGE_TEST(test_p12_what_makes_no_sense_is_left_out) {
    uint64_t task = image_process(image, 1, 0, "first");
    struct vmibus_linux_picture picture;

    image_process(image, 2, 1, "a name without end");
    image_put(image, task + TASK_PID, 0x80000001, 4);
    picture = visit(false);
    ck_assert_uint_eq(seen.n, 1);
    ck_assert_uint_eq(picture.n_broken, 1);
    ck_assert_uint_eq(picture.flags, SOUND);
    ck_assert_str_eq(seen.tasks[0].comm, "a name without ");
    image_put(image, task + TASK_PID, 0, 4);
    ck_assert_uint_eq(visit(false).n_broken, 1);
    image_put(image, task + TASK_PID, 1, 4);
    image_put(image, task + TASK_TGID, 5000000, 4);
    ck_assert_uint_eq(visit(false).n_broken, 1);
}

IMAGE_TEST(test_p12_namespaces_that_have_no_end) {
    static const uint32_t levels[] = {33, 0x80000000, UINT32_MAX};
    uint64_t task = image_process(image, 1, 0, "first"), pids = image_get(image, task + TASK_THREAD_PID);

    for (size_t i = 0; i < sizeof(levels) / sizeof(levels[0]); i++) {
        image_put(image, pids + PID_LEVEL, levels[i], 4);
        visit(false);
        ck_assert_uint_eq(seen.tasks[0].flags, VMIBUS_LINUX_TASK_NESTED_UNKNOWN);
        ck_assert_uint_eq(seen.tasks[0].n_nested, 0);
    }
    image_put(image, pids + PID_LEVEL, 32, 4);
    visit(false);
    ck_assert_uint_eq(seen.tasks[0].flags, 0);
    ck_assert_uint_eq(seen.tasks[0].n_nested, 32);
}

IMAGE_TEST(test_what_cannot_be_read_beside_is_said) {
    uint64_t task = image_process(image, 1, 0, "first");

    image_put(image, task + TASK_REAL_CRED, 4096, 8);
    image_put(image, image_get(image, task + TASK_MM) + MM_PGD, IMAGE_BASE + IMAGE_LEN, 8);
    image_put(image, task + TASK_THREAD_PID, 1, 8);
    image_put(image, task + TASK_REAL_PARENT, 3, 8);
    ck_assert_uint_eq(visit(false).flags, SOUND);
    ck_assert_uint_eq(seen.tasks[0].flags,
                      VMIBUS_LINUX_TASK_IDS_UNKNOWN | VMIBUS_LINUX_TASK_CR3_UNKNOWN | VMIBUS_LINUX_TASK_NESTED_UNKNOWN);
    ck_assert_uint_eq(seen.tasks[0].cr3, 0);
    image_put(image, task + TASK_FLAGS, 0x00200000, 4);
    visit(false);
    ck_assert_uint_eq(seen.tasks[0].flags & VMIBUS_LINUX_TASK_KERNEL, VMIBUS_LINUX_TASK_KERNEL);
    ck_assert_uint_eq(seen.tasks[0].mm, 0);
}

static uint64_t ring[3];
static uint64_t turned;

/* When the walk is at the second process, this one is taken out and led into a ring, in which all is linked as it should be. */
static void lead_astray(struct image *here, uint64_t gpa) {
    if (gpa != turned - IMAGE_BASE + TASK_TASKS || seen.n != 2)
        return;
    here->before_read = NULL;
    image_put(here, turned + TASK_TASKS, ring[0] + TASK_TASKS, 8);
    image_put(here, turned + TASK_TASKS + 8, UINT64_C(0xdead000000000122), 8);
}

IMAGE_TEST(test_p12_a_sound_ring_that_is_no_list_ends) {
    struct vmibus_linux_picture picture;

    image_process(image, 1, 0, "first");
    turned = image_process(image, 2, 1, "second");
    for (uint32_t i = 0; i < 3; i++)
        ring[i] = image_process(image, 10 + i, 1, "ring");
    for (uint32_t i = 0; i < 3; i++) {
        image_put(image, ring[i] + TASK_TASKS, ring[(i + 1) % 3] + TASK_TASKS, 8);
        image_put(image, ring[i] + TASK_TASKS + 8, ring[(i + 2) % 3] + TASK_TASKS, 8);
    }
    image_put(image, turned + TASK_TASKS, image->init_task + TASK_TASKS, 8);
    image->before_read = lead_astray;
    picture = visit(false);
    ck_assert_ptr_null(image->before_read);
    ck_assert_uint_gt(seen.n, 2);
    ck_assert_uint_lt(seen.n, 20);
    ck_assert_uint_eq(picture.flags, 0);
}

/* --- changes underfoot -------------------------------------------------------------------------------------------------- */

static uint64_t removed;
static bool is_removed;

/* As the kernel does it (list_del_rcu): what is taken out still points on. */
static void remove_entry(uint64_t task) {
    uint64_t node = task + TASK_TASKS, next = image_get(image, node), before = image_get(image, node + 8);

    image_put(image, before, next, 8);
    image_put(image, next + 8, before, 8);
    image_put(image, node + 8, UINT64_C(0xdead000000000122), 8);
}

static void remove_when_copied(struct image *here, uint64_t gpa) {
    if (!is_removed && gpa == removed - IMAGE_BASE + TASK_TASKS) {
        is_removed = true;
        here->before_read = NULL;
        remove_entry(removed);
    }
}

IMAGE_TEST(test_a_process_that_ends_meanwhile_ends_no_list) {
    struct vmibus_linux_picture picture;

    image_process(image, 1, 0, "first");
    removed = image_process(image, 2, 1, "second");
    image_process(image, 3, 1, "third");
    is_removed = false;
    image->before_read = remove_when_copied;
    picture = visit(false);
    ck_assert(is_removed);
    ck_assert_uint_eq(picture.flags, VMIBUS_LINUX_ENDED);
    ck_assert_uint_eq(seen.tasks[seen.n - 1].pid, 3);
    picture = visit(false);
    ck_assert_uint_eq(picture.flags, SOUND);
    ck_assert_uint_eq(seen.n, 2);
}

static void add_at_the_end(struct image *here, uint64_t gpa) {
    if (seen.n == 3 && gpa == here->init_task - IMAGE_BASE + TASK_TASKS) {
        here->before_read = NULL;
        image_process(here, 4, 1, "fourth");
    }
}

IMAGE_TEST(test_a_process_that_comes_meanwhile_is_noticed) {
    struct vmibus_linux_picture picture;

    for (uint32_t pid = 1; pid <= 3; pid++)
        image_process(image, pid, 0, "there");
    image->before_read = add_at_the_end;
    picture = visit(false);
    ck_assert_ptr_null(image->before_read);
    ck_assert_uint_eq(picture.flags, VMIBUS_LINUX_ENDED);
}

static atomic_bool stirring;

/* Takes processes out of the list and puts them in again, as fast as it can, and now and then tears a pointer. */
static void *stir(void *data) {
    const uint64_t *tasks = data;
    uint64_t head = image->init_task + TASK_TASKS;

    for (unsigned i = 0; atomic_load(&stirring); i++) {
        uint64_t task = tasks[i % 64];

        remove_entry(task);
        image_append(image, head, task + TASK_TASKS);
        image_put(image, task + TASK_SIGNAL, i % 16 ? image_get(image, task + TASK_SIGNAL) : task, 8);
    }
    return NULL;
}

static void visit_stirred(void) {
    struct vmibus_linux_picture picture;

    for (int i = 0; i < 200; i++) {
        seen.n = 0;
        ck_assert_int_eq(vmibus_linux_visit_tasks(&image->kernel, true, see, &seen, &picture), 0);
    }
}

IMAGE_TEST(test_p12_a_list_that_changes_all_the_time_ends) {
    uint64_t tasks[64];
    pthread_t thread;

#ifdef __SANITIZE_THREAD__
    test_skip("the race that is tested is no fault");
#endif
    for (uint32_t pid = 1; pid <= 64; pid++)
        tasks[pid - 1] = image_process(image, pid, 0, "stirred");
    atomic_store(&stirring, true);
    ck_assert_int_eq(pthread_create(&thread, NULL, stir, tasks), 0);
    visit_stirred();
    atomic_store(&stirring, false);
    pthread_join(thread, NULL);
}

/* --- a process's own memory --------------------------------------------------------------------------------------------- */

static struct vmibus_linux_task with_area(uint64_t arg_start, uint64_t arg_end, uint64_t env_end) {
    uint64_t mm = image_get(image, image_process(image, 1, 0, "first") + TASK_MM);
    struct vmibus_linux_task task;

    image_put(image, mm + MM_ARG_START, arg_start, 8);
    image_put(image, mm + MM_ARG_START + 8, arg_end, 8);
    image_put(image, mm + MM_ARG_START + 16, arg_end, 8);
    image_put(image, mm + MM_ARG_START + 24, env_end, 8);
    ck_assert_int_eq(vmibus_linux_find_task(&image->kernel, 1, &task), 0);
    return task;
}

static int read_arguments(const struct vmibus_linux_task *task, char *text, size_t size, size_t *len) {
    return vmibus_linux_read_arguments(&image->kernel, task, text, size, len);
}

IMAGE_TEST(test_arguments) {
    struct vmibus_linux_task task = with_area(IMAGE_USER, IMAGE_USER + 8, IMAGE_USER + 16);
    char *user = (char *)image->memory + image->user_gpa, text[64];
    size_t len;

    memcpy(user, "/a\0b\0cd\0X=1\0Y=2", 16);
    ck_assert_int_eq(read_arguments(&task, text, sizeof(text), &len), 0);
    ck_assert_uint_eq(len, 8);
    ck_assert_mem_eq(text, user, 8);
    ck_assert_int_eq(vmibus_linux_read_environment(&image->kernel, &task, text, sizeof(text), &len), 0);
    ck_assert_uint_eq(len, 8);
    ck_assert_mem_eq(text, user + 8, 8);
    ck_assert_int_eq(read_arguments(&task, text, 3, &len), 0);
    ck_assert_uint_eq(len, 3);
    /* One that has named itself anew. */
    memcpy(user, "a name that", 12);
    ck_assert_int_eq(read_arguments(&task, text, sizeof(text), &len), 0);
    ck_assert_str_eq(text, "a name that");
    ck_assert_uint_eq(len, 12);
}

IMAGE_TEST(test_p12_arguments_that_are_not_there) {
    static const uint64_t ends[] = {IMAGE_USER - 1, IMAGE_USER, 0};
    struct vmibus_linux_task task = with_area(IMAGE_USER + 4090, UINT64_MAX, UINT64_MAX);
    uint64_t mm = task.mm;
    char text[64];
    size_t len;

    memset(image->memory + image->user_gpa, 'x', 4096);
    ck_assert_int_eq(read_arguments(&task, text, sizeof(text), &len), VMIBUS_GUEST_NOT_PRESENT);
    ck_assert_uint_eq(len, 6);
    ck_assert_str_eq(vmibus_linux_why(&image->kernel), "the own memory of process 1 cannot be read");
    for (size_t i = 0; i < 3; i++) {
        image_put(image, mm + MM_ARG_START, IMAGE_USER, 8);
        image_put(image, mm + MM_ARG_START + 8, ends[i], 8);
        ck_assert_int_eq(read_arguments(&task, text, sizeof(text), &len), 0);
        ck_assert_uint_eq(len, 0);
    }
    image_put(image, task.task + TASK_PID, 99, 4);
    ck_assert_int_eq(read_arguments(&task, text, sizeof(text), &len), VMIBUS_GUEST_CHANGED);
    task.mm = task.cr3 = 0;
    ck_assert_int_eq(read_arguments(&task, text, sizeof(text), &len), VMIBUS_GUEST_NOT_FOUND);
}

/* The last reason is of the last call. */
IMAGE_TEST(test_why_the_members_of_a_process_cannot_be_read) {
    struct vmibus_linux_task task = with_area(IMAGE_USER, IMAGE_USER, IMAGE_USER);
    char text[VMIBUS_LINUX_PATH_SIZE];
    size_t len;

    image_put(image, task.task + TASK_FS, UINT64_C(0xffffc90000000000), 8);
    strcpy(image->kernel.why, "old");
    ck_assert_int_eq(vmibus_linux_read_directory(&image->kernel, &task, text), VMIBUS_GUEST_NOT_PRESENT);
    ck_assert_str_eq(image->kernel.why, "the fs_struct of process 1 cannot be read");
    task.mm = UINT64_C(0xffffc90000000000);
    strcpy(image->kernel.why, "old");
    ck_assert_int_eq(read_arguments(&task, text, sizeof(text), &len), VMIBUS_GUEST_NOT_PRESENT);
    ck_assert_str_eq(image->kernel.why, "the mm_struct of process 1 cannot be read");
}

/* --- files ---------------------------------------------------------------------------------------------------------------- */

struct files {
    struct vmibus_linux_file files[8];
    size_t n;
};

static bool see_file(void *context, const struct vmibus_linux_file *file) {
    struct files *files = context;

    if (files->n < 8)
        files->files[files->n] = *file;
    files->n++;
    return true;
}

static struct vmibus_linux_task first_task(void) {
    struct vmibus_linux_task task;

    ck_assert_int_eq(vmibus_linux_find_task(&image->kernel, 1, &task), 0);
    return task;
}

static struct vmibus_linux_picture visit_files(struct files *files) {
    struct vmibus_linux_task task = first_task();
    struct vmibus_linux_picture picture;
    int r;

    files->n = 0;
    image->reads = 0;
    r = vmibus_linux_visit_files(&image->kernel, &task, see_file, files, &picture);
    ck_assert_msg(r == 0, "%d: %s", r, vmibus_linux_why(&image->kernel));
    ck_assert_uint_lt(image->reads, READS_BOUND);
    return picture;
}

IMAGE_TEST(test_files_are_read) {
    static struct files files;
    uint64_t task = image_process(image, 1, 0, "first"), fds = image_table(image, task, 1024);
    uint64_t file = image_file(image, 77, 0140777, 0x534f434b), pipe = image_file(image, 78, 010600, 0x50495045);
    uint64_t table = image_get(image, image_get(image, task + TASK_FILES) + FILES_FDT);
    struct vmibus_linux_picture picture;

    image_put(image, file + FILE_FLAGS, 02000002, 4);
    image_put(image, file + FILE_PRIVATE, 12345, 8);
    image_put(image, pipe + FILE_POSITION, 99, 8);
    image_put(image, fds + 8 * 3, file, 8);
    image_put(image, fds + 8 * 1000, pipe, 8);
    image_put(image, fds + 8 * 1001, 1, 8);
    image_put(image, image_get(image, table + FDTABLE_CLOSE) + 1000 / 8, 1, 1);
    picture = visit_files(&files);
    ck_assert_uint_eq(picture.flags, SOUND);
    ck_assert_uint_eq(picture.n_seen, 2);
    ck_assert_uint_eq(picture.n_broken, 1);
    ck_assert_uint_eq(files.files[0].fd, 3);
    ck_assert_uint_eq(files.files[0].flags, 2);
    ck_assert_uint_eq(files.files[0].inode, 77);
    ck_assert_uint_eq(files.files[0].kind, VMIBUS_LINUX_FILE_SOCKET);
    ck_assert_uint_eq(files.files[0].socket, 12345);
    ck_assert_uint_eq(files.files[1].fd, 1000);
    ck_assert_uint_eq(files.files[1].flags, 02000000);
    ck_assert_uint_eq(files.files[1].kind, VMIBUS_LINUX_FILE_PIPE);
    ck_assert_uint_eq(files.files[1].socket, 0);
    ck_assert_uint_eq(files.files[1].position, 99);
}

IMAGE_TEST(test_p12_a_table_of_files_without_end) {
    static struct files files;
    uint64_t task = image_process(image, 1, 0, "first"), fds = image_table(image, task, 64);
    uint64_t table = image_get(image, image_get(image, task + TASK_FILES) + FILES_FDT);
    struct vmibus_linux_task found = first_task();
    struct vmibus_linux_picture picture;

    (void)fds;
    image_put(image, table + FDTABLE_MAX, UINT32_MAX, 4);
    ck_assert_int_eq(vmibus_linux_visit_files(&image->kernel, &found, see_file, &files, &picture), 0);
    ck_assert_uint_eq(picture.flags, VMIBUS_LINUX_BOUNDED | VMIBUS_LINUX_STEADY);
    image_put(image, table + FDTABLE_FD, IMAGE_BASE + IMAGE_LEN - 1024, 8);
    ck_assert_int_eq(vmibus_linux_visit_files(&image->kernel, &found, see_file, &files, &picture), VMIBUS_GUEST_NOT_PRESENT);
    ck_assert_uint_eq(picture.flags, 0);
    image_put(image, task + TASK_FILES, 0, 8);
    ck_assert_int_eq(vmibus_linux_visit_files(&image->kernel, &found, see_file, &files, &picture), VMIBUS_GUEST_NOT_FOUND);
}

/* --- sockets -------------------------------------------------------------------------------------------------------------- */

struct sockets {
    struct vmibus_linux_socket sockets[16];
    size_t n;
};

static bool see_socket(void *context, const struct vmibus_linux_socket *socket) {
    struct sockets *sockets = context;

    if (sockets->n < 16)
        sockets->sockets[sockets->n] = *socket;
    sockets->n++;
    return true;
}

static struct vmibus_linux_picture visit_sockets(struct sockets *sockets) {
    struct vmibus_linux_picture picture;
    int r;

    sockets->n = 0;
    image->reads = 0;
    r = vmibus_linux_visit_sockets(&image->kernel, see_socket, sockets, &picture);
    ck_assert_msg(r == 0, "%d: %s", r, vmibus_linux_why(&image->kernel));
    ck_assert_uint_lt(image->reads, READS_BOUND);
    return picture;
}

IMAGE_TEST(test_sockets_and_their_owners) {
    static struct sockets sockets;
    uint64_t first = image_process(image, 1, 0, "first"), second = image_process(image, 2, 0, "second");
    uint64_t sock = image_sock(image, image->listening, 3, 16, 500), file = image_file(image, 500, 0140777, 0x534f434b);
    struct vmibus_linux_picture picture;

    image_put(image, sock + SOCK_STATE, 10, 1);
    image_put(image, sock + SOCK_NUM, 22, 2);
    image_put(image, sock + SOCK_UID, 33, 4);
    image_put(image, sock + SOCK_SADDR, 0x0100007f, 4);
    image_put(image, file + FILE_PRIVATE, image_get(image, sock + SOCK_SOCKET), 8);
    image_put(image, image_table(image, first, 64) + 8 * 5, file, 8);
    image_put(image, image_table(image, second, 64) + 8 * 6, file, 8);
    image_sock(image, image->connected, 511, 8, 501);
    image_sock(image, image->connected, 511, 8, 502);
    image_sock(image, image->datagrams, 0, 16, 503);
    image_sock(image, image->locals, 7, 8, 504);
    picture = visit_sockets(&sockets);
    ck_assert_uint_eq(picture.flags, SOUND);
    ck_assert_uint_eq(picture.n_broken, 0);
    ck_assert_uint_eq(sockets.n, 5);
    ck_assert_uint_eq(sockets.sockets[0].state, VMIBUS_LINUX_SOCKET_LISTEN);
    ck_assert_uint_eq(sockets.sockets[0].local_port, 22);
    ck_assert_uint_eq(sockets.sockets[0].local[0], 127);
    ck_assert_uint_eq(sockets.sockets[0].inode, 500);
    ck_assert_uint_eq(sockets.sockets[0].uid, 33);
    ck_assert_uint_eq(sockets.sockets[0].pid, 1);
    ck_assert_uint_eq(sockets.sockets[0].fd, 5);
    ck_assert_uint_eq(sockets.sockets[0].n_owners, 2);
    ck_assert_uint_eq(sockets.sockets[1].inode, 502);
    ck_assert_uint_eq(sockets.sockets[1].pid, 0);
    ck_assert_uint_eq(sockets.sockets[3].kind, VMIBUS_LINUX_SOCKET_UDP);
    ck_assert_uint_eq(sockets.sockets[4].kind, VMIBUS_LINUX_SOCKET_UNIX);
}

IMAGE_TEST(test_p12_huge_tables_of_all_processes_end) {
    static struct sockets sockets;
    uint64_t files = 0, table;
    struct vmibus_linux_picture picture;

    for (uint32_t pid = 1; pid <= 40; pid++) {
        uint64_t task = image_process(image, pid, 0, "greedy");

        if (pid == 1) {
            image_table(image, task, 64);
            files = image_get(image, task + TASK_FILES);
        }
        image_put(image, task + TASK_FILES, files, 8);
    }
    table = image_get(image, files + FILES_FDT);
    image_put(image, table + FDTABLE_MAX, UINT32_MAX, 4);
    sockets.n = image->reads = 0;
    ck_assert_int_eq(vmibus_linux_visit_sockets(&image->kernel, see_socket, &sockets, &picture), 0);
    ck_assert_uint_eq(picture.flags & (VMIBUS_LINUX_BOUNDED | VMIBUS_LINUX_ENDED), VMIBUS_LINUX_BOUNDED);
    ck_assert_uint_lt(image->reads, 1000000);
}

IMAGE_TEST(test_p12_chains_in_a_circle_end) {
    static struct sockets sockets;
    uint64_t first = image_sock(image, image->connected, 4, 8, 1), second = image_sock(image, image->connected, 4, 8, 2);
    struct vmibus_linux_picture picture;

    image_sock(image, image->datagrams, 4, 16, 3);
    image_put(image, first + SOCK_NODE, second + SOCK_NODE, 8);
    picture = visit_sockets(&sockets);
    ck_assert_uint_eq(sockets.n, 3);
    ck_assert_uint_eq(picture.flags & SOUND, 0);
    ck_assert_uint_eq(picture.n_broken, 1);
    image_put(image, first + SOCK_NODE, first + SOCK_NODE, 8);
    picture = visit_sockets(&sockets);
    ck_assert_uint_eq(sockets.n, 3);
    image_put(image, image->connected + 8 * 4, IMAGE_BASE + IMAGE_LEN, 8);
    picture = visit_sockets(&sockets);
    ck_assert_uint_eq(sockets.n, 1);
    ck_assert_uint_eq(picture.flags & SOUND, 0);
}

IMAGE_TEST(test_p12_tables_of_sockets_that_are_too_large) {
    static struct sockets sockets;
    uint64_t tcp;
    struct vmibus_linux_picture picture;

    ck_assert_int_eq(linux_symbol(&image->kernel, "tcp_hashinfo", &tcp), 0);
    image_sock(image, image->datagrams, 4, 16, 3);
    image_put(image, tcp + 16, UINT32_MAX, 4);
    image_put(image, tcp + 60, UINT32_MAX, 4);
    picture = visit_sockets(&sockets);
    ck_assert_uint_eq(sockets.n, 1);
    ck_assert_uint_eq(picture.n_broken, 2);
    ck_assert_uint_eq(picture.flags & SOUND, 0);
}

/* A million descriptors of one socket, which is shown a million times: else this never ends. */
TEST(test_p09_a_socket_that_everybody_has_open_costs_little, .timeout = 60) {
    enum { N = 1 << 20 };
    struct socket_owners owners = {.owners = calloc(N, sizeof(*owners.owners)), .n = N, .room = N};
    uint32_t n;

    ck_assert_ptr_nonnull(owners.owners);
    for (size_t i = 0; i < N; i++)
        owners.owners[i] = (struct socket_owner){.socket = 7, .pid = 1, .fd = (uint32_t)i};
    for (size_t i = 0; i < N; i++) {
        ck_assert_ptr_eq(socket_owners_find(&owners, 7, &n), owners.owners);
        ck_assert_uint_eq(n, N);
    }
    ck_assert_ptr_null(socket_owners_find(&owners, 6, &n));
    ck_assert_ptr_null(socket_owners_find(&owners, UINT64_MAX, &n));
    ck_assert_ptr_null(socket_owners_find(&owners, 0, &n));
    ck_assert_uint_eq(n, 0);
    socket_owners_deinit(&owners);
}

HARNESS_SUITE("linux tasks of a kernel that may lie", HARNESS_QUICK)
