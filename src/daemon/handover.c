/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/handover.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/incarnation.h"
#include "util/clock.h"
#include "util/fds.h"
#include "util/loop.h"

#include <vmibus/syscalls.h>

VMIBUS_SYSCALLS("fsync getsockopt openat renameat renameat2 unlinkat")

#define TOKEN_FILE "handover"
#define TEMPORARY_FILE "handover.new"

/* --- the token --------------------------------------------------------------------------------- */

static int write_token(int directory, const uint8_t *token) {
    _cleanup_fd_ int fd = openat(directory, TEMPORARY_FILE, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (fd < 0)
        return -errno;
    if (write(fd, token, HANDOVER_TOKEN) != HANDOVER_TOKEN)
        return errno ? -errno : -EIO;
    if (fsync(fd) < 0 || renameat(directory, TEMPORARY_FILE, directory, TOKEN_FILE) < 0 || fsync(directory) < 0)
        return -errno;
    return 0;
}

/* Whether the state is the one that was handed over last, and was not taken. */
static bool is_token(int directory, const uint8_t *token) {
    _cleanup_fd_ int fd = openat(directory, TOKEN_FILE, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    uint8_t octets[HANDOVER_TOKEN + 1];

    return fd >= 0 && read(fd, octets, sizeof(octets)) == HANDOVER_TOKEN && memcmp(octets, token, HANDOVER_TOKEN) == 0;
}

static int remove_token(int directory) {
    if (unlinkat(directory, TOKEN_FILE, 0) < 0)
        return errno == ENOENT ? 0 : -errno;
    return fsync(directory) < 0 ? -errno : 0;
}

/* --- giving ------------------------------------------------------------------------------------ */

static int settle(const struct handover_parts *parts, uint32_t timeout_ms) {
    uint64_t until = clock_now() + timeout_ms * NS_PER_MS;

    parts->ops->settle_begin(parts->context);
    while (!parts->ops->is_settled(parts->context)) {
        uint64_t now = clock_now();
        int r = now < until ? loop_dispatch(parts->loop, (int)((until - now) / NS_PER_MS) + 1) : -ETIMEDOUT;

        if (r == -ETIMEDOUT)
            break;
        if (r < 0)
            return r;
    }
    parts->ops->settle(parts->context);
    return 0;
}

int handover_give(const struct handover_parts *parts, uint32_t timeout_ms) {
    struct handover_writer writer = {};
    uint8_t token[HANDOVER_TOKEN];
    _cleanup_fd_ int state = -1;
    int r;

    if (getrandom(token, sizeof(token), 0) != sizeof(token))
        return -errno;
    /* One that is left there would be of a state that nobody took. */
    r = remove_token(parts->state_directory);
    if (r < 0)
        return r;
    r = settle(parts, timeout_ms);
    if (r == 0) {
        parts->ops->save(parts->context, &writer);
        r = state = handover_seal(&writer, token, parts->product);
    }
    if (r >= 0)
        r = service_keep_handover(state, writer.fds, writer.n_fds, timeout_ms);
    if (r >= 0)
        r = write_token(parts->state_directory, token);
    if (r < 0)
        service_forget_handover(writer.n_fds);
    handover_writer_deinit(&writer);
    return r < 0 ? r : 0;
}

/* --- taking ------------------------------------------------------------------------------------ */

int handover_look(struct handover *handover, const struct handover_parts *parts, struct service_fds *given, uint32_t *incarnation) {
    int r;

    *handover = (struct handover){};
    if (given->state < 0)
        return -ENOENT;
    r = handover_open(handover, given->state, given->handed, given->n_handed);
    given->handed = NULL;
    given->n_handed = 0;
    if (r < 0)
        return r;
    if (!is_token(parts->state_directory, handover->header->token))
        return -ESTALE;
    *incarnation = parts->ops->incarnation(handover);
    if (handover->error)
        return handover->error;
    return *incarnation ? incarnation_keep(parts->state_directory, *incarnation) : -EBADMSG;
}

int handover_take(const struct handover_parts *parts, struct handover *handover) {
    parts->ops->restore(parts->context, handover);
    return handover->error ? handover->error : remove_token(parts->state_directory);
}

static bool listens(int fd) {
    socklen_t length = sizeof(int);
    int value = 0;

    return fd >= 0 && getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &value, &length) == 0 && value;
}

bool handover_refuse(struct service_fds *given, struct handover *handover) {
    int **tables[] = {&given->handed, &handover->fds};
    size_t n[] = {given->n_handed, handover->n_fds};
    bool had = given->socket >= 0;

    for (size_t i = 0; i < 2; i++)
        for (size_t j = 0; j < n[i]; j++)
            if (given->socket < 0 && listens((*tables[i])[j]))
                given->socket = fd_steal(&(*tables[i])[j]);
    handover_close(handover);
    fds_close(given->handed, given->n_handed);
    free(given->handed);
    given->handed = NULL;
    given->n_handed = 0;
    given->state = fd_close(given->state);
    return !had && given->socket >= 0;
}
