/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/channels.h"

#include <check.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/wire.h"

#undef close

#define CONNECTIONS_MAX 4096 /* descriptors that may be connections */

struct connection {
    char *path;                 /* of the memory authority; NULL: there is none of its own */
    uint8_t session[16];
    uid_t uid;                  /* who connected */
    int memory;                 /* -1: not opened yet */
};

static struct connection connections[CONNECTIONS_MAX];

bool channels_are_apart(void) {
    const char *value = getenv("VMIBUS_TEST_APART");

    return value && *value;
}

static struct connection *find(int fd) {
    return fd >= 0 && fd < CONNECTIONS_MAX && connections[fd].path ? &connections[fd] : NULL;
}

bool channels_are_two(int fd) {
    return find(fd);
}

void channels_add(int fd, const struct vmibus_frame *welcome, const char *path, uid_t uid) {
    struct connection *connection = &connections[fd];

    ck_assert_int_lt(fd, CONNECTIONS_MAX);
    if (welcome->welcome.memory != VMIBUS_MEMORY_LOCATION_SOCKET)
        return;
    ck_assert_str_ne(path, "");
    free(connection->path);
    *connection = (struct connection){.path = strdup(path), .uid = uid, .memory = -1};
    memcpy(connection->session, welcome->welcome.session, sizeof(connection->session));
}

/* A test that has become another user since goes back for as long as it takes. */
static int connect_as(const char *path, uid_t uid) {
    uid_t self = geteuid();
    int fd;

    if (self != uid)
        ck_assert(seteuid(0) == 0 && seteuid(uid) == 0);
    fd = wire_connect(path);
    if (self != uid)
        ck_assert(seteuid(0) == 0 && seteuid(self) == 0);
    return fd;
}

static int open_memory(const struct connection *connection) {
    struct vmibus_frame hello = wire_hello(), answer;
    int fd = connect_as(connection->path, connection->uid);

    hello.hello.channel = VMIBUS_CHANNEL_MEMORY;
    memcpy(hello.hello.session, connection->session, sizeof(hello.hello.session));
    ck_assert(wire_write(fd, &hello, sizeof(hello)));
    ck_assert(wire_read(fd, &answer, sizeof(answer)));
    ck_assert_msg(answer.header.kind == VMIBUS_KIND_WELCOME, "the memory authority answers HELLO with %#x: error %u, reason %u",
                  answer.header.kind, answer.error.error, answer.error.reason);
    return fd;
}

static bool is_of_memory(uint16_t kind) {
    return kind >= VMIBUS_KIND_CMD_MEMWRITE && kind <= VMIBUS_KIND_MEM_QUERY;
}

int channels_for(int fd, uint16_t kind) {
    struct connection *connection = find(fd);

    if (!connection || !is_of_memory(kind))
        return fd;
    if (connection->memory < 0)
        connection->memory = open_memory(connection);
    return connection->memory;
}

int channels_ready(int fd) {
    const struct connection *connection = find(fd);
    struct pollfd both[2];

    if (!connection || connection->memory < 0)
        return fd;
    both[0] = (struct pollfd){.fd = connection->memory, .events = POLLIN};
    both[1] = (struct pollfd){.fd = fd, .events = POLLIN};
    ck_assert_int_gt(poll(both, 2, -1), 0);
    return both[0].revents ? both[0].fd : fd;
}

int channels_close(int fd) {
    struct connection *connection = find(fd);

    if (connection) {
        if (connection->memory >= 0)
            close(connection->memory);
        free(connection->path);
        *connection = (struct connection){};
    }
    return close(fd);
}
