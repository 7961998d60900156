/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The QEMU sensor finds VMs by itself, in a directory of monitors, and is told of others by command.  Time is the test's.
 */
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fake_qemu.h"
#include "mock_host.h"
#include "qemu/qemu.h"

#define NS_PER_MS UINT64_C(1000000)
#define STRANGER 65534

static char place[64], watched[80];
static struct fake_qemu *fakes[4];
static struct mock_host *host;

static void settle(void) {
    bool busy;

    do {
        mock_host_settle(host);
        busy = false;
        for (size_t i = 0; i < 4; i++)
            busy |= fakes[i] && fake_serve(fakes[i]);
    } while (busy);
}

static void pass(unsigned int ms) {
    for (unsigned int i = 0; i < ms; i += 10) {
        mock_host_advance(host, 10 * NS_PER_MS);
        settle();
    }
}

static void begin(void) {
    strcpy(place, "/tmp/vmibus-directory-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(place));
    snprintf(watched, sizeof(watched), "%s/vms", place);
    ck_assert_int_eq(mkdir(watched, 0700), 0);
}

static void end(void) {
    char command[128];

    host = mock_host_free(host);
    for (size_t i = 0; i < 4; i++)
        if (fakes[i])
            fakes[i] = fake_free(fakes[i]);
    snprintf(command, sizeof(command), "rm -rf %s", place);
    ck_assert_int_eq(system(command), 0);
}

static void start_with(const char *more) {
    char directory[128];
    const char *const options[] = {directory, more, NULL};

    snprintf(directory, sizeof(directory), "directory=%s", watched);
    host = mock_host_new(&vmibus_qemu_sensor);
    mock_host_own_time(host);
    ck_assert_int_eq(mock_host_start(host, options), 0);
    pass(50);
}

static void start(void) {
    start_with(NULL);
}

static const char *in_directory(const char *file) {
    static char path[200];

    snprintf(path, sizeof(path), "%.*s/%s", (int)sizeof(watched) - 1, watched, file);
    return path;
}

static void put_path(char *to, size_t size, const char *file) {
    const char *path = in_directory(file);

    ck_assert_uint_lt(strlen(path), size);
    memcpy(to, path, strlen(path) + 1);
}

/* A monitor whose socket appears under that name. */
static struct fake_qemu *appear(size_t i, const char *file) {
    fakes[i] = fake_new();
    fake_close(fakes[i]);
    put_path(fakes[i]->path, sizeof(fakes[i]->path), file);
    fake_listen(fakes[i]);
    return fakes[i];
}

static void touch(const char *file) {
    int fd = open(in_directory(file), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

    ck_assert_int_ge(fd, 0);
    close(fd);
}

/* A socket that nobody listens on yet. */
static int bind_socket(const char *file) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    put_path(address.sun_path, sizeof(address.sun_path), file);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

static void leave_socket(const char *file) {
    close(bind_socket(file));
}

static const char *complaint(void) {
    const struct mock_record *record = mock_host_last(host, MOCK_ANNOUNCE);

    return record->state == VMIBUS_SENSOR_STATE_DEGRADED ? record->message : "";
}

#define assert_complaint(text) ck_assert_msg(strstr(complaint(), text), "'%s' does not say '%s'", complaint(), text)

static bool is_followed(const char *name) {
    return mock_host_endpoint(host, name);
}

/* --- coming and going -------------------------------------------------------------------------- */

TEST(test_sockets_are_vms_as_they_appear, .setup = begin, .teardown = end) {
    appear(0, "one.qmp");
    start();
    ck_assert(is_followed("one"));
    appear(1, "two.sock");
    touch("notes.txt");
    pass(50);
    ck_assert(is_followed("two"));
    ck_assert_uint_eq(mock_host_count(host, MOCK_OFFER), 2);
    ck_assert_str_eq(complaint(), "");
    /* One that is moved here appears too. */
    fakes[2] = fake_new();
    ck_assert_int_eq(rename(fakes[2]->path, in_directory("three.x.qmp")), 0);
    put_path(fakes[2]->path, sizeof(fakes[2]->path), "three.x.qmp");
    pass(50);
    ck_assert(is_followed("three.x"));
}

/* A file is not the VM: what runs goes on being seen. */
TEST(test_vm_stays_as_long_as_its_process, .setup = begin, .teardown = end) {
    start();
    appear(0, "one.qmp");
    pass(50);
    ck_assert_int_eq(unlink(in_directory("one.qmp")), 0);
    pass(200);
    ck_assert(is_followed("one"));
    fake_hang_up(fakes[0]);
    pass(500);
    ck_assert(is_followed("one")); /* the process that listens is this test */
    ck_assert_uint_eq(mock_host_count(host, MOCK_WITHDRAW), 0);
}

/* A QEMU in a process of its own, whose end the sensor sees. */
static pid_t listen_apart(const char *file) {
    pid_t pid = fork();

    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        struct fake_qemu *fake = fake_new();

        fake_close(fake);
        (void)rmdir(fake->directory); /* it is killed, and cleans nothing up */
        put_path(fake->path, sizeof(fake->path), file);
        fake_listen(fake);
        for (;;)
            if (!fake_serve(fake))
                usleep(1000);
    }
    return pid;
}

/* Lets time pass here and there until the VM is followed, or not any more. */
static bool becomes(bool followed) {
    for (unsigned int i = 0; i < 20000; i++) {
        pass(10);
        if (is_followed("one") == followed)
            return true;
        usleep(1000);
    }
    return false;
}

TEST(test_vm_goes_with_its_process, .setup = begin, .teardown = end) {
    struct vmibus_sensor_endpoint *first;
    pid_t pid;

    start();
    pid = listen_apart("one.qmp");
    ck_assert(becomes(true));
    first = mock_host_endpoint(host, "one");
    ck_assert_uint_eq(first->pid, (uint32_t)pid);
    ck_assert_int_eq(unlink(in_directory("one.qmp")), 0);
    pass(100);
    ck_assert(is_followed("one"));
    kill(pid, SIGKILL);
    ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
    ck_assert(becomes(false));
    ck_assert_int_eq(mock_host_last(host, MOCK_WITHDRAW)->reason, VMIBUS_REASON_EXIT);
    /* And the name is free for the next one. */
    pid = listen_apart("one.qmp");
    ck_assert(becomes(true));
    ck_assert_uint_eq(mock_host_endpoint(host, "one")->pid, (uint32_t)pid);
    kill(pid, SIGKILL);
    ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
}

/* That somebody listens at last is no change of the file: nothing looks again for it, which idle sensors never do. */
TEST(test_p02_socket_nobody_listens_on_is_left_in_peace_until_it_changes, .setup = begin, .teardown = end) {
    int fd = bind_socket("one.qmp"), client;

    start();
    pass(20000);
    ck_assert_str_eq(complaint(), "");
    ck_assert_int_eq(listen(fd, 1), 0);
    pass(30000);
    ck_assert_int_eq(accept(fd, NULL, NULL), -1);
    ck_assert_int_eq(errno, EAGAIN);
    ck_assert_int_eq(chmod(in_directory("one.qmp"), 0600), 0);
    pass(100);
    client = accept(fd, NULL, NULL);
    ck_assert_int_ge(client, 0);
    close(client);
    close(fd);
    ck_assert_int_eq(unlink(in_directory("one.qmp")), 0);
    pass(100);
    appear(0, "one.qmp");
    pass(100);
    ck_assert(is_followed("one"));
}

TEST(test_directory_may_come_later_and_be_another, .setup = begin, .teardown = end) {
    char aside[96];

    ck_assert_int_eq(rmdir(watched), 0);
    start();
    ck_assert_str_eq(complaint(), "");
    ck_assert_int_eq(mkdir(watched, 0700), 0);
    appear(0, "one.qmp");
    pass(50);
    ck_assert(is_followed("one"));
    /* Moved aside, and another put in its place. */
    snprintf(aside, sizeof(aside), "%s/aside", place);
    ck_assert_int_eq(rename(watched, aside), 0);
    pass(50);
    ck_assert_int_eq(mkdir(watched, 0700), 0);
    pass(50);
    appear(1, "two.qmp");
    pass(50);
    ck_assert(is_followed("two"));
    ck_assert(is_followed("one")); /* its process is there */
}

/* More happens than the kernel keeps events for: what counts is what is there. */
TEST(test_p09_more_events_than_are_kept_lose_nothing, .setup = begin, .teardown = end, .timeout = 120) {
    char name[32];
    FILE *file = fopen("/proc/sys/fs/inotify/max_queued_events", "re");
    unsigned int bound = 0;

    ck_assert_ptr_nonnull(file);
    ck_assert_int_eq(fscanf(file, "%u", &bound), 1);
    fclose(file);
    if (bound > 50000)
        test_skip("fs.inotify.max_queued_events is too high to be reached here");
    start();
    /* Each name makes and loses a file, and nothing reads events meanwhile. */
    for (unsigned int i = 0; i < bound; i++) {
        snprintf(name, sizeof(name), "%u.qmp", i);
        touch(name);
        ck_assert_int_eq(unlink(in_directory(name)), 0);
    }
    appear(0, "one.qmp");
    pass(100);
    ck_assert(is_followed("one"));
    ck_assert_str_eq(complaint(), "");
}

/* --- what is not trusted ----------------------------------------------------------------------- */

TEST(test_p09_strange_files_are_told_and_left_alone, .setup = begin, .teardown = end) {
    start();
    touch("plain.qmp");
    pass(50);
    assert_complaint("plain.qmp is no socket");
    ck_assert_int_eq(unlink(in_directory("plain.qmp")), 0);
    fakes[0] = fake_new();
    ck_assert_int_eq(symlink(fakes[0]->path, in_directory("link.qmp")), 0);
    pass(50);
    assert_complaint("link.qmp is a link");
    ck_assert_int_eq(unlink(in_directory("link.qmp")), 0);
    ck_assert_int_eq(mkdir(in_directory("folder.qmp"), 0700), 0);
    pass(50);
    assert_complaint("folder.qmp is no socket");
    ck_assert_int_eq(rmdir(in_directory("folder.qmp")), 0);
    leave_socket("a\nb.qmp");
    pass(50);
    assert_complaint("a?b.qmp is no name of a VM");
    leave_socket("c.qmp");
    touch("d.qmp");
    pass(50);
    assert_complaint("(and 1 more)");
    ck_assert_uint_eq(mock_host_count(host, MOCK_OFFER), 0);
}

TEST(test_p09_nobody_else_plants_a_vm, .setup = begin, .teardown = end) {
    if (geteuid() != 0)
        test_skip("only root can give files to others");
    start();
    appear(0, "one.qmp");
    ck_assert_int_eq(chown(in_directory("one.qmp"), STRANGER, (gid_t)-1), 0);
    pass(50);
    assert_complaint("one.qmp is of uid 65534");
    ck_assert(!is_followed("one"));
    /* It becomes good without being made anew. */
    ck_assert_int_eq(chown(in_directory("one.qmp"), 0, (gid_t)-1), 0);
    pass(50);
    ck_assert(is_followed("one"));
    ck_assert_str_eq(complaint(), "");
}

TEST(test_owner_who_is_allowed_may, .setup = begin, .teardown = end) {
    if (geteuid() != 0)
        test_skip("only root can give files to others");
    appear(0, "one.qmp");
    ck_assert_int_eq(chown(in_directory("one.qmp"), STRANGER, (gid_t)-1), 0);
    start_with("directory-owners=nobody 12345");
    ck_assert(is_followed("one"));
}

TEST(test_p09_directory_that_strangers_may_change_makes_no_vm, .setup = begin, .teardown = end) {
    if (geteuid() != 0)
        test_skip("only root can give files to others");
    appear(0, "one.qmp");
    ck_assert_int_eq(chmod(watched, 0777), 0);
    start();
    assert_complaint("others may write to it");
    ck_assert(!is_followed("one"));
    ck_assert_int_eq(chmod(watched, 01777), 0); /* whoever owns a file there could still make one */
    pass(50);
    assert_complaint("others may write to it");
    ck_assert_int_eq(chmod(watched, 0700), 0);
    ck_assert_int_eq(chown(watched, STRANGER, (gid_t)-1), 0);
    pass(50);
    assert_complaint("its owner, uid 65534");
    ck_assert_int_eq(chown(watched, 0, (gid_t)-1), 0);
    ck_assert_int_eq(chmod(place, 0777), 0);
    touch("look.txt");
    pass(50);
    assert_complaint("on the way to it");
    ck_assert(!is_followed("one"));
    ck_assert_int_eq(chmod(place, 0700), 0);
    touch("again.txt");
    pass(50);
    ck_assert(is_followed("one"));
}

TEST(test_p08_limit_is_kept_and_named, .setup = begin, .teardown = end) {
    char name[32];

    for (unsigned int i = 0; i < 40; i++) {
        snprintf(name, sizeof(name), "%u.qmp", i);
        leave_socket(name);
    }
    start_with("directory-limit=2");
    assert_complaint("2 VMs");
    assert_complaint("directory-limit");
}

TEST(test_one_name_is_one_vm, .setup = begin, .teardown = end) {
    char monitor[160];

    fakes[0] = fake_new();
    snprintf(monitor, sizeof(monitor), "monitor.one=%s", fakes[0]->path);
    appear(1, "one.qmp");
    start_with(monitor);
    assert_complaint("a VM one is followed already");
    ck_assert_uint_eq(mock_host_count(host, MOCK_OFFER), 1);
}

TEST(test_patterns, .setup = begin, .teardown = end) {
    appear(0, "one.monitor");
    appear(1, "two.qmp");
    start_with("directory-pattern=*.monitor *.other");
    ck_assert(is_followed("one"));
    ck_assert(!is_followed("two"));
}

TEST(test_options_are_checked, .setup = begin, .teardown = end) {
    static const char *const wrong[] = {"directory=vms",         "directory.a=vms",   "directory-owners=no such user",
                                        "directory-owners=-1",   "directory-limit=0", "directory-limit=1x",
                                        "directory-limit=65537", "directories=/x"};

    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        const char *const options[] = {wrong[i], NULL};

        host = mock_host_new(&vmibus_qemu_sensor);
        ck_assert_int_eq(mock_host_start(host, options), -EINVAL);
        ck_assert_int_eq(mock_host_last(host, MOCK_ANNOUNCE)->state, VMIBUS_SENSOR_STATE_FAILED);
        host = mock_host_free(host);
    }
}

/* --- by command -------------------------------------------------------------------------------- */

static enum vmibus_error command(enum vmibus_monitor_operation operation, const char *name, const char *path) {
    struct vmibus_frame frame = {.header = {.kind = VMIBUS_KIND_CMD_MONITOR}, .cmd_monitor = {.operation = (uint8_t)operation}};
    char text[512];
    uint64_t id;

    snprintf(text, sizeof(text), "%s%s%s", name, path ? "=" : "", path ? path : "");
    id = mock_host_execute(host, NULL, &frame, text, strlen(text));
    settle();
    ck_assert_ptr_nonnull(mock_host_ack(host, id));
    return (enum vmibus_error)mock_host_ack(host, id)->error;
}

#define add(name, path) command(VMIBUS_MONITOR_OPERATION_ADD, name, path)
#define take_away(name) command(VMIBUS_MONITOR_OPERATION_REMOVE, name, NULL)

TEST(test_vm_is_added_and_removed_by_command, .setup = begin, .teardown = end) {
    char longest[300];

    fakes[0] = fake_new();
    start();
    ck_assert_int_eq(add("one", fakes[0]->path), VMIBUS_ERROR_OK);
    pass(50);
    ck_assert(is_followed("one"));
    ck_assert_int_eq(add("one", fakes[0]->path), VMIBUS_ERROR_OK);
    ck_assert_int_eq(add("one", "/else"), VMIBUS_ERROR_BUSY);
    ck_assert_int_eq(add("two", NULL), VMIBUS_ERROR_VALIDATION);
    ck_assert_int_eq(add("", "/path"), VMIBUS_ERROR_VALIDATION);
    ck_assert_int_eq(add("two", "relative"), VMIBUS_ERROR_VALIDATION);
    ck_assert_int_eq(add("a\nb", "/path"), VMIBUS_ERROR_VALIDATION);
    memset(longest, 'x', sizeof(longest) - 1);
    longest[0] = '/';
    longest[sizeof(longest) - 1] = '\0';
    ck_assert_int_eq(add("two", longest), VMIBUS_ERROR_VALIDATION);
    ck_assert_int_eq(take_away("two"), VMIBUS_ERROR_GONE);
    ck_assert_int_eq(take_away("one"), VMIBUS_ERROR_OK);
    ck_assert(!is_followed("one"));
    ck_assert_int_eq(mock_host_last(host, MOCK_WITHDRAW)->reason, VMIBUS_REASON_WITHDRAWN);
    ck_assert_int_eq(add("one", fakes[0]->path), VMIBUS_ERROR_OK);
    pass(50);
    ck_assert(is_followed("one"));
}

TEST(test_p08_commands_keep_the_limit, .setup = begin, .teardown = end) {
    start_with("directory-limit=2");
    ck_assert_int_eq(add("one", "/1"), VMIBUS_ERROR_OK);
    ck_assert_int_eq(add("two", "/2"), VMIBUS_ERROR_OK);
    ck_assert_int_eq(add("three", "/3"), VMIBUS_ERROR_PRESSURE);
}

/* It is not found again at the next look, only when it is another file. */
TEST(test_removed_vm_of_the_directory_stays_away_until_it_is_another, .setup = begin, .teardown = end) {
    appear(0, "one.qmp");
    start();
    ck_assert(is_followed("one"));
    ck_assert_int_eq(take_away("one"), VMIBUS_ERROR_OK);
    touch("look.txt");
    pass(100);
    ck_assert(!is_followed("one"));
    fake_close(fakes[0]);
    pass(50);
    fake_listen(fakes[0]);
    pass(100);
    ck_assert(is_followed("one"));
}

/* --- another provider -------------------------------------------------------------------------- */

static void tell_active(uint32_t groups) {
    vmibus_qemu_sensor.active(mock_host_instance(host), mock_host_endpoint(host, "one")->userdata, groups);
    settle();
}

TEST(test_standby_proposes_no_layout_until_it_is_active, .setup = begin, .teardown = end) {
    appear(0, "one.qmp");
    start();
    ck_assert_uint_eq(mock_host_count(host, MOCK_LAYOUT), 1);
    tell_active(VMIBUS_GROUP_INPUT);
    mock_host_clear(host);
    fake_event(fakes[0], "RESET", "{\"guest\": true, \"reason\": \"guest-reset\"}");
    pass(3000);
    ck_assert_uint_eq(mock_host_count(host, MOCK_LAYOUT), 0);
    ck_assert_uint_eq(mock_host_count(host, MOCK_END_EPOCH), 0);
    tell_active(VMIBUS_GROUP_INPUT | VMIBUS_GROUP_MEMORY);
    pass(100);
    ck_assert_uint_eq(mock_host_count(host, MOCK_LAYOUT), 1);
    ck_assert_uint_eq(mock_host_count(host, MOCK_END_EPOCH), 0);
    /* One that becomes active and sees nothing lets nobody rely on what it cannot vouch for. */
    tell_active(0);
    fake_hang_up(fakes[0]);
    fake_close(fakes[0]);
    pass(50);
    mock_host_clear(host);
    tell_active(VMIBUS_GROUP_MEMORY);
    ck_assert_uint_eq(mock_host_count(host, MOCK_END_EPOCH), 1);
}

HARNESS_SUITE("QEMU monitors in a directory", HARNESS_QUICK)
