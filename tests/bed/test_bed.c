/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The bed under test: boots guests of both paging depths and checks that facts, commands, input and
 * changes of memory from outside come through as bed.h and agent.c promise. Prints what took how
 * long.
 */
#define _GNU_SOURCE
#include "bed/bed.h"

#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BOOT_MS 120000
#define ANSWER_MS 30000

static double seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

/* What has to hold. A guest ends with the test's process. */
#define CHECK(bed, condition) ck_assert_msg(condition, "%s", bed_error(bed))

static void need_guest(bool firmware_only)
{
    const char *reason;

    if (!bed_available(firmware_only, &reason))
        test_skip("%s", reason);
}

/* The number of a key in a fact; the key must be there. */
static uint64_t number(struct bed *bed, const char *line, const char *key)
{
    uint64_t value = 0;

    CHECK(bed, bed_field(line, key, &value) == 0);
    return value;
}

static void send_key(struct bed *bed, const char *name, bool down)
{
    char arguments[256];

    snprintf(arguments, sizeof(arguments),
             "{\"events\":[{\"type\":\"key\",\"data\":{\"down\":%s,"
             "\"key\":{\"type\":\"qcode\",\"data\":\"%s\"}}}]}",
             down ? "true" : "false", name);
    CHECK(bed, bed_qmp(bed, "input-send-event", arguments, NULL) == 0);
}

/* Keys, relative and absolute motion, each to the device that is for it. */
static void check_input(struct bed *bed)
{
    double start = seconds();

    send_key(bed, "a", true);
    CHECK(bed, bed_wait_fact(bed, "EVDEV", "type=1 code=30 value=1", ANSWER_MS, NULL) == 0);
    send_key(bed, "a", false);
    CHECK(bed, bed_wait_fact(bed, "EVDEV", "type=1 code=30 value=0", ANSWER_MS, NULL) == 0);
    printf("  two key events seen in the guest: %.3f s\n", seconds() - start);
    CHECK(bed, bed_qmp(bed, "input-send-event",
                       "{\"events\":[{\"type\":\"rel\",\"data\":{\"axis\":\"x\",\"value\":7}}]}",
                       NULL) == 0);
    CHECK(bed, bed_wait_fact(bed, "EVDEV", "type=2 code=0 value=7", ANSWER_MS, NULL) == 0);
    CHECK(bed, bed_qmp(bed, "input-send-event",
                       "{\"events\":[{\"type\":\"abs\",\"data\":{\"axis\":\"y\",\"value\":1234}}]}",
                       NULL) == 0);
    CHECK(bed, bed_wait_fact(bed, "EVDEV", "type=3 code=1 value=1234", ANSWER_MS, NULL) == 0);
}

/* A file descriptor of the RAM file, found as the mapping of its size in QEMU's maps. */
static int open_ram(struct bed *bed)
{
    char path[64], line[512], name[128];
    unsigned long start, end;
    FILE *maps;
    int fd = -1;

    snprintf(path, sizeof(path), "/proc/%d/maps", bed->pid);
    maps = fopen(path, "re");
    CHECK(bed, maps != NULL);
    while (fd < 0 && fgets(line, sizeof(line), maps)) {
        if (!strstr(line, "memfd:") || sscanf(line, "%lx-%lx", &start, &end) != 2)
            continue;
        snprintf(path, sizeof(path), "/proc/%d/map_files/%lx-%lx", bed->pid, start, end);
        fd = open(path, O_RDWR | O_CLOEXEC);
        if (fd >= 0)
            continue;
        /* Not root: the descriptor in QEMU's own table will do. */
        for (int i = 3; fd < 0 && i < 256; i++) {
            ssize_t n;

            snprintf(path, sizeof(path), "/proc/%d/fd/%d", bed->pid, i);
            n = readlink(path, name, sizeof(name) - 1);
            name[n > 0 ? n : 0] = 0;
            if (strstr(name, "memfd:memory-backend"))
                fd = open(path, O_RDWR | O_CLOEXEC);
        }
    }
    fclose(maps);
    CHECK(bed, fd >= 0);
    return fd;
}

/* Changes a fact's memory at its physical address (the guest has less than any below-4G split). */
static void check_outside_write(struct bed *bed, int ram, const char *word, const char *fields,
                                uint64_t value)
{
    char *line, expected[128];
    uint64_t gpa;

    CHECK(bed, bed_last_fact(bed, word, fields, &line) == 0);
    gpa = number(bed, line, "gpa");
    free(line);
    CHECK(bed, pwrite(ram, &value, sizeof(value), gpa) == sizeof(value));
    snprintf(expected, sizeof(expected), "%s value=0x%016lx", fields, value);
    CHECK(bed, bed_wait_fact(bed, word, expected, ANSWER_MS, NULL) == 0);
}

static void check_memory(struct bed *bed)
{
    uint64_t agent, child, head;
    char *line, *text;
    double start = seconds();
    int ram = open_ram(bed);

    CHECK(bed, bed_last_fact(bed, "VAR", "comm=vmibus-agent", &line) == 0);
    agent = number(bed, line, "gva");
    head = number(bed, line, "gpa");
    free(line);
    CHECK(bed, bed_last_fact(bed, "VAR", "comm=vmibus-child", &line) == 0);
    child = number(bed, line, "gva");
    CHECK(bed, agent == child && head != number(bed, line, "gpa"));
    free(line);

    check_outside_write(bed, ram, "VAR", "comm=vmibus-agent", 0x1111);
    check_outside_write(bed, ram, "VAR", "comm=vmibus-child", 0x2222);
    check_outside_write(bed, ram, "ROVAR", "len=8", 0x3333);
    check_outside_write(bed, ram, "HUGE", "thp=1", 0x4444);

    /* The sum is that of bed_sum(). */
    CHECK(bed, bed_ask(bed, "fill 0x5a", ANSWER_MS, NULL) == 0);
    CHECK(bed, bed_wait_fact(bed, "BUF", "", ANSWER_MS, &line) == 0);
    text = malloc(number(bed, line, "len"));
    memset(text, 0x5a, number(bed, line, "len"));
    CHECK(bed, number(bed, line, "sum") == bed_sum(text, number(bed, line, "len")));
    free(text);
    free(line);

    /* Running a program does not make the agent's pages copy-on-write: still the same page. */
    CHECK(bed, bed_ask(bed, "exec cat /proc/self/comm; exit 3", ANSWER_MS, &text) == 0);
    CHECK(bed, strstr(text, "OUT cat\n") && strstr(text, "OK exec status=3\n"));
    free(text);
    check_outside_write(bed, ram, "VAR", "comm=vmibus-agent", 0x5555);
    CHECK(bed, bed_ask(bed, "nonsense", ANSWER_MS, NULL) == -EREMOTEIO);
    close(ram);
    printf("  six writes from outside seen in the guest: %.3f s\n", seconds() - start);
}

/* The kernel's variable, through the oracle's gva2gpa on a stopped guest. */
static void check_sysctl(struct bed *bed)
{
    char *text, command[64];
    unsigned long gpa;
    int value = 42, ram;

    CHECK(bed, bed_ask(bed, "kallsyms panic_timeout", ANSWER_MS, &text) == 0);
    snprintf(command, sizeof(command), "gva2gpa 0x%lx", number(bed, text, "addr"));
    free(text);
    CHECK(bed, bed_qmp(bed, "stop", NULL, NULL) == 0);
    CHECK(bed, bed_hmp(bed, command, &text) == 0);
    CHECK(bed, sscanf(text, "gpa: %lx", &gpa) == 1);
    free(text);
    CHECK(bed, bed_qmp(bed, "cont", NULL, NULL) == 0);
    ram = open_ram(bed);
    CHECK(bed, pwrite(ram, &value, sizeof(value), gpa) == sizeof(value));
    close(ram);
    CHECK(bed, bed_wait_serial(bed, "SYSCTL kernel.panic=42", ANSWER_MS, NULL) == 0);
    CHECK(bed, bed_wait_event(bed, "STOP", ANSWER_MS, NULL) == 0);
    CHECK(bed, bed_wait_event(bed, "RESUME", ANSWER_MS, NULL) == 0);
}

/* Reset, ready again, power button, end. */
static void check_life(struct bed *bed)
{
    json_object *event;
    int status = -1;

    bed_drop_events(bed);
    CHECK(bed, bed_qmp(bed, "system_reset", NULL, NULL) == 0);
    CHECK(bed, bed_wait_event(bed, "RESET", ANSWER_MS, &event) == 0);
    json_object_put(event);
    CHECK(bed, bed_wait_serial(bed, "READY", BOOT_MS, NULL) == 0);
    CHECK(bed, bed_qmp(bed, "system_powerdown", NULL, NULL) == 0);
    CHECK(bed, bed_wait_serial(bed, "POWEROFF reason=button", ANSWER_MS, NULL) == 0);
    CHECK(bed, bed_wait_event(bed, "SHUTDOWN", ANSWER_MS, NULL) == 0);
    CHECK(bed, bed_wait_exit(bed, ANSWER_MS, &status) == 0);
    CHECK(bed, WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK(bed, bed_qmp(bed, "query-status", NULL, NULL) == -EPIPE);
}

static void check_guest(const char *cpu, unsigned la57)
{
    struct bed_options options = {.cpu = cpu};
    struct bed *bed;
    double start = seconds();
    char *line;

    need_guest(false);
    CHECK(NULL, bed_start(&bed, &options) == 0);
    printf("%s: QEMU answers after %.3f s\n", cpu, seconds() - start);
    CHECK(bed, bed_wait_serial(bed, "READY", BOOT_MS, &line) == 0);
    printf("  the guest is ready after %.3f s (%s)\n", seconds() - start, line);
    free(line);
    CHECK(bed, bed_last_fact(bed, "KERNEL", "", &line) == 0);
    CHECK(bed, number(bed, line, "la57") == la57);
    free(line);
    check_input(bed);
    check_memory(bed);
    check_sysctl(bed);
    check_life(bed);
    start = seconds();
    bed = bed_stop(bed);
    printf("  gone after %.3f s\n", seconds() - start);
}

/* Every kind of memory starts, without Linux; a command line that is no good says so. */
TEST(test_every_kind_of_memory_starts, .timeout = 60)
{
    static const char *const nonsense[] = {"-no-such-option", NULL};
    struct bed_options options = {.firmware_only = true, .machine = "pc", .ram = BED_RAM_SHM};
    double start = seconds();
    struct bed *bed;
    char *shm, *directory;

    need_guest(true);
    CHECK(NULL, bed_start(&bed, &options) == 0);
    CHECK(bed, bed->shm && access(bed->shm, R_OK | W_OK) == 0);
    CHECK(bed, access(bed->qmp, W_OK) == 0);
    shm = strdup(bed->shm);
    directory = strdup(bed->directory);
    bed = bed_stop(bed);
    CHECK(NULL, access(shm, F_OK) < 0 && access(directory, F_OK) < 0);
    free(shm);
    free(directory);
    printf("firmware only, /dev/shm: there and gone in %.3f s\n", seconds() - start);

    options.ram = BED_RAM_PRIVATE;
    CHECK(NULL, bed_start(&bed, &options) == 0);
    bed = bed_stop(bed);
    options.extra = nonsense;
    CHECK(NULL, bed_start(&bed, &options) < 0);
    CHECK(NULL, strstr(bed_error(NULL), "no-such-option"));
}

/* A test that is killed takes its guest and its directory along. */
TEST(test_killed_test_leaves_nothing_behind, .timeout = 60)
{
    struct bed_options options = {.firmware_only = true, .ram = BED_RAM_SHM};
    char directory[256] = "", shm[256] = "";
    struct bed *bed;
    struct pollfd ended = {.events = POLLIN};
    int out[2], gone = 0;
    pid_t test, qemu;
    FILE *told;

    need_guest(true);
    CHECK(NULL, pipe2(out, O_CLOEXEC) == 0);
    test = fork();
    if (test == 0) {
        close(out[0]);
        CHECK(NULL, bed_start(&bed, &options) == 0);
        dprintf(out[1], "%d %s %s\n", bed->pid, bed->directory, bed->shm);
        raise(SIGKILL);
    }
    close(out[1]);
    told = fdopen(out[0], "r");
    CHECK(NULL, told && fscanf(told, "%d %255s %255s", &qemu, directory, shm) == 3);
    fclose(told);
    waitpid(test, NULL, 0);
    /* No such process, or one that has ended and that init has not reaped yet. */
    ended.fd = syscall(SYS_pidfd_open, qemu, 0);
    CHECK(NULL, ended.fd < 0 || poll(&ended, 1, ANSWER_MS) == 1);
    close(ended.fd);
    for (int tries = 0; !gone && tries < 3000; tries++) {
        gone = access(directory, F_OK) < 0 && access(shm, F_OK) < 0;
        if (!gone)
            poll(NULL, 0, 10); /* nothing to wait on: the warden is nobody's child */
    }
    CHECK(NULL, gone);
}

TEST(test_guest_with_five_levels, .timeout = 300)
{
    check_guest("max", 1);
}

TEST(test_guest_with_four_levels, .timeout = 300)
{
    check_guest("qemu64", 0);
}

HARNESS_SUITE("bed", HARNESS_QUICK)
