/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/options.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "transport/compromised.h"

enum {
    OPTION_CHECK = 256,
    OPTION_CONFIG,
    OPTION_HELP,
    OPTION_MEMORY,
    OPTION_QMP,
    OPTION_QMP_DIRECTORY,
    OPTION_RESUME,
    OPTION_SENSOR,
    OPTION_SENSOR_DIRECTORY,
    OPTION_SENSORS_APART,
    OPTION_SOCKET,
    OPTION_STATE_DIRECTORY,
    OPTION_STUB,
    OPTION_VERSION,
};

static const struct option long_options[] = {
    {"check", no_argument, NULL, OPTION_CHECK},
    {"config", required_argument, NULL, OPTION_CONFIG},
    {"help", no_argument, NULL, OPTION_HELP},
    {"memory", required_argument, NULL, OPTION_MEMORY},
    {"qmp", required_argument, NULL, OPTION_QMP},
    {"qmp-directory", required_argument, NULL, OPTION_QMP_DIRECTORY},
    {"resume", no_argument, NULL, OPTION_RESUME},
    {"sensor", required_argument, NULL, OPTION_SENSOR},
    {"sensor-directory", required_argument, NULL, OPTION_SENSOR_DIRECTORY},
    {"sensors-apart", no_argument, NULL, OPTION_SENSORS_APART},
    {"socket", required_argument, NULL, OPTION_SOCKET},
    {"state-directory", required_argument, NULL, OPTION_STATE_DIRECTORY},
    {"stub", optional_argument, NULL, OPTION_STUB},
    {"version", no_argument, NULL, OPTION_VERSION},
    {},
};

#ifdef HAVE_FAULT_INJECTION
#define FAULT_INJECTION " (built to fail on purpose: --enable-fault-injection)"
#else
#define FAULT_INJECTION ""
#endif

static void print_help(void) {
    puts("Usage: vmibusd [OPTION]...\n"
         "Carry events between sensors, input actuators and controls of virtual machines.\n"
         "\n"
         "      --check                   read the configuration, say whether it is good, and exit\n"
         "      --config FILE             configuration file (default " VMIBUS_SYSCONFDIR "/vmibus/vmibusd.conf)\n"
         "      --memory PATH             where vmibus-memd listens (default: guest memory is vmibusd's own work)\n"
         "      --qmp NAME=PATH           follow the QEMU whose monitor listens at PATH; may be repeated\n"
         "      --qmp-directory DIR       follow each QEMU whose monitor appears in DIR; may be repeated\n"
         "      --resume                  let guests go on that a daemon which was killed left stopped, and exit\n"
         "      --sensor NAME[:KEY=VALUE] load a sensor, set one of its options; may be repeated\n"
         "      --sensor-directory DIR    where sensors are (default " VMIBUS_SENSOR_DIR_DEFAULT ")\n"
         "      --sensors-apart           leave the sensors of the configuration to vmibus-sensord\n"
         "      --socket PATH             where controls connect (default /run/vmibus/control.sock)\n"
         "      --state-directory DIR     what outlives a restart (default " VMIBUS_LOCALSTATEDIR "/lib/vmibus)\n"
         "      --stub[=N]                make N synthetic virtual machines (default 2)\n"
         "      --help                    print this and exit\n"
         "      --version                 print the version and exit\n"
         "\n"
         "With no configuration, root and the daemon's own user may do everything, nobody else anything.\n"
         "See vmibusd(8), vmibusd.conf(5).");
}

static void print_version(void) {
    puts("vmibusd " PACKAGE_VERSION FAULT_INJECTION);
#ifdef HAVE_COMPROMISED_PARSER
    puts(COMPROMISED_WARNING);
#endif
}

/* False: a message was printed. */
static bool is_qmp(const char *argument) {
    if (strchr(argument, '=') && *argument != '=')
        return true;
    fprintf(stderr, "vmibusd: --qmp %s: NAME=PATH is wanted, such as --qmp web=/run/web/qmp.sock\n", argument);
    return false;
}

/* As is_qmp(). */
static bool is_qmp_directory(const char *argument) {
    if (*argument == '/')
        return true;
    fprintf(stderr, "vmibusd: --qmp-directory %s: an absolute path is wanted, such as /run/vms\n", argument);
    return false;
}

enum options_result options_parse(struct options *options, int argc, char **argv) {
    int option;

    *options = (struct options){
        .argc = argc,
        .argv = argv,
        .config_path = VMIBUS_SYSCONFDIR "/vmibus/vmibusd.conf",
    };
    optind = 1;
    while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        switch (option) {
        case OPTION_CHECK:
            options->check = true;
            break;
        case OPTION_SENSORS_APART:
            options->sensors_apart = true;
            break;
        case OPTION_RESUME:
            options->resume = true;
            break;
        case OPTION_CONFIG:
            options->config_path = optarg;
            options->config_path_given = true;
            break;
        case OPTION_HELP:
            print_help();
            return OPTIONS_DONE;
        case OPTION_VERSION:
            print_version();
            return OPTIONS_DONE;
        case OPTION_QMP:
            if (!is_qmp(optarg))
                return OPTIONS_WRONG;
            break;
        case OPTION_QMP_DIRECTORY:
            if (!is_qmp_directory(optarg))
                return OPTIONS_WRONG;
            break;
        case '?':
            fputs("Try 'vmibusd --help'.\n", stderr);
            return OPTIONS_WRONG;
        default:
            break;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "vmibusd: %s: no arguments are taken besides options\nTry 'vmibusd --help'.\n", argv[optind]);
        return OPTIONS_WRONG;
    }
    return OPTIONS_RUN;
}

static int set_sensor_option(struct config *config, const char *sensor_name, const char *key, const char *value) {
    struct config_sensor *sensor = config_sensor(config, sensor_name);

    if (!sensor)
        return -ENOMEM;
    return value ? config_sensor_set(sensor, key, value) : 0;
}

/* NAME=PATH becomes the option monitor.NAME of the sensor qemu. */
static int apply_qmp(struct config *config, const char *argument) {
    const char *equals = strchr(argument, '=');
    char *key;
    int r;

    if (asprintf(&key, "monitor.%.*s", (int)(equals - argument), argument) < 0)
        return -ENOMEM;
    r = set_sensor_option(config, "qemu", key, equals + 1);
    free(key);
    return r;
}

/* DIR becomes the option directory.DIR of the sensor qemu, so that there may be several. */
static int apply_qmp_directory(struct config *config, const char *argument) {
    char *key;
    int r;

    if (asprintf(&key, "directory.%s", argument) < 0)
        return -ENOMEM;
    r = set_sensor_option(config, "qemu", key, argument);
    free(key);
    return r;
}

static int apply_sensor(struct config *config, const char *argument) {
    char *copy = strdup(argument), *key, *value;
    int r;

    if (!copy)
        return -ENOMEM;
    key = strchr(copy, ':');
    if (key)
        *key++ = '\0';
    value = key ? strchr(key, '=') : NULL;
    if (value)
        *value++ = '\0';
    r = set_sensor_option(config, copy, key, value);
    free(copy);
    return r;
}

static void set_apart(struct config *config) {
    struct config_sensor *sensor;

    list_for_each(sensor, &config->sensors, link)
        sensor->apart = true;
}

int options_apply(const struct options *options, struct config *config) {
    int option, r = 0;

    if (options->sensors_apart)
        set_apart(config); /* those that options name are added below */
    optind = 1;
    while (r == 0 && (option = getopt_long(options->argc, options->argv, "", long_options, NULL)) != -1) {
        switch (option) {
        case OPTION_MEMORY:
            r = config_set_string(&config->memory_socket, optarg);
            break;
        case OPTION_QMP:
            r = apply_qmp(config, optarg);
            break;
        case OPTION_QMP_DIRECTORY:
            r = apply_qmp_directory(config, optarg);
            break;
        case OPTION_SENSOR:
            r = apply_sensor(config, optarg);
            break;
        case OPTION_SENSOR_DIRECTORY:
            r = config_set_string(&config->sensor_directory, optarg);
            break;
        case OPTION_SOCKET:
            r = config_set_string(&config->socket, optarg);
            break;
        case OPTION_STATE_DIRECTORY:
            r = config_set_string(&config->state_directory, optarg);
            break;
        case OPTION_STUB:
            r = set_sensor_option(config, "stub", "vms", optarg);
            break;
        default:
            break;
        }
    }
    return r;
}
