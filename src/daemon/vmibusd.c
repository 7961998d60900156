/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmibusd(8): the bus as a daemon. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <vmibus/names.h>
#include <vmibus/syscalls.h>

#include "core/core.h"
#include "core/handover.h"
#include "daemon/config.h"
#include "daemon/confinement.h"
#include "daemon/faults.h"
#include "daemon/handover.h"
#include "daemon/handover_bus.h"
#include "daemon/incarnation.h"
#include "daemon/leftover.h"
#include "daemon/listening.h"
#include "daemon/log.h"
#include "daemon/options.h"
#include "daemon/recording.h"
#include "daemon/sensors.h"
#include "daemon/service.h"
#include "daemon/signals.h"
#include "daemon/state.h"
#include "daemon/watchdog.h"
#include "memory/opener_remote.h"
#include "transport/compromised.h"
#include "transport/handover.h"
#include "transport/listener.h"
#include "util/fds.h"

VMIBUS_SYSCALLS("unlink unlinkat")

#define WRITER "bus" /* of intents log and audit chain */
#define PRODUCT "vmibusd " PACKAGE_VERSION
#define SERVING "serving"
#define SERVING_LINKED "serving, linked to the memory authority"
#define SERVING_ALONE "serving, waiting for the memory authority"

struct daemon {
    struct options options;
    struct config config;
    const struct opener *opener;    /**< NULL: this process opens by itself */
    struct vmibus_core *core;
    struct listener *listener;
    struct sensor_watch watch;
    struct loop_source signals;
    struct watchdog watchdog;
    const char *status;     /**< as the service manager is told */
    struct service_fds given;
    int state_fd;
    uint32_t begun_with;    /**< the incarnation */
    int audit_fd;
    struct recorder recorder;
    bool bound;     /**< the socket file is ours to remove */
    bool hands_over; /**< asked to end: another daemon may follow */
    bool took_over; /**< goes on with what another daemon handed over */
    bool discards;  /**< what was taken over is being thrown away */
};

/* --- configuration ----------------------------------------------------------------------------- */

static int configure(const struct options *options, struct config *config) {
    int r = config_read_or_tell(config, options->config_path, options->config_path_given);

    if (r < 0)
        return r;
    r = options_apply(options, config);
    if (r == 0)
        r = faults_add_environment(config);
    if (r < 0)
        config_deinit(config);
    return r;
}

/* What can change while the daemon runs is the policy. A file with a mistake changes nothing. */
static void reload(struct daemon *daemon) {
    struct config config;

    service_reloading();
    if (configure(&daemon->options, &config) == 0) {
        config_keep_total_limits(&config, daemon->core->policy);
        core_set_policy(daemon->core, config_take_policy(&config));
        faults_apply(&config);
        config_deinit(&config);
        log_info("the policy was read anew from %s", daemon->options.config_path);
    } else {
        log_warning("the policy stays as it was");
    }
    service_ready(daemon->status);
}

/* --- signals ----------------------------------------------------------------------------------- */

static void signal_came(struct loop_source *source, uint32_t events) {
    struct daemon *daemon = container_of(source, struct daemon, signals);
    int signal_number = signals_take(source);

    (void)events;
    if (signal_number == 0)
        return;
    if (signal_number == SIGHUP)
        reload(daemon);
    else
        loop_stop(daemon->core->loop, 0);
    daemon->hands_over = signal_number == SIGTERM;
}

/* --- setting up -------------------------------------------------------------------------------- */

static int open_state(struct daemon *daemon) {
    daemon->state_fd = state_open_or_tell(daemon->config.state_directory);
    if (daemon->state_fd < 0)
        return daemon->state_fd;
    if (!daemon->config.audit.off)
        daemon->audit_fd = state_open_audit(daemon->state_fd, WRITER);
    if (!daemon->config.audit.off && daemon->audit_fd < 0)
        state_tell_audit_failure(daemon->config.state_directory, WRITER, daemon->audit_fd);
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

/* A core that is thrown away again gives up no page: the next one has them. */
static void keep_page(void *context, uint32_t slot, int fd) {
    const struct daemon *daemon = context;

    if (!daemon->discards)
        service_keep_page(slot, fd);
}

/* It connects when it is needed first. */
static int make_opener(struct daemon *daemon) {
    const char *path = daemon->config.opener_socket;
    int r = path ? opener_remote_new(&daemon->opener, path) : 0;

    if (r < 0)
        log_error("opener-socket = %s cannot be used: %s", path, strerror(-r));
    return r;
}

/* @param pages those that were kept are of an earlier time, and are ended */
static int make_core(struct daemon *daemon, uint32_t incarnation, bool pages) {
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
        .opener = daemon->opener,
        .memory_path = config->memory_socket,
        .hello_ms = config->hello_ms,
        .keep = service_is_there() ? keep_page : NULL,
        .keep_context = daemon,
        .pages = pages ? daemon->given.pages : NULL,
        .n_pages = pages ? daemon->given.n_pages : 0,
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

    daemon->begun_with = incarnation;
    if (r == -ENOSPC)
        log_error("memory-cap = %ju is less than the %ju octets that the other settings ask for; raise it, or lower "
                  "max-connections, commands, large-tails or [limits-total]",
                  (uintmax_t)config->memory_cap, (uintmax_t)least);
    else if (r < 0)
        log_error("the bus cannot be made: %s", strerror(-r));
    else if (daemon->core->audit_error)
        state_tell_audit_failure(daemon->config.state_directory, WRITER, daemon->core->audit_error);
    return r;
}

static int open_socket(struct daemon *daemon) {
    return listening_open(daemon->config.socket, daemon->config.socket_mode, "--socket", &daemon->given.socket, &daemon->bound);
}

/* @param fd taken whatever the outcome */
static int make_listener(struct daemon *daemon, int fd) {
    const struct config *config = &daemon->config;
    const struct listener_options options = {
        .home = &daemon->core->home.home,
        .n_connections = config->n_connections,
        .hello_ms = config->hello_ms,
        .half_frame_ms = config->half_frame_ms,
        .n_large_tails = config->n_large_tails,
        .arena = &daemon->core->arena,
    };
    int r;

    if (config->sensor_endpoints)
        daemon->core->home.sensor_endpoints = config->sensor_endpoints;
    daemon->core->home.sensor_answer_ms = config->sensor_answer_ms;
    r = listener_new_consume_fd(&daemon->listener, daemon->core->loop, fd, &options);
    if (r < 0)
        log_error("the listener cannot be made: %s", strerror(-r));
    return r;
}

static int listen_for_peers(struct daemon *daemon) {
    int fd = open_socket(daemon);

    return fd < 0 ? fd : make_listener(daemon, fd);
}

/* --- what another daemon handed over ----------------------------------------------------------- */

static struct handover_parts parts_of(const struct daemon *daemon, struct bus_handover_parts *context) {
    *context = (struct bus_handover_parts){.core = daemon->core, .listener = daemon->listener, .with_socket = daemon->bound};
    return (struct handover_parts){
        .ops = &bus_handover_ops,
        .context = context,
        .loop = daemon->core ? daemon->core->loop : NULL,
        .product = PRODUCT,
        .state_directory = daemon->state_fd,
    };
}

/* The socket that the manager gives in any case, or the one among what was handed over. */
static int take_socket(struct daemon *daemon, struct handover *handover) {
    struct handover_record record;
    int fd = fd_steal(&daemon->given.socket);

    if (fd >= 0 || !handover_find(handover_all(handover), CORE_HANDOVER_LISTENER, &record))
        return fd;
    fd = listener_handover_take_socket(handover_in(&record));
    daemon->bound = fd >= 0;
    return fd;
}

static int take_over(struct daemon *daemon, struct handover *handover, uint32_t incarnation) {
    struct bus_handover_parts context;
    struct handover_parts parts;
    int fd, r;

    r = make_core(daemon, incarnation, false);
    if (r < 0)
        return r;
    fd = take_socket(daemon, handover);
    r = fd < 0 ? -ENOTSOCK : make_listener(daemon, fd);
    if (r < 0)
        return r;
    listener_pause(daemon->listener);
    parts = parts_of(daemon, &context);
    return handover_take(&parts, handover);
}

/* Half of it is no better than nothing; the listening socket is good in any case. */
static int throw_away(struct daemon *daemon) {
    daemon->discards = true;
    if (daemon->listener)
        daemon->given.socket = fd_dup(daemon->listener->fd);
    daemon->listener = listener_free(daemon->listener);
    daemon->core = vmibus_core_free(daemon->core);
    daemon->discards = false;
    config_deinit(&daemon->config);
    return configure(&daemon->options, &daemon->config);
}

/* What another daemon handed over goes on; with anything else this is a start like any other. */
static int begin(struct daemon *daemon) {
    struct bus_handover_parts context;
    const struct handover_parts parts = parts_of(daemon, &context);
    struct handover handover = {};
    size_t n_handed = daemon->given.n_handed;
    bool was_given = daemon->given.state >= 0 || n_handed > 0;
    uint32_t incarnation = 0;
    int r = handover_look(&handover, &parts, &daemon->given, &incarnation);

    if (r == 0) {
        r = take_over(daemon, &handover, incarnation);
        if (r < 0 && throw_away(daemon) < 0)
            return -EINVAL;
    }
    daemon->took_over = r == 0;
    if (r == 0)
        core_handover_go_on(daemon->core, daemon->given.pages, daemon->given.n_pages);
    else if (was_given)
        log_warning("what %s handed over is not taken: %s; connections end, and nothing of them goes on",
                    handover.header ? handover.header->product : "the daemon before", strerror(-r));
    if (!daemon->took_over && daemon->given.socket < 0)
        daemon->bound = handover_refuse(&daemon->given, &handover);
    else
        (void)handover_refuse(&daemon->given, &handover);
    if (was_given)
        service_forget_handover(n_handed);
    if (daemon->took_over)
        return 0;
    r = incarnation_raise_or_tell(daemon->state_fd, daemon->config.state_directory, &incarnation);
    return r < 0 ? r : make_core(daemon, incarnation, true);
}

/* True: another daemon goes on with everything, so that nothing may be undone. */
static bool hand_over(struct daemon *daemon) {
    struct bus_handover_parts context;
    const struct handover_parts parts = parts_of(daemon, &context);
    int r;

    if (!daemon->hands_over || !service_is_there() || daemon->config.handover_ms == 0)
        return false;
    r = handover_give(&parts, daemon->config.handover_ms);
    if (r < 0) {
        log_warning("nothing is handed over to the next daemon: %s", strerror(-r));
        return false;
    }
    core_stop_handed_over(daemon->core);
    recorder_deinit(&daemon->recorder);
    log_info("everything is handed over to the next daemon");
    return true;
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

static void tell_memory(void *context, enum memory_link_news news, const struct vmibus_error_body *refusal) {
    struct daemon *daemon = context;
    const char *path = daemon->config.memory_socket;

    daemon->status = news == MEMORY_LINK_UP ? SERVING_LINKED : SERVING_ALONE;
    service_status(daemon->status);
    switch (news) {
    case MEMORY_LINK_UP:
        log_info("the memory authority at %s is linked", path);
        break;
    case MEMORY_LINK_DOWN:
        log_warning("the memory authority at %s went away; leases of MEMWRITE are suspended until one is back", path);
        break;
    case MEMORY_LINK_REFUSED:
        log_error("the memory authority at %s does not take this bus: %s, %s; see bus-user in vmibusd.conf(5)", path,
                  vmibus_error_name(refusal->error), vmibus_reason_name(refusal->reason));
        break;
    }
}

/*
 * So many starts may have been lost: one a second for half a year.  Who says that more were, at once or one after the other, is not
 * believed, or a memory authority in wrong hands could use up all numbers.
 */
#define MOST_LOST_STARTS (UINT32_C(1) << 24)

/* The state directory was lost, or is another one's: nothing may be numbered as it was before. */
static int rise_above(void *context, uint32_t own, uint32_t taken, uint32_t *incarnation) {
    const struct daemon *daemon = context;
    const char *path = daemon->config.state_directory;
    bool is_believed = taken < daemon->begun_with || taken - daemon->begun_with <= MOST_LOST_STARTS;
    int r = is_believed ? incarnation_raise_above(daemon->state_fd, taken > own ? taken : own, incarnation) : -ERANGE;

    if (r == 0)
        log_warning("the memory authority has heard from a bus of incarnation %u, and %s says %u: the state of that one is lost; "
                    "this bus goes on with %u, and leases of MEMWRITE that were given end",
                    taken, path, own, *incarnation);
    else if (r == -ERANGE)
        log_error("the memory authority says that it has heard from a bus of incarnation %u, and %s says %u: so many starts are not "
                  "believed; leases of MEMWRITE are good for nothing until vmibus-memd is started anew, or until that number is in "
                  "%s/incarnation and vmibusd is started anew",
                  taken, path, own, path);
    else
        log_error("the memory authority has heard from a bus of incarnation %u, and %s says %u, and another one cannot be begun: "
                  "%s; leases of MEMWRITE are good for nothing until vmibus-memd is started anew",
                  taken, path, own, strerror(-r));
    return r;
}

static void watch_memory(struct daemon *daemon) {
    daemon->core->memory_link.rise = rise_above;
    daemon->core->memory_link.news = tell_memory;
    daemon->core->memory_link.news_context = daemon;
    /* Of a link that was handed over there are no news. */
    if (daemon->core->memory_link.welcomed)
        daemon->status = SERVING_LINKED;
}

static bool has_sensors(const struct config *config) {
    const struct config_sensor *sensor;

    list_for_each(sensor, &config->sensors, link)
        if (!sensor->apart)
            return true;
    return false;
}

static struct confinement confine(const struct daemon *daemon) {
    const struct config *config = &daemon->config;

    return (struct confinement){
        .config = config,
        .config_path = daemon->options.config_path,
        .socket = config->socket,
        .opens = !config->opener_socket && !config->memory_socket,
        .sensors = has_sensors(config),
    };
}

static int set_up(struct daemon *daemon) {
    const struct confinement confinement = confine(daemon);
    int r;

    listening_raise_descriptor_limit();
    r = service_take_fds_or_tell(&daemon->given);
    if (r == 0)
        r = open_state(daemon);
    if (r == 0)
        r = make_opener(daemon);
    if (r == 0)
        r = begin(daemon);
    if (r == 0)
        recording_begin(&daemon->recorder, daemon->core->loop, &daemon->core->audit, WRITER, &daemon->config, daemon->state_fd);
    if (r == 0)
        watch_memory(daemon);
    service_forget_pages(&daemon->given); /* the core has its own of them */
    if (r == 0)
        r = signals_watch(&daemon->signals, daemon->core->loop, signal_came);
    if (r == 0)
        r = watchdog_start(&daemon->watchdog, daemon->core->loop);
    if (r == 0)
        r = sensor_watch_init(&daemon->watch, daemon->core);
    if (r == 0 && !daemon->took_over)
        r = listen_for_peers(daemon);
    if (r == 0)
        r = confinement_limit_files(&confinement);
    if (r == 0)
        sensors_load(daemon->core, &daemon->config);
    if (r == 0)
        core_forget_saved(daemon->core);
    if (r == 0)
        listener_resume(daemon->listener);
    if (r == 0)
        watch_drift(daemon);
    if (r == 0)
        r = confinement_limit_syscalls(&confinement);
    return r;
}

/* No state is opened and nobody is served: only the sensors' starts are wanted. */
static int resume(struct daemon *daemon) {
    int r;

    if (leftover_count(&daemon->config) == 0)
        return 0;
    r = make_core(daemon, 0, false);
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
    recorder_deinit(&daemon->recorder);
    if (daemon->core) {
        sensor_watch_deinit(&daemon->watch);
        watchdog_stop(&daemon->watchdog);
        signals_forget(&daemon->signals);
        vmibus_core_free(daemon->core);
    }
    daemon->opener = opener_remote_free(daemon->opener);
    service_fds_deinit(&daemon->given);
    fd_close(daemon->audit_fd);
    fd_close(daemon->state_fd);
    config_deinit(&daemon->config);
}

int main(int argc, char **argv) {
    struct daemon daemon = {.given = {.socket = -1, .state = -1}, .state_fd = -1, .audit_fd = -1};
    enum options_result parsed = options_parse(&daemon.options, argc, argv);
    int r;

    if (parsed != OPTIONS_RUN)
        return parsed == OPTIONS_DONE ? EXIT_SUCCESS : 2;
    signals_hold();
    r = configure(&daemon.options, &daemon.config);
    if (r < 0)
        return EXIT_FAILURE;
    faults_warn(&daemon.config);
#ifdef HAVE_COMPROMISED_PARSER
    log_warning(COMPROMISED_WARNING);
    compromised_enable();
#endif
    if (daemon.options.check) {
        config_deinit(&daemon.config);
        return EXIT_SUCCESS;
    }
    if (daemon.options.resume) {
        r = resume(&daemon);
        tear_down(&daemon);
        return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
    }
    daemon.status = daemon.config.memory_socket ? SERVING_ALONE : SERVING;
    r = set_up(&daemon);
    if (r == 0) {
        faults_apply(&daemon.config);
        log_info("serving at %s", daemon.config.socket);
        service_ready(daemon.status);
        r = loop_run(daemon.core->loop);
        if (r < 0)
            log_error("the event loop failed: %s", strerror(-r));
        service_stopping();
        if (r == 0 && hand_over(&daemon))
            exit(EXIT_SUCCESS);
    }
    tear_down(&daemon);
    return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
