/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmibusctl sockets: the TCP, UDP and Unix sockets of a Linux guest, and who has them open. */
#include <arpa/inet.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frame_json.h"
#include "report.h"
#include "table.h"
#include "tasks.h"

/* The guest's number for AF_INET6. */
#define GUEST_INET6 10

/* Room for an address with its port. */
#define ADDRESS_SIZE (INET6_ADDRSTRLEN + 16)

struct sockets {
    struct vmibus_linux_socket *sockets;
    size_t n, room;
    bool listening_only;
    bool out_of_memory, bounded;
    struct vmibus_linux_picture picture;
    struct tasks tasks;
};

/* A UDP socket that is not connected receives from anybody. */
static bool is_listening(const struct vmibus_linux_socket *socket) {
    return socket->state == VMIBUS_LINUX_SOCKET_LISTEN ||
           (socket->kind == VMIBUS_LINUX_SOCKET_UDP && socket->state == VMIBUS_LINUX_SOCKET_CLOSE);
}

static bool take(void *context, const struct vmibus_linux_socket *socket) {
    struct sockets *sockets = context;

    if (sockets->listening_only && !is_listening(socket))
        return true;
    if (sockets->n >= LINUX_GUEST_ENTRIES_MAX) {
        sockets->bounded = true;
        return false;
    }
    if (sockets->n == sockets->room) {
        size_t room = sockets->room ? 2 * sockets->room : 256;
        struct vmibus_linux_socket *more = realloc(sockets->sockets, room * sizeof(*more));

        sockets->out_of_memory = !more;
        if (!more)
            return false;
        sockets->sockets = more;
        sockets->room = room;
    }
    sockets->sockets[sockets->n++] = *socket;
    return true;
}

static int collect(const struct linux_guest *guest, struct sockets *sockets) {
    int r = tasks_collect(guest, false, &sockets->tasks);

    if (r)
        return r;
    r = vmibus_linux_visit_sockets(guest->kernel, take, sockets, &sockets->picture);
    if (sockets->out_of_memory)
        return report_failure("out of memory");
    if (sockets->bounded)
        sockets->picture.flags |= VMIBUS_LINUX_BOUNDED;
    return r ? linux_guest_report(guest, r, "its sockets cannot be read") : STATUS_OK;
}

static const char *kind_of(const struct vmibus_linux_socket *socket) {
    bool six = socket->family == GUEST_INET6;

    switch (socket->kind) {
    case VMIBUS_LINUX_SOCKET_TCP:
        return six ? "tcp6" : "tcp";
    case VMIBUS_LINUX_SOCKET_UDP:
        return six ? "udp6" : "udp";
    default:
        return socket->type == 1 ? "unix-stream" : socket->type == 2 ? "unix-datagram" : "unix-seqpacket";
    }
}

static const char *state_of(const struct vmibus_linux_socket *socket) {
    static const char *const names[] = {"?",         "ESTABLISHED", "SYN_SENT",   "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2",
                                        "TIME_WAIT", "CLOSE",       "CLOSE_WAIT", "LAST_ACK", "LISTEN",    "CLOSING"};

    return socket->state < sizeof(names) / sizeof(names[0]) ? names[socket->state] : names[0];
}

static const char *address_text(const struct vmibus_linux_socket *socket, const uint8_t *address, uint16_t port, char *text) {
    bool six = socket->family == GUEST_INET6;
    char host[INET6_ADDRSTRLEN] = "?";

    inet_ntop(six ? AF_INET6 : AF_INET, address, host, sizeof(host));
    if (port)
        snprintf(text, ADDRESS_SIZE, six ? "[%s]:%u" : "%s:%u", host, port);
    else
        snprintf(text, ADDRESS_SIZE, six ? "[%s]:*" : "%s:*", host);
    return text;
}

/* As ss(8) has it: the NUL that an abstract name begins with becomes an @. */
static void name_text(const struct vmibus_linux_socket *socket, char *text) {
    for (unsigned i = 0; i < socket->name_len; i++)
        text[i] = socket->name[i] ? socket->name[i] : '@';
    text[socket->name_len] = '\0';
}

static void print_owner(struct table *table, const struct sockets *sockets, const struct vmibus_linux_socket *socket) {
    const struct vmibus_linux_task *task = tasks_find(&sockets->tasks, socket->pid);

    if (socket->pid == 0)
        table_cell(table, "-");
    else if (socket->n_owners > 1)
        table_cell(table, "%" PRIu32 "/%s fd %" PRIu32 " and %" PRIu32 " more", socket->pid, task ? task->comm : "?", socket->fd,
                   socket->n_owners - 1);
    else
        table_cell(table, "%" PRIu32 "/%s fd %" PRIu32, socket->pid, task ? task->comm : "?", socket->fd);
}

static void print_row(struct table *table, const struct sockets *sockets, const struct vmibus_linux_socket *socket) {
    char text[ADDRESS_SIZE > VMIBUS_LINUX_UNIX_NAME_MAX + 1 ? ADDRESS_SIZE : VMIBUS_LINUX_UNIX_NAME_MAX + 1];

    table_cell(table, "%s", kind_of(socket));
    table_cell(table, "%s", state_of(socket));
    if (socket->kind == VMIBUS_LINUX_SOCKET_UNIX) {
        name_text(socket, text);
        table_cell(table, "%s", socket->name_len ? text : "-");
        table_cell(table, "-");
    } else {
        table_cell(table, "%s", address_text(socket, socket->local, socket->local_port, text));
        table_cell(table, "%s", address_text(socket, socket->remote, socket->remote_port, text));
    }
    if (socket->inode) {
        table_cell(table, "%" PRIu32, socket->uid);
        table_cell(table, "%" PRIu64, socket->inode);
    } else {
        table_cell(table, "-");
        table_cell(table, "-");
    }
    print_owner(table, sockets, socket);
}

static void print_table(const struct sockets *sockets) {
    static const char *const headings[] = {"KIND", "STATE", "LOCAL", "REMOTE", "UID", "INODE", "PROCESS"};
    struct table *table = table_new(7);

    for (size_t i = 0; i < 7; i++)
        table_cell(table, "%s", headings[i]);
    for (size_t i = 0; i < sockets->n; i++)
        print_row(table, sockets, &sockets->sockets[i]);
    table_print(table);
}

static void add_addresses(struct json_object *object, const struct vmibus_linux_socket *socket) {
    bool six = socket->family == GUEST_INET6;
    char host[INET6_ADDRSTRLEN] = "?";

    inet_ntop(six ? AF_INET6 : AF_INET, socket->local, host, sizeof(host));
    json_object_object_add(object, "local_address", json_object_new_string(host));
    json_object_object_add(object, "local_port", json_object_new_int(socket->local_port));
    inet_ntop(six ? AF_INET6 : AF_INET, socket->remote, host, sizeof(host));
    json_object_object_add(object, "remote_address", json_object_new_string(host));
    json_object_object_add(object, "remote_port", json_object_new_int(socket->remote_port));
}

static struct json_object *socket_json(const struct sockets *sockets, const struct vmibus_linux_socket *socket) {
    const struct vmibus_linux_task *task = tasks_find(&sockets->tasks, socket->pid);
    struct json_object *object = json_object_new_object();
    bool has_inode = socket->inode, owned = socket->pid;
    char name[VMIBUS_LINUX_UNIX_NAME_MAX + 1];

    json_object_object_add(object, "kind", json_object_new_string(kind_of(socket)));
    json_object_object_add(object, "state", json_object_new_string(state_of(socket)));
    if (socket->kind == VMIBUS_LINUX_SOCKET_UNIX) {
        name_text(socket, name);
        json_object_object_add(object, "name", socket->name_len ? frame_json_text(name, socket->name_len) : NULL);
        json_object_object_add(object, "peer", socket->peer ? json_object_new_uint64(socket->peer) : NULL);
    } else {
        add_addresses(object, socket);
    }
    json_object_object_add(object, "sock", json_object_new_uint64(socket->sock));
    json_object_object_add(object, "inode", has_inode ? json_object_new_uint64(socket->inode) : NULL);
    json_object_object_add(object, "uid", has_inode ? json_object_new_uint64(socket->uid) : NULL);
    json_object_object_add(object, "net_namespace", json_object_new_uint64(socket->net_namespace));
    json_object_object_add(object, "pid", owned ? json_object_new_uint64(socket->pid) : NULL);
    json_object_object_add(object, "comm", task ? frame_json_text(task->comm, strlen(task->comm)) : NULL);
    json_object_object_add(object, "fd", owned ? json_object_new_uint64(socket->fd) : NULL);
    json_object_object_add(object, "owners", json_object_new_uint64(socket->n_owners));
    return object;
}

static int show(struct linux_guest *guest, struct sockets *sockets) {
    struct json_list *list;
    int r = collect(guest, sockets);

    if (r == STATUS_OK)
        r = linux_guest_let_go(guest);
    if (r)
        return r;
    if (!guest->ctl->json) {
        print_table(sockets);
        linux_guest_say_picture(guest, &sockets->picture);
        return STATUS_OK;
    }
    list = json_list_new();
    for (size_t i = 0; i < sockets->n; i++)
        json_list_add(list, socket_json(sockets, &sockets->sockets[i]));
    linux_guest_print_json(guest, list, &sockets->picture);
    return STATUS_OK;
}

static int run(struct vmibusctl *ctl, const struct arguments *arguments) {
    struct sockets sockets = {.listening_only = arguments_get(arguments, "listening")};
    struct linux_guest guest;
    int r = linux_guest_begin(ctl, arguments, arguments->words[0], &guest);

    if (r == STATUS_OK)
        r = show(&guest, &sockets);
    tasks_deinit(&sockets.tasks);
    free(sockets.sockets);
    return linux_guest_end(&guest, r);
}

static const struct option_description options[] = {
    {"listening", NULL, "only sockets that wait for others: listening, or UDP that is not connected"},
    LINUX_GUEST_OPTIONS,
    {},
};

const struct verb verb_sockets = {
    .name = "sockets",
    .synopsis = "VM",
    .summary = "list the TCP, UDP and Unix sockets of a Linux guest",
    .min_words = 1,
    .max_words = 1,
    .options = options,
    .run = run,
};
