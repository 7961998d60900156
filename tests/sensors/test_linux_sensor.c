/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* When the sensor for Linux holds memory and looks, and when not: on a host of the test's own, in RAM without a kernel. */
#include "harness.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "linux/linux.h"
#include "sensors/mock_host.h"

#define NS_PER_MS UINT64_C(1000000)
#define RAM_LEN (UINT64_C(4) << 20)
#define EPOCH 7u

static struct mock_host *host;
static struct vmibus_sensor_endpoint *endpoint;
static int fd;

static void change_memctx(uint64_t epoch, enum vmibus_memctx_state state, uint64_t note) {
    const struct vmibus_memctx memctx = {.epoch = epoch, .cr3 = 0x1000, .levels = 4, .state = (uint8_t)state, .note = note};

    mock_host_change_memctx(host, endpoint, &memctx);
}

static void begin(void) {
    const struct vmibus_sensor_offer offer = {.name = "vm"};

    fd = memfd_create("ram", MFD_CLOEXEC);
    ck_assert_int_eq(ftruncate(fd, (off_t)RAM_LEN), 0);
    host = mock_host_new(&vmibus_linux_sensor);
    mock_host_own_time(host);
    ck_assert_int_eq(mock_host_start(host, NULL), 0);
    endpoint = mock_host_appear(host, &offer);
}

static void end(void) {
    mock_host_free(host);
    close(fd);
}

#define WITH_HOST .setup = begin, .teardown = end

static void hand_out(uint64_t epoch) {
    const struct vmibus_ram_range range = {.len = RAM_LEN};
    const struct vmibus_sensor_ram ram = {
        .epoch = epoch, .ranges = &range, .n_ranges = 1, .fds = &fd, .n_fds = 1, .pagemap_fd = -1};

    mock_host_answer_attach(host, endpoint, &ram, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
}

static void demand(uint64_t kinds) {
    mock_host_demand(host, endpoint, kinds);
}

static size_t n(enum mock_call call) {
    return mock_host_count(host, call);
}

TEST(test_p02_nothing_is_held_unasked, WITH_HOST) {
    change_memctx(EPOCH, VMIBUS_MEMCTX_STATE_READY, 0x2000);
    demand(VMIBUS_KIND_BIT(VMIBUS_KIND_LIFECYCLE));
    mock_host_advance(host, 3600000 * NS_PER_MS);
    ck_assert_uint_eq(n(MOCK_ATTACH), 0);
    ck_assert_uint_eq(mock_host_timers(host), 0);
    ck_assert_uint_eq(n(MOCK_PROVIDE), 0);
}

TEST(test_p02_the_last_who_asked_ends_it, WITH_HOST) {
    change_memctx(EPOCH, VMIBUS_MEMCTX_STATE_READY, 0x2000);
    demand(VMIBUS_KIND_BIT(VMIBUS_KIND_PROCESS));
    ck_assert_uint_eq(mock_host_last(host, MOCK_ATTACH)->epoch, EPOCH);
    hand_out(EPOCH);
    mock_host_settle(host);
    ck_assert_int_eq(mock_host_last(host, MOCK_ANNOUNCE)->state, VMIBUS_SENSOR_STATE_DEGRADED);
    ck_assert_ptr_nonnull(strstr(mock_host_last(host, MOCK_ANNOUNCE)->message, "vm: "));
    demand(0);
    ck_assert_uint_eq(n(MOCK_DETACH), 1);
    ck_assert_int_eq(mock_host_last(host, MOCK_ANNOUNCE)->state, VMIBUS_SENSOR_STATE_READY);
    mock_host_advance(host, 3600000 * NS_PER_MS);
    ck_assert_uint_eq(n(MOCK_ATTACH), 1);
    ck_assert_uint_eq(mock_host_work(host), 0);
}

/* Somebody subscribes before there is a kernel, and what is no Linux is left alone. */
TEST(test_it_begins_with_the_kernel, WITH_HOST) {
    demand(VMIBUS_KIND_BIT(VMIBUS_KIND_MODULE));
    change_memctx(EPOCH, VMIBUS_MEMCTX_STATE_PENDING, 0);
    change_memctx(EPOCH, VMIBUS_MEMCTX_STATE_READY, 0);
    ck_assert_uint_eq(n(MOCK_ATTACH), 0);
    change_memctx(EPOCH + 1, VMIBUS_MEMCTX_STATE_READY, 0x2000);
    ck_assert_uint_eq(mock_host_last(host, MOCK_ATTACH)->epoch, EPOCH + 1);
}

TEST(test_p06_it_ends_with_the_epoch, WITH_HOST) {
    change_memctx(EPOCH, VMIBUS_MEMCTX_STATE_READY, 0x2000);
    demand(VMIBUS_KIND_BIT(VMIBUS_KIND_PROCESS));
    hand_out(EPOCH);
    change_memctx(EPOCH, VMIBUS_MEMCTX_STATE_NONE, 0);
    mock_host_settle(host);
    ck_assert_uint_eq(n(MOCK_DETACH), 1);
    change_memctx(EPOCH + 1, VMIBUS_MEMCTX_STATE_READY, 0x2000);
    ck_assert_uint_eq(mock_host_last(host, MOCK_ATTACH)->epoch, EPOCH + 1);
    /* RAM of an epoch that is over meanwhile is given back, and the next asked for. */
    change_memctx(EPOCH + 2, VMIBUS_MEMCTX_STATE_READY, 0x2000);
    hand_out(EPOCH + 1);
    mock_host_settle(host);
    ck_assert_uint_eq(mock_host_last(host, MOCK_DETACH)->epoch, EPOCH + 1);
    ck_assert_uint_eq(mock_host_last(host, MOCK_ATTACH)->epoch, EPOCH + 2);
}

TEST(test_a_failure_is_told_once_and_goes_away, WITH_HOST) {
    change_memctx(EPOCH, VMIBUS_MEMCTX_STATE_READY, 0x2000);
    demand(VMIBUS_KIND_BIT(VMIBUS_KIND_PROCESS));
    hand_out(EPOCH);
    mock_host_settle(host);
    for (unsigned int i = 0; i < 200; i++)
        mock_host_advance(host, 1000 * NS_PER_MS);
    ck_assert_uint_eq(n(MOCK_ANNOUNCE), 2);
    ck_assert_uint_eq(n(MOCK_ATTACH), 1);
    change_memctx(EPOCH, VMIBUS_MEMCTX_STATE_NONE, 0);
    ck_assert_uint_eq(n(MOCK_ANNOUNCE), 3);
    ck_assert_int_eq(mock_host_last(host, MOCK_ANNOUNCE)->state, VMIBUS_SENSOR_STATE_READY);
}

TEST(test_no_ram_is_told_of, WITH_HOST) {
    change_memctx(EPOCH, VMIBUS_MEMCTX_STATE_READY, 0x2000);
    demand(VMIBUS_KIND_BIT(VMIBUS_KIND_PROCESS));
    mock_host_answer_attach(host, endpoint, NULL, VMIBUS_ERROR_OK, VMIBUS_REASON_PRIVATE_RAM);
    ck_assert_int_eq(mock_host_last(host, MOCK_ANNOUNCE)->state, VMIBUS_SENSOR_STATE_DEGRADED);
    mock_host_vanish(host, endpoint);
    ck_assert_int_eq(mock_host_last(host, MOCK_ANNOUNCE)->state, VMIBUS_SENSOR_STATE_READY);
}

/* A limit may have been hit: it asks again after a second, then less often, and stops with who asked. */
TEST(test_refused_ram_is_asked_for_again, WITH_HOST) {
    change_memctx(EPOCH, VMIBUS_MEMCTX_STATE_READY, 0x2000);
    demand(VMIBUS_KIND_BIT(VMIBUS_KIND_PROCESS));
    mock_host_answer_attach(host, endpoint, NULL, VMIBUS_ERROR_QUOTA, VMIBUS_REASON_LIMIT_FDS);
    ck_assert_uint_eq(n(MOCK_ATTACH), 1);
    mock_host_advance(host, 1000 * NS_PER_MS);
    ck_assert_uint_eq(n(MOCK_ATTACH), 2);
    mock_host_answer_attach(host, endpoint, NULL, VMIBUS_ERROR_QUOTA, VMIBUS_REASON_LIMIT_FDS);
    mock_host_advance(host, 1999 * NS_PER_MS);
    ck_assert_uint_eq(n(MOCK_ATTACH), 2);
    mock_host_advance(host, NS_PER_MS);
    ck_assert_uint_eq(n(MOCK_ATTACH), 3);
    demand(0);
    mock_host_answer_attach(host, endpoint, NULL, VMIBUS_ERROR_QUOTA, VMIBUS_REASON_LIMIT_FDS);
    mock_host_advance(host, 3600000 * NS_PER_MS);
    ck_assert_uint_eq(n(MOCK_ATTACH), 3);
}

TEST(test_p09_everything_may_end_during_a_look, WITH_HOST) {
    for (unsigned int round = 0; round < 4; round++) {
        change_memctx(EPOCH + round, VMIBUS_MEMCTX_STATE_READY, 0x2000);
        demand(VMIBUS_KIND_BIT(VMIBUS_KIND_PROCESS));
        hand_out(EPOCH + round);
        if (round == 0) {
            demand(0);
        } else if (round == 1) {
            demand(0);
            demand(VMIBUS_KIND_BIT(VMIBUS_KIND_PROCESS));
        } else if (round == 2) {
            change_memctx(EPOCH + round, VMIBUS_MEMCTX_STATE_NONE, 0);
        } else {
            mock_host_vanish(host, endpoint);
        }
        mock_host_settle(host);
    }
    ck_assert_uint_eq(mock_host_timers(host), 0);
}

TEST(test_the_sensor_may_stop_during_a_look, WITH_HOST) {
    change_memctx(EPOCH, VMIBUS_MEMCTX_STATE_READY, 0x2000);
    demand(VMIBUS_KIND_BIT(VMIBUS_KIND_PROCESS));
    hand_out(EPOCH);
    mock_host_stop(host);
}

TEST(test_options) {
    static const char *const wrong[] = {"interval-ms=9", "interval-ms=", "interval-ms=-1", "what=1"};

    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
        const char *options[] = {wrong[i], NULL};

        host = mock_host_new(&vmibus_linux_sensor);
        ck_assert_int_eq(mock_host_start(host, options), -EINVAL);
        ck_assert_int_eq(mock_host_last(host, MOCK_ANNOUNCE)->state, VMIBUS_SENSOR_STATE_FAILED);
        mock_host_free(host);
    }
}

HARNESS_SUITE("linux sensor", HARNESS_QUICK)
