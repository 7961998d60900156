/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmibusctl maps: the address space of a process in a Linux guest, as its /proc/PID/maps shows it. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "linux_guest.h"
#include "frame_json.h"
#include "report.h"
#include "tasks.h"

#define NAME_COLUMN 73

struct mappings {
    struct vmibus_linux_mapping *array; /* their names are from malloc(), NULL where there is none */
    size_t n, room;
    bool out_of_memory;
};

static bool grow(struct mappings *mappings) {
    size_t room = mappings->room ? 2 * mappings->room : 64;
    struct vmibus_linux_mapping *more = reallocarray(mappings->array, room, sizeof(*more));

    if (!more)
        return false;
    mappings->array = more;
    mappings->room = room;
    return true;
}

static bool keep(void *context, const struct vmibus_linux_mapping *mapping) {
    struct mappings *mappings = context;
    struct vmibus_linux_mapping *kept;

    if (mappings->n == mappings->room && !grow(mappings)) {
        mappings->out_of_memory = true;
        return false;
    }
    kept = &mappings->array[mappings->n];
    *kept = *mapping;
    kept->name = mapping->name ? strdup(mapping->name) : NULL;
    mappings->out_of_memory = mapping->name && !kept->name;
    mappings->n += !mappings->out_of_memory;
    return !mappings->out_of_memory;
}

static void drop(struct mappings *mappings) {
    for (size_t i = 0; i < mappings->n; i++)
        free((char *)mappings->array[i].name);
    free(mappings->array);
}

/* "rw-p" */
static void describe_rights(uint32_t flags, char text[5]) {
    text[0] = flags & VMIBUS_LINUX_MAPPING_READ ? 'r' : '-';
    text[1] = flags & VMIBUS_LINUX_MAPPING_WRITE ? 'w' : '-';
    text[2] = flags & VMIBUS_LINUX_MAPPING_EXECUTE ? 'x' : '-';
    text[3] = flags & VMIBUS_LINUX_MAPPING_SHARED ? 's' : 'p';
    text[4] = '\0';
}

/* A newline is \012, as Linux writes it. */
static void print_name(const char *name) {
    for (;;) {
        size_t len = strcspn(name, "\n");

        print_printable(stdout, name, len);
        if (name[len] == '\0')
            return;
        fputs("\\012", stdout);
        name += len + 1;
    }
}

static void print_text(const struct mappings *mappings) {
    for (size_t i = 0; i < mappings->n; i++) {
        const struct vmibus_linux_mapping *mapping = &mappings->array[i];
        char rights[5];
        int len;

        describe_rights(mapping->flags, rights);
        len = printf("%08" PRIx64 "-%08" PRIx64 " %s %08" PRIx64 " %02" PRIx32 ":%02" PRIx32 " %" PRIu64 " ", mapping->start,
                     mapping->end, rights, mapping->offset, mapping->device_major, mapping->device_minor, mapping->inode);
        if (!mapping->name || mapping->name[0] != '\0')
            printf("%*s", len < NAME_COLUMN ? NAME_COLUMN - len : 0, "");
        print_name(mapping->name ? mapping->name : "?");
        putchar('\n');
    }
}

static struct json_list *json(const struct mappings *mappings) {
    struct json_list *list = json_list_new();

    for (size_t i = 0; i < mappings->n; i++) {
        const struct vmibus_linux_mapping *mapping = &mappings->array[i];
        struct json_object *object = json_object_new_object();
        char rights[5], device[24];

        describe_rights(mapping->flags, rights);
        snprintf(device, sizeof(device), "%02" PRIx32 ":%02" PRIx32, mapping->device_major, mapping->device_minor);
        json_object_object_add(object, "start", json_object_new_uint64(mapping->start));
        json_object_object_add(object, "end", json_object_new_uint64(mapping->end));
        json_object_object_add(object, "rights", json_object_new_string(rights));
        json_object_object_add(object, "offset", json_object_new_uint64(mapping->offset));
        json_object_object_add(object, "device", json_object_new_string(device));
        json_object_object_add(object, "inode", json_object_new_uint64(mapping->inode));
        json_object_object_add(object, "name", mapping->name ? frame_json_text(mapping->name, strlen(mapping->name)) : NULL);
        json_object_object_add(object, "area", json_object_new_uint64(mapping->area));
        json_list_add(list, object);
    }
    return list;
}

static int show(struct linux_guest *guest, const char *pid) {
    struct vmibus_linux_picture picture = {0};
    struct mappings mappings = {0};
    struct vmibus_linux_task task;
    int r = tasks_lookup(guest, pid, &task);

    if (r)
        return r;
    /* A kernel thread or a zombie has none: nothing to show, as in /proc. */
    if (task.mm)
        r = vmibus_linux_visit_mappings(guest->kernel, &task, keep, &mappings, &picture);
    else
        picture.flags = VMIBUS_LINUX_ENDED | VMIBUS_LINUX_STEADY;
    if (r)
        r = linux_guest_report(guest, r, "its address space cannot be read");
    else if (mappings.out_of_memory)
        r = report_failure("out of memory");
    else
        r = linux_guest_let_go(guest);
    if (r == STATUS_OK && guest->ctl->json) {
        linux_guest_print_json(guest, json(&mappings), &picture);
    } else if (r == STATUS_OK) {
        print_text(&mappings);
        linux_guest_say_picture(guest, &picture);
    }
    drop(&mappings);
    return r;
}

static int run(struct vmibusctl *ctl, const struct arguments *arguments) {
    struct linux_guest guest;
    int r = linux_guest_begin(ctl, arguments, arguments->words[0], &guest);

    return linux_guest_end(&guest, r == STATUS_OK ? show(&guest, arguments->words[1]) : r);
}

static const struct option_description options[] = {
    LINUX_GUEST_OPTIONS,
    {},
};

const struct verb verb_maps = {
    .name = "maps",
    .synopsis = "VM PID",
    .summary = "show the address space of a process in a Linux guest",
    .min_words = 2,
    .max_words = 2,
    .options = options,
    .run = run,
};
