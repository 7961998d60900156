/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmibusctl files: the open files of the processes of a Linux guest. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frame_json.h"
#include "report.h"
#include "table.h"
#include "tasks.h"

/* Octets of their names, together. */
#define NAMES_MAX (64u << 20)

/* An open file of a process; the name is cut out of its room. */
struct entry {
    uint32_t pid;
    char comm[VMIBUS_LINUX_COMM_SIZE];
    uint32_t fd, flags;
    uint64_t position, inode;
    uint8_t kind;
    char *name;     /* NULL: it could not be read */
};

struct entries {
    struct entry *entries;
    size_t n, room, n_octets;
    const struct vmibus_linux_task *task;       /* whose files are being visited */
    struct vmibus_linux_picture picture;        /* of all together */
    bool out_of_memory, full;
};

static bool grow(struct entries *entries) {
    size_t room = entries->room ? 2 * entries->room : 256;
    struct entry *more = realloc(entries->entries, room * sizeof(*more));

    if (!more)
        return false;
    entries->entries = more;
    entries->room = room;
    return true;
}

static bool take(void *context, const struct vmibus_linux_file *file) {
    struct entries *entries = context;
    struct entry *entry;

    if (entries->n >= LINUX_GUEST_ENTRIES_MAX || entries->n_octets > NAMES_MAX) {
        entries->picture.flags |= VMIBUS_LINUX_BOUNDED;
        entries->full = true;
        return false;
    }
    if (entries->n == entries->room && !grow(entries)) {
        entries->out_of_memory = true;
        return false;
    }
    entry = &entries->entries[entries->n];
    *entry = (struct entry){.pid = entries->task->pid, .fd = file->fd, .flags = file->flags, .position = file->position,
                            .inode = file->inode, .kind = file->kind, .name = file->named ? strdup(file->name) : NULL};
    memcpy(entry->comm, entries->task->comm, sizeof(entry->comm));
    entries->n_octets += file->named ? strlen(file->name) : 0;
    entries->out_of_memory = file->named && !entry->name;
    if (!entries->out_of_memory)
        entries->n++;
    return !entries->out_of_memory;
}

/* A process that ends meanwhile, or has no files, is left out of a list of all. */
static int collect_of(const struct linux_guest *guest, const struct vmibus_linux_task *task, bool alone, struct entries *entries) {
    struct vmibus_linux_picture picture;
    int r;

    entries->task = task;
    r = vmibus_linux_visit_files(guest->kernel, task, take, entries, &picture);
    if (entries->out_of_memory)
        return report_failure("out of memory");
    entries->picture.n_broken += picture.n_broken;
    if (r < 0 || (r && alone))
        return linux_guest_report(guest, r, "the open files of a process cannot be read");
    if (r == VMIBUS_GUEST_NOT_FOUND)
        return STATUS_OK;
    entries->picture.flags &= picture.flags | VMIBUS_LINUX_BOUNDED;
    entries->picture.flags |= picture.flags & VMIBUS_LINUX_BOUNDED;
    return STATUS_OK;
}

static int collect_all(const struct linux_guest *guest, struct entries *entries) {
    struct tasks tasks = {};
    int r = tasks_collect(guest, false, &tasks);

    entries->picture = tasks.picture;
    for (size_t i = 0; r == STATUS_OK && i < tasks.n; i++)
        if (!(tasks.tasks[i].flags & VMIBUS_LINUX_TASK_KERNEL) && !entries->full)
            r = collect_of(guest, &tasks.tasks[i], false, entries);
    tasks_deinit(&tasks);
    return r;
}

static int collect(const struct linux_guest *guest, const char *word, struct entries *entries) {
    struct vmibus_linux_task task;
    int r;

    if (!word)
        return collect_all(guest, entries);
    entries->picture.flags = VMIBUS_LINUX_ENDED | VMIBUS_LINUX_STEADY;
    r = tasks_lookup(guest, word, &task);
    return r ? r : collect_of(guest, &task, true, entries);
}

/* As the access mode of open(2): of a file that is opened for nothing (O_PATH), too. */
static const char *access_of(uint32_t flags) {
    static const char *const names[] = {"r", "w", "rw", "-"};

    return flags & 010000000 ? "path" : names[flags & 3];
}

static const char *kind_of(uint8_t kind) {
    static const char *const names[] = {"path", "socket", "pipe", "anonymous", "namespace"};

    return kind < sizeof(names) / sizeof(names[0]) ? names[kind] : "?";
}

static void print_table(const struct entries *entries) {
    static const char *const headings[] = {"PID", "COMMAND", "FD", "ACCESS", "POSITION", "NAME"};
    struct table *table = table_new(6);

    for (size_t i = 0; i < 6; i++)
        table_cell(table, "%s", headings[i]);
    for (size_t i = 0; i < entries->n; i++) {
        const struct entry *entry = &entries->entries[i];

        table_cell(table, "%" PRIu32, entry->pid);
        table_cell(table, "%s", entry->comm);
        table_cell(table, "%" PRIu32, entry->fd);
        table_cell(table, "%s", access_of(entry->flags));
        table_cell(table, "%" PRIu64, entry->position);
        table_cell(table, "%s", entry->name ? entry->name : "?");
    }
    table_print(table);
}

static struct json_list *entries_json(const struct entries *entries) {
    struct json_list *list = json_list_new();

    for (size_t i = 0; i < entries->n; i++) {
        const struct entry *entry = &entries->entries[i];
        struct json_object *object = json_object_new_object();

        json_object_object_add(object, "pid", json_object_new_uint64(entry->pid));
        json_object_object_add(object, "comm", frame_json_text(entry->comm, strlen(entry->comm)));
        json_object_object_add(object, "fd", json_object_new_uint64(entry->fd));
        json_object_object_add(object, "kind", json_object_new_string(kind_of(entry->kind)));
        json_object_object_add(object, "flags", json_object_new_uint64(entry->flags));
        json_object_object_add(object, "position", json_object_new_uint64(entry->position));
        json_object_object_add(object, "inode", json_object_new_uint64(entry->inode));
        json_object_object_add(object, "name", entry->name ? frame_json_text(entry->name, strlen(entry->name)) : NULL);
        json_list_add(list, object);
    }
    return list;
}

static int show(struct linux_guest *guest, const char *word) {
    struct entries entries = {};
    int r = collect(guest, word, &entries);

    if (r == STATUS_OK)
        r = linux_guest_let_go(guest);
    if (r == STATUS_OK && guest->ctl->json) {
        linux_guest_print_json(guest, entries_json(&entries), &entries.picture);
    } else if (r == STATUS_OK) {
        print_table(&entries);
        linux_guest_say_picture(guest, &entries.picture);
    }
    for (size_t i = 0; i < entries.n; i++)
        free(entries.entries[i].name);
    free(entries.entries);
    return r;
}

static int run(struct vmibusctl *ctl, const struct arguments *arguments) {
    struct linux_guest guest;
    int r = linux_guest_begin(ctl, arguments, arguments->words[0], &guest);

    if (r == STATUS_OK)
        r = show(&guest, arguments->n_words > 1 ? arguments->words[1] : NULL);
    return linux_guest_end(&guest, r);
}

static const struct option_description options[] = {
    LINUX_GUEST_OPTIONS,
    {},
};

const struct verb verb_files = {
    .name = "files",
    .synopsis = "VM [PID]",
    .summary = "list the open files of the processes of a Linux guest",
    .min_words = 1,
    .max_words = 2,
    .options = options,
    .run = run,
};
