/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Walks an operation; see failing.h. */
#include "failing.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"

/* More calls than any operation of a test makes. */
#define CALLS_MAX 20000

#define FDS_MAX 256

#ifdef VMIBUS_ADDRESS_SANITIZED
int __lsan_do_recoverable_leak_check(void);
#endif

static bool leaks(void) {
#ifdef VMIBUS_ADDRESS_SANITIZED
    return __lsan_do_recoverable_leak_check() != 0;
#else
    return false;
#endif
}

/* Which descriptors are open. */
struct fds {
    bool open[FDS_MAX];
};

static void look_at_fds(struct fds *fds) {
    for (int fd = 0; fd < FDS_MAX; fd++)
        fds->open[fd] = fcntl(fd, F_GETFD) >= 0;
}

static void compare_fds(const struct fds *before) {
    struct fds after;

    look_at_fds(&after);
    for (int fd = 0; fd < FDS_MAX; fd++)
        if (after.open[fd] != before->open[fd])
            ck_abort_msg("%s failed: descriptor %d is %s", failing_name(), fd,
                         after.open[fd] ? "left open" : "closed, which was not its own");
}

/* Whether the call that failed is one of those that can be done without. */
static bool is_spared(const char *spared) {
    const char *name = failing_name();
    size_t len = strcspn(name, "(");

    if (!spared || strcmp(spared, "*") == 0)
        return spared;
    for (const char *at = spared; *at;) {
        size_t length = strcspn(at, " ");

        if (length == len && strncmp(at, name, len) == 0)
            return true;
        at += length + strspn(at + length, " ");
    }
    return false;
}

static void check_result(const struct failing_walk *walk, int r, const struct fds *before) {
    compare_fds(before);
    if (leaks())
        ck_abort_msg("%s failed: memory was lost", failing_name());
    if (r > 0 || r < -4095)
        ck_abort_msg("%s failed: the operation answered %d, which is no errno", failing_name(), r);
    if (walk->way == FAILING_SHORT && r == 0)
        return;
    if (r == 0 && !is_spared(walk->spared))
        ck_abort_msg("%s failed, and the operation said that it succeeded", failing_name());
    if (r < 0 && r != -failing_error() && !walk->translates)
        ck_abort_msg("%s failed with %s, and the operation answered %s", failing_name(), strerror(failing_error()), strerror(-r));
}

unsigned int failing_walk(const struct failing_walk *walk) {
    struct fds before;
    unsigned int n;
    int r;

    /* What is made once and kept is made in the first. */
    r = walk->operation(walk->context);
    if (r)
        ck_abort_msg("with nothing failing, the operation answered %d (%s)", r, strerror(-r));
    look_at_fds(&before);
    for (n = 1; n < CALLS_MAX; n++) {
        failing_arm(walk->way, n);
        r = walk->operation(walk->context);
        failing_disarm();
        if (!failing_error())
            break;
        check_result(walk, r, &before);
    }
    if (r)
        ck_abort_msg("with nothing failing any more, the operation answered %d (%s)", r, strerror(-r));
    ck_assert_uint_lt(n, CALLS_MAX);
    return n - 1;
}
