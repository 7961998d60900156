/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "server.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define BACKLOG 16

/* Octets of a request that are read: what asks for more is no scraper. */
#define REQUEST_MAX 8192

/* A client has so long for its request, and for taking the page. */
#define PATIENCE_MS 5000

struct client {
    int fd;
    int64_t deadline; /* milliseconds */
    char request[REQUEST_MAX + 1];
    size_t length;
    bool has_ended;   /* its side is closed */
};

static int64_t now_ms(void) {
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Waits for the client as long as it has. False: no more. */
static bool await(const struct client *client, short events) {
    struct pollfd poll_fd = {.fd = client->fd, .events = events};
    int64_t left = client->deadline - now_ms();

    return left > 0 && poll(&poll_fd, 1, (int)left) == 1;
}

/* A request ends with an empty line, or with the client's side. False: there is none. */
static bool read_request(struct client *client) {
    while (!client->has_ended && !strstr(client->request, "\r\n\r\n") && !strstr(client->request, "\n\n")) {
        ssize_t n;

        if (client->length == REQUEST_MAX || !await(client, POLLIN))
            return false;
        n = recv(client->fd, client->request + client->length, REQUEST_MAX - client->length, MSG_DONTWAIT);
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            return false;
        client->has_ended = n == 0;
        client->length += n > 0 ? (size_t)n : 0;
        client->request[client->length] = '\0';
    }
    return true;
}

static bool send_all(const struct client *client, const char *octets, size_t length) {
    while (length > 0) {
        ssize_t n;

        if (!await(client, POLLOUT))
            return false;
        n = send(client->fd, octets, length, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            return false;
        octets += n > 0 ? n : 0;
        length -= n > 0 ? (size_t)n : 0;
    }
    return true;
}

static void send_page(const struct client *client, const char *content_type, const char *page, size_t length) {
    char head[256];
    int n = snprintf(head, sizeof(head),
                     "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n", content_type,
                     length);

    /* Who asked for nothing gets no header. */
    if (client->length > 0 && !send_all(client, head, (size_t)n))
        return;
    if (strncmp(client->request, "HEAD ", 5) != 0)
        (void)send_all(client, page, length);
}

static void refuse(const struct client *client) {
    static const char text[] = "HTTP/1.1 405 Method Not Allowed\r\nAllow: GET, HEAD\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

    (void)send_all(client, text, sizeof(text) - 1);
}

static void serve(struct client *client, const char *content_type, server_page_fn make_page, void *context) {
    char *page = NULL;
    size_t length = 0;

    if (!read_request(client))
        return;
    if (client->length > 0 && strncmp(client->request, "GET ", 4) != 0 && strncmp(client->request, "HEAD ", 5) != 0) {
        refuse(client);
        return;
    }
    if (make_page(context, &page, &length) == 0)
        send_page(client, content_type, page, length);
    free(page);
}

int server_run(int fd, const char *content_type, server_page_fn page, void *context) {
    for (;;) {
        struct client client = {.fd = accept4(fd, NULL, NULL, SOCK_CLOEXEC)};

        /* One that has gone again is not the listener's failure. */
        if (client.fd < 0 && errno != ECONNABORTED)
            return -errno;
        if (client.fd < 0)
            continue;
        client.deadline = now_ms() + PATIENCE_MS;
        serve(&client, content_type, page, context);
        close(client.fd);
    }
}

/* What nobody listens at any more is in the way. */
static void remove_leftover(const struct sockaddr_un *address) {
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct stat st;

    if (fd < 0)
        return;
    if (lstat(address->sun_path, &st) == 0 && S_ISSOCK(st.st_mode) &&
        connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 && errno == ECONNREFUSED)
        unlink(address->sun_path);
    close(fd);
}

int server_listen(const char *path, mode_t mode) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd, r;

    if (strlen(path) >= sizeof(address.sun_path))
        return -ENAMETOOLONG;
    memcpy(address.sun_path, path, strlen(path));
    remove_leftover(&address);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    /* Nobody connects before the mode is set. */
    if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 || chmod(path, mode) < 0 || listen(fd, BACKLOG) < 0) {
        r = -errno;
        close(fd);
        return r;
    }
    return fd;
}
