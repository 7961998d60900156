/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmibusctl ps: the processes of a Linux guest, or all that is known of one of them. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frame_json.h"
#include "report.h"
#include "table.h"
#include "tasks.h"

/* Octets of a command line or an environment that are shown. */
#define TEXT_MAX (128u * 1024)

/* Octets of the command lines of all processes: a guest may say that all have the same long one. */
#define ALL_TEXT_MAX (8u * 1024 * 1024)

/* Levels of a tree that are indented: a guest may say that processes are each other's parents. */
#define DEPTH_MAX 64u

#define NANOSECONDS UINT64_C(1000000000)

/* What a process has in its own memory. */
struct text {
    char *octets;
    size_t len;
    bool known;
};

/* A process and what was read beside. */
struct details {
    struct text arguments, environment;
    char program[VMIBUS_LINUX_PATH_SIZE], directory[VMIBUS_LINUX_PATH_SIZE];
    bool has_program, has_directory;
};

typedef int (*read_fn)(struct vmibus_linux *kernel, const struct vmibus_linux_task *task, char *text, size_t size, size_t *len);

/* What cannot be read, because a page is not in memory or the process has ended, is not known. */
static int read_text(const struct linux_guest *guest, const struct vmibus_linux_task *task, read_fn read, char *room,
                     struct text *text) {
    int r = read(guest->kernel, task, room, TEXT_MAX, &text->len);

    if (r < 0)
        return linux_guest_report(guest, r, "the memory of a process cannot be read");
    text->known = r == 0;
    text->octets = text->len ? malloc(text->len) : NULL;
    if (text->len && !text->octets)
        return report_failure("out of memory");
    if (text->len)
        memcpy(text->octets, room, text->len);
    return STATUS_OK;
}

static int read_with_room(const struct linux_guest *guest, const struct vmibus_linux_task *task, read_fn read, struct text *text) {
    char *room = malloc(TEXT_MAX);
    int r;

    if (!room)
        return report_failure("out of memory");
    r = read_text(guest, task, read, room, text);
    free(room);
    return r;
}

/* Arguments for people: one line, blanks between. From malloc(); NULL where there is no memory. */
static char *join(const struct text *text) {
    char *line = malloc(text->len + 1);
    size_t n = text->len;

    if (!line)
        return NULL;
    for (size_t i = 0; i < n; i++)
        line[i] = text->octets[i] ? text->octets[i] : ' ';
    while (n && line[n - 1] == ' ')
        n--;
    line[n] = '\0';
    return line;
}

static struct json_object *text_json(const struct text *text) {
    struct json_object *array;

    if (!text->known)
        return NULL;
    array = json_object_new_array();
    for (size_t at = 0; at < text->len;) {
        size_t len = strnlen(text->octets + at, text->len - at);

        json_object_array_add(array, frame_json_text(text->octets + at, len));
        at += len + 1;
    }
    return array;
}

static struct json_object *task_json(const struct vmibus_linux_task *task) {
    struct json_object *object = json_object_new_object(), *nested = json_object_new_array();
    const char state[] = {task->state, '\0'};
    bool ids = !(task->flags & VMIBUS_LINUX_TASK_IDS_UNKNOWN);

    json_object_object_add(object, "pid", json_object_new_uint64(task->pid));
    json_object_object_add(object, "tgid", json_object_new_uint64(task->tgid));
    json_object_object_add(object, "ppid", json_object_new_uint64(task->ppid));
    json_object_object_add(object, "uid", ids ? json_object_new_uint64(task->uid) : NULL);
    json_object_object_add(object, "euid", ids ? json_object_new_uint64(task->euid) : NULL);
    json_object_object_add(object, "gid", ids ? json_object_new_uint64(task->gid) : NULL);
    json_object_object_add(object, "state", json_object_new_string(state));
    json_object_object_add(object, "start_time", json_object_new_uint64(task->start_time));
    json_object_object_add(object, "comm", frame_json_text(task->comm, strlen(task->comm)));
    json_object_object_add(object, "kernel", json_object_new_boolean(task->flags & VMIBUS_LINUX_TASK_KERNEL));
    json_object_object_add(object, "cr3", task->cr3 ? json_object_new_uint64(task->cr3) : NULL);
    json_object_object_add(object, "task", json_object_new_uint64(task->task));
    for (unsigned i = 0; i < task->n_nested; i++)
        json_object_array_add(nested, json_object_new_uint64(task->nested[i]));
    json_object_object_add(object, "nested", nested);
    return object;
}

/* --- all processes ------------------------------------------------------------------------------------------------ */

/* What is shown: the tasks in their order, how deep each is in a tree, and their command lines if wanted. */
struct listing {
    struct tasks tasks;
    struct text *arguments;     /* as tasks.tasks; NULL: not wanted */
    size_t *order;
    unsigned *depths;
    size_t n_ordered;
    bool threads;
};

static int read_arguments(const struct linux_guest *guest, struct listing *listing) {
    char *room = malloc(TEXT_MAX);
    int r = STATUS_OK;

    listing->arguments = calloc(listing->tasks.n + 1, sizeof(*listing->arguments));
    if (!room || !listing->arguments)
        r = report_failure("out of memory");
    for (size_t i = 0, n = 0; r == STATUS_OK && n < ALL_TEXT_MAX && i < listing->tasks.n; i++)
        if (listing->tasks.tasks[i].cr3) {
            r = read_text(guest, &listing->tasks.tasks[i], vmibus_linux_read_arguments, room, &listing->arguments[i]);
            n += listing->arguments[i].len;
        }
    free(room);
    return r;
}

static void place(struct listing *listing, size_t i, unsigned depth) {
    listing->order[listing->n_ordered] = i;
    listing->depths[listing->n_ordered++] = depth;
}

static uint32_t parent_of(const struct vmibus_linux_task *task) {
    return task->flags & VMIBUS_LINUX_TASK_THREAD ? task->tgid : task->ppid;
}

/* A task, by its parent. */
struct child {
    uint32_t parent;
    bool placed;
    size_t i;       /* in listing.tasks, which are by rising pid */
};

struct family {
    struct child *children; /* by parents, then pids */
    size_t n;
};

static int by_parent(const void *a, const void *b) {
    const struct child *one = a, *other = b;

    if (one->parent != other->parent)
        return one->parent < other->parent ? -1 : 1;
    return one->i < other->i ? -1 : one->i > other->i;
}

static size_t first_child(const struct family *family, uint32_t parent) {
    size_t low = 0, high = family->n;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (family->children[middle].parent < parent)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/*
 * Children of a process by rising pid, each followed by its own. Where one is placed already, all its siblings are, or are about to
 * be: the guest says that a process descends from itself, or that two have one pid.
 */
static void place_children(struct listing *listing, struct family *family, uint32_t parent, unsigned depth) {
    for (size_t at = first_child(family, parent); at < family->n && family->children[at].parent == parent; at++) {
        struct child *child = &family->children[at];

        if (child->placed)
            return;
        child->placed = true;
        place(listing, child->i, depth);
        if (depth < DEPTH_MAX)
            place_children(listing, family, listing->tasks.tasks[child->i].pid, depth + 1);
    }
}

/* Whoever has no parent that is known begins a tree. */
static int order_as_tree(struct listing *listing) {
    struct family family = {.children = calloc(listing->tasks.n + 1, sizeof(*family.children)), .n = listing->tasks.n};

    if (!family.children)
        return report_failure("out of memory");
    for (size_t i = 0; i < family.n; i++)
        family.children[i] = (struct child){.parent = parent_of(&listing->tasks.tasks[i]), .i = i};
    qsort(family.children, family.n, sizeof(*family.children), by_parent);
    place_children(listing, &family, 0, 0);
    for (size_t at = 0; at < family.n; at++) {
        if (family.children[at].placed || tasks_find(&listing->tasks, family.children[at].parent))
            continue;
        family.children[at].placed = true;
        place(listing, family.children[at].i, 0);
        place_children(listing, &family, listing->tasks.tasks[family.children[at].i].pid, 1);
    }
    /* What is left says of itself that it descends from itself, or lies deeper than is shown. */
    for (size_t at = 0; at < family.n; at++)
        if (!family.children[at].placed)
            place(listing, family.children[at].i, 0);
    free(family.children);
    return STATUS_OK;
}

static int order(struct listing *listing, bool tree) {
    size_t n = listing->tasks.n + 1;

    listing->order = calloc(n, sizeof(*listing->order));
    listing->depths = calloc(n, sizeof(*listing->depths));
    if (!listing->order || !listing->depths)
        return report_failure("out of memory");
    if (tree)
        return order_as_tree(listing);
    for (size_t i = 0; i < listing->tasks.n; i++)
        place(listing, i, 0);
    return STATUS_OK;
}

static void print_command(struct table *table, const struct listing *listing, size_t i, unsigned depth) {
    const struct vmibus_linux_task *task = &listing->tasks.tasks[i];
    char name[VMIBUS_LINUX_COMM_SIZE + 2];
    char *line = listing->arguments && listing->arguments[i].len ? join(&listing->arguments[i]) : NULL;

    snprintf(name, sizeof(name), task->flags & VMIBUS_LINUX_TASK_KERNEL ? "[%s]" : "%s", task->comm);
    table_cell(table, "%*s%s%s", (int)(depth > 1 ? 3 * (depth - 1) : 0), "", depth ? "\\_ " : "", line ? line : name);
    free(line);
}

static void print_row(struct table *table, const struct listing *listing, size_t i, unsigned depth) {
    const struct vmibus_linux_task *task = &listing->tasks.tasks[i];

    if (listing->threads) {
        table_cell(table, "%" PRIu32, task->tgid);
        table_cell(table, "%" PRIu32, task->pid);
    } else {
        table_cell(table, "%" PRIu32, task->pid);
    }
    table_cell(table, "%" PRIu32, task->ppid);
    if (task->flags & VMIBUS_LINUX_TASK_IDS_UNKNOWN)
        table_cell(table, "?");
    else
        table_cell(table, "%" PRIu32, task->uid);
    table_cell(table, "%c", task->state);
    table_cell(table, "%" PRIu64 ".%02" PRIu64, task->start_time / NANOSECONDS, task->start_time % NANOSECONDS / 10000000);
    if (task->cr3)
        table_cell(table, "0x%" PRIx64, task->cr3);
    else
        table_cell(table, "-");
    print_command(table, listing, i, depth);
}

static void print_table(const struct listing *listing) {
    static const char *const headings[] = {"PID", "TID", "PPID", "UID", "S", "START", "CR3", "COMMAND"};
    struct table *table = table_new(listing->threads ? 8 : 7);

    for (size_t i = 0; i < 8; i++)
        if (i != 1 || listing->threads)
            table_cell(table, "%s", headings[i]);
    for (size_t i = 0; i < listing->n_ordered; i++)
        print_row(table, listing, listing->order[i], listing->depths[i]);
    table_print(table);
}

static struct json_list *listing_json(const struct listing *listing) {
    struct json_list *list = json_list_new();

    for (size_t i = 0; i < listing->n_ordered; i++) {
        struct json_object *object = task_json(&listing->tasks.tasks[listing->order[i]]);

        if (listing->arguments)
            json_object_object_add(object, "arguments", text_json(&listing->arguments[listing->order[i]]));
        json_list_add(list, object);
    }
    return list;
}

static void listing_deinit(struct listing *listing) {
    for (size_t i = 0; listing->arguments && i < listing->tasks.n; i++)
        free(listing->arguments[i].octets);
    free(listing->arguments);
    free(listing->order);
    free(listing->depths);
    tasks_deinit(&listing->tasks);
}

static int list(struct linux_guest *guest, const struct arguments *arguments) {
    struct listing listing = {.threads = arguments_get(arguments, "threads")};
    int r = tasks_collect(guest, listing.threads, &listing.tasks);

    if (r == STATUS_OK && arguments_get(arguments, "arguments"))
        r = read_arguments(guest, &listing);
    if (r == STATUS_OK)
        r = order(&listing, arguments_get(arguments, "tree"));
    if (r == STATUS_OK)
        r = linux_guest_let_go(guest);
    if (r == STATUS_OK && guest->ctl->json) {
        linux_guest_print_json(guest, listing_json(&listing), &listing.tasks.picture);
    } else if (r == STATUS_OK) {
        print_table(&listing);
        linux_guest_say_picture(guest, &listing.tasks.picture);
    }
    listing_deinit(&listing);
    return r;
}

/* --- one process -------------------------------------------------------------------------------------------------- */

/* A path that cannot be read is not known; what is wrong with all of it is said. */
static int read_details(const struct linux_guest *guest, const struct vmibus_linux_task *task, struct details *details) {
    int r = STATUS_OK, read;

    read = vmibus_linux_read_directory(guest->kernel, task, details->directory);
    details->has_directory = read == 0;
    if (read >= 0 && task->cr3) {
        read = vmibus_linux_read_program(guest->kernel, task, details->program);
        details->has_program = read == 0;
        r = read_with_room(guest, task, vmibus_linux_read_arguments, &details->arguments);
        if (r == STATUS_OK)
            r = read_with_room(guest, task, vmibus_linux_read_environment, &details->environment);
    }
    return read < 0 ? linux_guest_report(guest, read, "the process cannot be read") : r;
}

static void print_long(const char *what, const char *text, size_t len) {
    printf("%-14s", what);
    print_printable(stdout, text, len);
    putchar('\n');
}

static void print_texts(const char *what, const struct text *text) {
    for (size_t at = 0; at < text->len;) {
        size_t len = strnlen(text->octets + at, text->len - at);

        print_long(what, text->octets + at, len);
        at += len + 1;
    }
    if (!text->known)
        printf("%-14s(the rest is not in memory)\n", what);
}

static void print_details(const struct vmibus_linux_task *task, const struct details *details) {
    printf("%-14s%" PRIu32 "\n%-14s%s\n", "pid", task->pid, "name", printable(task->comm));
    printf("%-14s%" PRIu32 "\n%-14s%" PRIu32 "\n", "process", task->tgid, "parent", task->ppid);
    for (unsigned i = 0; i < task->n_nested; i++)
        printf("%-14s%" PRIu32 "\n", "nested pid", task->nested[i]);
    if (!(task->flags & VMIBUS_LINUX_TASK_IDS_UNKNOWN))
        printf("%-14s%" PRIu32 "\n%-14s%" PRIu32 "\n%-14s%" PRIu32 "\n", "uid", task->uid, "effective uid", task->euid, "gid",
               task->gid);
    printf("%-14s%c\n%-14s%" PRIu64 ".%09" PRIu64 " s after boot\n", "state", task->state, "started",
           task->start_time / NANOSECONDS, task->start_time % NANOSECONDS);
    printf("%-14s0x%" PRIx64 "\n", "task", task->task);
    if (task->cr3)
        printf("%-14s0x%" PRIx64 "\n", "cr3", task->cr3);
    if (details->has_program)
        print_long("program", details->program, strlen(details->program));
    if (details->has_directory)
        print_long("directory", details->directory, strlen(details->directory));
    if (task->cr3) {
        print_texts("argument", &details->arguments);
        print_texts("environment", &details->environment);
    }
}

static struct json_object *details_json(const struct vmibus_linux_task *task, const struct details *details) {
    struct json_object *object = task_json(task);

    json_object_object_add(object, "program",
                           details->has_program ? frame_json_text(details->program, strlen(details->program)) : NULL);
    json_object_object_add(object, "directory",
                           details->has_directory ? frame_json_text(details->directory, strlen(details->directory)) : NULL);
    json_object_object_add(object, "arguments", text_json(&details->arguments));
    json_object_object_add(object, "environment", text_json(&details->environment));
    return object;
}

static int show(struct linux_guest *guest, const char *word) {
    struct vmibus_linux_task task;
    struct details *details = calloc(1, sizeof(*details));
    int r;

    if (!details)
        return report_failure("out of memory");
    r = tasks_lookup(guest, word, &task);
    if (r == STATUS_OK)
        r = read_details(guest, &task, details);
    if (r == STATUS_OK)
        r = linux_guest_let_go(guest);
    if (r == STATUS_OK && guest->ctl->json)
        frame_json_print(details_json(&task, details));
    else if (r == STATUS_OK)
        print_details(&task, details);
    free(details->arguments.octets);
    free(details->environment.octets);
    free(details);
    return r;
}

static int run(struct vmibusctl *ctl, const struct arguments *arguments) {
    struct linux_guest guest;
    int r;

    if (arguments->n_words > 1 && (arguments_get(arguments, "threads") || arguments_get(arguments, "tree") ||
                                   arguments_get(arguments, "arguments")))
        return vmibusctl_usage("--threads, --tree, --arguments", NULL, "they are for the list: leave out the pid");
    r = linux_guest_begin(ctl, arguments, arguments->words[0], &guest);
    if (r == STATUS_OK)
        r = arguments->n_words > 1 ? show(&guest, arguments->words[1]) : list(&guest, arguments);
    return linux_guest_end(&guest, r);
}

static const struct option_description options[] = {
    {"threads", NULL, "all threads, not only the first of each process"},
    {"tree", NULL, "children below their parents"},
    {"arguments", NULL, "command lines in place of names"},
    LINUX_GUEST_OPTIONS,
    {},
};

const struct verb verb_ps = {
    .name = "ps",
    .synopsis = "VM [PID]",
    .summary = "list the processes of a Linux guest, or tell of one",
    .min_words = 1,
    .max_words = 2,
    .options = options,
    .run = run,
};
