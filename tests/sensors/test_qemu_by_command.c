/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What commands changed of what the QEMU sensor follows, over restarts; and what was saved of it, damaged, hostile, and of other
 * versions.  Time is the test's.
 */
#include "harness.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fake_qemu.h"
#include "machine/saved.h"
#include "mock_host.h"
#include "qemu/qemu.h"

#define NS_PER_MS UINT64_C(1000000)
#define ITEMS_MAGIC UINT64_C(0x646e616d6d6f6379)
#define N_FAKES 2

static char place[64];
static struct fake_qemu *fakes[N_FAKES];
static struct mock_host *host;
static uint8_t kept_octets[65536];
static struct vmibus_sensor_saved kept;

static void settle(void) {
    bool busy;

    do {
        mock_host_settle(host);
        busy = false;
        for (size_t i = 0; i < N_FAKES; i++)
            busy |= fake_serve(fakes[i]);
    } while (busy);
}

static void pass(unsigned int ms) {
    for (unsigned int i = 0; i < ms; i += 10) {
        mock_host_advance(host, 10 * NS_PER_MS);
        settle();
    }
}

static void begin(void) {
    strcpy(place, "/tmp/vmibus-by-command-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(place));
    for (size_t i = 0; i < N_FAKES; i++) {
        fakes[i] = fake_new();
        fakes[i]->registers =
            "CPU#0\r\nCR0=80050033 CR2=0 CR3=0000000000200000 CR4=00350ef0\r\nEFER=0000000000000d01\r\n";
    }
}

static void end(void) {
    char command[128];

    host = mock_host_free(host);
    for (size_t i = 0; i < N_FAKES; i++)
        fakes[i] = fake_free(fakes[i]);
    snprintf(command, sizeof(command), "rm -rf %s", place);
    ck_assert_int_eq(system(command), 0);
}

static void start(const char *option, const char *more) {
    const char *const options[] = {option, more, NULL};

    host = mock_host_new(&vmibus_qemu_sensor);
    mock_host_own_time(host);
    mock_host_give(host, kept.octets ? &kept : NULL);
    ck_assert_int_eq(mock_host_start(host, options), 0);
    pass(50);
}

static void save(void) {
    struct vmibus_sensor_saved state;

    ck_assert_int_eq(vmibus_qemu_sensor.save(mock_host_instance(host), &state), 0);
    ck_assert_uint_le(state.n_octets, sizeof(kept_octets));
    memcpy(kept_octets, state.octets, state.n_octets);
    kept = (struct vmibus_sensor_saved){.octets = kept_octets, .n_octets = state.n_octets};
}

static void stop(void) {
    host = mock_host_free(host);
    for (size_t i = 0; i < N_FAKES; i++)
        fake_hang_up(fakes[i]);
}

static void restart(const char *option, const char *more) {
    save();
    stop();
    start(option, more);
}

static bool is_followed(const char *name) {
    return mock_host_endpoint(host, name);
}

static enum vmibus_error command(enum vmibus_monitor_operation operation, const char *text, size_t length) {
    struct vmibus_frame frame = {.header = {.kind = VMIBUS_KIND_CMD_MONITOR}, .cmd_monitor = {.operation = (uint8_t)operation}};
    uint64_t id = mock_host_execute(host, NULL, &frame, text, length);

    pass(50);
    ck_assert_ptr_nonnull(mock_host_ack(host, id));
    return (enum vmibus_error)mock_host_ack(host, id)->error;
}

static enum vmibus_error add(const char *name, const char *path) {
    char text[512];

    snprintf(text, sizeof(text), "%s=%s", name, path);
    return command(VMIBUS_MONITOR_OPERATION_ADD, text, strlen(text));
}

static enum vmibus_error take_away(const char *name) {
    return command(VMIBUS_MONITOR_OPERATION_REMOVE, name, strlen(name));
}

#define assert_ok(result) ck_assert_int_eq(result, VMIBUS_ERROR_OK)

static const char *monitor_option(const char *path) {
    static char option[256];

    snprintf(option, sizeof(option), "monitor.one=%s", path);
    return option;
}

/* --- what was added -------------------------------------------------------------------------------- */

TEST(test_p07_vm_added_by_command_is_followed_over_restarts, .setup = begin, .teardown = end) {
    fake_close(fakes[1]);
    start(NULL, NULL);
    assert_ok(add("one", fakes[0]->path));
    assert_ok(add("two", fakes[1]->path)); /* nobody listens */
    for (unsigned int i = 0; i < 2; i++) {
        restart(NULL, NULL);
        ck_assert(is_followed("one"));
        ck_assert(!is_followed("two"));
        ck_assert_int_eq(add("one", "/else"), VMIBUS_ERROR_BUSY);
    }
    fake_listen(fakes[1]);
    pass(20000);
    ck_assert(is_followed("two"));
}

static enum vmibus_error command_vm(enum vmibus_vm_operation operation) {
    const struct vmibus_frame frame = {.header.kind = VMIBUS_KIND_CMD_VM, .cmd_vm.operation = (uint8_t)operation};
    uint64_t id = mock_host_execute(host, mock_host_endpoint(host, "one"), &frame, NULL, 0);

    pass(50);
    ck_assert_ptr_nonnull(mock_host_ack(host, id));
    return (enum vmibus_error)mock_host_ack(host, id)->error;
}

TEST(test_p11_hold_of_a_vm_added_by_command_is_kept, .setup = begin, .teardown = end) {
    start(NULL, NULL);
    assert_ok(add("one", fakes[0]->path));
    assert_ok(command_vm(VMIBUS_VM_OPERATION_HOLD));
    restart(NULL, NULL);
    ck_assert(is_followed("one"));
    mock_host_accept(host, mock_host_endpoint(host, "one"), true);
    settle();
    ck_assert_str_eq(fakes[0]->status, "paused");
    assert_ok(command_vm(VMIBUS_VM_OPERATION_LET_GO));
    ck_assert_str_eq(fakes[0]->status, "running");
}

TEST(test_vm_added_and_removed_by_command_is_forgotten, .setup = begin, .teardown = end) {
    start(NULL, NULL);
    assert_ok(add("one", fakes[0]->path));
    assert_ok(take_away("one"));
    restart(NULL, NULL);
    ck_assert(!is_followed("one"));
    assert_ok(add("one", "/else"));
}

TEST(test_configuration_wins_over_a_command_before, .setup = begin, .teardown = end) {
    start(NULL, NULL);
    assert_ok(add("one", "/else"));
    restart(monitor_option(fakes[0]->path), NULL);
    ck_assert(is_followed("one"));
    /* It is the configuration's from now on. */
    restart(NULL, NULL);
    ck_assert(!is_followed("one"));
}

TEST(test_p08_limit_holds_for_what_was_saved, .setup = begin, .teardown = end) {
    start(NULL, NULL);
    assert_ok(add("one", "/1"));
    assert_ok(add("two", "/2"));
    assert_ok(add("three", "/3"));
    restart("directory-limit=2", NULL);
    ck_assert_int_eq(add("four", "/4"), VMIBUS_ERROR_PRESSURE);
    assert_ok(add("one", "/1"));
    assert_ok(add("two", "/2"));
    assert_ok(take_away("two"));
    ck_assert_int_eq(take_away("three"), VMIBUS_ERROR_GONE);
}

/* --- what was removed ------------------------------------------------------------------------------ */

TEST(test_removed_vm_of_an_option_stays_away_over_restarts, .setup = begin, .teardown = end) {
    const char *option = monitor_option(fakes[0]->path);

    start(option, NULL);
    assert_ok(take_away("one"));
    restart(option, NULL);
    restart(option, NULL);
    ck_assert(!is_followed("one"));
    assert_ok(add("one", fakes[1]->path)); /* another VM of that name has nothing to do with it */
    restart(option, NULL);
    ck_assert(is_followed("one"));
    assert_ok(take_away("one"));
    restart(option, NULL);
    ck_assert(!is_followed("one"));
    assert_ok(add("one", fakes[0]->path)); /* takes the removal back */
    restart(option, NULL);
    ck_assert(is_followed("one"));
    restart(NULL, NULL);
    ck_assert(!is_followed("one"));
    restart(option, NULL);
    assert_ok(take_away("one"));
    restart(option, NULL);
    ck_assert(!is_followed("one"));
}

TEST(test_removal_ends_with_the_option, .setup = begin, .teardown = end) {
    char option[256];

    snprintf(option, sizeof(option), "%s", monitor_option(fakes[0]->path));
    start(option, NULL);
    assert_ok(take_away("one"));
    restart(monitor_option(fakes[1]->path), NULL); /* it is another VM */
    ck_assert(is_followed("one"));
    restart(option, NULL); /* it was another one meanwhile */
    ck_assert(is_followed("one"));
}

TEST(test_removed_file_of_the_directory_stays_away_over_restarts, .setup = begin, .teardown = end) {
    char option[128];

    fake_close(fakes[0]);
    snprintf(fakes[0]->path, sizeof(fakes[0]->path), "%s/o=ne.qmp", place);
    fake_listen(fakes[0]);
    snprintf(option, sizeof(option), "directory=%s", place);
    start(option, NULL);
    ck_assert(is_followed("o=ne"));
    assert_ok(take_away("o=ne"));
    restart(option, NULL);
    restart(option, NULL);
    ck_assert(!is_followed("o=ne"));
    fake_close(fakes[0]);
    pass(100);
    fake_listen(fakes[0]);
    pass(100);
    ck_assert(is_followed("o=ne"));
}

/* --- hostile octets -------------------------------------------------------------------------------- */

/* A state without machines, of these items. */
static void begin_state(void) {
    const struct saved_header header = {.magic = SAVED_MAGIC, .record_size = sizeof(struct saved_machine)};
    const uint64_t magic = ITEMS_MAGIC;

    memcpy(kept_octets, &header, sizeof(header));
    memcpy(kept_octets + sizeof(header), &magic, sizeof(magic));
    kept = (struct vmibus_sensor_saved){.octets = kept_octets, .n_octets = sizeof(header) + sizeof(magic)};
}

static void put_item(uint32_t kind, uint32_t said, const void *octets, size_t length) {
    const uint32_t header[] = {kind, said};

    ck_assert_uint_le(kept.n_octets + sizeof(header) + length, sizeof(kept_octets));
    memcpy(kept_octets + kept.n_octets, header, sizeof(header));
    memcpy(kept_octets + kept.n_octets + sizeof(header), octets, length);
    kept.n_octets += sizeof(header) + length;
}

static void put_added(const char *text) {
    put_item(1, (uint32_t)strlen(text), text, strlen(text));
}

static void assert_none_but(const char *const *names) {
    char text[64] = "";

    for (size_t i = 0; names[i]; i++) {
        assert_ok(take_away(names[i]));
        strcat(strcat(text, names[i]), " ");
    }
    save();
    /* What is followed would be saved. */
    ck_assert_msg(kept.n_octets == sizeof(struct saved_header), "more is followed than %s: %zu octets", text, kept.n_octets);
    kept = (struct vmibus_sensor_saved){};
}

TEST(test_p12_each_saved_item_is_checked_alone, .setup = begin, .teardown = end) {
    static const char *const good[] = {"first", "last", NULL};
    static const char *const bad[] = {"",        "=",        "name",     "=/path",    "name=",         "name=relative",
                                      "a\nb=/p", "a\x7f=/p", "first=/q", "/path=",    "name =relative", "\x01=/p"};
    char longest[300], name[400];

    begin_state();
    put_added("first=/first");
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        put_added(bad[i]);
    memset(longest, 'x', sizeof(longest) - 1);
    longest[0] = '/';
    longest[sizeof(longest) - 1] = '\0';
    snprintf(name, sizeof(name), "name=%s", longest);
    put_added(name);
    snprintf(name, sizeof(name), "%s=/p", longest);
    put_added(name);
    longest[110] = '\0'; /* one octet more than an address has */
    snprintf(name, sizeof(name), "name=%s", longest);
    put_added(name);
    put_item(1, 9, "nul=/p\0/q", 9);
    put_item(1, 8, "n\0ul=/p/", 8);
    put_item(3, 4, "file", 4);
    put_item(3, 24, (uint8_t[24]){}, 24);
    put_item(3, 30, "000000000000000000000000no-way", 30);
    put_item(0, 3, "nil", 3);
    put_item(77, 9, "later=/la", 9);
    put_added("last=/last");
    put_item(1, UINT32_MAX, "beyond=/p", 9);
    start(NULL, NULL);
    assert_none_but(good);
}

/* The same that is refused when it is saved is refused when it is commanded. */
TEST(test_command_with_a_nul_is_refused, .setup = begin, .teardown = end) {
    start(NULL, NULL);
    ck_assert_int_eq(command(VMIBUS_MONITOR_OPERATION_ADD, "nul=/p\0/q", 9), VMIBUS_ERROR_VALIDATION);
    ck_assert_int_eq(command(VMIBUS_MONITOR_OPERATION_ADD, "", 0), VMIBUS_ERROR_VALIDATION);
    assert_ok(add("one", "/p"));
    ck_assert_int_eq(command(VMIBUS_MONITOR_OPERATION_REMOVE, "one\0x", 5), VMIBUS_ERROR_GONE);
    ck_assert_int_eq(command(VMIBUS_MONITOR_OPERATION_REMOVE, "", 0), VMIBUS_ERROR_GONE);
}

/* Cut anywhere, and changed anywhere. */
TEST(test_p12_damaged_items_do_no_harm, .setup = begin, .teardown = end, .timeout = 120) {
    uint8_t octets[4096];
    char option[128];
    size_t n;

    snprintf(option, sizeof(option), "directory=%s", place);
    begin_state();
    put_added("first=/first");
    put_item(2, 12, "one=/nowhere", 12);
    snprintf((char *)octets, sizeof(octets), "%-24sfile%s", "status", place);
    put_item(3, (uint32_t)strlen((char *)octets), octets, strlen((char *)octets));
    put_added("last=/last");
    n = kept.n_octets;
    memcpy(octets, kept_octets, n);
    for (size_t i = 0; i < 2 * n; i++) {
        memcpy(kept_octets, octets, n);
        kept.octets = kept_octets;
        kept.n_octets = i < n ? i : n;
        if (i >= n)
            kept_octets[i - n] ^= 0xff;
        start("monitor.one=/nowhere", option);
        stop();
    }
}

TEST(test_p08_too_many_items_are_left, .setup = begin, .teardown = end, .timeout = 120) {
    const size_t n = 3u * 65536u, size = sizeof(struct saved_header) + 8 + n * 8;
    uint8_t *octets = calloc(1, size + 32);

    begin_state();
    memcpy(octets, kept_octets, kept.n_octets);
    memcpy(octets + size, "\1\0\0\0\6\0\0\0one=/1", 14);
    kept = (struct vmibus_sensor_saved){.octets = octets, .n_octets = size + 14};
    start("monitor.two=/2", NULL);
    ck_assert_int_eq(take_away("one"), VMIBUS_ERROR_GONE);
    kept = (struct vmibus_sensor_saved){};
    free(octets);
}

/* --- other versions -------------------------------------------------------------------------------- */

/* A version that knows of machines only sees these where they ever were, and writes nothing behind them. */
TEST(test_p11_version_that_saves_machines_only, .setup = begin, .teardown = end) {
    const char *option = monitor_option(fakes[0]->path);
    struct saved_header header;

    start(option, NULL);
    assert_ok(add("two", "/else"));
    assert_ok(command_vm(VMIBUS_VM_OPERATION_HOLD));
    save();
    stop();
    memcpy(&header, kept_octets, sizeof(header));
    ck_assert_uint_eq(header.n_machines, 1);
    ck_assert_uint_gt(kept.n_octets, sizeof(header) + header.record_size);
    kept.n_octets = sizeof(header) + header.record_size;
    start(option, NULL);
    mock_host_accept(host, mock_host_endpoint(host, "one"), true);
    settle();
    ck_assert_str_eq(fakes[0]->status, "paused");
    assert_ok(command_vm(VMIBUS_VM_OPERATION_LET_GO));
    ck_assert_str_eq(fakes[0]->status, "running");
    ck_assert_int_eq(take_away("two"), VMIBUS_ERROR_GONE);
}

/* Records of another size, longer and shorter: what follows them is found behind them. */
TEST(test_p11_items_are_found_behind_records_of_any_size, .setup = begin, .teardown = end, .iterations = 2) {
    uint8_t octets[4096];
    struct saved_header header;
    uint32_t size = _i ? 40 : sizeof(struct saved_machine) + 24;
    size_t before;

    start(monitor_option(fakes[0]->path), NULL);
    assert_ok(add("two", fakes[1]->path));
    save();
    stop();
    memcpy(&header, kept_octets, sizeof(header));
    ck_assert_uint_eq(header.n_machines, 2);
    before = sizeof(header) + 2 * sizeof(struct saved_machine);
    memset(octets, 0xee, sizeof(octets));
    header.record_size = size;
    memcpy(octets, &header, sizeof(header));
    for (size_t i = 0; i < 2; i++)
        memcpy(octets + sizeof(header) + i * size, kept_octets + sizeof(header) + i * sizeof(struct saved_machine),
               size < sizeof(struct saved_machine) ? size : sizeof(struct saved_machine));
    memcpy(octets + sizeof(header) + 2 * size, kept_octets + before, kept.n_octets - before);
    kept = (struct vmibus_sensor_saved){.octets = octets, .n_octets = sizeof(header) + 2 * size + kept.n_octets - before};
    start(NULL, NULL);
    ck_assert(!is_followed("one"));
    ck_assert(is_followed("two"));
}

HARNESS_SUITE("QEMU monitors by command", HARNESS_QUICK)
