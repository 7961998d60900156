/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which kernel root the QEMU sensor proposes, and when: against a monitor and a host that the test plays, and RAM that it
 * fills.  Time is the test's.
 */
#include "harness.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fake_qemu.h"
#include "guest_lib/fake_guest.h"
#include "mock_host.h"
#include "qemu/qemu.h"
#include "machine/root.h"

#define NS_PER_MS UINT64_C(1000000)
#define RAM_LEN (UINT64_C(16) << 20)
#define TABLES UINT64_C(0x200000)
#define KERNEL_GPA UINT64_C(0x400000)
#define NOTE_GPA UINT64_C(0x800000)
#define KERNEL_GVA UINT64_C(0xffffffffc0000000) /* above the image of a Linux */
#define IDT_GVA UINT64_C(0xfffffe0000000000)
#define DIRECT_MAP UINT64_C(0xffff888000000000)

static struct fake_qemu *fake;
static struct mock_host *host;
static struct vmibus_sensor_endpoint *vm;
static struct fake_guest guest;
static struct fake_kernel kernel;
static int ram_fd;
static size_t given; /* attachments that were answered */
static void (*before_ram)(void); /* called before RAM is given; NULL: nothing happens */

/* --- RAM -------------------------------------------------------------------------------------- */

static void map(uint64_t gva, uint64_t gpa, uint64_t flags) {
    fake_guest_map(&guest, kernel.root, gva, gpa, 1, flags);
}

/* A system with tables and no note. */
static void make_system(void) {
    ram_fd = memfd_create("ram", MFD_CLOEXEC);
    ck_assert_int_eq(ftruncate(ram_fd, RAM_LEN), 0);
    guest = (struct fake_guest){.len = RAM_LEN, .next_table = TABLES};
    guest.memory = mmap(NULL, RAM_LEN, PROT_READ | PROT_WRITE, MAP_SHARED, ram_fd, 0);
    ck_assert_ptr_ne(guest.memory, MAP_FAILED);
    kernel = (struct fake_kernel){.levels = 4};
    fake_guest_boot(&guest, &kernel);
    map(KERNEL_GVA, KERNEL_GPA, 0);
    map(IDT_GVA, KERNEL_GPA + FAKE_PAGE, ENTRY_NX);
}

/* It turns out to be a Linux, which has its note. */
static void write_note(void) {
    uint64_t pointer = DIRECT_MAP + NOTE_GPA;

    map(DIRECT_MAP + NOTE_GPA, NOTE_GPA, ENTRY_WRITABLE | ENTRY_NX);
    map(FAKE_IMAGE + 0x1000000, KERNEL_GPA + 2 * FAKE_PAGE, ENTRY_WRITABLE | ENTRY_NX);
    memcpy(guest.memory + KERNEL_GPA + 2 * FAKE_PAGE, &pointer, sizeof(pointer));
    fake_guest_note(&guest, NOTE_GPA, &kernel);
}

static void give_ram(void) {
    const struct vmibus_ram_range range = {.len = RAM_LEN};
    const struct vmibus_sensor_ram ram = {
        .epoch = vm->epoch, .ranges = &range, .n_ranges = 1, .fds = &ram_fd, .n_fds = 1, .pagemap_fd = -1};

    given++;
    if (before_ram)
        before_ram();
    mock_host_answer_attach(host, vm, &ram, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
}

/* --- beginning, end, time --------------------------------------------------------------------- */

static void settle(void) {
    bool busy;

    do {
        mock_host_settle(host);
        busy = fake_serve(fake);
        while (vm && given < mock_host_count(host, MOCK_ATTACH)) {
            give_ram();
            busy = true;
        }
    } while (busy);
}

static void pass(unsigned int seconds) {
    for (unsigned int i = 0; i < 20 * seconds; i++) {
        mock_host_advance(host, 50 * NS_PER_MS);
        settle();
    }
}

static void begin(void) {
    fake = fake_new();
    make_system();
    given = 0;
    before_ram = NULL;
}

static void start(const char *registers) {
    char one[128];
    const char *const options[] = {one, NULL};

    fake->registers = registers;
    snprintf(one, sizeof(one), "monitor.one=%s", fake->path);
    host = mock_host_new(&vmibus_qemu_sensor);
    mock_host_own_time(host);
    ck_assert_int_eq(mock_host_start(host, options), 0);
    for (unsigned int i = 0; !vm && i < 10; i++) {
        mock_host_advance(host, 10 * NS_PER_MS);
        settle();
        vm = mock_host_endpoint(host, "one");
    }
    ck_assert_ptr_nonnull(vm);
    mock_host_demand(host, vm, VMIBUS_KIND_BIT(VMIBUS_KIND_MEMCTX));
    settle();
}

static void end(void) {
    host = mock_host_free(host);
    fake = fake_free(fake);
    vm = NULL;
    munmap(guest.memory, RAM_LEN);
    close(ram_fd);
}

#define FIXTURE .setup = begin, .teardown = end

/* What was proposed last, NULL if nothing was. */
static const struct vmibus_mem_root *proposed(void) {
    const struct mock_record *record = mock_host_last(host, MOCK_ROOT);

    return record && record->root.cr3 ? &record->root : NULL;
}

static void assert_sampled(uint64_t cr3, uint64_t probe) {
    const struct vmibus_mem_root *root = proposed();

    ck_assert_ptr_nonnull(root);
    ck_assert_uint_eq(root->confidence, VMIBUS_CONFIDENCE_SAMPLED);
    ck_assert_uint_eq(root->cr3, cr3);
    ck_assert_uint_eq(root->vcpu_cr3, cr3);
    ck_assert_uint_eq(root->probe_gva, probe);
    ck_assert_uint_eq(root->levels, 4);
    ck_assert_uint_eq(root->note, 0);
    ck_assert_uint_eq(root->epoch, vm->epoch);
}

#define LONG_MODE(cr3, state)                                                                                                   \
    "CPU#0\r\n" state "\r\nIDT=     fffffe0000000000 00000fff\r\nCR0=80050033 CR2=0 CR3=" cr3                                  \
    " CR4=00350ef0\r\nEFER=0000000000000d01\r\n"
#define IN_KERNEL "RIP=ffffffffc0000123 RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=1"
#define IN_IMAGE "RIP=ffffffff81000123 RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=1"
#define IN_PROCESS "RIP=0000000000400123 RFL=00000246 [---Z-P-] CPL=3 II=0 A20=1 SMM=0 HLT=0"
#define IN_SMM "RIP=ffffffffc0000123 RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=1 HLT=0"
#define RIP UINT64_C(0xffffffffc0000123)

/* --- systems without a note ------------------------------------------------------------------- */

TEST(test_p12_system_without_a_note_is_sampled_after_a_while, FIXTURE) {
    start(LONG_MODE("0000000000200000", IN_KERNEL));
    pass(14);
    ck_assert_ptr_null(proposed());
    pass(6);
    assert_sampled(TABLES, RIP);
    ck_assert_uint_eq(mock_host_count(host, MOCK_END_EPOCH), 0);
    /* It stays, and is watched. */
    mock_host_clear(host);
    given = 0;
    pass(20);
    ck_assert_uint_ge(mock_host_count(host, MOCK_ATTACH), 15);
    ck_assert_uint_eq(mock_host_count(host, MOCK_ATTACH), mock_host_count(host, MOCK_DETACH));
    ck_assert_uint_eq(mock_host_count(host, MOCK_END_EPOCH), 0);
    ck_assert_uint_eq(mock_host_count(host, MOCK_ROOT), 0);
}

/* Where Linux runs, a Linux is expected, and waited for. */
TEST(test_p12_system_where_linux_has_its_image_waits_longer, FIXTURE) {
    map(FAKE_IMAGE + 0x1000000, KERNEL_GPA, 0);
    start(LONG_MODE("0000000000200000", IN_IMAGE));
    pass(58);
    ck_assert_ptr_null(proposed());
    pass(8);
    assert_sampled(TABLES, UINT64_C(0xffffffff81000123));
}

TEST(test_vcpu_in_a_process_is_sampled_by_its_interrupt_table, FIXTURE) {
    start(LONG_MODE("0000000000200000", IN_PROCESS));
    pass(20);
    assert_sampled(TABLES, IDT_GVA);
}

static uint64_t other_process;

/* Another process runs each time: they share the system's half. */
TEST(test_system_with_a_table_for_each_process_is_sampled, FIXTURE) {
    static const char *const states[] = {LONG_MODE("0000000000200000", IN_KERNEL), LONG_MODE("0000000000300000", IN_PROCESS)};

    guest.next_table = 0x300000;
    other_process = fake_guest_process(&guest, &kernel);
    ck_assert_uint_eq(other_process, 0x300000);
    start(states[0]);
    for (unsigned int i = 0; i < 20; i++) {
        pass(1);
        fake->registers = states[i & 1];
    }
    ck_assert_ptr_nonnull(proposed());
    ck_assert_uint_eq(proposed()->probe_gva, RIP);
    ck_assert(proposed()->cr3 == TABLES || proposed()->cr3 == other_process);
}

TEST(test_p12_what_is_no_systems_own_is_not_sampled, FIXTURE, .iterations = 4) {
    static const char *const states[] = {
        LONG_MODE("0000000000200000", IN_KERNEL),  /* open to processes, see below */
        LONG_MODE("0000000000200000", IN_SMM),     /* the tables of the firmware's other half */
        LONG_MODE("0000000000700000", IN_KERNEL),  /* no tables at all */
        LONG_MODE("0000000000200000", IN_PROCESS), /* whose interrupt table is not mapped */
    };

    if (_i == 0)
        map(KERNEL_GVA, KERNEL_GPA, ENTRY_USER);
    if (_i == 3)
        *fake_guest_entry(&guest, kernel.root, IDT_GVA, 1) = 0;
    start(states[_i]);
    pass(90);
    ck_assert_ptr_null(proposed());
}

static void move_kernel(void) {
    map(KERNEL_GVA, KERNEL_GPA + given % 2 * FAKE_PAGE, 0);
}

/* Firmware on its way from one stage to the next. */
TEST(test_p12_samples_that_do_not_agree_are_no_root, FIXTURE) {
    before_ram = move_kernel;
    start(LONG_MODE("0000000000200000", IN_KERNEL));
    pass(60);
    ck_assert_ptr_null(proposed());
    before_ram = NULL;
    pass(25);
    ck_assert_ptr_nonnull(proposed());
}

/* --- what comes after ------------------------------------------------------------------------- */

TEST(test_p06_linux_that_is_found_later_ends_the_epoch, FIXTURE) {
    start(LONG_MODE("0000000000200000", IN_KERNEL));
    pass(20);
    assert_sampled(TABLES, RIP);
    write_note();
    pass(5);
    ck_assert_uint_eq(mock_host_count(host, MOCK_END_EPOCH), 1);
    ck_assert_int_eq(mock_host_last(host, MOCK_END_EPOCH)->reason, VMIBUS_REASON_RELOADED);
    ck_assert_uint_eq(proposed()->note, NOTE_GPA);
    ck_assert_uint_eq(proposed()->confidence, VMIBUS_CONFIDENCE_PROVEN);
    ck_assert_uint_eq(proposed()->epoch, vm->epoch);
}

TEST(test_p06_sampled_root_that_nobody_uses_ends_the_epoch, FIXTURE) {
    start(LONG_MODE("0000000000200000", IN_KERNEL));
    pass(20);
    assert_sampled(TABLES, RIP);
    map(KERNEL_GVA, KERNEL_GPA + FAKE_PAGE, 0);
    pass(8);
    ck_assert_uint_eq(mock_host_count(host, MOCK_END_EPOCH), 1);
    ck_assert_int_eq(mock_host_last(host, MOCK_END_EPOCH)->reason, VMIBUS_REASON_RELOADED);
    pass(25);
    ck_assert_uint_eq(mock_host_count(host, MOCK_END_EPOCH), 1);
    assert_sampled(TABLES, RIP);
}

TEST(test_linux_is_not_sampled, FIXTURE) {
    write_note();
    start(LONG_MODE("0000000000200000", IN_KERNEL));
    pass(60);
    ck_assert_uint_eq(proposed()->note, NOTE_GPA);
    ck_assert_uint_eq(mock_host_count(host, MOCK_END_EPOCH), 0);
}

/* More pages that say that they are notes than are looked at in one turn of the worker's. */
TEST(test_p12_a_note_behind_many_false_ones_is_found, FIXTURE) {
    const uint64_t last = RAM_LEN - FAKE_PAGE;

    for (uint64_t gpa = NOTE_GPA; gpa < last; gpa += FAKE_PAGE)
        memcpy(guest.memory + gpa, "OSRELEASE=", sizeof("OSRELEASE="));
    fake_guest_note(&guest, last, &kernel);
    start(LONG_MODE("0000000000200000", IN_KERNEL));
    pass(5);
    ck_assert_ptr_nonnull(proposed());
    ck_assert_uint_eq(proposed()->note, last);
    ck_assert_uint_eq(proposed()->confidence, VMIBUS_CONFIDENCE_PROVEN);
    ck_assert_uint_eq(mock_host_count(host, MOCK_ATTACH), mock_host_count(host, MOCK_DETACH));
}

HARNESS_SUITE("qemu_root", HARNESS_QUICK)
