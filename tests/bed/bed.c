/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bed: owns the life of a test's QEMU, and the test's two connections to it.
 *
 * How QEMU is called is tests/guest/run-guest's business alone: this file runs it as a child, which
 * then becomes QEMU, and reads what it prints. Serial port and oracle are socket pairs that the
 * child inherits, so there is nothing to wait for and nothing to clean up; only the product's
 * monitor is a path.
 *
 * Two things clean up after a test that has died: QEMU gets SIGKILL as parent-death signal, and a
 * warden process, which does nothing but watch the test, removes the directory.
 */
#define _GNU_SOURCE
#include "bed.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Building the initrd for the first time, behind another builder's lock, is part of starting. */
#define START_MS 120000
#define QMP_MS 60000

/* The child's numbers for its two sockets. */
#define CHILD_ORACLE_FD 3
#define CHILD_SERIAL_FD 4

#define RUN_GUEST "tests/guest/run-guest"

/* Bytes that have come, and how far they have been looked at. Always ends with a zero byte. */
struct stream {
    char *bytes;
    size_t len;
    size_t cursor;
};

struct bed_private {
    int warden_fd;
    bool reaped;
    int status;
    struct stream serial;
    struct stream oracle;
    json_object *events; /* array, oldest first */
    char error[1024];
};

static char start_error[1024];

__attribute__((format(printf, 2, 3))) static void set_error(struct bed *bed, const char *format,
                                                            ...)
{
    va_list args;

    va_start(args, format);
    if (bed)
        vsnprintf(bed->private->error, sizeof(bed->private->error), format, args);
    else
        vsnprintf(start_error, sizeof(start_error), format, args);
    va_end(args);
}

const char *bed_error(const struct bed *bed)
{
    return bed ? bed->private->error : start_error;
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* ---- time and streams ------------------------------------------------------------------------ */

static int64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

/* Waits until fd has something to say (or has hung up), until a deadline. */
static int await_fd(int fd, short events, int64_t deadline)
{
    for (;;) {
        struct pollfd poll_fd = {.fd = fd, .events = events};
        int64_t left = deadline - now_ms();
        int n = poll(&poll_fd, 1, left < 0 ? 0 : (int)left);

        if (n > 0)
            return 0;
        if (n == 0 && left <= 0)
            return -ETIMEDOUT;
        if (n < 0 && errno != EINTR)
            return -errno;
    }
}

/* Takes what has come on fd; waits for it until the deadline. -EPIPE at the end. */
static int stream_fill(struct stream *stream, int fd, int64_t deadline)
{
    char chunk[16384];
    char *bytes;
    ssize_t n;
    int r;

    r = await_fd(fd, POLLIN, deadline);
    if (r < 0)
        return r;
    n = read(fd, chunk, sizeof(chunk));
    if (n < 0)
        return errno == EINTR || errno == EAGAIN ? 0 : errno == ECONNRESET ? -EPIPE : -errno;
    if (n == 0)
        return -EPIPE;
    bytes = realloc(stream->bytes, stream->len + n + 1);
    if (!bytes)
        return -ENOMEM;
    memcpy(bytes + stream->len, chunk, n);
    stream->bytes = bytes;
    stream->len += n;
    bytes[stream->len] = 0;
    return 0;
}

/* The next whole line, without its end, copied; NULL when there is none yet. */
static char *stream_line(struct stream *stream)
{
    char *start, *end, *line;

    if (stream->cursor == stream->len)
        return NULL;
    start = stream->bytes + stream->cursor;
    end = memchr(start, '\n', stream->len - stream->cursor);
    if (!end)
        return NULL;
    stream->cursor = end + 1 - stream->bytes;
    line = strndup(start, end - start);
    if (line)
        line[strcspn(line, "\r")] = 0;
    return line;
}

static int write_all(int fd, const char *bytes, size_t len, int64_t deadline)
{
    while (len) {
        ssize_t n;
        int r = await_fd(fd, POLLOUT, deadline);

        if (r < 0)
            return r;
        n = send(fd, bytes, len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno != EINTR && errno != EAGAIN)
            return -errno;
        if (n > 0) {
            bytes += n;
            len -= n;
        }
    }
    return 0;
}

/* ---- finding and asking run-guest ------------------------------------------------------------ */

/* Looks for the source tree in a directory and all above it. */
static bool find_above(const char *directory, char *path, size_t size)
{
    char at[PATH_MAX];
    char *slash;

    snprintf(at, sizeof(at), "%s", directory);
    for (;;) {
        if ((size_t)snprintf(path, size, "%s/" RUN_GUEST, at) < size && access(path, X_OK) == 0)
            return true;
        slash = strrchr(at, '/');
        if (!slash)
            return false;
        *slash = 0;
    }
}

/*
 * VMIBUS_SOURCE_DIR names the source tree: in the environment (as does top_srcdir, under make
 * check), or at compile time. Else it is looked for above the program and the working directory.
 */
static int find_run_guest(char *path, size_t size)
{
    const char *source = getenv("VMIBUS_SOURCE_DIR");
    char at[PATH_MAX];
    ssize_t n;

    if (!source)
        source = getenv("top_srcdir");
#ifdef VMIBUS_SOURCE_DIR
    if (!source)
        source = VMIBUS_SOURCE_DIR;
#endif
    if (source && (size_t)snprintf(path, size, "%s/" RUN_GUEST, source) < size &&
        access(path, X_OK) == 0)
        return 0;
    n = readlink("/proc/self/exe", at, sizeof(at) - 1);
    if (n > 0) {
        at[n] = 0;
        if (find_above(at, path, size))
            return 0;
    }
    if (getcwd(at, sizeof(at)) && find_above(at, path, size))
        return 0;
    set_error(NULL, RUN_GUEST " is not to be found; set VMIBUS_SOURCE_DIR to the source tree");
    return -ENOENT;
}

/*
 * In the child: takes its descriptors, drops all others and the parent's signal settings, and
 * becomes run-guest. Only async-signal-safe calls, since the test may have threads.
 */
__attribute__((noreturn)) static void child_exec(char *const *argv, int out_fd, int oracle_fd,
                                                 int serial_fd, pid_t parent)
{
    struct sigaction action = {.sa_handler = SIG_DFL};
    sigset_t none;
    int null_fd;

    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(127);
    for (int number = 1; number < NSIG; number++)
        sigaction(number, &action, NULL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);

    /* First out of the way of the numbers that they are to have. */
    out_fd = fcntl(out_fd, F_DUPFD, 10);
    oracle_fd = oracle_fd < 0 ? -1 : fcntl(oracle_fd, F_DUPFD, 10);
    serial_fd = serial_fd < 0 ? -1 : fcntl(serial_fd, F_DUPFD, 10);
    null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (dup2(null_fd, 0) < 0 || dup2(out_fd, 1) < 0 || dup2(out_fd, 2) < 0)
        _exit(127);
    if (oracle_fd >= 0)
        dup2(oracle_fd, CHILD_ORACLE_FD);
    if (serial_fd >= 0)
        dup2(serial_fd, CHILD_SERIAL_FD);
    close_range(oracle_fd >= 0 ? CHILD_SERIAL_FD + 1 : 3, ~0U, 0);
    execv(argv[0], argv);
    _exit(127);
}

/*
 * Runs run-guest, with its output (of both kinds) on a pipe. The pipe ends when it has become QEMU,
 * or has failed.
 */
static int spawn(char *const *argv, int oracle_fd, int serial_fd, pid_t *pid, int *out_fd)
{
    pid_t parent = getpid();
    int out[2];

    if (pipe2(out, O_CLOEXEC) < 0)
        return -errno;
    *pid = fork();
    if (*pid == 0)
        child_exec(argv, out[1], oracle_fd, serial_fd, parent);
    if (*pid < 0) {
        int r = -errno;

        close(out[0]);
        close(out[1]);
        return r;
    }
    setpgid(*pid, *pid);
    close(out[1]);
    *out_fd = out[0];
    return 0;
}

/* Reads all of it until the end; what stands in the stream is the caller's to free. */
static int read_to_end(int fd, struct stream *text, int timeout_ms)
{
    int64_t deadline = now_ms() + timeout_ms;
    int r;

    do {
        r = stream_fill(text, fd, deadline);
    } while (r == 0);
    return r == -EPIPE ? 0 : r;
}

struct verdict {
    bool known, available;
    char reason[sizeof(start_error)];
};

/* Asks run-guest, once, whether it could. */
static bool judge(struct verdict *verdict, const char *option, const char *value, const char **reason)
{
    char path[PATH_MAX];
    const char *argv[] = {path, "--check", option, value, NULL};
    struct stream text = {0};
    int fd, status = -1;
    pid_t pid;

    if (!verdict->known) {
        verdict->known = true;
        if (find_run_guest(path, sizeof(path)) < 0) {
            snprintf(verdict->reason, sizeof(verdict->reason), "%s", start_error);
        } else if (spawn((char **)argv, -1, -1, &pid, &fd) == 0) {
            if (read_to_end(fd, &text, START_MS) < 0)
                kill(-pid, SIGKILL);
            close(fd);
            waitpid(pid, &status, 0);
            verdict->available = status == 0;
            if (text.bytes)
                text.bytes[strcspn(text.bytes, "\n")] = 0;
            snprintf(verdict->reason, sizeof(verdict->reason), "%s",
                     text.bytes ? text.bytes : "run-guest --check failed");
            free(text.bytes);
        } else {
            snprintf(verdict->reason, sizeof(verdict->reason), "no process can be started");
        }
    }
    if (reason)
        *reason = verdict->available ? "" : verdict->reason;
    return verdict->available;
}

bool bed_available(bool firmware_only, const char **reason)
{
    static struct verdict verdicts[2];

    return judge(&verdicts[firmware_only], firmware_only ? "--firmware-only" : NULL, NULL, reason);
}

bool bed_flavour_available(const char *flavour, const char **reason)
{
    static struct verdict verdict;
    static char known[32];

    if (strcmp(known, flavour) != 0) {
        snprintf(known, sizeof(known), "%s", flavour);
        verdict.known = false;
    }
    return judge(&verdict, "--kernel", flavour, reason);
}

/* ---- the directory and its warden ------------------------------------------------------------ */

/* Also removes the memory file in /dev/shm, to which run-guest leaves a link. */
static const char remove_script[] =
    "if [ -L \"$1/ram\" ]; then rm -f \"$(readlink \"$1/ram\")\"; fi\n"
    "exec rm -rf \"$1\"\n";

__attribute__((noreturn)) static void remove_exec(const char *directory)
{
    execl("/bin/sh", "sh", "-c", remove_script, "sh", directory, NULL);
    _exit(127);
}

/* Waits for the test to end (then removes) or to say that it does so itself. */
__attribute__((noreturn)) static void warden_main(int pid_fd, int talk_fd, const char *directory)
{
    struct pollfd fds[2] = {
        {.fd = pid_fd, .events = POLLIN},
        {.fd = talk_fd, .events = POLLIN},
    };
    char said;

    setsid();
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_NAME, "bed-warden");
    /* Whatever else it inherited it must not keep open: somebody may wait for that to hang up. */
    for (int i = 0; i < 2; i++) {
        fds[i].fd = fcntl(fds[i].fd, F_DUPFD_CLOEXEC, 10);
        if (fds[i].fd < 0 || dup2(fds[i].fd, 100 + i) < 0)
            _exit(127);
        fds[i].fd = 100 + i;
    }
    close_range(0, 99, 0);
    close_range(102, ~0U, 0);
    for (int i = 0; i < 3; i++) {
        if (open("/dev/null", O_RDWR) < 0)
            _exit(127);
    }
    for (;;) {
        if (poll(fds, 2, -1) < 0)
            continue;
        if (fds[1].revents && read(fds[1].fd, &said, 1) == 1)
            _exit(0);
        if (fds[0].revents)
            remove_exec(directory);
        /* Hung up, but alive: the child of a fork has closed it, perhaps. The pidfd decides. */
        fds[1].fd = -1;
    }
}

/*
 * The warden is nobody's child, so that a test that waits for any child never meets it, and in a
 * session of its own, so that a test harness that kills its process group does not kill it.
 */
static int warden_start(const char *directory, int *talk_fd)
{
    int talk[2], pid_fd, status;
    pid_t between;

    pid_fd = syscall(SYS_pidfd_open, getpid(), 0);
    if (pid_fd < 0)
        return -errno;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, talk) < 0) {
        int r = -errno;

        close(pid_fd);
        return r;
    }
    between = fork();
    if (between == 0) {
        pid_t warden = fork();

        if (warden == 0)
            warden_main(pid_fd, talk[1], directory);
        _exit(warden < 0);
    }
    close(pid_fd);
    close(talk[1]);
    if (between < 0 || waitpid(between, &status, 0) < 0 || status != 0) {
        close(talk[0]);
        return -EAGAIN;
    }
    *talk_fd = talk[0];
    return 0;
}

/* Sends the warden home and waits until it has gone. */
static void warden_stop(int *talk_fd)
{
    char said;

    if (*talk_fd < 0)
        return;
    if (send(*talk_fd, "q", 1, MSG_NOSIGNAL) == 1 &&
        await_fd(*talk_fd, POLLIN, now_ms() + 5000) == 0 && read(*talk_fd, &said, 1) < 0)
        errno = 0; /* it hung up hard; it has gone all the same */
    close_fd(talk_fd);
}

static void remove_directory(const char *directory)
{
    pid_t pid = fork();

    if (pid == 0)
        remove_exec(directory);
    if (pid > 0)
        waitpid(pid, NULL, 0);
}

/* ---- the oracle ------------------------------------------------------------------------------ */

/* The next message on the monitor: greeting, answer or event. */
static int oracle_message(struct bed *bed, int64_t deadline, json_object **message)
{
    struct stream *stream = &bed->private->oracle;
    char *line;
    int r;

    while (!(line = stream_line(stream))) {
        /* Answers are long, and nobody needs the old ones. */
        if (stream->cursor == stream->len)
            stream->cursor = stream->len = 0;
        r = stream_fill(stream, bed->oracle_fd, deadline);
        if (r < 0) {
            set_error(bed, "monitor: %s", r == -EPIPE ? "QEMU has gone" : strerror(-r));
            return r;
        }
    }
    *message = json_tokener_parse(line);
    if (!*message) {
        set_error(bed, "monitor: not JSON: %.200s", line);
        free(line);
        return -EBADMSG;
    }
    free(line);
    return 0;
}

/* The next message that is no event; events are kept. */
static int oracle_answer(struct bed *bed, int64_t deadline, json_object **answer)
{
    for (;;) {
        json_object *message;
        int r = oracle_message(bed, deadline, &message);

        if (r < 0)
            return r;
        if (!json_object_object_get_ex(message, "event", NULL)) {
            *answer = message;
            return 0;
        }
        json_object_array_add(bed->private->events, message);
    }
}

int bed_qmp(struct bed *bed, const char *command, const char *arguments, json_object **result)
{
    int64_t deadline = now_ms() + QMP_MS;
    json_object *answer, *part;
    char *text;
    int len, r;

    if (arguments)
        len = asprintf(&text, "{\"execute\":\"%s\",\"arguments\":%s}\n", command, arguments);
    else
        len = asprintf(&text, "{\"execute\":\"%s\"}\n", command);
    if (len < 0)
        return -ENOMEM;
    r = write_all(bed->oracle_fd, text, len, deadline);
    free(text);
    if (r < 0) {
        set_error(bed, "monitor: %s: %s", command, strerror(-r));
        return r;
    }
    r = oracle_answer(bed, deadline, &answer);
    if (r < 0)
        return r;
    if (json_object_object_get_ex(answer, "error", &part)) {
        set_error(bed, "monitor: %s: %s", command, json_object_to_json_string(part));
        r = -EREMOTEIO;
    } else if (result) {
        json_object_object_get_ex(answer, "return", &part);
        *result = json_object_get(part);
    }
    json_object_put(answer);
    return r;
}

int bed_hmp(struct bed *bed, const char *command, char **text)
{
    json_object *arguments = json_object_new_object(), *result = NULL;
    int r;

    json_object_object_add(arguments, "command-line", json_object_new_string(command));
    r = bed_qmp(bed, "human-monitor-command", json_object_to_json_string(arguments), &result);
    json_object_put(arguments);
    if (r < 0)
        return r;
    if (text)
        *text = strdup(json_object_get_string(result));
    json_object_put(result);
    return text && !*text ? -ENOMEM : 0;
}

int bed_wait_event(struct bed *bed, const char *name, int timeout_ms, json_object **event)
{
    int64_t deadline = now_ms() + timeout_ms;
    json_object *events = bed->private->events;

    for (size_t i = 0;; i++) {
        json_object *message, *part;
        int r;

        while (i >= json_object_array_length(events)) {
            r = oracle_message(bed, deadline, &message);
            if (r < 0)
                return r;
            json_object_array_add(events, message);
        }
        message = json_object_array_get_idx(events, i);
        if (!json_object_object_get_ex(message, "event", &part) ||
            strcmp(json_object_get_string(part), name) != 0)
            continue;
        if (event)
            *event = json_object_get(message);
        json_object_array_del_idx(events, 0, i + 1);
        return 0;
    }
}

void bed_drop_events(struct bed *bed)
{
    json_object_put(bed->private->events);
    bed->private->events = json_object_new_array();
}

/* ---- serial port ----------------------------------------------------------------------------- */

/* Whether a line is this fact: its first word, and all of the blank-separated fields in it. */
static bool is_fact(const char *line, const char *word, const char *fields)
{
    size_t len = strlen(word);

    if (strncmp(line, word, len) != 0 || (line[len] && line[len] != ' '))
        return false;
    for (const char *field = fields + strspn(fields, " "); *field; field += strspn(field, " ")) {
        const char *at = line;
        bool found = false;

        len = strcspn(field, " ");
        while (!found && (at = strchr(at, ' '))) {
            at++;
            found = strncmp(at, field, len) == 0 && (!at[len] || at[len] == ' ');
        }
        if (!found)
            return false;
        field += len;
    }
    return true;
}

/* The next line on the serial port. */
static int serial_line(struct bed *bed, int64_t deadline, char **line)
{
    struct stream *serial = &bed->private->serial;
    int r;

    while (!(*line = stream_line(serial))) {
        r = stream_fill(serial, bed->serial_fd, deadline);
        if (r < 0)
            return r;
    }
    return 0;
}

/* Fields NULL: word is a prefix of the line. */
static int wait_line(struct bed *bed, const char *word, const char *fields, int64_t deadline,
                     char **line)
{
    char *text;
    int r;

    for (;;) {
        r = serial_line(bed, deadline, &text);
        if (r < 0) {
            set_error(bed, "serial port: no \"%s%s%s\": %s", word, fields ? " " : "",
                      fields ? fields : "", r == -EPIPE ? "QEMU has gone" : strerror(-r));
            return r;
        }
        if (fields ? is_fact(text, word, fields) : strncmp(text, word, strlen(word)) == 0)
            break;
        free(text);
    }
    if (line)
        *line = text;
    else
        free(text);
    return 0;
}

int bed_wait_serial(struct bed *bed, const char *prefix, int timeout_ms, char **line)
{
    return wait_line(bed, prefix, NULL, now_ms() + timeout_ms, line);
}

int bed_wait_fact(struct bed *bed, const char *word, const char *fields, int timeout_ms,
                  char **line)
{
    return wait_line(bed, word, fields, now_ms() + timeout_ms, line);
}

int bed_last_fact(struct bed *bed, const char *word, const char *fields, char **line)
{
    struct stream serial = bed->private->serial;
    char *text, *found = NULL;

    /* What has come, but has not been waited for, counts as said. */
    while (stream_fill(&serial, bed->serial_fd, 0) == 0)
        ;
    bed->private->serial = serial;
    serial.cursor = 0;
    while ((text = stream_line(&serial))) {
        if (is_fact(text, word, fields)) {
            free(found);
            found = text;
        } else {
            free(text);
        }
    }
    if (!found) {
        set_error(bed, "serial port: no \"%s %s\" so far", word, fields);
        return -ENOENT;
    }
    if (line)
        *line = found;
    else
        free(found);
    return 0;
}

static int send_line(struct bed *bed, const char *command, int64_t deadline)
{
    char *text;
    int len, r;

    len = asprintf(&text, "%s\n", command);
    if (len < 0)
        return -ENOMEM;
    r = write_all(bed->serial_fd, text, len, deadline);
    free(text);
    if (r < 0)
        set_error(bed, "serial port: %s: %s", command, strerror(-r));
    return r;
}

int bed_serial_send(struct bed *bed, const char *command)
{
    return send_line(bed, command, now_ms() + QMP_MS);
}

int bed_ask(struct bed *bed, const char *command, int timeout_ms, char **reply)
{
    int64_t deadline = now_ms() + timeout_ms;
    size_t len = strcspn(command, " "), size;
    char *text = NULL, *line;
    FILE *lines;
    int r;

    lines = open_memstream(&text, &size);
    if (!lines)
        return -errno;
    r = send_line(bed, command, deadline);
    while (r == 0) {
        const char *rest = NULL;
        bool ok;

        r = serial_line(bed, deadline, &line);
        if (r < 0) {
            set_error(bed, "serial port: no answer to \"%s\": %s", command, strerror(-r));
            break;
        }
        fprintf(lines, "%s\n", line);
        ok = strncmp(line, "OK ", 3) == 0;
        if (ok || strncmp(line, "ERR ", 4) == 0)
            rest = line + (ok ? 3 : 4);
        if (rest && strncmp(rest, command, len) == 0 && (!rest[len] || rest[len] == ' ')) {
            if (!ok) {
                set_error(bed, "agent: %s", line);
                r = -EREMOTEIO;
            }
            free(line);
            break;
        }
        free(line);
    }
    fclose(lines);
    if (reply && r == 0)
        *reply = text;
    else
        free(text);
    return r;
}

int bed_field(const char *line, const char *key, uint64_t *value)
{
    size_t len = strlen(key);
    char *end;

    for (const char *at = line; (at = strstr(at, key)); at += len) {
        if ((at != line && at[-1] != ' ' && at[-1] != '\n') || at[len] != '=')
            continue;
        errno = 0;
        *value = strtoull(at + len + 1, &end, 0);
        if (errno || end == at + len + 1 || (*end && *end != ' ' && *end != '\n'))
            return -EINVAL;
        return 0;
    }
    return -ENOENT;
}

uint64_t bed_sum(const void *bytes, size_t len)
{
    uint64_t sum = 0xcbf29ce484222325ULL, word;

    for (size_t i = 0; i + sizeof(word) <= len; i += sizeof(word)) {
        memcpy(&word, (const char *)bytes + i, sizeof(word));
        sum = (sum ^ word) * 0x100000001b3ULL;
    }
    return sum;
}

/* ---- life ------------------------------------------------------------------------------------ */

static int reap(struct bed *bed, int flags)
{
    pid_t pid;

    if (bed->private->reaped)
        return 0;
    do {
        pid = waitpid(bed->pid, &bed->private->status, flags);
    } while (pid < 0 && errno == EINTR);
    if (pid < 0)
        return -errno;
    bed->private->reaped = pid == bed->pid;
    return 0;
}

int bed_wait_exit(struct bed *bed, int timeout_ms, int *status)
{
    int r = await_fd(bed->pid_fd, POLLIN, now_ms() + timeout_ms);

    if (r == 0)
        r = reap(bed, 0);
    if (r < 0)
        set_error(bed, "QEMU (process %d) has not ended: %s", bed->pid, strerror(-r));
    else if (status)
        *status = bed->private->status;
    return r;
}

struct bed *bed_stop(struct bed *bed)
{
    if (!bed)
        return NULL;
    if (bed->pid > 0 && !bed->private->reaped) {
        /* Not reaped yet, so the numbers of the process and of its group are still its own. */
        kill(-bed->pid, SIGKILL);
        kill(bed->pid, SIGKILL);
        reap(bed, 0);
    }
    close_fd(&bed->pid_fd);
    close_fd(&bed->serial_fd);
    close_fd(&bed->oracle_fd);
    if (bed->directory)
        remove_directory(bed->directory);
    warden_stop(&bed->private->warden_fd);
    json_object_put(bed->private->events);
    free(bed->private->serial.bytes);
    free(bed->private->oracle.bytes);
    free(bed->private);
    free(bed->directory);
    free(bed->qmp);
    free(bed->accel);
    free(bed->kernel);
    free(bed->shm);
    free(bed);
    return NULL;
}

void bed_stop_pointer(struct bed **bed)
{
    *bed = bed_stop(*bed);
}

static struct bed *bed_new(void)
{
    struct bed *bed = calloc(1, sizeof(*bed));

    if (!bed)
        return NULL;
    bed->private = calloc(1, sizeof(*bed->private));
    if (!bed->private) {
        free(bed);
        return NULL;
    }
    bed->pid_fd = bed->serial_fd = bed->oracle_fd = bed->private->warden_fd = -1;
    bed->private->events = json_object_new_array();
    return bed;
}

static int make_directory(struct bed *bed)
{
    const char *base = getenv("TMPDIR");
    char *path;

    if (asprintf(&path, "%s/vmibus-guest.XXXXXX", base && *base ? base : "/tmp") < 0)
        return -ENOMEM;
    if (!mkdtemp(path)) {
        int r = -errno;

        set_error(NULL, "%s: %s", path, strerror(-r));
        free(path);
        return r;
    }
    bed->directory = path;
    if (asprintf(&bed->qmp, "%s/qmp.sock", path) < 0) {
        bed->qmp = NULL;
        return -ENOMEM;
    }
    if (strlen(bed->qmp) >= sizeof(((struct sockaddr_un *)NULL)->sun_path)) {
        set_error(NULL, "%s: too long for a socket; set TMPDIR to something shorter", bed->qmp);
        return -ENAMETOOLONG;
    }
    return 0;
}

/* The value that run-guest printed for a key, copied; NULL when it printed none. */
static char *printed(const char *text, const char *key)
{
    size_t len = strlen(key);

    for (const char *at = text; at && *at; at = strchr(at, '\n'), at += !!at) {
        if (strncmp(at, key, len) == 0 && at[len] == '=')
            return strndup(at + len + 1, strcspn(at + len + 1, "\n"));
    }
    return NULL;
}

/* Fills in run-guest's arguments; returns them, to be freed (the array alone). */
static char **arguments(const struct bed *bed, const struct bed_options *options, char *run_guest)
{
    static const char *const ram_names[] = {"memfd", "shm", "private", "none"};
    size_t extras = 0, n = 0;
    const char **argv;

    while (options->extra && options->extra[extras])
        extras++;
    argv = calloc(extras + 40, sizeof(*argv));
    if (!argv)
        return NULL;
#define ADD(name, value, fallback) \
    (argv[n++] = (name), argv[n++] = (value) ? (value) : (fallback))
    argv[n++] = run_guest;
    ADD("--dir", bed->directory, "");
    ADD("--oracle-fd", "3", "");
    ADD("--serial-fd", "4", "");
    ADD("--machine", options->machine, "q35");
    ADD("--cpu", options->cpu, "max");
    ADD("--memory", options->memory, "512M");
    ADD("--smp", options->smp, "1");
    ADD("--accel", options->accel, "tcg");
    ADD("--name", options->name, "guest");
    ADD("--append", options->append, "");
    ADD("--ram", ram_names[options->ram], "");
    ADD("--kernel", options->flavour, "amd64");
#undef ADD
    _Static_assert(CHILD_ORACLE_FD == 3 && CHILD_SERIAL_FD == 4, "as told to run-guest");
    if (options->firmware_only)
        argv[n++] = "--firmware-only";
    if (options->boot_files)
        argv[n++] = "--boot-files";
    argv[n++] = "--";
    for (size_t i = 0; i < extras; i++)
        argv[n++] = options->extra[i];
    return (char **)argv;
}

/* QEMU greets when all its sockets are there: they are made before the monitors come to life. */
static int await_greeting(struct bed *bed, int64_t deadline)
{
    json_object *greeting;
    int r = oracle_answer(bed, deadline, &greeting);

    if (r < 0)
        return r;
    json_object_put(greeting);
    return bed_qmp(bed, "qmp_capabilities", NULL, NULL);
}

/* Says what run-guest or QEMU complained of. */
static void explain(struct bed *bed, const char *said, int r)
{
    char path[PATH_MAX], log[512] = "";
    FILE *file;

    snprintf(path, sizeof(path), "%s/qemu.log", bed->directory);
    file = fopen(path, "re");
    if (file) {
        size_t n = fread(log, 1, sizeof(log) - 1, file);

        log[n] = 0;
        fclose(file);
    }
    set_error(NULL, "the guest does not start (%s): %.300s%.500s", strerror(-r), said ? said : "",
              log);
}

static int start(struct bed *bed, const struct bed_options *options)
{
    int64_t deadline = now_ms() + START_MS;
    int oracle[2] = {-1, -1}, serial[2] = {-1, -1}, out_fd = -1, r;
    char run_guest[PATH_MAX];
    struct stream said = {0};
    char **argv = NULL;

    r = find_run_guest(run_guest, sizeof(run_guest));
    if (r < 0)
        return r;
    r = make_directory(bed);
    if (r < 0)
        return r;
    r = warden_start(bed->directory, &bed->private->warden_fd);
    if (r < 0)
        return r;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, oracle) < 0 ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, serial) < 0) {
        r = -errno;
        goto out;
    }
    argv = arguments(bed, options, run_guest);
    if (!argv) {
        r = -ENOMEM;
        goto out;
    }
    r = spawn(argv, oracle[1], serial[1], &bed->pid, &out_fd);
    if (r < 0)
        goto out;
    close_fd(&oracle[1]); /* or its end would never be seen */
    close_fd(&serial[1]);
    bed->oracle_fd = oracle[0];
    bed->serial_fd = serial[0];
    oracle[0] = serial[0] = -1;
    bed->pid_fd = syscall(SYS_pidfd_open, bed->pid, 0);
    r = bed->pid_fd < 0 ? -errno : read_to_end(out_fd, &said, START_MS);
    if (r == 0)
        r = await_greeting(bed, deadline);
    if (r < 0) {
        explain(bed, said.bytes, r);
        goto out;
    }
    bed->accel = printed(said.bytes, "accel");
    bed->kernel = printed(said.bytes, "kernel");
    bed->shm = printed(said.bytes, "shm");
out:
    close_fd(&oracle[0]);
    close_fd(&oracle[1]);
    close_fd(&serial[0]);
    close_fd(&serial[1]);
    close_fd(&out_fd);
    free(said.bytes);
    free(argv);
    return r;
}

/* Opens an entry of /proc/PID/fd; -1: it is no memfd of this size. */
static int open_memfd(int directory, const char *entry, uint64_t len)
{
    char target[128] = "";
    struct stat status;
    int fd;

    if (readlinkat(directory, entry, target, sizeof(target) - 1) < 0 || !strstr(target, "memfd:"))
        return -1;
    fd = openat(directory, entry, O_RDONLY | O_CLOEXEC);
    if (fd >= 0 && fstat(fd, &status) == 0 && (uint64_t)status.st_size == len)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

int bed_open_ram(const struct bed *bed, uint64_t len)
{
    const struct dirent *entry;
    char path[64];
    DIR *directory;
    int fd = -1;

    snprintf(path, sizeof(path), "/proc/%d/fd", (int)bed->pid);
    directory = opendir(path);
    if (!directory)
        return -errno;
    while (fd < 0 && (entry = readdir(directory)))
        fd = open_memfd(dirfd(directory), entry->d_name, len);
    closedir(directory);
    return fd < 0 ? -ENOENT : fd;
}

int bed_start(struct bed **out, const struct bed_options *options)
{
    static const struct bed_options defaults;
    struct bed *bed = bed_new();
    int r;

    *out = NULL;
    start_error[0] = 0;
    if (!bed)
        return -ENOMEM;
    r = start(bed, options ? options : &defaults);
    if (r < 0) {
        if (!start_error[0])
            set_error(NULL, "the guest does not start: %s", strerror(-r));
        bed_stop(bed);
        return r;
    }
    *out = bed;
    return 0;
}
