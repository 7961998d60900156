/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The command line of vmibusd(8). */
#ifndef DAEMON_OPTIONS_H
#define DAEMON_OPTIONS_H

#include <stdbool.h>

#include "daemon/config.h"

struct options {
    int argc;
    char **argv;
    const char *config_path;
    bool config_path_given;
    bool sensors_apart;     /**< leave the sensors of the configuration to vmibus-sensord(8) */
    bool check;             /**< read the configuration, say whether it is good, do nothing */
    bool resume;            /**< let guests go on that a daemon which was killed left stopped, do nothing else */
};

/** What parsing comes to. */
enum options_result {
    OPTIONS_RUN = 0,
    OPTIONS_DONE = 1,       /**< --help or --version was printed */
    OPTIONS_WRONG = 2,      /**< a message was printed */
};

/** Looks at what decides which configuration file is read. */
enum options_result options_parse(struct options *options, int argc, char **argv);

/** Puts what the command line says over the configuration. 0 or -ENOMEM. */
int options_apply(const struct options *options, struct config *config);

#endif
