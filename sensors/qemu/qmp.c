/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The QMP client.  Owns the socket, the line being gathered, what waits to be sent, and the
 * commands that are unanswered.  Format: QEMU, docs/interop/qmp-spec.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <vmibus/syscalls.h>

#include "qmp.h"

VMIBUS_SYSCALLS("connect recvfrom sendmsg socket")

/*
 * Octets taken from the socket per wakeup, so that a monitor that floods leaves the loop to others.
 */
#define READ_CHUNK ((size_t)1 << 16)
#define MESSAGE_SIZE 384
/* An event older than so many seconds has no true time. */
#define STAMP_AGE_BOUND 3600

enum state {
    STATE_GREETING,
    STATE_NEGOTIATING,
    STATE_READY,
    STATE_FAILED,
};

struct command {
    TAILQ_ENTRY(command) link;
    uint64_t id;
    uint64_t deadline;
    monitor_reply_fn reply;
    void *userdata;
};

TAILQ_HEAD(commands, command);

struct qmp {
    struct monitor monitor;
    const struct vmibus_sensor_api *api;
    struct vmibus_sensor_host *host;
    const struct qmp_callbacks *callbacks;
    void *userdata;

    int fd;
    struct vmibus_sensor_source *source;
    struct vmibus_sensor_timer *timer;
    enum state state;
    bool waiting_told;
    unsigned int depth; /* callbacks in progress */
    uint64_t event_time;

    char *in;
    size_t in_len;
    size_t in_size;
    size_t in_scanned; /* octets known to hold no newline */

    char *out;
    size_t out_len;
    bool out_watched;
    int out_fd;       /* goes with the octet at out_fd_at; -1: none */
    size_t out_fd_at;

    struct commands pending;
    size_t n_pending;
    uint64_t last_id;

    enum qmp_failure failure;
    char message[MESSAGE_SIZE];
};

/* Arms the timer for the greeting, or for the command that is due first: they are due in order. */
static void rearm(struct qmp *qmp) {
    struct command *first = TAILQ_FIRST(&qmp->pending);
    uint64_t now;

    if (qmp->state == STATE_FAILED || !first) {
        if (qmp->state != STATE_GREETING)
            qmp->api->timer_set(qmp->timer, 0);
        return;
    }
    now = qmp->api->now();
    qmp->api->timer_set(qmp->timer, first->deadline > now ? first->deadline - now : 1);
}

static void tell(struct qmp *qmp, struct command *command, const struct monitor_reply *reply) {
    TAILQ_REMOVE(&qmp->pending, command, link);
    qmp->n_pending--;
    if (command->reply)
        command->reply(command->userdata, reply);
    free(command);
}

/* Ends the connection for good: nothing of it can wake the loop any more. */
static void disconnect(struct qmp *qmp) {
    qmp->api->unwatch_fd(qmp->source);
    qmp->source = NULL;
    if (qmp->fd >= 0)
        close(qmp->fd);
    if (qmp->out_fd >= 0)
        close(qmp->out_fd);
    qmp->fd = qmp->out_fd = -1;
}

/*
 * Tells everybody about a failure, once no callback is in progress; the client may be gone on
 * return.
 */
static void finish_failure(struct qmp *qmp) {
    const struct monitor_reply lost = {.outcome = MONITOR_LOST};
    char message[MESSAGE_SIZE]; /* the client may end before its message has been used */
    struct command *command;

    memcpy(message, qmp->message, sizeof(message));
    qmp->depth++;
    while ((command = TAILQ_FIRST(&qmp->pending)))
        tell(qmp, command, &lost);
    qmp->depth--;
    rearm(qmp);
    qmp->callbacks->failed(qmp->userdata, qmp->failure, message);
}

static void __attribute__((format(printf, 3, 4)))
fail(struct qmp *qmp, enum qmp_failure failure, const char *format, ...) {
    va_list arguments;

    if (qmp->state == STATE_FAILED)
        return;
    qmp->state = STATE_FAILED;
    qmp->failure = failure;
    va_start(arguments, format);
    vsnprintf(qmp->message, sizeof(qmp->message), format, arguments);
    va_end(arguments);
    disconnect(qmp);
}

/* Sends what is before the descriptor, or the descriptor with what comes after. As send(2). */
static ssize_t send_some(struct qmp *qmp) {
    bool has_fd = qmp->out_fd >= 0 && qmp->out_fd_at == 0;
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {.header = {.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
    struct iovec octets = {.iov_base = qmp->out,
                           .iov_len = qmp->out_fd >= 0 && !has_fd ? qmp->out_fd_at : qmp->out_len};
    struct msghdr message = {.msg_iov = &octets, .msg_iovlen = 1};
    ssize_t n;

    if (has_fd) {
        memcpy(CMSG_DATA(&control.header), &qmp->out_fd, sizeof(int));
        message.msg_control = &control;
        message.msg_controllen = sizeof(control.room);
    }
    n = sendmsg(qmp->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0 && has_fd) {
        close(qmp->out_fd);
        qmp->out_fd = -1;
    } else if (n > 0 && qmp->out_fd >= 0) {
        qmp->out_fd_at -= (size_t)n;
    }

    return n;
}

static void flush(struct qmp *qmp) {
    bool wanted;

    while (qmp->out_len) {
        ssize_t n = send_some(qmp);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            break;
        if (n < 0) {
            fail(qmp, QMP_CLOSED, "sending failed: %s", strerror(errno));
            return;
        }
        qmp->out_len -= (size_t)n;
        memmove(qmp->out, qmp->out + n, qmp->out_len);
    }

    wanted = qmp->out_len != 0;
    if (wanted != qmp->out_watched) {
        qmp->out_watched = wanted;
        qmp->api->change_fd(qmp->source, wanted ? EPOLLIN | EPOLLOUT : EPOLLIN);
    }
}

static int append_out(struct qmp *qmp, const char *text, size_t len) {
    char *out;

    if (len + 2 > QMP_OUT_BOUND - qmp->out_len)
        return -ENOBUFS;
    out = realloc(qmp->out, qmp->out_len + len + 2);
    if (!out)
        return -ENOMEM;
    qmp->out = out;
    memcpy(out + qmp->out_len, text, len);
    memcpy(out + qmp->out_len + len, "\r\n", 2);
    qmp->out_len += len + 2;

    return 0;
}

static int send_command(struct qmp *qmp, const char *name, json_object *arguments,
                        monitor_reply_fn reply, void *userdata) {
    json_object *request = json_object_new_object();
    struct command *command = calloc(1, sizeof(*command));
    const char *text;
    size_t len;
    int r;

    if (!request || !command) {
        json_object_put(arguments);
        r = -ENOMEM;
        goto out;
    }
    command->id = ++qmp->last_id;
    command->deadline = qmp->api->now() + MONITOR_DEADLINE_NS;
    command->reply = reply;
    command->userdata = userdata;

    if (arguments && json_object_object_add(request, "arguments", arguments) < 0) {
        json_object_put(arguments);
        r = -ENOMEM;
        goto out;
    }
    if (json_object_object_add(request, "execute", json_object_new_string(name)) < 0 ||
        json_object_object_add(request, "id", json_object_new_uint64(command->id)) < 0) {
        r = -ENOMEM;
        goto out;
    }
    text = json_object_to_json_string_length(request, JSON_C_TO_STRING_PLAIN, &len);
    r = text ? append_out(qmp, text, len) : -ENOMEM;
    if (r < 0)
        goto out;

    TAILQ_INSERT_TAIL(&qmp->pending, command, link);
    qmp->n_pending++;
    if (qmp->n_pending == 1)
        rearm(qmp);
    command = NULL;
out:
    free(command);
    json_object_put(request);

    return r;
}

/* Runs when the stack holds no callback of ours any more: a failure met deeper down is told now. */
static bool settle(struct qmp *qmp) {
    if (qmp->state != STATE_FAILED)
        return true;
    if (!qmp->depth)
        finish_failure(qmp);

    return false;
}

int qmp_execute(struct qmp *qmp, const char *command, json_object *arguments, monitor_reply_fn reply,
                void *userdata) {
    return qmp_execute_with_fd(qmp, command, arguments, -1, reply, userdata);
}

int qmp_execute_with_fd(struct qmp *qmp, const char *command, json_object *arguments, int fd,
                        monitor_reply_fn reply, void *userdata) {
    size_t at = qmp->out_len;
    int r, copy = -1;

    if (!qmp_is_ready(qmp) || qmp->n_pending >= QMP_PENDING_BOUND || (fd >= 0 && qmp->out_fd >= 0)) {
        json_object_put(arguments);
        return !qmp_is_ready(qmp) ? -ENOTCONN : fd >= 0 && qmp->out_fd >= 0 ? -EBUSY : -ENOBUFS;
    }
    if (fd >= 0 && (copy = fcntl(fd, F_DUPFD_CLOEXEC, 0)) < 0) {
        r = -errno;
        json_object_put(arguments);
        return r;
    }
    r = send_command(qmp, command, arguments, reply, userdata);
    if (r < 0) {
        if (copy >= 0)
            close(copy);
        return r;
    }
    if (copy >= 0) {
        qmp->out_fd = copy;
        qmp->out_fd_at = at;
    }

    flush(qmp);
    if (qmp->state == STATE_FAILED && !qmp->depth)
        qmp->api->timer_set(qmp->timer,
                            1); /* the caller is not to meet its own callbacks in here */

    return 0;
}

int qmp_execute_human(struct qmp *qmp, const char *line, monitor_reply_fn reply, void *userdata) {
    json_object *arguments = json_object_new_object();

    if (!arguments ||
        json_object_object_add(arguments, "command-line", json_object_new_string(line)) < 0) {
        json_object_put(arguments);
        return -ENOMEM;
    }

    return qmp_execute(qmp, "human-monitor-command", arguments, reply, userdata);
}

static void negotiated(void *userdata, const struct monitor_reply *reply) {
    struct qmp *qmp = userdata;

    if (reply->outcome == MONITOR_LOST)
        return;
    if (reply->outcome == MONITOR_ERROR) {
        fail(qmp, QMP_REFUSED, "the monitor refused the negotiation: %.200s", reply->error_text);
        return;
    }
    qmp->state = STATE_READY;
    qmp->callbacks->ready(qmp->userdata);
}

static void take_greeting(struct qmp *qmp, json_object *line) {
    json_object *greeting = monitor_member(line, "QMP", json_type_object);
    int r;

    if (!greeting || !monitor_member(greeting, "version", json_type_object)) {
        fail(qmp, QMP_GARBAGE, "the first line is not a QMP greeting");
        return;
    }
    qmp->state = STATE_NEGOTIATING;
    r = send_command(qmp, "qmp_capabilities", NULL, negotiated, qmp);
    if (r < 0)
        fail(qmp, QMP_SYSTEM, "the negotiation could not be sent: %s", strerror(-r));
    else
        flush(qmp);
}

static void take_reply(struct qmp *qmp, json_object *line) {
    json_object *id = monitor_member(line, "id", json_type_int), *error;
    struct monitor_reply reply = {.outcome = MONITOR_RETURN};
    struct command *command;
    uint64_t number = id ? json_object_get_uint64(id) : 0;

    TAILQ_FOREACH(command, &qmp->pending, link)
    if (command->id == number)
        break;
    if (!command) {
        fail(qmp, QMP_GARBAGE, "an answer to a command that was not given");
        return;
    }

    error = monitor_member(line, "error", json_type_object);
    if (error) {
        reply.outcome = MONITOR_ERROR;
        reply.error_class = monitor_string(error, "class");
        reply.error_text = monitor_string(error, "desc");
        if (!reply.error_class || !reply.error_text) {
            fail(qmp, QMP_GARBAGE, "an error without class or description");
            return;
        }
    } else if (!json_object_object_get_ex(line, "return", &reply.value)) {
        fail(qmp, QMP_GARBAGE, "an answer with neither return nor error");
        return;
    }
    tell(qmp, command, &reply);
    rearm(qmp);
}

static int64_t integer(json_object *object, const char *key) {
    json_object *value = monitor_member(object, key, json_type_int);

    return value ? json_object_get_int64(value) : -1;
}

/* Events carry the time of day (QEMU, docs/interop/qmp-spec.txt); -1 where it is not known. */
static uint64_t time_of(struct qmp *qmp, json_object *line) {
    json_object *stamp = monitor_member(line, "timestamp", json_type_object);
    int64_t seconds = integer(stamp, "seconds"), microseconds = integer(stamp, "microseconds"), age;
    uint64_t now = qmp->api->now();
    struct timespec today;

    clock_gettime(CLOCK_REALTIME, &today);
    if (seconds < 0 || microseconds < 0 || microseconds >= 1000000 || seconds > today.tv_sec ||
        today.tv_sec - seconds > STAMP_AGE_BOUND)
        return now;
    age = ((int64_t)today.tv_sec - seconds) * 1000000000 + today.tv_nsec - microseconds * 1000;

    return age > 0 && (uint64_t)age < now ? now - (uint64_t)age : now;
}

uint64_t qmp_event_time(const struct qmp *qmp) {
    return qmp->event_time;
}

static void take_event(struct qmp *qmp, json_object *line) {
    const char *name = monitor_string(line, "event");

    if (!name) {
        fail(qmp, QMP_GARBAGE, "an event without a name");
        return;
    }
    if (qmp->state != STATE_READY)
        return;
    qmp->event_time = time_of(qmp, line);
    qmp->callbacks->event(qmp->userdata, name, monitor_member(line, "data", json_type_object));
}

static void take_line(struct qmp *qmp, const char *text, size_t len) {
    struct json_tokener *tokener;
    json_object *line;

    tokener = json_tokener_new_ex(QMP_DEPTH_BOUND);
    if (!tokener) {
        fail(qmp, QMP_SYSTEM, "out of memory");
        return;
    }
    json_tokener_set_flags(tokener, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
    line = json_tokener_parse_ex(tokener, text, (int)len);
    if (!line || json_tokener_get_error(tokener) != json_tokener_success ||
        json_tokener_get_parse_end(tokener) != len || !json_object_is_type(line, json_type_object))
        fail(qmp, QMP_GARBAGE, "a line of %zu octets is not a json object of at most %d levels",
             len, QMP_DEPTH_BOUND);
    else if (qmp->state == STATE_GREETING)
        take_greeting(qmp, line);
    else if (json_object_object_get_ex(line, "event", NULL))
        take_event(qmp, line);
    else
        take_reply(qmp, line);
    json_object_put(line);
    json_tokener_free(tokener);
}

/* Takes the complete lines out of what was gathered, as far as the connection holds. */
static void take_lines(struct qmp *qmp) {
    size_t begin = 0;
    char *end;

    while (qmp->state != STATE_FAILED &&
           (end = memchr(qmp->in + qmp->in_scanned, '\n', qmp->in_len - qmp->in_scanned))) {
        size_t next = (size_t)(end - qmp->in) + 1, len = next - 1 - begin;

        if (len && qmp->in[begin + len - 1] == '\r')
            len--;
        qmp->in_scanned = next;
        if (len)
            take_line(qmp, qmp->in + begin, len);
        begin = next;
    }
    qmp->in_len -= begin;
    memmove(qmp->in, qmp->in + begin, qmp->in_len);
    qmp->in_scanned = qmp->in_len;
    if (qmp->in_len >= QMP_LINE_BOUND)
        fail(qmp, QMP_GARBAGE, "a line is longer than %zu octets", QMP_LINE_BOUND);
}

static void receive(struct qmp *qmp) {
    size_t room;
    ssize_t n;
    char *in;

    if (qmp->in_size - qmp->in_len < READ_CHUNK) {
        in = realloc(qmp->in, qmp->in_len + READ_CHUNK);
        if (!in) {
            fail(qmp, QMP_SYSTEM, "out of memory");
            return;
        }
        qmp->in = in;
        qmp->in_size = qmp->in_len + READ_CHUNK;
    }
    room = qmp->in_size - qmp->in_len;
    n = recv(qmp->fd, qmp->in + qmp->in_len, room < READ_CHUNK ? room : READ_CHUNK, MSG_DONTWAIT);
    if (n < 0) {
        if (errno != EINTR && errno != EAGAIN)
            fail(qmp, QMP_CLOSED, "receiving failed: %s", strerror(errno));
        return;
    }
    if (n == 0) {
        fail(qmp, QMP_CLOSED, "the monitor closed the connection");
        return;
    }
    qmp->in_len += (size_t)n;
    take_lines(qmp);
}

static void on_socket(void *userdata, uint32_t events) {
    struct qmp *qmp = userdata;

    qmp->depth++;
    if (events & EPOLLOUT)
        flush(qmp);
    if (qmp->state != STATE_FAILED && (events & ~(uint32_t)EPOLLOUT))
        receive(qmp);
    qmp->depth--;
    settle(qmp);
}

static void on_timer(void *userdata) {
    struct qmp *qmp = userdata;
    struct command *first = TAILQ_FIRST(&qmp->pending);

    if (!settle(qmp))
        return;
    if (qmp->state == STATE_GREETING) {
        if (!qmp->waiting_told) {
            qmp->waiting_told = true;
            qmp->depth++;
            qmp->callbacks->waiting(qmp->userdata);
            qmp->depth--;
        }
        return;
    }
    if (!first)
        return;
    if (first->deadline <= qmp->api->now()) {
        /* The answer may be here already, and our own loop be what was late. */
        qmp->depth++;
        receive(qmp);
        qmp->depth--;
        if (!settle(qmp))
            return;
        first = TAILQ_FIRST(&qmp->pending);
    }
    if (!first || first->deadline > qmp->api->now()) {
        rearm(qmp);
        return;
    }
    fail(qmp, QMP_SILENT, "a command was not answered within %u s",
         (unsigned int)(MONITOR_DEADLINE_NS / 1000000000));
    settle(qmp);
}

static int connect_to(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t len = strlen(path);
    int fd, r;

    if (!len || len >= sizeof(address.sun_path))
        return -ENAMETOOLONG;
    memcpy(address.sun_path, path, len);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0) {
        r = -errno;
        close(fd);
        return r;
    }

    return fd;
}

/* --- as a monitor ---------------------------------------------------------------------------- */

static struct qmp *of(const struct monitor *monitor) {
    return (struct qmp *)((uintptr_t)monitor - offsetof(struct qmp, monitor));
}

static bool monitor_ready(const struct monitor *monitor) {
    return qmp_is_ready(of(monitor));
}

static int monitor_command(struct monitor *monitor, const char *command, json_object *arguments, monitor_reply_fn reply,
                           void *userdata) {
    return qmp_execute(of(monitor), command, arguments, reply, userdata);
}

static int monitor_human(struct monitor *monitor, const char *line, monitor_reply_fn reply, void *userdata) {
    return qmp_execute_human(of(monitor), line, reply, userdata);
}

static void monitor_last_words(struct monitor *monitor, int timeout_ms) {
    qmp_linger(of(monitor), timeout_ms);
}

static const struct monitor_ops monitor_ops = {
    .is_ready = monitor_ready,
    .execute = monitor_command,
    .execute_human = monitor_human,
    .linger = monitor_last_words,
};

struct monitor *qmp_monitor(struct qmp *qmp) {
    return &qmp->monitor;
}

int qmp_new(struct qmp **qmpp, const struct vmibus_sensor_api *api, struct vmibus_sensor_host *host,
            const char *path, const struct qmp_callbacks *callbacks, void *userdata) {
    struct qmp *qmp;
    int r, fd;

    fd = connect_to(path);
    if (fd == -ENOENT || fd == -ECONNREFUSED || fd == -ENOTDIR)
        return QMP_ABSENT;
    if (fd == -EAGAIN)
        return QMP_IN_USE;
    if (fd < 0)
        return fd;

    qmp = calloc(1, sizeof(*qmp));
    if (!qmp) {
        close(fd);
        return -ENOMEM;
    }
    qmp->monitor.ops = &monitor_ops;
    qmp->api = api;
    qmp->host = host;
    qmp->callbacks = callbacks;
    qmp->userdata = userdata;
    qmp->fd = fd;
    qmp->out_fd = -1;
    TAILQ_INIT(&qmp->pending);
    r = api->timer_new(host, on_timer, qmp, &qmp->timer);
    if (r >= 0)
        r = api->watch_fd(host, fd, EPOLLIN, on_socket, qmp, &qmp->source);
    if (r < 0) {
        qmp_free(qmp);
        return r;
    }
    api->timer_set(qmp->timer, QMP_GREETING_NS);
    *qmpp = qmp;

    return 0;
}

struct qmp *qmp_free(struct qmp *qmp) {
    struct command *command;

    if (!qmp)
        return NULL;
    assert(!qmp->depth);

    disconnect(qmp);
    qmp->api->timer_free(qmp->timer);
    while ((command = TAILQ_FIRST(&qmp->pending))) {
        TAILQ_REMOVE(&qmp->pending, command, link);
        qmp->n_pending--;
        free(command);
    }
    assert(!qmp->n_pending);
    free(qmp->in);
    free(qmp->out);
    free(qmp);

    return NULL;
}

/* Whether an answer to the last command is among the octets. */
static bool has_last_answer(const struct qmp *qmp, const char *text) {
    const char *id = "\"id\":";
    char *end;

    while ((text = strstr(text, id))) {
        text += strlen(id);
        if (strtoull(text, &end, 10) == qmp->last_id && end != text)
            return true;
    }

    return false;
}

/* Takes what is there; what may be a part of an answer is kept. Returns whether the answer was there, or the peer is gone. */
static bool take_last_words(const struct qmp *qmp, char *text, size_t size) {
    const size_t part = 64;
    size_t len = strlen(text);
    ssize_t n;

    while ((n = recv(qmp->fd, text + len, size - 1 - len, MSG_DONTWAIT)) > 0) {
        len += (size_t)n;
        text[len] = 0;
        if (has_last_answer(qmp, text))
            return true;
        if (len > part) {
            memmove(text, text + len - part, part + 1);
            len = part;
        }
    }

    return n == 0 || errno != EAGAIN;
}

static int64_t milliseconds(void) {
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);

    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void qmp_linger(struct qmp *qmp, int timeout_ms) {
    struct pollfd poll_fd = {.fd = qmp->fd, .events = POLLIN};
    int64_t until = milliseconds() + timeout_ms, left = timeout_ms;
    char text[4096] = "";

    while (poll_fd.fd >= 0 && left > 0 && !take_last_words(qmp, text, sizeof(text))) {
        poll(&poll_fd, 1, (int)left);
        left = until - milliseconds();
    }
}

int qmp_socket(const struct qmp *qmp) {
    return qmp->fd;
}

bool qmp_is_ready(const struct qmp *qmp) {
    return qmp->state == STATE_READY;
}
