/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The watcher behind a socket; another program would hand it a bus of its own process. */
#include <stdio.h>
#include <string.h>

#include <vmibus/names.h>

#include "watcher.h"

int main(int argc, char **argv) {
    struct vmibus *bus;
    int r = vmibus_connect(&bus, argc > 1 ? argv[1] : NULL, "watcher");

    if (r == 0) {
        r = watcher_run(bus);
        vmibus_free(bus);
    }
    fprintf(stderr, "watcher: %s\n", r > 0 ? vmibus_error_name((unsigned)r) : strerror(-r));
    return 1;
}
