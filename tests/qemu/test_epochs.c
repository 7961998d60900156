/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What happens to a real QEMU guest behind the bus's back, and that each of it ends the epoch once,
 * for the right reason.  How long it takes to be noticed is printed, and not judged.
 */
#include "harness.h"

#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "scene.h"

static struct scene scene;

/* --- one action, and what comes of it ---------------------------------------------------------- */

struct expected {
    uint64_t epoch;
    size_t from;        /* ends before it are of no interest */
};

static const struct scene_end *end_of(const struct expected *expected) {
    for (size_t i = expected->from; i < scene.n_ends; i++)
        if (scene.ends[i].epoch == expected->epoch)
            return &scene.ends[i];
    return NULL;
}

static bool has_ended(struct scene *unused, void *data) {
    (void)unused;
    return end_of(data) != NULL;
}

/* A root of an ended epoch is good for nothing. */
static void assert_stale(uint64_t epoch, uint16_t reason) {
    const struct vmibus_write write = {
        .gva = 0xffffffff81000000, .data = "x", .len = 1, .token = scene.token, .epoch = epoch};
    struct vmibus_message reply;

    ck_assert_int_eq(vmibus_memwrite(scene.bus, &scene.endpoint, &write, &reply),
                     VMIBUS_ERROR_STALE_EPOCH);
    /* Only of the epoch before the current one it is told why. */
    if (reply.frame.ack.reason)
        ck_assert_uint_eq(reply.frame.ack.reason, reason);
    vmibus_message_deinit(&reply);
}

/* Counts the ends of epochs that had a root; others come and go while a guest boots. */
static size_t ready_ends(size_t from) {
    size_t count = 0;

    for (size_t i = from; i < scene.n_ends; i++)
        count += scene.ends[i].was_ready;
    return count;
}

static void assert_ends_once_or(const char *what, void (*action)(struct scene *scene),
                                uint16_t reason, uint16_t or_reason) {
    struct expected expected = {.epoch = scene.epoch, .from = scene.n_ends};
    uint64_t began = scene_now(), acted;
    const struct scene_end *end;

    ck_assert_uint_ne(expected.epoch, 0);
    scene_meanwhile(&scene, action);
    acted = scene_now();
    ck_assert_msg(scene_wait(&scene, has_ended, &expected), "%s ends no epoch", what);
    end = end_of(&expected);
    ck_assert_msg(end->reason == reason || end->reason == or_reason, "%s: reason %u", what,
                  end->reason);
    assert_stale(expected.epoch, end->reason);
    printf("%-34s noticed %7.1f ms after it began, %+8.1f ms after it ended", what,
           (double)(end->at - began) / 1e6, ((double)end->at - (double)acted) / 1e6);
    scene_wait_ready(&scene);
    printf("; another root after %.1f s\n", (double)(scene_now() - began) / 1e9);
    fflush(stdout);
    ck_assert_uint_ne(scene.epoch, expected.epoch);
    ck_assert_msg(ready_ends(expected.from) == 1, "%s ends %zu epochs", what,
                  ready_ends(expected.from));
}

static void assert_ends_once(const char *what, void (*action)(struct scene *scene),
                             uint16_t reason) {
    assert_ends_once_or(what, action, reason, reason);
}

/* --- actions ----------------------------------------------------------------------------------- */

static void pause_and_resume(struct scene *at) {
    scene_qmp(at, "stop", NULL);
    scene_qmp(at, "cont", NULL);
}

static void save(struct scene *at) {
    scene_hmp(at, "savevm linux");
}

static void load(struct scene *at) {
    scene_hmp(at, "loadvm linux");
}

static void load_while_paused(struct scene *at) {
    scene_qmp(at, "stop", NULL);
    scene_hmp(at, "loadvm linux");
    scene_qmp(at, "cont", NULL);
}

static void load_by_job(struct scene *at) {
    scene_qmp(at, "snapshot-load",
              "{\"job-id\":\"l\",\"tag\":\"linux\",\"vmstate\":\"snapshots\",\"devices\":[\"snapshots\"]}");
    for (int i = 0; bed_qmp(at->bed, "job-dismiss", "{\"id\":\"l\"}", NULL) != 0; i++) {
        ck_assert_int_lt(i, 3000);
        poll(NULL, 0, 10);
    }
}

static void load_before_boot(struct scene *at) {
    scene_hmp(at, "loadvm before");
}

static void plug(struct scene *at) {
    scene_qmp(at, "object-add",
              "{\"qom-type\":\"memory-backend-memfd\",\"id\":\"m\",\"size\":134217728,\"share\":true}");
    scene_qmp(at, "device_add", "{\"driver\":\"pc-dimm\",\"id\":\"d\",\"memdev\":\"m\"}");
}

static void unplug(struct scene *at) {
    scene_qmp(at, "device_del", "{\"id\":\"d\"}");
    ck_assert_msg(bed_wait_event(at->bed, "DEVICE_DELETED", SCENE_WAIT_MS, NULL) == 0,
                  "the guest does not let the DIMM go");
    scene_qmp(at, "object-del", "{\"id\":\"m\"}");
}

static void reset_twice(struct scene *at) {
    scene_qmp(at, "system_reset", NULL);
    scene_qmp(at, "system_reset", NULL);
}

static void kexec(struct scene *at) {
    ck_assert_msg(bed_ask(at->bed, "kexec /boot/kernel /boot/initrd", SCENE_WAIT_MS, NULL) == 0,
                  "kexec: %s", bed_error(at->bed));
}

/* --- pauses of the bus ------------------------------------------------------------------------- */

static void assert_pause_of_ours_ends_nothing(void) {
    size_t ends = scene.n_ends, by_bus = scene.by_bus;
    uint64_t epoch = scene.epoch;

    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(vmibus_control_vm(scene.bus, &scene.endpoint, scene.power,
                                           VMIBUS_VM_OPERATION_PAUSE, NULL),
                         0);
        ck_assert_int_eq(vmibus_control_vm(scene.bus, &scene.endpoint, scene.power,
                                           VMIBUS_VM_OPERATION_RESUME, NULL),
                         0);
    }
    for (int i = 0; i < 30; i++)
        scene_turn(&scene, 20);
    ck_assert_uint_eq(scene.n_ends, ends);
    ck_assert_uint_eq(scene.epoch, epoch);
    ck_assert_uint_eq(scene.by_bus, by_bus + 6);
}

/* The registers are not where our pause left them. */
static void load_into_a_pause_of_ours(struct scene *at) {
    scene_hmp(at, "loadvm linux");
}

static void assert_load_into_a_pause_of_ours(void) {
    struct expected expected = {.epoch = scene.epoch, .from = scene.n_ends};

    ck_assert_int_eq(vmibus_control_vm(scene.bus, &scene.endpoint, scene.power,
                                       VMIBUS_VM_OPERATION_PAUSE, NULL),
                     0);
    scene_meanwhile(&scene, load_into_a_pause_of_ours);
    ck_assert_int_eq(vmibus_control_vm(scene.bus, &scene.endpoint, scene.power,
                                       VMIBUS_VM_OPERATION_RESUME, NULL),
                     0);
    ck_assert(scene_wait(&scene, has_ended, &expected));
    ck_assert_uint_eq(end_of(&expected)->reason, VMIBUS_REASON_RELOADED);
    scene_wait_ready(&scene);
    ck_assert_uint_eq(ready_ends(expected.from), 1);
}

/* --- the story --------------------------------------------------------------------------------- */

static struct bed *start(void) {
    static const char *const extra[] = {"-S", NULL};
    const struct bed_options options = {
        .memory = "512M,slots=1,maxmem=1G", .boot_files = true, .extra = extra};
    const char *reason;
    struct bed *bed;

    if (!bed_available(false, &reason))
        test_skip("%s", reason);
    ck_assert_msg(bed_start(&bed, &options) == 0, "%s", bed_error(NULL));
    scene_add_snapshots(bed);
    return bed;
}

TEST(test_p06_each_ends_the_epoch_once, .timeout = 300) {
    struct bed *bed = start();

    scene_begin(&scene, bed);
    scene_hmp(&scene, "savevm before");
    scene_qmp(&scene, "cont", NULL);
    scene_wait_ready(&scene);
    scene_take_leases(&scene);
    ck_assert_int_eq(bed_wait_serial(bed, "READY", SCENE_WAIT_MS, NULL), 0);

    assert_pause_of_ours_ends_nothing();
    assert_ends_once("stop, cont", pause_and_resume, VMIBUS_REASON_RELOADED);
    assert_ends_once("savevm", save, VMIBUS_REASON_RELOADED);
    assert_ends_once("loadvm, same kernel", load, VMIBUS_REASON_RELOADED);
    assert_ends_once("stop, loadvm, cont", load_while_paused, VMIBUS_REASON_RELOADED);
    assert_ends_once("snapshot-load", load_by_job, VMIBUS_REASON_RELOADED);
    assert_load_into_a_pause_of_ours();
    assert_ends_once("DIMM plugged", plug, VMIBUS_REASON_HOTPLUG);
    assert_ends_once("DIMM unplugged", unplug, VMIBUS_REASON_HOTPLUG);
    assert_ends_once("two resets", reset_twice, VMIBUS_REASON_RESET);
    assert_ends_once("loadvm, before boot", load_before_boot, VMIBUS_REASON_RELOADED);
    ck_assert_int_eq(bed_wait_serial(bed, "READY", SCENE_WAIT_MS, NULL), 0);
    /* Whichever is seen first: that no vCPU uses its tables any more, or that they were overwritten. */
    assert_ends_once_or("kexec", kexec, VMIBUS_REASON_RELOADED, VMIBUS_REASON_CANARY);
    scene_end(&scene);
    bed_stop(bed);
}

HARNESS_SUITE("qemu: what ends an epoch", HARNESS_QUICK)
