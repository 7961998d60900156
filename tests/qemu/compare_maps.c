/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Octet by octet: the lines are made as the kernel makes them. */
#include "compare.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"

#define TRIES 50
#define N_AREAS 1200

/* Text that grows. */
struct text {
    char *at;
    size_t len, room;
};

static void append(struct text *text, const char *octets, size_t len) {
    if (text->len + len + 1 > text->room) {
        text->room = (text->len + len + 1) * 2;
        text->at = realloc(text->at, text->room);
        ck_assert_ptr_nonnull(text->at);
    }
    memcpy(text->at + text->len, octets, len);
    text->len += len;
    text->at[text->len] = '\0';
}

/* A line as Linux writes it (fs/proc/task_mmu.c): the name stands in column 73, a newline in it is \012. */
static bool add_line(void *context, const struct vmibus_linux_mapping *mapping) {
    struct text *text = context;
    char line[256];
    int len = snprintf(line, sizeof(line), "%08" PRIx64 "-%08" PRIx64 " %c%c%c%c %08" PRIx64 " %02x:%02x %" PRIu64 " ",
                       mapping->start, mapping->end, mapping->flags & VMIBUS_LINUX_MAPPING_READ ? 'r' : '-',
                       mapping->flags & VMIBUS_LINUX_MAPPING_WRITE ? 'w' : '-',
                       mapping->flags & VMIBUS_LINUX_MAPPING_EXECUTE ? 'x' : '-',
                       mapping->flags & VMIBUS_LINUX_MAPPING_SHARED ? 's' : 'p', mapping->offset, mapping->device_major,
                       mapping->device_minor, mapping->inode);

    ck_assert_ptr_nonnull(mapping->name);
    append(text, line, (size_t)len);
    for (; mapping->name[0] != '\0' && len < 73; len++)
        append(text, " ", 1);
    for (const char *c = mapping->name; *c; c++)
        append(text, *c == '\n' ? "\\012" : c, *c == '\n' ? 4 : 1);
    append(text, "\n", 1);
    return true;
}

/* What the agent says, without its own words. */
static char *ask_maps(struct linux_bed *guest, uint32_t pid) {
    char *reply = linux_bed_ask(guest, "maps %" PRIu32, pid), *line, *save = NULL;
    struct text text = {0};

    append(&text, "", 0);
    for (line = strtok_r(reply, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        if (strncmp(line, "OUT ", 4) != 0)
            continue;
        append(&text, line + 4, strlen(line + 4));
        append(&text, "\n", 1);
    }
    free(reply);
    return text.at;
}

static char *our_maps(struct linux_bed *guest, uint32_t pid, struct vmibus_linux_picture *picture) {
    struct vmibus_linux_task task;
    struct text text = {0};
    int r = vmibus_linux_find_task(guest->kernel, pid, &task);

    ck_assert_msg(r == 0, "pid %" PRIu32 ": %d, %s", pid, r, vmibus_linux_why(guest->kernel));
    append(&text, "", 0);
    r = vmibus_linux_visit_mappings(guest->kernel, &task, add_line, &text, picture);
    ck_assert_msg(r == 0, "pid %" PRIu32 ": %d, %s", pid, r, vmibus_linux_why(guest->kernel));
    return text.at;
}

static void fail_at_difference(uint32_t pid, const char *theirs, const char *ours) {
    while (*theirs && *ours) {
        size_t their_len = strcspn(theirs, "\n"), our_len = strcspn(ours, "\n");

        if (their_len != our_len || memcmp(theirs, ours, our_len) != 0)
            break;
        theirs += their_len + (theirs[their_len] == '\n');
        ours += our_len + (ours[our_len] == '\n');
    }
    ck_abort_msg("pid %" PRIu32 ": the guest says\n%.*s\nwe say\n%.*s", pid, (int)strcspn(theirs, "\n"), theirs,
                 (int)strcspn(ours, "\n"), ours);
}

/*
 * Compares a process. The guest runs: what it says before and after must be the same for once, and then ours too. Returns the
 * number of mappings.
 */
static uint64_t compare(struct linux_bed *guest, uint32_t pid, const char *const *expected) {
    struct vmibus_linux_picture picture = {0};
    char *before = ask_maps(guest, pid);

    ck_assert_uint_gt(strlen(before), 0);
    for (int i = 0;; i++) {
        char *ours = our_maps(guest, pid, &picture), *after = ask_maps(guest, pid);
        bool is_still = strcmp(before, after) == 0;

        free(before);
        before = after;
        if (is_still && strcmp(ours, after) != 0)
            fail_at_difference(pid, after, ours);
        while (is_still && expected && *expected && strstr(ours, *expected))
            expected++;
        /* A program that has only just begun has not all of it yet. */
        if (is_still && expected && *expected) {
            ck_assert_msg(i < TRIES, "pid %" PRIu32 " has no %s:\n%s", pid, *expected, ours);
            is_still = false;
        }
        free(ours);
        if (is_still)
            break;
        ck_assert_msg(i < TRIES, "pid %" PRIu32 " does not stand still", pid);
    }
    free(before);
    ck_assert_uint_eq(picture.flags, VMIBUS_LINUX_ENDED | VMIBUS_LINUX_STEADY);
    ck_assert_uint_eq(picture.n_broken, 0);
    return picture.n_seen;
}

/* The first number of a key in the agent's answer. */
static uint32_t field_of(const char *reply, const char *key) {
    uint64_t value;

    ck_assert_msg(bed_field(reply, key, &value) == 0, "no %s in %s", key, reply);
    return (uint32_t)value;
}

/* A shell that waits for a child: two more programs than the agent. */
static uint32_t start_shell(struct linux_bed *guest) {
    char *reply = linux_bed_ask(guest, "exec sleep 100000 >/dev/null 2>&1 & echo shell=$!");
    uint32_t pid = field_of(reply, "shell");

    free(reply);
    return pid;
}

void compare_maps(struct linux_bed *guest, const char *gate) {
    const char *const oddities[] = {
        "/areas/of directories/a\\012b\tc\\d\n", "/areas/gone (deleted)\n", "/dev/areas\n",    "/dev/zero (deleted)\n",
        "/memfd:a memory (deleted)\n",           "/SYSV00000000 (deleted)\n", "[stack]\n", "[vdso]\n", "[vvar]\n", NULL,
    };
    const char *const ends[] = {"[heap]\n", "[stack]\n", gate, NULL};
    char *reply;
    uint32_t pid;

    compare(guest, 1, ends);
    ck_assert_int_eq(bed_last_fact(guest->bed, "READY", "", &reply), 0);
    compare(guest, field_of(reply, "child"), NULL);
    free(reply);
    compare(guest, start_shell(guest), ends);
    reply = linux_bed_ask(guest, "areas %d", N_AREAS);
    pid = field_of(reply, "pid");
    free(reply);
    ck_assert_uint_gt(compare(guest, pid, oddities), N_AREAS);
}
