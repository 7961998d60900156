/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/confinement.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/log.h"
#include "daemon/privileges.h"
#include "daemon/sandbox.h"

/* What is beside a file. Freed by the caller; NULL: of none, or out of memory. */
static char *folder_of(const char *path) {
    char *folder = path ? strdup(path) : NULL, *slash = folder ? strrchr(folder, '/') : NULL;

    if (slash && slash == folder)
        slash++;
    if (slash)
        *slash = '\0';
    if (folder && !slash) {
        free(folder);
        folder = strdup(".");
    }
    return folder;
}

/* Sensors alone know where monitors listen; a service manager may listen there too (sd_notify(3)). */
static bool needs_abstract_sockets(const struct confinement *confinement) {
    const char *manager = getenv("NOTIFY_SOCKET");

    return confinement->sensors || (manager && *manager == '@');
}

static int limit_files(const struct confinement *confinement) {
    const struct config *config = confinement->config;
    char *config_folder = folder_of(confinement->config_path), *socket_folder = folder_of(confinement->socket);
    const struct sandbox_path paths[] = {
        {.path = config_folder, .access = SANDBOX_READ},
        {.path = "/etc", .access = SANDBOX_READ},
        {.path = "/proc", .access = SANDBOX_READ},
        {.path = confinement->sensors ? "/" : NULL, .access = SANDBOX_READ},
        {.path = config->state_directory, .access = SANDBOX_WRITE},
        {.path = socket_folder, .access = SANDBOX_REMOVE},
    };
    int r = (config_folder || !confinement->config_path) && (socket_folder || !confinement->socket) ? 0 : -ENOMEM;

    if (r == 0)
        r = sandbox_limit_files(config->sandbox, paths, sizeof(paths) / sizeof(*paths), needs_abstract_sockets(confinement));
    free(config_folder);
    free(socket_folder);
    return r;
}

int confinement_limit_files(const struct confinement *confinement) {
    uint64_t missing = 0;
    int r = 0;

    if (confinement->config->sandbox == SANDBOX_NO)
        return 0;
    if (!confinement->opens && !confinement->sensors)
        r = privileges_keep(0, &missing);
    if (r == 0)
        r = sandbox_close_process(confinement->opens && !privileges_any());
    if (r < 0)
        log_error("rights cannot be given up: %s", strerror(-r));
    if (r == 0 && !confinement->opens)
        r = limit_files(confinement);
    return r;
}

int confinement_limit_syscalls(const struct confinement *confinement) {
    if (confinement->config->sandbox != SANDBOX_NO)
        sandbox_load_lookup();
    return sandbox_limit_syscalls(confinement->config->sandbox);
}
