/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "dbus.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifdef HAVE_SYSTEMD
#include <systemd/sd-bus.h>
#endif

#include "bench.h"
#include "pingpong.h"

#define INTERFACE "org.vmibus.Bench"
#define PATH "/bench"

/* D-Bus specification, "Message Format". */
enum { TYPE_CALL = 1, TYPE_REPLY = 2, TYPE_ERROR = 3, TYPE_SIGNAL = 4 };
enum {
    FIELD_PATH = 1,
    FIELD_INTERFACE = 2,
    FIELD_MEMBER = 3,
    FIELD_REPLY_SERIAL = 5,
    FIELD_DESTINATION = 6,
    FIELD_SIGNATURE = 8,
};
#define FIXED 16
#define OFFSET_SERIAL 8
#define OFFSET_FIELDS 12

/* --- messages ------------------------------------------------------------------------------------- */

static void align(struct dbus_message *message, size_t to) {
    while (message->length % to)
        message->octets[message->length++] = 0;
}

static void put_u32(struct dbus_message *message, uint32_t value) {
    align(message, 4);
    memcpy(message->octets + message->length, &value, sizeof(value));
    message->length += sizeof(value);
}

static void put_text(struct dbus_message *message, const char *text) {
    memcpy(message->octets + message->length, text, strlen(text) + 1);
    message->length += strlen(text) + 1;
}

static void put_field(struct dbus_message *message, uint8_t field, char type) {
    align(message, 8);
    message->octets[message->length++] = field;
    message->octets[message->length++] = 1;
    message->octets[message->length++] = (uint8_t)type;
    message->octets[message->length++] = 0;
}

static void put_text_field(struct dbus_message *message, uint8_t field, char type, const char *text) {
    put_field(message, field, type);
    if (type == 'g')
        message->octets[message->length++] = (uint8_t)strlen(text);
    else
        put_u32(message, (uint32_t)strlen(text));
    put_text(message, text);
}

static void begin(struct dbus_message *message, uint8_t type, uint32_t serial) {
    *message = (struct dbus_message){.octets = {'l', type, 0, 1}, .length = 8};
    put_u32(message, serial);
    put_u32(message, 0);
}

static void set_u32(struct dbus_message *message, size_t offset, uint32_t value) {
    memcpy(message->octets + offset, &value, sizeof(value));
}

/* Closes the header. The body is to follow. */
static void end_header(struct dbus_message *message) {
    set_u32(message, OFFSET_FIELDS, (uint32_t)(message->length - FIXED));
    align(message, 8);
    message->body = message->length;
}

static void end_body(struct dbus_message *message) {
    set_u32(message, 4, (uint32_t)(message->length - message->body));
}

/* An array of octets, so long that length and octets make DBUS_BODY. */
static void put_octets(struct dbus_message *message) {
    put_u32(message, DBUS_BODY - 4);
    message->length += DBUS_BODY - 4;
    end_body(message);
}

static void make_call_to_bus(struct dbus_message *message, const char *member, const char *argument) {
    begin(message, TYPE_CALL, 1);
    put_text_field(message, FIELD_PATH, 'o', "/org/freedesktop/DBus");
    put_text_field(message, FIELD_INTERFACE, 's', "org.freedesktop.DBus");
    put_text_field(message, FIELD_MEMBER, 's', member);
    put_text_field(message, FIELD_DESTINATION, 's', "org.freedesktop.DBus");
    if (argument)
        put_text_field(message, FIELD_SIGNATURE, 'g', "s");
    end_header(message);
    if (argument) {
        put_u32(message, (uint32_t)strlen(argument));
        put_text(message, argument);
    }
    end_body(message);
}

static void make_call(struct dbus_message *message, const char *destination) {
    begin(message, TYPE_CALL, 2);
    put_text_field(message, FIELD_PATH, 'o', PATH);
    put_text_field(message, FIELD_INTERFACE, 's', INTERFACE);
    put_text_field(message, FIELD_MEMBER, 's', "Echo");
    put_text_field(message, FIELD_DESTINATION, 's', destination);
    put_text_field(message, FIELD_SIGNATURE, 'g', "ay");
    end_header(message);
    put_octets(message);
}

/* Returns where the serial of the call goes. */
static size_t make_reply(struct dbus_message *message, const char *destination) {
    size_t serial;

    begin(message, TYPE_REPLY, 2);
    put_field(message, FIELD_REPLY_SERIAL, 'u');
    serial = message->length;
    put_u32(message, 0);
    put_text_field(message, FIELD_DESTINATION, 's', destination);
    put_text_field(message, FIELD_SIGNATURE, 'g', "ay");
    end_header(message);
    put_octets(message);
    return serial;
}

void dbus_make_signal(struct dbus_message *message, uint32_t serial) {
    begin(message, TYPE_SIGNAL, serial);
    put_text_field(message, FIELD_PATH, 'o', PATH);
    put_text_field(message, FIELD_INTERFACE, 's', INTERFACE);
    put_text_field(message, FIELD_MEMBER, 's', "Event");
    put_text_field(message, FIELD_SIGNATURE, 'g', "ay");
    end_header(message);
    put_octets(message);
}

size_t dbus_length(const uint8_t *octets, size_t n) {
    uint32_t body, fields;

    if (n < FIXED)
        return 0;
    memcpy(&body, octets + 4, sizeof(body));
    memcpy(&fields, octets + OFFSET_FIELDS, sizeof(fields));
    return FIXED + (fields + 7) / 8 * 8 + body;
}

bool dbus_is_signal(const uint8_t *octets, size_t length, const uint8_t **body) {
    uint32_t body_length;

    memcpy(&body_length, octets + 4, sizeof(body_length));
    *body = octets + length - DBUS_BODY;
    return octets[1] == TYPE_SIGNAL && body_length == DBUS_BODY;
}

/* Reads one message. Returns its length or a negative errno. */
static ssize_t read_message(int fd, uint8_t *octets, size_t size) {
    int r = read_whole(fd, octets, FIXED);
    size_t length;

    if (r < 0)
        return r;
    length = dbus_length(octets, FIXED);
    if (length > size)
        return -EMSGSIZE;
    r = read_whole(fd, octets + FIXED, length - FIXED);
    return r < 0 ? r : (ssize_t)length;
}

/* --- connections ---------------------------------------------------------------------------------- */

static int open_socket(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -errno;
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        int r = -errno;

        close(fd);
        return r;
    }
    return fd;
}

/* D-Bus specification, "Authentication Protocol": EXTERNAL, the uid in hexadecimal of its decimal digits. */
static int authenticate(int fd) {
    char uid[16], line[128] = "AUTH EXTERNAL ", answer[128];
    size_t n = strlen(line);
    int r;

    snprintf(uid, sizeof(uid), "%u", (unsigned)geteuid());
    for (const char *digit = uid; *digit; digit++)
        n += (size_t)snprintf(line + n, sizeof(line) - n, "%02x", *digit);
    snprintf(line + n, sizeof(line) - n, "\r\n");
    r = write_whole(fd, "", 1);
    if (r == 0)
        r = write_whole(fd, line, strlen(line));
    for (n = 0; r == 0 && (n == 0 || answer[n - 1] != '\n') && n < sizeof(answer); n++)
        r = read_whole(fd, answer + n, 1);
    if (r == 0 && memcmp(answer, "OK ", 3) != 0)
        r = -EACCES;
    return r < 0 ? r : write_whole(fd, "BEGIN\r\n", 7);
}

/* Calls the bus and waits for the answer to that call; what else comes is passed over. */
static int call_bus(int fd, const char *member, const char *argument, char *text) {
    struct dbus_message call;
    uint8_t answer[4096];
    ssize_t n;
    int r;

    make_call_to_bus(&call, member, argument);
    r = write_whole(fd, call.octets, call.length);
    if (r < 0)
        return r;
    do {
        n = read_message(fd, answer, sizeof(answer));
        if (n < 0)
            return (int)n;
    } while (answer[1] != TYPE_REPLY && answer[1] != TYPE_ERROR);
    if (answer[1] == TYPE_ERROR)
        return -EACCES;
    if (text) {
        uint32_t body;

        memcpy(&body, answer + 4, sizeof(body));
        snprintf(text, DBUS_NAME, "%s", (const char *)answer + n - body + 4);
    }
    return 0;
}

int dbus_connect(const struct dbus_broker *broker, char *name) {
    int fd = open_socket(broker->socket), r;

    if (fd < 0)
        return fd;
    r = authenticate(fd);
    if (r == 0)
        r = call_bus(fd, "Hello", NULL, name);
    /* Whatever signal follows Hello has come before the next answer, and is passed over with it. */
    if (r == 0)
        r = call_bus(fd, "GetId", NULL, NULL);
    if (r < 0)
        close(fd);
    return r < 0 ? r : fd;
}

int dbus_add_match(int fd) {
    return call_bus(fd, "AddMatch", "type='signal',interface='" INTERFACE "'", NULL);
}

/* --- brokers -------------------------------------------------------------------------------------- */

static pid_t run(char *const *arguments, int kept) {
    pid_t pid = fork();

    if (pid)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (kept >= 0)
        fcntl(kept, F_SETFD, 0);
    if (!freopen("/dev/null", "w", stderr))
        _exit(127);
    execvp(arguments[0], arguments);
    _exit(127);
}

#ifdef HAVE_SYSTEMD
#define BATCH "bta(btbs)a(btssssuutt)a(btssssuutt)"

/* Tells the broker its socket, and that everybody may do everything. */
static int add_listener(int controller, int listener) {
    sd_bus_message *message = NULL;
    sd_bus *bus = NULL;
    int own = dup(controller), r;

    r = sd_bus_new(&bus);
    if (r >= 0)
        r = sd_bus_set_fd(bus, own, own);
    if (r >= 0)
        r = sd_bus_start(bus);
    if (r >= 0)
        r = sd_bus_message_new_method_call(bus, &message, NULL, "/org/bus1/DBus/Broker", "org.bus1.DBus.Broker", "AddListener");
    if (r >= 0)
        r = sd_bus_message_append(message, "ohv", "/org/bus1/DBus/Listener/0", listener,
                                  "(a(u(" BATCH "))a(buu(" BATCH "))a(ss)bs)", 1, UINT32_MAX, 1, UINT64_C(1),
                                  1, 1, UINT64_C(1), 1, "",
                                  1, 1, UINT64_C(1), "", "", "", "", 0, 0, UINT64_C(0), UINT64_MAX,
                                  1, 1, UINT64_C(1), "", "", "", "", 0, 0, UINT64_C(0), UINT64_MAX,
                                  0, 0, 0, "");
    if (r >= 0)
        r = sd_bus_call(bus, message, 5000000, NULL, NULL);
    sd_bus_message_unref(message);
    sd_bus_close(bus);
    sd_bus_unref(bus);
    return r < 0 ? r : 0;
}

static int make_listener(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 128) < 0) {
        int r = -errno;

        if (fd >= 0)
            close(fd);
        return r;
    }
    return fd;
}

/* Its quotas are raised so that no receiver is disconnected for being slow. */
static int start_broker(struct dbus_broker *broker) {
    char number[16];
    char *arguments[] = {"dbus-broker", "--controller", number, "--machine-id", "0123456789abcdef0123456789abcdef",
                         "--max-bytes", "1073741824", "--max-objects", "16777216", NULL};
    int fds[2], listener = make_listener(broker->socket), r;

    if (listener < 0)
        return listener;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
        r = -errno;
    else {
        snprintf(number, sizeof(number), "%d", fds[1]);
        broker->name = "dbus-broker";
        broker->pid = run(arguments, fds[1]);
        close(fds[1]);
        broker->controller = fds[0];
        r = add_listener(fds[0], listener);
    }
    close(listener);
    return r;
}
#else
static int start_broker(struct dbus_broker *broker) {
    (void)broker;
    return -ENOENT;
}
#endif

static const char daemon_configuration[] =
    "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\"\n"
    " \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">\n"
    "<busconfig><listen>unix:path=%s</listen><auth>EXTERNAL</auth><policy context=\"default\">\n"
    "<allow send_destination=\"*\"/><allow own=\"*\"/><allow user=\"*\"/><allow send_type=\"signal\"/>\n"
    "</policy><limit name=\"max_outgoing_bytes\">1073741824</limit></busconfig>\n";

static int start_daemon(struct dbus_broker *broker) {
    char option[160], path[128];
    char *arguments[] = {"dbus-daemon", "--nofork", "--nopidfile", option, NULL};
    FILE *file;

    snprintf(path, sizeof(path), "%s/config", broker->directory);
    snprintf(option, sizeof(option), "--config-file=%s", path);
    file = fopen(path, "we");
    if (!file)
        return -errno;
    fprintf(file, daemon_configuration, broker->socket);
    fclose(file);
    broker->name = "dbus-daemon";
    broker->pid = run(arguments, -1);
    for (int i = 0; i < 500; i++) {
        const struct timespec time = {.tv_nsec = 10000000};
        int fd = open_socket(broker->socket);

        if (fd >= 0) {
            close(fd);
            return 0;
        }
        if (waitpid(broker->pid, NULL, WNOHANG) == broker->pid) {
            broker->pid = 0;
            return -ENOENT;
        }
        nanosleep(&time, NULL);
    }
    return -ETIMEDOUT;
}

static void end_process(struct dbus_broker *broker) {
    if (broker->pid > 0) {
        kill(broker->pid, SIGKILL);
        waitpid(broker->pid, NULL, 0);
    }
    broker->pid = 0;
    if (broker->controller >= 0)
        close(broker->controller);
    broker->controller = -1;
    unlink(broker->socket);
}

int dbus_broker_start(struct dbus_broker *broker) {
    int r;

    *broker = (struct dbus_broker){.controller = -1, .directory = "/tmp/vmibus-dbus-XXXXXX"};
    if (!mkdtemp(broker->directory)) {
        r = -errno;
        broker->directory[0] = '\0';
        return r;
    }
    snprintf(broker->socket, sizeof(broker->socket), "%s/socket", broker->directory);
    r = start_broker(broker);
    if (r < 0) {
        end_process(broker);
        r = start_daemon(broker);
    }
    if (r < 0)
        dbus_broker_stop(broker);
    return r;
}

void dbus_broker_stop(struct dbus_broker *broker) {
    char path[128];

    if (!broker->directory[0])
        return;
    end_process(broker);
    snprintf(path, sizeof(path), "%s/config", broker->directory);
    unlink(path);
    rmdir(broker->directory);
    *broker = (struct dbus_broker){.controller = -1};
}

/* --- echo ----------------------------------------------------------------------------------------- */

static void serve(int fd, const char *caller) {
    struct epoll_event event = {.events = EPOLLIN};
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct dbus_message reply;
    uint8_t call[DBUS_MESSAGE];
    size_t serial = make_reply(&reply, caller);

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event);
    while (epoll_wait(epoll_fd, &event, 1, -1) == 1) {
        ssize_t n = read(fd, call, sizeof(call));

        if (n <= 0)
            break;
        if (call[1] != TYPE_CALL)
            continue;
        memcpy(reply.octets + serial, call + OFFSET_SERIAL, sizeof(uint32_t));
        if (write_whole(fd, reply.octets, reply.length) < 0)
            break;
    }
    _exit(0);
}

int dbus_echo_start(struct dbus_echo *echo, const struct dbus_broker *broker) {
    char caller[DBUS_NAME], service[DBUS_NAME];
    int fd;

    echo->fd = dbus_connect(broker, caller);
    if (echo->fd < 0)
        return echo->fd;
    fd = dbus_connect(broker, service);
    if (fd < 0) {
        close(echo->fd);
        return fd;
    }
    make_call(&echo->call, service);
    echo->pid = fork();
    if (echo->pid == 0) {
        close(echo->fd);
        serve(fd, caller);
    }
    close(fd);
    return echo->pid < 0 ? -errno : 0;
}

void dbus_echo_stop(struct dbus_echo *echo) {
    if (echo->pid <= 0)
        return;
    close(echo->fd);
    kill(echo->pid, SIGKILL);
    waitpid(echo->pid, NULL, 0);
    *echo = (struct dbus_echo){};
}

/* Answers come whole: they are far shorter than the socket's buffer, so a read is one system call. */
int dbus_echo_sample(void *context, uint64_t *samples, size_t n) {
    struct dbus_echo *echo = context;
    uint8_t answer[4096];

    for (size_t i = 0; i < n; i++) {
        uint64_t begun = bench_now();
        ssize_t got = 0;
        int r = write_whole(echo->fd, echo->call.octets, echo->call.length);

        if (r < 0)
            return r;
        do {
            got = read(echo->fd, answer, sizeof(answer));
            if (got <= 0)
                return got < 0 ? -errno : -ECONNRESET;
        } while (answer[1] == TYPE_SIGNAL);
        samples[i] = bench_now() - begun;
        if (answer[1] != TYPE_REPLY)
            return -EREMOTEIO;
    }
    return 0;
}
