/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory of a real QEMU guest that changes while it is attached to, and memory that is refused: the epoch ends, nothing of the
 * one before is good any more, and the next one is exact again.  How long it takes is printed, and not judged.
 */
#include "harness.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <linux/magic.h>
#include <vmibus/guest.h>

#include "layout_check.h"

#define KIB UINT64_C(1024)
#define MIB (UINT64_C(1024) * KIB)
#define VGA (128 * KIB)
#define BOOT_MS 240000

static struct scene scene;

static void start(const struct bed_options *options) {
    const char *reason;
    struct bed *bed;

    if (!bed_available(options->firmware_only, &reason))
        test_skip("%s", reason);
    ck_assert_msg(bed_start(&bed, options) == 0, "%s", bed_error(NULL));
    if (options->firmware_only)
        layout_settle(bed, true);
    else
        ck_assert_msg(bed_wait_serial(bed, "READY", BOOT_MS, NULL) == 0, "%s", bed_error(bed));
    scene_begin(&scene, bed);
    scene_take_leases(&scene);
    layout_wait(&scene);
}

static void end(void) {
    scene_end(&scene);
    scene.bed = bed_stop(scene.bed);
}

/* --- an epoch ends, and another begins --------------------------------------------------------- */

struct expected {
    uint64_t epoch;
    uint64_t ended_at; /* 0: not yet */
    uint16_t reason;
};

static bool has_ended(struct scene *at, void *data) {
    struct expected *expected = data;

    for (size_t i = 0; i < at->n_ends; i++)
        if (at->ends[i].epoch == expected->epoch) {
            expected->ended_at = at->ends[i].at;
            expected->reason = at->ends[i].reason;
        }
    return expected->ended_at != 0;
}

static void assert_stale(struct vmibus_attachment *attachment, struct vmibus_mediated *mediated) {
    const struct vmibus_write write = {.gva = 0x100000,
                                       .data = "stale",
                                       .len = 5,
                                       .flags = VMIBUS_MEMWRITE_PHYSICAL,
                                       .token = scene.token,
                                       .epoch = attachment->epoch};
    uint64_t word;

    ck_assert(!vmibus_epoch_is_current(attachment));
    ck_assert_int_eq(vmibus_mediated_read(mediated, 0x100000, &word, sizeof(word)), -ESTALE);
    ck_assert_int_eq(vmibus_memwrite(scene.bus, &scene.endpoint, &write, NULL), VMIBUS_ERROR_STALE_EPOCH);
}

/* Something is done to QEMU, while somebody is attached. */
static void assert_change(const char *what, void (*action)(struct scene *at)) {
    struct expected expected = {.epoch = scene.epoch};
    struct vmibus_attachment *attachment;
    struct vmibus_mediated *mediated;
    uint64_t began;

    ck_assert_int_eq(vmibus_attach(scene.bus, &scene.endpoint, scene.epoch, &attachment, NULL), 0);
    ck_assert_int_eq(vmibus_mediated_new(scene.bus, &scene.endpoint, scene.epoch, &mediated, NULL), 0);
    began = scene_now();
    scene_meanwhile(&scene, action);
    ck_assert_msg(scene_wait(&scene, has_ended, &expected), "%s ends no epoch", what);
    ck_assert_msg(expected.reason == VMIBUS_REASON_HOTPLUG, "%s: reason %u", what, expected.reason);
    assert_stale(attachment, mediated);
    vmibus_mediated_free(mediated);
    vmibus_release(attachment);
    layout_wait(&scene);
    printf("%-36s noticed after %6.0f ms\n", what, (double)(expected.ended_at - began) / 1e6);
    ck_assert_uint_ne(scene.epoch, expected.epoch);
}

/* --- what the guest lays over its RAM by itself ------------------------------------------------ */

/* The host bridge of q35 (Intel 4 Series datasheet): PAM0 at 0x90 says what 0xf0000 shows, SMRAM at 0x9d what 0xa0000 does. */
static void poke(struct scene *at, uint32_t offset, unsigned int value) {
    char line[64];

    snprintf(line, sizeof(line), "o /w 0xcf8 0x%08x", 0x80000000u | (offset & ~3u));
    scene_hmp(at, line);
    snprintf(line, sizeof(line), "o /b 0x%x 0x%02x", 0xcfcu + (offset & 3u), value);
    scene_hmp(at, line);
}

static void show_ram(struct scene *at) {
    poke(at, 0x90, 0x30);
}

static void show_flash(struct scene *at) {
    poke(at, 0x90, 0x00);
}

static void show_shadow(struct scene *at) {
    poke(at, 0x90, 0x10);
}

static void open_smram(struct scene *at) {
    poke(at, 0x9d, 0x4a);
}

static void close_smram(struct scene *at) {
    poke(at, 0x9d, 0x0a);
}

TEST(test_p06_overlays_of_the_guest, .timeout = 300) {
    static const char *const backends[] = {"ram0", NULL};
    const struct bed_options options = {.firmware_only = true, .memory = "256M", .machine = "q35,smm=on"};
    struct layout_sum before, sum;

    start(&options);
    before = layout_check(&scene, backends);
    ck_assert_uint_eq(before.ram, 256 * MIB - VGA);
    assert_change("PAM: RAM that can be written", show_ram);
    sum = layout_check(&scene, backends);
    ck_assert_uint_eq(sum.ram, before.ram);
    ck_assert_uint_eq(sum.read_only, before.read_only - 64 * KIB);
    assert_change("PAM: the flash before RAM", show_flash);
    sum = layout_check(&scene, backends);
    ck_assert_uint_eq(sum.ram, before.ram - 64 * KIB);
    assert_change("PAM: RAM that is read-only", show_shadow);
    sum = layout_check(&scene, backends);
    ck_assert_uint_eq(sum.read_only, before.read_only);
    assert_change("SMRAM opened", open_smram);
    sum = layout_check(&scene, backends);
    ck_assert_uint_eq(sum.ram, 256 * MIB);
    assert_change("SMRAM closed", close_smram);
    sum = layout_check(&scene, backends);
    ck_assert_uint_eq(sum.ram, before.ram);
    end();
}

/* --- DIMMs ------------------------------------------------------------------------------------- */

static void plug(struct scene *at) {
    scene_qmp(at, "object-add",
              "{\"qom-type\":\"memory-backend-memfd\",\"id\":\"m\",\"size\":134217728,\"share\":true}");
    scene_qmp(at, "device_add", "{\"driver\":\"pc-dimm\",\"id\":\"d\",\"memdev\":\"m\"}");
}

/* There is no operating system that could acknowledge it, so no event at all. */
TEST(test_p06_a_dimm_that_nobody_acknowledges, .timeout = 120) {
    static const char *const before[] = {"ram0", NULL}, *const after[] = {"ram0", "m", NULL};
    const struct bed_options options = {.firmware_only = true, .memory = "256M,slots=1,maxmem=1G"};
    struct layout_sum sum;

    start(&options);
    ck_assert_uint_eq(layout_check(&scene, before).ram, 256 * MIB - VGA);
    assert_change("DIMM, no operating system", plug);
    sum = layout_check(&scene, after);
    ck_assert_uint_eq(sum.ram, 384 * MIB - VGA);
    ck_assert_uint_eq(sum.ram, layout_of_qemu(scene.bed) - VGA);
    ck_assert_uint_eq(sum.n_objects, 2);
    end();
}

/* --- virtio-mem -------------------------------------------------------------------------------- */

static void request(struct scene *at, uint64_t size) {
    char arguments[128];

    snprintf(arguments, sizeof(arguments),
             "{\"path\":\"/machine/peripheral/v\",\"property\":\"requested-size\",\"value\":%" PRIu64 "}", size);
    scene_qmp(at, "qom-set", arguments);
    while (layout_of_qemu(at->bed) != 512 * MIB + size)
        ck_assert_msg(bed_wait_event(at->bed, "MEMORY_DEVICE_SIZE_CHANGE", SCENE_WAIT_MS, NULL) == 0,
                      "the guest does not do what virtio-mem asks for");
}

static void plug_blocks(struct scene *at) {
    request(at, 128 * MIB);
}

static void plug_more_blocks(struct scene *at) {
    request(at, 256 * MIB);
}

static void unplug_blocks(struct scene *at) {
    request(at, 0);
}

/* The range from 4 GiB on: the device's whole memory. */
static const struct vmibus_ram_range *range_of_device(const struct vmibus_attachment *attachment) {
    for (size_t i = 0; i < attachment->n_ranges; i++)
        if (attachment->ranges[i].gpa >= UINT64_C(1) << 32)
            return &attachment->ranges[i];
    return NULL;
}

/* Blocks that are not plugged read as zeros, by whatever way, and nothing is allocated for them. */
static void check_unplugged(uint64_t first, uint64_t len) {
    static uint8_t octets[1 << 20], zeros[1 << 20];
    struct vmibus_attachment *attachment;
    const struct vmibus_ram_range *range;
    struct vmibus_mediated *mediated;
    struct vmibus_guest_ram *ram;
    struct stat before, after;
    int fd;

    ck_assert_int_eq(vmibus_attach(scene.bus, &scene.endpoint, scene.epoch, &attachment, NULL), 0);
    ck_assert_int_eq(vmibus_mediated_new(scene.bus, &scene.endpoint, scene.epoch, &mediated, NULL), 0);
    ck_assert_int_eq(vmibus_guest_ram_new(&ram, attachment->ranges, attachment->n_ranges, attachment->fds, attachment->n_fds), 0);
    range = range_of_device(attachment);
    ck_assert_ptr_nonnull(range);
    ck_assert_uint_eq(range->len, 1024 * MIB);
    fd = attachment->fds[range->object];
    ck_assert_int_eq(fstat(fd, &before), 0);
    for (uint64_t at = first; at < first + len; at += sizeof(octets)) {
        ck_assert_int_eq(vmibus_guest_ram_read(ram, range->gpa + at, octets, sizeof(octets)), 0);
        ck_assert_int_eq(memcmp(octets, zeros, sizeof(octets)), 0);
        ck_assert_int_eq(vmibus_mediated_read(mediated, range->gpa + at, octets, sizeof(octets)), 0);
        ck_assert_int_eq(memcmp(octets, zeros, sizeof(octets)), 0);
    }
    ck_assert_int_eq(fstat(fd, &after), 0);
    ck_assert_msg(after.st_blocks * 512 < before.st_blocks * 512 + (blkcnt_t)(16 * MIB), "reading allocates");
    vmibus_guest_ram_free(ram);
    vmibus_mediated_free(mediated);
    vmibus_release(attachment);
}

static void assert_no_device_memory(void) {
    struct vmibus_attachment *attachment;

    ck_assert_int_eq(vmibus_attach(scene.bus, &scene.endpoint, scene.epoch, &attachment, NULL), 0);
    ck_assert_ptr_null(range_of_device(attachment));
    vmibus_release(attachment);
}

TEST(test_p06_virtio_mem, .timeout = 600) {
    static const char *const extra[] = {"-object", "memory-backend-memfd,id=vm,size=1G,share=on,reserve=off", "-device",
                                        "virtio-mem-pci,id=v,memdev=vm,requested-size=0", NULL};
    const struct bed_options options = {
        .memory = "512M,maxmem=4G", .append = "memhp_default_state=online_movable", .extra = extra};
    uint64_t epoch;

    start(&options);
    assert_no_device_memory();
    assert_change("virtio-mem: first blocks", plug_blocks);
    check_unplugged(512 * MIB, 512 * MIB);
    /* The ranges stay what they are. */
    epoch = scene.epoch;
    scene_meanwhile(&scene, plug_more_blocks);
    check_unplugged(512 * MIB, 512 * MIB);
    ck_assert_uint_eq(scene.epoch, epoch);
    assert_change("virtio-mem: last blocks", unplug_blocks);
    assert_no_device_memory();
    end();
}

/* --- refusals ---------------------------------------------------------------------------------- */

struct refusal {
    uint16_t reason;
    char sentence[1024];
};

static void hear(struct vmibus *bus, struct vmibus_message *message, void *userdata) {
    struct refusal *refusal = userdata;

    (void)bus;
    if (message->frame.header.kind == VMIBUS_KIND_MEMCTX)
        refusal->reason = message->frame.memctx.reason;
    else if (message->frame.header.kind == VMIBUS_KIND_SENSOR && message->frame.header.tail_length < sizeof(refusal->sentence)) {
        memcpy(refusal->sentence, message->tail, message->frame.header.tail_length);
        refusal->sentence[message->frame.header.tail_length] = '\0';
    }
}

/* A disk's file holds pages that are written back, and may be anybody's. */
TEST(test_p12_ram_in_a_file_on_disk, .timeout = 120) {
    char object[256], path[] = "/var/tmp/vmibus-layout-XXXXXX";
    const char *const extra[] = {"-object", object, "-machine", "memory-backend=m", NULL};
    const struct bed_options options = {
        .firmware_only = true, .memory = "64M", .ram = BED_RAM_CUSTOM, .extra = extra};
    struct refusal refusal = {0};
    struct vmibus *bus;
    struct statfs fs;
    const char *reason;
    struct bed *bed;
    int fd;

    if (!bed_available(true, &reason))
        test_skip("%s", reason);
    fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(fstatfs(fd, &fs), 0);
    close(fd);
    if (fs.f_type == TMPFS_MAGIC) {
        unlink(path);
        test_skip("/var/tmp is a tmpfs");
    }
    snprintf(object, sizeof(object), "memory-backend-file,id=m,size=64M,share=on,mem-path=%s", path);
    fd = bed_start(&bed, &options);
    unlink(path);
    ck_assert_msg(fd == 0, "%s", bed_error(NULL));
    layout_settle(bed, true);
    scene_begin(&scene, bed);
    ck_assert_int_eq(vmibus_core_connect(scene.core, &bus, "listener"), 0);
    vmibus_set_handler(bus, hear, &refusal);
    ck_assert_int_eq(vmibus_subscribe(bus, "*", VMIBUS_KIND_BIT(VMIBUS_KIND_MEMCTX) | VMIBUS_KIND_BIT(VMIBUS_KIND_SENSOR)), 0);
    for (int i = 0; i < 3000 && !*refusal.sentence; i++) {
        scene_turn(&scene, 20);
        ck_assert_int_eq(vmibus_dispatch(bus), 0);
    }
    ck_assert_uint_eq(scene.epoch, 0);
    ck_assert_uint_eq(refusal.reason, VMIBUS_REASON_LAYOUT_UNPROVEN);
    ck_assert_msg(strstr(refusal.sentence, "guest: no RAM layout") && strstr(refusal.sentence, "memory-backend-memfd"), "%s",
                  refusal.sentence);
    vmibus_free(bus);
    end();
}

HARNESS_SUITE("qemu: memory that changes", HARNESS_QUICK)
