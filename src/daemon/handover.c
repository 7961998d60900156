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

#include "core/core.h"
#include "core/handover.h"
#include "daemon/incarnation.h"
#include "transport/handover.h"
#include "transport/listener.h"
#include "util/clock.h"
#include "util/fds.h"

#include <vmibus/syscalls.h>

VMIBUS_SYSCALLS("fsync getsockopt openat renameat renameat2 unlinkat")

#define TOKEN_FILE "handover"
#define TEMPORARY_FILE "handover.new"
#define PRODUCT "vmibusd " PACKAGE_VERSION

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

static int settle(struct vmibus_core *core, uint32_t timeout_ms) {
    uint64_t until = clock_now() + timeout_ms * NS_PER_MS;

    core_settle_begin(core);
    while (!core_is_settled(core)) {
        uint64_t now = clock_now();
        int r = now < until ? loop_dispatch(core->loop, (int)((until - now) / NS_PER_MS) + 1) : -ETIMEDOUT;

        if (r == -ETIMEDOUT)
            break;
        if (r < 0)
            return r;
    }
    core_settle(core);
    return 0;
}

static int write_state(const struct handover_parts *parts, struct handover_writer *writer, const uint8_t *token) {
    struct bus_home_handover handover;
    int fd;

    core_handover_begin(parts->core, &handover);
    core_handover_save(parts->core, writer);
    handover_begin(writer, CORE_HANDOVER_LISTENER);
    listener_handover_save(parts->listener, writer, parts->with_socket);
    handover_end(writer);
    fd = handover_seal(writer, token, PRODUCT);
    core_handover_end(parts->core);
    return fd;
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
    listener_pause(parts->listener);
    r = settle(parts->core, timeout_ms);
    if (r == 0)
        r = state = write_state(parts, &writer, token);
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

int handover_look(struct handover *handover, struct service_fds *given, int state_directory, uint32_t *incarnation) {
    int r;

    *handover = (struct handover){};
    if (given->state < 0)
        return -ENOENT;
    r = handover_open(handover, given->state, given->handed, given->n_handed);
    given->handed = NULL;
    given->n_handed = 0;
    if (r < 0)
        return r;
    if (!is_token(state_directory, handover->header->token))
        return -ESTALE;
    *incarnation = core_handover_incarnation(handover);
    if (handover->error)
        return handover->error;
    return *incarnation ? incarnation_keep(state_directory, *incarnation) : -EBADMSG;
}

static int restore(const struct handover_parts *parts, struct handover *handover) {
    struct handover_record record;

    if (core_handover_restore(parts->core, handover) &&
        handover_find(handover_all(handover), CORE_HANDOVER_LISTENER, &record))
        (void)listener_handover_restore(parts->listener, handover_in(&record));
    (void)core_handover_check(parts->core, handover);
    return handover->error;
}

int handover_take(const struct handover_parts *parts, struct handover *handover) {
    struct bus_home_handover share;
    int r;

    core_handover_begin(parts->core, &share);
    r = restore(parts, handover);
    core_handover_end(parts->core);
    return r < 0 ? r : remove_token(parts->state_directory);
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
