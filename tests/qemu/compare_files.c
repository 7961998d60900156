/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See compare.h. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compare.h"
#include "harness.h"

#define FILES 128

/* The lines that the guest would say, in the order of descriptors. */
struct lines {
    char lines[FILES][512];
    size_t n;
};

static char *add(struct lines *lines) {
    ck_assert_uint_lt(lines->n, FILES);
    return lines->lines[lines->n++];
}

static void find(struct linux_bed *guest, uint32_t pid, struct vmibus_linux_task *task) {
    int r = vmibus_linux_find_task(guest->kernel, pid, task);

    ck_assert_msg(r == 0, "%d: %s", r, vmibus_linux_why(guest->kernel));
}

static bool take(void *context, const struct vmibus_linux_file *file) {
    static const char *const begins[] = {"/", "socket:[", "pipe:[", "anon_inode:", ""};

    ck_assert(file->named);
    ck_assert_uint_lt(file->kind, sizeof(begins) / sizeof(begins[0]));
    ck_assert_msg(strncmp(file->name, begins[file->kind], strlen(begins[file->kind])) == 0, "kind %u: %s", file->kind, file->name);
    ck_assert_int_eq(file->socket != 0, file->kind == VMIBUS_LINUX_FILE_SOCKET);
    snprintf(add(context), 512, "fd=%u flags=0x%x pos=%" PRIu64 " link=%.400s", file->fd, file->flags, file->position, file->name);
    return true;
}

static int by_descriptor(const void *a, const void *b) {
    return atoi((const char *)a + 3) - atoi((const char *)b + 3);
}

void compare_files(struct linux_bed *guest, uint32_t pid) {
    static struct lines said, read;
    char *reply = linux_bed_ask(guest, "fds %u", pid), *rest = reply, *line;
    struct vmibus_linux_picture picture;
    struct vmibus_linux_task task;
    int r;

    said.n = read.n = 0;
    while ((line = facts_next(&rest, "FD")))
        snprintf(add(&said), 512, "%.511s", strstr(line, "fd="));
    free(reply);
    qsort(said.lines, said.n, sizeof(said.lines[0]), by_descriptor);
    find(guest, pid, &task);
    r = vmibus_linux_visit_files(guest->kernel, &task, take, &read, &picture);
    ck_assert_msg(r == 0, "%d: %s", r, vmibus_linux_why(guest->kernel));
    ck_assert_uint_eq(picture.flags, VMIBUS_LINUX_ENDED | VMIBUS_LINUX_STEADY);
    ck_assert_uint_eq(picture.n_seen, read.n);
    for (size_t i = 0; i < said.n && i < read.n; i++)
        ck_assert_str_eq(read.lines[i], said.lines[i]);
    ck_assert_uint_eq(read.n, said.n);
    ck_assert_uint_gt(read.n, 3);
}

/* --- what a process has in its own memory, and the paths that the kernel keeps for it ----------------------------------- */

static void ask_octets(struct linux_bed *guest, uint32_t pid, const char *file, char *octets, size_t *len) {
    char *reply = linux_bed_ask(guest, "hex /proc/%u/%s", pid, file), hex[2048] = "";

    ck_assert(facts_text(reply, "octets", false, hex, sizeof(hex)));
    hex[strcspn(hex, "\n")] = '\0';
    *len = strlen(hex) / 2;
    for (size_t i = 0; i < *len; i++) {
        unsigned value = 0;

        sscanf(hex + 2 * i, "%2x", &value);
        octets[i] = (char)value;
    }
    free(reply);
}

static void compare_octets(struct linux_bed *guest, const struct vmibus_linux_task *task, const char *file, size_t least) {
    char said[1024], read[1024];
    size_t n_said, n_read;
    int r;

    ask_octets(guest, task->pid, file, said, &n_said);
    if (strcmp(file, "cmdline") == 0)
        r = vmibus_linux_read_arguments(guest->kernel, task, read, sizeof(read), &n_read);
    else
        r = vmibus_linux_read_environment(guest->kernel, task, read, sizeof(read), &n_read);
    ck_assert_msg(r == 0, "%d: %s", r, vmibus_linux_why(guest->kernel));
    ck_assert_uint_ge(n_said, least);
    ck_assert_uint_eq(n_read, n_said);
    ck_assert_mem_eq(read, said, n_said);
    /* Cut where there is less room. */
    if (strcmp(file, "cmdline") == 0 && n_said > 3) {
        ck_assert_int_eq(vmibus_linux_read_arguments(guest->kernel, task, read, 3, &n_read), 0);
        ck_assert_uint_eq(n_read, 3);
    }
}

static void compare_links(struct linux_bed *guest, const struct vmibus_linux_task *task) {
    char *reply = linux_bed_ask(guest, "fds %u", task->pid), *rest = reply, *line, said[512], name[16];
    char read[VMIBUS_LINUX_PATH_SIZE];
    int n = 0;

    while ((line = facts_next(&rest, "LINK"))) {
        int r;

        facts_text(line, "name", false, name, sizeof(name));
        facts_text(line, "link", true, said, sizeof(said));
        r = strcmp(name, "exe") == 0 ? vmibus_linux_read_program(guest->kernel, task, read)
                                     : vmibus_linux_read_directory(guest->kernel, task, read);
        ck_assert_msg(r == 0, "%s: %d: %s", name, r, vmibus_linux_why(guest->kernel));
        ck_assert_str_eq(read, said);
        n++;
    }
    ck_assert_int_eq(n, 2);
    free(reply);
}

/* The agent has told what lies at an address of its own, and where that is. */
static void compare_variable(struct linux_bed *guest, const char *comm) {
    struct vmibus_guest_reader reader = vmibus_guest_ram_reader(guest->ram);
    struct vmibus_guest_translation translation;
    struct vmibus_guest_root root;
    struct vmibus_linux_task task;
    char fields[64], *fact;
    uint64_t value;

    snprintf(fields, sizeof(fields), "comm=%s", comm);
    CHECK_BED(guest->bed, bed_last_fact(guest->bed, "VAR", fields, &fact));
    find(guest, (uint32_t)facts_number(fact, "pid"), &task);
    ck_assert_str_eq(task.comm, comm);
    root = (struct vmibus_guest_root){.cr3 = task.cr3, .levels = guest->root.root.levels};
    ck_assert_int_eq(vmibus_guest_translate(&reader, &root, facts_number(fact, "gva"), &translation), 0);
    ck_assert_uint_eq(translation.gpa, facts_number(fact, "gpa"));
    ck_assert_int_eq(vmibus_guest_read(&reader, &root, facts_number(fact, "gva"), &value, sizeof(value), NULL, NULL), 0);
    ck_assert_uint_eq(value, facts_number(fact, "value"));
    free(fact);
}

void compare_task_memory(struct linux_bed *guest, uint32_t pid) {
    struct vmibus_linux_task task;
    char text[16];
    size_t len;

    find(guest, pid, &task);
    compare_octets(guest, &task, "cmdline", 20);
    compare_octets(guest, &task, "environ", 20);
    compare_links(guest, &task);
    compare_variable(guest, "vmibus-agent");
    compare_variable(guest, "vmibus-child");
    task.start_time++;
    ck_assert_int_eq(vmibus_linux_read_arguments(guest->kernel, &task, text, sizeof(text), &len), VMIBUS_GUEST_CHANGED);
    find(guest, 2, &task);
    ck_assert_str_eq(task.comm, "kthreadd");
    ck_assert_int_eq(vmibus_linux_read_environment(guest->kernel, &task, text, sizeof(text), &len), VMIBUS_GUEST_NOT_FOUND);
}
