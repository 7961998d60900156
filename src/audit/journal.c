/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "audit/journal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
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
    journal_add(message, "SYSLOG_IDENTIFIER", "%s", program_invocation_short_name);
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

/* A bucket of `burst` messages that fills at `rate`; of a share of n, both are that much less. */
static bool take_turn(const struct journal *journal, struct journal_bucket *bucket, uint64_t n) {
    uint64_t now = clock_now(), cost = n * (NS_PER_S / journal->rate);

    if (bucket->filled < now)
        bucket->filled = now;
    if (bucket->filled + cost > now + journal->burst / n * cost)
        return false;
    bucket->filled += cost;
    return true;
}

static void send_if(struct journal *journal, const struct journal_message *message, bool has_turn) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    ssize_t n = -1;

    if (journal->fd >= 0 && has_turn) {
        strcpy(address.sun_path, journal->path);
        n = sendto(journal->fd, message->text, message->len, MSG_DONTWAIT | MSG_NOSIGNAL, (struct sockaddr *)&address,
                   sizeof(address));
    }
    journal->untold += n != (ssize_t)message->len;
}

void journal_send(struct journal *journal, const struct journal_message *message) {
    if (journal->path)
        send_if(journal, message, take_turn(journal, &journal->own, 1));
}

void journal_send_for(struct journal *journal, const struct journal_message *message, uint32_t uid) {
    if (journal->path)
        send_if(journal, message, take_turn(journal, &journal->users[uid % JOURNAL_USERS], 2) &&
                                      take_turn(journal, &journal->commands, 1));
}
