/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Fuzz target: the section [opener], a line KEY=VALUE each.  What is refused is refused with a reason. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/opener_config.h"
#include "fuzz/target.h"

static void require(int good) {
    if (!good)
        abort();
}

FUZZ_TARGET(opener_config) {
    struct opener_config_error error = {};
    struct opener_config config;
    char *text = malloc(size + 1), *rest = text, *line;
    int r = 0;

    require(text && opener_config_init(&config) == 0);
    memcpy(text, data, size);
    text[size] = '\0';
    while (r == 0 && (line = strsep(&rest, "\n"))) {
        const char *key = strsep(&line, "=");

        if (line)
            r = opener_config_set(&config, key, line, &error);
    }
    if (r == 0)
        r = opener_config_complete(&config, &error);
    require(r == 0 || (r == -EINVAL && error.text[0]) || r == -ENOMEM);
    require(config.users.n <= OPENER_NAMES_MAX && config.memory_users.n <= OPENER_NAMES_MAX &&
            config.n_executables <= OPENER_NAMES_MAX);
    for (size_t i = 0; i < config.n_executables; i++)
        require(config.executables[i][0] == '/');
    opener_config_deinit(&config);
    free(text);
    return 0;
}
