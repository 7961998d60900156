/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Patterns of subscriptions: lawful and unlawful ones, hostile ones, and what they match. */
#include <string.h>
#include <unistd.h>

#include "daemon/daemon.h"
#include "harness.h"

#define KINDS_ALL UINT64_MAX

static struct daemon daemon_under_test;
static struct daemon *const d = &daemon_under_test;

static struct vmibus_frame subscription(uint64_t kinds) {
    struct vmibus_frame frame = wire_frame(VMIBUS_KIND_SUBSCRIBE);

    frame.subscribe.kinds = kinds;
    return frame;
}

TEST(test_patterns_of_every_length_and_content) {
    char pattern[300];
    struct vmibus_frame frame;
    int fd;

    daemon_start(d, NULL);
    fd = wire_open(d->path, NULL);
    memset(pattern, '*', sizeof(pattern));
    frame = subscription(KINDS_ALL);
    wire_expect(fd, &frame, "", 0, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_LENGTH);
    frame = subscription(KINDS_ALL);
    wire_expect(fd, &frame, pattern, 256, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_LENGTH);
    frame = subscription(KINDS_ALL);
    wire_expect(fd, &frame, pattern, 255, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
    /* A NUL anywhere: what would be compared is not what was said. */
    for (size_t i = 0; i < 255; i += 127) {
        pattern[i] = '\0';
        frame = subscription(KINDS_ALL);
        wire_expect(fd, &frame, pattern, 255, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD);
        pattern[i] = '*';
    }
    for (unsigned octet = 1; octet < 256; octet++) {
        char one = (char)octet;

        frame = subscription(0);
        wire_expect(fd, &frame, &one, 1, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
    }
    /* What matching by trying every way would never end with. */
    for (size_t i = 0; i + 1 < 255; i += 2)
        memcpy(pattern + i, "*[!x]", i + 5 < 255 ? 5 : 2);
    memset(pattern + 200, '?', 55);
    frame = subscription(KINDS_ALL);
    wire_expect(fd, &frame, pattern, 255, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
    static const char *const odd[] = {
        "[",   "[[:",         "[[:alpha:", "[a-",       "\\",      "uuid:", "uuid:zz", "uuid:00000000-0000-0000-0000-000000000000",
        "[!]", "[[.space.]]", "[[=a=]]",   "stub-0/..", "\xff\xfe"};
    for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
        frame = subscription(KINDS_ALL);
        wire_expect(fd, &frame, odd[i], strlen(odd[i]), VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
    }
    close(fd);
    daemon_stop(d);
}

/* Counts the endpoints that are told before the ACK. */
static unsigned count_roster(int fd, const char *pattern) {
    struct vmibus_frame frame = subscription(VMIBUS_KIND_BIT(VMIBUS_KIND_ROSTER)), received;
    unsigned n = 0;

    ck_assert(wire_send(fd, &frame, pattern, strlen(pattern)));
    for (;;) {
        ck_assert(wire_receive(fd, &received, NULL));
        if (received.header.kind == VMIBUS_KIND_ACK && received.header.correlation == frame.header.correlation)
            break;
        n += received.header.kind == VMIBUS_KIND_ROSTER;
    }
    ck_assert_uint_eq(received.ack.error, VMIBUS_ERROR_OK);
    frame = subscription(0);
    wire_expect(fd, &frame, pattern, strlen(pattern), VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
    return n;
}

TEST(test_p07_patterns_match_what_they_say) {
    int fd;

    daemon_start(d, NULL);
    fd = wire_open(d->path, NULL);
    ck_assert_uint_eq(count_roster(fd, "*"), 2);
    ck_assert_uint_eq(count_roster(fd, "stub-?"), 2);
    ck_assert_uint_eq(count_roster(fd, "stub-1"), 1);
    ck_assert_uint_eq(count_roster(fd, "stub"), 0);
    ck_assert_uint_eq(count_roster(fd, "STUB-1"), 0);
    ck_assert_uint_eq(count_roster(fd, "uuid:766d6962-7573-8000-8000-000000000001"), 1);
    ck_assert_uint_eq(count_roster(fd, "uuid:766d6962757380008000000000000001"), 1);
    ck_assert_uint_eq(count_roster(fd, "uuid:00000000-0000-0000-0000-000000000000"), 0);
    close(fd);
    daemon_stop(d);
}

HARNESS_SUITE("patterns", HARNESS_QUICK)
