/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "transport/listener.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <vmibus/syscalls.h>

#include "transport/peer.h"
#include "transport/peer_state.h"
#include "transport/sender.h"
#include "util/clock.h"
#include "util/fds.h"
#include "util/unix_socket.h"

VMIBUS_SYSCALLS("accept4")

#define BACKLOG 128
#define ACCEPT_BATCH 16      /* while there is nobody else to serve */
#define RETRY_MS 100         /* after running out of descriptors */
#define SMALL_TAILS_PER_PEER 1

static bool out_of_descriptors(int error) {
    return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

/* A level-triggered listener that cannot accept would wake the loop for ever. */
static void pause_accepting(struct listener *listener) {
    if (loop_timer_set(&listener->retry, clock_now() + RETRY_MS * NS_PER_MS) == 0)
        (void)loop_source_modify(&listener->source, 0);
}

static void resume_accepting(struct loop_timer *timer) {
    struct listener *listener = container_of(timer, struct listener, retry);

    (void)loop_source_modify(&listener->source, listener->paused ? 0 : EPOLLIN);
}

static void accept_some(struct turn *turn) {
    struct listener *listener = container_of(turn, struct listener, turn);

    if (listener->paused)
        return;
    if (!loop_timer_is_armed(&listener->retry))
        (void)loop_source_modify(&listener->source, EPOLLIN);
    for (int i = 0; i == 0 || (i < ACCEPT_BATCH && turn_is_alone(turn)); i++) {
        int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (fd >= 0) {
            peer_new_consume_fd(listener, fd);
        } else {
            if (out_of_descriptors(errno))
                pause_accepting(listener);
            return;
        }
    }
}

size_t listener_memory_needed(size_t session_octets, uint32_t tail_bound, uint32_t n_connections, size_t n_large_tails) {
    return receiver_pool_cost(tail_bound, n_connections * SMALL_TAILS_PER_PEER, n_large_tails) +
           arena_cost(SENDER_BUFFER, n_connections) + arena_cost(peer_size(session_octets), n_connections + 1);
}

static void peers_hello_again(struct loop_deferred *deferred) {
    peer_hello_again(container_of(deferred, struct listener, hello_again));
}

void listener_hello_again(struct listener *listener) {
    if (!list_is_empty(&listener->waiting))
        loop_defer(&listener->hello_again);
}

void listener_pause(struct listener *listener) {
    struct peer *peer;

    listener->paused = true;
    (void)loop_source_modify(&listener->source, 0);
    list_for_each(peer, &listener->peers, link)
        peer_wait_for(peer, peer->writable);
}

void listener_resume(struct listener *listener) {
    struct peer *peer;

    listener->paused = false;
    if (!loop_timer_is_armed(&listener->retry))
        (void)loop_source_modify(&listener->source, EPOLLIN);
    list_for_each(peer, &listener->peers, link) {
        peer_wait_for(peer, peer->writable);
        peer_renew_deadline(peer);
    }
}

static void connections_wait(struct loop_source *source, uint32_t events) {
    struct listener *listener = container_of(source, struct listener, source);

    (void)events;
    if (turn_want(&listener->turn))
        (void)loop_source_modify(source, 0);
}

int listener_new_consume_fd(struct listener **listenerp, struct loop *loop, int fd, const struct listener_options *options) {
    struct listener *listener = calloc(1, sizeof(*listener));
    int r;

    if (!listener) {
        fd_close(fd);
        return -ENOMEM;
    }
    listener->options = *options;
    listener->loop = loop;
    listener->fd = fd;
    list_init(&listener->peers);
    list_init(&listener->waiting);
    loop_deferred_init(&listener->hello_again, loop, peers_hello_again);
    turns_init(&listener->turns, loop);
    ledger_bound(options->home->ledger, RESOURCE_CONNECTIONS, options->n_connections);
    ledger_bound(options->home->ledger, RESOURCE_TAILS, options->n_large_tails);
    loop_timer_init(&listener->retry, loop, resume_accepting);
    r = receiver_pool_init(&listener->receivers, options->arena, options->home->tail_bound,
                           options->n_connections * SMALL_TAILS_PER_PEER, options->n_large_tails);
    if (r == 0)
        r = pool_init(&listener->senders, options->arena, SENDER_BUFFER, options->n_connections);
    if (r == 0)
        r = pool_init(&listener->peer_blocks, options->arena, peer_size(options->home->session_octets),
                      options->n_connections + 1);
    if (r == 0)
        r = turn_init(&listener->turn, &listener->turns, TURN_NOBODY, accept_some);
    if (r == 0)
        r = loop_source_init(&listener->source, loop, fd, EPOLLIN, connections_wait);
    if (r < 0) {
        listener_free(listener);
        return r;
    }
    *listenerp = listener;
    return 0;
}

struct listener *listener_free(struct listener *listener) {
    if (!listener)
        return NULL;
    peer_free_all(listener);
    loop_deferred_cancel(&listener->hello_again);
    turn_deinit(&listener->turn);
    turns_deinit(&listener->turns);
    loop_timer_cancel(&listener->retry);
    loop_source_deinit(&listener->source);
    receiver_pool_deinit(&listener->receivers);
    pool_deinit(&listener->senders);
    pool_deinit(&listener->peer_blocks);
    fd_close(listener->fd);
    free(listener);
    return NULL;
}

int listener_bind(const char *path, mode_t mode) {
    return unix_socket_listen(path, SOCK_STREAM, mode, BACKLOG);
}
