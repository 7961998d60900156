/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A guest is migrated from a real QEMU to another while a control writes into its memory without
 * pause: what was acknowledged is at the destination, what could have been lost was refused.
 */
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "scene.h"

#define BASE UINT64_C(0x2000000)    /* RAM that the firmware leaves alone */
#define PAGE UINT64_C(4096)
#define SLOTS 8192u                 /* pages that counters are written into */
#define LONG 65536u                 /* octets of a write that goes by the worker */
#define LONG_SLOTS 512u
#define LONG_BASE (BASE + SLOTS * PAGE)
#define SPAN (SLOTS * PAGE + LONG_SLOTS * (uint64_t)LONG)

static struct scene source, destination;

/* --- a control that writes without pause ------------------------------------------------------- */

/** The last write of a slot that was acknowledged, and when it had been done. */
struct slot {
    uint64_t value;
    uint64_t finished;
};

static struct {
    struct slot slots[SLOTS + LONG_SLOTS];
    uint64_t counter;
    uint64_t done;
    uint64_t refused[128];  /* BUSY, by reason */
    uint64_t stale;
    uint64_t last_done;     /* when a write was done last */
} control;

static void count(int error, const struct vmibus_ack *ack, struct slot *slot) {
    if (error == VMIBUS_ERROR_OK) {
        *slot = (struct slot){.value = control.counter, .finished = ack->finished};
        control.done++;
        control.last_done = ack->finished;
    } else if (error == VMIBUS_ERROR_BUSY) {
        ck_assert_uint_lt(ack->reason, 128);
        control.refused[ack->reason]++;
    } else {
        ck_assert_int_eq(error, VMIBUS_ERROR_STALE_EPOCH);
        control.stale++;
    }
}

static void write_slot(uint32_t index, uint64_t gpa, uint32_t len) {
    static uint64_t octets[LONG / 8];
    struct vmibus_write write = {
        .gva = gpa,
        .data = octets,
        .len = len,
        .flags = VMIBUS_MEMWRITE_PHYSICAL,
        .token = source.token,
        .epoch = source.epoch,
    };
    struct vmibus_message reply;
    int error;

    control.counter++;
    for (uint32_t i = 0; i < len / 8; i++)
        octets[i] = control.counter;
    error = vmibus_memwrite(source.bus, &source.endpoint, &write, &reply);
    ck_assert_int_ge(error, 0);
    count(error, &reply.frame.ack, &control.slots[index]);
    vmibus_message_deinit(&reply);
}

/* One long write after each 64 short ones. */
static void write_some(void) {
    for (int i = 0; i < 64; i++) {
        uint32_t index = (uint32_t)(control.counter * 2654435761u % SLOTS);

        write_slot(index, BASE + index * PAGE, 8);
    }
    uint32_t index = (uint32_t)(control.counter % LONG_SLOTS);

    write_slot(SLOTS + index, LONG_BASE + index * (uint64_t)LONG, LONG);
    scene_turn(&source, 0);
}

static void write_all(void) {
    for (uint32_t i = 0; i < SLOTS; i++)
        write_slot(i, BASE + i * PAGE, 8);
    for (uint32_t i = 0; i < LONG_SLOTS; i++)
        write_slot(SLOTS + i, LONG_BASE + i * (uint64_t)LONG, LONG);
    scene_turn(&source, 0);
}

/* Writes until a condition holds. */
static void write_until(bool (*condition)(void)) {
    uint64_t until = scene_now() + harness_scale(SCENE_WAIT_MS) * UINT64_C(1000000);

    while (!condition()) {
        ck_assert_uint_lt(scene_now(), until);
        write_some();
    }
}

/* --- conditions -------------------------------------------------------------------------------- */

static uint64_t done_before, refused_before;

static void from_here(void) {
    done_before = control.done;
    refused_before = control.refused[VMIBUS_REASON_MIGRATION];
}

static bool is_migration_refused(void) {
    return control.refused[VMIBUS_REASON_MIGRATION] > refused_before;
}

static bool is_snapshot_refused(void) {
    return control.refused[VMIBUS_REASON_SNAPSHOT] > 0;
}

static bool is_writing(void) {
    return control.done > done_before + 1000;
}

static bool has_left(void) {
    return source.n_ends > 0 && source.ends[source.n_ends - 1].reason == VMIBUS_REASON_MIGRATED;
}

static bool has_epoch(struct scene *scene, void *data) {
    (void)data;
    return scene->epoch != 0;
}

/* --- QEMU's part, by another thread ------------------------------------------------------------ */

static char socket_path[300], uri[330];
static pthread_t thread;

static void *migrate(void *data) {
    char arguments[400];

    (void)data;
    snprintf(arguments, sizeof(arguments), "{\"uri\":\"%s\"}", uri);
    bed_qmp(source.bed, "migrate", arguments, NULL);
    return NULL;
}

static void begin_migration(const char *to) {
    snprintf(uri, sizeof(uri), "%s", to);
    ck_assert_int_eq(pthread_create(&thread, NULL, migrate, NULL), 0);
}

static void set_bandwidth(const char *octets_per_second) {
    char arguments[100];

    snprintf(arguments, sizeof(arguments), "{\"max-bandwidth\":%s}", octets_per_second);
    scene_qmp(&source, "migrate-set-parameters", arguments);
}

static void set_background(const char *state) {
    char arguments[200];

    snprintf(arguments, sizeof(arguments),
             "{\"capabilities\":[{\"capability\":\"background-snapshot\",\"state\":%s}]}", state);
    scene_qmp(&source, "migrate-set-capabilities", arguments);
}

/* --- comparing --------------------------------------------------------------------------------- */

static uint8_t *read_memory(struct scene *scene) {
    char path[300], command[400];
    uint8_t *octets = malloc(SPAN);
    int fd;

    snprintf(path, sizeof(path), "%s/memory", scene->bed->directory);
    snprintf(command, sizeof(command), "pmemsave %" PRIu64 " %" PRIu64 " \"%s\"", BASE, SPAN, path);
    scene_hmp(scene, command);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    for (uint64_t at = 0; at < SPAN;) {
        ssize_t n = pread(fd, octets + at, SPAN - at, (off_t)at);

        ck_assert_int_gt(n, 0);
        at += (uint64_t)n;
    }
    close(fd);
    return octets;
}

static bool holds(const uint8_t *octets, uint64_t value, uint64_t len) {
    for (uint64_t i = 0; i < len; i += 8)
        if (memcmp(octets + i, &value, 8) != 0)
            return false;
    return true;
}

/* How many slots of a memory do not hold what was acknowledged last; *late: not later than that. */
static uint64_t missing(const uint8_t *octets, uint64_t began, uint64_t *early) {
    uint64_t n = 0;

    *early = 0;
    for (uint32_t i = 0; i < SLOTS + LONG_SLOTS; i++) {
        bool is_long = i >= SLOTS;
        uint64_t at = is_long ? SLOTS * PAGE + (i - SLOTS) * (uint64_t)LONG : i * PAGE;

        if (!control.slots[i].value || holds(octets + at, control.slots[i].value, is_long ? LONG : 8))
            continue;
        n++;
        *early += control.slots[i].finished <= began;
    }
    return n;
}

static uint64_t written_after(uint64_t began) {
    uint64_t n = 0;

    for (uint32_t i = 0; i < SLOTS + LONG_SLOTS; i++)
        n += control.slots[i].finished > began;
    return n;
}

/* --- the story --------------------------------------------------------------------------------- */

static struct bed *start(const char *const *extra) {
    const struct bed_options options = {
        .firmware_only = true, .memory = "256M", .extra = extra};
    struct bed *bed;

    ck_assert_msg(bed_start(&bed, &options) == 0, "%s", bed_error(NULL));
    return bed;
}

static void begin(void) {
    char incoming[330];
    const char *const extra[] = {"-S", "-incoming", incoming, NULL};
    const char *reason;
    struct bed *bed;

    if (!bed_available(true, &reason))
        test_skip("%s", reason);
    bed = start(NULL);
    snprintf(socket_path, sizeof(socket_path), "unix:%s/migration", bed->directory);
    snprintf(incoming, sizeof(incoming), "%s", socket_path);
    scene_begin(&source, bed);
    scene_begin(&destination, start(extra));
    /* Not while the firmware still changes the layout. */
    for (int i = 0; i < 100; i++)
        scene_turn(&source, 20);
    ck_assert(scene_wait(&source, has_epoch, NULL));
    scene_take_leases(&source);
}

/* A migration that comes to nothing: writes are refused while it lasts, then go on in the same epoch. */
static void assert_goes_on_after(const char *what, const char *to, const char *end) {
    uint64_t epoch = source.epoch;

    from_here();
    begin_migration(to);
    if (end) {
        write_until(is_migration_refused);
        pthread_join(thread, NULL);
        scene_qmp(&source, end, NULL);
    } else {
        pthread_join(thread, NULL);
    }
    from_here();
    write_until(is_writing);
    ck_assert_uint_eq(source.epoch, epoch);
    printf("%-20s writes went on\n", what);
}

static void assert_busy_in_a_background_snapshot(void) {
    uint64_t before = control.refused[VMIBUS_REASON_SNAPSHOT];

    set_background("true");
    begin_migration("exec:cat >/dev/null");
    write_until(is_snapshot_refused);
    pthread_join(thread, NULL);
    ck_assert(scene_wait(&source, has_epoch, NULL));
    from_here();
    write_until(is_writing);
    printf("%-20s %" PRIu64 " writes refused\n", "background snapshot",
           control.refused[VMIBUS_REASON_SNAPSHOT] - before);
    set_background("false");
}

static void assert_nothing_is_lost(void) {
    uint64_t late, lost, early, here;
    uint8_t *octets;

    octets = read_memory(&source);
    ck_assert_uint_eq(missing(octets, source.migrating_at, &here), 0);
    free(octets);
    octets = read_memory(&destination);
    late = written_after(source.migrating_at);
    lost = missing(octets, source.migrating_at, &early);
    free(octets);
    printf("migration            %" PRIu64 " writes done, %" PRIu64 " refused as BUSY, %" PRIu64
           " as stale; %" PRIu64 " acknowledged after it began (the last %.3f ms after), %" PRIu64
           " of them missing\n",
           control.done, control.refused[VMIBUS_REASON_MIGRATION], control.stale, late,
           late ? (double)(control.last_done - source.migrating_at) / 1e6 : 0.0, lost);
    ck_assert_uint_eq(early, 0);
    /*
     * QEMU sends no page before its word that it begins is in our socket, and the bus reads it within
     * one turn: that is the write under way here and the one on the worker.
     */
    ck_assert_uint_le(lost, 2);
}

/* The bus at the destination saw an empty guest before; what has arrived is another epoch. */
static void assert_arrived(uint64_t before) {
    static const uint64_t value = 0x5a5a5a5a5a5a5a5a;
    struct vmibus_write write = {
        .gva = BASE, .data = &value, .len = 8, .flags = VMIBUS_MEMWRITE_PHYSICAL};
    uint8_t *octets;

    ck_assert(scene_wait(&destination, has_epoch, NULL));
    ck_assert_uint_ne(destination.epoch, before);
    for (size_t i = 0; i < destination.n_ends; i++)
        if (destination.ends[i].epoch == before)
            ck_assert_uint_eq(destination.ends[i].reason, VMIBUS_REASON_RELOADED);
    scene_take_leases(&destination);
    write.token = destination.token;
    write.epoch = destination.epoch;
    ck_assert_int_eq(vmibus_memwrite(destination.bus, &destination.endpoint, &write, NULL), 0);
    octets = read_memory(&destination);
    ck_assert(holds(octets, value, 8));
    free(octets);
}

TEST(test_p06_migration_loses_no_write, .timeout = 240) {
    uint64_t before;

    begin();
    before = destination.epoch;
    write_all();
    set_bandwidth("33554432");
    assert_goes_on_after("cancelled migration", "exec:cat >/dev/null", "migrate_cancel");
    assert_goes_on_after("failed migration", "unix:/nowhere", NULL);
    assert_busy_in_a_background_snapshot();

    write_all();
    set_bandwidth("134217728");
    begin_migration(socket_path);
    write_until(has_left);
    pthread_join(thread, NULL);
    ck_assert_uint_eq(source.ends[source.n_ends - 1].reason, VMIBUS_REASON_MIGRATED);
    ck_assert_uint_gt(source.left, 0);
    assert_nothing_is_lost();
    assert_arrived(before);
    scene_end(&source);
    scene_end(&destination);
    bed_stop(source.bed);
    bed_stop(destination.bed);
}

HARNESS_SUITE("qemu: migration", HARNESS_QUICK)
