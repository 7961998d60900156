/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "domain.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include <libvirt/virterror.h>

#include "identity.h"
#include "sensor.h"

/*
 * How long after the end of its process libvirt may take to say why: it waits until nothing is left of the process, thus for
 * whoever has to take note of its end (measured: 1.6 s under a slow init).  And pauses between looks that fail.
 */
#define LAST_WORD_NS (10000 * NANOSECONDS_PER_MS)
#define LOOK_AGAIN_NS (2000 * NANOSECONDS_PER_MS)

static void begin_look(struct domain *domain);

/* --- looking, on the caller's thread -------------------------------------------------------------- */

struct look {
    struct call call;
    struct domain *domain; /* the loop's */
    uint8_t uuid[16];
    char *directory;
    bool looked;        /* what follows is so */
    const char *status; /* NULL: it does not run */
    bool copying;       /* its memory is being copied, to another host or into a file */
    struct process process;
};

static struct look *look_of(struct call *call) {
    return (struct look *)((char *)call - offsetof(struct look, call));
}

static void look_discard(struct call *call) {
    struct look *look = look_of(call);

    process_deinit(&look->process);
    free(look->directory);
    free(look);
}

/* The domain's number rises with each start. 0: it does not run; -1: that is not known. */
static int number_of(struct look *look, virConnectPtr connection, const char **statusp) {
    virDomainPtr domain = virDomainLookupByUUID(connection, look->uuid);
    int state, reason, number;
    virDomainJobInfo job;
    const char *name;

    if (!domain)
        return virGetLastErrorCode() == VIR_ERR_NO_DOMAIN ? 0 : -1;
    number = (int)virDomainGetID(domain);
    name = virDomainGetName(domain);
    if (virDomainGetState(domain, &state, &reason, 0) < 0) {
        number = -1;
    } else {
        *statusp = passage_state_name(state, reason);
        if (!*statusp || number < 0)
            number = 0;
    }
    if (number > 0 && name && look->process.fd < 0)
        identity_find(look->directory, name, look->uuid, &look->process);
    look->copying = number > 0 && virDomainGetJobInfo(domain, &job) == 0 && job.type != VIR_DOMAIN_JOB_NONE;
    virDomainFree(domain);

    return number;
}

static void look_run(struct call *call, virConnectPtr connection) {
    struct look *look = look_of(call);
    const char *status = NULL;
    int number = number_of(look, connection, &status), after = number;

    /* Where it was started anew meanwhile, the process may be the one before: not known for now. */
    if (number > 0)
        after = number_of(look, connection, &status);
    if (number < 0 || after != number) {
        call_note_error(call);
        return;
    }
    look->looked = true;
    look->status = number > 0 ? status : NULL;
}

/* --- the process ---------------------------------------------------------------------------------- */

static void forget(struct domain *domain, enum vmibus_reason reason) {
    const struct vmibus_sensor_api *api = domain->libvirt->api;

    keys_deinit(&domain->keys);
    api->unwatch_fd(domain->process_source);
    domain->process_source = NULL;
    domain->process_ended = false;
    machine_forget(&domain->machine);
    if (domain->machine.endpoint)
        api->withdraw(domain->machine.endpoint, reason);
    domain->machine.endpoint = NULL;
}

/* It does not run any more. Frees it. */
static void end(struct domain *domain, enum vmibus_lifecycle_cause cause, enum vmibus_reason reason) {
    struct libvirt *libvirt = domain->libvirt;

    passage_end(&domain->passage);
    if (domain->machine.endpoint) {
        memory_end(&domain->machine, reason);
        lifecycle_ended(&domain->machine, cause);
    }
    forget(domain, reason);
    domain_free(domain);
    libvirt_announce(libvirt);
}

static void on_process(void *userdata, uint32_t events) {
    struct domain *domain = userdata;
    const struct vmibus_sensor_api *api = domain->libvirt->api;

    (void)events;
    api->unwatch_fd(domain->process_source);
    domain->process_source = NULL;
    domain->process_ended = true;
    memory_end(&domain->machine, VMIBUS_REASON_EXIT);
    api->timer_set(domain->end_timer, domain->libvirt->connection.up ? LAST_WORD_NS : 1);
}

static void on_timer(void *userdata) {
    struct domain *domain = userdata;

    if (domain->process_ended)
        end(domain, VMIBUS_LIFECYCLE_CAUSE_CRASHED, VMIBUS_REASON_EXIT);
    else
        domain_look(domain);
}

/* --- introduction --------------------------------------------------------------------------------- */

static void __attribute__((format(printf, 2, 3)))
complain(struct domain *domain, const char *format, ...) {
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(domain->message, sizeof(domain->message), format, arguments);
    va_end(arguments);
    libvirt_announce(domain->libvirt);
}

static bool offer(struct domain *domain, struct process *process) {
    const struct vmibus_sensor_api *api = domain->libvirt->api;
    struct machine *machine = &domain->machine;
    struct vmibus_sensor_offer what = {
        .name = machine->name,
        .pid = process->pid,
        .start_time = process->start_time,
        .groups = machine->monitor->closed ? LIBVIRT_GROUPS & ~(uint32_t)(VMIBUS_GROUP_MEMORY | VMIBUS_GROUP_REGISTERS)
                                           : LIBVIRT_GROUPS,
    };
    struct saved_machine saved;
    int r;

    memcpy(what.uuid, machine->uuid, sizeof(what.uuid));
    if (machine_restore(machine, process, &saved))
        keys_restore(&domain->keys, &saved);
    r = api->offer(domain->libvirt->host, &what, domain, &machine->endpoint);
    if (r < 0) {
        machine->endpoint = NULL;
        complain(domain, "%s: the VM was not accepted: %s", machine->name, strerror(-r));
        return false;
    }
    machine->process = *process;
    *process = (struct process)PROCESS_NONE;
    if (machine->process.fd >= 0 && api->watch_fd(domain->libvirt->host, machine->process.fd, EPOLLIN, on_process, domain,
                                                  &domain->process_source) < 0)
        domain->process_source = NULL;

    return true;
}

/* What was seen differs from what was told: an event was lost, or is still to come. */
static void reconcile(struct domain *domain, const struct look *look) {
    bool running = strcmp(look->status, "running") == 0;

    if (running && !domain->machine.lifecycle.running)
        lifecycle_resumed(&domain->machine, VMIBUS_LIFECYCLE_CAUSE_RESUMED);
    else if (!running && domain->machine.lifecycle.running)
        lifecycle_stopped(&domain->machine, VMIBUS_LIFECYCLE_CAUSE_PAUSED);
    if (look->copying != domain->machine.lifecycle.migrating)
        lifecycle_copying(&domain->machine, look->copying);
}

static void introduce(struct domain *domain, struct look *look) {
    struct machine *machine = &domain->machine;
    bool same = machine->process.pid == look->process.pid && machine->process.start_time == look->process.start_time;

    if (machine->endpoint && !same)
        forget(domain, VMIBUS_REASON_EXIT);
    if (!machine->endpoint && !offer(domain, &look->process))
        return;
    complain(domain, "%s", "");
    if (domain->passage_stuck)
        return;
    passage_open(&domain->passage);
    if (machine->lifecycle.known) {
        reconcile(domain, look);
        return;
    }
    lifecycle_told(machine, look->status);
    machine->lifecycle.beginning = domain->beginning;
    domain->beginning = VMIBUS_LIFECYCLE_CAUSE_OBSERVED;
    machine_begin(machine);
    if (look->copying)
        lifecycle_copying(machine, true);
}

static void look_done(struct call *call) {
    struct look *look = look_of(call);
    struct domain *domain = look->domain;

    domain->looking = false;
    if (domain->look_again) {
        begin_look(domain);
    } else if (!look->looked) {
        if (domain->libvirt->connection.up) {
            complain(domain, "%s: libvirt does not tell of it: %s", domain->machine.name, call->message);
            domain->libvirt->api->timer_set(domain->end_timer, LOOK_AGAIN_NS);
        }
    } else if (look->status) {
        introduce(domain, look);
    } else {
        end(domain, VMIBUS_LIFECYCLE_CAUSE_SHUTDOWN, VMIBUS_REASON_EXIT);
    }
    look_discard(call);
}

static void begin_look(struct domain *domain) {
    struct look *look = calloc(1, sizeof(*look));
    const char *directory = domain->libvirt->options.pid_directory;

    domain->look_again = false;
    if (look) {
        look->call = (struct call){.run = look_run, .done = look_done, .discard = look_discard};
        look->domain = domain;
        look->process = (struct process)PROCESS_NONE;
        look->directory = directory ? strdup(directory) : NULL;
        memcpy(look->uuid, domain->uuid, sizeof(look->uuid));
        if (caller_make(domain->caller, &look->call) == 0) {
            domain->looking = true;
            return;
        }
        look_discard(&look->call);
    }
    complain(domain, "%s: no memory or no thread to look at it", domain->machine.name);
    domain->libvirt->api->timer_set(domain->end_timer, LOOK_AGAIN_NS);
}

void domain_look(struct domain *domain) {
    if (domain->looking)
        domain->look_again = true;
    else
        begin_look(domain);
}

/* --- what is told ---------------------------------------------------------------------------------- */

static enum vmibus_lifecycle_cause cause_of_start(int detail) {
    switch (detail) {
    case VIR_DOMAIN_EVENT_STARTED_MIGRATED:
        return VMIBUS_LIFECYCLE_CAUSE_MIGRATED;
    case VIR_DOMAIN_EVENT_STARTED_RESTORED:
    case VIR_DOMAIN_EVENT_STARTED_FROM_SNAPSHOT:
        return VMIBUS_LIFECYCLE_CAUSE_FROM_SNAPSHOT;
    case VIR_DOMAIN_EVENT_STARTED_WAKEUP:
        return VMIBUS_LIFECYCLE_CAUSE_WAKEUP;
    default:
        return VMIBUS_LIFECYCLE_CAUSE_STARTED;
    }
}

static enum vmibus_lifecycle_cause cause_of_stop(int detail) {
    switch (detail) {
    case VIR_DOMAIN_EVENT_SUSPENDED_MIGRATED:
    case VIR_DOMAIN_EVENT_SUSPENDED_POSTCOPY:
    case VIR_DOMAIN_EVENT_SUSPENDED_POSTCOPY_FAILED:
        return VMIBUS_LIFECYCLE_CAUSE_MIGRATED;
    case VIR_DOMAIN_EVENT_SUSPENDED_IOERROR:
        return VMIBUS_LIFECYCLE_CAUSE_IO_ERROR;
    case VIR_DOMAIN_EVENT_SUSPENDED_WATCHDOG:
        return VMIBUS_LIFECYCLE_CAUSE_WATCHDOG;
    case VIR_DOMAIN_EVENT_SUSPENDED_RESTORED:
    case VIR_DOMAIN_EVENT_SUSPENDED_FROM_SNAPSHOT:
        return VMIBUS_LIFECYCLE_CAUSE_FROM_SNAPSHOT;
    default:
        return VMIBUS_LIFECYCLE_CAUSE_PAUSED;
    }
}

static enum vmibus_lifecycle_cause cause_of_resumption(int detail) {
    switch (detail) {
    case VIR_DOMAIN_EVENT_RESUMED_MIGRATED:
    case VIR_DOMAIN_EVENT_RESUMED_POSTCOPY:
    case VIR_DOMAIN_EVENT_RESUMED_POSTCOPY_FAILED:
        return VMIBUS_LIFECYCLE_CAUSE_MIGRATED;
    case VIR_DOMAIN_EVENT_RESUMED_FROM_SNAPSHOT:
        return VMIBUS_LIFECYCLE_CAUSE_FROM_SNAPSHOT;
    default:
        return VMIBUS_LIFECYCLE_CAUSE_RESUMED;
    }
}

static enum vmibus_lifecycle_cause cause_of_end(int detail) {
    switch (detail) {
    case VIR_DOMAIN_EVENT_STOPPED_CRASHED:
    case VIR_DOMAIN_EVENT_STOPPED_FAILED:
        return VMIBUS_LIFECYCLE_CAUSE_CRASHED;
    case VIR_DOMAIN_EVENT_STOPPED_MIGRATED:
        return VMIBUS_LIFECYCLE_CAUSE_MIGRATED;
    case VIR_DOMAIN_EVENT_STOPPED_SAVED:
        return VMIBUS_LIFECYCLE_CAUSE_SAVED;
    case VIR_DOMAIN_EVENT_STOPPED_FROM_SNAPSHOT:
        return VMIBUS_LIFECYCLE_CAUSE_FROM_SNAPSHOT;
    default:
        return VMIBUS_LIFECYCLE_CAUSE_SHUTDOWN;
    }
}

static void started(struct domain *domain, int detail) {
    enum vmibus_lifecycle_cause cause = cause_of_start(detail);

    if (cause == VMIBUS_LIFECYCLE_CAUSE_WAKEUP) {
        if (machine_is_usable(&domain->machine) && domain->machine.lifecycle.suspended)
            lifecycle_woken(&domain->machine);
        return;
    }
    /* That it runs may have been told first. */
    if (machine_is_usable(&domain->machine) && !domain->looking)
        lifecycle_publish(&domain->machine, cause, false);
    else
        domain->beginning = cause;
    domain_look(domain);
}

static void suspended(struct domain *domain, int detail) {
    if (!passage_is_echo(&domain->passage, PASSAGE_STOP) &&
        (domain->machine.lifecycle.running || detail == VIR_DOMAIN_EVENT_SUSPENDED_FROM_SNAPSHOT))
        lifecycle_stopped(&domain->machine, cause_of_stop(detail));
}

static void resumed(struct domain *domain, int detail) {
    if (!passage_is_echo(&domain->passage, PASSAGE_GO_ON) &&
        (!domain->machine.lifecycle.running || detail == VIR_DOMAIN_EVENT_RESUMED_FROM_SNAPSHOT))
        lifecycle_resumed(&domain->machine, cause_of_resumption(detail));
    /* No event tells that an internal snapshot is done. */
    if (domain->machine.lifecycle.migrating)
        domain_look(domain);
}

/* Of a domain that is in sight. */
static void take_lifecycle(struct domain *domain, int event, int detail) {
    struct machine *machine = &domain->machine;

    switch (event) {
    case VIR_DOMAIN_EVENT_SUSPENDED:
        suspended(domain, detail);
        break;
    case VIR_DOMAIN_EVENT_RESUMED:
        resumed(domain, detail);
        break;
    case VIR_DOMAIN_EVENT_SHUTDOWN:
        lifecycle_shut_down(machine);
        break;
    case VIR_DOMAIN_EVENT_PMSUSPENDED:
        lifecycle_suspended(machine);
        break;
    case VIR_DOMAIN_EVENT_CRASHED:
        lifecycle_panicked(machine, false);
        break;
    default:
        break;
    }
}

static void take(struct domain *domain, const struct notice *notice) {
    struct machine *machine = &domain->machine;

    switch (notice->kind) {
    case NOTICE_LIFECYCLE:
        take_lifecycle(domain, notice->event, notice->detail);
        break;
    case NOTICE_REBOOT:
        lifecycle_reset(machine, false);
        break;
    case NOTICE_WAKEUP:
        if (machine->lifecycle.suspended)
            lifecycle_woken(machine);
        break;
    case NOTICE_DEVICES:
        memory_suspect(machine);
        break;
    case NOTICE_COPYING:
    case NOTICE_COPIED:
        lifecycle_copying(machine, notice->kind == NOTICE_COPYING);
        break;
    case NOTICE_LOST:
        break;
    }
}

void domain_notice(struct domain *domain, const struct notice *notice) {
    bool lifecycle = notice->kind == NOTICE_LIFECYCLE;

    if (lifecycle && notice->event == VIR_DOMAIN_EVENT_STOPPED) {
        end(domain, cause_of_end(notice->detail),
            notice->detail == VIR_DOMAIN_EVENT_STOPPED_MIGRATED ? VMIBUS_REASON_MIGRATED : VMIBUS_REASON_EXIT);
    } else if (lifecycle && notice->event == VIR_DOMAIN_EVENT_STARTED) {
        started(domain, notice->detail);
    } else if (machine_is_usable(&domain->machine)) {
        take(domain, notice);
        domain->look_again |= domain->looking; /* what is being looked at may be what was before */
    } else {
        domain_look(domain);
    }
}

void domain_lose_sight(struct domain *domain) {
    struct machine *machine = &domain->machine;
    bool known = machine->lifecycle.known;

    passage_close(&domain->passage);
    memory_lost(machine);
    lifecycle_lost(machine);
    if (!machine->endpoint)
        return;
    if (!machine->process.pid) {
        forget(domain, VMIBUS_REASON_WITHDRAWN);
        return;
    }
    if (!known)
        return;
    memory_end(machine, VMIBUS_REASON_WITHDRAWN);
    lifecycle_publish(machine, VMIBUS_LIFECYCLE_CAUSE_OBSERVED, false);
}

/* --- the passage ----------------------------------------------------------------------------------- */

static void on_changed(void *userdata, enum passage_change change) {
    struct domain *domain = userdata;

    if (change == PASSAGE_STOP && domain->machine.lifecycle.running)
        lifecycle_stopped(&domain->machine, VMIBUS_LIFECYCLE_CAUSE_PAUSED);
    else if (change == PASSAGE_GO_ON && !domain->machine.lifecycle.running)
        lifecycle_resumed(&domain->machine, VMIBUS_LIFECYCLE_CAUSE_RESUMED);
}

static void on_button(void *userdata) {
    struct domain *domain = userdata;

    lifecycle_powerdown(&domain->machine);
}

static void on_stuck(void *userdata, const char *message) {
    struct domain *domain = userdata;

    domain->passage_stuck = message != NULL;
    if (message) {
        domain_lose_sight(domain);
        complain(domain, "%s: %s", domain->machine.name, message);
    } else if (domain->libvirt->connection.up) {
        domain_look(domain);
    }
}

static const struct passage_callbacks callbacks = {
    .changed = on_changed,
    .button_pressed = on_button,
    .stuck = on_stuck,
};

/* --- life ------------------------------------------------------------------------------------------ */

static int set_up(struct domain *domain, const char *name) {
    struct libvirt *libvirt = domain->libvirt;
    struct machine *machine = &domain->machine;
    int r = machine_init(machine, &libvirt->machines, name, strnlen(name, VMIBUS_NAME_BOUND));

    if (r >= 0)
        r = caller_new(&domain->caller, libvirt->exchange, libvirt->options.uri, NULL, NULL);
    if (r >= 0)
        r = passage_init(&domain->passage, libvirt->api, libvirt->host, domain->caller, domain->uuid, &callbacks, domain);
    if (r >= 0)
        r = libvirt->api->timer_new(libvirt->host, on_timer, domain, &domain->end_timer);
    if (r < 0)
        return r;
    memcpy(machine->uuid, domain->uuid, sizeof(machine->uuid));
    domain->passage.monitor.closed = !options_allow_monitor(&libvirt->options, name);
    machine->monitor = &domain->passage.monitor;

    return 0;
}

int domain_new(struct domain **domainp, struct libvirt *libvirt, const uint8_t *uuid, const char *name) {
    struct domain *domain = calloc(1, sizeof(*domain));
    int r;

    if (!domain)
        return -ENOMEM;
    domain->libvirt = libvirt;
    memcpy(domain->uuid, uuid, sizeof(domain->uuid));
    keys_init(&domain->keys);
    TAILQ_INSERT_TAIL(&libvirt->domains, domain, link);
    r = set_up(domain, name);
    if (r < 0) {
        domain_free(domain);
        return r;
    }
    *domainp = domain;
    begin_look(domain);

    return 0;
}

struct domain *domain_free(struct domain *domain) {
    const struct vmibus_sensor_api *api = domain->libvirt->api;

    TAILQ_REMOVE(&domain->libvirt->domains, domain, link);
    domain->machine.monitor = NULL;
    domain->caller = caller_leave(domain->caller);
    passage_deinit(&domain->passage);
    keys_deinit(&domain->keys);
    api->unwatch_fd(domain->process_source);
    api->timer_free(domain->end_timer);
    machine_deinit(&domain->machine);
    free(domain);

    return NULL;
}
