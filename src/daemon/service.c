/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/service.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <vmibus/syscalls.h>

#include "daemon/log.h"
#include "util/fds.h"

VMIBUS_SYSCALLS("connect getsockname getsockopt pipe2 sendmsg setsockopt socket")

#if HAVE_SYSTEMD

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/socket.h>
#include <systemd/sd-daemon.h>

#include "util/clock.h"
#include "util/handover.h"

#define PAGE_NAME "epoch-"
#define HANDOVER_NAME "handover"

/* Which slot a name is the page of; 0: none. */
static uint32_t slot_of(const char *name) {
    unsigned long slot;
    char *end;

    if (strncmp(name, PAGE_NAME, strlen(PAGE_NAME)) != 0 || name[strlen(PAGE_NAME)] < '1' || name[strlen(PAGE_NAME)] > '9')
        return 0;
    slot = strtoul(name + strlen(PAGE_NAME), &end, 10);
    return *end == '\0' && slot <= UINT32_MAX ? (uint32_t)slot : 0;
}

static int take_socket(struct service_fds *fds, int fd) {
    if (fds->socket >= 0 || sd_is_socket(fd, AF_UNIX, SOCK_STREAM, 1) <= 0) {
        fd_close(fd);
        return -EINVAL;
    }
    fds->socket = fd;
    /* The manager clears it unless told otherwise, and accepting must not wait. */
    return fcntl(fd, F_SETFL, O_NONBLOCK) < 0 ? -errno : 0;
}

/* Which place a name is of; false: it is of none. */
static bool place_of(const char *name, size_t *place) {
    unsigned long number;
    char *end;

    if (strncmp(name, HANDOVER_NAME "-", strlen(HANDOVER_NAME) + 1) != 0)
        return false;
    name += strlen(HANDOVER_NAME) + 1;
    if (*name < '0' || *name > '9')
        return false;
    number = strtoul(name, &end, 10);
    *place = number;
    return *end == '\0' && number < HANDOVER_FDS_MAX;
}

/* Room for all places that are named: some may be missing between. */
static size_t count_places(char **names, size_t n) {
    size_t place, count = 1;

    for (size_t i = 0; i < n; i++)
        if (place_of(names[i], &place) && place >= count)
            count = place + 1;
    return count;
}

/* False: it is something else. */
static bool take_handed(struct service_fds *fds, const char *name, int fd) {
    size_t place;

    if (strcmp(name, HANDOVER_NAME) == 0) {
        fd_close(fds->state);
        fds->state = fd;
        return true;
    }
    if (!place_of(name, &place))
        return false;
    while (fds->n_handed <= place)
        fds->handed[fds->n_handed++] = -1;
    fd_close(fds->handed[place]);
    fds->handed[place] = fd;
    return true;
}

/* Each is taken or closed, also after one that is wrong. */
static int take_all(struct service_fds *fds, char **names, size_t n) {
    int r = 0;

    for (size_t i = 0; i < n; i++) {
        int fd = SD_LISTEN_FDS_START + (int)i, result = 0;
        uint32_t slot = slot_of(names[i]);

        if (slot)
            fds->pages[fds->n_pages++] = (struct authority_page){.slot = slot, .fd = fd};
        else if (!take_handed(fds, names[i], fd))
            result = take_socket(fds, fd);
        r = r ? r : result;
        free(names[i]);
    }
    return r;
}

int service_take_fds(struct service_fds *fds) {
    char **names = NULL;
    int n, r;

    *fds = (struct service_fds){.socket = -1, .state = -1};
    n = sd_listen_fds_with_names(1, &names);
    if (n <= 0)
        return n;
    fds->pages = calloc((size_t)n, sizeof(*fds->pages));
    fds->handed = calloc(count_places(names, (size_t)n), sizeof(*fds->handed));
    if (!fds->pages || !fds->handed) {
        for (int i = 0; i < n; i++)
            free(names[i]);
        r = -ENOMEM;
    } else {
        r = take_all(fds, names, (size_t)n);
    }
    free(names);
    return r;
}

int service_take_seqpacket(void) {
    int n = sd_listen_fds(1), r = 0;

    if (n <= 0)
        return n < 0 ? n : -ENOENT;
    if (n > 1 || sd_is_socket(SD_LISTEN_FDS_START, AF_UNIX, SOCK_SEQPACKET, 1) <= 0)
        r = -EINVAL;
    else if (fcntl(SD_LISTEN_FDS_START, F_SETFL, O_NONBLOCK) < 0)
        r = -errno;
    for (int i = 0; r < 0 && i < n; i++)
        fd_close(SD_LISTEN_FDS_START + i);
    return r < 0 ? r : SD_LISTEN_FDS_START;
}

bool service_is_there(void) {
    return getenv("NOTIFY_SOCKET") != NULL;
}

void service_keep_page(uint32_t slot, int fd) {
    char text[64];

    if (fd < 0) {
        (void)sd_notifyf(0, "FDSTOREREMOVE=1\nFDNAME=" PAGE_NAME "%" PRIu32, slot);
        return;
    }
    /* A memory file cannot be polled, and need not be: it is there until it is taken out. */
    snprintf(text, sizeof(text), "FDSTORE=1\nFDNAME=" PAGE_NAME "%" PRIu32 "\nFDPOLL=0", slot);
    (void)sd_pid_notify_with_fds(0, 0, text, &fd, 1);
}

static int keep(const char *name, int fd) {
    char text[96];
    int r;

    /* It is there until it is taken out, also if whoever is at the other end hangs up. */
    snprintf(text, sizeof(text), "FDSTORE=1\nFDNAME=%s\nFDPOLL=0", name);
    r = sd_pid_notify_with_fds(0, 0, text, &fd, 1);
    return r < 0 ? r : r == 0 ? -ENOENT : 0;
}

int service_keep_handover(int state, const int *fds, size_t n_fds, uint32_t timeout_ms) {
    char name[32];
    int r = 0;

    for (size_t i = 0; r == 0 && i < n_fds; i++) {
        snprintf(name, sizeof(name), HANDOVER_NAME "-%zu", i);
        r = keep(name, fds[i]);
    }
    if (r == 0)
        r = keep(HANDOVER_NAME, state);
    if (r == 0)
        r = sd_notify_barrier(0, timeout_ms * UINT64_C(1000));
    return r < 0 ? r : 0;
}

void service_forget_handover(size_t n_fds) {
    (void)sd_notify(0, "FDSTOREREMOVE=1\nFDNAME=" HANDOVER_NAME);
    for (size_t i = 0; i < n_fds; i++)
        (void)sd_notifyf(0, "FDSTOREREMOVE=1\nFDNAME=" HANDOVER_NAME "-%zu", i);
}

void service_ready(const char *status) {
    (void)sd_notifyf(0, "READY=1\nSTATUS=%s", status);
}

void service_status(const char *status) {
    (void)sd_notifyf(0, "STATUS=%s", status);
}

uint64_t service_watchdog(void) {
    uint64_t microseconds = 0;

    return sd_watchdog_enabled(0, &microseconds) > 0 ? microseconds * NS_PER_US : 0;
}

void service_alive(void) {
    (void)sd_notify(0, "WATCHDOG=1");
}

void service_reloading(void) {
    (void)sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%" PRIu64, clock_now() / NS_PER_US);
}

void service_stopping(void) {
    (void)sd_notify(0, "STOPPING=1");
}

#else

int service_take_fds(struct service_fds *fds) {
    *fds = (struct service_fds){.socket = -1, .state = -1};
    return 0;
}

int service_keep_handover(int state, const int *fds, size_t n_fds, uint32_t timeout_ms) {
    (void)state;
    (void)fds;
    (void)n_fds;
    (void)timeout_ms;
    return -ENOENT;
}

void service_forget_handover(size_t n_fds) {
    (void)n_fds;
}

int service_take_seqpacket(void) {
    return -ENOENT;
}

bool service_is_there(void) {
    return false;
}

void service_keep_page(uint32_t slot, int fd) {
    (void)slot;
    (void)fd;
}

void service_ready(const char *status) {
    (void)status;
}

void service_status(const char *status) {
    (void)status;
}

uint64_t service_watchdog(void) {
    return 0;
}

void service_alive(void) {
}

void service_reloading(void) {
}

void service_stopping(void) {
}

#endif

int service_take_fds_or_tell(struct service_fds *fds) {
    int r = service_take_fds(fds);

    if (r == -EINVAL)
        log_error("the service manager passed something else than one listening unix stream socket, and epoch pages of this "
                  "daemon, or what it handed over");
    else if (r < 0)
        log_error("what the service manager passed cannot be taken: %s", strerror(-r));
    return r;
}

void service_forget_pages(struct service_fds *fds) {
    for (size_t i = 0; i < fds->n_pages; i++)
        fd_close(fds->pages[i].fd);
    free(fds->pages);
    fds->pages = NULL;
    fds->n_pages = 0;
}

void service_fds_deinit(struct service_fds *fds) {
    service_forget_pages(fds);
    fds->socket = fd_close(fds->socket);
    fds->state = fd_close(fds->state);
    fds_close(fds->handed, fds->n_handed);
    free(fds->handed);
    fds->handed = NULL;
    fds->n_handed = 0;
}
