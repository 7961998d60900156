/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See socket_owners.h. */
#include <errno.h>
#include <stdlib.h>

#include "files.h"
#include "socket_owners.h"

/** Most places in the tables of all processes that are looked at: a guest may say that each of them is huge. */
#define PLACES_MAX (1u << 24)

/** Most open files of all processes that are looked at. */
#define FILES_MAX (1u << 20)

struct collection {
    struct vmibus_linux *kernel;
    struct socket_owners *owners;
    uint64_t budget;        /* places that may still be looked at */
    uint32_t n_files;       /* that were looked at */
    uint32_t pid;           /* of the process that is being looked at */
    uint32_t flags;         /* what is lost of the picture */
    int r;                  /* a negative errno that ended it */
};

static int add(struct socket_owners *owners, struct socket_owner owner) {
    if (owners->n == owners->room) {
        size_t room = owners->room ? 2 * owners->room : 256;
        struct socket_owner *more = realloc(owners->owners, room * sizeof(*more));

        if (!more)
            return -ENOMEM;
        owners->owners = more;
        owners->room = room;
    }
    owners->owners[owners->n++] = owner;
    return 0;
}

static int take_file(void *context, uint32_t fd, uint64_t file, bool closed_on_exec) {
    struct collection *collection = context;
    uint64_t socket;
    int r;

    (void)closed_on_exec;
    if (collection->n_files++ >= FILES_MAX)
        return VMIBUS_GUEST_UNFINISHED;
    r = files_find_socket(collection->kernel, file, &socket);
    if (r || socket == 0)
        return r;
    return add(collection->owners, (struct socket_owner){.socket = socket, .pid = collection->pid, .fd = fd});
}

static bool take_process(void *context, const struct vmibus_linux_task *task) {
    struct collection *collection = context;
    struct vmibus_linux_picture picture;
    int r;

    if (task->flags & VMIBUS_LINUX_TASK_KERNEL)
        return true;
    collection->pid = task->pid;
    r = files_visit(collection->kernel, task, &collection->budget, take_file, collection, &picture);
    if (r < 0) {
        collection->r = r;
        return false;
    }
    if (r == VMIBUS_GUEST_UNFINISHED || picture.flags & VMIBUS_LINUX_BOUNDED)
        collection->flags |= VMIBUS_LINUX_BOUNDED;
    else if (r != VMIBUS_GUEST_NOT_FOUND && (r || !(picture.flags & VMIBUS_LINUX_STEADY)))
        collection->flags |= VMIBUS_LINUX_STEADY;
    return r != VMIBUS_GUEST_UNFINISHED && collection->budget > 0;
}

static int compare(const void *a, const void *b) {
    const struct socket_owner *one = a, *other = b;

    if (one->socket != other->socket)
        return one->socket < other->socket ? -1 : 1;
    if (one->pid != other->pid)
        return one->pid < other->pid ? -1 : 1;
    return one->fd < other->fd ? -1 : one->fd > other->fd;
}

int socket_owners_collect(struct vmibus_linux *kernel, struct socket_owners *owners, struct vmibus_linux_picture *picture) {
    struct collection collection = {.kernel = kernel, .owners = owners, .budget = PLACES_MAX};
    int r = vmibus_linux_visit_tasks(kernel, false, take_process, &collection, picture);

    if (r == 0)
        r = collection.r;
    if (collection.flags & VMIBUS_LINUX_STEADY)
        picture->flags &= ~(uint32_t)VMIBUS_LINUX_STEADY;
    picture->flags |= collection.flags & VMIBUS_LINUX_BOUNDED;
    if (owners->n)
        qsort(owners->owners, owners->n, sizeof(*owners->owners), compare);
    return r;
}

/* The first owner of this socket or a later one. */
static size_t first_of(const struct socket_owners *owners, uint64_t socket) {
    size_t low = 0, high = owners->n;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (owners->owners[middle].socket < socket)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Counted by bisection: a guest may have one socket open a million times, and show it as often. */
const struct socket_owner *socket_owners_find(const struct socket_owners *owners, uint64_t socket, uint32_t *n) {
    size_t first = first_of(owners, socket);

    *n = socket && socket != UINT64_MAX ? (uint32_t)(first_of(owners, socket + 1) - first) : 0;
    return *n ? &owners->owners[first] : NULL;
}

void socket_owners_deinit(struct socket_owners *owners) {
    free(owners->owners);
    *owners = (struct socket_owners){};
}
