/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Visiting tasks: the list of processes from init_task on, and in each process the list of its threads.
 *
 * A list is believed as long as each entry points back to the one before it: then no entry comes twice, since it would have two
 * before it.  Where one does not, the list has changed, or lies; the step is tried again.  If the entry that was gone from has
 * been taken out of the list, the next one is good whose own neighbour before it points to it.  There are few such surprises to
 * a visit, and a ring that one of them leads into is noticed, so that a list that changes for ever, or was made to mislead,
 * ends the visit.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "task.h"

/** Most tasks that one visit sees: a guest cannot make it last for ever. */
#define TASKS_MAX (1u << 18)

/** Entries of a visit that do not point back to the one before them. */
#define SURPRISES_MAX 256

/** How often a step is tried. */
#define TRIES_MAX 8

/* A pointer that held the list together, and what it was. */
struct link {
    uint64_t gva;
    uint64_t value;
};

struct visit {
    struct vmibus_linux *kernel;
    const struct task_layout *layout;
    struct vmibus_linux_picture *picture;
    vmibus_linux_task_fn known; /* NULL: none is */
    vmibus_linux_task_fn visit;
    void *context;
    uint32_t wanted;        /* only a task of this pid is shown; 0: all */
    bool ended_by_caller;
    unsigned surprises;
    struct task_cache cache;
    struct link *links;
    size_t n_links, room;
    uint8_t leader[TASK_COPY_MAX], thread[TASK_COPY_MAX];
};

/* What comes of a step. */
enum step {
    STEP_ENTRY = 0,
    STEP_END = 1,   /* of the list, as it should be */
    STEP_STOP = 2,  /* the visit ends before the list does */
};

static int remember(struct visit *visit, uint64_t gva, uint64_t value) {
    if (visit->n_links == visit->room) {
        size_t room = visit->room ? 2 * visit->room : 256;
        struct link *links = realloc(visit->links, room * sizeof(*links));

        if (!links)
            return -ENOMEM;
        visit->links = links;
        visit->room = room;
    }
    visit->links[visit->n_links++] = (struct link){.gva = gva, .value = value};
    return 0;
}

/* A walk along a list. */
struct walk {
    const struct linux_field *list; /* where an entry has its pointers */
    uint64_t head;
    uint64_t node;          /* where it is */
    uint64_t mark;          /* where it was some steps ago: comes again in a ring (R. P. Brent's method) */
    size_t steps, far;      /* since the mark was set, and when it is set anew */
};

static struct walk begin_walk(const struct linux_field *list, uint64_t head) {
    return (struct walk){.list = list, .head = head, .node = head, .far = 1};
}

/* Whether it goes in a ring. */
static bool comes_again(struct walk *walk) {
    if (walk->node == walk->mark)
        return true;
    if (++walk->steps == walk->far) {
        walk->mark = walk->node;
        walk->steps = 0;
        walk->far *= 2;
    }
    return false;
}

/* Whether the entry before a node, by what the node says, points to it. 1 or 0, or a negative errno. */
static int is_linked(const struct visit *visit, uint64_t node) {
    uint64_t before, forward;
    int r = linux_read_u64(visit->kernel, node + 8, &before);

    if (r == 0)
        r = linux_read_u64(visit->kernel, before, &forward);
    if (r < 0)
        return r;
    return r == 0 && forward == node;
}

/* Copies the entry at a node; where it does not point back to where the walk is, looks whether it is good all the same. */
static int take_entry(struct visit *visit, const struct walk *walk, uint64_t node, uint8_t *copy) {
    uint64_t before;
    int r = task_copy(visit->kernel, visit->layout, node - walk->list->offset, copy);

    if (r)
        return r;
    memcpy(&before, copy + walk->list->offset + 8, sizeof(before));
    if (before == walk->node)
        return 0;
    if (++visit->surprises > SURPRISES_MAX)
        return VMIBUS_GUEST_CHANGED;
    visit->picture->flags &= ~(uint32_t)VMIBUS_LINUX_STEADY;
    /* The head is never taken out. */
    r = walk->node == walk->head ? 1 : is_linked(visit, walk->node);
    if (r == 0) {
        r = is_linked(visit, node);
        return r == 1 ? 0 : r < 0 ? r : VMIBUS_GUEST_CHANGED;
    }
    return r < 0 ? r : VMIBUS_GUEST_CHANGED;
}

/* One step along a list. */
static int step(struct visit *visit, struct walk *walk, uint8_t *copy) {
    for (unsigned tries = 0; tries < TRIES_MAX; tries++) {
        uint64_t next;
        int r = linux_read_u64(visit->kernel, walk->node, &next);

        if (r < 0)
            return r;
        if (r || !linux_is_kernel_address(visit->kernel, next))
            break;
        if (next == walk->head) {
            r = remember(visit, walk->node, next);
            return r ? r : STEP_END;
        }
        r = take_entry(visit, walk, next, copy);
        if (r < 0)
            return r;
        if (r == 0) {
            r = remember(visit, walk->node, next);
            walk->node = next;
            if (r == 0 && comes_again(walk))
                break;
            return r ? r : STEP_ENTRY;
        }
        if (r != VMIBUS_GUEST_CHANGED || visit->surprises > SURPRISES_MAX)
            break;
    }
    visit->picture->n_broken++;
    return STEP_STOP;
}

/* Shows the task that was copied. */
static int show(struct visit *visit, uint64_t gva, const uint8_t *copy) {
    struct vmibus_linux_task task;
    int r;

    if (visit->wanted && task_copy_pid(visit->layout, copy) != visit->wanted)
        return STEP_ENTRY;
    if (task_decode(visit->layout, gva, copy, &task)) {
        visit->picture->n_broken++;
        return STEP_ENTRY;
    }
    visit->picture->n_seen++;
    if (visit->known && visit->known(visit->context, &task))
        return STEP_ENTRY;
    r = task_follow(visit->kernel, visit->layout, copy, &visit->cache, &task);
    if (r < 0)
        return r;
    if (visit->visit(visit->context, &task))
        return STEP_ENTRY;
    visit->ended_by_caller = true;
    return STEP_STOP;
}

static bool is_full(struct visit *visit) {
    if (visit->n_links < TASKS_MAX)
        return false;
    visit->picture->flags |= VMIBUS_LINUX_BOUNDED;
    return true;
}

/* The list of a process's threads begins in its signal_struct (Linux include/linux/sched/signal.h, for_each_thread). */
static int visit_threads(struct visit *visit, uint64_t leader) {
    const struct linux_field *list = &visit->layout->task.thread_node;
    struct walk walk;
    uint64_t signal;
    int r;

    if (!linux_get_field(visit->leader, visit->layout->copy_size, &visit->layout->task.signal, &signal))
        return STEP_STOP;
    /* One that is just ending has none left. */
    if (signal == 0)
        return STEP_END;
    walk = begin_walk(list, signal + visit->layout->signal_thread_head.offset);
    while (!is_full(visit)) {
        r = step(visit, &walk, visit->thread);
        if (r == STEP_ENTRY && walk.node - list->offset != leader)
            r = show(visit, walk.node - list->offset, visit->thread);
        if (r)
            return r;
    }
    return STEP_STOP;
}

/* The threads of one process that do not end as they should do not keep the others from being seen. */
static int visit_process(struct visit *visit, uint64_t leader, bool threads) {
    int r = show(visit, leader, visit->leader);

    if (r || !threads)
        return r;
    r = visit_threads(visit, leader);
    if (r == STEP_STOP && !visit->ended_by_caller && visit->surprises <= SURPRISES_MAX) {
        visit->picture->flags &= ~(uint32_t)VMIBUS_LINUX_ENDED;
        return STEP_ENTRY;
    }
    return r == STEP_END ? STEP_ENTRY : r;
}

static int visit_all(struct visit *visit, bool threads) {
    const struct linux_field *list = &visit->layout->task.tasks;
    struct walk walk = begin_walk(list, visit->layout->init_task + list->offset);
    int r;

    while (!is_full(visit)) {
        r = step(visit, &walk, visit->leader);
        if (r == STEP_ENTRY)
            r = visit_process(visit, walk.node - list->offset, threads);
        if (r)
            return r;
    }
    return STEP_STOP;
}

/* Reads again what the lists were held together by. */
static int check_links(struct visit *visit) {
    for (size_t i = 0; i < visit->n_links; i++) {
        uint64_t value;
        int r = linux_read_u64(visit->kernel, visit->links[i].gva, &value);

        if (r < 0)
            return r;
        if (r || value != visit->links[i].value) {
            visit->picture->flags &= ~(uint32_t)VMIBUS_LINUX_STEADY;
            return 0;
        }
    }
    return 0;
}

/* What a visit is for. */
struct purpose {
    bool threads;
    uint32_t wanted;
    vmibus_linux_task_fn known, visit;
    void *context;
};

static int run(struct vmibus_linux *kernel, const struct purpose *purpose, struct vmibus_linux_picture *picture) {
    struct visit *visit;
    int r;

    *picture = (struct vmibus_linux_picture){.flags = VMIBUS_LINUX_ENDED | VMIBUS_LINUX_STEADY};
    visit = malloc(sizeof(*visit));
    if (!visit)
        return -ENOMEM;
    memset(visit, 0, offsetof(struct visit, leader));
    visit->kernel = kernel;
    visit->picture = picture;
    visit->wanted = purpose->wanted;
    visit->known = purpose->known;
    visit->visit = purpose->visit;
    visit->context = purpose->context;
    r = task_layout_get(kernel, &visit->layout);
    if (r == 0) {
        r = visit_all(visit, purpose->threads);
        if (r >= 0 && r != STEP_END)
            picture->flags &= ~(uint32_t)VMIBUS_LINUX_ENDED;
        r = r < 0 ? r : check_links(visit);
    }
    if (r)
        picture->flags = 0;
    free(visit->links);
    free(visit);
    return r;
}

int vmibus_linux_visit_tasks(struct vmibus_linux *kernel, bool threads, vmibus_linux_task_fn visit, void *context,
                             struct vmibus_linux_picture *picture) {
    const struct purpose purpose = {.threads = threads, .visit = visit, .context = context};

    return run(kernel, &purpose, picture);
}

int vmibus_linux_visit_unknown_tasks(struct vmibus_linux *kernel, vmibus_linux_task_fn known, vmibus_linux_task_fn visit,
                                     void *context, struct vmibus_linux_picture *picture) {
    const struct purpose purpose = {.known = known, .visit = visit, .context = context};

    return run(kernel, &purpose, picture);
}

static bool keep(void *context, const struct vmibus_linux_task *task) {
    struct vmibus_linux_task *kept = context;

    *kept = *task;
    return false;
}

/* Processes first: threads cost a look into each. */
int vmibus_linux_find_task(struct vmibus_linux *kernel, uint32_t pid, struct vmibus_linux_task *task) {
    struct purpose purpose = {.wanted = pid, .visit = keep, .context = task};
    struct vmibus_linux_picture picture = {};
    int r = 0;

    memset(task, 0, sizeof(*task));
    for (int threads = 0; r == 0 && pid && task->pid == 0 && threads < 2; threads++) {
        purpose.threads = threads;
        r = run(kernel, &purpose, &picture);
    }
    if (r || task->pid)
        return r;
    if (picture.flags & VMIBUS_LINUX_ENDED && picture.flags & VMIBUS_LINUX_STEADY)
        return linux_because(kernel, VMIBUS_GUEST_NOT_FOUND, "there is no process %u", pid);
    if (pid == 0)
        return linux_because(kernel, VMIBUS_GUEST_NOT_FOUND, "there is no process 0");
    return linux_because(kernel, VMIBUS_GUEST_CHANGED, "process %u was not found, but the list of processes changed meanwhile",
                         pid);
}
