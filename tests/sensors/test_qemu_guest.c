/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The QEMU sensor against a real QEMU under TCG: what it says is compared with what the test's own
 * monitor and the guest's serial port say.
 */
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/input-event-codes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bed/bed.h"
#include "mock_host.h"
#include "qemu/qemu.h"

#define WAIT_MS 20000
#define BOOT_MS 120000
#define RANGES 64

static struct bed *bed;
static struct mock_host *host;
static struct vmibus_sensor_endpoint *vm;
static size_t attaches;                             /* asked for and not answered */
static struct vmibus_layout_range laid_out[RANGES]; /* the last proposal */
static size_t n_laid_out;

/* --- beginning and end ----------------------------------------------------------------------- */

static void need(bool firmware_only) {
    const char *reason;

    if (!bed_available(firmware_only, &reason))
        test_skip("%s", reason);
}

static bool has_endpoint(void *data) {
    (void)data;
    vm = mock_host_endpoint(host, "guest");

    return vm != NULL;
}

static void observe(void *data, const struct mock_record *record) {
    (void)data;
    attaches += record->call == MOCK_ATTACH;
    if (record->call == MOCK_LAYOUT) {
        n_laid_out = record->layout.n_ranges;
        ck_assert_uint_le(n_laid_out, RANGES);
        memcpy(laid_out, record->layout.ranges, n_laid_out * sizeof(*laid_out));
    }
}

static void start_sensor(const char *state_directory) {
    char monitor[300], state[300];
    const char *options[] = {monitor, state_directory ? state : NULL, NULL};

    snprintf(monitor, sizeof(monitor), "monitor.guest=%s", bed->qmp);
    if (state_directory)
        snprintf(state, sizeof(state), "state-directory=%s", state_directory);
    host = mock_host_new(&vmibus_qemu_sensor);
    mock_host_behaviour(host)->observe = observe;
    attaches = 0;
    ck_assert_int_eq(mock_host_start(host, options), 0);
    ck_assert(mock_host_wait(host, has_endpoint, NULL, WAIT_MS));
}

static void start(const struct bed_options *options) {
    need(options->firmware_only);
    if (bed_start(&bed, options) < 0)
        ck_abort_msg("%s", bed_error(NULL));
    start_sensor(NULL);
}

static void finish(void) {
    host = mock_host_free(host);
    bed = bed_stop(bed);
}

/* --- waiting --------------------------------------------------------------------------------- */

static void give_ram(void);

/* The test plays the authority while it waits: RAM that was asked for is given. */
struct wait {
    bool (*condition)(void *data);
    void *data;
};

static bool serve(void *data) {
    const struct wait *wait = data;

    for (; attaches; attaches--)
        give_ram();

    return wait->condition(wait->data);
}

static bool wait_for(bool (*condition)(void *data), void *data) {
    struct wait wait = {condition, data};

    return mock_host_wait(host, serve, &wait, WAIT_MS);
}

static bool never(void *data) {
    (void)data;

    return false;
}

static bool has_count(void *data) {
    const size_t *wanted = data;

    return mock_host_count(host, (enum mock_call)wanted[0]) >= wanted[1];
}

static void wait_count(enum mock_call call, size_t count) {
    size_t wanted[] = {call, count};

    ck_assert_msg(wait_for(has_count, wanted), "call %d was not made %zu times", call, count);
}

static bool is_not_busy(void *userdata) {
    (void)userdata;
    return !mock_host_last(host, MOCK_MEMORY_BUSY)->busy;
}

/* Lets the sensor run until the guest says something. */
static char *wait_serial(const char *prefix) {
    char *line = NULL;

    for (int ms = 0; ms < BOOT_MS; ms += 40) {
        if (bed_wait_serial(bed, prefix, 20, &line) == 0)
            return line;
        serve(&(struct wait){never, NULL});
        mock_host_iterate(host, 20);
    }
    ck_abort_msg("the guest did not say %s", prefix);
}

struct expected_lifecycle {
    enum vmibus_vm_state state;
    enum vmibus_lifecycle_cause cause;
    bool by_bus;
};

static bool has_lifecycle(void *data) {
    const struct expected_lifecycle *expected = data;

    for (size_t i = 0; i < mock_host_count(host, MOCK_PUBLISH); i++) {
        const struct vmibus_lifecycle *body =
            &mock_host_record(host, MOCK_PUBLISH, i)->frame.lifecycle;

        if (body->state == expected->state && body->cause == expected->cause &&
            body->flags == (expected->by_bus ? VMIBUS_LIFECYCLE_BY_BUS : 0))
            return true;
    }

    return false;
}

static void wait_lifecycle(enum vmibus_vm_state state, enum vmibus_lifecycle_cause cause,
                           bool by_bus) {
    struct expected_lifecycle expected = {state, cause, by_bus};

    ck_assert_msg(wait_for(has_lifecycle, &expected), "no LIFECYCLE %d %d %d", state, cause,
                  by_bus);
}

static bool has_ack(void *data) {
    return mock_host_ack(host, *(uint64_t *)data) != NULL;
}

static const struct vmibus_ack *wait_ack(uint64_t id) {
    ck_assert(wait_for(has_ack, &id));

    return mock_host_ack(host, id);
}

/* --- playing the authority ------------------------------------------------------------------- */

/*
 * Opens the file that is mapped at a host-virtual address of QEMU; returns the offset of the
 * address in it.
 */
static int open_mapped(uint64_t hva, uint64_t *offsetp) {
    char path[64], line[512];
    int fd = -1;
    FILE *maps;

    snprintf(path, sizeof(path), "/proc/%d/maps", bed->pid);
    maps = fopen(path, "re");
    ck_assert_ptr_nonnull(maps);
    while (fgets(line, sizeof(line), maps)) {
        uint64_t begin, end, offset;

        if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %*s %" SCNx64, &begin, &end, &offset) != 3 ||
            hva < begin || hva >= end)
            continue;
        snprintf(path, sizeof(path), "/proc/%d/map_files/%" PRIx64 "-%" PRIx64, bed->pid, begin,
                 end);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        *offsetp = hva - begin + offset;
        break;
    }
    fclose(maps);
    if (fd < 0)
        test_skip("%s cannot be opened: run as root", path);

    return fd;
}

static void give_ram(void) {
    struct vmibus_ram_range ranges[RANGES];
    int fds[RANGES];
    const struct vmibus_sensor_ram ram = {
        .epoch = vm->epoch,
        .ranges = ranges,
        .n_ranges = n_laid_out,
        .fds = fds,
        .n_fds = n_laid_out,
        .pagemap_fd = -1,
    };

    for (size_t i = 0; i < n_laid_out; i++) {
        ranges[i] = (struct vmibus_ram_range){
            .gpa = laid_out[i].gpa,
            .len = laid_out[i].len,
            .object = (uint16_t)i,
            .flags = laid_out[i].flags,
        };
        fds[i] = open_mapped(laid_out[i].location, &ranges[i].offset);
    }
    mock_host_answer_attach(host, vm, &ram, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
    for (size_t i = 0; i < n_laid_out; i++)
        close(fds[i]);
}

static bool has_root(void *data) {
    (void)data;

    return mock_host_count(host, MOCK_ROOT) && mock_host_last(host, MOCK_ROOT)->root.cr3;
}

static const struct vmibus_mem_root *wait_root(void) {
    ck_assert(wait_for(has_root, NULL));

    return &mock_host_last(host, MOCK_ROOT)->root;
}

/* --- layout ---------------------------------------------------------------------------------- */

static uint64_t oracle_hva(uint64_t gpa) {
    char command[64], *text;
    uint64_t hva = 0;
    const char *at;

    snprintf(command, sizeof(command), "gpa2hva 0x%" PRIx64, gpa);
    ck_assert_int_eq(bed_hmp(bed, command, &text), 0);
    at = strstr(text, ") is 0x");
    if (at)
        hva = strtoull(at + 5, NULL, 16);
    free(text);

    return hva;
}

/*
 * The layout, compared octet by octet at its edges and in its middle; returns the octets of RAM in
 * it.
 */
static uint64_t check_layout(const struct mock_layout *layout) {
    uint64_t total = 0;

    ck_assert_uint_eq(layout->pid, bed->pid);
    ck_assert_uint_ne(layout->start_time, 0);
    for (size_t i = 0; i < layout->n_ranges; i++) {
        const struct vmibus_layout_range *range = &layout->ranges[i];
        const uint64_t at[] = {0, range->len / 2, range->len - 1};

        for (size_t k = 0; k < 3; k++)
            ck_assert_uint_eq(oracle_hva(range->gpa + at[k]), range->location + at[k]);
        ck_assert_uint_eq(range->object, 0xffff);
        if (i)
            ck_assert_uint_ge(range->gpa, range[-1].gpa + range[-1].len);
        if (!(range->flags & VMIBUS_RANGE_ALIAS))
            total += range->len;
    }

    return total;
}

static const struct mock_layout *begin_layout(const struct bed_options *options) {
    start(options);
    /*
     * Stopped, so that the firmware does not change shadow RAM between the sensor's reading and the
     * oracle's.
     */
    ck_assert_int_eq(bed_qmp(bed, "stop", NULL, NULL), 0);
    wait_lifecycle(VMIBUS_VM_STATE_PAUSED, VMIBUS_LIFECYCLE_CAUSE_PAUSED, false);
    mock_host_clear(host);
    /* Once more from the beginning, now that nothing moves. */
    mock_host_stop(host);
    host = mock_host_free(host);
    start_sensor(NULL);
    wait_count(MOCK_LAYOUT, 1);

    return &mock_host_last(host, MOCK_LAYOUT)->layout;
}

TEST(test_p12_layout_of_one_backend, .timeout = 60) {
    const struct bed_options options = {.firmware_only = true, .memory = "512M"};
    uint64_t total = check_layout(begin_layout(&options));

    ck_assert_uint_le(total, UINT64_C(512) << 20);
    ck_assert_uint_ge(total, (UINT64_C(512) << 20) - (UINT64_C(1) << 20));
    finish();
}

TEST(test_p12_layout_of_two_backends_split_below_4g, .timeout = 60) {
    static const char *const extra[] = {
        "-object", "memory-backend-memfd,id=a,size=2304M,share=on",
        "-object", "memory-backend-memfd,id=b,size=2304M,share=on",
        "-numa",   "node,memdev=a,cpus=0",
        "-numa",   "node,memdev=b,cpus=1",
        NULL,
    };
    const struct bed_options options = {
        .firmware_only = true,
        .machine = "pc",
        .memory = "4608M",
        .smp = "2",
        .ram = BED_RAM_CUSTOM,
        .extra = extra,
    };
    const struct mock_layout *layout = begin_layout(&options);
    uint64_t total = check_layout(layout);
    bool above = false;

    ck_assert_uint_le(total, UINT64_C(4608) << 20);
    ck_assert_uint_ge(total, (UINT64_C(4608) << 20) - (UINT64_C(1) << 20));
    for (size_t i = 0; i < layout->n_ranges; i++)
        above |= layout->ranges[i].gpa == UINT64_C(1) << 32;
    ck_assert(above);
    finish();
}

TEST(test_p12_layout_of_private_ram, .timeout = 60) {
    const struct bed_options options = {
        .firmware_only = true, .machine = "pc", .memory = "256M", .ram = BED_RAM_PRIVATE};

    check_layout(begin_layout(&options));
    finish();
}

TEST(test_p12_memory_of_a_bar_is_not_ram, .timeout = 60) {
    static const char *const extra[] = {
        "-object", "memory-backend-memfd,id=shared,size=4M,share=on",
        "-device", "ivshmem-plain,memdev=shared",
        NULL,
    };
    const struct bed_options options = {.firmware_only = true, .memory = "256M", .extra = extra};
    char *text;

    start(&options);
    /* The firmware gives the BAR its place. */
    for (int i = 0; i < 500; i++) {
        bool placed;

        ck_assert_int_eq(bed_hmp(bed, "info mtree -f", &text), 0);
        placed = strstr(text, "ram): shared") != NULL;
        free(text);
        if (placed)
            break;
        mock_host_iterate(host, 10);
    }
    mock_host_stop(host);
    host = mock_host_free(host);
    start_sensor(NULL);
    wait_count(MOCK_LAYOUT, 1);
    ck_assert_uint_le(check_layout(&mock_host_last(host, MOCK_LAYOUT)->layout), UINT64_C(256)
                                                                                    << 20);
    finish();
}

TEST(test_hotplugged_dimm_is_found_by_its_event, .timeout = 180) {
    const struct bed_options options = {.memory = "512M,slots=2,maxmem=2G"};
    uint64_t before;

    start(&options);
    free(wait_serial("READY"));
    wait_root();
    before = vm->epoch;
    ck_assert_int_eq(bed_qmp(bed, "object-add",
                             "{\"qom-type\":\"memory-backend-memfd\",\"id\":\"m\",\"size\":"
                             "134217728,\"share\":true}",
                             NULL),
                     0);
    ck_assert_int_eq(
        bed_qmp(bed, "device_add", "{\"driver\":\"pc-dimm\",\"id\":\"d\",\"memdev\":\"m\"}", NULL),
        0);
    mock_host_clear(host);
    wait_count(MOCK_LAYOUT, 1);
    ck_assert_int_eq(mock_host_last(host, MOCK_END_EPOCH)->reason, VMIBUS_REASON_HOTPLUG);
    mock_host_settle(host);
    ck_assert_uint_ne(vm->epoch, before);
    check_layout(&mock_host_last(host, MOCK_LAYOUT)->layout);
    finish();
}

/* --- a booted guest -------------------------------------------------------------------------- */

static uint64_t command_vm(enum vmibus_vm_operation operation) {
    const struct vmibus_frame frame = {.header.kind = VMIBUS_KIND_CMD_VM,
                                       .cmd_vm.operation = (uint8_t)operation};

    return mock_host_execute(host, vm, &frame, NULL, 0);
}

static uint64_t command_power(enum vmibus_power_operation operation) {
    const struct vmibus_frame frame = {.header.kind = VMIBUS_KIND_CMD_POWER,
                                       .cmd_power.operation = (uint8_t)operation};

    return mock_host_execute(host, vm, &frame, NULL, 0);
}

static uint64_t command_input(const struct vmibus_input_event *events, uint16_t count) {
    struct vmibus_frame frame = {.header.kind = VMIBUS_KIND_CMD_INPUT, .cmd_input.count = count};

    if (count <= 6)
        memcpy(frame.cmd_input.events, events, count * sizeof(*events));

    return mock_host_execute(host, vm, &frame, count > 6 ? events : NULL,
                             count > 6 ? count * sizeof(*events) : 0);
}

static void boot(const struct bed_options *options) {
    start(options);
    free(wait_serial("READY"));
}

static char *oracle_status(void) {
    char *text;

    ck_assert_int_eq(bed_hmp(bed, "info status", &text), 0);

    return text;
}

static uint64_t oracle_gpa(uint64_t gva) {
    char command[64], *text;
    uint64_t gpa = 0;

    snprintf(command, sizeof(command), "gva2gpa 0x%" PRIx64, gva);
    ck_assert_int_eq(bed_hmp(bed, command, &text), 0);
    sscanf(text, "gpa: %" SCNx64, &gpa);
    free(text);

    return gpa;
}

/* The guest tells where the kernel's top page table is mapped, the oracle what is there. */
static void check_root(const struct bed_options *options, uint8_t levels) {
    const struct vmibus_mem_root *root;
    uint64_t gva;
    char *reply;

    boot(options);
    ck_assert_int_eq(bed_ask(bed, "kallsyms init_top_pgt", WAIT_MS, &reply), 0);
    ck_assert_int_eq(bed_field(strstr(reply, "KSYM"), "addr", &gva), 0);
    free(reply);
    root = wait_root();
    ck_assert_uint_eq(root->levels, levels);
    ck_assert_uint_eq(root->epoch, vm->epoch);
    ck_assert_uint_eq(root->probe_gva, gva);
    ck_assert_int_eq(bed_qmp(bed, "stop", NULL, NULL), 0);
    ck_assert_uint_eq(root->cr3, oracle_gpa(gva));
}

TEST(test_root_of_a_booted_guest_five_levels, .timeout = 180) {
    const struct bed_options options = {.cpu = "max"};

    check_root(&options, 5);
    finish();
}

TEST(test_root_of_a_booted_guest_four_levels, .timeout = 180) {
    const struct bed_options options = {.cpu = "qemu64"};

    check_root(&options, 4);
    finish();
}

TEST(test_p11_pause_and_resume, .timeout = 180) {
    const struct bed_options options = {0};
    char *status;
    uint64_t id;

    boot(&options);
    wait_root();
    mock_host_settle(host);
    mock_host_clear(host);

    id = command_vm(VMIBUS_VM_OPERATION_PAUSE);
    ck_assert_int_eq(wait_ack(id)->error, VMIBUS_ERROR_OK);
    wait_lifecycle(VMIBUS_VM_STATE_PAUSED, VMIBUS_LIFECYCLE_CAUSE_PAUSED, true);
    status = oracle_status();
    ck_assert_ptr_nonnull(strstr(status, "paused"));
    free(status);

    id = command_vm(VMIBUS_VM_OPERATION_RESUME);
    ck_assert_int_eq(wait_ack(id)->error, VMIBUS_ERROR_OK);
    wait_lifecycle(VMIBUS_VM_STATE_RUNNING, VMIBUS_LIFECYCLE_CAUSE_RESUMED, true);
    status = oracle_status();
    ck_assert_ptr_nonnull(strstr(status, "running"));
    free(status);
    /* Nothing else touched it, so nothing is doubted. */
    mock_host_settle(host);
    ck_assert_uint_eq(mock_host_count(host, MOCK_ATTACH), 0);

    /* Somebody else's pause and resume may have been a loadvm. */
    mock_host_clear(host);
    ck_assert_int_eq(bed_qmp(bed, "stop", NULL, NULL), 0);
    wait_lifecycle(VMIBUS_VM_STATE_PAUSED, VMIBUS_LIFECYCLE_CAUSE_PAUSED, false);
    ck_assert_int_eq(bed_qmp(bed, "cont", NULL, NULL), 0);
    wait_lifecycle(VMIBUS_VM_STATE_RUNNING, VMIBUS_LIFECYCLE_CAUSE_RESUMED, false);
    ck_assert(wait_for(has_root, NULL));
    ck_assert_uint_eq(mock_host_count(host, MOCK_END_EPOCH), 1);
    ck_assert_int_eq(mock_host_last(host, MOCK_END_EPOCH)->reason, VMIBUS_REASON_RELOADED);
    finish();
}

TEST(test_p11_pause_of_ours_does_not_survive_us, .timeout = 180) {
    const struct bed_options options = {.firmware_only = true};
    char *status;

    need(true);
    ck_assert_int_eq(bed_start(&bed, &options), 0);
    start_sensor(bed->directory);
    ck_assert_int_eq(wait_ack(command_vm(VMIBUS_VM_OPERATION_PAUSE))->error, VMIBUS_ERROR_OK);
    status = oracle_status();
    ck_assert_ptr_nonnull(strstr(status, "paused"));
    free(status);
    bed_drop_events(bed);
    mock_host_stop(host);
    ck_assert_int_eq(bed_wait_event(bed, "RESUME", WAIT_MS, NULL), 0);
    finish();
}

/*
 * The sensor is killed while its pause holds; the next one resumes the guest, unless it has run
 * meanwhile.
 */
/* Somebody else lets a paused guest run and stops it again, so often that its registers have moved: it may get no processor. */
static void run_by_somebody_else(void) {
    char *before, *after = NULL;
    bool moved = false;

    ck_assert_int_eq(bed_hmp(bed, "info registers -a", &before), 0);
    for (int i = 0; i < 100 && !moved; i++) {
        ck_assert_int_eq(bed_qmp(bed, "cont", NULL, NULL), 0);
        for (int j = 0; j < 100; j++)
            free(oracle_status());
        ck_assert_int_eq(bed_qmp(bed, "stop", NULL, NULL), 0);
        ck_assert_int_eq(bed_hmp(bed, "info registers -a", &after), 0);
        moved = strcmp(before, after) != 0;
        free(after);
    }
    free(before);
    ck_assert(moved);
}

static void crash_and_start_again(bool touched) {
    const struct bed_options options = {.firmware_only = true};
    char *status;
    pid_t child;
    int told[2];
    char c;

    need(true);
    ck_assert_int_eq(bed_start(&bed, &options), 0);
    ck_assert_int_eq(pipe2(told, O_CLOEXEC), 0);
    child = fork();
    if (child == 0) {
        start_sensor(bed->directory);
        wait_ack(command_vm(VMIBUS_VM_OPERATION_PAUSE));
        if (write(told[1], "x", 1) == 1)
            raise(SIGKILL);
        _exit(1);
    }
    close(told[1]);
    ck_assert_int_eq(read(told[0], &c, 1), 1);
    close(told[0]);
    waitpid(child, NULL, 0);

    if (touched)
        run_by_somebody_else();
    bed_drop_events(bed);
    start_sensor(bed->directory);
    if (touched) {
        wait_count(MOCK_LAYOUT, 1);
        status = oracle_status();
        ck_assert_ptr_nonnull(strstr(status, "paused"));
        free(status);
    } else {
        wait_lifecycle(VMIBUS_VM_STATE_RUNNING, VMIBUS_LIFECYCLE_CAUSE_RESUMED, true);
        ck_assert_int_eq(bed_wait_event(bed, "RESUME", WAIT_MS, NULL), 0);
    }
    finish();
}

TEST(test_p11_pause_of_ours_does_not_survive_a_crash, .timeout = 60) {
    crash_and_start_again(false);
}

TEST(test_p11_pause_of_somebody_else_survives_us, .timeout = 60) {
    crash_and_start_again(true);
}

TEST(test_p06_reset_is_told_once_and_ends_the_epoch, .timeout = 180) {
    const struct bed_options options = {0};
    size_t resets = 0;

    boot(&options);
    wait_root();
    mock_host_settle(host);
    mock_host_clear(host);
    ck_assert_int_eq(wait_ack(command_power(VMIBUS_POWER_OPERATION_RESET))->error, VMIBUS_ERROR_OK);
    wait_lifecycle(VMIBUS_VM_STATE_RUNNING, VMIBUS_LIFECYCLE_CAUSE_RESET, true);
    ck_assert_uint_eq(mock_host_count(host, MOCK_END_EPOCH), 1);
    ck_assert_int_eq(mock_host_last(host, MOCK_END_EPOCH)->reason, VMIBUS_REASON_RESET);
    wait_count(MOCK_LAYOUT, 1);
    for (size_t i = 0; i < mock_host_count(host, MOCK_PUBLISH); i++)
        resets += mock_host_record(host, MOCK_PUBLISH, i)->frame.lifecycle.cause ==
                  VMIBUS_LIFECYCLE_CAUSE_RESET;
    ck_assert_uint_eq(resets, 1);

    /* And the root comes again once the guest is up. */
    mock_host_clear(host);
    free(wait_serial("READY"));
    wait_root();
    finish();
}

TEST(test_migration_is_noticed, .timeout = 60) {
    const struct bed_options options = {.firmware_only = true, .memory = "256M"};

    start(&options);
    wait_count(MOCK_LAYOUT, 1);
    mock_host_settle(host);
    mock_host_clear(host);
    ck_assert_int_eq(bed_qmp(bed, "migrate", "{\"uri\":\"exec:cat >/dev/null\"}", NULL), 0);
    wait_count(MOCK_END_EPOCH, 1);
    ck_assert_int_eq(mock_host_last(host, MOCK_END_EPOCH)->reason, VMIBUS_REASON_MIGRATED);
    wait_count(MOCK_MEMORY_BUSY, 2);
    ck_assert(mock_host_record(host, MOCK_MEMORY_BUSY, 0)->busy);
    /* Once for the copying, once more for the stop, whose cause is asked for. */
    ck_assert_msg(wait_for(is_not_busy, NULL), "memory stays busy");
    /* It goes on here after all: a new epoch. */
    mock_host_clear(host);
    /* QEMU tells that the migration is complete a moment before it can go on. */
    for (int ms = 0; bed_qmp(bed, "cont", NULL, NULL) != 0; ms += 20) {
        ck_assert_int_lt(ms, WAIT_MS);
        poll(NULL, 0, 20);
    }
    wait_count(MOCK_LAYOUT, 1);
    finish();
}

TEST(test_exit_is_noticed, .timeout = 60) {
    const struct bed_options options = {.firmware_only = true};

    start(&options);
    wait_count(MOCK_LAYOUT, 1);
    mock_host_settle(host);
    ck_assert_int_eq(kill(bed->pid, SIGKILL), 0);
    wait_count(MOCK_WITHDRAW, 1);
    ck_assert_int_eq(mock_host_last(host, MOCK_WITHDRAW)->reason, VMIBUS_REASON_EXIT);
    finish();
}

TEST(test_quit_is_told_before_the_exit, .timeout = 60) {
    const struct bed_options options = {.firmware_only = true};

    start(&options);
    wait_count(MOCK_LAYOUT, 1);
    ck_assert_int_eq(wait_ack(command_power(VMIBUS_POWER_OPERATION_QUIT))->error, VMIBUS_ERROR_OK);
    wait_lifecycle(VMIBUS_VM_STATE_SHUTDOWN, VMIBUS_LIFECYCLE_CAUSE_SHUTDOWN, true);
    wait_count(MOCK_WITHDRAW, 1);
    finish();
}

/* --- input ----------------------------------------------------------------------------------- */

static void expect_evdev(uint16_t type, uint16_t code, int32_t value) {
    char fields[80];
    char *line = NULL;

    snprintf(fields, sizeof(fields), "type=%u code=%u value=%d", type, code, value);
    for (int ms = 0; ms < WAIT_MS; ms += 20) {
        if (bed_last_fact(bed, "EVDEV", fields, &line) == 0 ||
            bed_wait_fact(bed, "EVDEV", fields, 10, &line) == 0)
            break;
        mock_host_iterate(host, 10);
    }
    if (!line)
        ck_abort_msg("the guest did not get %s", fields);
    free(line);
}

TEST(test_key_arrives, .timeout = 180) {
    static const struct vmibus_input_event tap[] = {
        {1, KEY_LEFTSHIFT, 1}, {1, KEY_K, 1}, {1, KEY_K, 0}};
    static const char *const extra[] = {"-device", "virtio-tablet-pci", NULL};
    const struct bed_options options = {.extra = extra};
    const struct vmibus_frame release = {.header.kind = VMIBUS_KIND_INPUT_RELEASE};
    const struct vmibus_ack *ack;
    uint64_t id;

    boot(&options);
    ack = wait_ack(command_input(tap, 3));
    ck_assert_int_eq(ack->error, VMIBUS_ERROR_OK);
    ck_assert_uint_eq(ack->count, 3);
    expect_evdev(EV_KEY, KEY_LEFTSHIFT, 1);
    expect_evdev(EV_KEY, KEY_K, 1);
    expect_evdev(EV_KEY, KEY_K, 0);

    /* The shift is still down, and let go. */
    ack = wait_ack(mock_host_execute(host, vm, &release, NULL, 0));
    ck_assert_int_eq(ack->error, VMIBUS_ERROR_OK);
    ck_assert_uint_eq(ack->count, 1);
    expect_evdev(EV_KEY, KEY_LEFTSHIFT, 0);

    /*
     * A paused guest would drop it silently: that is said, and what is held is let go once it runs.
     */
    ck_assert_int_eq(wait_ack(command_input(tap, 1))->error, VMIBUS_ERROR_OK);
    ck_assert_int_eq(wait_ack(command_vm(VMIBUS_VM_OPERATION_PAUSE))->error, VMIBUS_ERROR_OK);
    ack = wait_ack(command_input(tap, 3));
    ck_assert_int_eq(ack->error, VMIBUS_ERROR_BUSY);
    ck_assert_int_eq(ack->reason, VMIBUS_REASON_GUEST_PAUSED);
    ck_assert_uint_eq(ack->count, 0);
    id = mock_host_execute(host, vm, &release, NULL, 0);
    ck_assert_int_eq(wait_ack(id)->reason, VMIBUS_REASON_GUEST_PAUSED);
    ck_assert_int_eq(wait_ack(command_vm(VMIBUS_VM_OPERATION_RESUME))->error, VMIBUS_ERROR_OK);
    free(wait_serial("EVDEV"));
    expect_evdev(EV_KEY, KEY_LEFTSHIFT, 0);
    finish();
}

static uint64_t events_counted(void) {
    uint64_t sum = 0, count;
    char *reply, *line, *rest;

    ck_assert_int_eq(bed_ask(bed, "evcount", WAIT_MS, &reply), 0);
    for (line = strtok_r(reply, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
        if (strncmp(line, "EVCOUNT", 7) == 0 && bed_field(line, "count", &count) == 0)
            sum += count;
    free(reply);

    return sum;
}

/* How many events the guest sees of as many keys. */
static uint64_t events_seen(const struct vmibus_input_event *events, uint16_t n, uint64_t expected) {
    uint64_t before = events_counted(), after = before;
    const struct vmibus_ack *ack = wait_ack(command_input(events, n));

    ck_assert_int_eq(ack->error, VMIBUS_ERROR_OK);
    ck_assert_uint_eq(ack->count, n);
    for (int ms = 0; ms < WAIT_MS && after - before < expected; ms += 20)
        after = events_counted();

    return after - before;
}

/* A guest that gets no processor loses single keys of its PS/2 controller, whoever sends them: so there are several attempts. */
TEST(test_long_input_is_not_dropped, .timeout = 240) {
    const struct bed_options options = {0};
    struct vmibus_input_event events[400];
    uint64_t seen = 0;

    for (size_t i = 0; i < 400; i++)
        events[i] = (struct vmibus_input_event){1, (uint16_t)(KEY_A + i / 2 % 5), i % 2 == 0};
    boot(&options);
    ck_assert_int_eq(bed_ask(bed, "evdev off", WAIT_MS, NULL), 0);
    /* Each comes with its scan code. */
    for (int attempt = 0; attempt < 4 && seen != 800; attempt++)
        seen = events_seen(events, 400, 800);
    ck_assert_uint_eq(seen, 800);
    finish();
}

HARNESS_SUITE("qemu: a real guest", HARNESS_QUICK)
