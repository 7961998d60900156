/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * BTF in real guests' RAM: that of vmlinux octet by octet what the guest's own /sys/kernel/btf says, of modules where members lie.
 */
#include "harness.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guest/linux/btf.h"
#include "guest/linux/fields.h"
#include "guest/linux/module_layouts.h"
#include "linux_bed.h"

/* CRC-32, as busybox has it. */
static uint32_t check_sum(const uint8_t *octets, size_t len) {
    uint32_t sum = UINT32_MAX;

    for (size_t i = 0; i < len; i++) {
        sum ^= octets[i];
        for (int bit = 0; bit < 8; bit++)
            sum = sum >> 1 ^ (sum & 1 ? UINT32_C(0xedb88320) : 0);
    }
    return ~sum;
}

/* What the guest says of one of its files of BTF. */
static void ask_file(struct linux_bed *guest, const char *name, uint32_t *sum, uint64_t *len) {
    char *reply = linux_bed_ask(guest, "exec cd /sys/kernel/btf; busybox crc32 %s; stat -c %%s %s", name, name);
    char *at = strstr(reply, "OUT ");

    ck_assert_msg(at && sscanf(at, "OUT %" SCNx32 " %*s OUT %" SCNu64, sum, len) == 2, "%s", reply);
    free(reply);
}

static void check_vmlinux(struct linux_bed *guest) {
    uint64_t start, stop, len;
    const struct btf *btf;
    uint8_t *octets;
    uint32_t sum;

    ask_file(guest, "vmlinux", &sum, &len);
    ck_assert_msg(linux_layouts(guest->kernel, &btf) == 0, "%s", vmibus_linux_why(guest->kernel));
    ck_assert_int_eq(linux_symbol(guest->kernel, "__start_BTF", &start), 0);
    ck_assert_int_eq(linux_symbol(guest->kernel, "__stop_BTF", &stop), 0);
    ck_assert_uint_eq(stop - start, len);
    octets = malloc((size_t)len);
    ck_assert_ptr_nonnull(octets);
    ck_assert_int_eq(linux_read(guest->kernel, start, octets, (size_t)len), 0);
    ck_assert_uint_eq(check_sum(octets, (size_t)len), sum);
    free(octets);
}

struct sought {
    const char *name;
    uint64_t module;
};

static bool seek(void *context, const struct vmibus_linux_module *module) {
    struct sought *sought = context;

    if (strcmp(module->name, sought->name) == 0)
        sought->module = module->module;
    return true;
}

struct evdev_fields {
    struct linux_field head, packet_head, minor, device;
};

static void check_module(struct linux_bed *guest) {
    static const struct linux_wish wishes[] = {
        {"evdev_client", "head", offsetof(struct evdev_fields, head), false},
        {"evdev_client", "packet_head", offsetof(struct evdev_fields, packet_head), false},
        {"evdev", "handle.dev", offsetof(struct evdev_fields, minor), false},
        {"input_handle", "dev", offsetof(struct evdev_fields, device), false},
        {0},
    };
    struct sought sought = {.name = "evdev"};
    struct vmibus_linux_picture picture;
    struct evdev_fields fields = {0};
    uint32_t sum;
    uint64_t len;
    struct btf *btf;

    ask_file(guest, "evdev", &sum, &len);
    ck_assert_int_eq(vmibus_linux_visit_modules(guest->kernel, seek, &sought, &picture), 0);
    ck_assert_uint_ne(sought.module, 0);
    ck_assert_msg(linux_module_layouts(guest->kernel, sought.module, &btf) == 0, "%s", vmibus_linux_why(guest->kernel));
    ck_assert_uint_gt(btf_footprint(btf), len);
    ck_assert_uint_ne(btf_find_structure(btf, "evdev_client", 0), 0);
    ck_assert_uint_eq(btf_find_structure(guest->kernel->btf, "evdev_client", 0), 0);
    ck_assert_msg(linux_fields_resolve_in(guest->kernel, btf, wishes, &fields) == 0, "%s", vmibus_linux_why(guest->kernel));
    /* Linux drivers/input/evdev.c: three numbers stand at the beginning of a client. */
    ck_assert_uint_eq(fields.head.offset, 0);
    ck_assert_uint_eq(fields.packet_head.offset, 8);
    ck_assert_uint_eq(fields.device.size, 8);
    ck_assert_uint_eq(fields.minor.size, 8);
    btf_free(btf);
}

static void check(const struct bed_options *options) {
    struct linux_bed guest;

    linux_bed_boot(&guest, options);
    check_vmlinux(&guest);
    check_module(&guest);
    linux_bed_end(&guest);
}

TEST(test_stock_kernel, .timeout = 600) {
    check(&(struct bed_options){.cpu = "max"});
}

TEST(test_cloud_kernel, .timeout = 600) {
    check(&(struct bed_options){.cpu = "qemu64", .flavour = "cloud-amd64"});
}

HARNESS_SUITE("linux layouts", HARNESS_QUICK)
