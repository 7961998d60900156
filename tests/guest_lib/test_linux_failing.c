/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Everything that is read of a Linux kernel, with one thing wrong at a time, each in its turn: a read or symbol that fails, a
 * number in its memory, a member that it does not describe. Nothing crashes or goes on for ever, an error of the reader is passed
 * on as it is, and what is not whole says so.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"
#include "task_image.h"

#define SOUND (VMIBUS_LINUX_ENDED | VMIBUS_LINUX_STEADY)

/* More than any of the visits below needs of a kernel this small. */
#define READS_BOUND 200000
#define SEEN_BOUND 4096

#define SECOND UINT64_C(1000000000)
#define BOOT_TIME (1700000000 * SECOND)
#define UPTIME (77 * SECOND)
#define NAMESPACES 2

static struct image *image;
static struct vmibus_linux_task first_task;
static uint64_t socket_net, local_sock, waiting_sock, names, namespaces, first_net;

/* --- a kernel that has everything ------------------------------------------------------------------------------------- */

static void build_facts(void) {
    static const uint32_t notes[] = {4, 2, 1, 0x554e47, 0, 4, 4, 3, 0x554e47, 0x04030201};
    uint64_t at = image_take(image, 64), clock = image_take(image, 512), line = image_take(image, 8);

    names = image_take(image, 400);
    image_symbol(image, "linux_banner", image_text(image, "Linux version 6.1.0 (somebody)\n"));
    image_put(image, line, image_text(image, "quiet root=/dev/vda"), 8);
    image_symbol(image, "saved_command_line", line);
    memcpy(image->memory + (at - IMAGE_BASE), notes, sizeof(notes));
    image_symbol(image, "__start_notes", at);
    image_symbol(image, "__stop_notes", at + sizeof(notes));
    memcpy(image->memory + (names + UTS_NAME - IMAGE_BASE), "Linux", 6);
    memcpy(image->memory + (names + UTS_NAME + 65 - IMAGE_BASE), "somewhere", 10);
    snprintf(image->kernel.note_text, sizeof(image->kernel.note_text), "OSRELEASE=6.1\nSYMBOL(init_uts_ns)=%llx\n",
             (unsigned long long)names);
    image_symbol(image, "tk_core", clock);
    image_put(image, clock + 8 + CLOCK_SHIFT, 8, 4);
    image_put(image, clock + 8 + CLOCK_NANOSECONDS, (SECOND / 2) << 8, 8);
    image_put(image, clock + 8 + CLOCK_BASE, 7 * SECOND - SECOND / 2, 8);
    image_put(image, clock + 8 + CLOCK_TO_WALL, BOOT_TIME + 70 * SECOND, 8);
    image_put(image, clock + 8 + CLOCK_TO_BOOT, 70 * SECOND, 8);
    image_put(image, clock + 8 + CLOCK_SECONDS, (BOOT_TIME + 77 * SECOND) / SECOND, 8);
}

/* Two network namespaces, of which the second has tables of its own: those of the first are the kernel's. */
static void build_namespaces(void) {
    uint64_t tcp, udp, own, buckets = image_take(image, (size_t)8 * 512);

    ck_assert_int_eq(linux_symbol(&image->kernel, "tcp_hashinfo", &tcp), 0);
    ck_assert_int_eq(linux_symbol(&image->kernel, "udp_table", &udp), 0);
    namespaces = image_take(image, 16);
    image_put(image, namespaces, namespaces, 8);
    image_put(image, namespaces + 8, namespaces, 8);
    image_symbol(image, "net_namespace_list", namespaces);
    for (int i = 0; i < NAMESPACES; i++) {
        uint64_t net = image_take(image, 256);

        image_append(image, namespaces, net + NET_LIST);
        image_put(image, net + NET_INUM, 0xf0000000u + (uint32_t)i, 4);
        image_put(image, net + NET_TCP, tcp, 8);
        image_put(image, net + NET_UDP, udp, 8);
        first_net = i == 0 ? net : first_net;
        socket_net = net;
    }
    own = image_take(image, 256);
    image_put(image, own, image_take(image, 64), 8);
    image_put(image, own + 16, 3, 4);
    image_put(image, own + 60, 3, 4);
    image_put(image, own + 64, image_take(image, 64), 8);
    image_put(image, socket_net + NET_TCP, own, 8);
    own = image_take(image, 64);
    image_put(image, own, image_take(image, 64), 8);
    image_put(image, own + 16, 3, 4);
    image_put(image, socket_net + NET_UDP, own, 8);
    image_put(image, socket_net + NET_UNIX, buckets, 8);
    image_sock(image, buckets, 3, 8, 700);
    image_put(image, image_get(image, buckets + 24) - SOCK_NODE + SOCK_FAMILY, 1, 2);
}

static void build_sockets(uint64_t fds) {
    uint64_t sock = image_sock(image, image->listening, 3, 16, 500), file = image_file(image, 500, 0140777, 0x534f434b);
    uint64_t address = image_take(image, 128);

    image_put(image, file + FILE_PRIVATE, image_get(image, sock + SOCK_SOCKET), 8);
    image_put(image, fds + 24, file, 8);
    image_put(image, fds + 32, image_file(image, 501, 010600, 0x50495045), 8);
    image_put(image, fds + 40, image_file(image, 502, 010600, 0x09041934), 8);
    image_put(image, fds + 48, image_file(image, 503, 010600, 0x6e736673), 8);
    image_put(image, sock + SOCK_NET, socket_net, 8);
    image_put(image, sock + SOCK_FAMILY, 10, 2);
    waiting_sock = image_sock(image, image->connected, 5, 8, 502);
    image_put(image, waiting_sock + SOCK_STATE, VMIBUS_LINUX_SOCKET_TIME_WAIT, 1);
    image_put(image, waiting_sock + SOCK_WAITING, 5, 1);
    image_put(image, image_sock(image, image->connected, 5, 8, 503) + SOCK_STATE, 12, 1);
    image_put(image, image_sock(image, image->datagrams, 5, 16, 504) + SOCK_SOCKET, 0, 8);
    local_sock = image_sock(image, image->locals, 5, 8, 505);
    image_put(image, local_sock + 776, address, 8);
    image_put(image, address + 4, 2 + 6, 4);
    memcpy(image->memory + (address + 10 - IMAGE_BASE), "/run/x", 6);
}

static void build_in(struct image *made) {
    uint64_t task, mm;

    image = made;
    ck_assert_ptr_nonnull(image);
    task = image_process(image, 1, 0, "first");
    mm = image_get(image, task + TASK_MM);
    image_put(image, mm + MM_ARG_START, IMAGE_USER, 8);
    image_put(image, mm + MM_ARG_START + 8, IMAGE_USER + 8, 8);
    image_put(image, mm + MM_ARG_START + 16, IMAGE_USER + 8, 8);
    image_put(image, mm + MM_ARG_START + 24, IMAGE_USER + 16, 8);
    memcpy(image->memory + image->user_gpa, "a name, longer", 15);
    image_put(image, image_get(image, task + TASK_THREAD_PID) + PID_LEVEL, 1, 4);
    image_thread(image, task, 2, "thread");
    image_process(image, 4, 1, "fourth");
    image_put(image, task + TASK_FS, image_take(image, 64), 8);
    build_namespaces();
    build_sockets(image_table(image, task, 64));
    build_facts();
    first_task = (struct vmibus_linux_task){.task = task, .mm = mm, .cr3 = image->process_root, .pid = 1, .tgid = 1,
                                            .start_time = 1000000};
    image->reads = image->n_calls = 0;
}

static void begin(void) {
    build_in(image_new());
}

static void end(void) {
    image = image_free(image);
}

/* --- what is read of it ------------------------------------------------------------------------------------------------ */

struct result {
    int r;
    bool is_list;
    struct vmibus_linux_picture picture;
    size_t n;           /* entries that were shown */
    uint32_t unknown;   /* flags of tasks */
};

static bool see_task(void *context, const struct vmibus_linux_task *task) {
    struct result *result = context;

    ck_assert_uint_le(task->pid, 4194304);
    ck_assert_uint_le(task->n_nested, VMIBUS_LINUX_NESTED_MAX);
    ck_assert_int_eq(task->comm[VMIBUS_LINUX_COMM_SIZE - 1], 0);
    result->unknown |= task->flags;
    return ++result->n < SEEN_BOUND;
}

static bool see_file(void *context, const struct vmibus_linux_file *file) {
    ck_assert_ptr_nonnull(memchr(file->name, 0, sizeof(file->name)));
    ck_assert(file->named || !file->name[0]);
    return ++((struct result *)context)->n < SEEN_BOUND;
}

static bool see_socket(void *context, const struct vmibus_linux_socket *socket) {
    ck_assert_uint_le(socket->kind, VMIBUS_LINUX_SOCKET_UNIX);
    ck_assert_uint_le(socket->name_len, VMIBUS_LINUX_UNIX_NAME_MAX);
    return ++((struct result *)context)->n < SEEN_BOUND;
}

static void visit_tasks(struct result *result) {
    result->is_list = true;
    result->r = vmibus_linux_visit_tasks(&image->kernel, true, see_task, result, &result->picture);
}

static void visit_files(struct result *result) {
    result->is_list = true;
    result->r = vmibus_linux_visit_files(&image->kernel, &first_task, see_file, result, &result->picture);
}

static void visit_sockets(struct result *result) {
    result->is_list = true;
    result->r = vmibus_linux_visit_sockets(&image->kernel, see_socket, result, &result->picture);
}

static void find_task(struct result *result) {
    struct vmibus_linux_task task;

    result->r = vmibus_linux_find_task(&image->kernel, 2, &task);
}

static void count_tasks(struct result *result) {
    struct vmibus_linux_census census;

    result->r = vmibus_linux_count_tasks(&image->kernel, &census);
}

static void read_executions(struct result *result) {
    uint64_t executions;

    result->r = vmibus_linux_read_executions(&image->kernel, first_task.task, &executions);
}

static void read_texts(struct result *result) {
    char text[64];
    size_t len;

    result->r = vmibus_linux_read_arguments(&image->kernel, &first_task, text, sizeof(text), &len);
    ck_assert_uint_le(len, sizeof(text));
    if (result->r == 0)
        result->r = vmibus_linux_read_environment(&image->kernel, &first_task, text, sizeof(text), &len);
    ck_assert_uint_le(len, sizeof(text));
}

/* The kernel describes no dentry: nothing leads to a name. */
static void read_paths(struct result *result) {
    char path[VMIBUS_LINUX_PATH_SIZE];
    int r = vmibus_linux_read_directory(&image->kernel, &first_task, path);

    ck_assert_int_ne(r, 0);
    result->r = vmibus_linux_read_program(&image->kernel, &first_task, path);
    ck_assert_int_ne(result->r, 0);
    result->r = r < 0 ? r : result->r;
}

static void read_facts(struct result *result) {
    struct vmibus_linux_facts facts;

    result->r = vmibus_linux_read_facts(&image->kernel, &facts);
    result->n = (size_t)__builtin_popcount(facts.flags);
    ck_assert_ptr_nonnull(memchr(facts.banner, 0, sizeof(facts.banner)));
    ck_assert_ptr_nonnull(memchr(facts.command_line, 0, sizeof(facts.command_line)));
    ck_assert_uint_le(facts.build_id_len, sizeof(facts.build_id));
    ck_assert(!(facts.flags & VMIBUS_LINUX_HAS_NAMES) || memchr(facts.host_name, 0, sizeof(facts.host_name)));
}

static const struct {
    const char *name;
    void (*run)(struct result *result);
} operations[] = {
    {"tasks", visit_tasks},           {"files", visit_files},   {"sockets", visit_sockets}, {"one task", find_task},
    {"census", count_tasks},          {"texts", read_texts},    {"paths", read_paths},      {"facts", read_facts},
    {"executions", read_executions},
};

#define N_OPERATIONS ((int)(sizeof(operations) / sizeof(operations[0])))

static struct result run(int operation) {
    struct result result = {.n = 0};

    image->reads = 0;
    operations[operation].run(&result);
    ck_assert_msg(image->reads < READS_BOUND, "%s: %zu reads", operations[operation].name, image->reads);
    ck_assert_msg(result.n < SEEN_BOUND || !(result.picture.flags & VMIBUS_LINUX_ENDED), "%s: no end", operations[operation].name);
    return result;
}

/* --- what fails --------------------------------------------------------------------------------------------------------- */

TEST(test_everything_is_read, .setup = begin, .teardown = end) {
    static const size_t expected[] = {3, 4, 6, 0, 0, 0, 0, 5, 0};

    for (int i = 0; i < N_OPERATIONS; i++) {
        struct result result = run(i);

        ck_assert_msg(result.n == expected[i], "%s: %zu", operations[i].name, result.n);
        ck_assert_uint_eq(result.picture.flags, result.is_list ? SOUND : 0);
    }
}

/* An operation on a kernel of which nothing is known yet, with the k-th call failing; false: there are not so many. */
static bool fail_one(int operation, size_t k, int failure, struct result *result) {
    bool hit;

    build_in(image_new());
    image->fail_at = k;
    image->failure = failure;
    *result = run(operation);
    hit = image->n_calls >= k;
    end();
    return hit;
}

/* Whoever reads a guest that has gone must be told so, not that its processes have. */
TEST(test_each_read_that_fails_for_good_ends_it, .iterations = N_OPERATIONS, .timeout = 120) {
    struct result result;
    size_t k = 1;

    for (; fail_one(_i, k, -EIO, &result); k++)
        ck_assert_msg(result.r == -EIO, "%s: call %zu fails for good, and it says %d", operations[_i].name, k, result.r);
    ck_assert_uint_gt(k, 1);
}

/* What the picture calls sound and unbroken has all entries. */
static void expect_honest(int operation, size_t k, const struct result *whole, const struct result *result) {
    const char *name = operations[operation].name;

    ck_assert_msg(result->r >= 0, "%s: call %zu: %d", name, k, result->r);
    ck_assert_msg(result->n <= whole->n, "%s: call %zu: more than there is", name, k);
    if (result->is_list && result->r == 0 && (result->picture.flags & SOUND) == SOUND && result->picture.n_broken == 0)
        ck_assert_msg(result->n == whole->n, "%s: call %zu: %zu of %zu are all that there is", name, k, result->n, whole->n);
}

TEST(test_p12_each_page_that_is_not_there_is_said, .iterations = N_OPERATIONS, .timeout = 120) {
    static const int failures[] = {VMIBUS_GUEST_NOT_PRESENT, VMIBUS_GUEST_UNPROVEN};
    struct result whole, result;

    fail_one(_i, SIZE_MAX, 0, &whole);
    for (size_t i = 0; i < sizeof(failures) / sizeof(failures[0]); i++)
        for (size_t k = 1; fail_one(_i, k, failures[i], &result); k++)
            expect_honest(_i, k, &whole, &result);
}

/* --- what the kernel does not describe -------------------------------------------------------------------------------- */

TEST(test_each_member_that_is_not_described, .iterations = N_OPERATIONS, .timeout = 120) {
    const char *structure, *name;

    for (size_t i = 0; image_member(i, &structure, &name); i++) {
        struct result result;

        build_in(image_new_without(i));
        result = run(_i);
        ck_assert_msg(result.r >= 0, "%s without %s.%s: %d", operations[_i].name, structure, name, result.r);
        if (result.r == VMIBUS_GUEST_UNPROVEN)
            ck_assert_msg(strstr(image->kernel.why, "struct "), "%s without %s.%s: %s", operations[_i].name, structure, name,
                          image->kernel.why);
        end();
    }
}

/* --- what is a lie ------------------------------------------------------------------------------------------------------ */

/* The beginnings of the chains of TCP are as many as they are dull. */
static bool is_dull(uint64_t gva) {
    uint64_t value = image_get(image, gva);

    return value == 0 || (value < 2 * IMAGE_CHAINS && value & 1);
}

/* Each number of the kernel's memory in its turn: a structure where there is none, itself, itself a little further, a half. */
TEST(test_p12_each_number_may_be_anything, .iterations = N_OPERATIONS, .timeout = 300) {
    uint64_t from = IMAGE_BASE + 9 * 4096;

    begin();
    for (uint64_t at = from; at < IMAGE_BASE + image->used; at += 8) {
        uint64_t honest = image_get(image, at);
        const uint64_t lies[] = {0, UINT64_MAX, at, honest + 8, 4096, IMAGE_BASE + IMAGE_LEN - 8, honest ^ UINT64_C(1) << 31};

        for (size_t i = 0; !is_dull(at) && i < sizeof(lies) / sizeof(lies[0]); i++) {
            struct result result;

            image_put(image, at, lies[i], 8);
            result = run(_i);
            ck_assert_msg(result.r >= 0, "%s: %#llx is %#llx: %d", operations[_i].name, (unsigned long long)at,
                          (unsigned long long)lies[i], result.r);
            image_put(image, at, honest, 8);
        }
    }
    end();
}

/* --- facts ---------------------------------------------------------------------------------------------------------------- */

static struct vmibus_linux_facts facts;

static uint32_t facts_now(void) {
    ck_assert_int_eq(vmibus_linux_read_facts(&image->kernel, &facts), 0);
    return facts.flags;
}

TEST(test_facts, .setup = begin, .teardown = end) {
    static const uint8_t id[] = {1, 2, 3, 4};

    ck_assert_uint_eq(facts_now(), 31);
    ck_assert_str_eq(facts.banner, "Linux version 6.1.0 (somebody)");
    ck_assert_str_eq(facts.command_line, "quiet root=/dev/vda");
    ck_assert_str_eq(facts.host_name, "somewhere");
    ck_assert_uint_eq(facts.build_id_len, 4);
    ck_assert_mem_eq(facts.build_id, id, 4);
    ck_assert_uint_eq(facts.boot_time, BOOT_TIME);
    ck_assert_uint_eq(facts.uptime, UPTIME);
}

TEST(test_p12_a_build_id_in_the_note_is_whole_or_another_is_looked_for, .setup = begin, .teardown = end) {
    static const struct {
        const char *line;
        uint8_t len;
    } lines[] = {
        {"\nBUILD-ID=00112233445566778899aabbccddeeff00112233\n", 20},
        {"\nBUILD-ID=00112233445566778899aabbccddeeff0011223\n", 4},
        {"\nBUILD-ID=00112233445566778899aabbccddeeff0011223344\n", 4},
        {"\nBUILD-ID=00112233445566778899AABBCCDDEEFF00112233\n", 4},
        {"\nBUILD-ID=0/112233445566778899aabbccddeeff00112233\n", 4},
        {"\nBUILD-ID=0:112233445566778899aabbccddeeff00112233\n", 4},
        {"\nBUILD-ID=0g112233445566778899aabbccddeeff00112233\n", 4},
        {"\nBUILD-ID=", 4},
    };

    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        strcpy(image->kernel.note_text, lines[i].line);
        ck_assert_msg(facts_now() & VMIBUS_LINUX_HAS_BUILD_ID, "%s", lines[i].line);
        ck_assert_msg(facts.build_id_len == lines[i].len, "%s: %u", lines[i].line, facts.build_id_len);
    }
}

TEST(test_p12_elf_notes_that_reach_beyond_their_end, .setup = begin, .teardown = end) {
    static const uint32_t notes[][5] = {
        {UINT32_MAX, 4, 3, 0x554e47, 1}, {4, UINT32_MAX, 3, 0x554e47, 1}, {4, 8, 3, 0x554e47, 1}, {24, 0, 3, 0x554e47, 1},
        {4, 0, 3, 0x554e47, 1},          {4, 4, 2, 0x554e47, 1},          {3, 4, 3, 0x554e47, 1}, {4, 4, 3, 0x554e48, 1},
        {UINT32_MAX - 2, UINT32_MAX - 2, 3, 0x554e47, 1},
    };
    uint64_t at = image_take(image, 64);

    image_symbol(image, "__start_notes", at);
    for (size_t i = 0; i < sizeof(notes) / sizeof(notes[0]); i++) {
        memcpy(image->memory + (at - IMAGE_BASE), notes[i], sizeof(notes[i]));
        image_symbol(image, "__stop_notes", at + sizeof(notes[i]));
        ck_assert_msg(!(facts_now() & VMIBUS_LINUX_HAS_BUILD_ID), "%zu", i);
    }
    image_symbol(image, "__stop_notes", at + 8192);
    ck_assert(!(facts_now() & VMIBUS_LINUX_HAS_BUILD_ID));
    image_symbol(image, "__stop_notes", at - 8);
    ck_assert(!(facts_now() & VMIBUS_LINUX_HAS_BUILD_ID));
    image_symbol(image, "__stop_notes", 0);
    ck_assert(!(facts_now() & VMIBUS_LINUX_HAS_BUILD_ID));
}

TEST(test_p12_names_and_banner_of_no_linux_are_left_out, .setup = begin, .teardown = end) {
    image_symbol(image, "linux_banner", image_text(image, "linux version"));
    image_put(image, names + UTS_NAME, 'L', 8);
    ck_assert_uint_eq(facts_now(), 31 & ~(VMIBUS_LINUX_HAS_BANNER | VMIBUS_LINUX_HAS_NAMES));
    ck_assert_str_eq(facts.host_name, "");
    strcpy(image->kernel.note_text, "SYMBOL(init_uts_ns)=8");
    ck_assert(!(facts_now() & VMIBUS_LINUX_HAS_NAMES));
    snprintf(image->kernel.note_text, 128, "SYMBOL(init_uts_ns)=%llx\nOFFSET(uts_namespace.name)=%d\n", (unsigned long long)names,
             UTS_NAME);
    memcpy(image->memory + (names + UTS_NAME - IMAGE_BASE), "Linux", 6);
    ck_assert(facts_now() & VMIBUS_LINUX_HAS_NAMES);
}

static uint64_t clock_gva;

static void never_still(struct image *here, uint64_t gpa) {
    if (gpa == clock_gva - IMAGE_BASE)
        image_put(here, clock_gva, image_get(here, clock_gva) + 2, 4);
}

TEST(test_p12_clocks_that_contradict_each_other_are_left_out, .setup = begin, .teardown = end) {
    static const struct {
        uint32_t offset, size;
        uint64_t value;
    } lies[] = {
        {CLOCK_SHIFT, 4, 64},                   {CLOCK_SHIFT, 4, UINT32_MAX}, {CLOCK_NANOSECONDS, 8, UINT64_MAX},
        {CLOCK_BASE, 8, 20 * SECOND},           {CLOCK_BASE, 8, UINT64_MAX},  {CLOCK_SECONDS, 8, 1},
        {CLOCK_TO_BOOT, 8, UINT64_C(1) << 62},  {CLOCK_TO_WALL, 8, 0},        {CLOCK_TO_BOOT, 8, BOOT_TIME + 71 * SECOND},
    };

    ck_assert_int_eq(linux_symbol(&image->kernel, "tk_core", &clock_gva), 0);
    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        uint64_t at = clock_gva + 8 + lies[i].offset, honest = image_get(image, at);

        image_put(image, at, lies[i].value, lies[i].size);
        ck_assert_msg(!(facts_now() & VMIBUS_LINUX_HAS_CLOCKS), "%zu", i);
        ck_assert_uint_eq(facts.boot_time, 0);
        ck_assert_uint_eq(facts.uptime, 0);
        image_put(image, at, honest, 8);
    }
    ck_assert(facts_now() & VMIBUS_LINUX_HAS_CLOCKS);
    image_put(image, clock_gva, 1, 4);
    ck_assert(!(facts_now() & VMIBUS_LINUX_HAS_CLOCKS));
    image_put(image, clock_gva, 2, 4);
    image->before_read = never_still;
    ck_assert(!(facts_now() & VMIBUS_LINUX_HAS_CLOCKS));
    image->before_read = NULL;
    image_symbol(image, "timekeeper_data", clock_gva);
    image_symbol(image, "tk_core", 0);
    ck_assert(facts_now() & VMIBUS_LINUX_HAS_CLOCKS);
}

/* --- sockets -------------------------------------------------------------------------------------------------------------- */

struct sockets {
    struct vmibus_linux_socket all[16];
    size_t n, stop_after;
};

static bool keep_socket(void *context, const struct vmibus_linux_socket *socket) {
    struct sockets *sockets = context;

    ck_assert_uint_lt(sockets->n, 16);
    sockets->all[sockets->n++] = *socket;
    return sockets->n != sockets->stop_after;
}

static struct vmibus_linux_picture keep_sockets(struct sockets *sockets) {
    struct vmibus_linux_picture picture;

    sockets->n = 0;
    ck_assert_int_eq(vmibus_linux_visit_sockets(&image->kernel, keep_socket, sockets, &picture), 0);
    return picture;
}

static const struct vmibus_linux_socket *find_socket(const struct sockets *sockets, uint64_t sock) {
    for (size_t i = 0; i < sockets->n; i++)
        if (sockets->all[i].sock == sock)
            return &sockets->all[i];
    ck_abort_msg("the socket is not shown");
}

TEST(test_sockets_that_are_no_whole_ones, .setup = begin, .teardown = end) {
    static struct sockets sockets;

    ck_assert_uint_eq(keep_sockets(&sockets).flags, SOUND);
    ck_assert_uint_eq(sockets.all[0].net_namespace, 0xf0000001u);
    ck_assert_uint_eq(find_socket(&sockets, waiting_sock)->state, 5);
    ck_assert_uint_eq(find_socket(&sockets, waiting_sock)->inode, 0);
    ck_assert_uint_eq(find_socket(&sockets, local_sock)->name_len, 6);
    ck_assert_str_eq(find_socket(&sockets, local_sock)->name, "/run/x");
    for (sockets.stop_after = 1; sockets.stop_after < 6; sockets.stop_after++) {
        ck_assert_uint_eq(keep_sockets(&sockets).flags & VMIBUS_LINUX_ENDED, 0);
        ck_assert_uint_eq(sockets.n, sockets.stop_after);
    }
}

TEST(test_p12_names_of_sockets_that_cannot_be, .setup = begin, .teardown = end) {
    static const struct {
        uint32_t len;
        uint8_t first, shown;
    } lengths[] = {{0, '/', 0}, {2, '/', 0}, {3, '/', 1}, {8, 0, 6}, {UINT32_MAX, 0, VMIBUS_LINUX_UNIX_NAME_MAX},
                   {0x80000000, '/', 6}};
    static struct sockets sockets;
    uint64_t address = image_get(image, local_sock + 776);

    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        image_put(image, address + 4, lengths[i].len, 4);
        image_put(image, address + 10, lengths[i].first, 1);
        ck_assert_uint_eq(keep_sockets(&sockets).flags, SOUND);
        ck_assert_uint_eq(find_socket(&sockets, local_sock)->name_len, lengths[i].shown);
    }
    image_put(image, local_sock + SOCK_FAMILY, 2, 2);
    ck_assert_uint_eq(keep_sockets(&sockets).n_broken, 1);
}

/* A list of namespaces in a circle, and one without end in which each points back as it should. */
TEST(test_p09_namespaces_without_end, .setup = begin, .teardown = end) {
    static struct sockets sockets;
    struct vmibus_linux_picture picture;
    uint64_t second = image_get(image, namespaces + 8);

    image_put(image, second, first_net + NET_LIST, 8);
    picture = keep_sockets(&sockets);
    ck_assert_uint_eq(picture.flags & SOUND, 0);
    ck_assert_uint_eq(picture.n_broken, 1);
    ck_assert_uint_eq(sockets.n, 6);
    image_put(image, second, namespaces, 8);
    for (int i = 0; i < 5000; i++)
        image_append(image, namespaces, image_take(image, 256) + NET_LIST);
    picture = keep_sockets(&sockets);
    ck_assert_uint_eq(picture.flags & (VMIBUS_LINUX_BOUNDED | VMIBUS_LINUX_ENDED), VMIBUS_LINUX_BOUNDED);
}

/* Each namespace may say that it has a table as large as one can be: all together are bounded. */
TEST(test_p09_tables_of_many_namespaces_are_bounded, .setup = begin, .teardown = end, .timeout = 120) {
    struct result result = {.n = 0};

    for (int i = 0; i < 8; i++) {
        uint64_t net = image_take(image, 256), table = image_take(image, 64);

        image_append(image, namespaces, net + NET_LIST);
        image_put(image, net + NET_UDP, table, 8);
        image_put(image, table, IMAGE_BASE, 8);
        image_put(image, table + 16, (1u << 22) - 1, 4);
    }
    visit_sockets(&result);
    ck_assert_int_eq(result.r, 0);
    ck_assert_uint_eq(result.picture.flags & (VMIBUS_LINUX_BOUNDED | VMIBUS_LINUX_ENDED), VMIBUS_LINUX_BOUNDED);
}

/* A ring in which all is linked as it should be, and of which the table's own pointer is a part. */
TEST(test_p09_a_chain_that_leads_into_its_own_table, .setup = begin, .teardown = end) {
    static struct sockets sockets;
    uint64_t head = image->locals + 8 * 9, sock = image_sock(image, image->locals, 9, 8, 900);
    struct vmibus_linux_picture picture;

    image_put(image, sock + SOCK_NODE, head, 8);
    image_put(image, head + 8, sock + SOCK_NODE, 8);
    picture = keep_sockets(&sockets);
    ck_assert_uint_eq(picture.flags & SOUND, 0);
    ck_assert_uint_lt(sockets.n, 10);
}

HARNESS_SUITE("linux kernels of which one thing is wrong", HARNESS_QUICK)
