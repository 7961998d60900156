/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The stub sensor against the mock host.
 *
 * Page tables are walked here by a few lines of the test's own, and by libvmibus-guest: the two and
 * stub_map.h must agree.  Time is the test's: nothing waits for a clock.
 */
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/input-event-codes.h>
#include <linux/seccomp.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <vmibus/guest.h>

#include "mock_host.h"
#include "stub/stub.h"
#include "stub/stub_map.h"
#include "stub/stub_vm.h"

#define NS_PER_MS UINT64_C(1000000)
#define options(...) ((const char *const[]){__VA_ARGS__, NULL})

static struct mock_host *host;

static void start(const char *const *given) {
    host = mock_host_new(&vmibus_stub_sensor);
    mock_host_own_time(host);
    ck_assert_int_eq(mock_host_start(host, given), 0);
    mock_host_settle(host);
}

static void finish(void) {
    host = mock_host_free(host);
}

/* --- commands and events ---------------------------------------------------------------------- */

static struct vmibus_sensor_endpoint *vm_of(unsigned vm) {
    char name[24];
    struct vmibus_sensor_endpoint *endpoint;

    snprintf(name, sizeof(name), "stub-%u", vm);
    endpoint = mock_host_endpoint(host, name);
    ck_assert_ptr_nonnull(endpoint);
    return endpoint;
}

static uint64_t power(unsigned vm, enum vmibus_power_operation operation) {
    struct vmibus_frame frame = {.header = {.kind = VMIBUS_KIND_CMD_POWER},
                                 .cmd_power = {.operation = (uint8_t)operation}};

    return mock_host_execute(host, vm_of(vm), &frame, NULL, 0);
}

static uint64_t run(unsigned vm, enum vmibus_vm_operation operation) {
    struct vmibus_frame frame = {.header = {.kind = VMIBUS_KIND_CMD_VM},
                                 .cmd_vm = {.operation = (uint8_t)operation}};

    return mock_host_execute(host, vm_of(vm), &frame, NULL, 0);
}

static uint64_t release_input(unsigned vm) {
    struct vmibus_frame frame = {.header = {.kind = VMIBUS_KIND_INPUT_RELEASE}};

    return mock_host_execute(host, vm_of(vm), &frame, NULL, 0);
}

static uint64_t input(unsigned vm, const struct vmibus_input_event *events, uint16_t count) {
    struct vmibus_frame frame = {.header = {.kind = VMIBUS_KIND_CMD_INPUT},
                                 .cmd_input = {.count = count}};

    if (count <= VMIBUS_INPUT_EVENTS_INLINE) {
        memcpy(frame.cmd_input.events, events, count * sizeof(*events));
        return mock_host_execute(host, vm_of(vm), &frame, NULL, 0);
    }
    return mock_host_execute(host, vm_of(vm), &frame, events, count * sizeof(*events));
}

static uint64_t key(unsigned vm, uint16_t code, int value) {
    struct vmibus_input_event event = {.type = VMIBUS_INPUT_TYPE_KEY, .code = code, .value = value};

    return input(vm, &event, 1);
}

static void check_ack(uint64_t id, enum vmibus_error error, enum vmibus_reason reason,
                      uint64_t count) {
    const struct vmibus_ack *ack = mock_host_ack(host, id);

    ck_assert_ptr_nonnull(ack);
    ck_assert_int_eq(ack->error, error);
    ck_assert_int_eq(ack->reason, reason);
    ck_assert_uint_eq(ack->count, count);
    ck_assert_uint_ge(ack->finished, ack->started);
}

static void check_lifecycle(const struct mock_record *record, enum vmibus_vm_state state,
                            enum vmibus_lifecycle_cause cause, bool by_bus) {
    ck_assert_ptr_nonnull(record);
    ck_assert_int_eq(record->frame.header.kind, VMIBUS_KIND_LIFECYCLE);
    ck_assert_int_eq(record->frame.lifecycle.state, state);
    ck_assert_int_eq(record->frame.lifecycle.cause, cause);
    ck_assert_int_eq(record->frame.lifecycle.flags, by_bus ? VMIBUS_LIFECYCLE_BY_BUS : 0);
}

static void check_last_lifecycle(unsigned vm, enum vmibus_vm_state state,
                                 enum vmibus_lifecycle_cause cause, bool by_bus) {
    check_lifecycle(mock_host_last_of(host, MOCK_PUBLISH, vm_of(vm)), state, cause, by_bus);
}

static void check_degraded(const char *part) {
    const struct mock_record *record = mock_host_last(host, MOCK_ANNOUNCE);

    ck_assert_int_eq(record->state, VMIBUS_SENSOR_STATE_DEGRADED);
    ck_assert_msg(strstr(record->message, part) != NULL, "\"%s\" does not say \"%s\"",
                  record->message, part);
}

/* --- guest memory ----------------------------------------------------------------------------- */

static const struct mock_layout *layout_of(unsigned vm) {
    const struct mock_record *record = mock_host_last_of(host, MOCK_LAYOUT, vm_of(vm));

    ck_assert_ptr_nonnull(record);
    return &record->layout;
}

static int read_physical(void *context, uint64_t gpa, void *buffer, size_t len) {
    const struct mock_layout *layout = context;
    size_t i;

    for (i = 0; i < layout->n_ranges; i++) {
        const struct vmibus_layout_range *range = &layout->ranges[i];

        if (gpa >= range->gpa && len <= range->len && gpa - range->gpa <= range->len - len)
            return pread(layout->fds[range->object], buffer, len,
                         (off_t)(range->location + gpa - range->gpa)) == (ssize_t)len
                       ? 0
                       : VMIBUS_GUEST_TRUNCATED;
    }
    return VMIBUS_GUEST_OUTSIDE_RAM;
}

/* The test's own walk: Intel SDM volume 3, figures 4-8 to 4-11. */
static int walk(const struct mock_layout *layout, uint64_t cr3, unsigned levels, uint64_t gva,
                uint64_t *gpa, uint64_t *last) {
    uint64_t table = cr3, entry, size;
    unsigned level;

    for (level = levels; level > 0; level--) {
        size = UINT64_C(1) << (12 + 9 * (level - 1));
        if (read_physical((void *)(uintptr_t)layout, table + (gva / size % 512) * 8, &entry,
                          sizeof(entry)) != 0)
            return VMIBUS_GUEST_OUTSIDE_RAM;
        *last = entry;
        if (!(entry & 1))
            return VMIBUS_GUEST_NOT_PRESENT;
        table = entry & UINT64_C(0xffffffffff000);
        if (level == 1 || (level <= 3 && (entry & 0x80))) {
            if (table & (size - 1))
                return VMIBUS_GUEST_RESERVED_BITS;
            *gpa = table + gva % size;
            return 0;
        }
    }
    return VMIBUS_GUEST_NOT_PRESENT;
}

/* Both walks, which must agree on the outcome. */
static int translate(unsigned vm, uint64_t cr3, uint64_t gva, uint64_t *gpa, uint64_t *last) {
    const struct mock_layout *layout = layout_of(vm);
    struct vmibus_guest_reader reader = {.read = read_physical,
                                         .context = (void *)(uintptr_t)layout};
    struct vmibus_guest_root root = {.cr3 = cr3, .levels = stub_levels(vm)};
    struct vmibus_guest_translation translation;
    int r = walk(layout, cr3, stub_levels(vm), gva, gpa, last);

    ck_assert_int_eq(vmibus_guest_translate(&reader, &root, gva, &translation), r);
    if (r == 0)
        ck_assert_uint_eq(translation.gpa, *gpa);
    return r;
}

static void check_maps(unsigned vm, uint64_t cr3, uint64_t gva, uint64_t gpa) {
    uint64_t found = 0, last;

    ck_assert_int_eq(translate(vm, cr3, gva, &found, &last), 0);
    ck_assert_uint_eq(found, gpa);
}

static void check_does_not_map(unsigned vm, uint64_t cr3, uint64_t gva, int result) {
    uint64_t gpa, last;

    ck_assert_int_eq(translate(vm, cr3, gva, &gpa, &last), result);
}

static void read_gpa(unsigned vm, uint64_t gpa, void *buffer, size_t len) {
    ck_assert_int_eq(read_physical((void *)(uintptr_t)layout_of(vm), gpa, buffer, len), 0);
}

static void check_text(unsigned vm, uint64_t gpa, const char *text) {
    char found[256] = "";

    ck_assert_uint_lt(strlen(text), sizeof(found));
    read_gpa(vm, gpa, found, strlen(text) + 1);
    ck_assert_str_eq(found, text);
}

static void check_kernel(unsigned vm, unsigned boot) {
    uint64_t cr3 = stub_swapper_gpa(boot), kernel = stub_kernel_gva(vm, boot),
             direct = stub_direct_gva(vm), gpa, last;

    check_maps(vm, cr3, kernel + 0x1234, stub_kernel_gpa(boot) + 0x1234);
    check_maps(vm, cr3, stub_swapper_gva(vm, boot), cr3);
    ck_assert_uint_eq(stub_swapper_gva(vm, boot) - STUB_KERNEL_MAP_GVA + stub_phys_base(vm, boot),
                      cr3);
    check_maps(vm, cr3, direct + 0x765432, 0x765432);
    check_maps(vm, cr3, stub_banner_gva(vm, boot), stub_banner_gpa(boot));
    check_text(vm, stub_banner_gpa(boot), STUB_BANNER_TEXT);
    ck_assert_int_eq(translate(vm, cr3, stub_banner_gva(vm, boot), &gpa, &last), 0);
    ck_assert_msg(!(last & 2), "the banner's page is writable");
    if (stub_is_split(vm))
        check_maps(vm, cr3, direct + STUB_HIGH_GPA + 0x1000, STUB_HIGH_GPA + 0x1000);
    check_does_not_map(vm, cr3, STUB_DATA_GVA, VMIBUS_GUEST_NOT_PRESENT);
}

static void check_process(unsigned vm, unsigned boot, unsigned process) {
    uint64_t cr3 = stub_process_cr3(boot, process), gpa, last;
    char text[128], name[24];
    uint8_t octets[STUB_PAGE];
    unsigned page;
    size_t i;

    snprintf(name, sizeof(name), "stub-%u", vm);
    snprintf(text, sizeof(text), STUB_DATA_FORMAT, name, process, boot);
    check_maps(vm, cr3, STUB_DATA_GVA, stub_data_gpa(boot, process));
    check_text(vm, stub_data_gpa(boot, process), text);
    check_maps(vm, cr3, STUB_READ_ONLY_GVA, stub_read_only_gpa(boot, process));
    check_text(vm, stub_read_only_gpa(boot, process), STUB_READ_ONLY_TEXT);
    translate(vm, cr3, STUB_READ_ONLY_GVA, &gpa, &last);
    ck_assert_msg(!(last & 2), "the read-only page is writable");
    check_does_not_map(vm, cr3, STUB_NOT_PRESENT_GVA, VMIBUS_GUEST_NOT_PRESENT);
    check_maps(vm, cr3, STUB_PAGE_OUTSIDE_GVA, STUB_OUTSIDE_GPA);
    check_does_not_map(vm, cr3, STUB_TABLE_OUTSIDE_GVA, VMIBUS_GUEST_OUTSIDE_RAM);
    check_does_not_map(vm, cr3, STUB_RESERVED_GVA, VMIBUS_GUEST_RESERVED_BITS);
    check_maps(vm, cr3, STUB_LARGE_GVA + 0x12345, STUB_LARGE_GPA + 0x12345);
    check_maps(vm, cr3, STUB_HUGE_GVA + 0x654321, 0x654321);
    check_maps(vm, cr3, stub_swapper_gva(vm, boot), stub_swapper_gpa(boot));
    check_maps(vm, cr3, stub_direct_gva(vm), 0);
    for (page = 0; page < STUB_BUFFER_PAGES; page++) {
        check_maps(vm, cr3, STUB_BUFFER_GVA + page * STUB_PAGE,
                   stub_buffer_gpa(vm, boot, process, page));
        read_gpa(vm, stub_buffer_gpa(vm, boot, process, page), octets, sizeof(octets));
        for (i = 0; i < sizeof(octets); i++)
            ck_assert_uint_eq(octets[i], stub_buffer_octet(process, page * STUB_PAGE + i));
    }
    check_does_not_map(vm, cr3, STUB_BUFFER_GVA + STUB_BUFFER_SIZE, VMIBUS_GUEST_NOT_PRESENT);
}

static void check_guest(unsigned vm, unsigned boot) {
    unsigned process;

    check_kernel(vm, boot);
    for (process = 0; process < STUB_PROCESSES; process++)
        check_process(vm, boot, process);
}

static void check_root(unsigned vm, unsigned boot) {
    const struct mock_record *record = mock_host_last_of(host, MOCK_ROOT, vm_of(vm));

    ck_assert_ptr_nonnull(record);
    ck_assert_uint_eq(record->root.epoch, vm_of(vm)->epoch);
    ck_assert_uint_ne(record->root.epoch, 0);
    ck_assert_uint_eq(record->root.cr3, stub_swapper_gpa(boot));
    ck_assert_uint_eq(record->root.probe_gva, stub_swapper_gva(vm, boot));
    ck_assert_uint_eq(record->root.note, stub_note_gpa(boot));
    ck_assert_uint_gt(record->root.note_len, 100);
    ck_assert_uint_eq(record->root.vcpu_cr3, stub_vcpu_cr3(vm, boot));
    ck_assert_int_eq(record->root.levels, stub_levels(vm));
    ck_assert_int_eq(record->root.confidence, VMIBUS_CONFIDENCE_PROVEN);
    ck_assert_int_eq(record->root.reason, VMIBUS_REASON_NONE);
}

static const struct vmibus_mem_root *last_root(unsigned vm) {
    const struct mock_record *record = mock_host_last_of(host, MOCK_ROOT, vm_of(vm));

    return record ? &record->root : NULL;
}

static void check_no_root(unsigned vm, enum vmibus_reason reason) {
    ck_assert_ptr_nonnull(last_root(vm));
    ck_assert_uint_eq(last_root(vm)->cr3, 0);
    ck_assert_int_eq(last_root(vm)->reason, reason);
    ck_assert_uint_eq(last_root(vm)->epoch, vm_of(vm)->epoch);
}

static struct stub_input_header ring_header(unsigned vm) {
    struct stub_input_header header;

    read_gpa(vm, STUB_INPUT_GPA, &header, sizeof(header));
    return header;
}

static void check_entry(unsigned vm, uint64_t number, uint16_t type, uint16_t code, int32_t value,
                        bool by_bus) {
    struct stub_input_entry entry;

    read_gpa(vm, STUB_INPUT_GPA + STUB_PAGE + number % STUB_INPUT_ENTRIES * sizeof(entry), &entry,
             sizeof(entry));
    ck_assert_uint_eq(entry.number, number);
    ck_assert_int_eq(entry.type, type);
    ck_assert_int_eq(entry.code, code);
    ck_assert_int_eq(entry.value, value);
    ck_assert_int_eq(entry.by_bus, by_bus);
}

/* --- introduction ----------------------------------------------------------------------------- */

TEST(test_two_vms_by_default) {
    const struct mock_record *offer;

    start(NULL);
    ck_assert_uint_eq(mock_host_count(host, MOCK_OFFER), 2);
    offer = mock_host_record(host, MOCK_OFFER, 1);
    ck_assert_str_eq(offer->endpoint->name, "stub-1");
    ck_assert_int_eq(memcmp(offer->endpoint->uuid, "vmibus\x80\0\x80\0\0\0\0\0\0\1", 16), 0);
    ck_assert_uint_eq(offer->endpoint->groups, vmibus_stub_sensor.groups);
    ck_assert_uint_eq(offer->endpoint->pid, 0);
    check_last_lifecycle(0, VMIBUS_VM_STATE_RUNNING, VMIBUS_LIFECYCLE_CAUSE_OBSERVED, false);
    ck_assert_int_eq(mock_host_last(host, MOCK_ANNOUNCE)->state, VMIBUS_SENSOR_STATE_READY);
    finish();
}

TEST(test_options_are_checked) {
    static const char *const wrong[][2] = {
        {"vms=x", "vms"},
        {"vms=1025", "1024"},
        {"vms=-1", "vms"},
        {"vms=", "vms"},
        {"ram=31M", "multiple"},
        {"ram=28M", "33554432"},
        {"ram=64X", "ram"},
        {"ram=1024G", "ram"},
        {"ram=18446744073709551615G", "ram"},
        {"bootstrap=never", "flaky"},
        {"boot_ms=86400001", "boot_ms"},
        {"execute_ms=0", "execute_ms"},
        {"root=0", "proven"},
        {"layout=wrong", "overlap"},
        {"execute=no", "hang"},
        {"release=no", "hang"},
        {"state=off", "suspended"},
        {"colour=red", "colour"},
        {"ram=64M0", "ram"},
        {"respawn_ms=1s", "respawn_ms"},
    };
    size_t i;

    for (i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        host = mock_host_new(&vmibus_stub_sensor);
        ck_assert_int_eq(mock_host_start(host, options(wrong[i][0])), -EINVAL);
        ck_assert_uint_eq(mock_host_count(host, MOCK_OFFER), 0);
        ck_assert_int_eq(mock_host_last(host, MOCK_ANNOUNCE)->state, VMIBUS_SENSOR_STATE_FAILED);
        ck_assert_msg(strstr(mock_host_last(host, MOCK_ANNOUNCE)->message, wrong[i][1]) != NULL,
                      "%s: \"%s\"", wrong[i][0], mock_host_last(host, MOCK_ANNOUNCE)->message);
        finish();
    }
}

TEST(test_no_vms_is_lawful) {
    start(options("vms=0"));
    ck_assert_uint_eq(mock_host_count(host, MOCK_OFFER), 0);
    finish();
}

TEST(test_refused_offer_fails_the_start) {
    host = mock_host_new(&vmibus_stub_sensor);
    mock_host_behaviour(host)->results[MOCK_OFFER] = -ENOSPC;
    ck_assert_int_eq(mock_host_start(host, NULL), -ENOSPC);
    ck_assert_int_eq(mock_host_last(host, MOCK_ANNOUNCE)->state, VMIBUS_SENSOR_STATE_FAILED);
    finish();
}

/* --- memory ----------------------------------------------------------------------------------- */

TEST(test_layout_of_both_shapes) {
    const struct mock_layout *layout;
    struct stat status;
    size_t i;

    start(options("ram=96M"));
    layout = layout_of(0);
    ck_assert_uint_eq(layout->pid, 0);
    ck_assert_uint_eq(layout->n_ranges, 1);
    ck_assert_uint_eq(layout->n_fds, 1);
    ck_assert_uint_eq(layout->ranges[0].gpa, 0);
    ck_assert_uint_eq(layout->ranges[0].len, UINT64_C(96) << 20);
    layout = layout_of(1);
    ck_assert_uint_eq(layout->n_ranges, 2);
    ck_assert_uint_eq(layout->n_fds, 2);
    ck_assert_uint_eq(layout->ranges[0].len, UINT64_C(48) << 20);
    ck_assert_uint_eq(layout->ranges[1].gpa, STUB_HIGH_GPA);
    ck_assert_uint_eq(layout->ranges[1].object, 1);
    for (i = 0; i < 2; i++) {
        ck_assert_int_eq(fstat(layout->fds[i], &status), 0);
        ck_assert_uint_eq((uint64_t)status.st_size, layout->ranges[i].len);
        ck_assert_int_eq(fcntl(layout->fds[i], F_GET_SEALS),
                         F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL);
    }
    finish();
}

TEST(test_hole_begins_at_three_gib_at_the_latest) {
    start(options("ram=8G"));
    ck_assert_uint_eq(layout_of(1)->ranges[0].len, UINT64_C(3) << 30);
    ck_assert_uint_eq(layout_of(1)->ranges[1].len, UINT64_C(5) << 30);
    finish();
}

TEST(test_guest_is_as_the_map_says) {
    start(options("vms=4", "ram=32M"));
    check_guest(0, 0);
    check_guest(1, 0);
    check_guest(2, 0);
    check_guest(3, 0);
    finish();
}

TEST(test_root_is_proposed_with_evidence) {
    start(NULL);
    ck_assert_uint_eq(mock_host_count(host, MOCK_ROOT), 2);
    check_root(0, 0);
    check_root(1, 0);
    finish();
}

static void check_found(unsigned vm, unsigned boot) {
    const struct mock_layout *layout = layout_of(vm);
    struct vmibus_ram_range ranges[2] = {0};
    uint64_t vcpu_cr3 = stub_vcpu_cr3(vm, boot);
    struct vmibus_guest_hints hints = {.vcpu_cr3 = &vcpu_cr3, .n_vcpu_cr3 = 1};
    struct vmibus_guest_kernel kernel;
    struct vmibus_guest_ram *ram;
    size_t i;

    for (i = 0; i < layout->n_ranges; i++)
        ranges[i] = (struct vmibus_ram_range){.gpa = layout->ranges[i].gpa,
                                              .len = layout->ranges[i].len,
                                              .offset = layout->ranges[i].location,
                                              .object = layout->ranges[i].object};
    ck_assert_int_eq(
        vmibus_guest_ram_new(&ram, ranges, layout->n_ranges, layout->fds, layout->n_fds), 0);
    ck_assert_int_eq(vmibus_guest_find_linux(ram, &hints, &kernel), 0);
    ck_assert_uint_eq(kernel.root.cr3, stub_swapper_gpa(boot));
    ck_assert_int_eq(kernel.root.levels, stub_levels(vm));
    ck_assert_int_eq(kernel.confidence, VMIBUS_CONFIDENCE_PROVEN);
    ck_assert_uint_eq(kernel.note.gpa, last_root(vm)->note);
    ck_assert_uint_eq(kernel.note.len, last_root(vm)->note_len);
    ck_assert_str_eq(kernel.note.release, STUB_RELEASE);
    ck_assert_uint_eq(kernel.note.swapper_pg_dir, last_root(vm)->probe_gva);
    ck_assert_uint_eq(kernel.note.phys_base, stub_phys_base(vm, boot));
    ck_assert_uint_eq(kernel.note.kernel_offset, stub_kernel_offset(vm, boot));
    vmibus_guest_ram_free(ram);
}

TEST(test_root_finder_finds_what_is_proposed) {
    start(NULL);
    check_found(0, 0);
    check_found(1, 0);
    power(0, VMIBUS_POWER_OPERATION_RESET);
    power(1, VMIBUS_POWER_OPERATION_RESET);
    mock_host_settle(host);
    check_found(0, 1);
    check_found(1, 1);
    finish();
}

TEST(test_sixty_four_vms_cost_little) {
    uint64_t octets = 0;
    struct stat status;
    unsigned vm;
    size_t i;

    start(options("vms=64", "ram=16G"));
    for (vm = 0; vm < 64; vm++) {
        check_root(vm, 0);
        for (i = 0; i < layout_of(vm)->n_fds; i++) {
            ck_assert_int_eq(fstat(layout_of(vm)->fds[i], &status), 0);
            octets += (uint64_t)status.st_blocks * 512;
        }
    }
    ck_assert_uint_le(octets, 64 * UINT64_C(192) * 1024);
    finish();
}

TEST(test_layout_options) {
    const struct vmibus_layout_range *ranges;

    start(options("layout=overlap"));
    ranges = layout_of(1)->ranges;
    ck_assert_uint_eq(layout_of(1)->n_ranges, 3);
    ck_assert_uint_lt(ranges[2].gpa, ranges[0].gpa + ranges[0].len);
    finish();
    start(options("layout=beyond"));
    ck_assert_uint_gt(layout_of(0)->ranges[0].len, STUB_RAM_DEFAULT);
    ck_assert_uint_gt(layout_of(1)->ranges[1].len, STUB_RAM_DEFAULT / 2);
    finish();
}

TEST(test_refused_layout_is_told_and_no_root_follows) {
    host = mock_host_new(&vmibus_stub_sensor);
    mock_host_own_time(host);
    mock_host_behaviour(host)->layout_error = VMIBUS_ERROR_VALIDATION;
    mock_host_behaviour(host)->layout_reason = VMIBUS_REASON_LAYOUT_UNPROVEN;
    ck_assert_int_eq(mock_host_start(host, options("vms=1", "layout=overlap")), 0);
    mock_host_settle(host);
    ck_assert_uint_eq(mock_host_count(host, MOCK_ROOT), 0);
    check_degraded("stub-0");
    check_degraded("88");
    finish();
}

TEST(test_root_options) {
    start(options("root=none"));
    check_no_root(0, VMIBUS_REASON_NO_ROOT);
    finish();
    start(options("root=wrong"));
    ck_assert_uint_eq(last_root(0)->cr3, STUB_FREE_GPA);
    check_does_not_map(0, STUB_FREE_GPA, stub_swapper_gva(0, 0), VMIBUS_GUEST_NOT_PRESENT);
    finish();
}

TEST(test_refused_root_is_told) {
    start(options("vms=1"));
    mock_host_answer_root(host, vm_of(0), vm_of(0)->epoch, VMIBUS_ERROR_STALE_EPOCH,
                          VMIBUS_REASON_RESET);
    ck_assert_int_eq(mock_host_last(host, MOCK_ANNOUNCE)->state, VMIBUS_SENSOR_STATE_READY);
    mock_host_answer_root(host, vm_of(0), vm_of(0)->epoch, VMIBUS_ERROR_VALIDATION,
                          VMIBUS_REASON_ROOT_UNPROVEN);
    check_degraded("stub-0");
    check_degraded("89");
    finish();
}

/* --- boot ------------------------------------------------------------------------------------- */

TEST(test_bootstrap_slow) {
    start(options("bootstrap=slow", "boot_ms=500"));
    check_no_root(1, VMIBUS_REASON_BOOTING);
    check_does_not_map(1, stub_swapper_gpa(0), stub_swapper_gva(1, 0), VMIBUS_GUEST_NOT_PRESENT);
    mock_host_advance(host, 499 * NS_PER_MS);
    check_no_root(1, VMIBUS_REASON_BOOTING);
    mock_host_advance(host, NS_PER_MS);
    check_root(0, 0);
    check_root(1, 0);
    check_guest(1, 0);
    finish();
}

TEST(test_bootstrap_fail_boots_never) {
    start(options("bootstrap=fail"));
    mock_host_advance(host, 3600000 * NS_PER_MS);
    check_no_root(0, VMIBUS_REASON_BOOTING);
    ck_assert_uint_eq(mock_host_count(host, MOCK_ROOT), 2);
    finish();
}

TEST(test_bootstrap_flaky_backs_off) {
    start(options("vms=1", "bootstrap=flaky", "boot_ms=100"));
    check_no_root(0, VMIBUS_REASON_BOOTING);
    mock_host_advance(host, 100 * NS_PER_MS);
    check_no_root(0, VMIBUS_REASON_ROOT_UNPROVEN);
    mock_host_advance(host, 200 * NS_PER_MS);
    ck_assert_uint_eq(mock_host_count(host, MOCK_ROOT), 3);
    mock_host_advance(host, 399 * NS_PER_MS);
    check_no_root(0, VMIBUS_REASON_ROOT_UNPROVEN);
    mock_host_advance(host, NS_PER_MS);
    check_root(0, 0);
    finish();
}

TEST(test_verdict_may_come_after_the_boot) {
    host = mock_host_new(&vmibus_stub_sensor);
    mock_host_own_time(host);
    mock_host_behaviour(host)->answer_layout = false;
    ck_assert_int_eq(mock_host_start(host, options("vms=1")), 0);
    mock_host_settle(host);
    ck_assert_uint_eq(mock_host_count(host, MOCK_ROOT), 0);
    mock_host_answer_layout(host, vm_of(0), 77, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
    check_root(0, 0);
    ck_assert_uint_eq(last_root(0)->epoch, 77);
    finish();
}

/* --- run state -------------------------------------------------------------------------------- */

TEST(test_pause_and_resume) {
    start(NULL);
    check_ack(run(0, VMIBUS_VM_OPERATION_RESUME), VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 0);
    check_last_lifecycle(0, VMIBUS_VM_STATE_RUNNING, VMIBUS_LIFECYCLE_CAUSE_OBSERVED, false);
    check_ack(run(0, VMIBUS_VM_OPERATION_PAUSE), VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 1);
    check_last_lifecycle(0, VMIBUS_VM_STATE_PAUSED, VMIBUS_LIFECYCLE_CAUSE_PAUSED, true);
    check_last_lifecycle(1, VMIBUS_VM_STATE_RUNNING, VMIBUS_LIFECYCLE_CAUSE_OBSERVED, false);
    mock_host_clear(host);
    check_ack(run(0, VMIBUS_VM_OPERATION_PAUSE), VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 0);
    ck_assert_uint_eq(mock_host_count(host, MOCK_PUBLISH), 0);
    check_ack(run(0, VMIBUS_VM_OPERATION_RESUME), VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 1);
    check_last_lifecycle(0, VMIBUS_VM_STATE_RUNNING, VMIBUS_LIFECYCLE_CAUSE_RESUMED, true);
    check_ack(run(0, 99), VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD, 0);
    check_ack(power(0, 99), VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD, 0);
    finish();
}

TEST(test_p11_hold_leaves_the_run_state_as_it_was) {
    start(NULL);
    check_ack(run(0, VMIBUS_VM_OPERATION_HOLD), VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 1);
    check_last_lifecycle(0, VMIBUS_VM_STATE_PAUSED, VMIBUS_LIFECYCLE_CAUSE_PAUSED, true);
    check_ack(run(0, VMIBUS_VM_OPERATION_LET_GO), VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 1);
    check_last_lifecycle(0, VMIBUS_VM_STATE_RUNNING, VMIBUS_LIFECYCLE_CAUSE_RESUMED, true);
    check_ack(run(0, VMIBUS_VM_OPERATION_LET_GO), VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 0);
    /* Paused before: the hold counts, its end changes nothing. */
    run(0, VMIBUS_VM_OPERATION_PAUSE);
    check_ack(run(0, VMIBUS_VM_OPERATION_HOLD), VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 0);
    check_ack(run(0, VMIBUS_VM_OPERATION_LET_GO), VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 0);
    check_last_lifecycle(0, VMIBUS_VM_STATE_PAUSED, VMIBUS_LIFECYCLE_CAUSE_PAUSED, true);
    finish();
}

TEST(test_p11_pause_and_resume_under_a_hold) {
    start(NULL);
    run(0, VMIBUS_VM_OPERATION_HOLD);
    check_ack(run(0, VMIBUS_VM_OPERATION_PAUSE), VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 1);
    check_ack(run(0, VMIBUS_VM_OPERATION_LET_GO), VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 0);
    check_last_lifecycle(0, VMIBUS_VM_STATE_PAUSED, VMIBUS_LIFECYCLE_CAUSE_PAUSED, true);
    run(0, VMIBUS_VM_OPERATION_HOLD);
    check_ack(run(0, VMIBUS_VM_OPERATION_RESUME), VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 1);
    check_last_lifecycle(0, VMIBUS_VM_STATE_PAUSED, VMIBUS_LIFECYCLE_CAUSE_PAUSED, true);
    check_ack(run(0, VMIBUS_VM_OPERATION_LET_GO), VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 1);
    check_last_lifecycle(0, VMIBUS_VM_STATE_RUNNING, VMIBUS_LIFECYCLE_CAUSE_RESUMED, true);
    finish();
}

TEST(test_hold_of_a_suspended_vm_is_refused) {
    start(options("state=suspended"));
    check_ack(run(0, VMIBUS_VM_OPERATION_HOLD), VMIBUS_ERROR_IO, VMIBUS_REASON_SENSOR_FAILED, 0);
    finish();
}

TEST(test_wakeup_of_a_suspended_vm) {
    start(options("state=suspended"));
    check_last_lifecycle(0, VMIBUS_VM_STATE_SUSPENDED, VMIBUS_LIFECYCLE_CAUSE_OBSERVED, false);
    check_ack(key(0, KEY_A, 1), VMIBUS_ERROR_BUSY, VMIBUS_REASON_GUEST_PAUSED, 0);
    check_ack(run(0, VMIBUS_VM_OPERATION_RESUME), VMIBUS_ERROR_IO, VMIBUS_REASON_SENSOR_FAILED, 0);
    check_ack(power(0, VMIBUS_POWER_OPERATION_WAKEUP), VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 1);
    check_last_lifecycle(0, VMIBUS_VM_STATE_RUNNING, VMIBUS_LIFECYCLE_CAUSE_WAKEUP, true);
    check_ack(power(0, VMIBUS_POWER_OPERATION_WAKEUP), VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 0);
    finish();
}

TEST(test_wakeup_does_not_resume_a_pause) {
    start(options("state=paused"));
    check_ack(power(0, VMIBUS_POWER_OPERATION_WAKEUP), VMIBUS_ERROR_IO, VMIBUS_REASON_SENSOR_FAILED,
              0);
    check_last_lifecycle(0, VMIBUS_VM_STATE_PAUSED, VMIBUS_LIFECYCLE_CAUSE_OBSERVED, false);
    finish();
}

TEST(test_reset_ends_the_epoch_and_moves_the_kernel) {
    uint64_t old_epoch;
    uint8_t zeros[4096] = {0}, page[4096];

    start(options("boot_ms=50"));
    mock_host_advance(host, 50 * NS_PER_MS);
    old_epoch = vm_of(1)->epoch;
    mock_host_clear(host);
    check_ack(power(1, VMIBUS_POWER_OPERATION_RESET), VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 1);
    ck_assert_int_eq(mock_host_any(host, 0)->call, MOCK_END_EPOCH);
    ck_assert_int_eq(mock_host_any(host, 0)->reason, VMIBUS_REASON_RESET);
    check_lifecycle(mock_host_any(host, 1), VMIBUS_VM_STATE_RUNNING, VMIBUS_LIFECYCLE_CAUSE_RESET,
                    true);
    mock_host_settle(host);
    ck_assert_uint_eq(mock_host_count(host, MOCK_LAYOUT), 1);
    ck_assert_uint_gt(vm_of(1)->epoch, old_epoch);
    check_no_root(1, VMIBUS_REASON_BOOTING);
    read_gpa(1, stub_swapper_gpa(0), page, sizeof(page));
    ck_assert_int_eq(memcmp(page, zeros, sizeof(page)), 0);
    mock_host_advance(host, 50 * NS_PER_MS);
    check_root(1, 1);
    ck_assert_uint_ne(last_root(1)->cr3, stub_swapper_gpa(0));
    check_guest(1, 1);
    finish();
}

TEST(test_reset_keeps_a_pause) {
    start(NULL);
    run(0, VMIBUS_VM_OPERATION_PAUSE);
    power(0, VMIBUS_POWER_OPERATION_RESET);
    check_last_lifecycle(0, VMIBUS_VM_STATE_PAUSED, VMIBUS_LIFECYCLE_CAUSE_RESET, true);
    finish();
}

TEST(test_resets_in_a_row_give_one_root_of_the_last_boot) {
    unsigned i;

    start(options("vms=1"));
    mock_host_clear(host);
    for (i = 0; i < 20; i++)
        power(0, VMIBUS_POWER_OPERATION_RESET);
    power(0, VMIBUS_POWER_OPERATION_RESET);
    mock_host_settle(host);
    ck_assert_uint_eq(mock_host_count(host, MOCK_LAYOUT), 1);
    ck_assert_uint_eq(mock_host_count(host, MOCK_ROOT), 1);
    check_root(0, 21);
    check_guest(0, 21);
    finish();
}

TEST(test_verdict_on_an_older_layout_does_not_count) {
    host = mock_host_new(&vmibus_stub_sensor);
    mock_host_own_time(host);
    mock_host_behaviour(host)->answer_layout = false;
    ck_assert_int_eq(mock_host_start(host, options("vms=1")), 0);
    mock_host_settle(host);
    power(0, VMIBUS_POWER_OPERATION_RESET);
    ck_assert_uint_eq(mock_host_count(host, MOCK_END_EPOCH), 1);
    mock_host_settle(host);
    mock_host_answer_layout(host, vm_of(0), 5, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
    ck_assert_uint_eq(mock_host_count(host, MOCK_ROOT), 0);
    mock_host_answer_layout(host, vm_of(0), 6, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
    check_root(0, 1);
    finish();
}

TEST(test_powerdown_shuts_down_later) {
    start(options("shutdown_ms=200"));
    check_ack(power(0, VMIBUS_POWER_OPERATION_POWERDOWN), VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 1);
    check_last_lifecycle(0, VMIBUS_VM_STATE_RUNNING, VMIBUS_LIFECYCLE_CAUSE_POWERDOWN, true);
    check_ack(power(0, VMIBUS_POWER_OPERATION_POWERDOWN), VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 0);
    mock_host_advance(host, 199 * NS_PER_MS);
    ck_assert_uint_ne(vm_of(0)->epoch, 0);
    mock_host_clear(host);
    mock_host_advance(host, NS_PER_MS);
    ck_assert_int_eq(mock_host_any(host, 0)->call, MOCK_END_EPOCH);
    ck_assert_int_eq(mock_host_any(host, 0)->reason, VMIBUS_REASON_SHUTDOWN);
    check_last_lifecycle(0, VMIBUS_VM_STATE_SHUTDOWN, VMIBUS_LIFECYCLE_CAUSE_SHUTDOWN, true);
    check_ack(key(0, KEY_A, 1), VMIBUS_ERROR_BUSY, VMIBUS_REASON_GUEST_PAUSED, 0);
    check_ack(run(0, VMIBUS_VM_OPERATION_PAUSE), VMIBUS_ERROR_IO, VMIBUS_REASON_SENSOR_FAILED, 0);
    check_ack(power(0, VMIBUS_POWER_OPERATION_POWERDOWN), VMIBUS_ERROR_IO,
              VMIBUS_REASON_SENSOR_FAILED, 0);
    check_ack(power(0, VMIBUS_POWER_OPERATION_RESET), VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 1);
    mock_host_settle(host);
    check_last_lifecycle(0, VMIBUS_VM_STATE_RUNNING, VMIBUS_LIFECYCLE_CAUSE_RESET, true);
    check_root(0, 1);
    finish();
}

TEST(test_powerdown_of_a_paused_vm_waits_for_resume) {
    start(options("vms=1"));
    run(0, VMIBUS_VM_OPERATION_PAUSE);
    check_ack(power(0, VMIBUS_POWER_OPERATION_POWERDOWN), VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 1);
    mock_host_advance(host, 1000 * NS_PER_MS);
    check_last_lifecycle(0, VMIBUS_VM_STATE_PAUSED, VMIBUS_LIFECYCLE_CAUSE_POWERDOWN, true);
    run(0, VMIBUS_VM_OPERATION_RESUME);
    mock_host_advance(host, 1);
    check_last_lifecycle(0, VMIBUS_VM_STATE_SHUTDOWN, VMIBUS_LIFECYCLE_CAUSE_SHUTDOWN, true);
    finish();
}

TEST(test_powerdown_while_the_guest_is_built) {
    start(options("vms=1", "boot_ms=10"));
    power(0, VMIBUS_POWER_OPERATION_POWERDOWN);
    mock_host_advance(host, 1000 * NS_PER_MS);
    check_last_lifecycle(0, VMIBUS_VM_STATE_SHUTDOWN, VMIBUS_LIFECYCLE_CAUSE_SHUTDOWN, true);
    ck_assert_uint_eq(mock_host_count(host, MOCK_ROOT), 1);
    ck_assert_uint_eq(last_root(0)->cr3, 0);
    ck_assert_uint_eq(vm_of(0)->epoch, 0);
    finish();
}

static bool all_shut_down(void *data) {
    unsigned i, *vms = data;

    for (i = 0; i < *vms; i++)
        if (mock_host_last_of(host, MOCK_PUBLISH, vm_of(i))->frame.lifecycle.state !=
            VMIBUS_VM_STATE_SHUTDOWN)
            return false;
    return true;
}

/*
 * Time is real here, so that the timers fire while the worker still has most of the work before it.
 * 
 */
TEST(test_shutdown_while_work_runs_proposes_nothing_more) {
    unsigned vms = 32, i;

    host = mock_host_new(&vmibus_stub_sensor);
    ck_assert_int_eq(mock_host_start(host, options("vms=32")), 0);
    for (i = 0; i < vms; i++)
        power(i, VMIBUS_POWER_OPERATION_POWERDOWN);
    ck_assert(mock_host_wait(host, all_shut_down, &vms, 10000));
    mock_host_settle(host);
    for (i = 0; i < vms; i++) {
        ck_assert_uint_eq(vm_of(i)->epoch, 0);
        check_last_lifecycle(i, VMIBUS_VM_STATE_SHUTDOWN, VMIBUS_LIFECYCLE_CAUSE_SHUTDOWN, true);
    }
    finish();
}

TEST(test_quit_answers_and_withdraws) {
    struct vmibus_sensor_endpoint *old;
    size_t i = 0;

    start(options("vms=1"));
    old = vm_of(0);
    mock_host_clear(host);
    check_ack(power(0, VMIBUS_POWER_OPERATION_QUIT), VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 1);
    ck_assert_int_eq(mock_host_any(host, i++)->call, MOCK_COMPLETE);
    check_lifecycle(mock_host_any(host, i++), VMIBUS_VM_STATE_SHUTDOWN,
                    VMIBUS_LIFECYCLE_CAUSE_SHUTDOWN, true);
    ck_assert_int_eq(mock_host_any(host, i)->call, MOCK_WITHDRAW);
    ck_assert_int_eq(mock_host_any(host, i++)->reason, VMIBUS_REASON_EXIT);
    ck_assert(old->gone);
    mock_host_advance(host, 3600000 * NS_PER_MS);
    ck_assert_uint_eq(mock_host_count(host, MOCK_OFFER), 0);
    finish();
}

TEST(test_quit_and_respawn) {
    struct vmibus_sensor_endpoint *old;

    start(options("vms=1", "respawn_ms=100", "heartbeat_ms=7"));
    old = vm_of(0);
    key(0, KEY_A, 1);
    power(0, VMIBUS_POWER_OPERATION_QUIT);
    mock_host_advance(host, 99 * NS_PER_MS);
    ck_assert_uint_eq(mock_host_count(host, MOCK_OFFER), 1);
    mock_host_advance(host, NS_PER_MS);
    ck_assert_uint_eq(mock_host_count(host, MOCK_OFFER), 2);
    ck_assert_ptr_ne(vm_of(0), old);
    check_last_lifecycle(0, VMIBUS_VM_STATE_RUNNING, VMIBUS_LIFECYCLE_CAUSE_STARTED, false);
    check_root(0, 1);
    check_guest(0, 1);
    ck_assert_uint_eq(ring_header(0).count, 0);
    finish();
}

TEST(test_quit_while_work_runs) {
    unsigned i;

    start(options("vms=8", "respawn_ms=1"));
    for (i = 0; i < 8; i++) {
        power(i, VMIBUS_POWER_OPERATION_RESET);
        power(i, VMIBUS_POWER_OPERATION_QUIT);
    }
    mock_host_advance(host, 10 * NS_PER_MS);
    for (i = 0; i < 8; i++)
        check_root(i, 2);
    finish();
}

TEST(test_refused_respawn_is_told) {
    start(options("vms=1", "respawn_ms=100"));
    mock_host_behaviour(host)->results[MOCK_OFFER] = -ENOSPC;
    power(0, VMIBUS_POWER_OPERATION_QUIT);
    mock_host_advance(host, 100 * NS_PER_MS);
    check_degraded("offered again");
    finish();
}

TEST(test_heartbeat) {
    start(options("vms=1", "heartbeat_ms=10"));
    mock_host_clear(host);
    mock_host_advance(host, 100 * NS_PER_MS);
    ck_assert_uint_eq(mock_host_count(host, MOCK_PUBLISH), 10);
    check_last_lifecycle(0, VMIBUS_VM_STATE_RUNNING, VMIBUS_LIFECYCLE_CAUSE_OBSERVED, false);
    finish();
}

TEST(test_idle_vms_have_no_armed_timer) {
    size_t publications;

    start(NULL);
    publications = mock_host_count(host, MOCK_PUBLISH);
    mock_host_advance(host, 24 * 3600000 * NS_PER_MS);
    ck_assert_int_eq(mock_host_iterate(host, 0), 0);
    ck_assert_uint_eq(mock_host_count(host, MOCK_PUBLISH), publications);
    finish();
}

/* --- input ------------------------------------------------------------------------------------ */

TEST(test_input_can_be_read_back_in_guest_memory) {
    const struct vmibus_input_event events[] = {
        {.type = VMIBUS_INPUT_TYPE_KEY, .code = KEY_A, .value = 1},
        {.type = VMIBUS_INPUT_TYPE_KEY, .code = KEY_A, .value = 0},
        {.type = VMIBUS_INPUT_TYPE_RELATIVE, .code = REL_X, .value = -5},
        {.type = VMIBUS_INPUT_TYPE_ABSOLUTE, .code = ABS_Y, .value = 32767},
    };

    start(NULL);
    ck_assert_uint_eq(ring_header(1).magic, STUB_INPUT_MAGIC);
    ck_assert_uint_eq(ring_header(1).count, 0);
    check_ack(input(1, events, 4), VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 4);
    ck_assert_uint_eq(ring_header(1).count, 4);
    ck_assert_uint_eq(ring_header(1).held, 0);
    ck_assert_uint_eq(ring_header(0).count, 0);
    check_entry(1, 0, VMIBUS_INPUT_TYPE_KEY, KEY_A, 1, false);
    check_entry(1, 2, VMIBUS_INPUT_TYPE_RELATIVE, REL_X, -5, false);
    check_entry(1, 3, VMIBUS_INPUT_TYPE_ABSOLUTE, ABS_Y, 32767, false);
    finish();
}

TEST(test_input_in_a_tail_and_the_ring_wraps) {
    struct vmibus_input_event events[300];
    uint16_t i;

    for (i = 0; i < 300; i++)
        events[i] = (struct vmibus_input_event){
            .type = VMIBUS_INPUT_TYPE_RELATIVE, .code = REL_Y, .value = i};
    start(NULL);
    check_ack(input(0, events, 300), VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 300);
    ck_assert_uint_eq(ring_header(0).count, 300);
    check_entry(0, 299, VMIBUS_INPUT_TYPE_RELATIVE, REL_Y, 299, false);
    check_entry(0, 44, VMIBUS_INPUT_TYPE_RELATIVE, REL_Y, 44, false);
    finish();
}

TEST(test_input_that_contradicts_itself_is_refused) {
    struct vmibus_frame frame = {.header = {.kind = VMIBUS_KIND_CMD_INPUT},
                                 .cmd_input = {.count = 7}};
    struct vmibus_input_event events[3] = {
        {.type = VMIBUS_INPUT_TYPE_KEY, .code = KEY_B, .value = 1}};

    start(NULL);
    check_ack(mock_host_execute(host, vm_of(0), &frame, NULL, 0), VMIBUS_ERROR_VALIDATION,
              VMIBUS_REASON_BAD_LENGTH, 0);
    check_ack(mock_host_execute(host, vm_of(0), &frame, events, sizeof(events)),
              VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_LENGTH, 0);
    frame.cmd_input.count = 0;
    check_ack(mock_host_execute(host, vm_of(0), &frame, NULL, 0), VMIBUS_ERROR_VALIDATION,
              VMIBUS_REASON_BAD_LENGTH, 0);
    ck_assert_uint_eq(ring_header(0).count, 0);
    finish();
}

TEST(test_bad_events_end_the_command_with_an_honest_count) {
    static const struct vmibus_input_event wrong[] = {
        {.type = 0, .code = 0, .value = 0},
        {.type = VMIBUS_INPUT_TYPE_KEY, .code = STUB_KEYS, .value = 1},
        {.type = VMIBUS_INPUT_TYPE_KEY, .code = KEY_A, .value = 2},
        {.type = VMIBUS_INPUT_TYPE_RELATIVE, .code = 16, .value = 1},
        {.type = VMIBUS_INPUT_TYPE_ABSOLUTE, .code = 2, .value = 1},
        {.type = VMIBUS_INPUT_TYPE_ABSOLUTE, .code = 0, .value = 32768},
        {.type = VMIBUS_INPUT_TYPE_ABSOLUTE, .code = 0, .value = -1},
    };
    size_t i;

    start(NULL);
    for (i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct vmibus_input_event events[3] = {
            {.type = VMIBUS_INPUT_TYPE_RELATIVE, .code = REL_X, .value = 1}};
        uint64_t id;

        events[1] = wrong[i];
        events[2] = events[0];
        id = input(0, events, 3);
        check_ack(id, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD, 1);
        ck_assert_uint_eq(mock_host_ack(host, id)->value, 1);
        ck_assert_uint_eq(ring_header(0).count, i + 1);
    }
    finish();
}

TEST(test_p05_held_keys_are_released) {
    start(NULL);
    key(0, KEY_LEFTSHIFT, 1);
    key(0, KEY_A, 1);
    key(0, KEY_A, 1);
    key(0, BTN_LEFT, 1);
    key(0, KEY_B, 1);
    key(0, KEY_B, 0);
    ck_assert_uint_eq(ring_header(0).held, 3);
    check_ack(release_input(0), VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 3);
    ck_assert_uint_eq(ring_header(0).held, 0);
    ck_assert_uint_eq(ring_header(0).released, 3);
    check_entry(0, 6, VMIBUS_INPUT_TYPE_KEY, KEY_A, 0, true);
    check_entry(0, 7, VMIBUS_INPUT_TYPE_KEY, KEY_LEFTSHIFT, 0, true);
    check_entry(0, 8, VMIBUS_INPUT_TYPE_KEY, BTN_LEFT, 0, true);
    check_ack(release_input(0), VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 0);
    finish();
}

TEST(test_paused_vm_takes_no_input_but_releases) {
    start(NULL);
    key(0, KEY_A, 1);
    run(0, VMIBUS_VM_OPERATION_PAUSE);
    check_ack(key(0, KEY_B, 1), VMIBUS_ERROR_BUSY, VMIBUS_REASON_GUEST_PAUSED, 0);
    ck_assert_uint_eq(ring_header(0).count, 1);
    check_ack(release_input(0), VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 1);
    check_entry(0, 1, VMIBUS_INPUT_TYPE_KEY, KEY_A, 0, true);
    run(0, VMIBUS_VM_OPERATION_RESUME);
    check_ack(key(0, KEY_B, 1), VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 1);
    finish();
}

TEST(test_reset_lets_go_of_keys) {
    start(NULL);
    key(0, KEY_A, 1);
    power(0, VMIBUS_POWER_OPERATION_RESET);
    check_ack(key(0, KEY_B, 1), VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 1);
    mock_host_settle(host);
    ck_assert_uint_eq(ring_header(0).count, 1);
    ck_assert_uint_eq(ring_header(0).held, 1);
    check_ack(release_input(0), VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 1);
    finish();
}

static void quiet_complete(struct vmibus_sensor_host *handle, uint64_t id,
                           const struct vmibus_ack *ack) {
    (void)handle;
    (void)id;
    (void)ack;
}

static uint64_t quiet_now(void) {
    return 1;
}

/* In a process that may make no other system call than exit: 1 where memory was allocated. */
static void execute_without_system_calls(struct stub *stub) {
    struct vmibus_sensor_api api = *stub->api;
    struct vmibus_frame frame = {.header = {.kind = VMIBUS_KIND_CMD_INPUT},
                                 .cmd_input = {.count = 1}};
    struct vmibus_sensor_command command = {.id = 1, .frame = &frame};
    struct mallinfo2 before, after;
    unsigned i;

    api.complete = quiet_complete;
    api.now = quiet_now;
    stub->api = &api;
    frame.cmd_input.events[0] =
        (struct vmibus_input_event){.type = VMIBUS_INPUT_TYPE_KEY, .code = KEY_A};
    before = mallinfo2();
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT);
    for (i = 0; i < 10000; i++) {
        frame.cmd_input.events[0].value = i % 2;
        vmibus_stub_sensor.execute(stub, stub->vms, &command);
    }
    after = mallinfo2();
    syscall(SYS_exit, before.uordblks != after.uordblks);
}

TEST(test_input_costs_no_system_call_and_no_allocation) {
    int status;
    pid_t child;

    start(options("vms=1"));
    key(0, KEY_A, 0);
    child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0)
        execute_without_system_calls(mock_host_instance(host));
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_msg(!WIFSIGNALED(status), "a system call was made (signal %d)", WTERMSIG(status));
    ck_assert_int_eq(WEXITSTATUS(status), 0);
    ck_assert_uint_eq(ring_header(0).count, 10001);
    finish();
}

/* --- trouble ---------------------------------------------------------------------------------- */

TEST(test_execute_fail) {
    uint64_t id;

    start(options("execute=fail"));
    id = run(0, VMIBUS_VM_OPERATION_PAUSE);
    check_ack(id, VMIBUS_ERROR_IO, VMIBUS_REASON_SENSOR_FAILED, 0);
    ck_assert_uint_eq(mock_host_ack(host, id)->value, EIO);
    check_last_lifecycle(0, VMIBUS_VM_STATE_RUNNING, VMIBUS_LIFECYCLE_CAUSE_OBSERVED, false);
    check_ack(release_input(0), VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 0);
    finish();
}

TEST(test_execute_slow_keeps_the_order) {
    struct vmibus_input_event events[7];
    uint64_t first, second;
    unsigned i;

    for (i = 0; i < 7; i++)
        events[i] = (struct vmibus_input_event){
            .type = VMIBUS_INPUT_TYPE_RELATIVE, .code = REL_X, .value = (int)i};
    start(options("execute=slow", "execute_ms=30"));
    first = input(0, events, 7);
    mock_host_advance(host, 10 * NS_PER_MS);
    second = run(0, VMIBUS_VM_OPERATION_PAUSE);
    mock_host_advance(host, 19 * NS_PER_MS);
    ck_assert_ptr_null(mock_host_ack(host, first));
    mock_host_advance(host, NS_PER_MS);
    check_ack(first, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 7);
    check_entry(0, 6, VMIBUS_INPUT_TYPE_RELATIVE, REL_X, 6, false);
    ck_assert_ptr_null(mock_host_ack(host, second));
    mock_host_advance(host, 10 * NS_PER_MS);
    check_ack(second, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 1);
    ck_assert_uint_gt(mock_host_ack(host, second)->started, mock_host_ack(host, first)->finished);
    finish();
}

TEST(test_execute_slow_quit_drops_what_waits) {
    uint64_t quit, late;

    start(options("vms=1", "execute=slow", "execute_ms=30"));
    quit = power(0, VMIBUS_POWER_OPERATION_QUIT);
    late = power(0, VMIBUS_POWER_OPERATION_RESET);
    mock_host_advance(host, 1000 * NS_PER_MS);
    check_ack(quit, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 1);
    ck_assert_ptr_null(mock_host_ack(host, late));
    finish();
}

TEST(test_execute_hang_answers_a_cancel_only) {
    uint64_t first, second, third;

    start(options("execute=hang"));
    first = key(0, KEY_A, 1);
    second = run(0, VMIBUS_VM_OPERATION_PAUSE);
    third = run(0, VMIBUS_VM_OPERATION_PAUSE);
    mock_host_advance(host, 3600000 * NS_PER_MS);
    ck_assert_uint_eq(mock_host_count(host, MOCK_COMPLETE), 0);
    mock_host_cancel(host, vm_of(0), second);
    mock_host_cancel(host, vm_of(0), second);
    mock_host_cancel(host, vm_of(0), 12345);
    check_ack(second, VMIBUS_ERROR_EXPIRED, VMIBUS_REASON_CANCELLED, 0);
    ck_assert_ptr_null(mock_host_ack(host, first));
    mock_host_cancel(host, vm_of(0), third);
    check_ack(third, VMIBUS_ERROR_EXPIRED, VMIBUS_REASON_CANCELLED, 0);
    finish();
}

TEST(test_waiting_commands_are_bounded) {
    uint64_t id;
    unsigned i;

    start(options("execute=hang"));
    for (i = 0; i < 1024; i++)
        id = key(0, KEY_A, 1);
    ck_assert_uint_eq(mock_host_count(host, MOCK_COMPLETE), 0);
    id = key(0, KEY_A, 1);
    check_ack(id, VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_LIMIT_COMMANDS, 0);
    finish();
}

TEST(test_p05_input_that_waits_is_not_applied_after_a_release) {
    uint64_t waiting, pause;

    start(options("execute=slow", "execute_ms=30"));
    key(0, KEY_A, 1);
    mock_host_advance(host, 30 * NS_PER_MS);
    waiting = key(0, KEY_B, 1);
    pause = run(0, VMIBUS_VM_OPERATION_PAUSE);
    check_ack(release_input(0), VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 1);
    check_ack(waiting, VMIBUS_ERROR_EXPIRED, VMIBUS_REASON_CANCELLED, 0);
    mock_host_advance(host, 30 * NS_PER_MS);
    check_ack(pause, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 1);
    ck_assert_uint_eq(ring_header(0).held, 0);
    ck_assert_uint_eq(ring_header(0).count, 2);
    finish();
}

TEST(test_release_modes) {
    uint64_t id;

    start(options("release=slow", "execute_ms=10"));
    key(0, KEY_A, 1);
    id = release_input(0);
    ck_assert_uint_eq(ring_header(0).held, 1);
    mock_host_advance(host, 10 * NS_PER_MS);
    check_ack(id, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 1);
    finish();
    start(options("release=fail"));
    key(0, KEY_A, 1);
    check_ack(release_input(0), VMIBUS_ERROR_IO, VMIBUS_REASON_SENSOR_FAILED, 0);
    ck_assert_uint_eq(ring_header(0).held, 1);
    finish();
    start(options("release=hang", "execute=slow"));
    id = release_input(0);
    key(0, KEY_A, 1);
    mock_host_advance(host, 1000 * NS_PER_MS);
    ck_assert_ptr_null(mock_host_ack(host, id));
    ck_assert_uint_eq(ring_header(0).held, 1);
    finish();
}

TEST(test_unknown_kind_is_unsupported) {
    struct vmibus_frame frame = {.header = {.kind = VMIBUS_KIND_CMD_MEMWRITE}};

    start(NULL);
    check_ack(mock_host_execute(host, vm_of(0), &frame, NULL, 0), VMIBUS_ERROR_UNSUPPORTED,
              VMIBUS_REASON_BAD_KIND, 0);
    finish();
}

TEST(test_failing_host_is_survived) {
    static const enum mock_call calls[] = {MOCK_LAYOUT, MOCK_ROOT, MOCK_PUBLISH, MOCK_END_EPOCH};
    size_t i;

    for (i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        host = mock_host_new(&vmibus_stub_sensor);
        mock_host_own_time(host);
        mock_host_behaviour(host)->results[calls[i]] = -ENOMEM;
        ck_assert_int_eq(mock_host_start(host, NULL), 0);
        mock_host_settle(host);
        power(0, VMIBUS_POWER_OPERATION_RESET);
        mock_host_settle(host);
        mock_host_behaviour(host)->results[calls[i]] = 0;
        power(0, VMIBUS_POWER_OPERATION_RESET);
        mock_host_settle(host);
        check_root(0, 2);
        finish();
    }
}

/* --- end -------------------------------------------------------------------------------------- */

TEST(test_stop_in_the_middle_leaves_nothing) {
    unsigned i;

    /* The harness compares descriptors, the mock timers and sources, sanitizers memory. */
    for (i = 0; i < 20; i++) {
        host = mock_host_new(&vmibus_stub_sensor);
        ck_assert_int_eq(
            mock_host_start(host, options("vms=16", "respawn_ms=1000", "execute=slow")), 0);
        power(3, VMIBUS_POWER_OPERATION_RESET);
        key(3, KEY_A, 1);
        if (i % 2)
            mock_host_iterate(host, 0);
        finish();
    }
}

HARNESS_SUITE("stub", HARNESS_QUICK)
