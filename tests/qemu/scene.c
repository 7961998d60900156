/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "scene.h"

#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "harness.h"

uint64_t scene_now(void) {
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/* --- what the control hears -------------------------------------------------------------------- */

static void hear_end(struct scene *scene, const struct vmibus_memctx_invalidated *body) {
    ck_assert_uint_lt(scene->n_ends, SCENE_ENDS);
    scene->ends[scene->n_ends++] = (struct scene_end){
        .epoch = body->epoch,
        .at = scene_now(),
        .reason = body->reason,
        .was_ready = body->epoch == scene->epoch && scene->state == VMIBUS_MEMCTX_STATE_READY,
    };
    if (body->epoch == scene->epoch)
        scene->epoch = 0;
}

static void hear(struct vmibus *bus, struct vmibus_message *message, void *userdata) {
    const struct vmibus_frame *frame = &message->frame;
    struct scene *scene = userdata;

    (void)bus;
    switch (frame->header.kind) {
    case VMIBUS_KIND_ROSTER:
        scene->endpoint.slot = frame->header.slot;
        scene->endpoint.generation = frame->header.generation;
        break;
    case VMIBUS_KIND_LIFECYCLE:
        scene->lifecycle = frame->lifecycle;
        scene->by_bus += (frame->lifecycle.flags & VMIBUS_LIFECYCLE_BY_BUS) != 0;
        scene->left += frame->lifecycle.state == VMIBUS_VM_STATE_MIGRATING;
        if (frame->lifecycle.state == VMIBUS_VM_STATE_MIGRATING)
            scene->migrating_at = frame->header.timestamp;
        break;
    case VMIBUS_KIND_MEMCTX:
        scene->epoch = frame->memctx.epoch;
        scene->state = frame->memctx.state;
        scene->memctx = frame->memctx;
        break;
    case VMIBUS_KIND_MEMCTX_INVALIDATED:
        hear_end(scene, &frame->memctx_invalidated);
        break;
    default:
        break;
    }
}

/* --- turning ----------------------------------------------------------------------------------- */

void scene_turn(struct scene *scene, int timeout_ms) {
    ck_assert_int_ge(vmibus_core_dispatch(scene->core, timeout_ms), 0);
    ck_assert_int_eq(vmibus_dispatch(scene->bus), 0);
}

bool scene_wait(struct scene *scene, bool (*condition)(struct scene *scene, void *data),
                void *data) {
    uint64_t until = scene_now() + harness_scale(SCENE_WAIT_MS) * UINT64_C(1000000);

    while (!condition(scene, data)) {
        if (scene_now() >= until)
            return false;
        scene_turn(scene, 20);
    }
    return true;
}

static bool is_ready(struct scene *scene, void *data) {
    (void)data;
    return scene->epoch && scene->state == VMIBUS_MEMCTX_STATE_READY;
}

void scene_wait_ready(struct scene *scene) {
    ck_assert_msg(scene_wait(scene, is_ready, NULL), "no kernel root was published");
}

struct action {
    struct scene *scene;
    void (*run)(struct scene *scene);
    atomic_bool ended;
};

static void *act(void *data) {
    struct action *action = data;

    action->run(action->scene);
    atomic_store(&action->ended, true);
    return NULL;
}

void scene_meanwhile(struct scene *scene, void (*run)(struct scene *scene)) {
    struct action action = {.scene = scene, .run = run};
    pthread_t thread;

    ck_assert_int_eq(pthread_create(&thread, NULL, act, &action), 0);
    while (!atomic_load(&action.ended))
        scene_turn(scene, 5);
    pthread_join(thread, NULL);
}

/* --- beginning and end ------------------------------------------------------------------------- */

static bool has_endpoint(struct scene *scene, void *data) {
    (void)data;
    return scene->endpoint.generation != 0;
}

static void load_sensor(struct scene *scene) {
    const struct vmibus_sensor_option option = {"monitor.guest", scene->bed->qmp};
    const char *directory = getenv("VMIBUS_SENSOR_DIR");
    char path[PATH_MAX];

    if (!directory)
        test_skip("VMIBUS_SENSOR_DIR does not tell where the built sensors are");
    snprintf(path, sizeof(path), "%s/qemu.so", directory);
    ck_assert_int_eq(vmibus_core_load_sensor(scene->core, path, &option, 1), 0);
}

void scene_begin(struct scene *scene, struct bed *bed) {
    const struct vmibus_core_options options = {
        .struct_size = sizeof(options), .incarnation = 1, .audit_fd = -1, .hold_ms = 600000};

    if (geteuid() != 0)
        test_skip("the memory of another process is for root");
    *scene = (struct scene){.bed = bed};
    ck_assert_int_eq(vmibus_core_new(&scene->core, &options), 0);
    load_sensor(scene);
    ck_assert_int_eq(vmibus_core_connect(scene->core, &scene->bus, "test"), 0);
    vmibus_set_handler(scene->bus, hear, scene);
    ck_assert_int_eq(vmibus_subscribe(scene->bus, "*",
                                      VMIBUS_KIND_BIT(VMIBUS_KIND_ROSTER) |
                                          VMIBUS_KIND_BIT(VMIBUS_KIND_LIFECYCLE) |
                                          VMIBUS_KIND_BIT(VMIBUS_KIND_MEMCTX) |
                                          VMIBUS_KIND_BIT(VMIBUS_KIND_MEMCTX_INVALIDATED)),
                     0);
    ck_assert(scene_wait(scene, has_endpoint, NULL));
}

static bool has_epoch(struct scene *scene, void *data) {
    (void)data;
    return scene->epoch != 0;
}

/* QEMU has the file open when it answers: the name goes at once. */
static struct bed *boot_sector(const uint8_t *code, size_t size, struct bed_options *options) {
    char path[] = "/tmp/vmibus-boot-XXXXXX", drive[128];
    const char *const extra[] = {"-drive", drive, NULL};
    uint8_t sector[512] = {[510] = 0x55, [511] = 0xaa};
    struct bed *bed;
    int fd, r;

    ck_assert_uint_le(size, 510);
    memcpy(sector, code, size);
    fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, sector, sizeof(sector)), sizeof(sector));
    close(fd);
    snprintf(drive, sizeof(drive), "file=%s,format=raw,readonly=on,if=floppy", path);
    options->extra = extra;
    r = bed_start(&bed, options);
    unlink(path);
    ck_assert_msg(r == 0, "%s", bed_error(NULL));
    return bed;
}

static bool has_loaded_sector(struct bed *bed) {
    bool loaded;
    char *text;

    ck_assert_msg(bed_hmp(bed, "xp /1hx 0x7dfe", &text) == 0, "%s", bed_error(bed));
    loaded = strstr(text, "0xaa55");
    free(text);
    return loaded;
}

/* The firmware makes its own copy read-only before it loads anything: until then the layout goes on changing. */
static void wait_for_sector(struct bed *bed) {
    unsigned int attempts = 6000;

    while (!has_loaded_sector(bed)) {
        ck_assert_msg(attempts-- > 0, "the firmware does not boot");
        poll(NULL, 0, 10);
    }
}

void scene_boot(struct scene *scene, const uint8_t *code, size_t size, const char *smp, const char *accel) {
    struct bed_options options = {.firmware_only = true, .smp = smp, .accel = accel};
    const char *reason;

    if (!bed_available(true, &reason))
        test_skip("%s", reason);
    scene->bed = boot_sector(code, size, &options);
    wait_for_sector(scene->bed);
    scene_begin(scene, scene->bed);
    scene_take_leases(scene);
    ck_assert_msg(scene_wait(scene, has_epoch, NULL), "no memory context was published");
}

void scene_take_leases(struct scene *scene) {
    ck_assert_int_eq(vmibus_lease_acquire(scene->bus, &scene->endpoint,
                                          VMIBUS_LEASE_CLASS_MEMWRITE, VMIBUS_LEASE_MODE_FAIL, 0,
                                          &scene->token, NULL),
                     0);
    ck_assert_int_eq(vmibus_lease_acquire(scene->bus, &scene->endpoint, VMIBUS_LEASE_CLASS_POWER,
                                          VMIBUS_LEASE_MODE_FAIL, 0, &scene->power, NULL),
                     0);
}

void scene_end(struct scene *scene) {
    vmibus_free(scene->bus);
    vmibus_core_free(scene->core);
}

/* --- the test's monitor ------------------------------------------------------------------------ */

static void qmp(struct bed *bed, const char *command, const char *arguments) {
    ck_assert_msg(bed_qmp(bed, command, arguments, NULL) == 0, "%s: %s", command, bed_error(bed));
}

void scene_qmp(struct scene *scene, const char *command, const char *arguments) {
    qmp(scene->bed, command, arguments);
}

void scene_hmp(struct scene *scene, const char *command) {
    char *text;

    ck_assert_msg(bed_hmp(scene->bed, command, &text) == 0, "%s: %s", command,
                  bed_error(scene->bed));
    ck_assert_msg(!*text, "%s: %s", command, text);
    free(text);
}

static void finish_job(struct bed *bed, const char *id) {
    char arguments[64];

    snprintf(arguments, sizeof(arguments), "{\"id\":\"%s\"}", id);
    /* Refused until it has concluded. */
    for (int i = 0; bed_qmp(bed, "job-dismiss", arguments, NULL) != 0; i++) {
        ck_assert_int_lt(i, 3000);
        poll(NULL, 0, 10);
    }
}

void scene_add_snapshots(struct bed *bed) {
    char arguments[512];

    snprintf(arguments, sizeof(arguments),
             "{\"job-id\":\"f\",\"options\":{\"driver\":\"file\",\"filename\":\"%s/snapshots\",\"size\":0}}",
             bed->directory);
    qmp(bed, "blockdev-create", arguments);
    finish_job(bed, "f");
    snprintf(arguments, sizeof(arguments),
             "{\"driver\":\"file\",\"node-name\":\"file\",\"filename\":\"%s/snapshots\"}",
             bed->directory);
    qmp(bed, "blockdev-add", arguments);
    qmp(bed, "blockdev-create",
        "{\"job-id\":\"q\",\"options\":{\"driver\":\"qcow2\",\"file\":\"file\",\"size\":1048576}}");
    finish_job(bed, "q");
    qmp(bed, "blockdev-add",
        "{\"driver\":\"qcow2\",\"node-name\":\"snapshots\",\"file\":\"file\"}");
}
