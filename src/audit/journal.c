/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "audit/journal.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <vmibus/syscalls.h>

#include "util/clock.h"
#include "util/fds.h"

VMIBUS_SYSCALLS("sendto socket")

void journal_init(struct journal *journal, const char *path, uint32_t rate, uint32_t burst) {
    struct sockaddr_un address;

    *journal = (struct journal){.fd = -1, .path = path, .rate = rate, .burst = burst};
    if (path && strlen(path) < sizeof(address.sun_path))
        journal->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

void journal_deinit(struct journal *journal) {
    journal->fd = fd_close(journal->fd);
}

void journal_begin(struct journal_message *message, const char *id, int priority) {
    message->len = 0;
    journal_add(message, "MESSAGE_ID", "%s", id);
    journal_add(message, "PRIORITY", "%d", priority);
    journal_add(message, "SYSLOG_IDENTIFIER", "vmibusd");
}

/* A newline ends a field: none comes from a value. */
void journal_add(struct journal_message *message, const char *name, const char *format, ...) {
    char *at = message->text + message->len;
    size_t room = sizeof(message->text) - message->len;
    int head = snprintf(at, room, "%s=", name), n;
    va_list arguments;

    if (head < 0 || (size_t)head >= room)
        return;
    va_start(arguments, format);
    n = vsnprintf(at + head, room - (size_t)head, format, arguments);
    va_end(arguments);
    if (n < 0 || (size_t)(head + n) + 1 >= room)
        return;
    for (int i = head; i < head + n; i++)
        if ((unsigned char)at[i] < ' ' || at[i] == 0x7f)
            at[i] = ' ';
    at[head + n] = '\n';
    message->len += (size_t)(head + n) + 1;
}

/* A bucket of `burst` messages that fills at `rate`: kept as the time at which it would be full. */
static int take_turn(struct journal *journal) {
    uint64_t now = clock_now(), cost = NS_PER_S / journal->rate;

    if (journal->filled < now)
        journal->filled = now;
    if (journal->filled + cost > now + journal->burst * cost)
        return -1;
    journal->filled += cost;
    return 0;
}

void journal_send(struct journal *journal, const struct journal_message *message) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    ssize_t n = -1;

    if (!journal->path)
        return;
    if (journal->fd >= 0 && take_turn(journal) == 0) {
        strcpy(address.sun_path, journal->path);
        n = sendto(journal->fd, message->text, message->len, MSG_DONTWAIT | MSG_NOSIGNAL, (struct sockaddr *)&address,
                   sizeof(address));
    }
    journal->untold += n != (ssize_t)message->len;
}
