/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vmibus-opend(8): opens in the name of a process, tightens modes, and passes descriptors to the memory authority.  The only
 * process of vmibus with capabilities, and so the one that does the least.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <vmibus/syscalls.h>

#include "daemon/log.h"
#include "daemon/opener_config.h"
#include "daemon/opener_server.h"
#include "daemon/privileges.h"
#include "daemon/sandbox.h"
#include "daemon/service.h"
#include "daemon/signals.h"
#include "daemon/watchdog.h"
#include "memory/opener.h"
#include "util/fds.h"
#include "util/loop.h"

VMIBUS_SYSCALLS("unlink unlinkat")

enum {
    OPTION_CHECK = 256,
    OPTION_CONFIG,
    OPTION_HELP,
    OPTION_SOCKET,
    OPTION_VERSION,
};

static const struct option long_options[] = {
    {"check", no_argument, NULL, OPTION_CHECK},
    {"config", required_argument, NULL, OPTION_CONFIG},
    {"help", no_argument, NULL, OPTION_HELP},
    {"socket", required_argument, NULL, OPTION_SOCKET},
    {"version", no_argument, NULL, OPTION_VERSION},
    {},
};

struct options {
    const char *config_path;
    const char *socket;     /* NULL: as the configuration says */
    bool config_given;
    bool check;
};

struct opend {
    struct options options;
    struct opener_config config;
    struct loop *loop;
    struct loop_source signals;
    struct watchdog watchdog;
    struct opener_server *server;
    bool bound;             /* the socket file is ours to remove */
};

/* --- options and configuration ----------------------------------------------------------------- */

static void print_help(void) {
    puts("Usage: vmibus-opend [OPTION]...\n"
         "Open processes and their memory for the memory authority of vmibus, and nothing else.\n"
         "\n"
         "      --check         read the configuration, say whether it is good, and exit\n"
         "      --config FILE   configuration file (default " VMIBUS_SYSCONFDIR "/vmibus/vmibusd.conf)\n"
         "      --socket PATH   where the memory authority connects (default /run/vmibus/opener.sock)\n"
         "      --help          print this and exit\n"
         "      --version       print the version and exit\n"
         "\n"
         "What it permits is in section [opener] of the configuration. See vmibus-opend(8).");
}

/* 0: run; 1: done; 2: wrong. */
static int parse_options(struct options *options, int argc, char **argv) {
    int option;

    *options = (struct options){.config_path = VMIBUS_SYSCONFDIR "/vmibus/vmibusd.conf"};
    while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        switch (option) {
        case OPTION_CHECK:
            options->check = true;
            break;
        case OPTION_CONFIG:
            options->config_path = optarg;
            options->config_given = true;
            break;
        case OPTION_SOCKET:
            options->socket = optarg;
            break;
        case OPTION_HELP:
            print_help();
            return 1;
        case OPTION_VERSION:
            puts("vmibus-opend " PACKAGE_VERSION);
            return 1;
        default:
            fputs("Try 'vmibus-opend --help'.\n", stderr);
            return 2;
        }
    }
    if (optind == argc)
        return 0;
    fprintf(stderr, "vmibus-opend: %s: no arguments are taken besides options\nTry 'vmibus-opend --help'.\n", argv[optind]);
    return 2;
}

static int configure(struct opend *opend) {
    const struct options *options = &opend->options;
    struct opener_config_error error = {};
    int r = opener_config_init(&opend->config);

    if (r == 0)
        r = opener_config_read(&opend->config, options->config_path, &error);
    if (r == -ENOENT && !options->config_given)
        r = 0;
    if (r == 0 && options->socket)
        r = opener_config_set(&opend->config, "socket", options->socket, &error);
    if (r == 0)
        r = opener_config_complete(&opend->config, &error);
    if (r == -EPERM)
        log_error("the configuration is not believed: %s", error.text);
    else if (r == -EINVAL && error.line)
        log_error("%s:%d: %s", error.path, error.line, error.text);
    else if (r == -EINVAL)
        log_error("%s", error.text);
    else if (r < 0)
        log_error("%s cannot be read: %s", error.path, strerror(-r));
    return r;
}

/* --- setting up -------------------------------------------------------------------------------- */

static void signal_came(struct loop_source *source, uint32_t events) {
    struct opend *opend = container_of(source, struct opend, signals);

    (void)events;
    /* What it permits is fixed at the start: SIGHUP is taken, and nothing comes of it. */
    for (int number; (number = signals_take(source));)
        if (number != SIGHUP)
            loop_stop(opend->loop, 0);
}

static int drop_privileges(void) {
    static const struct {
        unsigned number;
        const char *name;
    } names[] = {{CAP_DAC_OVERRIDE, "CAP_DAC_OVERRIDE"}, {CAP_FOWNER, "CAP_FOWNER"}, {CAP_SYS_PTRACE, "CAP_SYS_PTRACE"}};
    uint64_t missing = 0;
    int r = privileges_keep(PRIVILEGES_TO_OPEN, &missing);

    if (r < 0) {
        log_error("capabilities cannot be given up: %s", strerror(-r));
        return r;
    }
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
        if (missing & PRIVILEGE(names[i].number))
            log_warning("%s is missing: what belongs to other users cannot be opened; run it with AmbientCapabilities=%s",
                        names[i].name, names[i].name);
    r = sandbox_close_process(false);
    if (r < 0)
        log_error("the process cannot be closed to others: %s", strerror(-r));
    return r;
}

static int open_socket(struct opend *opend) {
    const char *path = opend->config.socket;
    int fd = service_take_seqpacket();

    if (fd == -ENOENT) {
        fd = opener_server_bind(path);
        opend->bound = fd >= 0;
        if (fd == -EADDRINUSE)
            log_error("%s: another vmibus-opend listens there; give another path with --socket", path);
        else if (fd == -EEXIST)
            log_error("%s is there and no socket; remove it, or give another path with --socket", path);
        else if (fd < 0)
            log_error("%s cannot be listened on: %s; its directory must be there and writable", path, strerror(-fd));
    } else if (fd < 0) {
        log_error("the service manager passed something else than one listening unix socket of type seqpacket");
    }
    return fd;
}

static int set_up(struct opend *opend) {
    int fd, r;

    signals_hold(); /* its children have them blocked too, and are ended by SIGKILL */
    r = loop_new(&opend->loop);
    if (r == 0)
        r = signals_watch(&opend->signals, opend->loop, signal_came);
    if (r == 0)
        r = watchdog_start(&opend->watchdog, opend->loop);
    if (r < 0) {
        log_error("the event loop cannot be made: %s", strerror(-r));
        return r;
    }
    fd = open_socket(opend);
    if (fd < 0)
        return fd;
    r = drop_privileges();
    if (r < 0) {
        fd_close(fd);
        return r;
    }
    r = opener_server_new_consume_fd(&opend->server, opend->loop, fd, opener_local(), &opend->config);
    if (r < 0)
        log_error("the socket cannot be served: %s", strerror(-r));
    /* Landlock it cannot have: it would be kept from the processes of others. */
    return r < 0 ? r : sandbox_limit_syscalls(opend->config.sandbox);
}

static void tear_down(struct opend *opend) {
    opener_server_free(opend->server);
    watchdog_stop(&opend->watchdog);
    if (opend->bound)
        unlink(opend->config.socket);
    signals_forget(&opend->signals);
    loop_free(opend->loop);
    opener_config_deinit(&opend->config);
}

int main(int argc, char **argv) {
    struct opend opend = {};
    int r = parse_options(&opend.options, argc, argv);

    if (r != 0)
        return r == 1 ? EXIT_SUCCESS : 2;
    r = configure(&opend);
    if (r == 0 && !opend.options.check) {
        r = set_up(&opend);
        if (r == 0) {
            log_info("serving at %s", opend.config.socket);
            if (opend.config.users.n == 0)
                log_warning("no user is permitted: say 'users =' in [opener], and name who runs QEMU");
            service_ready("serving");
            r = loop_run(opend.loop);
            service_stopping();
        }
    }
    tear_down(&opend);
    return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
