/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmibusd(8): the bus as a daemon. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "core/core.h"
#include "daemon/config.h"
#include "daemon/faults.h"
#include "daemon/incarnation.h"
#include "daemon/leftover.h"
#include "daemon/log.h"
#include "daemon/options.h"
#include "daemon/sensors.h"
#include "daemon/service.h"
#include "daemon/state.h"
#include "transport/listener.h"
#include "util/fds.h"

struct daemon {
    struct options options;
    struct config config;
    struct vmibus_core *core;
    struct listener *listener;
    struct sensor_watch watch;
    struct loop_source signals;
    struct service_fds given;
    int state_fd;
    int audit_fd;
    bool bound;     /**< the socket file is ours to remove */
};

/* --- configuration ----------------------------------------------------------------------------- */

static int configure(const struct options *options, struct config *config) {
    struct config_error error;
    int r = config_init(config);

    if (r < 0)
        return r;
    r = config_read(config, options->config_path, &error);
    if (r == -ENOENT && !options->config_path_given)
        r = 0;
    if (r == -EINVAL && error.line)
        log_error("%s:%d: %s", options->config_path, error.line, error.text);
    else if (r == -EINVAL)
        log_error("%s: %s", options->config_path, error.text);
    else if (r < 0)
        log_error("%s cannot be read: %s", options->config_path, strerror(-r));
    if (r == 0)
        r = options_apply(options, config);
    if (r == 0)
        r = faults_add_environment(config);
    if (r < 0)
        config_deinit(config);
    return r;
}

/* Room for what all hold together is set aside at the start. */
static void keep_total_limits(const struct daemon *daemon, struct policy *policy) {
    const struct policy *old = daemon->core->policy;

    if (memcmp(policy->limits_total, old->limits_total, sizeof(policy->limits_total)) == 0)
        return;
    log_warning("[limits-total] changed: what is in force stays so until the daemon is started anew");
    memcpy(policy->limits_total, old->limits_total, sizeof(policy->limits_total));
}

/* What can change while the daemon runs is the policy. A file with a mistake changes nothing. */
static void reload(struct daemon *daemon) {
    struct config config;

    service_reloading();
    if (configure(&daemon->options, &config) == 0) {
        keep_total_limits(daemon, config.policy);
        core_set_policy(daemon->core, config_take_policy(&config));
        faults_apply(&config);
        config_deinit(&config);
        log_info("the policy was read anew from %s", daemon->options.config_path);
    } else {
        log_warning("the policy stays as it was");
    }
    service_ready("serving");
}

/* --- signals ----------------------------------------------------------------------------------- */

static void signal_came(struct loop_source *source, uint32_t events) {
    struct daemon *daemon = container_of(source, struct daemon, signals);
    struct signalfd_siginfo info;

    (void)events;
    if (read(source->fd, &info, sizeof(info)) != sizeof(info))
        return;
    if (info.ssi_signo == SIGHUP)
        reload(daemon);
    else
        loop_stop(daemon->core->loop, 0);
}

static sigset_t taken_signals(void) {
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    return set;
}

/* From the first moment on, so that a signal while the daemon starts ends it as cleanly as one later. */
static void hold_signals(void) {
    sigset_t set = taken_signals();

    (void)sigprocmask(SIG_BLOCK, &set, NULL);
    /* Whoever reads what is logged may go away. */
    (void)signal(SIGPIPE, SIG_IGN);
}

static int watch_signals(struct daemon *daemon) {
    sigset_t set = taken_signals();
    int fd, r;

    fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0)
        return -errno;
    r = loop_source_init(&daemon->signals, daemon->core->loop, fd, EPOLLIN, signal_came);
    if (r < 0)
        fd_close(fd);
    return r;
}

/* --- setting up -------------------------------------------------------------------------------- */

/* Optional work: without a log of intents the bus goes on, and says so. */
static void tell_audit_failure(const struct daemon *daemon, int r) {
    log_warning("%s/audit/bus.log cannot be written: %s; commands are not recorded", daemon->config.state_directory, strerror(-r));
}

static int open_state(struct daemon *daemon, uint32_t *incarnation) {
    const char *path = daemon->config.state_directory;
    int r;

    daemon->state_fd = state_open(path);
    if (daemon->state_fd == -EWOULDBLOCK) {
        log_error("%s is in use by another daemon; give another directory with --state-directory", path);
        return daemon->state_fd;
    }
    if (daemon->state_fd < 0) {
        log_error("%s cannot be opened: %s; give a directory of this user's with --state-directory", path,
                  strerror(-daemon->state_fd));
        return daemon->state_fd;
    }
    r = incarnation_raise(daemon->state_fd, incarnation);
    if (r == -EBADMSG)
        log_error("%s/incarnation holds no number; put one there that is higher than any used before", path);
    else if (r < 0)
        log_error("%s/incarnation cannot be raised: %s", path, strerror(-r));
    if (r < 0)
        return r;
    daemon->audit_fd = state_open_audit(daemon->state_fd);
    if (daemon->audit_fd < 0)
        tell_audit_failure(daemon, daemon->audit_fd);
    return 0;
}

/* Besides peers, the daemon itself listens to its sensors, and so may each sensor to the others. */
static uint32_t count_own_connections(const struct config *config) {
    const struct config_sensor *sensor;
    uint32_t n = 1;

    list_for_each(sensor, &config->sensors, link)
        n++;
    return n;
}

static void keep_page(void *context, uint32_t slot, int fd) {
    (void)context;
    service_keep_page(slot, fd);
}

static int make_core(struct daemon *daemon, uint32_t incarnation) {
    struct config *config = &daemon->config;
    struct core_options options = {
        .incarnation = incarnation,
        .n_endpoints = config->n_endpoints,
        .n_connections = config->n_connections + count_own_connections(config),
        .queue_depth = config->queue_depth,
        .commands = config->commands,
        .drain_ms = config->drain_ms,
        .retire_ms = config->retire_ms,
        .small_writes_on_worker = config->small_writes_on_worker,
        .keep = service_is_there() ? keep_page : NULL,
        .pages = daemon->given.pages,
        .n_pages = daemon->given.n_pages,
        .hold_ms = config->hold_ms,
        .tail_bound = config->tail_bound,
        .n_large_tails = config->n_large_tails,
        .memory_cap = config->memory_cap,
        .audit_fd = daemon->audit_fd,
        .audit_records = config->audit_records,
        .policy = config_take_policy(config),
    };
    uint64_t least = core_least_memory(&options);
    int r = core_new(&daemon->core, &options);

    if (r == -ENOSPC)
        log_error("memory-cap = %ju is less than the %ju octets that the other settings ask for; raise it, or lower "
                  "max-connections, commands, large-tails or [limits-total]",
                  (uintmax_t)config->memory_cap, (uintmax_t)least);
    else if (r < 0)
        log_error("the bus cannot be made: %s", strerror(-r));
    else if (daemon->core->audit_error)
        tell_audit_failure(daemon, daemon->core->audit_error);
    return r;
}

static int take_given(struct daemon *daemon) {
    int r = service_take_fds(&daemon->given);

    if (r == -EINVAL)
        log_error("the service manager passed something else than one listening unix stream socket, and epoch pages "
                  "of this daemon");
    else if (r < 0)
        log_error("what the service manager passed cannot be taken: %s", strerror(-r));
    return r;
}

static int open_socket(struct daemon *daemon) {
    const char *path = daemon->config.socket;
    int fd = fd_steal(&daemon->given.socket);

    if (fd < 0) {
        fd = listener_bind(path, daemon->config.socket_mode);
        daemon->bound = fd >= 0;
    }
    if (fd == -EADDRINUSE)
        log_error("%s: another daemon listens there; give another path with --socket", path);
    else if (fd == -EEXIST)
        log_error("%s is there and no socket; remove it, or give another path with --socket", path);
    else if (fd < 0)
        log_error("%s cannot be listened on: %s; its directory must be there and writable", path, strerror(-fd));
    return fd;
}

static int listen_for_peers(struct daemon *daemon) {
    const struct config *config = &daemon->config;
    const struct listener_options options = {
        .home = daemon->core->home,
        .n_connections = config->n_connections,
        .hello_ms = config->hello_ms,
        .half_frame_ms = config->half_frame_ms,
        .n_large_tails = config->n_large_tails,
        .arena = &daemon->core->arena,
    };
    int fd = open_socket(daemon);
    int r;

    if (fd < 0)
        return fd;
    r = listener_new_consume_fd(&daemon->listener, daemon->core->loop, fd, &options);
    if (r < 0)
        log_error("the listener cannot be made: %s", strerror(-r));
    return r;
}

/* Each connection and each VM costs descriptors; the soft limit is for programs that use select(2). */
static void raise_descriptor_limit(void) {
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* What the bus cannot explain of its own process grows somewhere. */
static void tell_drift(void *context, const struct monitor_drift *drift) {
    static const char *const what[MONITOR_SUBJECTS] = {
        [MONITOR_RESIDENT] = "octets resident",
        [MONITOR_FDS] = "descriptors open",
    };

    (void)context;
    if (drift->beyond)
        log_warning("%ju %s, of which %jd are unaccounted for, more than %jd: something leaks; "
                    "'vmibusctl stats' shows what is held",
                    (uintmax_t)drift->value, what[drift->subject], (intmax_t)drift->unaccounted, (intmax_t)drift->bound);
    else
        log_info("%ju %s, of which %jd are unaccounted for: as it should be again", (uintmax_t)drift->value, what[drift->subject],
                 (intmax_t)drift->unaccounted);
}

static void watch_drift(struct daemon *daemon) {
    struct monitor *monitor = &daemon->core->monitor;

    monitor->drift = tell_drift;
    monitor->drift_context = daemon;
    monitor_start(monitor);
}

static int set_up(struct daemon *daemon) {
    uint32_t incarnation;
    int r;

    raise_descriptor_limit();
    r = take_given(daemon);
    if (r == 0)
        r = open_state(daemon, &incarnation);
    if (r == 0)
        r = make_core(daemon, incarnation);
    service_forget_pages(&daemon->given); /* the core has its own of them */
    if (r == 0)
        r = watch_signals(daemon);
    if (r == 0)
        r = sensor_watch_init(&daemon->watch, daemon->core);
    if (r == 0)
        r = listen_for_peers(daemon);
    if (r == 0)
        sensors_load(daemon->core, &daemon->config);
    if (r == 0)
        watch_drift(daemon);
    return r;
}

/* No state is opened and nobody is served: only the sensors' starts are wanted. */
static int resume(struct daemon *daemon) {
    int r;

    if (leftover_count(&daemon->config) == 0)
        return 0;
    r = make_core(daemon, 0);
    if (r < 0)
        return r;
    sensors_load(daemon->core, &daemon->config);
    r = leftover_wait(&daemon->config, daemon->core->loop);
    if (r > 0)
        log_error("guests may still be stopped: %d, whose monitors do not answer; see vmibus-sensor-qemu(7)", r);
    else if (r < 0)
        log_error("guests cannot be let go on: %s", strerror(-r));
    return r > 0 ? -ETIMEDOUT : r;
}

static void tear_down(struct daemon *daemon) {
    faults_tell();
    listener_free(daemon->listener);
    if (daemon->bound)
        unlink(daemon->config.socket);
    if (daemon->core) {
        sensor_watch_deinit(&daemon->watch);
        if (daemon->signals.loop) {
            loop_source_deinit(&daemon->signals);
            fd_close(daemon->signals.fd);
        }
        vmibus_core_free(daemon->core);
    }
    service_fds_deinit(&daemon->given);
    fd_close(daemon->audit_fd);
    fd_close(daemon->state_fd);
    config_deinit(&daemon->config);
}

int main(int argc, char **argv) {
    struct daemon daemon = {.given.socket = -1, .state_fd = -1, .audit_fd = -1};
    enum options_result parsed = options_parse(&daemon.options, argc, argv);
    int r;

    if (parsed != OPTIONS_RUN)
        return parsed == OPTIONS_DONE ? EXIT_SUCCESS : 2;
    hold_signals();
    r = configure(&daemon.options, &daemon.config);
    if (r < 0)
        return EXIT_FAILURE;
    faults_warn(&daemon.config);
    if (daemon.options.check) {
        config_deinit(&daemon.config);
        return EXIT_SUCCESS;
    }
    if (daemon.options.resume) {
        r = resume(&daemon);
        tear_down(&daemon);
        return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
    }
    r = set_up(&daemon);
    if (r == 0) {
        faults_apply(&daemon.config);
        log_info("serving at %s", daemon.config.socket);
        service_ready("serving");
        r = loop_run(daemon.core->loop);
        if (r < 0)
            log_error("the event loop failed: %s", strerror(-r));
        service_stopping();
    }
    tear_down(&daemon);
    return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
