/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libvmibus-guest against real Linux guests of both paging depths: what it finds in their RAM, by
 * its own reading alone, must be what QEMU and the guest itself say.
 */
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <vmibus/guest.h>

#include "bed.h"

#define BOOT_MS 240000
#define ANSWER_MS 120000
#define RAM_LEN (UINT64_C(512) << 20)

#define CHECK_BED(bed, call) ck_assert_msg((call) == 0, "%s: %s", #call, bed_error(bed))

static struct bed *boot_options(const struct bed_options *options, const char *wait_for) {
    const char *reason;
    struct bed *bed;
    int r;

    if (!bed_available(false, &reason))
        test_skip("%s", reason);
    r = bed_start(&bed, options);
    ck_assert_msg(r == 0, "bed_start: %s", bed_error(NULL));
    if (wait_for)
        CHECK_BED(bed, bed_wait_serial(bed, wait_for, (int)harness_scale(BOOT_MS), NULL));
    return bed;
}

static struct bed *boot(const char *cpu, const char *wait_for) {
    const struct bed_options options = {.cpu = cpu};

    return boot_options(&options, wait_for);
}

static int open_ram_of(const struct bed *bed, uint64_t ram_len) {
    int fd = bed_open_ram(bed, ram_len);

    ck_assert_msg(fd >= 0, "QEMU has no memfd of the guest's size");
    return fd;
}

static int open_ram(const struct bed *bed) {
    return open_ram_of(bed, RAM_LEN);
}

/* The machine is a q35: what the guest calls 0 is the file's 0, and what does not fit below 2 GiB lies above 4. */
static struct vmibus_guest_ram *make_view_of(int fd, uint64_t ram_len) {
    const uint64_t low = UINT64_C(2) << 30;
    const struct vmibus_ram_range ranges[] = {
        {.len = ram_len < low ? ram_len : low},
        {.gpa = 2 * low, .len = ram_len - low, .offset = low},
    };
    struct vmibus_guest_ram *ram;

    ck_assert_int_eq(vmibus_guest_ram_new(&ram, ranges, ram_len > low ? 2 : 1, &fd, 1), 0);
    return ram;
}

static struct vmibus_guest_ram *make_view(int fd) {
    return make_view_of(fd, RAM_LEN);
}

/* A register of the vCPU, as QEMU tells it. */
static uint64_t ask_register(struct bed *bed, const char *name) {
    uint64_t value;
    char *text, *at;

    CHECK_BED(bed, bed_hmp(bed, "info registers", &text));
    at = strstr(text, name);
    ck_assert_msg(at && sscanf(at + strlen(name), "%" SCNx64, &value) == 1, "no %s in: %s", name,
                  text);
    free(text);
    return value;
}

/* Where the vCPU's address leads, as QEMU tells it; false if nowhere. */
static bool ask_gva2gpa(struct bed *bed, uint64_t gva, uint64_t *gpa) {
    char command[64], *text;
    bool mapped;

    snprintf(command, sizeof(command), "gva2gpa 0x%" PRIx64, gva);
    CHECK_BED(bed, bed_hmp(bed, command, &text));
    mapped = sscanf(text, "gpa: %" SCNx64, gpa) == 1;
    free(text);
    return mapped;
}

/* The address of a kernel symbol, as the guest tells it. */
static uint64_t ask_symbol(struct bed *bed, const char *name) {
    char command[64], *reply;
    uint64_t address = 0;

    snprintf(command, sizeof(command), "kallsyms %s", name);
    CHECK_BED(bed, bed_ask(bed, command, (int)harness_scale(ANSWER_MS), &reply));
    ck_assert_msg(bed_field(reply, "addr", &address) == 0, "%s", reply);
    free(reply);
    return address;
}

/* Our walk and QEMU's must agree on every address that the vCPU can see. */
static void compare_walks(struct bed *bed, struct vmibus_guest_ram *ram,
                          struct vmibus_guest_root vcpu, const uint64_t *addresses, size_t n) {
    struct vmibus_guest_reader reader = vmibus_guest_ram_reader(ram);

    for (size_t i = 0; i < n; i++) {
        struct vmibus_guest_translation translation;
        uint64_t gpa = 0;
        int r = vmibus_guest_translate(&reader, &vcpu, addresses[i], &translation);
        bool mapped = ask_gva2gpa(bed, addresses[i], &gpa);

        ck_assert_msg((r == 0) == mapped, "0x%" PRIx64 ": we say %d, QEMU says %d", addresses[i], r,
                      mapped);
        if (r != 0)
            continue;
        /* QEMU may answer from a large mapping or a small one: the octet is the same. */
        ck_assert_msg(translation.gpa == gpa, "0x%" PRIx64 ": 0x%" PRIx64 " and 0x%" PRIx64,
                      addresses[i], translation.gpa, gpa);
    }
}

static void check_guest(const char *cpu, uint8_t levels) {
    struct bed *bed = boot(cpu, "READY");
    uint64_t banner = ask_symbol(bed, "linux_banner"), text = ask_symbol(bed, "_stext"), cr3;
    uint64_t swapper = ask_symbol(bed, "init_top_pgt"), gva = 0, pid = 0;
    struct vmibus_guest_translation translation;
    struct vmibus_guest_kernel kernel;
    struct vmibus_guest_reader reader;
    struct vmibus_guest_hints hints = {.vcpu_cr3 = &cr3, .n_vcpu_cr3 = 1};
    struct stat before, after;
    char *fact, octets[128];
    int fd = open_ram(bed);
    struct vmibus_guest_ram *ram = make_view(fd);

    CHECK_BED(bed, bed_hmp(bed, "stop", NULL));
    CHECK_BED(bed, bed_last_fact(bed, "VAR", "comm=vmibus-agent", &fact));
    ck_assert_int_eq(bed_field(fact, "gva", &gva), 0);
    ck_assert_int_eq(bed_field(fact, "pid", &pid), 0);
    free(fact);
    cr3 = ask_register(bed, "CR3=");
    ck_assert_int_eq(fstat(fd, &before), 0);

    /* The root. */
    ck_assert_int_eq(vmibus_guest_find_linux(ram, NULL, &kernel), 0);
    ck_assert_uint_eq(kernel.confidence, VMIBUS_CONFIDENCE_NOTED);
    ck_assert_int_eq(vmibus_guest_find_linux(ram, &hints, &kernel), 0);
    ck_assert_uint_eq(kernel.confidence, VMIBUS_CONFIDENCE_PROVEN);
    ck_assert_uint_eq(kernel.root.levels, levels);
    ck_assert_uint_eq(kernel.note.swapper_pg_dir, swapper);
    ck_assert_uint_eq(kernel.note.kernel_offset, text - UINT64_C(0xffffffff81000000));

    /* What it leads to. */
    reader = vmibus_guest_ram_reader(ram);
    ck_assert_int_eq(vmibus_guest_read(&reader, &kernel.root, banner, octets, sizeof(octets), NULL,
                                       NULL),
                     0);
    octets[sizeof(octets) - 1] = '\0';
    ck_assert_msg(strncmp(octets, "Linux version ", 14) == 0 &&
                      strncmp(octets + 14, kernel.note.release, strlen(kernel.note.release)) == 0,
                  "the banner reads: %s", octets);

    /* The vCPU's own tables, as QEMU walks them. */
    {
        uint64_t rsp = ask_register(bed, "RSP="), rip = ask_register(bed, "RIP=");
        uint64_t addresses[] = {banner, text, swapper, gva, rsp, rip, 0, gva + 0x123456789000,
                                UINT64_C(0xffffffffff600000), UINT64_C(0xfffffe0000000000),
                                UINT64_C(0xffffffff80000000), text + 0x200000, text + 0xabcdef};

        compare_walks(bed, ram, (struct vmibus_guest_root){.cr3 = cr3, .levels = levels}, addresses,
                      sizeof(addresses) / sizeof(addresses[0]));
    }
    ck_assert_int_eq(vmibus_guest_translate(&reader, &kernel.root, gva, &translation),
                     VMIBUS_GUEST_NOT_PRESENT); /* a process's address, in the kernel's own table */

    /* Nothing of this took memory of the host. */
    ck_assert_int_eq(fstat(fd, &after), 0);
    ck_assert_int_eq(before.st_blocks, after.st_blocks);
    vmibus_guest_ram_free(ram);
    close(fd);
    bed_stop(bed);
}

TEST(test_root_of_a_five_level_guest, .timeout = 600) {
    check_guest("max", 5);
}

TEST(test_root_of_a_four_level_guest, .timeout = 600, .full = true) {
    check_guest("qemu64", 4);
}

/* --- what finding costs ----------------------------------------------------------------------- */

#define VCPUS 8

/* What the vCPUs' registers say, as QEMU tells it. */
struct sample {
    uint64_t cr3[VCPUS];
    uint8_t levels[VCPUS];
    struct vmibus_guest_hints hints;
};

static void sample_vcpus(struct bed *bed, struct sample *sample) {
    char *text, *at;

    *sample = (struct sample){.hints = {.vcpu_cr3 = sample->cr3, .vcpu_levels = sample->levels}};
    CHECK_BED(bed, bed_hmp(bed, "info registers -a", &text));
    for (at = text; (at = strstr(at, "CR3=")); at += 4) {
        uint64_t cr4;

        ck_assert_uint_lt(sample->hints.n_vcpu_cr3, VCPUS);
        ck_assert_int_eq(sscanf(at, "CR3=%" SCNx64 " CR4=%" SCNx64,
                                &sample->cr3[sample->hints.n_vcpu_cr3], &cr4),
                         2);
        sample->levels[sample->hints.n_vcpu_cr3++] = cr4 & 0x1000 ? 5 : 4;
    }
    free(text);
}

/* Looks again and again while the guest runs: in its kernel, in its processes, idle. */
static void check_cost(struct bed *bed, struct vmibus_guest_ram *ram, size_t n_vcpus,
                       uint8_t levels) {
    uint64_t swapper = ask_symbol(bed, "init_top_pgt"), most = 0, note = 0;

    for (int i = 0; i < 20; i++) {
        struct vmibus_guest_kernel kernel;
        struct sample sample;

        CHECK_BED(bed, bed_serial_send(bed, "kallsyms linux_banner"));
        sample_vcpus(bed, &sample);
        ck_assert_uint_eq(sample.hints.n_vcpu_cr3, n_vcpus);
        ck_assert_int_eq(vmibus_guest_find_linux(ram, &sample.hints, &kernel), 0);
        ck_assert_uint_eq(kernel.confidence, VMIBUS_CONFIDENCE_PROVEN);
        ck_assert_uint_eq(kernel.root.levels, levels);
        ck_assert_uint_eq(kernel.note.swapper_pg_dir, swapper);
        most = kernel.octets > most ? kernel.octets : most;
        note = kernel.note.gpa;
        ck_assert_uint_eq(kernel.swept, 0);
        sample.hints.vcpu_levels = NULL;
        ck_assert_int_eq(vmibus_guest_find_linux(ram, &sample.hints, &kernel), 0);
        ck_assert_uint_eq(kernel.swept, 0);
        most = kernel.octets > most ? kernel.octets : most;
    }
    printf("%" PRIu64 " KiB read at most; the note lies at 0x%" PRIx64 "\n", most >> 10, note);
    ck_assert_uint_lt(most, UINT64_C(40) << 20); /* 8 of Debian's kernel */
}

static const struct shape {
    struct bed_options options;
    uint64_t ram_len;
    uint8_t n_vcpus, levels;
} shapes[] = {
    {{.cpu = "max"}, RAM_LEN, 1, 5},
    {{.cpu = "qemu64", .append = "pti=on"}, RAM_LEN, 1, 4},
    {{.cpu = "max", .append = "pti=on", .smp = "4", .memory = "5G"}, UINT64_C(5) << 30, 4, 5},
    {{.cpu = "qemu64", .append = "pti=off nokaslr"}, RAM_LEN, 1, 4},
    {{.cpu = "max", .append = "pti=on nopcid no5lvl", .smp = "4"}, RAM_LEN, 4, 4},
    {{.cpu = "qemu64", .append = "pti=off", .memory = "5G"}, UINT64_C(5) << 30, 1, 4},
};

TEST(test_cost_of_finding_does_not_depend_on_ram, .timeout = 900,
     .iterations = sizeof(shapes) / sizeof(shapes[0])) {
    const struct shape *shape = &shapes[_i];
    struct bed *bed = boot_options(&shape->options, "READY");
    int fd = open_ram_of(bed, shape->ram_len);
    struct vmibus_guest_ram *ram = make_view_of(fd, shape->ram_len);

    check_cost(bed, ram, shape->n_vcpus, shape->levels);
    vmibus_guest_ram_free(ram);
    close(fd);
    bed_stop(bed);
}

static bool is_note_of(struct vmibus_guest_ram *ram, uint64_t gpa, uint64_t swapper) {
    char text[VMIBUS_GUEST_NOTE_MAX];
    struct vmibus_guest_note note;

    return vmibus_guest_ram_read(ram, gpa, text, sizeof(text)) == 0 &&
           vmibus_guest_note_parse(text, sizeof(text), &note) == 0 &&
           note.swapper_pg_dir == swapper;
}

/* A kernel that was booted by kexec leaves everything of the one before in RAM. */
TEST(test_p12_live_kernel_after_kexec_is_found, .timeout = 900, .iterations = 2) {
    const struct bed_options options = {.cpu = _i ? "max" : "qemu64", .boot_files = true};
    struct bed *bed = boot_options(&options, "READY");
    int fd = open_ram(bed);
    struct vmibus_guest_ram *ram = make_view(fd);
    struct vmibus_guest_kernel before, after;
    struct sample sample;

    sample_vcpus(bed, &sample);
    ck_assert_int_eq(vmibus_guest_find_linux(ram, &sample.hints, &before), 0);
    CHECK_BED(bed, bed_ask(bed, "kexec /boot/kernel /boot/initrd", (int)harness_scale(ANSWER_MS), NULL));
    CHECK_BED(bed, bed_wait_serial(bed, "READY", (int)harness_scale(BOOT_MS), NULL));
    sample_vcpus(bed, &sample);
    ck_assert_int_eq(vmibus_guest_find_linux(ram, &sample.hints, &after), 0);
    ck_assert_uint_eq(after.confidence, VMIBUS_CONFIDENCE_PROVEN);
    ck_assert_uint_eq(after.swept, 0);
    ck_assert_uint_eq(after.note.swapper_pg_dir, ask_symbol(bed, "init_top_pgt"));
    ck_assert_uint_ne(after.note.swapper_pg_dir, before.note.swapper_pg_dir);
    if (is_note_of(ram, before.note.gpa, before.note.swapper_pg_dir)) {
        /* Both are there. Without a vCPU nobody can tell, and nobody guesses, as long as the old tables are whole. */
        int r = vmibus_guest_find_linux(ram, NULL, &before);

        ck_assert(r == VMIBUS_GUEST_UNPROVEN || before.root.cr3 == after.root.cr3);
        printf("the old note is still there: without a vCPU, %d\n", r);
    }
    vmibus_guest_ram_free(ram);
    close(fd);
    bed_stop(bed);
}

/* From reset to READY, at every moment: no root, an unproven one, or the right one. */
TEST(test_p12_stale_kernel_is_never_found_after_a_reset, .timeout = 900) {
    struct bed *bed = boot("qemu64", "READY");
    int fd = open_ram(bed), r;
    struct vmibus_guest_ram *ram = make_view(fd);
    uint64_t cr3 = 0, old_swapper, swapper;
    struct vmibus_guest_hints hints = {.vcpu_cr3 = &cr3, .n_vcpu_cr3 = 1};
    struct vmibus_guest_kernel kernel;
    unsigned int stale = 0;

    CHECK_BED(bed, bed_hmp(bed, "stop", NULL));
    cr3 = ask_register(bed, "CR3=");
    ck_assert_int_eq(vmibus_guest_find_linux(ram, &hints, &kernel), 0);
    old_swapper = kernel.note.swapper_pg_dir;
    CHECK_BED(bed, bed_hmp(bed, "system_reset", NULL));
    do {
        /* Let it run a little, and look again. */
        CHECK_BED(bed, bed_hmp(bed, "cont", NULL));
        r = bed_wait_serial(bed, "READY", 100, NULL);
        ck_assert_msg(r == 0 || r == -ETIMEDOUT, "%s", bed_error(bed));
        CHECK_BED(bed, bed_hmp(bed, "stop", NULL));
        cr3 = ask_register(bed, "CR3=");
        if (vmibus_guest_find_linux(ram, &hints, &kernel) == VMIBUS_GUEST_UNPROVEN)
            stale++;
        else if (kernel.confidence)
            ck_assert_uint_ne(kernel.note.swapper_pg_dir, old_swapper);
    } while (r != 0);
    CHECK_BED(bed, bed_hmp(bed, "cont", NULL));
    swapper = ask_symbol(bed, "init_top_pgt");
    ck_assert_uint_ne(swapper, old_swapper); /* KASLR: else this would have shown nothing */
    ck_assert_uint_eq(kernel.note.swapper_pg_dir, swapper);
    ck_assert_uint_eq(kernel.confidence, VMIBUS_CONFIDENCE_PROVEN);
    ck_assert_uint_gt(stale, 0); /* the old note was there to be believed */
    vmibus_guest_ram_free(ram);
    close(fd);
    bed_stop(bed);
}

HARNESS_SUITE("guest_root", HARNESS_QUICK)
