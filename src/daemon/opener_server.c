/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/opener_server.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <vmibus/syscalls.h>

#include "daemon/counts.h"
#include "daemon/log.h"
#include "daemon/opener_gate.h"
#include "memory/opener_protocol.h"
#include "util/clock.h"
#include "util/fds.h"
#include "util/list.h"
#include "util/unix_socket.h"

VMIBUS_SYSCALLS("accept4 fork getsockopt ioctl kill socketpair wait4")

#define BACKLOG 16
#define LINES_MAX 20u           /* told of what was refused, in each LINES_MS */
#define LINES_MS 10000u

struct opener_server {
    struct loop *loop;
    const struct opener *inner;
    const struct opener_config *config;
    int fd;
    struct loop_source source;
    struct list askers;
    size_t n_askers;
    struct list children;
    size_t n_children;
    uint64_t lines_until;       /* when the budget of lines is full again */
    unsigned n_lines;
};

/* Who asks: a connection. */
struct asker {
    struct list link;
    struct opener_server *server;
    struct loop_source source;
    struct ucred who;
    struct child *child;        /* has its request; NULL: it may send one */
    int fd;
};

/* Who does it: a process, until it has been waited for. */
struct child {
    struct list link;
    struct opener_server *server;
    struct asker *asker;        /* NULL: nobody waits for it any more */
    struct opener_request request;
    struct loop_source source;
    struct loop_timer timer;
    pid_t pid;
    int fd;                     /* by which it tells; its end is the child's */
};

/* What a child tells, with the descriptor beside it. */
struct outcome {
    int32_t result;
    char refused[96];
};

/* --- lines for the administrator --------------------------------------------------------------- */

/* Who asks must not be able to fill the log. */
static bool may_tell(struct opener_server *server) {
    uint64_t now = clock_now();

    if (now >= server->lines_until) {
        if (server->n_lines > LINES_MAX)
            log_warning("%u further refusals were not told", server->n_lines - LINES_MAX);
        server->n_lines = 0;
        server->lines_until = now + LINES_MS * NS_PER_MS;
    }
    return ++server->n_lines <= LINES_MAX;
}

static const char *verb_name(uint16_t verb) {
    static const char *const names[] = {
        [OPENER_MAPS] = "mappings", [OPENER_PROCESS] = "pidfd", [OPENER_MEMORY] = "memory",
        [OPENER_PAGEMAP] = "pagemap", [OPENER_FILE] = "file", [OPENER_TIGHTEN] = "mode of a file",
        [OPENER_MEMORY_TO_READ] = "memory, to be read,",
    };

    return names[verb];
}

static void tell_refusal(const struct child *child, const struct outcome *outcome) {
    if (!outcome->refused[0] || !may_tell(child->server))
        return;
    if (child->request.verb == OPENER_TIGHTEN)
        log_warning("refused to pid %d: to tighten the %s: %.*s", (int)child->asker->who.pid, verb_name(child->request.verb),
                    (int)sizeof(outcome->refused), outcome->refused);
    else
        log_warning("refused to pid %d: the %s of process %u: %.*s", (int)child->asker->who.pid, verb_name(child->request.verb),
                    child->request.pid, (int)sizeof(outcome->refused), outcome->refused);
}

/* --- askers ------------------------------------------------------------------------------------ */

static void child_leave(struct child *child) {
    (void)kill(child->pid, SIGKILL);
    loop_timer_cancel(&child->timer);
    child->asker->child = NULL;
    child->asker = NULL;
}

static void asker_free(struct asker *asker) {
    if (asker->child)
        child_leave(asker->child);
    loop_source_deinit(&asker->source);
    fd_close(asker->fd);
    list_unlink(&asker->link);
    asker->server->n_askers--;
    free(asker);
}

static void asker_drop(struct asker *asker, const char *why) {
    if (may_tell(asker->server))
        log_warning("pid %d is disconnected: %s", (int)asker->who.pid, why);
    asker_free(asker);
}

/* Ends the request that the asker has. */
static void answer_consume_fd(struct asker *asker, const struct opener_request *request, int result, int fd) {
    struct opener_answer answer = opener_answer_to(request, result);
    int r = opener_send(asker->fd, &answer, sizeof(answer), result == 0 ? fd : -1);

    if (fd >= 0)
        fd_close(fd);
    if (r < 0)
        asker_drop(asker, "it does not take its answers");
}

/* --- children ---------------------------------------------------------------------------------- */

static void child_free(struct child *child) {
    if (child->asker)
        child_leave(child);
    loop_source_deinit(&child->source);
    fd_close(child->fd);
    list_unlink(&child->link);
    child->server->n_children--;
    free(child);
}

static void time_is_up(struct loop_timer *timer) {
    struct child *child = container_of(timer, struct child, timer);
    struct asker *asker = child->asker;
    struct opener_request request = child->request;

    if (may_tell(child->server))
        log_warning("the %s of process %u could not be had within %u ms", verb_name(request.verb), request.pid,
                    child->server->config->timeout_ms);
    child_leave(child);
    answer_consume_fd(asker, &request, -ETIMEDOUT, -1);
}

static void child_tells(struct child *child) {
    struct outcome outcome = {};
    struct asker *asker = child->asker;
    int fds[2], r;
    size_t len, n_fds;

    r = opener_receive(child->fd, &outcome, sizeof(outcome), &len, fds, &n_fds);
    if (r < 0 || len != sizeof(outcome) || n_fds > 1 || !asker) {
        if (r == 0)
            fds_close(fds, n_fds);
        return;
    }
    tell_refusal(child, &outcome);
    loop_timer_cancel(&child->timer);
    asker->child = NULL;
    child->asker = NULL;
    answer_consume_fd(asker, &child->request, outcome.result, n_fds == 1 ? fds[0] : -1);
}

/* Its end of the socket is closed by its end alone, so it need not be waited for long. */
static void child_moves(struct loop_source *source, uint32_t events) {
    struct child *child = container_of(source, struct child, source);
    struct asker *asker;

    if (events & EPOLLIN)
        child_tells(child);
    if (!(events & EPOLLHUP))
        return;
    (void)waitpid(child->pid, NULL, 0);
    asker = child->asker;
    if (asker) {
        asker->child = NULL;
        child->asker = NULL;
        if (may_tell(child->server))
            log_error("the child that was to open the %s of process %u ended without a word", verb_name(child->request.verb),
                      child->request.pid);
        answer_consume_fd(asker, &child->request, -EIO, -1);
    }
    loop_timer_cancel(&child->timer);
    child_free(child);
}

/* In the child. */
static void __attribute__((noreturn)) do_it(const struct opener_server *server, const struct asker *asker,
                                            const struct opener_request *request, int given, int told, pid_t parent) {
    struct outcome outcome = {};
    struct opener_gate gate;
    int result;

    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(EXIT_FAILURE);
    opener_gate_init(&gate, server->inner, server->config, parent, asker->who.pid);
    result = opener_execute(&gate.opener, request, given);
    outcome.result = result < 0 ? result : 0;
    if (result == -EACCES && gate.refused)
        strncpy(outcome.refused, gate.refused, sizeof(outcome.refused) - 1);
    (void)opener_send(told, &outcome, sizeof(outcome), request->verb != OPENER_TIGHTEN ? result : -1);
    counts_leave();
    _exit(EXIT_SUCCESS);
}

static int start_child(struct asker *asker, const struct opener_request *request, int given) {
    struct opener_server *server = asker->server;
    pid_t parent = getpid();
    struct child *child;
    int pair[2], r;

    if (server->n_children >= OPENER_CHILDREN_MAX)
        return -EBUSY;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
        return -errno;
    child = calloc(1, sizeof(*child));
    r = child ? loop_source_init(&child->source, server->loop, pair[0], EPOLLIN, child_moves) : -ENOMEM;
    if (r == 0) {
        child->pid = fork();
        if (child->pid == 0)
            do_it(server, asker, request, given, pair[1], parent);
        r = child->pid < 0 ? -errno : 0;
        if (r < 0)
            loop_source_deinit(&child->source);
    }
    fd_close(pair[1]);
    if (r < 0) {
        free(child);
        fd_close(pair[0]);
        return r;
    }
    child->server = server;
    child->asker = asker;
    child->request = *request;
    child->fd = pair[0];
    loop_timer_init(&child->timer, server->loop, time_is_up);
    list_append(&server->children, &child->link);
    server->n_children++;
    asker->child = child;
    return loop_timer_set(&child->timer, clock_now() + server->config->timeout_ms * NS_PER_MS);
}

/* --- requests ---------------------------------------------------------------------------------- */

static bool has_unread_answer(const struct asker *asker) {
    int octets = 0;

    return ioctl(asker->fd, SIOCOUTQ, &octets) < 0 || octets > 0;
}

/* The connection has ended: @a r says how. */
static void asker_lost(struct asker *asker, int r) {
    if (r == -EPIPE)
        asker_free(asker);
    else
        asker_drop(asker, strerror(-r));
}

static void take_request(struct asker *asker) {
    char octets[sizeof(struct opener_request)];
    struct opener_request request;
    int fds[2], r;
    size_t len, n_fds;

    r = opener_receive(asker->fd, octets, sizeof(octets), &len, fds, &n_fds);
    if (r == -EAGAIN)
        return;
    if (r < 0) {
        asker_lost(asker, r);
        return;
    }
    if (opener_request_parse(octets, len, n_fds, &request) < 0) {
        asker_drop(asker, "what it sent is no request; is it of another version of vmibus?");
    } else if (has_unread_answer(asker)) {
        asker_drop(asker, "it does not read its answers");
    } else {
        r = start_child(asker, &request, fds[0]);
        if (r < 0) {
            if (asker->child)
                child_leave(asker->child);
            answer_consume_fd(asker, &request, r, -1);
        }
    }
    fds_close(fds, n_fds);
}

static void asker_moves(struct loop_source *source, uint32_t events) {
    struct asker *asker = container_of(source, struct asker, source);

    if (asker->child && !(events & (EPOLLHUP | EPOLLERR | EPOLLRDHUP)))
        asker_drop(asker, "it asks again before it was answered");
    else if (asker->child)
        asker_free(asker);
    else
        take_request(asker);
}

static bool may_ask(struct opener_server *server, const struct ucred *who) {
    if (!opener_users_contain(&server->config->memory_users, who->uid)) {
        if (may_tell(server))
            log_warning("uid %u (pid %d) may not ask: [opener] memory-users does not name it", who->uid, (int)who->pid);
        return false;
    }
    if (server->n_askers >= OPENER_ASKERS_MAX) {
        if (may_tell(server))
            log_warning("pid %d is turned away: %u connections are open already", (int)who->pid, OPENER_ASKERS_MAX);
        return false;
    }
    return true;
}

static void take_asker(struct loop_source *source, uint32_t events) {
    struct opener_server *server = container_of(source, struct opener_server, source);
    int fd = accept4(server->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    struct ucred who;
    socklen_t len = sizeof(who);
    struct asker *asker = NULL;

    (void)events;
    if (fd < 0)
        return;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) == 0 && may_ask(server, &who))
        asker = calloc(1, sizeof(*asker));
    if (!asker || loop_source_init(&asker->source, server->loop, fd, EPOLLIN, asker_moves) < 0) {
        free(asker);
        fd_close(fd);
        return;
    }
    asker->server = server;
    asker->fd = fd;
    asker->who = who;
    list_append(&server->askers, &asker->link);
    server->n_askers++;
}

/* --- the server -------------------------------------------------------------------------------- */

/* Who may ask is decided for each connection. */
int opener_server_bind(const char *path) {
    return unix_socket_listen(path, SOCK_SEQPACKET, 0666, BACKLOG);
}

int opener_server_new_consume_fd(struct opener_server **serverp, struct loop *loop, int fd, const struct opener *inner,
                                 const struct opener_config *config) {
    struct opener_server *server = calloc(1, sizeof(*server));
    int r;

    if (!server) {
        fd_close(fd);
        return -ENOMEM;
    }
    server->loop = loop;
    server->fd = fd;
    server->inner = inner;
    server->config = config;
    list_init(&server->askers);
    list_init(&server->children);
    r = loop_source_init(&server->source, loop, fd, EPOLLIN, take_asker);
    if (r < 0) {
        opener_server_free(server);
        return r;
    }
    *serverp = server;
    return 0;
}

struct opener_server *opener_server_free(struct opener_server *server) {
    if (!server)
        return NULL;
    while (!list_is_empty(&server->askers))
        asker_free(list_first(&server->askers, struct asker, link));
    /* They were killed; one that does not die is left to whoever inherits it. */
    while (!list_is_empty(&server->children))
        child_free(list_first(&server->children, struct child, link));
    loop_source_deinit(&server->source);
    fd_close(server->fd);
    free(server);
    return NULL;
}
