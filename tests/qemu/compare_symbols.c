/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* All of them, not samples. */
#include "compare.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"

#define SECOND UINT64_C(1000000000)

/* --- all symbols --------------------------------------------------------------------------------------------------- */

struct sums {
    uint64_t count[2], sum[2];  /* of vmlinux, of modules */
};

static uint64_t sum_of_text(const char *text) {
    uint64_t sum = UINT64_C(0xcbf29ce484222325);

    for (; *text; text++)
        sum = (sum ^ (uint8_t)*text) * UINT64_C(0x100000001b3);
    return sum;
}

static bool add_symbol(void *context, const struct vmibus_linux_symbol *symbol) {
    struct sums *sums = context;
    char line[1024];

    snprintf(line, sizeof(line), "%016" PRIx64 " %c %s%s%s", symbol->gva, symbol->type, symbol->name, symbol->module ? " " : "",
             symbol->module ? symbol->module : "");
    sums->count[symbol->module != NULL]++;
    sums->sum[symbol->module != NULL] += sum_of_text(line);
    return true;
}

static void check_all_symbols(struct linux_bed *bed) {
    struct vmibus_linux_picture picture;
    uint64_t count, sum, modules_count, modules_sum;
    char *answer = linux_bed_ask(bed, "symbols");
    struct sums sums = {0};
    int r = vmibus_linux_visit_symbols(bed->kernel, NULL, add_symbol, &sums, &picture);

    ck_assert_msg(r == 0, "%s", vmibus_linux_why(bed->kernel));
    ck_assert_uint_eq(picture.flags, VMIBUS_LINUX_ENDED | VMIBUS_LINUX_STEADY);
    ck_assert_uint_eq(picture.n_broken, 0);
    ck_assert_int_eq(bed_field(answer, "count", &count), 0);
    ck_assert_int_eq(bed_field(answer, "sum", &sum), 0);
    ck_assert_int_eq(bed_field(answer, "modules_count", &modules_count), 0);
    ck_assert_int_eq(bed_field(answer, "modules_sum", &modules_sum), 0);
    free(answer);
    ck_assert_uint_gt(count, 50000);
    ck_assert_uint_gt(modules_count, 100);
    ck_assert_uint_eq(sums.count[0], count);
    ck_assert_uint_eq(sums.sum[0], sum);
    ck_assert_uint_eq(sums.count[1], modules_count);
    ck_assert_uint_eq(sums.sum[1], modules_sum);
}

/* --- looking up ---------------------------------------------------------------------------------------------------- */

/* A function of a module. */
struct taken {
    uint64_t gva;
    char name[256], module[64];
};

static bool take_function(void *context, const struct vmibus_linux_symbol *symbol) {
    struct taken *taken = context;

    if (!symbol->module || symbol->type != 't' || symbol->size < 16)
        return true;
    taken->gva = symbol->gva;
    snprintf(taken->name, sizeof(taken->name), "%s", symbol->name);
    snprintf(taken->module, sizeof(taken->module), "%s", symbol->module);
    return false;
}

static void check_lookups(struct linux_bed *bed) {
    static const char *const names[] = {"schedule", "init_task", "vfs_read", "linux_banner", "_stext"};
    struct vmibus_linux_symbol symbol;
    struct taken taken = {0};
    uint64_t gva, told;

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char *answer = linux_bed_ask(bed, "kallsyms %s", names[i]);

        ck_assert_int_eq(bed_field(answer, "addr", &told), 0);
        free(answer);
        ck_assert_int_eq(vmibus_linux_find_symbol(bed->kernel, names[i], &gva), 0);
        ck_assert_uint_eq(gva, told);
        ck_assert_int_eq(vmibus_linux_symbol_at(bed->kernel, gva + 1, &symbol), 0);
        ck_assert_uint_eq(symbol.gva, gva);
        ck_assert_ptr_null(symbol.module);
        ck_assert_uint_gt(symbol.size, 1);
    }
    ck_assert_int_eq(vmibus_linux_find_symbol(bed->kernel, "no_such_symbol_at_all", &gva), VMIBUS_GUEST_NOT_FOUND);
    ck_assert_int_eq(vmibus_linux_symbol_at(bed->kernel, 0x400000, &symbol), VMIBUS_GUEST_NOT_FOUND);
    /* One of a module, which lies where vmlinux does not. */
    ck_assert_int_eq(vmibus_linux_visit_symbols(bed->kernel, NULL, take_function, &taken, NULL), 0);
    ck_assert_uint_ne(taken.gva, 0);
    ck_assert_int_eq(vmibus_linux_symbol_at(bed->kernel, taken.gva + 5, &symbol), 0);
    ck_assert_str_eq(symbol.name, taken.name);
    ck_assert_str_eq(symbol.module, taken.module);
    ck_assert_uint_eq(symbol.gva, taken.gva);
}

void compare_symbols(struct linux_bed *bed) {
    check_all_symbols(bed);
    check_lookups(bed);
}

/* --- modules ------------------------------------------------------------------------------------------------------- */

struct cursor {
    const char *at;     /* lines of /proc/modules, each after OUT */
    size_t n;
};

static bool compare_module(void *context, const struct vmibus_linux_module *module) {
    struct cursor *cursor = context;
    char name[64], users[512], state[32];
    uint64_t size, base;
    uint32_t references;

    ck_assert_int_eq(sscanf(cursor->at, "OUT %63s %" SCNu64 " %" SCNu32 " %511s %31s %" SCNx64, name, &size, &references, users,
                            state, &base),
                     6);
    ck_assert_str_eq(module->name, name);
    ck_assert_uint_eq(module->size, size);
    ck_assert_uint_eq(module->references, references);
    ck_assert_uint_eq(module->base, base);
    ck_assert_uint_eq(module->state, strcmp(state, "Live") == 0 ? VMIBUS_LINUX_MODULE_LIVE : 99u);
    cursor->at = strchr(cursor->at, '\n') + 1;
    cursor->n++;
    return true;
}

void compare_modules(struct linux_bed *bed) {
    char *answer = linux_bed_ask(bed, "cat /proc/modules");
    struct cursor cursor = {.at = answer};
    struct vmibus_linux_picture picture;
    int r = vmibus_linux_visit_modules(bed->kernel, compare_module, &cursor, &picture);

    ck_assert_msg(r == 0, "%s", vmibus_linux_why(bed->kernel));
    ck_assert_msg(strncmp(cursor.at, "OK cat", 6) == 0, "we lack: %s", cursor.at);
    ck_assert_uint_ge(cursor.n, 3);
    ck_assert_uint_eq(picture.n_seen, cursor.n);
    ck_assert_uint_eq(picture.flags, VMIBUS_LINUX_ENDED | VMIBUS_LINUX_STEADY);
    free(answer);
}

/* --- log ----------------------------------------------------------------------------------------------------------- */

/* A line as busybox's dmesg shows it and the agent passes on. */
static void compare_line(struct cursor *cursor, uint64_t time, const char *text, size_t len) {
    const char *end = strchr(cursor->at, '\n');
    char line[2048];
    int n = snprintf(line, sizeof(line), "OUT [%5" PRIu64 ".%06" PRIu64 "] %.*s", time / SECOND, time / 1000 % 1000000, (int)len,
                     text);

    ck_assert_ptr_nonnull(end);
    /* The agent reads lines of at most 1023 octets. */
    if (n < 1000)
        ck_assert_msg((size_t)(end - cursor->at) == (size_t)n && memcmp(cursor->at, line, (size_t)n) == 0, "%.*s is not %s",
                      (int)(end - cursor->at), cursor->at, line);
    cursor->at = end + 1;
    cursor->n++;
}

static bool compare_record(void *context, const struct vmibus_linux_record *record) {
    struct cursor *cursor = context;
    const char *at = record->text, *newline;

    if (strncmp(cursor->at, "OK exec", 7) == 0)
        return true;    /* came meanwhile */
    while ((newline = strchr(at, '\n'))) {
        compare_line(cursor, record->time, at, (size_t)(newline - at));
        at = newline + 1;
    }
    compare_line(cursor, record->time, at, strlen(at));
    ck_assert_uint_le(record->level, 7);
    return true;
}

void compare_log(struct linux_bed *bed) {
    char *answer = linux_bed_ask(bed, "exec dmesg");
    struct cursor cursor = {.at = answer};
    struct vmibus_linux_picture picture;
    int r = vmibus_linux_visit_log(bed->kernel, compare_record, &cursor, &picture);

    ck_assert_msg(r == 0, "%s", vmibus_linux_why(bed->kernel));
    ck_assert_msg(strncmp(cursor.at, "OK exec", 7) == 0, "we lack: %s", cursor.at);
    ck_assert_uint_gt(cursor.n, 100);
    ck_assert_uint_eq(picture.n_broken, 0);
    ck_assert(picture.flags & VMIBUS_LINUX_ENDED);
    free(answer);
}

/* --- facts --------------------------------------------------------------------------------------------------------- */

/* What a command of the guest says first. */
static char *first_line(struct linux_bed *bed, const char *command) {
    char *answer = linux_bed_ask(bed, "%s", command);

    ck_assert_msg(strncmp(answer, "OUT ", 4) == 0, "%s", answer);
    memmove(answer, answer + 4, strlen(answer + 4) + 1);
    answer[strcspn(answer, "\n")] = '\0';
    return answer;
}

static void check_text(struct linux_bed *bed, const char *command, const char *text) {
    char *line = first_line(bed, command);

    ck_assert_str_eq(text, line);
    free(line);
}

static uint64_t uptime(struct linux_bed *bed) {
    char *line = first_line(bed, "cat /proc/uptime");
    uint64_t seconds, hundredths;

    ck_assert_int_eq(sscanf(line, "%" SCNu64 ".%" SCNu64, &seconds, &hundredths), 2);
    free(line);
    return seconds * SECOND + hundredths * (SECOND / 100);
}

void compare_facts(struct linux_bed *bed) {
    struct vmibus_linux_facts facts;
    uint64_t before, after;
    char hex[41], *line;

    line = linux_bed_ask(bed, "exec hostname vmibus-symbols");
    free(line);
    before = uptime(bed);
    ck_assert_int_eq(vmibus_linux_read_facts(bed->kernel, &facts), 0);
    after = uptime(bed);
    ck_assert_uint_eq(facts.flags, 31);
    check_text(bed, "exec uname -r", facts.release);
    /* Ubuntu's goes on with what is in /proc/version_signature. */
    line = first_line(bed, "cat /proc/version");
    ck_assert_msg(strncmp(facts.banner, line, strlen(line)) == 0, "%s is not %s", facts.banner, line);
    free(line);
    check_text(bed, "cat /proc/cmdline", facts.command_line);
    ck_assert_str_eq(facts.host_name, "vmibus-symbols");
    /* The guest answers while it is awake: its clocks are no older than the first answer, by more than it may sleep at once. */
    ck_assert_uint_le(facts.uptime, after + SECOND / 100);
    ck_assert_uint_ge(facts.uptime + 10 * SECOND, before);
    line = first_line(bed, "exec grep btime /proc/stat");
    ck_assert_uint_eq(facts.boot_time / SECOND, strtoull(line + strlen("btime "), NULL, 10));
    free(line);
    line = first_line(bed, "exec od -An -v -tx1 /sys/kernel/notes | tr -d ' \\n'");
    ck_assert_uint_eq(facts.build_id_len, 20);
    for (size_t i = 0; i < 20; i++)
        snprintf(hex + 2 * i, 3, "%02x", facts.build_id[i]);
    ck_assert_msg(strstr(line, hex), "%s is not in %s", hex, line);
    free(line);
}

