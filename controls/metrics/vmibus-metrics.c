/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmibus-metrics(8): a control that tells monitoring what a bus counts. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <vmibus/names.h>

#include "exposition.h"
#include "server.h"

#if HAVE_SYSTEMD
#include <systemd/sd-daemon.h>
#endif

#define OPENMETRICS_TYPE "application/openmetrics-text; version=1.0.0; charset=utf-8"

/* Names of machines are not for everybody. */
#define SOCKET_MODE 0660

enum {
    STATUS_FAILED = 1,
    STATUS_USAGE = 2,
    STATUS_NO_BUS = 3,
};

enum option_value {
    OPTION_HELP = 256,
    OPTION_LISTEN,
    OPTION_OUTPUT,
    OPTION_SOCKET,
    OPTION_VERSION,
};

static const struct option long_options[] = {
    {"help", no_argument, NULL, OPTION_HELP},
    {"listen", required_argument, NULL, OPTION_LISTEN},
    {"output", required_argument, NULL, OPTION_OUTPUT},
    {"socket", required_argument, NULL, OPTION_SOCKET},
    {"version", no_argument, NULL, OPTION_VERSION},
    {},
};

struct settings {
    const char *socket; /* of the bus; NULL: the usual one */
    const char *listen; /* NULL: not */
    const char *output; /* NULL: not */
};

static void print_help(void) {
    puts("Usage: vmibus-metrics [OPTION]...\n"
         "Tell what a bus counts, as OpenMetrics: once on standard output, or as often as somebody asks.\n"
         "\n"
         "      --listen PATH  serve it at this unix socket\n"
         "      --output FILE  write it to a file, in the text format that node_exporter's textfile collector reads\n"
         "      --socket PATH  connect to the bus that listens there\n"
         "      --help         print this and exit\n"
         "      --version      print the version and exit\n"
         "\n"
         "See vmibus-metrics(8).");
}

/* Returns -1 to go on, or an exit status. */
static int parse(struct settings *settings, int argc, char **argv) {
    int option;

    while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1)
        switch (option) {
        case OPTION_HELP:
            print_help();
            return 0;
        case OPTION_VERSION:
            puts("vmibus-metrics " PACKAGE_VERSION);
            return 0;
        case OPTION_LISTEN:
            settings->listen = optarg;
            break;
        case OPTION_OUTPUT:
            settings->output = optarg;
            break;
        case OPTION_SOCKET:
            settings->socket = optarg;
            break;
        default:
            fputs("vmibus-metrics: `vmibus-metrics --help` tells more\n", stderr);
            return STATUS_USAGE;
        }
    if (optind == argc && !(settings->listen && settings->output))
        return -1;
    fputs("vmibus-metrics: there are no words, and --listen and --output exclude each other; `vmibus-metrics --help` tells more\n",
          stderr);
    return STATUS_USAGE;
}

static void complain(const char *what, int r) {
    fprintf(stderr, "vmibus-metrics: %s: %s\n", what, r < 0 ? strerror(-r) : vmibus_error_name((unsigned)r));
}

/* Says why the bus does not answer. */
static int finish(int r) {
    if (r == 0)
        return 0;
    if (r == VMIBUS_ERROR_DENIED)
        fputs("vmibus-metrics: the bus refuses: a rule of its policy must give this user the capabilities stats and observe\n", stderr);
    else
        complain("the bus does not answer", r);
    return STATUS_NO_BUS;
}

/* --- a file ------------------------------------------------------------------------------------ */

/* It replaces the one before as a whole, as whoever reads it may come at any moment. */
static int write_file(const struct settings *settings) {
    char *temporary;
    FILE *stream = NULL;
    int fd, r, of_bus = 0;

    if (asprintf(&temporary, "%s.XXXXXX", settings->output) < 0)
        return -ENOMEM;
    fd = mkostemp(temporary, O_CLOEXEC);
    r = fd < 0 ? -errno : 0;
    if (r == 0) {
        stream = fdopen(fd, "w");
        r = stream ? 0 : -errno;
    }
    if (r == 0) {
        of_bus = exposition_write(stream, settings->socket, EXPOSITION_PROMETHEUS);
        if (fchmod(fd, 0644) < 0 || fflush(stream) != 0 || ferror(stream) || rename(temporary, settings->output) < 0)
            r = -errno;
    }
    if (fd >= 0 && r < 0)
        unlink(temporary);
    if (stream)
        fclose(stream);
    else if (fd >= 0)
        close(fd);
    free(temporary);
    if (r < 0) {
        complain(settings->output, r);
        return STATUS_FAILED;
    }
    return finish(of_bus);
}

/* --- a socket ---------------------------------------------------------------------------------- */

static int make_page(void *context, char **pagep, size_t *lengthp) {
    const struct settings *settings = context;
    FILE *stream = open_memstream(pagep, lengthp);

    if (!stream)
        return -errno;
    /* Whether the bus answered, the page says. */
    (void)exposition_write(stream, settings->socket, EXPOSITION_OPENMETRICS);
    return fclose(stream) == 0 ? 0 : -errno;
}

/* The socket that a service manager passed; -ENOENT: none. */
static int take_socket(void) {
#if HAVE_SYSTEMD
    int n = sd_listen_fds(1);

    if (n < 0 || n > 1 || (n == 1 && sd_is_socket(SD_LISTEN_FDS_START, AF_UNIX, SOCK_STREAM, 1) <= 0))
        return -EINVAL;
    if (n == 1)
        return SD_LISTEN_FDS_START;
#endif
    return -ENOENT;
}

static int serve(struct settings *settings, int fd) {
    int r;

    if (fd == -ENOENT)
        fd = server_listen(settings->listen, SOCKET_MODE);
    if (fd < 0) {
        complain(settings->listen ? settings->listen : "the socket that the service manager passed", fd);
        return STATUS_FAILED;
    }
#if HAVE_SYSTEMD
    (void)sd_notify(0, "READY=1\nSTATUS=serving");
#endif
    r = server_run(fd, OPENMETRICS_TYPE, make_page, settings);
    complain("cannot accept", r);
    return STATUS_FAILED;
}

int main(int argc, char **argv) {
    struct settings settings = {};
    int status = parse(&settings, argc, argv), given, r;

    if (status >= 0)
        return status;
    (void)signal(SIGPIPE, SIG_IGN);
    given = take_socket();
    if (settings.output)
        return write_file(&settings);
    if (settings.listen || given != -ENOENT)
        return serve(&settings, given);
    r = exposition_write(stdout, settings.socket, EXPOSITION_OPENMETRICS);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        complain("standard output", -errno);
        return STATUS_FAILED;
    }
    return finish(r);
}
