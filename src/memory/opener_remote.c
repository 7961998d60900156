/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "memory/opener_remote.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <vmibus/syscalls.h>

#include "memory/opener_protocol.h"
#include "util/clock.h"
#include "util/fds.h"
#include "util/list.h"

VMIBUS_SYSCALLS("connect setsockopt socket")

struct remote {
    struct opener opener;
    struct sockaddr_un address;
    int socket;             /* -1: not connected */
    uint64_t last_id;
};

static struct remote *remote_of(const struct opener *opener) {
    return container_of((struct opener *)opener, struct remote, opener);
}

static void disconnect(struct remote *remote) {
    remote->socket = fd_close(remote->socket);
}

/* What connect(2) says of a path must not pass for what an opener says of a process or a file. */
static int connect_to(struct remote *remote) {
    const struct timeval bound = {.tv_sec = OPENER_REMOTE_MS / 1000};

    if (remote->socket >= 0)
        return 0;
    remote->socket = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (remote->socket < 0)
        return -errno;
    /* Connecting waits while too many others do; nothing else on this socket waits. */
    (void)setsockopt(remote->socket, SOL_SOCKET, SO_SNDTIMEO, &bound, sizeof(bound));
    if (connect(remote->socket, (const struct sockaddr *)&remote->address, sizeof(remote->address)) == 0)
        return 0;
    disconnect(remote);
    return errno == EAGAIN ? -ETIMEDOUT : -ECONNREFUSED;
}

/* --- one request ------------------------------------------------------------------------------- */

static int await(int socket, uint64_t deadline) {
    struct pollfd answer = {.fd = socket, .events = POLLIN};

    for (;;) {
        uint64_t now = clock_now();
        int n;

        if (now >= deadline)
            return -ETIMEDOUT;
        n = poll(&answer, 1, (int)((deadline - now + NS_PER_MS - 1) / NS_PER_MS));
        if (n > 0)
            return 0;
        if (n < 0 && errno != EINTR)
            return -errno;
    }
}

/* What was asked to be opened for reading must not come writable, nor the other way round. */
static bool is_wanted(const struct opener_request *request, int fd) {
    int flags = fcntl(fd, F_GETFL);

    if (request->verb == OPENER_MEMORY_TO_READ)
        return flags >= 0 && (flags & O_ACCMODE) == O_RDONLY;
    return request->verb != OPENER_FILE || (flags >= 0 && (flags & O_ACCMODE) == (int)request->flags);
}

static int take_answer(int socket, const struct opener_request *request) {
    char octets[sizeof(struct opener_answer)];
    struct opener_answer answer;
    int fds[2], r;
    size_t len, n_fds;

    r = opener_receive(socket, octets, sizeof(octets), &len, fds, &n_fds);
    if (r < 0)
        return r;
    if (opener_answer_parse(octets, len, n_fds, request, &answer) < 0 || (n_fds == 1 && !is_wanted(request, fds[0]))) {
        fds_close(fds, n_fds);
        return -EPROTO;
    }
    return n_fds == 1 ? fds[0] : answer.result;
}

/*
 * Asks on the connection that there is. *broken: nothing that was said counts, and the connection is closed; an answer to a
 * request that was given up must not pass for one to the next.
 */
static int ask_once(struct remote *remote, const struct opener_request *request, int given, uint64_t deadline, bool *broken) {
    int r = connect_to(remote);

    *broken = r < 0;
    if (r < 0)
        return r;
    r = opener_send(remote->socket, request, sizeof(*request), given);
    if (r == 0)
        r = await(remote->socket, deadline);
    *broken = r < 0;
    if (r == 0) {
        r = take_answer(remote->socket, request);
        *broken = r == -EPIPE || r == -EPROTO || r == -EMFILE || r == -EAGAIN;
    }
    if (*broken)
        disconnect(remote);
    return r;
}

static int ask(struct remote *remote, struct opener_request *request, int given) {
    uint64_t deadline = clock_now() + OPENER_REMOTE_MS * NS_PER_MS;
    bool was_connected = remote->socket >= 0, broken;
    int r;

    request->magic = OPENER_MAGIC;
    request->version = OPENER_VERSION;
    request->id = ++remote->last_id;
    r = ask_once(remote, request, given, deadline, &broken);
    if (broken && was_connected && r != -ETIMEDOUT && r != -EPROTO)
        r = ask_once(remote, request, given, deadline, &broken);
    return broken && r == -EPIPE ? -ECONNREFUSED : r;
}

/* --- the opener -------------------------------------------------------------------------------- */

static int ask_of_process(const struct opener *opener, enum opener_verb verb, const struct opener_process *process) {
    struct opener_request request = {.verb = (uint16_t)verb, .pid = process->pid, .start_time = process->start_time};

    return ask(remote_of(opener), &request, -1);
}

static int remote_open_maps(const struct opener *opener, const struct opener_process *process) {
    return ask_of_process(opener, OPENER_MAPS, process);
}

static int remote_open_process(const struct opener *opener, const struct opener_process *process) {
    return ask_of_process(opener, OPENER_PROCESS, process);
}

static int remote_open_memory(const struct opener *opener, const struct opener_process *process) {
    return ask_of_process(opener, OPENER_MEMORY, process);
}

static int remote_open_memory_to_read(const struct opener *opener, const struct opener_process *process) {
    return ask_of_process(opener, OPENER_MEMORY_TO_READ, process);
}

static int remote_open_pagemap(const struct opener *opener, const struct opener_process *process) {
    return ask_of_process(opener, OPENER_PAGEMAP, process);
}

static int remote_open_file(const struct opener *opener, const struct opener_process *process, const struct opener_file *file,
                            int flags) {
    struct opener_request request = {
        .verb = OPENER_FILE,
        .pid = process->pid,
        .start_time = process->start_time,
        .flags = (uint32_t)flags,
        .device_major = file->device_major,
        .device_minor = file->device_minor,
        .inode = file->inode,
    };

    return ask(remote_of(opener), &request, -1);
}

static int remote_tighten(const struct opener *opener, int fd, mode_t mode) {
    struct opener_request request = {.verb = OPENER_TIGHTEN, .mode = (uint32_t)mode};

    return ask(remote_of(opener), &request, fd);
}

int opener_remote_new(const struct opener **openerp, const char *path) {
    struct remote *remote;

    if (strlen(path) >= sizeof(remote->address.sun_path))
        return -ENAMETOOLONG;
    remote = calloc(1, sizeof(*remote));
    if (!remote)
        return -ENOMEM;
    remote->opener = (struct opener){
        .open_maps = remote_open_maps,
        .open_process = remote_open_process,
        .open_memory = remote_open_memory,
        .open_memory_to_read = remote_open_memory_to_read,
        .open_pagemap = remote_open_pagemap,
        .open_file = remote_open_file,
        .tighten = remote_tighten,
    };
    remote->address.sun_family = AF_UNIX;
    strcpy(remote->address.sun_path, path);
    remote->socket = -1;
    *openerp = &remote->opener;
    return 0;
}

const struct opener *opener_remote_free(const struct opener *opener) {
    if (opener) {
        struct remote *remote = remote_of(opener);

        disconnect(remote);
        free(remote);
    }
    return NULL;
}
