/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmibus-memd(8): the memory authority in a process of its own. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <vmibus/syscalls.h>

#include "daemon/config.h"
#include "daemon/confinement.h"
#include "daemon/handover.h"
#include "daemon/handover_memory.h"
#include "daemon/incarnation.h"
#include "daemon/listening.h"
#include "daemon/log.h"
#include "daemon/recording.h"
#include "daemon/service.h"
#include "daemon/signals.h"
#include "daemon/state.h"
#include "daemon/watchdog.h"
#include "memory/authority.h"
#include "memory/handover.h"
#include "memory/opener.h"
#include "memory/opener_remote.h"
#include "policy/numbering.h"
#include "transport/listener.h"
#include "transport/memory_home.h"
#include "util/arena.h"
#include "util/audit.h"
#include "util/fds.h"

VMIBUS_SYSCALLS("unlink unlinkat")

#define WRITER "memory" /* of intents log and audit chain */
#define PRODUCT "vmibus-memd " PACKAGE_VERSION
#define SERVING_LINKED "serving, linked to the bus"
#define SERVING_ALONE "serving, waiting for the bus"
#define MEMORY_SOCKET "/run/vmibus/memory.sock"
#define SOCKET_MODE 0666 /* who may do what is the policy's to say, for each connection */

/* Octets that sessions may hold together, and about as much again for tails. */
#define REGION_OCTETS ((size_t)32 << 20)
#define SLACK ((size_t)64 << 10) /* carving rounds up, by less than that */

struct options {
    const char *config_path;
    bool config_path_given;
    bool check;
    const char *socket, *opener, *state_directory;  /* NULL: as configured */
};

struct memd {
    struct options options;
    struct config config;
    struct policy *policy;
    struct loop *loop;
    struct ledger ledger;
    struct arena arena;
    struct audit audit;
    struct recorder recorder;
    const struct opener *opener;        /* NULL: this process opens by itself */
    struct authority *authority;
    struct memory_home home;
    struct listener *listener;
    struct loop_source signals;
    struct watchdog watchdog;
    const char *status;                 /* as the service manager is told */
    struct service_fds given;
    uint32_t incarnation;
    int state_fd;
    int audit_fd;
    bool bound;                         /* the socket file is ours to remove */
    bool has_ledger;
    bool hands_over;                    /* asked to end: another daemon may follow */
    bool took_over;                     /* goes on with what another daemon handed over */
    bool discards;                      /* what was taken over is being thrown away */
};

/* --- the command line -------------------------------------------------------------------------- */

enum {
    OPTION_CHECK = 256,
    OPTION_CONFIG,
    OPTION_HELP,
    OPTION_OPENER,
    OPTION_SOCKET,
    OPTION_STATE_DIRECTORY,
    OPTION_VERSION,
};

static const struct option long_options[] = {
    {"check", no_argument, NULL, OPTION_CHECK},
    {"config", required_argument, NULL, OPTION_CONFIG},
    {"help", no_argument, NULL, OPTION_HELP},
    {"opener", required_argument, NULL, OPTION_OPENER},
    {"socket", required_argument, NULL, OPTION_SOCKET},
    {"state-directory", required_argument, NULL, OPTION_STATE_DIRECTORY},
    {"version", no_argument, NULL, OPTION_VERSION},
    {},
};

static void print_help(void) {
    puts("Usage: vmibus-memd [OPTION]...\n"
         "Give out, read and change the memory of virtual machines, beside a vmibusd that does not touch it.\n"
         "\n"
         "      --check                   read the configuration, say whether it is good, and exit\n"
         "      --config FILE             configuration file (default " VMIBUS_SYSCONFDIR "/vmibus/vmibusd.conf)\n"
         "      --opener PATH             where vmibus-opend listens (default: open by its own rights)\n"
         "      --socket PATH             where vmibusd, controls and sensors connect (default " MEMORY_SOCKET ")\n"
         "      --state-directory DIR     what outlives a restart (default " VMIBUS_LOCALSTATEDIR "/lib/vmibus-memory)\n"
         "      --help                    print this and exit\n"
         "      --version                 print the version and exit\n"
         "\n"
         "See vmibus-memd(8), vmibusd.conf(5).");
}

/* -1: go on; else the exit code. */
static int parse(struct options *options, int argc, char **argv) {
    int option;

    *options = (struct options){.config_path = VMIBUS_SYSCONFDIR "/vmibus/vmibusd.conf"};
    while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        switch (option) {
        case OPTION_CHECK:
            options->check = true;
            break;
        case OPTION_CONFIG:
            options->config_path = optarg;
            options->config_path_given = true;
            break;
        case OPTION_OPENER:
            options->opener = optarg;
            break;
        case OPTION_SOCKET:
            options->socket = optarg;
            break;
        case OPTION_STATE_DIRECTORY:
            options->state_directory = optarg;
            break;
        case OPTION_HELP:
            print_help();
            return EXIT_SUCCESS;
        case OPTION_VERSION:
            puts("vmibus-memd " PACKAGE_VERSION);
            return EXIT_SUCCESS;
        default:
            fputs("Try 'vmibus-memd --help'.\n", stderr);
            return 2;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "vmibus-memd: %s: no arguments are taken besides options\nTry 'vmibus-memd --help'.\n", argv[optind]);
        return 2;
    }
    return -1;
}

static int override(char **setting, const char *value) {
    return value ? config_set_string(setting, value) : 0;
}

/* Its state is beside the bus's, never the same. */
static int configure(const struct options *options, struct config *config) {
    int r = config_read_or_tell(config, options->config_path, options->config_path_given);

    if (r < 0)
        return r;
    if (!config->memory_socket)
        r = config_set_string(&config->memory_socket, MEMORY_SOCKET);
    if (r == 0)
        r = override(&config->memory_socket, options->socket);
    if (r == 0)
        r = override(&config->opener_socket, options->opener);
    if (r == 0)
        r = override(&config->memory_state_directory, options->state_directory);
    if (r == 0)
        r = config_set_string(&config->state_directory, config->memory_state_directory);
    if (r < 0)
        config_deinit(config);
    return r;
}

/* --- running ----------------------------------------------------------------------------------- */

static void tell_news(void *context, enum memory_home_news news, enum link_loss loss) {
    static const char *const why[] = {
        [LINK_CLOSED] = "it went away",
        [LINK_GARBLED] = "it said what no bus says",
        [LINK_SLOW] = "it did not listen, or left half a frame",
    };
    struct memd *memd = context;

    if (news == MEMORY_HOME_LINKED) {
        log_info("the bus is linked: leases are in force");
        memd->status = SERVING_LINKED;
    } else {
        log_warning("the link to the bus is lost: %s; leases are suspended until it is back", why[loss]);
        memd->status = SERVING_ALONE;
    }
    service_status(memd->status);
}

static void set_policy(struct memd *memd, struct policy *policy) {
    struct policy *old = memd->policy;

    memd->policy = policy;
    policy_number_rules(policy, &memd->audit);
    authority_set_policy(memd->authority, policy);
    memory_home_set_policy(&memd->home, policy);
    policy_free(old);
}

static void reload(struct memd *memd) {
    struct config config;

    service_reloading();
    if (configure(&memd->options, &config) == 0) {
        config_keep_total_limits(&config, memd->policy);
        set_policy(memd, config_take_policy(&config));
        config_deinit(&config);
        log_info("the policy was read anew from %s", memd->options.config_path);
    } else {
        log_warning("the policy stays as it was");
    }
    service_ready(memd->status);
}

static void signal_came(struct loop_source *source, uint32_t events) {
    struct memd *memd = container_of(source, struct memd, signals);
    int number = signals_take(source);

    (void)events;
    if (number == SIGHUP)
        reload(memd);
    else if (number)
        loop_stop(memd->loop, 0);
    memd->hands_over = number == SIGTERM;
}

/* --- setting up -------------------------------------------------------------------------------- */

static int open_state(struct memd *memd) {
    memd->state_fd = state_open_or_tell(memd->config.state_directory);
    if (memd->state_fd < 0)
        return memd->state_fd;
    if (!memd->config.audit.off)
        memd->audit_fd = state_open_audit(memd->state_fd, WRITER);
    if (!memd->config.audit.off && memd->audit_fd < 0)
        state_tell_audit_failure(memd->config.state_directory, WRITER, memd->audit_fd);
    return 0;
}

static int make_opener(struct memd *memd) {
    const char *path = memd->config.opener_socket;
    int r = path ? opener_remote_new(&memd->opener, path) : 0;

    if (r < 0)
        log_error("opener-socket = %s cannot be used: %s", path, strerror(-r));
    return r;
}

/* An authority that is thrown away again gives up no page: the next one has them. */
static void keep_page(void *context, uint32_t slot, int fd) {
    const struct memd *memd = context;

    if (!memd->discards)
        service_keep_page(slot, fd);
}

static struct memory_home_options home_options(struct memd *memd) {
    const struct config *config = &memd->config;

    return (struct memory_home_options){
        .loop = memd->loop,
        .ledger = &memd->ledger,
        .arena = &memd->arena,
        .policy = memd->policy,
        .incarnation = memd->incarnation,
        .n_endpoints = config->n_endpoints,
        .n_connections = config->n_connections,
        .commands = config->commands,
        .tail_bound = config->tail_bound,
        .half_frame_ms = config->half_frame_ms,
        .region_octets = REGION_OCTETS,
        .news = tell_news,
        .news_context = memd,
    };
}

static int make_home(struct memd *memd) {
    const struct config *config = &memd->config;
    struct memory_home_options options;
    int r;

    memd->policy = config_take_policy(&memd->config);
    policy_number_rules(memd->policy, &memd->audit);
    ledger_init(&memd->ledger, memd->policy->limits_total);
    memd->has_ledger = true;
    r = loop_new(&memd->loop);
    if (r < 0)
        return r;
    options = home_options(memd);
    r = arena_init(&memd->arena, memory_home_needed(&options) + SLACK +
                                     listener_memory_needed(memory_home_session_octets(), config->tail_bound, config->n_connections,
                                                            config->n_large_tails));
    return r < 0 ? r : memory_home_init(&memd->home, &options);
}

/* @param pages those that were kept are of an earlier time, and are ended */
static int make_authority(struct memd *memd, bool pages) {
    const struct config *config = &memd->config;
    const struct authority_options options = {
        .loop = memd->loop,
        .ledger = &memd->ledger,
        .audit = &memd->audit,
        .opener = memd->opener ? memd->opener : opener_local(),
        .policy = memd->policy,
        .incarnation = memd->incarnation,
        .n_endpoints = config->n_endpoints,
        .retire_ms = config->retire_ms,
        .small_writes_on_worker = config->small_writes_on_worker,
        .apart = true,
        .n_sessions = 2 * config->n_connections,
        .keep = service_is_there() ? keep_page : NULL,
        .keep_context = memd,
        .pages = pages ? memd->given.pages : NULL,
        .n_pages = pages ? memd->given.n_pages : 0,
        .link = memory_home_tell,
        .link_context = &memd->home,
    };
    int r = authority_new(&memd->authority, &options);

    memd->home.authority = memd->authority;
    return r;
}

/* @param fd taken whatever the outcome */
static int make_listener(struct memd *memd, int fd) {
    const struct config *config = &memd->config;
    const struct listener_options options = {
        .home = &memd->home.home,
        .n_connections = config->n_connections,
        .hello_ms = config->hello_ms,
        .half_frame_ms = config->half_frame_ms,
        .n_large_tails = config->n_large_tails,
        .arena = &memd->arena,
    };
    int r = listener_new_consume_fd(&memd->listener, memd->loop, fd, &options);

    memd->home.listener = memd->listener;
    return r;
}

static int listen_for_peers(struct memd *memd) {
    int fd = listening_open(memd->config.memory_socket, SOCKET_MODE, "--socket", &memd->given.socket, &memd->bound);

    return fd < 0 ? fd : make_listener(memd, fd);
}

static int tell_failure(const char *what, int r) {
    if (r < 0)
        log_error("%s cannot be made: %s", what, strerror(-r));
    return r;
}

/* All that holds anything of peers or of guests. @param pages as make_authority() */
static int make_parts(struct memd *memd, bool pages) {
    int r;

    if (memd->audit_fd >= 0) {
        r = audit_init(&memd->audit, memd->audit_fd, memd->config.audit_records, memd->incarnation);
        if (r < 0)
            state_tell_audit_failure(memd->config.state_directory, WRITER, r);
    }
    r = tell_failure("what peers hold", make_home(memd));
    return r < 0 ? r : tell_failure("the memory authority", make_authority(memd, pages));
}

static void free_parts(struct memd *memd) {
    memd->listener = listener_free(memd->listener);
    memd->authority = authority_free(memd->authority);
    memory_home_deinit(&memd->home);
    if (memd->loop)
        memd->loop = loop_free(memd->loop);
    arena_deinit(&memd->arena);
    if (memd->has_ledger)
        ledger_deinit(&memd->ledger);
    memd->has_ledger = false;
    audit_deinit(&memd->audit);
    memd->policy = policy_free(memd->policy);
}

/* --- what another daemon handed over ----------------------------------------------------------- */

static struct handover_parts parts_of(struct memd *memd, struct memory_handover_parts *context) {
    *context = (struct memory_handover_parts){.home = &memd->home, .listener = memd->listener, .with_socket = memd->bound};
    return (struct handover_parts){
        .ops = &memory_handover_ops,
        .context = context,
        .loop = memd->loop,
        .product = PRODUCT,
        .state_directory = memd->state_fd,
    };
}

/* The socket that the manager gives in any case, or the one among what was handed over. */
static int take_socket(struct memd *memd, struct handover *handover) {
    int fd = fd_steal(&memd->given.socket);

    if (fd >= 0)
        return fd;
    fd = memory_handover_take_socket(handover);
    memd->bound = fd >= 0;
    return fd;
}

static int take_over(struct memd *memd, struct handover *handover) {
    struct memory_handover_parts context;
    struct handover_parts parts;
    int r = make_parts(memd, false), fd;

    if (r < 0)
        return r;
    fd = take_socket(memd, handover);
    r = fd < 0 ? -ENOTSOCK : make_listener(memd, fd);
    if (r < 0)
        return r;
    listener_pause(memd->listener);
    parts = parts_of(memd, &context);
    r = handover_take(&parts, handover);
    if (r < 0)
        return r;
    authority_handover_go_on(memd->authority, memd->given.pages, memd->given.n_pages, context.is_linked);
    memory_home_set_policy(&memd->home, memd->policy);
    if (context.is_linked)
        memd->status = SERVING_LINKED;
    return 0;
}

/* Half of it is no better than nothing; the listening socket is good in any case. */
static int throw_away(struct memd *memd) {
    memd->discards = true;
    if (memd->listener)
        memd->given.socket = fd_dup(memd->listener->fd);
    free_parts(memd);
    memd->discards = false;
    config_deinit(&memd->config);
    return configure(&memd->options, &memd->config);
}

/* What another daemon handed over goes on; with anything else this is a start like any other. */
static int begin(struct memd *memd) {
    struct memory_handover_parts context;
    const struct handover_parts parts = parts_of(memd, &context);
    bool was_given = memd->given.state >= 0 || memd->given.n_handed > 0, had_socket;
    size_t n_handed = memd->given.n_handed;
    struct handover handover = {};
    int r = handover_look(&handover, &parts, &memd->given, &memd->incarnation);

    if (r == 0) {
        r = take_over(memd, &handover);
        if (r < 0 && throw_away(memd) < 0)
            return -EINVAL;
    }
    memd->took_over = r == 0;
    if (r < 0 && was_given)
        log_warning("what %s handed over is not taken: %s; connections end, and nothing of them goes on",
                    handover.header ? handover.header->product : "the daemon before", strerror(-r));
    had_socket = memd->took_over || memd->given.socket >= 0;
    if (handover_refuse(&memd->given, &handover) && !had_socket)
        memd->bound = true;
    if (was_given)
        service_forget_handover(n_handed);
    if (memd->took_over)
        return 0;
    r = incarnation_raise_or_tell(memd->state_fd, memd->config.state_directory, &memd->incarnation);
    return r < 0 ? r : make_parts(memd, true);
}

/* True: another daemon goes on with everything, so that nothing may be undone. */
static bool hand_over(struct memd *memd) {
    struct memory_handover_parts context;
    const struct handover_parts parts = parts_of(memd, &context);
    int r;

    if (!memd->hands_over || !service_is_there() || memd->config.handover_ms == 0)
        return false;
    r = handover_give(&parts, memd->config.handover_ms);
    if (r < 0) {
        log_warning("nothing is handed over to the next daemon: %s", strerror(-r));
        return false;
    }
    recorder_deinit(&memd->recorder);
    log_info("everything is handed over to the next daemon");
    return true;
}

/* --- coming and going -------------------------------------------------------------------------- */

static int set_up(struct memd *memd) {
    const struct confinement confinement = {
        .config = &memd->config,
        .config_path = memd->options.config_path,
        .socket = memd->config.memory_socket,
        .opens = !memd->config.opener_socket,
    };
    int r;

    listening_raise_descriptor_limit();
    r = service_take_fds_or_tell(&memd->given);
    if (r == 0)
        r = open_state(memd);
    if (r == 0)
        r = make_opener(memd);
    if (r == 0)
        r = begin(memd);
    service_forget_pages(&memd->given); /* the authority has its own of them */
    if (r == 0)
        recording_begin(&memd->recorder, memd->loop, &memd->audit, WRITER, &memd->config, memd->state_fd);
    if (r == 0)
        r = signals_watch(&memd->signals, memd->loop, signal_came);
    if (r == 0)
        r = watchdog_start(&memd->watchdog, memd->loop);
    if (r == 0 && !memd->took_over)
        r = listen_for_peers(memd);
    if (r == 0)
        r = confinement_limit_files(&confinement);
    if (r == 0)
        r = confinement_limit_syscalls(&confinement);
    if (r == 0 && memd->took_over)
        listener_resume(memd->listener);
    return r;
}

static void tear_down(struct memd *memd) {
    memd->listener = listener_free(memd->listener);
    if (memd->bound)
        unlink(memd->config.memory_socket);
    recorder_deinit(&memd->recorder);
    watchdog_stop(&memd->watchdog);
    signals_forget(&memd->signals);
    free_parts(memd);
    memd->opener = opener_remote_free(memd->opener);
    service_fds_deinit(&memd->given);
    fd_close(memd->audit_fd);
    fd_close(memd->state_fd);
    config_deinit(&memd->config);
}

static int run(struct memd *memd) {
    int r = set_up(memd);

    if (r == 0) {
        log_info("serving at %s", memd->config.memory_socket);
        service_ready(memd->status);
        r = loop_run(memd->loop);
        if (r < 0)
            log_error("the event loop failed: %s", strerror(-r));
        service_stopping();
        if (r == 0 && hand_over(memd))
            exit(EXIT_SUCCESS);
    }
    tear_down(memd);
    return r;
}

int main(int argc, char **argv) {
    static struct memd memd = {.given = {.socket = -1, .state = -1}, .state_fd = -1, .audit_fd = -1, .status = SERVING_ALONE};
    int code = parse(&memd.options, argc, argv);

    if (code >= 0)
        return code;
    signals_hold();
    if (configure(&memd.options, &memd.config) < 0)
        return EXIT_FAILURE;
    if (memd.options.check) {
        config_deinit(&memd.config);
        return EXIT_SUCCESS;
    }
    return run(&memd) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
