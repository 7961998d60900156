/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "soak/client.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#undef close /* what is closed here is known to nobody else */

struct tally tally;
struct soak_vm soak_vms[CLIENT_SLOTS];
const char *client_path;
bool client_losses_allowed;

static void complain(const struct client *client, const char *what) {
    fprintf(stderr, "client %u (%s): %s\n", client->number, client->temper->name, what);
}

static void lose(struct client *client, const char *what) {
    tally.lost++;
    complain(client, what);
}

static void duplicate(struct client *client, const char *what) {
    tally.duplicated++;
    complain(client, what);
}

/* --- connection ---------------------------------------------------------------------------------- */

static int connect_as(uid_t uid) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    uid_t own = geteuid();
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), r;

    ck_assert_int_ge(fd, 0);
    strcpy(address.sun_path, client_path);
    ck_assert_int_eq(seteuid(uid), 0);
    r = connect(fd, (struct sockaddr *)&address, sizeof(address));
    ck_assert_int_eq(seteuid(own), 0);
    if (r == 0)
        return fd;
    close(fd);
    return -1;
}

bool client_connect(struct client *client) {
    struct vmibus_frame hello = {
        .header = {.kind = VMIBUS_KIND_HELLO, .direction = VMIBUS_DIRECTION_DOWN, .version = VMIBUS_PROTOCOL_VERSION},
        .hello = {.magic = VMIBUS_MAGIC,
                  .version_min = VMIBUS_PROTOCOL_VERSION,
                  .version_max = VMIBUS_PROTOCOL_VERSION,
                  .role = VMIBUS_ROLE_CONTROL,
                  .channel = VMIBUS_CHANNEL_BUS,
                  .name = "soak"},
    };

    client->fd = connect_as(client->uid);
    client->welcomed = false;
    client->delivery = client->have = client->n_pending = client->phase = 0;
    client->token = 0;
    if (client->number == 0) /* it is told anew what there is */
        memset(soak_vms, 0, sizeof(soak_vms));
    if (client->fd < 0)
        return false;
    tally.connections++;
    client_send(client, &hello, sizeof(hello));
    return true;
}

/* What was under way may have happened, or not. */
void client_disconnect(struct client *client) {
    for (unsigned i = 0; i < client->n_pending; i++)
        if (client->pending[i].header.kind == VMIBUS_KIND_CMD_MEMWRITE)
            soak_vms[client->pending[i].header.slot].word_epoch = 0;
    client->n_pending = 0;
    client_drop_fd(client);
    if (client->fd >= 0)
        close(client->fd);
    client->fd = -1;
}

void client_drop_fd(struct client *client) {
    client->keeps_fd = false;
    if (client->kept_fd >= 0)
        close(client->kept_fd);
    client->kept_fd = -1;
}

static void connection_ended(struct client *client) {
    if (!client->temper->outlaw && !client_losses_allowed)
        lose(client, client->welcomed ? "its connection has ended" : "its connection has ended before WELCOME");
    client_disconnect(client);
}

void client_send(struct client *client, const void *data, size_t length) {
    ssize_t n = client->fd >= 0 ? send(client->fd, data, length, MSG_DONTWAIT | MSG_NOSIGNAL) : (ssize_t)length;

    if (n != (ssize_t)length)
        connection_ended(client);
}

/* --- commands ------------------------------------------------------------------------------------ */

struct vmibus_frame client_command(const struct client *client, enum vmibus_kind kind) {
    return (struct vmibus_frame){.header = {.kind = (uint16_t)kind,
                                            .direction = VMIBUS_DIRECTION_DOWN,
                                            .priority = VMIBUS_PRIORITY_NORMAL,
                                            .version = VMIBUS_PROTOCOL_VERSION,
                                            .slot = client->slot,
                                            .generation = client->slot ? soak_vms[client->slot].generation : 0}};
}

bool client_give(struct client *client, struct vmibus_frame *frame, const void *tail, size_t length) {
    if (client->n_pending == CLIENT_PENDING || !client->welcomed || client->fd < 0)
        return false;
    frame->header.correlation = ++client->correlation;
    frame->header.tail_length = (uint32_t)length;
    client->pending[client->n_pending++] = *frame;
    client_send(client, frame, sizeof(*frame));
    if (length)
        client_send(client, tail, length);
    return client->fd >= 0;
}

unsigned client_owed(const struct client *client) {
    unsigned n = 0;

    for (unsigned i = 0; i < client->n_pending && !client->temper->deaf && !client->temper->outlaw; i++)
        n += client->pending[i].header.kind != VMIBUS_KIND_CMD_LEASE;
    return n;
}

/* --- what comes ---------------------------------------------------------------------------------- */

static void take_answer(struct client *client, const struct vmibus_frame *answer) {
    struct vmibus_frame command;

    for (unsigned i = 0; i < client->n_pending; i++) {
        if (client->pending[i].header.correlation != answer->header.correlation)
            continue;
        command = client->pending[i];
        client->n_pending--;
        memmove(&client->pending[i], &client->pending[i + 1], (client->n_pending - i) * sizeof(client->pending[0]));
        tally.commands++;
        tally.refused += answer->ack.error != VMIBUS_ERROR_OK;
        if (client->temper->answered)
            client->temper->answered(client, &command, answer);
        return;
    }
    duplicate(client, "an answer to what was answered, or never asked");
}

/*
 * The first client is told of everything, and tells the others.  Of stubs each fourth one comes and goes, as do all guests but
 * guest-0, which has a kernel, and whose memory counts once that was found; the others have none.
 */
static void learn(const struct vmibus_frame *frame, const uint8_t *tail) {
    struct soak_vm *vm = &soak_vms[frame->header.slot % CLIENT_SLOTS];
    unsigned number = 0;
    char name[32] = "";

    if (frame->header.kind == VMIBUS_KIND_ROSTER) {
        memcpy(name, tail, frame->header.tail_length < sizeof(name) ? frame->header.tail_length : sizeof(name) - 1);
        vm->present = frame->roster.change == VMIBUS_ROSTER_CHANGE_ADDED;
        if (vm->generation != frame->header.generation)
            *vm = (struct soak_vm){.present = vm->present, .generation = frame->header.generation};
        vm->real = sscanf(name, "guest-%u", &number) == 1;
        vm->firmware = vm->real && number > 0;
        vm->churns = vm->real ? vm->firmware : sscanf(name, "stub-%u", &number) != 1 || number % 4 == 3;
    } else if (frame->header.kind == VMIBUS_KIND_MEMCTX && frame->header.generation == vm->generation) {
        vm->epoch = frame->memctx.cr3 || vm->firmware ? frame->memctx.epoch : 0;
    } else if (frame->header.kind == VMIBUS_KIND_MEMCTX_INVALIDATED && frame->header.generation == vm->generation) {
        vm->epoch = 0;
    }
}

static void take_frame(struct client *client, const struct vmibus_frame *frame, const uint8_t *tail) {
    if (frame->header.delivery > client->delivery + 1)
        lose(client, "there is a hole in its deliveries");
    else if (frame->header.delivery <= client->delivery)
        duplicate(client, "a delivery that was there before");
    client->delivery = frame->header.delivery;
    client->welcomed = client->welcomed || frame->header.kind == VMIBUS_KIND_WELCOME;
    if (frame->header.kind == VMIBUS_KIND_ERROR && !client->temper->outlaw)
        fprintf(stderr, "client %u: error %u, reason %u\n", client->number, frame->error.error, frame->error.reason);
    if (frame->header.kind == VMIBUS_KIND_ACK) {
        take_answer(client, frame);
    } else if (frame->header.kind == VMIBUS_KIND_GAP) {
        tally.gaps++;
        tally.dropped += frame->gap.count;
    } else {
        tally.events++;
        if (client->number == 0)
            learn(frame, tail);
    }
}

/* Every whole frame that is there. A handler may end the connection. */
static void take_frames(struct client *client) {
    size_t begin = 0;

    while (client->fd >= 0 && client->have - begin >= VMIBUS_FRAME_SIZE) {
        struct vmibus_frame frame;
        size_t length;

        memcpy(&frame, client->octets + begin, sizeof(frame));
        length = sizeof(frame) + frame.header.tail_length;
        ck_assert_uint_le(length, sizeof(client->octets));
        if (client->have - begin < length)
            break;
        take_frame(client, &frame, client->octets + begin + sizeof(frame));
        begin += length;
    }
    memmove(client->octets, client->octets + begin, client->have - begin);
    client->have -= begin;
}

static void close_received(struct client *client, struct msghdr *message) {
    for (struct cmsghdr *header = CMSG_FIRSTHDR(message); header; header = CMSG_NXTHDR(message, header))
        for (size_t i = 0; header->cmsg_type == SCM_RIGHTS && i < (header->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(header) + i * sizeof(fd), sizeof(fd));
            if (client->keeps_fd && client->kept_fd < 0)
                client->kept_fd = fd;
            else
                close(fd);
        }
}

void client_read(struct client *client, size_t most) {
    while (client->fd >= 0) {
        _Alignas(struct cmsghdr) char control[CMSG_SPACE(253 * sizeof(int))];
        size_t room = sizeof(client->octets) - client->have;
        struct iovec piece = {.iov_base = client->octets + client->have, .iov_len = most && most < room ? most : room};
        struct msghdr message = {
            .msg_iov = &piece, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
        ssize_t n = recvmsg(client->fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0) {
            connection_ended(client);
            return;
        }
        close_received(client, &message);
        client->have += (size_t)n;
        take_frames(client);
        if (most || (size_t)n < piece.iov_len)
            return;
    }
}
