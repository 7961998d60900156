/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See compare.h. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compare.h"
#include "harness.h"

#define SOCKETS 256

/* Processes of the crowd that have its sockets open: the first, and what it forked, but for the one that ended. */
#define OWNERS 7

/* Lines in the form of /proc/net, less what only the kernel's own bookkeeping says. */
struct lines {
    char lines[SOCKETS][256];
    size_t n;
};

struct reading {
    struct lines lines;
    uint32_t crowd;
    size_t n_owned;
    uint32_t net_namespace;
};

static char *add(struct lines *lines) {
    ck_assert_uint_lt(lines->n, SOCKETS);
    return lines->lines[lines->n++];
}

/* " 0: 0100007F:1B59 00000000:0000 0A 00000000:00000000 00:00000000 00000000 1001 0 1234 ..." */
static void take_inet_line(struct lines *lines, const char *kind, const char *line) {
    char local[64], remote[64], state[8];
    unsigned uid, inode;

    if (sscanf(line, " %*d: %63s %63s %7s %*s %*s %*s %u %*u %u", local, remote, state, &uid, &inode) == 5)
        snprintf(add(lines), 256, "%s %s %s %s uid %u inode %u", kind, local, remote, state, uid, inode);
}

/* "0000000000000000: 00000002 00000000 00010000 0001 01 1234 /tmp/x" */
static void take_unix_line(struct lines *lines, const char *line) {
    char path[128] = "";
    unsigned type, inode;

    /* A guest without entropy does not print the address that comes first. */
    if (sscanf(line, "%*s %*x %*x %*x %x %*x %u %127[^\n]", &type, &inode, path) >= 2)
        snprintf(add(lines), 256, "unix type %u inode %u %s", type, inode, path);
}

static void ask_file(struct linux_bed *guest, struct lines *lines, const char *file, const char *kind) {
    char *reply = linux_bed_ask(guest, "cat /proc/net/%s", file), *rest = reply, *line;

    while ((line = facts_next(&rest, "OUT"))) {
        line += strlen("OUT ");
        if (strcmp(kind, "unix") == 0)
            take_unix_line(lines, line);
        else
            take_inet_line(lines, kind, line);
    }
    free(reply);
}

static int compare_lines(const void *a, const void *b) {
    return strcmp(a, b);
}

static void ask_sockets(struct linux_bed *guest, struct lines *lines) {
    static const char *const files[][2] = {{"tcp", "tcp"}, {"tcp6", "tcp"}, {"udp", "udp"}, {"udp6", "udp"}, {"unix", "unix"}};

    lines->n = 0;
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
        ask_file(guest, lines, files[i][0], files[i][1]);
    qsort(lines->lines, lines->n, sizeof(lines->lines[0]), compare_lines);
}

/* The kernel prints addresses as words of its own order. */
static const char *print_address(const uint8_t *address, unsigned family, unsigned port, char *text) {
    char *at = text;

    for (unsigned i = 0; i < (family == 10 ? 4u : 1u); i++) {
        uint32_t word;

        memcpy(&word, address + (size_t)4 * i, sizeof(word));
        at += sprintf(at, "%08X", word);
    }
    sprintf(at, ":%04X", port);
    return text;
}

static void check_owner(struct reading *reading, const struct vmibus_linux_socket *socket) {
    if (socket->kind == VMIBUS_LINUX_SOCKET_UNIX ? socket->name_len == 0 : socket->local_port < 7001 || socket->local_port > 7004)
        return;
    if (socket->inode == 0)
        return;
    ck_assert_uint_eq(socket->pid, reading->crowd);
    ck_assert_uint_eq(socket->n_owners, OWNERS);
    reading->n_owned++;
}

static bool take(void *context, const struct vmibus_linux_socket *socket) {
    static const char *const kinds[] = {"tcp", "udp", "unix"};
    struct reading *reading = context;
    char local[64], remote[64], name[VMIBUS_LINUX_UNIX_NAME_MAX + 1] = "";

    ck_assert_uint_lt(socket->kind, 3);
    check_owner(reading, socket);
    ck_assert(reading->net_namespace == 0 || reading->net_namespace == socket->net_namespace);
    reading->net_namespace = socket->net_namespace;
    if (socket->kind == VMIBUS_LINUX_SOCKET_UNIX) {
        for (unsigned i = 0; i < socket->name_len; i++)
            name[i] = socket->name[i] ? socket->name[i] : '@';
        snprintf(add(&reading->lines), 256, "unix type %u inode %" PRIu64 " %s", socket->type, socket->inode, name);
        return true;
    }
    snprintf(add(&reading->lines), 256, "%s %s %s %02X uid %u inode %" PRIu64, kinds[socket->kind],
             print_address(socket->local, socket->family, socket->local_port, local),
             print_address(socket->remote, socket->family, socket->remote_port, remote), socket->state, socket->uid, socket->inode);
    return true;
}

/* What comes to its end meanwhile (TIME_WAIT) is in one answer and not in the other: then it is asked again. */
static bool is_same(const struct lines *one, const struct lines *other) {
    if (one->n != other->n)
        return false;
    for (size_t i = 0; i < one->n; i++)
        if (strcmp(one->lines[i], other->lines[i]) != 0)
            return false;
    return true;
}

static void show_difference(const struct lines *said, const struct lines *read) {
    for (size_t i = 0; i < said->n; i++)
        fprintf(stderr, "said: %s\n", said->lines[i]);
    for (size_t i = 0; i < read->n; i++)
        fprintf(stderr, "read: %s\n", read->lines[i]);
}

static size_t count(const struct lines *lines, const char *text) {
    size_t n = 0;

    for (size_t i = 0; i < lines->n; i++)
        n += strstr(lines->lines[i], text) != NULL;
    return n;
}

void compare_sockets(struct linux_bed *guest, uint32_t crowd) {
    static struct lines said, again;
    static struct reading reading;
    struct vmibus_linux_picture picture;
    bool same = false, unchanged = false;
    int r;

    for (int i = 0; i < 5 && !same; i++) {
        reading = (struct reading){.crowd = crowd};
        ask_sockets(guest, &said);
        r = vmibus_linux_visit_sockets(guest->kernel, take, &reading, &picture);
        ck_assert_msg(r == 0, "%d: %s", r, vmibus_linux_why(guest->kernel));
        ck_assert_uint_eq(picture.n_seen, reading.lines.n);
        qsort(reading.lines.lines, reading.lines.n, sizeof(reading.lines.lines[0]), compare_lines);
        ask_sockets(guest, &again);
        unchanged = is_same(&said, &again);
        same = is_same(&said, &reading.lines) && picture.flags == (VMIBUS_LINUX_ENDED | VMIBUS_LINUX_STEADY);
        if (unchanged && !same)
            break;
    }
    if (!same)
        show_difference(&said, &reading.lines);
    ck_assert_msg(same, "the guest's own tables say something else (they %s)", unchanged ? "did not change" : "changed");
    /* Listeners, connections both ways, their closed remains; and everything that has a name has its owners. */
    ck_assert_uint_eq(count(&reading.lines, " 0A uid"), 2);
    ck_assert_uint_ge(count(&reading.lines, "tcp "), 8);
    ck_assert_uint_eq(count(&reading.lines, "udp "), 3);
    ck_assert_uint_ge(count(&reading.lines, "unix "), 6);
    ck_assert_uint_ge(reading.n_owned, 8);
}
