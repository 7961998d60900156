/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Descriptors and lists: who owns what, and that taking away twice is harmless. */
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "util/fds.h"
#include "util/list.h"

static bool is_open(int fd) {
    return fcntl(fd, F_GETFD) >= 0;
}

TEST(test_fd_close_keeps_errno_and_takes_none) {
    int fd = eventfd(0, EFD_CLOEXEC);

    errno = EXDEV;
    ck_assert_int_eq(fd_close(fd), -1);
    ck_assert_int_eq(fd_close(fd), -1); /* EBADF inside */
    ck_assert_int_eq(fd_close(-1), -1);
    ck_assert_int_eq(errno, EXDEV);
    ck_assert(!is_open(fd));
}

TEST(test_fd_is_closed_with_its_scope_unless_stolen) {
    int closed, kept;

    {
        _cleanup_fd_ int one = eventfd(0, EFD_CLOEXEC);
        _cleanup_fd_ int other = eventfd(0, EFD_CLOEXEC);

        closed = one;
        kept = fd_steal(&other);
        ck_assert_int_eq(other, -1);
    }
    ck_assert(!is_open(closed));
    ck_assert(is_open(kept));
    fd_close(kept);
}

TEST(test_fd_dup_is_close_on_exec) {
    int fds[3] = {eventfd(0, 0), -1, -1};

    fds[2] = fd_dup(fds[0]);
    ck_assert_int_gt(fds[2], 2);
    ck_assert_int_eq(fcntl(fds[2], F_GETFD), FD_CLOEXEC);
    ck_assert_int_eq(fd_dup(-1), -EBADF);
    fds_close(fds, 3);
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(fds[i], -1);
}

struct item {
    int value;
    struct list link;
};

TEST(test_list_keeps_order_and_forgives_unlinking_twice) {
    struct list head = LIST_INIT(head);
    struct item items[5], *item, *following;
    int sum = 0;

    ck_assert(list_is_empty(&head));
    ck_assert_ptr_null(list_first(&head, struct item, link));
    for (int i = 0; i < 5; i++) {
        items[i].value = i;
        list_init(&items[i].link);
        ck_assert(!list_is_linked(&items[i].link));
    }
    for (int i = 1; i < 4; i++)
        list_append(&head, &items[i].link);
    list_prepend(&head, &items[0].link);
    list_insert_between(&items[4].link, head.previous, &head);
    list_for_each(item, &head, link)
        sum = sum * 10 + item->value;
    ck_assert_int_eq(sum, 1234);
    list_for_each_safe(item, following, &head, link)
        if (item->value % 2)
            list_unlink(&item->link);
    list_unlink(&items[1].link);
    ck_assert(!list_is_linked(&items[1].link));
    ck_assert(list_is_linked(&items[2].link));
    sum = 0;
    list_for_each(item, &head, link)
        sum = sum * 10 + item->value;
    ck_assert_int_eq(sum, 24);
    ck_assert_int_eq(list_first(&head, struct item, link)->value, 0);
}

HARNESS_SUITE("fds and lists", HARNESS_QUICK)
