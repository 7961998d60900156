/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmibus-sensord(8): one sensor in a process of its own. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <vmibus/names.h>
#include <vmibus/syscalls.h>

#include "daemon/config.h"
#include "daemon/confinement.h"
#include "daemon/log.h"
#include "daemon/remote_sensor.h"
#include "daemon/sensor_keeping.h"
#include "daemon/sensor_module.h"
#include "daemon/sensor_undo.h"
#include "daemon/service.h"
#include "daemon/signals.h"
#include "daemon/watchdog.h"
#include "util/clock.h"

#define PRODUCT "vmibus-sensord " PACKAGE_VERSION

/* How long after a connection was lost, or could not be had, the next one is tried. */
#define BACKOFF_FIRST_MS UINT64_C(100)
#define BACKOFF_LAST_MS UINT64_C(10000)

struct sensord {
    struct config config;
    struct config_sensor *sensor;   /* config's */
    struct sensor_module module;
    struct sensor_library library;
    struct loop *loop;
    struct loop_source signals;
    struct watchdog watchdog;
    struct loop_timer retry;
    struct remote_sensor *remote;   /* NULL: not connected */
    struct sensor_keeping keeping;  /* of the instance before */
    struct loop_timer patience;     /* until what is kept for a bus that is away is undone, and until that is done */
    struct sensor_undo undo;
    struct service_fds given;
    bool restarts;                  /* asked to end: another process may follow */
    uint64_t backoff_ms;
    int told;                       /* the last failure that was told of, so that each is told once */
};

/* --- the connection ------------------------------------------------------------------------------ */

static const char *reason_text(const struct vmibus_error_body *why) {
    const char *name = vmibus_reason_name(why->reason);

    return why->reason != VMIBUS_REASON_NONE && name ? name : "no reason told";
}

static void tell_refusal(const struct sensord *sensord, int error, const struct vmibus_error_body *why) {
    const char *name = vmibus_error_name((unsigned)error);

    if (error == VMIBUS_ERROR_DENIED)
        log_error("%s: the bus takes no sensor from uid %u; name this user in sensor-users of [daemon], vmibusd.conf(5)",
                  sensord->config.socket, (unsigned)geteuid());
    else
        log_error("%s: the bus refuses this sensor: %s, %s (%ju of %ju)", sensord->config.socket, name ? name : "?",
                  reason_text(why), (uintmax_t)why->value, (uintmax_t)why->bound);
}

static void tell_failure(struct sensord *sensord, int r, const struct remote_sensor_failure *failure) {
    if (r == sensord->told)
        return;
    sensord->told = r;
    if (r > 0)
        tell_refusal(sensord, r, &failure->refusal);
    else if (failure->of_another)
        log_error("%s: the bus names another memory authority than %s, which is not believed; say the same memory-socket, or "
                  "--memory, to both",
                  sensord->config.socket, sensord->config.memory_socket);
    else
        log_warning("%s: the %s cannot be reached: %s; trying again", sensord->config.socket,
                    failure->of_memory ? "memory authority that the bus names" : "bus", strerror(-r));
}

static void retry_later(struct sensord *sensord) {
    char status[256];

    snprintf(status, sizeof(status), "waiting for the bus at %s", sensord->config.socket);
    service_ready(status);
    if (loop_timer_set(&sensord->retry, clock_now() + sensord->backoff_ms * NS_PER_MS) < 0)
        loop_stop(sensord->loop, -ENOMEM);
    sensord->backoff_ms = sensord->backoff_ms * 2 < BACKOFF_LAST_MS ? sensord->backoff_ms * 2 : BACKOFF_LAST_MS;
}

/* A bus that is started anew comes soon. */
static void be_patient(struct sensord *sensord) {
    if (sensor_keeping_state(&sensord->keeping) &&
        loop_timer_set(&sensord->patience, clock_now() + SENSOR_UNDO_AFTER_MS * NS_PER_MS) < 0)
        loop_stop(sensord->loop, -ENOMEM);
}

static void lost(void *context, int error, const struct vmibus_error_body *why) {
    struct sensord *sensord = context;
    const char *name = vmibus_error_name(why->error);

    if (sensor_keeping_take(&sensord->keeping, &sensord->remote->host) < 0)
        log_warning("sensor %s: what it keeps cannot be kept", sensord->sensor->name);
    sensord->remote = remote_sensor_free(sensord->remote);
    if (why->error)
        log_error("the connection was ended: %s, %s (%ju of %ju)", name ? name : "?", reason_text(why), (uintmax_t)why->value,
                  (uintmax_t)why->bound);
    else
        log_warning("the connection was lost: %s; the sensor starts anew with the next one", strerror(-error));
    be_patient(sensord);
    retry_later(sensord);
}

static void try_to_connect(struct sensord *sensord) {
    const struct remote_sensor_options options = {
        .loop = sensord->loop,
        .module = sensord->library.module,
        .socket = sensord->config.socket,
        .memory = sensord->config.memory_socket,
        .saved = sensor_keeping_state(&sensord->keeping),
        .options = sensord->sensor->options,
        .n_options = sensord->sensor->n_options,
        .lost = lost,
        .context = sensord,
    };
    struct remote_sensor_failure failure;
    char status[256];
    int r = remote_sensor_new(&sensord->remote, &options, &failure);

    if (failure.of_module) {
        sensor_module_tell(sensord->sensor, &sensord->module, r);
        loop_stop(sensord->loop, r);
    } else if (r) {
        tell_failure(sensord, r, &failure);
        retry_later(sensord);
    } else {
        sensord->told = 0;
        loop_timer_cancel(&sensord->patience);
        sensor_keeping_deinit(&sensord->keeping);
        sensord->backoff_ms = BACKOFF_FIRST_MS;
        log_info("sensor %s: connected to the bus at %s", sensord->sensor->name, sensord->config.socket);
        snprintf(status, sizeof(status), "sensor %s, connected to %s", sensord->sensor->name, sensord->config.socket);
        service_ready(status);
    }
}

static void patience_is_over(struct loop_timer *timer) {
    struct sensord *sensord = container_of(timer, struct sensord, patience);
    const struct config_sensor *sensor = sensord->sensor;

    if (sensord->undo.is_running) {
        sensor_undo_end(&sensord->undo, &sensord->keeping);
        try_to_connect(sensord);
        return;
    }
    log_warning("sensor %s: the bus stays away; guests that were held still for it go on", sensor->name);
    if (sensor_undo_begin(&sensord->undo, sensord->loop, sensord->library.module, sensor->options, sensor->n_options,
                          &sensord->keeping) < 0)
        return;
    loop_timer_cancel(&sensord->retry);
    if (loop_timer_set(&sensord->patience, clock_now() + SENSOR_UNDO_MS * NS_PER_MS) < 0)
        loop_stop(sensord->loop, -ENOMEM);
}

static void retry_due(struct loop_timer *timer) {
    try_to_connect(container_of(timer, struct sensord, retry));
}

/* --- signals -------------------------------------------------------------------------------------- */

static void signal_came(struct loop_source *source, uint32_t events) {
    struct sensord *sensord = container_of(source, struct sensord, signals);
    int number = signals_take(source);

    (void)events;
    if (number == SIGHUP)
        log_info("a sensor takes its options when it starts; to have them read anew, start it anew");
    else if (number)
        loop_stop(sensord->loop, 0);
    sensord->restarts = number == SIGTERM;
}

/* --- options -------------------------------------------------------------------------------------- */

enum {
    OPTION_CONFIG = 256,
    OPTION_HELP,
    OPTION_MEMORY,
    OPTION_SENSOR_DIRECTORY,
    OPTION_SET,
    OPTION_SOCKET,
    OPTION_STATE_DIRECTORY,
    OPTION_VERSION,
    OPTION_WANTED,
};

static const struct option long_options[] = {
    {"config", required_argument, NULL, OPTION_CONFIG},
    {"help", no_argument, NULL, OPTION_HELP},
    {"memory", required_argument, NULL, OPTION_MEMORY},
    {"sensor-directory", required_argument, NULL, OPTION_SENSOR_DIRECTORY},
    {"set", required_argument, NULL, OPTION_SET},
    {"socket", required_argument, NULL, OPTION_SOCKET},
    {"state-directory", required_argument, NULL, OPTION_STATE_DIRECTORY},
    {"version", no_argument, NULL, OPTION_VERSION},
    {"wanted", no_argument, NULL, OPTION_WANTED},
    {},
};

static void print_help(void) {
    puts("Usage: vmibus-sensord [OPTION]... NAME\n"
         "Run one sensor of vmibus in a process of its own.\n"
         "\n"
         "      --config FILE             configuration file (default " VMIBUS_SYSCONFDIR "/vmibus/vmibusd.conf)\n"
         "      --memory PATH             where the memory authority listens; another one that the bus names is refused\n"
         "      --sensor-directory DIR    where sensors are (default " VMIBUS_SENSOR_DIR_DEFAULT ")\n"
         "      --set KEY=VALUE           set one of the sensor's options; may be repeated\n"
         "      --socket PATH             where the bus listens (default /run/vmibus/control.sock)\n"
         "      --state-directory DIR     what outlives a restart (default " VMIBUS_LOCALSTATEDIR "/lib/vmibus)\n"
         "      --wanted                  say by the exit status whether the configuration has this sensor, and exit\n"
         "      --help                    print this and exit\n"
         "      --version                 print the version and exit\n"
         "\n"
         "The options of the sensor stand in [sensor NAME] of the configuration file.\n"
         "See vmibus-sensord(8), vmibusd.conf(5).");
}

/* KEY=VALUE, as take_arguments() has seen. */
static int set_option(struct config_sensor *sensor, char *argument) {
    const char *key = strsep(&argument, "=");

    return config_sensor_set(sensor, key, argument);
}

/* What the command line says over the configuration, once the sensor is known. */
static int apply(struct sensord *sensord, int argc, char **argv) {
    int option, r = 0;

    optind = 1;
    while (r == 0 && (option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        if (option == OPTION_SENSOR_DIRECTORY)
            r = config_set_string(&sensord->config.sensor_directory, optarg);
        else if (option == OPTION_MEMORY)
            r = config_set_string(&sensord->config.memory_socket, optarg);
        else if (option == OPTION_SOCKET)
            r = config_set_string(&sensord->config.socket, optarg);
        else if (option == OPTION_STATE_DIRECTORY)
            r = config_set_string(&sensord->config.state_directory, optarg);
        else if (option == OPTION_SET)
            r = set_option(sensord->sensor, optarg);
    }
    return r;
}

/* One that cannot be read is for the start to fail of. */
static bool is_wanted(struct sensord *sensord, const char *path, bool given, const char *name) {
    const struct config_sensor *sensor;

    if (config_read_or_tell(&sensord->config, path, given) < 0)
        return true;
    list_for_each(sensor, &sensord->config.sensors, link)
        if (strcmp(sensor->name, name) == 0)
            return true;
    return false;
}

/* 1: nothing is to be run, and the exit status is @a status. */
static int take_arguments(struct sensord *sensord, int argc, char **argv, int *status) {
    const char *path = VMIBUS_SYSCONFDIR "/vmibus/vmibusd.conf";
    bool given = false, wanted = false;
    int option, r;

    *status = 2;
    while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        if (option == OPTION_CONFIG) {
            path = optarg;
            given = true;
        } else if (option == OPTION_WANTED) {
            wanted = true;
        } else if (option == OPTION_SET && (!strchr(optarg, '=') || *optarg == '=')) {
            fprintf(stderr, "vmibus-sensord: --set %s: KEY=VALUE is wanted\n", optarg);
            return 1;
        } else if (option == OPTION_HELP || option == OPTION_VERSION) {
            if (option == OPTION_HELP)
                print_help();
            else
                puts("vmibus-sensord " PACKAGE_VERSION);
            *status = EXIT_SUCCESS;
            return 1;
        } else if (option == '?') {
            fputs("Try 'vmibus-sensord --help'.\n", stderr);
            return 1;
        }
    }
    if (optind != argc - 1) {
        fputs("vmibus-sensord: the name of one sensor is wanted\nTry 'vmibus-sensord --help'.\n", stderr);
        return 1;
    }
    if (wanted) {
        *status = is_wanted(sensord, path, given, argv[optind]) ? EXIT_SUCCESS : EXIT_FAILURE;
        return 1;
    }
    r = config_read_or_tell(&sensord->config, path, given);
    sensord->sensor = r == 0 ? config_sensor(&sensord->config, argv[optind]) : NULL;
    if (r == 0)
        r = sensord->sensor ? 0 : -ENOMEM;
    if (r == 0)
        r = apply(sensord, argc, argv);
    *status = EXIT_FAILURE;
    return r < 0;
}

/* --- coming and going ----------------------------------------------------------------------------- */

/* Each VM costs descriptors; the soft limit is for programs that use select(2). */
static void raise_descriptor_limit(void) {
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static int load(struct sensord *sensord) {
    int r = sensor_module_find(&sensord->module, &sensord->config, sensord->sensor);

    if (r < 0)
        return r;
    r = sensor_library_load(&sensord->library, sensord->module.path, &sensord->module.expected);
    if (r < 0)
        sensor_module_tell(sensord->sensor, &sensord->module, r);
    return r;
}

/* Its VMs wait for the process that the service manager starts in its place. */
static void restart(struct sensord *sensord) {
    uint32_t timeout_ms = sensord->config.handover_ms;
    int r = 0;

    sensor_undo_end(&sensord->undo, &sensord->keeping);
    if (!sensord->restarts || !service_is_there() || timeout_ms == 0)
        return;
    if (sensord->remote) {
        r = sensor_keeping_take(&sensord->keeping, &sensord->remote->host);
        remote_sensor_restarts(sensord->remote);
    }
    if (r == 0)
        r = sensor_keeping_give(&sensord->keeping, PRODUCT, timeout_ms);
    if (r < 0)
        log_warning("sensor %s: what it keeps is not handed over: %s", sensord->sensor->name, strerror(-r));
}

static int run(struct sensord *sensord) {
    int r = loop_new(&sensord->loop);

    if (r < 0)
        return r;
    loop_timer_init(&sensord->retry, sensord->loop, retry_due);
    loop_timer_init(&sensord->patience, sensord->loop, patience_is_over);
    be_patient(sensord);
    sensord->backoff_ms = BACKOFF_FIRST_MS;
    r = signals_watch(&sensord->signals, sensord->loop, signal_came);
    if (r == 0)
        r = watchdog_start(&sensord->watchdog, sensord->loop);
    if (r == 0)
        r = loop_timer_set(&sensord->retry, clock_now());
    if (r == 0)
        r = loop_run(sensord->loop);
    if (r < 0)
        log_error("sensor %s: it ends: %s", sensord->sensor->name, strerror(-r));
    service_stopping();
    if (r == 0)
        restart(sensord);
    return r;
}

static int take_given(struct sensord *sensord) {
    int r = service_take_fds_or_tell(&sensord->given);

    if (r < 0)
        return r;
    r = sensor_keeping_restore(&sensord->keeping, &sensord->given);
    if (r < 0 && r != -ENOENT)
        log_warning("sensor %s: what was handed over is not taken: %s", sensord->sensor->name, strerror(-r));
    return 0;
}

static void tear_down(struct sensord *sensord) {
    sensord->remote = remote_sensor_free(sensord->remote);
    service_fds_deinit(&sensord->given);
    if (sensord->loop) {
        sensor_undo_end(&sensord->undo, &sensord->keeping);
        loop_timer_cancel(&sensord->retry);
        loop_timer_cancel(&sensord->patience);
        watchdog_stop(&sensord->watchdog);
        signals_forget(&sensord->signals);
        loop_free(sensord->loop);
    }
    sensor_keeping_deinit(&sensord->keeping);
    sensor_library_unload(&sensord->library);
    config_deinit(&sensord->config);
}

int main(int argc, char **argv) {
    struct sensord sensord = {.given = {.socket = -1, .state = -1}};
    const struct confinement confinement = {.config = &sensord.config, .sensors = true};
    int status, r;

    signals_hold();
    if (take_arguments(&sensord, argc, argv, &status)) {
        if (sensord.config.policy)
            config_deinit(&sensord.config);
        return status;
    }
    raise_descriptor_limit();
    r = take_given(&sensord);
    if (r == 0)
        r = confinement_limit_files(&confinement);
    if (r == 0)
        r = load(&sensord);
    if (r == 0)
        r = confinement_limit_syscalls(&confinement);
    if (r == 0)
        r = run(&sensord);
    tear_down(&sensord);
    return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
