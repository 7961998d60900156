/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The QEMU sensor through all that it does with a VM, with one thing wrong at a time, each in its turn: an answer of the monitor of
 * which a part is missing or is something else, an error, no answer; a call of the host that fails; an event that says anything.
 * No command stays unanswered, and no layout and no root is proposed but the true one. Time is the test's.
 */
#include "harness.h"

#include <errno.h>
#include <json-c/json.h>
#include <linux/input-event-codes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fake_qemu.h"
#include "guest_lib/fake_guest.h"
#include "mock_host.h"
#include "qemu/qemu.h"

#define NS_PER_MS UINT64_C(1000000)
/* Little, because all of it is looked through each time. */
#define RAM_LEN (UINT64_C(512) << 10)
#define TABLES UINT64_C(0x20000)
#define KERNEL_GPA UINT64_C(0x60000)
#define KERNEL_GVA UINT64_C(0xffffffffc0000000)
#define IDT_GVA UINT64_C(0xfffffe0000000000)
#define PICTURE "P6\n2 1\n255\nabcdef"
#define REGISTERS                                                                                                                 \
    "CPU#0\r\nRIP=ffffffffc0000123 RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=1\r\nIDT=     fffffe0000000000 00000fff\r\n" \
    "CR0=80050033 CR2=0 CR3=0000000000020000 CR4=00350ef0\r\nEFER=0000000000000d01\r\n"

static struct fake_qemu *fake;
static struct mock_host *host;
static struct vmibus_sensor_endpoint *vm;
static struct fake_guest guest;
static int ram_fd;
static size_t given;
static uint64_t commands[32];
static size_t n_commands;

/* --- a VM --------------------------------------------------------------------------------------------------------------- */

static void make_system(void) {
    struct fake_kernel kernel = {.levels = 4};

    ram_fd = memfd_create("ram", MFD_CLOEXEC);
    ck_assert_int_eq(ftruncate(ram_fd, RAM_LEN), 0);
    guest = (struct fake_guest){.len = RAM_LEN, .next_table = TABLES};
    guest.memory = mmap(NULL, (size_t)RAM_LEN, PROT_READ | PROT_WRITE, MAP_SHARED, ram_fd, 0);
    ck_assert_ptr_ne(guest.memory, MAP_FAILED);
    fake_guest_boot(&guest, &kernel);
    fake_guest_map(&guest, kernel.root, KERNEL_GVA, KERNEL_GPA, 1, 0);
    fake_guest_map(&guest, kernel.root, IDT_GVA, KERNEL_GPA + FAKE_PAGE, 1, ENTRY_NX);
}

static void give_ram(void) {
    const struct mock_record *asked = mock_host_record(host, MOCK_ATTACH, given++);
    const struct vmibus_ram_range range = {.len = RAM_LEN};
    const struct vmibus_sensor_ram ram = {
        .epoch = vm->epoch, .ranges = &range, .n_ranges = 1, .fds = &ram_fd, .n_fds = 1, .pagemap_fd = -1};

    if (asked->result < 0)
        return;
    mock_host_answer_attach(host, vm, vm->epoch ? &ram : NULL, vm->epoch ? VMIBUS_ERROR_OK : VMIBUS_ERROR_STALE_EPOCH,
                            VMIBUS_REASON_NONE);
}

static void settle(void) {
    bool busy;

    do {
        mock_host_settle(host);
        busy = fake_serve(fake);
        vm = mock_host_endpoint(host, "one");
        while (vm && given < mock_host_count(host, MOCK_ATTACH)) {
            give_ram();
            busy = true;
        }
    } while (busy);
}

static void pass(unsigned int times, unsigned int ms) {
    for (unsigned int i = 0; i < times; i++) {
        mock_host_advance(host, ms * NS_PER_MS);
        settle();
    }
}

static void start(void (*prepare)(void)) {
    char one[128];
    const char *const options[] = {one, NULL};

    fake = fake_new();
    make_system();
    fake->registers = REGISTERS;
    fake->picture = PICTURE;
    fake->picture_len = strlen(PICTURE);
    given = n_commands = 0;
    vm = NULL;
    snprintf(one, sizeof(one), "monitor.one=%s", fake->path);
    host = mock_host_new(&vmibus_qemu_sensor);
    mock_host_own_time(host);
    if (prepare)
        prepare();
    mock_host_start(host, options);
    if (!mock_host_is_running(host))
        return;
    pass(5, 10);
    if (!vm)
        pass(10, 500);
}

static void end(void) {
    host = mock_host_free(host);
    fake = fake_free(fake);
    munmap(guest.memory, RAM_LEN);
    close(ram_fd);
}

/* --- all that is done with it ------------------------------------------------------------------------------------------- */

static void command(struct vmibus_frame frame) {
    if (!vm)
        return;
    commands[n_commands++] = mock_host_execute(host, vm, &frame, NULL, 0);
    settle();
}

static void command_vm(uint8_t operation) {
    command((struct vmibus_frame){.header.kind = VMIBUS_KIND_CMD_VM, .cmd_vm.operation = operation});
}

static void command_power(uint8_t operation) {
    command((struct vmibus_frame){.header.kind = VMIBUS_KIND_CMD_POWER, .cmd_power.operation = operation});
}

static void type_something(void) {
    const struct vmibus_frame frame = {.header.kind = VMIBUS_KIND_CMD_INPUT,
                                       .cmd_input = {.count = 3, .events = {{1, KEY_A, 1}, {2, REL_X, 5}, {1, KEY_B, 1}}}};

    command(frame);
    command((struct vmibus_frame){.header.kind = VMIBUS_KIND_INPUT_RELEASE});
}

static void event(const char *name, const char *data) {
    fake_event(fake, name, data);
    settle();
}

static void tell_events(void) {
    fake->jobs = "[{\"id\": \"j\", \"type\": \"snapshot-load\", \"status\": \"concluded\"}]";
    fake->capabilities = "[{\"capability\": \"background-snapshot\", \"state\": true}]";
    event("STOP", NULL);
    event("RESUME", NULL);
    event("JOB_STATUS_CHANGE", "{\"id\": \"j\", \"status\": \"created\"}");
    event("JOB_STATUS_CHANGE", "{\"id\": \"j\", \"status\": \"concluded\"}");
    event("MIGRATION", "{\"status\": \"active\"}");
    event("MIGRATION", "{\"status\": \"cancelled\"}");
    event("DEVICE_DELETED", NULL);
}

static void go_through(void) {
    if (!mock_host_is_running(host))
        return;
    if (vm)
        mock_host_demand(host, vm, VMIBUS_KIND_BIT(VMIBUS_KIND_MEMCTX));
    settle();
    pass(20, 1000);
    type_something();
    command((struct vmibus_frame){.header.kind = VMIBUS_KIND_SCREENSHOT, .screenshot.format = VMIBUS_IMAGE_FORMAT_PPM});
    command((struct vmibus_frame){.header.kind = VMIBUS_KIND_REGISTERS, .registers.vcpu = 0});
    command_vm(VMIBUS_VM_OPERATION_PAUSE);
    command_vm(VMIBUS_VM_OPERATION_RESUME);
    command_power(VMIBUS_POWER_OPERATION_POWERDOWN);
    command_power(VMIBUS_POWER_OPERATION_WAKEUP);
    command_power(VMIBUS_POWER_OPERATION_RESET);
    tell_events();
    pass(3, 1000);
    command_power(VMIBUS_POWER_OPERATION_QUIT);
    pass(8, 10000);
}

/* --- what must hold ------------------------------------------------------------------------------------------------------- */

static size_t answers_to(uint64_t id) {
    const struct mock_record *record;
    size_t n = 0;

    for (size_t i = 0; (record = mock_host_record(host, MOCK_COMPLETE, i)); i++)
        n += record->id == id;
    return n;
}

static bool is_true_layout(const struct mock_layout *layout) {
    return layout->n_ranges == 3 && layout->ranges[0].gpa == 0 && layout->ranges[0].len == 0xa0000 &&
           layout->ranges[0].location == fake->hva && layout->ranges[1].flags == VMIBUS_RANGE_READ_ONLY &&
           layout->ranges[2].gpa == 0x100000 && layout->ranges[2].len == 0xf00000 &&
           layout->ranges[2].location == fake->hva + 0x100000;
}

static void expect_truth(const char *what) {
    const struct mock_record *record;

    for (size_t i = 0; i < n_commands; i++)
        ck_assert_msg(answers_to(commands[i]) == 1, "%s: command %zu has %zu answers", what, i, answers_to(commands[i]));
    for (size_t i = 0; (record = mock_host_record(host, MOCK_LAYOUT, i)); i++)
        ck_assert_msg(is_true_layout(&record->layout), "%s: a layout of %zu ranges", what, record->layout.n_ranges);
    for (size_t i = 0; (record = mock_host_record(host, MOCK_ROOT, i)); i++)
        ck_assert_msg(record->root.cr3 == 0 || record->root.cr3 == TABLES, "%s: a root at %#llx", what,
                      (unsigned long long)record->root.cr3);
}

TEST(test_all_is_done) {
    start(NULL);
    go_through();
    expect_truth("all is well");
    ck_assert_uint_ge(n_commands, 9);
    ck_assert_uint_ge(mock_host_count(host, MOCK_LAYOUT), 1);
    ck_assert_uint_eq(mock_host_record(host, MOCK_ROOT, 0)->root.reason, VMIBUS_REASON_BOOTING);
    ck_assert_uint_eq(mock_host_ack(host, commands[0])->error, VMIBUS_ERROR_OK);
    ck_assert_uint_eq(mock_host_ack(host, commands[2])->error, VMIBUS_ERROR_OK);
    end();
}

/* --- answers ------------------------------------------------------------------------------------------------------------- */

static size_t answer_at, answer_wrong, part_at, part_wrong;
static const char *lie; /* json; NULL: the part is missing */

static void wrong_object(json_object *object);

static void wrong_array(json_object *array) {
    for (size_t i = 0; i < json_object_array_length(array); i++) {
        json_object *value = json_object_array_get_idx(array, i);

        if (++part_at == part_wrong) {
            if (lie)
                json_object_array_put_idx(array, i, json_tokener_parse(lie));
            else
                json_object_array_del_idx(array, i, 1);
            return;
        }
        if (json_object_is_type(value, json_type_object))
            wrong_object(value);
    }
}

static void wrong_object(json_object *object) {
    json_object_object_foreach(object, name, value) {
        if (++part_at == part_wrong) {
            if (lie)
                json_object_object_add(object, name, json_tokener_parse(lie));
            else
                json_object_object_del(object, name);
            return;
        }
        if (json_object_is_type(value, json_type_object))
            wrong_object(value);
        else if (json_object_is_type(value, json_type_array))
            wrong_array(value);
        if (part_at >= part_wrong)
            return;
    }
}

static void twist(json_object *line) {
    if (++answer_at != answer_wrong)
        return;
    part_at = 0;
    wrong_object(line);
}

static void prepare_answers(void) {
    answer_at = part_at = 0;
    fake->twist = twist;
}

/* What a command is, without its id and numbers. */
static void name_of(const char *text, char *name, size_t size) {
    const char *line = strstr(text, "\"command-line\":\""), *word = strstr(text, "\"execute\":\"");

    snprintf(name, size, "%.*s", 16, line ? line + 16 : word + 11);
}

/* The numbers of the answers, from 1, that are the first to a command of their kind. */
static size_t find_answers(size_t *numbers, size_t size) {
    char names[64][20];
    size_t n = 0;

    start(NULL);
    go_through();
    for (size_t i = 0; i < fake->n_commands && n < size; i++) {
        size_t at = 0;

        name_of(fake->commands[i], names[n], sizeof(names[n]));
        while (strcmp(names[at], names[n]) != 0)
            at++;
        if (at == n)
            numbers[n++] = i + 1;
    }
    end();
    return n;
}

/* Returns whether the answer has such a part. */
static bool lie_once(size_t answer, size_t part) {
    char what[80];

    answer_wrong = answer;
    part_wrong = part;
    snprintf(what, sizeof(what), "answer %zu, part %zu: %s", answer, part, lie ? lie : "missing");
    start(prepare_answers);
    go_through();
    expect_truth(what);
    end();
    return part_at == part;
}

/* One thing that a monitor says instead of each part of its answer to each kind of command; each of them in a full run. */
static void lie_in_turn(size_t first_lie, size_t step) {
    static const char *const lies[] = {NULL, "null", "true", "-1", "18446744073709551615", "\"\"", "\"x\"", "[]", "{}"};
    size_t numbers[63], n = find_answers(numbers, 63);

    ck_assert_uint_gt(n, 15);
    for (size_t i = 0; i < n; i++)
        for (size_t part = 1; part < 20; part++) {
            lie = lies[(first_lie + step * (i + part)) % 9];
            if (!lie_once(numbers[i], part))
                break;
        }
}

TEST(test_p12_each_part_of_each_answer_may_be_something_else, .iterations = 2, .timeout = 120) {
    lie_in_turn(_i ? 6 : 0, _i ? 2 : 0);
}

TEST(test_p12_each_part_of_each_answer_may_be_anything, .iterations = 9, .timeout = 300, .full = true) {
    lie_in_turn((size_t)_i, 0);
}

/* An error instead, or nothing, from one command of the monitor; or from all of the kind. */
TEST(test_each_command_may_be_refused_or_not_answered, .iterations = 2, .timeout = 120) {
    static const char *const names[] = {
        "qmp_capabilities", "query-status",  "query-uuid", "query-sev",      "qom-get",         "query-memdev",
        "query-memory-devices", "info mtree", "gpa2hva",   "info registers", "query-migrate",   "migrate-set-capabilities",
        "query-jobs",       "query-migrate-capabilities", "screendump", "add-fd", "remove-fd", "input-send-event",
        "\"stop\"", "\"cont\"", "system_reset", "system_powerdown", "system_wakeup", "\"quit\"", "qom-list",
    };

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        start(NULL);
        if (_i)
            fake->hold = names[i];
        else
            fake->refuse = names[i];
        fake_hang_up(fake);
        pass(4, 1000);
        go_through();
        pass(4, 10000);
        expect_truth(names[i]);
        end();
    }
}

/* --- the host ------------------------------------------------------------------------------------------------------------ */

static enum mock_call failing_call;

static void prepare_host(void) {
    mock_host_behaviour(host)->results[failing_call] = -ENOMEM;
}

TEST(test_p10_each_call_of_the_host_may_fail, .iterations = MOCK_CALLS) {
    failing_call = (enum mock_call)_i;
    start(failing_call == MOCK_COMPLETE ? NULL : prepare_host);
    go_through();
    if (failing_call != MOCK_COMPLETE)
        expect_truth("a call of the host fails");
    end();
}

TEST(test_p12_each_verdict_may_be_no, .iterations = 12) {
    static const enum vmibus_error errors[] = {VMIBUS_ERROR_UNSUPPORTED, VMIBUS_ERROR_IO, VMIBUS_ERROR_VALIDATION,
                                               VMIBUS_ERROR_QUOTA, VMIBUS_ERROR_PRESSURE, VMIBUS_ERROR_STALE_EPOCH};
    enum vmibus_reason reason = _i & 1 ? VMIBUS_REASON_BAD_LENGTH : VMIBUS_REASON_NONE;

    start(NULL);
    mock_host_behaviour(host)->root_error = errors[_i / 2];
    mock_host_behaviour(host)->root_reason = reason;
    go_through();
    expect_truth("a root is refused");
    end();
    start(NULL);
    mock_host_behaviour(host)->layout_error = errors[_i / 2];
    mock_host_behaviour(host)->layout_reason = reason;
    event("RESET", NULL);
    go_through();
    expect_truth("a layout is refused");
    end();
}

/* --- events -------------------------------------------------------------------------------------------------------------- */

/* Each event with each data, after each other: states that no machine has. */
TEST(test_p09_events_may_say_anything_in_any_order, .iterations = 12, .timeout = 60) {
    static const char *const names[] = {
        "STOP", "RESUME", "RESET", "SHUTDOWN", "POWERDOWN", "GUEST_PANICKED", "SUSPEND", "SUSPEND_DISK", "WAKEUP", "BLOCK_IO_ERROR",
        "WATCHDOG", "MIGRATION", "JOB_STATUS_CHANGE", "DEVICE_DELETED", "MEMORY_DEVICE_SIZE_CHANGE", "ACPI_DEVICE_OST", "",
        "NO_SUCH_EVENT",
    };
    static const char *const data[] = {
        NULL, "{}", "{\"status\": 7, \"action\": 7, \"guest\": 7}", "{\"status\": \"\", \"action\": \"\", \"guest\": false}",
        "{\"status\": \"completed\", \"action\": \"stop\"}", "{\"status\": \"active\", \"action\": \"pause\"}",
        "{\"status\": \"setup\", \"action\": \"run\"}", "{\"status\": \"failed\"}", "{\"status\": \"running\"}",
        "{\"status\": \"created\"}", "{\"status\": \"concluded\"}", "[]",
    };
    static const char *const statuses[] = {"running", "suspended", "shutdown", "guest-panicked", "inmigrate", "save-vm"};
    const size_t n = sizeof(names) / sizeof(names[0]);

    /* Each status with each data only in a full run. */
    for (size_t s = 0; s < sizeof(statuses) / sizeof(statuses[0]); s++) {
        if (s != (size_t)_i % 6 && !harness_is_full())
            continue;
        start(NULL);
        fake->status = statuses[s];
        fake_hang_up(fake);
        pass(4, 1000);
        for (size_t i = 0; i < n; i++) {
            event(names[i], data[_i]);
            event(names[(i * 7 + s) % n], data[((size_t)_i + i) % 12]);
            if (i % 6 == 0)
                pass(1, 1000);
        }
        type_something();
        command_vm(VMIBUS_VM_OPERATION_PAUSE);
        command_vm(VMIBUS_VM_OPERATION_RESUME);
        pass(8, 10000);
        expect_truth(statuses[s]);
        end();
    }
}

HARNESS_SUITE("qemu sensor: each answer wrong in its turn", HARNESS_QUICK)
