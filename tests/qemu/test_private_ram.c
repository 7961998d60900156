/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A guest as most people have it: its RAM is private to QEMU, with no backend named.  vmibusd and vmibusctl
 * find its kernel, read it, walk its tables and write it, and QEMU has not more memory afterwards.
 */
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bed.h"
#include "harness.h"

#define BOOT_MS 240000
#define ROOT_TRIES 240

static struct bed *bed;
static pid_t daemon_pid;
static char directory[256], build[256];

static void start_daemon(void) {
    char program[512], socket_path[320], modules[512], qmp[320];

    snprintf(build, sizeof(build), "%s", getenv("top_builddir") ? getenv("top_builddir") : ".");
    snprintf(directory, sizeof(directory), "%s/state", bed->directory);
    snprintf(program, sizeof(program), "%s/vmibusd", build);
    snprintf(socket_path, sizeof(socket_path), "%s/control", directory);
    snprintf(modules, sizeof(modules), "%s/sensors/modules", build);
    snprintf(qmp, sizeof(qmp), "guest=%s", bed->qmp);
    ck_assert_int_eq(mkdir(directory, 0700), 0);
    daemon_pid = fork();
    if (daemon_pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execl(program, program, "--socket", socket_path, "--state-directory", directory, "--sensor-directory", modules, "--qmp",
              qmp, NULL);
        _exit(127);
    }
}

/* Runs vmibusctl; what it prints, errors too, is in `said`. Returns its status. */
static int ctl(char *said, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));

static int ctl(char *said, size_t size, const char *format, ...) {
    char line[1024];
    va_list arguments;
    FILE *output;
    size_t n;
    int used;

    used = snprintf(line, sizeof(line), "'%s/vmibusctl' --socket '%s/control' ", build, directory);
    va_start(arguments, format);
    vsnprintf(line + used, sizeof(line) - (size_t)used - 8, format, arguments);
    va_end(arguments);
    strcat(line, " 2>&1");
    output = popen(line, "re");
    ck_assert_ptr_nonnull(output);
    n = fread(said, 1, size - 1, output);
    said[n] = '\0';
    return WEXITSTATUS(pclose(output));
}

static void boot(void) {
    const char *const extra[] = {"-m", "256", NULL};
    const struct bed_options options = {.ram = BED_RAM_CUSTOM, .extra = extra, .memory = "256M"};
    const char *reason;
    char said[4096];
    int status = 1;

    if (!bed_available(false, &reason))
        test_skip("%s", reason);
    ck_assert_msg(bed_start(&bed, &options) == 0, "%s", bed_error(NULL));
    ck_assert_msg(bed_wait_serial(bed, "READY", BOOT_MS, NULL) == 0, "%s", bed_error(bed));
    start_daemon();
    for (unsigned i = 0; i < ROOT_TRIES && (status != 0 || !strstr(said, "READY")); i++) {
        poll(NULL, 0, 500);
        ck_assert_int_eq(waitpid(daemon_pid, NULL, WNOHANG), 0);
        status = ctl(said, sizeof(said), "list");
    }
    ck_assert_msg(status == 0 && strstr(said, "READY"), "%s", said);
}

static void finish(void) {
    if (daemon_pid > 0) {
        kill(daemon_pid, SIGTERM);
        waitpid(daemon_pid, NULL, 0);
    }
    bed = bed_stop(bed);
}

/* kB of anonymous memory and of page tables. */
static uint64_t size_of_qemu(void) {
    char path[64], line[256];
    uint64_t sum = 0, value;
    FILE *status;

    snprintf(path, sizeof(path), "/proc/%d/status", (int)bed->pid);
    status = fopen(path, "re");
    ck_assert_ptr_nonnull(status);
    while (fgets(line, sizeof(line), status))
        if (sscanf(line, "RssAnon: %" SCNu64, &value) == 1 || sscanf(line, "VmPTE: %" SCNu64, &value) == 1 ||
            sscanf(line, "VmSwap: %" SCNu64, &value) == 1)
            sum += value;
    fclose(status);
    return sum;
}

/* A page of an agent's own, by the guest's word: where it is, and what is in it. */
static void find_variable(uint64_t *gva, uint64_t *gpa, uint64_t *value, uint64_t *kernel) {
    char *line = NULL, *reply = NULL;

    ck_assert_int_eq(bed_last_fact(bed, "VAR", "comm=vmibus-child", &line), 0);
    ck_assert_int_eq(bed_field(line, "gva", gva), 0);
    ck_assert_int_eq(bed_field(line, "gpa", gpa), 0);
    ck_assert_int_eq(bed_field(line, "value", value), 0);
    free(line);
    ck_assert_int_eq(bed_ask(bed, "kallsyms panic_timeout", BOOT_MS, &reply), 0);
    ck_assert_int_eq(bed_field(reply, "addr", kernel), 0);
    free(reply);
}

static void read_octets(char *hex, size_t size, uint64_t value) {
    for (size_t i = 0; i < 8 && 3 * i + 3 < size; i++)
        snprintf(hex + 3 * i, 4, i == 7 ? "%02x" : "%02x ", (unsigned)(value >> 8 * i & 0xff));
}

TEST(test_p11_private_ram_of_a_plain_guest, .timeout = 900, .setup = boot, .teardown = finish) {
    const uint64_t target = UINT64_C(0x1122334455667788);
    uint64_t gva, gpa, value, kernel, before, after;
    char said[8192], hex[32], fact[64];

    find_variable(&gva, &gpa, &value, &kernel);
    ck_assert_int_eq(ctl(said, sizeof(said), "info guest"), 0);
    ck_assert_msg(strstr(said, "MEDIATED") && strstr(said, "PROVEN"), "%s", said);
    ck_assert_msg(strstr(said, "memory-backend-memfd") && strstr(said, "memoryBacking"), "%s", said);

    before = size_of_qemu();
    ck_assert_int_eq(ctl(said, sizeof(said), "read guest 0x100000 255M --physical --raw | wc -c"), 0);
    after = size_of_qemu();
    ck_assert_msg(strtoull(said, NULL, 10) >= 200u << 20, "%s", said);
    /* The guest goes on, and may touch pages meanwhile; a sweep that does would add all that it left untouched. */
    ck_assert_msg(after < before + 4096, "QEMU had %" PRIu64 " kB, and %" PRIu64 " after", before, after);

    read_octets(hex, sizeof(hex), value);
    hex[11] = '\0'; /* the dump has a wider gap in the middle */
    ck_assert_int_eq(ctl(said, sizeof(said), "read guest 0x%" PRIx64 " 4 --physical", gpa), 0);
    ck_assert_msg(strstr(said, hex), "%s is not in %s", hex, said);
    ck_assert_int_eq(ctl(said, sizeof(said), "translate guest 0x%" PRIx64, kernel), 0);
    ck_assert_msg(strstr(said, "in a page of"), "%s", said);
    ck_assert_int_eq(ctl(said, sizeof(said), "read guest 0x%" PRIx64 " 4", kernel), 0);
    ck_assert_int_ne(ctl(said, sizeof(said), "read guest 0xffff800000000000 4"), 0);

    ck_assert_int_eq(ctl(said, sizeof(said), "write guest 0x%" PRIx64 " --physical --hex 8877665544332211", gpa), 0);
    snprintf(fact, sizeof(fact), "comm=vmibus-child value=0x%016" PRIx64, target);
    ck_assert_msg(bed_wait_fact(bed, "VAR", fact, 60000, NULL) == 0, "the guest does not see what was written");
}

HARNESS_SUITE("private RAM", HARNESS_QUICK)
