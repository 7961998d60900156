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
};

static bool keep(void *context, const struct vmibus_linux_mapping *mapping) {
    struct mappings *mappings = context;
    struct vmibus_linux_mapping *kept;

    if (mappings->n == mappings->room) {
        mappings->room = mappings->room ? 2 * mappings->room : 64;
        mappings->array = reallocarray(mappings->array, mappings->room, sizeof(*mappings->array));
        if (!mappings->array)
            abort();
    }
    kept = &mappings->array[mappings->n++];
    *kept = *mapping;
    if (mapping->name && !(kept->name = strdup(mapping->name)))
        abort();
    return true;
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

/* A newline is \012, as Linux writes it; other controls are not for terminals. A name may be longer than a line is wont to be. */
static void print_name(const char *name) {
    while (*name) {
        char part[64];
        size_t len = strcspn(name, "\n");

        if (len == 0) {
            fputs("\\012", stdout);
            name++;
            continue;
        }
        len = len < sizeof(part) ? len : sizeof(part) - 1;
        /* Not in the midst of a character: its octets would be taken for nonsense. */
        while (len > 1 && ((uint8_t)name[len] & 0xc0) == 0x80 && len > sizeof(part) - 5)
            len--;
        memcpy(part, name, len);
        part[len] = '\0';
        fputs(printable(part), stdout);
        name += len;
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

static struct json_object *json(const struct mappings *mappings) {
    struct json_object *array = json_object_new_array();

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
        json_object_array_add(array, object);
    }
    return array;
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
        r = vmibus_linux_visit_mappings(guest->kernel, task.mm, keep, &mappings, &picture);
    else
        picture.flags = VMIBUS_LINUX_ENDED | VMIBUS_LINUX_STEADY;
    if (r)
        r = linux_guest_report(guest, r, "its address space cannot be read");
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
