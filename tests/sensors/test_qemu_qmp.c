/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The QMP client against a monitor that the test plays.
 */
#include "harness.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fake_qemu.h"
#include "mock_host.h"
#include "qemu/qmp.h"

/* --- a sensor that is nothing but a client --------------------------------------------------- */

static struct {
    struct vmibus_sensor_host *host;
    const struct vmibus_sensor_api *api;
    struct qmp *qmp;
    unsigned int ready, waiting, events, failed;
    char event[64];
    enum qmp_failure failure;
    char message[512];
    unsigned int replies[3]; /* by outcome */
    char reply[64];
} seen;

static int start(struct vmibus_sensor_host *host, const struct vmibus_sensor_api *api,
                 const struct vmibus_sensor_option *options, size_t n_options, void **instancep) {
    (void)options;
    (void)n_options;
    seen.host = host;
    seen.api = api;
    *instancep = &seen;

    return 0;
}

static void stop(void *instance) {
    (void)instance;
    seen.qmp = qmp_free(seen.qmp);
}

static const struct vmibus_sensor_module module = {
    .struct_size = sizeof(module),
    .abi = VMIBUS_SENSOR_ABI,
    .name = "client",
    .start = start,
    .stop = stop,
};

static void on_ready(void *userdata) {
    (void)userdata;
    seen.ready++;
}

static void on_waiting(void *userdata) {
    (void)userdata;
    seen.waiting++;
}

static void on_event(void *userdata, const char *name, json_object *data) {
    (void)userdata;
    (void)data;
    seen.events++;
    snprintf(seen.event, sizeof(seen.event), "%s", name);
}

static void on_failed(void *userdata, enum qmp_failure failure, const char *message) {
    (void)userdata;
    seen.failed++;
    seen.failure = failure;
    snprintf(seen.message, sizeof(seen.message), "%s", message);
    seen.qmp = qmp_free(seen.qmp);
}

static const struct qmp_callbacks callbacks = {on_ready, on_waiting, on_event, on_failed};

static void on_reply(void *userdata, const struct monitor_reply *reply) {
    (void)userdata;
    seen.replies[reply->outcome]++;
    if (reply->outcome == MONITOR_RETURN && json_object_is_type(reply->value, json_type_string))
        snprintf(seen.reply, sizeof(seen.reply), "%s", json_object_get_string(reply->value));
}

/* --- the test -------------------------------------------------------------------------------- */

static struct fake_qemu *fake;
static struct mock_host *host;

static void begin(void) {
    fake = fake_new();
    host = mock_host_new(&module);
    mock_host_own_time(host);
    ck_assert_int_eq(mock_host_start(host, NULL), 0);
}

static void end(void) {
    host = mock_host_free(host);
    fake = fake_free(fake);
}

static int open_client(void) {
    return qmp_new(&seen.qmp, seen.api, seen.host, fake->path, &callbacks, NULL);
}

static void settle(void) {
    do
        mock_host_settle(host);
    while (fake_serve(fake));
}

static void connect_client(void) {
    ck_assert_int_eq(open_client(), 0);
    settle();
}

static void expect_failure(enum qmp_failure failure, const char *word) {
    settle();
    ck_assert_uint_eq(seen.failed, 1);
    ck_assert_int_eq(seen.failure, failure);
    ck_assert_msg(strstr(seen.message, word), "%s", seen.message);
    ck_assert_uint_eq(mock_host_sources(host), 0);
}

TEST(test_greeting_and_negotiation, .setup = begin, .teardown = end) {
    connect_client();
    ck_assert_uint_eq(seen.ready, 1);
    ck_assert(qmp_is_ready(seen.qmp));
    ck_assert_uint_eq(fake_count(fake, "qmp_capabilities"), 1);
    ck_assert_int_eq(qmp_execute(seen.qmp, "query-uuid", NULL, on_reply, NULL), 0);
    ck_assert_int_eq(qmp_execute_human(seen.qmp, "gpa2hva 0x1", on_reply, NULL), 0);
    settle();
    ck_assert_uint_eq(seen.replies[MONITOR_RETURN], 2);
    ck_assert_ptr_nonnull(strstr(seen.reply, "(ram0)"));
}

TEST(test_idle_needs_no_timer, .setup = begin, .teardown = end) {
    connect_client();
    mock_host_advance(host, UINT64_C(3600) * 1000000000);
    ck_assert_uint_eq(seen.failed, 0);
    ck_assert(qmp_is_ready(seen.qmp));
}

static const struct {
    const char *greeting;
    const char *word;
} greetings[] = {
    {"hello", "json"},
    {"{}", "greeting"},
    {"{\"QMP\": 1}", "greeting"},
    {"{\"QMP\": {\"version\": 7}}", "greeting"},
    {"{\"return\": {}}", "greeting"},
    {"[\"QMP\"]", "json"},
    {"{\"QMP\": {\"version\": {}}} trailing", "json"},
    {"{\"QMP\": {\"version\": {}}", "json"},
    {"{\"QMP\": {\"version\": {\"a\": \"\xff\xfe\"}}}", "json"},
};

TEST(test_p09_bad_greetings, .setup = begin, .teardown = end,
     .iterations = (int)(sizeof(greetings) / sizeof(*greetings))) {
    fake->greeting = greetings[_i].greeting;
    ck_assert_int_eq(open_client(), 0);
    expect_failure(QMP_GARBAGE, greetings[_i].word);
}

TEST(test_negotiation_refused, .setup = begin, .teardown = end) {
    fake->refuse = "qmp_capabilities";
    ck_assert_int_eq(open_client(), 0);
    expect_failure(QMP_REFUSED, "refused");
}

static const struct {
    const char *line;
    const char *word;
} lines[] = {
    {"{\"return\": {}}", "not given"},
    {"{\"return\": {}, \"id\": 4711}", "not given"},
    {"{\"return\": {}, \"id\": \"1\"}", "not given"},
    {"{\"return\": {}, \"id\": -1}", "not given"},
    {"{\"id\": 2}", "neither"},
    {"{\"id\": 2, \"error\": {}}", "without class"},
    {"{\"id\": 2, \"error\": {\"class\": \"a\\u0000b\", \"desc\": \"x\"}}", "without class"},
    {"{\"id\": 2, \"error\": {\"class\": 1, \"desc\": \"x\"}}", "without class"},
    {"{\"event\": 1}", "without a name"},
    {"{\"event\": {}}", "without a name"},
    {"not json", "json"},
    {"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]", "json"},
};

TEST(test_p09_garbage_in_the_middle, .setup = begin, .teardown = end,
     .iterations = (int)(sizeof(lines) / sizeof(*lines))) {
    connect_client();
    fake->hold = "query-status";
    ck_assert_int_eq(qmp_execute(seen.qmp, "query-status", NULL, on_reply, NULL), 0);
    settle();
    fake_send(fake, lines[_i].line, strlen(lines[_i].line));
    fake_send(fake, "\n", 1);
    expect_failure(QMP_GARBAGE, lines[_i].word);
    ck_assert_uint_eq(seen.replies[MONITOR_LOST], 1);
}

TEST(test_errors_are_told, .setup = begin, .teardown = end) {
    connect_client();
    fake->refuse = "system_wakeup";
    ck_assert_int_eq(qmp_execute(seen.qmp, "system_wakeup", NULL, on_reply, NULL), 0);
    settle();
    ck_assert_uint_eq(seen.replies[MONITOR_ERROR], 1);
    ck_assert_uint_eq(seen.failed, 0);
}

TEST(test_events_between_answers, .setup = begin, .teardown = end) {
    const char *answer = "{\"return\": {}, \"id\": 2}\r\n\r\n\n";

    connect_client();
    fake->hold = "query-status";
    ck_assert_int_eq(qmp_execute(seen.qmp, "query-status", NULL, on_reply, NULL), 0);
    settle();
    fake_event(fake, "STOP", NULL);
    fake_event(fake, "RESUME", NULL);
    fake_send(fake, answer, strlen(answer));
    fake_event(fake, "RESET", "{\"guest\": true}");
    settle();
    ck_assert_uint_eq(seen.events, 3);
    ck_assert_str_eq(seen.event, "RESET");
    ck_assert_uint_eq(seen.replies[MONITOR_RETURN], 1);
    ck_assert_uint_eq(seen.failed, 0);
}

TEST(test_p09_an_octet_zero_is_garbage, .setup = begin, .teardown = end) {
    connect_client();
    fake_send(fake, "\0{\"event\": \"STOP\"}\n", 20);
    expect_failure(QMP_GARBAGE, "json");
}

TEST(test_octet_by_octet, .setup = begin, .teardown = end) {
    const char *line =
        "{\"event\": \"STOP\", \"timestamp\": {\"seconds\": 1, \"microseconds\": 2}}\r\n";

    connect_client();
    for (size_t i = 0; line[i]; i++) {
        ck_assert_uint_eq(seen.events, 0);
        fake_send(fake, line + i, 1);
        settle();
    }
    ck_assert_uint_eq(seen.events, 1);
}

TEST(test_p09_a_line_without_end, .setup = begin, .teardown = end) {
    char chunk[65536];

    memset(chunk, 'x', sizeof(chunk));
    connect_client();
    for (unsigned int i = 0; i < 64 && !seen.failed; i++) {
        fake_send(fake, chunk, sizeof(chunk));
        mock_host_settle(host);
    }
    expect_failure(QMP_GARBAGE, "longer");
}

TEST(test_p09_a_megabyte_of_garbage_lines, .setup = begin, .teardown = end) {
    char chunk[65536];

    for (size_t i = 0; i < sizeof(chunk); i++)
        chunk[i] = i % 97 == 96 ? '\n' : (char)(i % 251);
    connect_client();
    fake_send(fake, chunk, sizeof(chunk));
    expect_failure(QMP_GARBAGE, "json");
}

/* A flood of lawful events does not keep the loop: each wakeup takes a bounded amount. */
TEST(test_p09_a_flood_leaves_the_loop_to_others, .setup = begin, .teardown = end) {
    connect_client();
    for (unsigned int i = 0; i < 4000; i++)
        fake_event(fake, "RTC_CHANGE", "{\"offset\": 78}");
    mock_host_iterate(host, 0);
    ck_assert_uint_gt(seen.events, 0);
    ck_assert_uint_le(seen.events, 1000);
    ck_assert_uint_eq(seen.failed, 0);
}

TEST(test_silence_fails_what_waits, .setup = begin, .teardown = end) {
    connect_client();
    fake->silent = true;
    ck_assert_int_eq(qmp_execute(seen.qmp, "query-status", NULL, on_reply, NULL), 0);
    ck_assert_int_eq(qmp_execute(seen.qmp, "query-uuid", NULL, on_reply, NULL), 0);
    settle();
    mock_host_advance(host, MONITOR_DEADLINE_NS - 1);
    ck_assert_uint_eq(seen.failed, 0);
    mock_host_advance(host, 2);
    expect_failure(QMP_SILENT, "not answered");
    ck_assert_uint_eq(seen.replies[MONITOR_LOST], 2);
}

/* The answer came in time, and it is this loop that is late. */
TEST(test_a_late_loop_takes_the_answer, .setup = begin, .teardown = end) {
    connect_client();
    ck_assert_int_eq(qmp_execute(seen.qmp, "query-uuid", NULL, on_reply, NULL), 0);
    ck_assert(fake_serve(fake));
    mock_host_advance(host, MONITOR_DEADLINE_NS + 1);
    settle();
    ck_assert_uint_eq(seen.failed, 0);
    ck_assert_uint_eq(seen.replies[MONITOR_RETURN], 1);
}

TEST(test_disconnect_in_the_middle, .setup = begin, .teardown = end) {
    connect_client();
    fake->hold = "query-status";
    ck_assert_int_eq(qmp_execute(seen.qmp, "query-status", NULL, on_reply, NULL), 0);
    settle();
    fake_send(fake, "{\"return\"", 9);
    fake_hang_up(fake);
    expect_failure(QMP_CLOSED, "closed");
    ck_assert_uint_eq(seen.replies[MONITOR_LOST], 1);
}

TEST(test_no_greeting_means_in_use, .setup = begin, .teardown = end) {
    fake->greeting = NULL;
    ck_assert_int_eq(open_client(), 0);
    settle();
    ck_assert_uint_eq(seen.waiting, 0);
    mock_host_advance(host, QMP_GREETING_NS + 1);
    ck_assert_uint_eq(seen.waiting, 1);
    ck_assert_uint_eq(seen.failed, 0);
    /* It waits in line without another wakeup, and is served when its turn comes. */
    mock_host_advance(host, UINT64_C(3600) * 1000000000);
    ck_assert_uint_eq(seen.waiting, 1);
    fake_send(fake, FAKE_GREETING "\r\n", sizeof(FAKE_GREETING "\r\n") - 1);
    settle();
    ck_assert_uint_eq(seen.ready, 1);
}

TEST(test_full_line_means_in_use, .setup = begin, .teardown = end) {
    struct qmp *first[2] = {NULL, NULL};

    /* The backlog of one takes two; nobody accepts. */
    for (int i = 0; i < 2; i++)
        ck_assert_int_eq(qmp_new(&first[i], seen.api, seen.host, fake->path, &callbacks, NULL), 0);
    ck_assert_int_eq(open_client(), QMP_IN_USE);
    qmp_free(first[0]);
    qmp_free(first[1]);
}

TEST(test_nothing_listens, .setup = begin, .teardown = end) {
    close(fake->listener);
    fake->listener = -1;
    ck_assert_int_eq(open_client(), QMP_ABSENT);
    fake_close(fake);
    ck_assert_int_eq(open_client(), QMP_ABSENT);
    memset(fake->path, 'x', sizeof(fake->path) - 1);
    ck_assert_int_eq(qmp_new(&seen.qmp, seen.api, seen.host, "", &callbacks, NULL), -ENAMETOOLONG);
    fake->path[0] = 0;
}

TEST(test_p08_commands_are_bounded, .setup = begin, .teardown = end) {
    connect_client();
    fake->silent = true;
    for (unsigned int i = 0; i < QMP_PENDING_BOUND; i++)
        ck_assert_int_eq(qmp_execute(seen.qmp, "query-status", NULL, on_reply, NULL), 0);
    ck_assert_int_eq(
        qmp_execute(seen.qmp, "query-status", json_object_new_object(), on_reply, NULL), -ENOBUFS);
}

TEST(test_commands_before_the_greeting_are_refused, .setup = begin, .teardown = end) {
    fake->greeting = NULL;
    ck_assert_int_eq(open_client(), 0);
    ck_assert_int_eq(
        qmp_execute(seen.qmp, "query-status", json_object_new_object(), on_reply, NULL), -ENOTCONN);
}

HARNESS_SUITE("qemu: QMP client", HARNESS_QUICK)
