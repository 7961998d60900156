/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/daemon.h"

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"

/* What must be as it was; each round trip gives the daemon time to notice what the test did. */
static const enum vmibus_counter charged[DAEMON_CHARGES] = {
    VMIBUS_COUNTER_CONNECTIONS,  VMIBUS_COUNTER_COMMANDS_IN_FLIGHT, VMIBUS_COUNTER_LEASES_HELD,   VMIBUS_COUNTER_SUBSCRIPTIONS,
    VMIBUS_COUNTER_EVENT_BLOCKS, VMIBUS_COUNTER_ATTACHMENTS,        VMIBUS_COUNTER_BYTES_CHARGED, VMIBUS_COUNTER_FDS_CHARGED,
};
#define ROUND_TRIPS 100000

#define WATCHED_MS 400

/* --- files ------------------------------------------------------------------------------------- */

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *walk) {
    (void)st;
    (void)type;
    (void)walk;
    return remove(path);
}

void daemon_remove(struct daemon *daemon) {
    ck_assert_int_eq(nftw(daemon->directory, remove_entry, 8, FTW_DEPTH | FTW_PHYS), 0);
}

void daemon_write_file(const struct daemon *daemon, const char *name, const char *text) {
    char path[128];
    FILE *file;

    snprintf(path, sizeof(path), "%s/%s", daemon->directory, name);
    file = fopen(path, "we");
    ck_assert_ptr_nonnull(file);
    ck_assert_int_ge(fputs(text, file), 0);
    ck_assert_int_eq(fclose(file), 0);
}

static const char *program_path(char *path, size_t size, const char *name) {
    const char *directory = getenv("top_builddir");

    snprintf(path, size, "%s/%s", directory ? directory : ".", name);
    if (access(path, X_OK) < 0)
        test_skip("%s is not there: set top_builddir", path);
    return path;
}

static const char *sensor_path(char *path, size_t size) {
    const char *directory = getenv("VMIBUS_SENSOR_DIR");
    const char *build = getenv("top_builddir");

    if (directory)
        snprintf(path, size, "%s", directory);
    else
        snprintf(path, size, "%s/sensors/modules", build ? build : ".");
    return path;
}

/* --- the process ------------------------------------------------------------------------------- */

static int listen_blocking(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    strcpy(address.sun_path, path);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    ck_assert_int_eq(listen(fd, 16), 0);
    return fd;
}

/* As a service manager does: the socket, then what it kept, from 3 on. Returns the first number that is not passed. */
static int pass_descriptors(const struct daemon *daemon, int listen_fd) {
    static char text[32 * DAEMON_KEPT];
    int given[DAEMON_KEPT + 1], n = 0;

    text[0] = '\0';
    if (listen_fd >= 0) {
        given[n++] = fcntl(listen_fd, F_DUPFD, 2 * DAEMON_KEPT);
        strcpy(text, "socket");
    }
    for (size_t i = 0; i < daemon->options.n_kept; i++) {
        given[n++] = fcntl(daemon->options.kept[i], F_DUPFD, 2 * DAEMON_KEPT);
        snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s%s", n > 1 ? ":" : "", daemon->options.kept_names[i]);
    }
    if (n == 0)
        return 3;
    setenv("LISTEN_FDNAMES", text, 1);
    for (int i = 0; i < n; i++) {
        dup2(given[i], 3 + i);
        close(given[i]);
    }
    snprintf(text, sizeof(text), "%d", n);
    setenv("LISTEN_FDS", text, 1);
    snprintf(text, sizeof(text), "%d", getpid());
    setenv("LISTEN_PID", text, 1);
    return 3 + n;
}

/* In the child: only what is safe there, and exec. */
static void become_daemon(const struct daemon *daemon, char **arguments, int log_fd, int listen_fd) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(log_fd, STDERR_FILENO);
    /* What the test's own process was given is not the daemon's: what it has open is counted. */
    if (close_range((unsigned)pass_descriptors(daemon, listen_fd), ~0U, CLOSE_RANGE_CLOEXEC) < 0)
        _exit(126);
    if (daemon->options.notify)
        setenv("NOTIFY_SOCKET", daemon->options.notify, 1);
    else
        unsetenv("NOTIFY_SOCKET");
    if (daemon->options.descriptors) {
        struct rlimit limit = {daemon->options.descriptors, daemon->options.descriptors};

        setrlimit(RLIMIT_NOFILE, &limit);
    }
    execv(arguments[0], arguments);
    _exit(127);
}

/* --- sensors apart ------------------------------------------------------------------------------- */

#define ARGUMENTS_MAX 16 /* daemon_options.arguments */

/* An argument about a sensor: --stub=N, or --sensor and NAME:KEY=VALUE. How many of the arguments it is; 0: none. */
static size_t is_of_sensor(const char *const *argument) {
    return strcmp(*argument, "--sensor") == 0 ? 2 : strncmp(*argument, "--stub", 6) == 0;
}

/* The sensor of such an argument, and what its KEY=VALUE is there; "": it has none. */
static void parse_sensor(const char *const *argument, char *name, char *option, size_t size) {
    *option = '\0';
    strcpy(name, "stub");
    if (is_of_sensor(argument) == 2)
        ck_assert_int_ge(sscanf(argument[1], "%15[^:]:%127s", name, option), 1);
    else if (strncmp(*argument, "--stub=", 7) == 0)
        snprintf(option, size, "vms=%s", *argument + 7);
}

static void be_sensord(const struct daemon *daemon, const char *sensor) {
    static char program[4096], sensors[4096], state[128], names[ARGUMENTS_MAX][16], options[ARGUMENTS_MAX][128],
        config[128];
    char *arguments[48] = {(char *)program_path(program, sizeof(program), "vmibus-sensord"),
                           (char *)"--config",
                           config,
                           (char *)"--sensor-directory",
                           (char *)sensor_path(sensors, sizeof(sensors)),
                           (char *)"--state-directory",
                           state,
                           (char *)"--socket",
                           (char *)daemon->path};
    size_t n = 9;

    snprintf(state, sizeof(state), "%s/state", daemon->directory);
    snprintf(config, sizeof(config), "%s/sensord.conf", daemon->directory);
    for (size_t i = 0; i < ARGUMENTS_MAX && daemon->options.arguments[i]; i++) {
        const char *const *argument = &daemon->options.arguments[i];

        if (strcmp(*argument, "--sensor-directory") == 0)
            arguments[4] = (char *)argument[1];
        if (!is_of_sensor(argument))
            continue;
        parse_sensor(argument, names[i], options[i], sizeof(options[i]));
        if (strcmp(names[i], sensor) == 0 && *options[i]) {
            arguments[n++] = (char *)"--set";
            arguments[n++] = options[i];
        }
    }
    arguments[n++] = (char *)sensor;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (!getenv("VMIBUS_TEST_APART_LOG"))
        dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), STDERR_FILENO);
    execv(arguments[0], arguments);
    _exit(127);
}

static void spawn_sensord(struct daemon *daemon, const char *sensor) {
    size_t i = 0;
    pid_t pid;

    while (daemon->sensords[i])
        ck_assert_uint_lt(++i, DAEMON_SENSORS);
    fflush(NULL);
    pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0)
        be_sensord(daemon, sensor);
    daemon->sensords[i] = pid;
}

static void spawn_sensords(struct daemon *daemon) {
    char last[16] = "stub", name[16], option[128];

    daemon_write_file(daemon, "sensord.conf", daemon->options.sensor_config ? daemon->options.sensor_config : "");
    spawn_sensord(daemon, "stub");
    for (size_t i = 0; i < ARGUMENTS_MAX && daemon->options.arguments[i]; i++) {
        if (!is_of_sensor(&daemon->options.arguments[i]))
            continue;
        parse_sensor(&daemon->options.arguments[i], name, option, sizeof(option));
        if (strcmp(name, "stub") != 0 && strcmp(name, last) != 0)
            spawn_sensord(daemon, strcpy(last, name));
    }
}

static void end_sensords(struct daemon *daemon) {
    int status;

    for (size_t i = 0; i < DAEMON_SENSORS && daemon->sensords[i]; i++) {
        kill(daemon->sensords[i], SIGKILL);
        ck_assert_int_eq(waitpid(daemon->sensords[i], &status, 0), daemon->sensords[i]);
        daemon->sensords[i] = 0;
    }
}

/* A daemon that did not start may have been given what no memory authority starts with either. */
static void end_apart(struct daemon *daemon, bool served) {
    int status;

    end_sensords(daemon);
    if (!daemon->memd.pid)
        return;
    status = memd_end(&daemon->memd);
    ck_assert_msg(status == 0 || !served, "vmibus-memd ended with %d; it said: %s", status, daemon->memd.log);
    daemon->memd.pid = 0;
}

void daemon_respawn(struct daemon *daemon) {
    static char program[4096], sensors[4096], config[128], state[128];
    bool apart = channels_are_apart();
    char *arguments[32] = {(char *)program_path(program, sizeof(program), "vmibusd"),
                           (char *)"--config",
                           config,
                           (char *)"--state-directory",
                           state,
                           (char *)"--sensor-directory",
                           (char *)sensor_path(sensors, sizeof(sensors)),
                           (char *)"--socket",
                           daemon->path};
    int pipes[2], listen_fd = -1;
    size_t n = 9;

    snprintf(config, sizeof(config), "%s/vmibusd.conf", daemon->directory);
    snprintf(state, sizeof(state), "%s/state", daemon->directory);
    if (apart) {
        memd_spawn(&daemon->memd, daemon->directory);
        arguments[n++] = (char *)"--memory";
        arguments[n++] = daemon->memd.path;
    } else {
        arguments[n++] = (char *)"--stub";
    }
    for (size_t i = 0; i < ARGUMENTS_MAX && daemon->options.arguments[i]; i++) {
        if (apart && is_of_sensor(&daemon->options.arguments[i]))
            i += is_of_sensor(&daemon->options.arguments[i]) - 1;
        else
            arguments[n++] = (char *)daemon->options.arguments[i];
    }
    if (daemon->options.activated)
        listen_fd = listen_blocking(daemon->path);
    ck_assert_int_eq(pipe2(pipes, O_CLOEXEC), 0);
    fflush(NULL);
    daemon->pid = fork();
    ck_assert_int_ge(daemon->pid, 0);
    if (daemon->pid == 0)
        become_daemon(daemon, arguments, pipes[1], listen_fd);
    close(pipes[1]);
    if (listen_fd >= 0)
        close(listen_fd);
    daemon->log_fd = pipes[0];
    daemon->n_log = 0;
    daemon->log[0] = '\0';
    if (apart)
        spawn_sensords(daemon);
}

void daemon_spawn(struct daemon *daemon, const struct daemon_options *options) {
    *daemon = (struct daemon){.options = options ? *options : (struct daemon_options){}, .bystander = -1};
    strcpy(daemon->directory, "/tmp/vmibusd-test-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(daemon->directory));
    /* Other users are to reach the socket. */
    ck_assert_int_eq(chmod(daemon->directory, 0755), 0);
    snprintf(daemon->path, sizeof(daemon->path), "%s/socket", daemon->directory);
    daemon_write_file(daemon, "vmibusd.conf", daemon->options.config ? daemon->options.config : "");
    daemon_respawn(daemon);
}

int daemon_await_exit(struct daemon *daemon) {
    int status;

    /* The pipe ends with the process; what it wrote is kept. */
    while (daemon->n_log < sizeof(daemon->log) - 1) {
        ssize_t n = read(daemon->log_fd, daemon->log + daemon->n_log, sizeof(daemon->log) - 1 - daemon->n_log);

        if (n <= 0)
            break;
        daemon->n_log += (size_t)n;
    }
    daemon->log[daemon->n_log] = '\0';
    ck_assert_int_eq(waitpid(daemon->pid, &status, 0), daemon->pid);
    end_apart(daemon, !WIFEXITED(status) || WEXITSTATUS(status) == 0);
    close(daemon->log_fd);
    if (daemon->bystander >= 0)
        close(daemon->bystander);
    daemon->bystander = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void daemon_kill(struct daemon *daemon) {
    ck_assert_int_eq(kill(daemon->pid, SIGKILL), 0);
    ck_assert_int_eq(daemon_await_exit(daemon), 128 + SIGKILL);
}

void daemon_await_log(struct daemon *daemon, const char *text) {
    char *found;

    while (!(found = strstr(daemon->log, text))) {
        ssize_t n;

        ck_assert_uint_lt(daemon->n_log, sizeof(daemon->log) - 1);
        n = read(daemon->log_fd, daemon->log + daemon->n_log, sizeof(daemon->log) - 1 - daemon->n_log);
        if (n <= 0)
            ck_abort_msg("the daemon ended without '%s'; it said: %s", text, daemon->log);
        daemon->n_log += (size_t)n;
        daemon->log[daemon->n_log] = '\0';
    }
    found += strlen(text);
    daemon->n_log -= (size_t)(found - daemon->log);
    memmove(daemon->log, found, daemon->n_log + 1);
}

void daemon_reload(struct daemon *daemon, const char *config) {
    daemon_write_file(daemon, "vmibusd.conf", config);
    if (daemon->memd.pid) {
        ck_assert_int_eq(kill(daemon->memd.pid, SIGHUP), 0);
        ck_assert_msg(memd_await_log(&daemon->memd, "the policy "), "vmibus-memd ended; it said: %s", daemon->memd.log);
    }
    ck_assert_int_eq(kill(daemon->pid, SIGHUP), 0);
}

/* --- what it holds ----------------------------------------------------------------------------- */

static size_t count_fds_of(pid_t pid, size_t *n_pages) {
    struct dirent *entry;
    char path[320], file[64];
    DIR *directory;
    size_t n = 0;

    snprintf(path, sizeof(path), "/proc/%d/fd", pid);
    directory = opendir(path);
    ck_assert_ptr_nonnull(directory);
    while ((entry = readdir(directory))) {
        ssize_t length;

        snprintf(path, sizeof(path), "/proc/%d/fd/%s", pid, entry->d_name);
        length = readlink(path, file, sizeof(file) - 1);
        file[length > 0 ? length : 0] = '\0';
        if (strncmp(file, "/memfd:vmibus-epoch", 19) == 0)
            ++*n_pages;
        else
            n++;
    }
    closedir(directory);
    return n;
}

/* Its descriptors, but for epoch pages, which stay with their slots; how many of these there are goes to @a n_pages. */
static size_t count_fds(const struct daemon *daemon, size_t *n_pages) {
    size_t n;

    *n_pages = 0;
    n = count_fds_of(daemon->pid, n_pages);
    return daemon->memd.pid ? n + count_fds_of(daemon->memd.pid, n_pages) : n;
}

pid_t daemon_memory_pid(const struct daemon *daemon) {
    return daemon->memd.pid ? daemon->memd.pid : daemon->pid;
}

size_t daemon_count_fds(const struct daemon *daemon) {
    size_t n_pages;

    return count_fds(daemon, &n_pages);
}

/* What a counter has to come back to: a page that was made since is charged. */
static uint64_t expected_charge(const struct daemon *daemon, size_t i) {
    size_t n_pages = 0;

    if (charged[i] == VMIBUS_COUNTER_FDS_CHARGED)
        (void)count_fds(daemon, &n_pages);
    return daemon->charges[i] + (n_pages > daemon->n_pages ? n_pages - daemon->n_pages : 0);
}

static uint64_t cpu_ns(const struct daemon *daemon) {
    unsigned long user, system;
    char path[64];
    FILE *file;

    snprintf(path, sizeof(path), "/proc/%d/stat", daemon->pid);
    file = fopen(path, "re");
    ck_assert_ptr_nonnull(file);
    ck_assert_int_eq(fscanf(file, "%*d (%*[^)]) %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system), 2);
    fclose(file);
    return (uint64_t)(user + system) * 1000000000u / (uint64_t)sysconf(_SC_CLK_TCK);
}

bool daemon_is_calm(const struct daemon *daemon) {
    uint64_t before = cpu_ns(daemon);

    poll(NULL, 0, WATCHED_MS);
    return cpu_ns(daemon) - before < WATCHED_MS * UINT64_C(1000000) / 4;
}

/* What the VMs need is open from then on. */
static void await_vm(int fd, const char *name) {
    struct vmibus_frame unsubscribe = wire_frame(VMIBUS_KIND_SUBSCRIBE);

    (void)wire_find(fd, name);
    ck_assert_uint_eq(wire_ask(fd, &unsubscribe, name, strlen(name)).ack.error, VMIBUS_ERROR_OK);
}

/* There is a memory context of it, whether READY or not. */
static void await_memory(int fd, const char *name) {
    struct vmibus_frame unsubscribe = wire_frame(VMIBUS_KIND_SUBSCRIBE), frame;

    wire_subscribe(fd, name, VMIBUS_KIND_BIT(VMIBUS_KIND_MEMCTX));
    do {
        ck_assert_msg(wire_receive(fd, &frame, NULL), "the connection ended before %s was found", name);
    } while (frame.header.kind != VMIBUS_KIND_MEMCTX || frame.memctx.epoch == 0);
    ck_assert_uint_eq(wire_ask(fd, &unsubscribe, name, strlen(name)).ack.error, VMIBUS_ERROR_OK);
}

void daemon_note(struct daemon *daemon) {
    for (size_t i = 0; i < DAEMON_CHARGES; i++)
        daemon->charges[i] = wire_counter(daemon->bystander, charged[i]);
    daemon->n_fds = count_fds(daemon, &daemon->n_pages);
}

static void serve(struct daemon *daemon) {
    daemon_await_log(daemon, "serving at");
    daemon->bystander = wire_open(daemon->path, NULL);
    if (!daemon->options.unready) {
        await_vm(daemon->bystander, "stub-0");
        await_vm(daemon->bystander, "stub-1");
    }
    if (daemon->options.vm)
        await_memory(daemon->bystander, daemon->options.vm);
    daemon_note(daemon);
}

void daemon_start(struct daemon *daemon, const struct daemon_options *options) {
    daemon_spawn(daemon, options);
    serve(daemon);
}

void daemon_restart(struct daemon *daemon) {
    daemon_respawn(daemon);
    serve(daemon);
}

bool daemon_wait_idle(struct daemon *daemon, char *why, size_t size) {
    for (size_t i = 0; i < DAEMON_CHARGES; i++) {
        uint64_t value = 0;

        for (unsigned n = 0; n < ROUND_TRIPS; n++) {
            value = wire_counter(daemon->bystander, charged[i]);
            if (value == expected_charge(daemon, i))
                break;
        }
        if (value == expected_charge(daemon, i))
            continue;
        snprintf(why, size, "counter %u stays at %lu, was %lu, is to be %lu", charged[i], (unsigned long)value,
                 (unsigned long)daemon->charges[i], (unsigned long)expected_charge(daemon, i));
        return false;
    }
    for (unsigned n = 0; n < ROUND_TRIPS && daemon_count_fds(daemon) > daemon->n_fds; n++)
        (void)wire_counter(daemon->bystander, VMIBUS_COUNTER_CONNECTIONS);
    snprintf(why, size, "%zu descriptors are open, %zu were", daemon_count_fds(daemon), daemon->n_fds);
    return daemon_count_fds(daemon) <= daemon->n_fds;
}

void daemon_await_idle(struct daemon *daemon) {
    char why[128];

    ck_assert_msg(daemon_wait_idle(daemon, why, sizeof(why)), "%s", why);
}

void daemon_stop(struct daemon *daemon) {
    int status;

    daemon_await_idle(daemon);
    /* With a service manager SIGTERM hands over. */
    ck_assert_int_eq(kill(daemon->pid, daemon->options.notify ? SIGINT : SIGTERM), 0);
    status = daemon_await_exit(daemon);
    ck_assert_msg(status == 0, "the daemon ended with %d; it said: %s", status, daemon->log);
    if (!daemon->options.activated)
        ck_assert_int_eq(access(daemon->path, F_OK), -1);
    daemon_remove(daemon);
}
