/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The played monitor.
 */
#include "fake_qemu.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static const char default_mtree[] =
    "FlatView #0\r\n AS \"memory\", root: system\r\n Root memory region: system\r\n"
    "  0000000000000000-000000000009ffff (prio 0, ram): ram0\r\n"
    "  00000000000a0000-00000000000bffff (prio 1, i/o): vga-lowmem\r\n"
    "  00000000000c0000-00000000000fffff (prio 0, rom): ram0 @00000000000c0000\r\n"
    "  0000000000100000-0000000000ffffff (prio 0, ram): ram0 @0000000000100000\r\n"
    "  00000000fd000000-00000000fdffffff (prio 1, ram): vga.vram\r\n"
    "  00000000fffc0000-00000000ffffffff (prio 0, rom): pc.bios\r\n\r\n";

static const char default_registers[] = "CPU#0\r\nCR0=60000010 CR2=0 CR3=0 CR4=0\r\nEFER=0\r\n";

void fake_listen(struct fake_qemu *fake) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int r;

    fake->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    strcpy(address.sun_path, fake->path);
    r = bind(fake->listener, (const struct sockaddr *)&address, sizeof(address));
    assert(r == 0);
    r = listen(fake->listener, 1);
    assert(r == 0);
}

void fake_close(struct fake_qemu *fake) {
    if (fake->listener >= 0)
        close(fake->listener);
    fake->listener = -1;
    unlink(fake->path);
}

void fake_hang_up(struct fake_qemu *fake) {
    if (fake->client >= 0)
        close(fake->client);
    fake->client = -1;
    fake->in_len = 0;
}

struct fake_qemu *fake_new(void) {
    struct fake_qemu *fake = calloc(1, sizeof(*fake));

    strcpy(fake->directory, "/tmp/fake-qemu-XXXXXX");
    if (!mkdtemp(fake->directory))
        abort();
    snprintf(fake->path, sizeof(fake->path), "%s/qmp", fake->directory);
    fake->client = fake->fd = -1;
    fake->peripherals = "[]";
    fake->greeting = FAKE_GREETING;
    fake->status = "running";
    fake->machine = "";
    fake->mtree = default_mtree;
    fake->memdevs = "[{\"id\": \"ram0\", \"size\": 16777216}]";
    fake->devices = "[]";
    fake->registers = default_registers;
    fake->capabilities = "[]";
    fake->jobs = "[]";
    fake->hva = UINT64_C(0x7f0000000000);
    fake_listen(fake);

    return fake;
}

static void drop_fd(struct fake_qemu *fake) {
    if (fake->fd >= 0)
        close(fake->fd);
    fake->fd = -1;
}

struct fake_qemu *fake_free(struct fake_qemu *fake) {
    fake_hang_up(fake);
    fake_close(fake);
    drop_fd(fake);
    rmdir(fake->directory);
    for (size_t i = 0; i < fake->n_commands; i++)
        free(fake->commands[i]);
    free(fake);

    return NULL;
}

void fake_send(struct fake_qemu *fake, const void *octets, size_t len) {
    const char *at = octets;

    while (len && fake->client >= 0) {
        ssize_t n = send(fake->client, at, len, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n < 0)
            break;
        at += n;
        len -= (size_t)n;
    }
}

void fake_event(struct fake_qemu *fake, const char *name, const char *data) {
    char line[1024];
    int n;

    n = snprintf(
        line, sizeof(line),
        "{\"timestamp\": {\"seconds\": 1, \"microseconds\": 2}, \"event\": \"%s\"%s%s}\r\n", name,
        data ? ", \"data\": " : "", data ? data : "");
    fake_send(fake, line, (size_t)n);
}

size_t fake_count(const struct fake_qemu *fake, const char *text) {
    size_t n = 0;

    for (size_t i = 0; i < fake->n_commands; i++)
        n += strstr(fake->commands[i], text) != NULL;

    return n;
}

/* gpa2hva of the small machine. */
static void locate(const struct fake_qemu *fake, uint64_t gpa, char *text, size_t size) {
    if (gpa < 0x1000000)
        snprintf(text, size, "Host virtual address for 0x%" PRIx64 " (ram0) is 0x%" PRIx64 "\r\n",
                 gpa, fake->hva + gpa + (fake->torn && gpa >= fake->torn ? 0x1000 : 0));
    else
        snprintf(text, size, "No memory is mapped at address 0x%" PRIx64 "\r\n", gpa);
}

static json_object *human(struct fake_qemu *fake, const char *line) {
    char text[256];

    if (strcmp(line, "info mtree -f") == 0)
        return json_object_new_string(fake->mtree);
    if (strcmp(line, "info registers -a") == 0)
        return json_object_new_string(fake->registers);
    if (strncmp(line, "gpa2hva ", 8) == 0) {
        locate(fake, strtoull(line + 8, NULL, 16), text, sizeof(text));
        return json_object_new_string(text);
    }

    return json_object_new_string("");
}

static json_object *result_of(struct fake_qemu *fake, const char *command, json_object *arguments) {
    json_object *member, *result = json_object_new_object();

    if (strcmp(command, "human-monitor-command") == 0) {
        json_object_put(result);
        json_object_object_get_ex(arguments, "command-line", &member);
        return human(fake, json_object_get_string(member));
    }
    if (strcmp(command, "query-status") == 0)
        json_object_object_add(result, "status", json_object_new_string(fake->status));
    else if (strcmp(command, "query-uuid") == 0)
        json_object_object_add(result, "UUID",
                               json_object_new_string("00112233-4455-6677-8899-aabbccddeeff"));
    else if (strcmp(command, "query-sev") == 0)
        json_object_object_add(result, "enabled", json_object_new_boolean(fake->sev));
    else if (strcmp(command, "qom-get") == 0) {
        json_object_put(result);
        result = json_object_new_string(fake->machine);
    } else if (strcmp(command, "query-memdev") == 0) {
        json_object_put(result);
        result = json_tokener_parse(fake->memdevs);
    } else if (strcmp(command, "query-memory-devices") == 0) {
        json_object_put(result);
        result = json_tokener_parse(fake->devices);
    } else if (strcmp(command, "query-migrate-capabilities") == 0) {
        json_object_put(result);
        result = json_tokener_parse(fake->capabilities);
    } else if (strcmp(command, "query-jobs") == 0) {
        json_object_put(result);
        result = json_tokener_parse(fake->jobs);
    } else if (strcmp(command, "qom-list") == 0) {
        json_object_put(result);
        result = json_tokener_parse(fake->peripherals);
    } else if (strcmp(command, "add-fd") == 0) {
        assert(fake->fd >= 0);
        json_object_object_add(result, "fdset-id", json_object_new_int(7));
    }

    return result;
}

/* What a real QEMU does besides answering. */
static void act(struct fake_qemu *fake, const char *command) {
    if (strcmp(command, "stop") == 0 && strcmp(fake->status, "running") == 0) {
        fake->status = "paused";
        fake_event(fake, "STOP", NULL);
    } else if (strcmp(command, "cont") == 0 && strcmp(fake->status, "paused") == 0) {
        fake->status = "running";
        fake_event(fake, "RESUME", NULL);
    } else if (strcmp(command, "screendump") == 0) {
        for (size_t done = 0; done < fake->picture_len;) {
            ssize_t n = write(fake->fd, (const char *)fake->picture + done, fake->picture_len - done);

            assert(n > 0);
            done += (size_t)n;
        }
    }
}

static void answer(struct fake_qemu *fake, const char *text) {
    json_object *request = json_tokener_parse(text), *name, *id, *arguments = NULL, *reply;
    const char *command, *out;

    assert(request);
    if (fake->n_commands < FAKE_COMMANDS)
        fake->commands[fake->n_commands++] = strdup(text);
    json_object_object_get_ex(request, "execute", &name);
    json_object_object_get_ex(request, "id", &id);
    json_object_object_get_ex(request, "arguments", &arguments);
    command = json_object_get_string(name);
    if (!fake->silent && !(fake->hold && strstr(text, fake->hold))) {
        reply = json_object_new_object();
        if (fake->refuse && strstr(text, fake->refuse)) {
            json_object_object_add(
                reply, "error",
                json_tokener_parse("{\"class\": \"GenericError\", \"desc\": \"no\"}"));
        } else {
            if (fake->watch)
                fake->watch(text, false);
            act(fake, command);
            json_object_object_add(reply, "return", result_of(fake, command, arguments));
            if (fake->watch)
                fake->watch(text, true);
        }
        json_object_object_add(reply, "id", json_object_get(id));
        if (fake->twist)
            fake->twist(reply);
        out = json_object_to_json_string_ext(reply, JSON_C_TO_STRING_PLAIN);
        fake_send(fake, out, strlen(out));
        fake_send(fake, "\r\n", 2);
        json_object_put(reply);
    }
    json_object_put(request);
}

static bool take_client(struct fake_qemu *fake) {
    if (fake->client >= 0 || fake->listener < 0)
        return false;
    fake->client = accept4(fake->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fake->client < 0)
        return false;
    if (fake->greeting) {
        fake_send(fake, fake->greeting, strlen(fake->greeting));
        fake_send(fake, "\r\n", 2);
    }

    return true;
}

/* As recv(2); a descriptor that comes along is kept. */
static ssize_t receive(struct fake_qemu *fake, void *octets, size_t len) {
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec where = {.iov_base = octets, .iov_len = len};
    struct msghdr message = {.msg_iov = &where, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
    ssize_t n = recvmsg(fake->client, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

    if (n > 0 && CMSG_FIRSTHDR(&message) && CMSG_FIRSTHDR(&message)->cmsg_type == SCM_RIGHTS) {
        drop_fd(fake);
        memcpy(&fake->fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(int));
    }

    return n;
}

bool fake_serve(struct fake_qemu *fake) {
    bool happened = take_client(fake);
    char *end;
    ssize_t n;

    if (fake->client < 0)
        return happened;
    n = receive(fake, fake->in + fake->in_len, sizeof(fake->in) - 1 - fake->in_len);
    if (n == 0 || (n < 0 && errno != EAGAIN)) {
        fake_hang_up(fake);
        return true;
    }
    if (n < 0)
        return happened;
    fake->in_len += (size_t)n;
    fake->in[fake->in_len] = 0;
    while (fake->client >= 0 && (end = strstr(fake->in, "\r\n"))) {
        *end = 0;
        answer(fake, fake->in);
        fake->in_len -= (size_t)(end + 2 - fake->in);
        memmove(fake->in, end + 2, fake->in_len + 1);
    }

    return true;
}
