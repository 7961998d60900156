/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/manager.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#undef close /* nothing here is a connection of the test's */

#define STORE DAEMON_KEPT

struct kept {
    char name[32];
    int fd;
};

static struct {
    char directory[64], path[96];
    int fd;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    struct kept store[STORE], copies[STORE];
    size_t n, n_copies;
    unsigned n_ready, n_synced, n_heard;
    unsigned kill_after;
    bool has_killed, victim_is_ready;
    pid_t victim;
    bool ignores_barriers;
    int n_more;
    char serving[128];
} manager = {.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER, .n_more = -1};

static void drop(const char *name) {
    size_t kept = 0;

    for (size_t i = 0; i < manager.n; i++)
        if (strcmp(manager.store[i].name, name) == 0)
            close(manager.store[i].fd);
        else
            manager.store[kept++] = manager.store[i];
    manager.n = kept;
}

/* The value of a line; empty: there is none. */
static void value_of(const char *text, const char *key, char *value, size_t size) {
    const char *at = strstr(text, key);
    size_t n = at ? strcspn(at + strlen(key), "\n") : 0;

    value[0] = '\0';
    if (at && n < size) {
        memcpy(value, at + strlen(key), n);
        value[n] = '\0';
    }
}

static void hear(const char *text, int fd) {
    char name[32], status[sizeof(manager.serving)];

    value_of(text, "STATUS=", status, sizeof(status));
    if (strncmp(status, "serving", strlen("serving")) == 0)
        strcpy(manager.serving, status);
    value_of(text, "FDNAME=", name, sizeof(name));
    if (strstr(text, "FDSTOREREMOVE=1")) {
        drop(name);
    } else if (strstr(text, "FDSTORE=1") && manager.n < STORE && manager.n_more != 0) {
        strcpy(manager.store[manager.n].name, name);
        manager.store[manager.n++].fd = fd;
        manager.n_more -= manager.n_more > 0;
        fd = -1;
    } else if (strstr(text, "BARRIER=1") && manager.ignores_barriers) {
        strcpy(manager.store[manager.n].name, "barrier");
        manager.store[manager.n++].fd = fd;
        fd = -1;
    }
    manager.n_ready += strstr(text, "READY=1") != NULL;
    manager.n_synced += strcmp(text, "TEST=sync") == 0;
    if (fd >= 0)
        close(fd);
    pthread_cond_broadcast(&manager.changed);
}

static void *serve(void *data) {
    for (;;) {
        _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int)) + CMSG_SPACE(sizeof(struct ucred))];
        char text[512];
        struct iovec piece = {.iov_base = text, .iov_len = sizeof(text) - 1};
        struct msghdr message = {
            .msg_iov = &piece, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
        ssize_t n = recvmsg(manager.fd, &message, MSG_CMSG_CLOEXEC);
        struct ucred sender = {};
        int fd = -1;

        if (n < 0)
            continue;
        text[n] = '\0';
        for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header))
            if (header->cmsg_type == SCM_RIGHTS)
                memcpy(&fd, CMSG_DATA(header), sizeof(fd));
            else if (header->cmsg_type == SCM_CREDENTIALS)
                memcpy(&sender, CMSG_DATA(header), sizeof(sender));
        if (strcmp(text, "TEST=end") == 0)
            return data;
        pthread_mutex_lock(&manager.mutex);
        manager.n_heard += strncmp(text, "TEST=", 5) != 0;
        if (manager.kill_after && sender.pid == manager.victim && --manager.kill_after == 0) {
            kill(manager.victim, SIGKILL);
            manager.has_killed = true;
        }
        if (sender.pid == manager.victim && !manager.has_killed && strstr(text, "READY=1")) {
            manager.victim_is_ready = true;
            manager.kill_after = 0;
        }
        hear(text, fd);
        pthread_mutex_unlock(&manager.mutex);
    }
}

static void say(const char *text) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    strcpy(address.sun_path, manager.path);
    ck_assert_int_eq(sendto(fd, text, strlen(text), 0, (struct sockaddr *)&address, sizeof(address)), strlen(text));
    close(fd);
}

const char *manager_start(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    strcpy(manager.directory, "/tmp/vmibus-manager-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(manager.directory));
    snprintf(manager.path, sizeof(manager.path), "%s/notify", manager.directory);
    manager.fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    strcpy(address.sun_path, manager.path);
    ck_assert_int_eq(bind(manager.fd, (struct sockaddr *)&address, sizeof(address)), 0);
    ck_assert_int_eq(setsockopt(manager.fd, SOL_SOCKET, SO_PASSCRED, &(int){1}, sizeof(int)), 0);
    ck_assert_int_eq(pthread_create(&manager.thread, NULL, serve, NULL), 0);
    return manager.path;
}

void manager_stop(void) {
    say("TEST=end");
    ck_assert_int_eq(pthread_join(manager.thread, NULL), 0);
    while (manager.n)
        drop(manager.store[0].name);
    while (manager.n_copies)
        close(manager.copies[--manager.n_copies].fd);
    close(manager.fd);
    unlink(manager.path);
    rmdir(manager.directory);
}

void manager_kill_after(pid_t pid, unsigned n) {
    pthread_mutex_lock(&manager.mutex);
    manager.victim = pid;
    manager.has_killed = manager.victim_is_ready = false;
    manager.kill_after = n;
    pthread_mutex_unlock(&manager.mutex);
}

unsigned manager_heard(void) {
    manager_sync();
    return manager.n_heard;
}

void manager_copy(void) {
    manager_sync();
    while (manager.n_copies)
        close(manager.copies[--manager.n_copies].fd);
    for (size_t i = 0; i < manager.n; i++) {
        manager.copies[i] = manager.store[i];
        manager.copies[i].fd = fcntl(manager.store[i].fd, F_DUPFD_CLOEXEC, 0);
    }
    manager.n_copies = manager.n;
}

void manager_put_back(void) {
    manager_sync();
    while (manager.n)
        drop(manager.store[0].name);
    memcpy(manager.store, manager.copies, sizeof(manager.store));
    manager.n = manager.n_copies;
    manager.n_copies = 0;
}

void manager_refuse(bool barriers, int n_kept) {
    pthread_mutex_lock(&manager.mutex);
    manager.ignores_barriers = barriers;
    manager.n_more = n_kept;
    pthread_mutex_unlock(&manager.mutex);
}

void manager_sync(void) {
    unsigned before;

    pthread_mutex_lock(&manager.mutex);
    before = manager.n_synced;
    pthread_mutex_unlock(&manager.mutex);
    say("TEST=sync");
    pthread_mutex_lock(&manager.mutex);
    while (manager.n_synced == before)
        pthread_cond_wait(&manager.changed, &manager.mutex);
    pthread_mutex_unlock(&manager.mutex);
}

unsigned manager_ready(void) {
    manager_sync();
    return manager.n_ready;
}

bool manager_serving_is(const char *status) {
    manager_sync();
    return strcmp(manager.serving, status) == 0;
}

void manager_await_ready(unsigned n) {
    pthread_mutex_lock(&manager.mutex);
    while (manager.n_ready < n)
        pthread_cond_wait(&manager.changed, &manager.mutex);
    pthread_mutex_unlock(&manager.mutex);
}

bool manager_wait_ready_or_death(pid_t pid, unsigned n) {
    bool ready, dead = false;

    do {
        siginfo_t info = {};
        struct timespec until;

        /* What it said before its end has been heard once the manager has heard this. */
        dead = waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT | WNOHANG) == 0 && info.si_pid == pid;
        if (dead)
            manager_sync();
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += 10000000;
        if (until.tv_nsec >= 1000000000) {
            until.tv_sec++;
            until.tv_nsec -= 1000000000;
        }
        pthread_mutex_lock(&manager.mutex);
        if (manager.n_ready < n && !dead)
            (void)pthread_cond_timedwait(&manager.changed, &manager.mutex, &until);
        ready = manager.n_ready >= n && !manager.has_killed;
        pthread_mutex_unlock(&manager.mutex);
    } while (!ready && !dead);
    return ready && !dead;
}

bool manager_wait_victim(void) {
    for (;;) {
        siginfo_t info = {};
        bool ready;

        pthread_mutex_lock(&manager.mutex);
        ready = manager.victim_is_ready;
        pthread_mutex_unlock(&manager.mutex);
        if (ready)
            return true;
        if (waitid(P_PID, (id_t)manager.victim, &info, WEXITED | WNOWAIT | WNOHANG) == 0 && info.si_pid == manager.victim)
            return false;
        (void)usleep(10000);
    }
}

size_t manager_count(const char *prefix) {
    size_t n = 0;

    manager_sync();
    for (size_t i = 0; i < manager.n; i++)
        n += strncmp(manager.store[i].name, prefix, strlen(prefix)) == 0;
    return n;
}

void manager_give(struct daemon *daemon) {
    manager_sync();
    daemon->options.n_kept = 0;
    for (size_t i = 0; i < manager.n; i++) {
        if (strcmp(manager.store[i].name, "barrier") == 0)
            continue;
        daemon->options.kept[daemon->options.n_kept] = manager.store[i].fd;
        daemon->options.kept_names[daemon->options.n_kept++] = manager.store[i].name;
    }
}

int manager_find(const char *name) {
    manager_sync();
    for (size_t i = 0; i < manager.n; i++)
        if (strcmp(manager.store[i].name, name) == 0)
            return manager.store[i].fd;
    return -1;
}

void manager_replace(const char *name, int fd) {
    manager_sync();
    for (size_t i = 0; i < manager.n; i++)
        if (strcmp(manager.store[i].name, name) == 0) {
            close(manager.store[i].fd);
            manager.store[i].fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
        }
}

void manager_drop(const char *name) {
    manager_sync();
    drop(name);
}
