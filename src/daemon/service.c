/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/service.h"

#include <errno.h>
#include <stdlib.h>

#include "util/fds.h"

#if HAVE_SYSTEMD

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <systemd/sd-daemon.h>

#include "util/clock.h"

#define PAGE_NAME "epoch-"

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

/* Each is taken or closed, also after one that is wrong. */
static int take_all(struct service_fds *fds, char **names, size_t n) {
    int r = 0;

    for (size_t i = 0; i < n; i++) {
        int fd = SD_LISTEN_FDS_START + (int)i, result = 0;
        uint32_t slot = slot_of(names[i]);

        if (slot)
            fds->pages[fds->n_pages++] = (struct authority_page){.slot = slot, .fd = fd};
        else
            result = take_socket(fds, fd);
        r = r ? r : result;
        free(names[i]);
    }
    return r;
}

int service_take_fds(struct service_fds *fds) {
    char **names = NULL;
    int n, r;

    *fds = (struct service_fds){.socket = -1};
    n = sd_listen_fds_with_names(1, &names);
    if (n <= 0)
        return n;
    fds->pages = calloc((size_t)n, sizeof(*fds->pages));
    if (!fds->pages) {
        for (int i = 0; i < n; i++)
            free(names[i]);
        r = -ENOMEM;
    } else {
        r = take_all(fds, names, (size_t)n);
    }
    free(names);
    return r;
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

void service_ready(const char *status) {
    (void)sd_notifyf(0, "READY=1\nSTATUS=%s", status);
}

void service_reloading(void) {
    (void)sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%" PRIu64, clock_now() / NS_PER_US);
}

void service_stopping(void) {
    (void)sd_notify(0, "STOPPING=1");
}

#else

int service_take_fds(struct service_fds *fds) {
    *fds = (struct service_fds){.socket = -1};
    return 0;
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

void service_reloading(void) {
}

void service_stopping(void) {
}

#endif

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
}
