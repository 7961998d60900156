/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "passage.h"

#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libvirt/libvirt-qemu.h>
#include <libvirt/virterror.h>

/* What is done of a call on the caller's thread. Returns as libvirt does: -1 and an error of the thread's. */
typedef int (*operation_fn)(struct passage_call *command, virDomainPtr domain);

struct passage_call {
    struct call call;
    TAILQ_ENTRY(passage_call) link;
    struct passage *passage; /* the loop's */
    monitor_reply_fn reply;
    void *userdata;
    uint64_t deadline;
    atomic_bool dropped; /* nobody waits: it is not done any more, if it was not begun */
    enum passage_change change;
    bool button;

    operation_fn operation;
    uint8_t uuid[16];
    char *text;
    struct chord *chords;
    size_t n_chords;

    /* what came of it */
    enum monitor_outcome outcome;
    json_object *value;
    char error_class[32];
    bool changed;
};

/* --- on the caller's thread ---------------------------------------------------------------------- */

const char *passage_state_name(int state, int reason) {
    switch (state) {
    case VIR_DOMAIN_RUNNING:
    case VIR_DOMAIN_BLOCKED:
        return "running";
    case VIR_DOMAIN_PAUSED:
        break;
    case VIR_DOMAIN_SHUTDOWN:
        return "shutdown";
    case VIR_DOMAIN_CRASHED:
        return "guest-panicked";
    case VIR_DOMAIN_PMSUSPENDED:
        return "suspended";
    default:
        return NULL;
    }
    switch (reason) {
    case VIR_DOMAIN_PAUSED_SAVE:
    case VIR_DOMAIN_PAUSED_DUMP:
    case VIR_DOMAIN_PAUSED_SNAPSHOT:
        return "save-vm";
    case VIR_DOMAIN_PAUSED_MIGRATION:
        return "finish-migrate";
    case VIR_DOMAIN_PAUSED_IOERROR:
        return "io-error";
    case VIR_DOMAIN_PAUSED_WATCHDOG:
        return "watchdog";
    case VIR_DOMAIN_PAUSED_CRASHED:
        return "guest-panicked";
    case VIR_DOMAIN_PAUSED_SHUTTING_DOWN:
        return "shutdown";
    case VIR_DOMAIN_PAUSED_STARTING_UP:
        return "inmigrate";
    case VIR_DOMAIN_PAUSED_POSTCOPY:
    case VIR_DOMAIN_PAUSED_POSTCOPY_FAILED:
        return "postmigrate";
    default:
        return "paused";
    }
}

static const char *state_of(virDomainPtr domain) {
    int state, reason;

    return virDomainGetState(domain, &state, &reason, 0) < 0 ? NULL : passage_state_name(state, reason);
}

static int do_status(struct passage_call *command, virDomainPtr domain) {
    const char *status = state_of(domain);

    if (!status)
        return -1;
    command->value = json_object_new_object();
    if (!command->value || json_object_object_add(command->value, "status", json_object_new_string(status)) < 0)
        return -1;

    return 0;
}

/* libvirt stops a stopped domain without saying that it was: it must be known whose stop it is. */
static int do_stop(struct passage_call *command, virDomainPtr domain) {
    const char *status = state_of(domain);

    if (!status)
        return -1;
    if (strcmp(status, "running") != 0)
        return 0;
    command->changed = virDomainSuspend(domain) == 0;

    return command->changed ? 0 : -1;
}

static int do_go_on(struct passage_call *command, virDomainPtr domain) {
    const char *status = state_of(domain);

    if (!status)
        return -1;
    if (strcmp(status, "running") == 0)
        return 0;
    command->changed = virDomainResume(domain) == 0;

    return command->changed ? 0 : -1;
}

static int do_reset(struct passage_call *command, virDomainPtr domain) {
    (void)command;

    return virDomainReset(domain, 0);
}

static int do_powerdown(struct passage_call *command, virDomainPtr domain) {
    (void)command;

    return virDomainShutdownFlags(domain, VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN);
}

static int do_quit(struct passage_call *command, virDomainPtr domain) {
    (void)command;

    return virDomainDestroyFlags(domain, VIR_DOMAIN_DESTROY_DEFAULT);
}

static int do_wakeup(struct passage_call *command, virDomainPtr domain) {
    (void)command;

    return virDomainPMWakeup(domain, 0);
}

static int do_keys(struct passage_call *command, virDomainPtr domain) {
    size_t n = 0;

    while (n < command->n_chords && !atomic_load(&command->dropped)) {
        struct chord *chord = &command->chords[n];

        if (virDomainSendKey(domain, VIR_KEYCODE_SET_LINUX, PASSAGE_HOLD_MS, chord->keys, chord->n_keys, 0) < 0)
            return -1;
        n++;
    }
    command->value = json_object_new_uint64(n);

    return 0;
}

bool passage_parse(const char *text, json_object **valuep, bool *failedp) {
    struct json_tokener *tokener;
    json_object *answer, *value;
    size_t len = strnlen(text, CALLER_TEXT_BOUND + 1);

    *valuep = NULL;
    tokener = len <= CALLER_TEXT_BOUND ? json_tokener_new_ex(PASSAGE_DEPTH_BOUND) : NULL;
    if (!tokener)
        return false;
    json_tokener_set_flags(tokener, JSON_TOKENER_STRICT);
    answer = json_tokener_parse_ex(tokener, text, (int)len + 1);
    json_tokener_free(tokener);
    value = monitor_member(answer, "error", json_type_object);
    *failedp = value != NULL;
    if (value || (json_object_is_type(answer, json_type_object) && json_object_object_get_ex(answer, "return", &value)))
        *valuep = json_object_get(value);
    else
        value = NULL;
    /* A return of null is one, too. */
    if (!*failedp && !value &&
        !(json_object_is_type(answer, json_type_object) && json_object_object_get_ex(answer, "return", NULL))) {
        json_object_put(answer);
        return false;
    }
    json_object_put(answer);

    return true;
}

static int refuse(struct passage_call *command, const char *error_class, const char *message) {
    command->outcome = MONITOR_ERROR;
    snprintf(command->error_class, sizeof(command->error_class), "%s", error_class);
    snprintf(command->call.message, sizeof(command->call.message), "%s", message ? message : "");

    return 0;
}

static int do_command(struct passage_call *command, virDomainPtr domain) {
    const char *error_class, *message;
    char *answer;
    bool failed;

    if (virDomainQemuMonitorCommand(domain, command->text, &answer, VIR_DOMAIN_QEMU_MONITOR_COMMAND_DEFAULT) < 0)
        return -1;
    if (!passage_parse(answer, &command->value, &failed)) {
        refuse(command, "Garbage", "the answer is no answer of QMP");
    } else if (failed) {
        error_class = monitor_string(command->value, "class");
        message = monitor_string(command->value, "desc");
        refuse(command, error_class ? error_class : "Unknown", message);
    }
    free(answer);

    return 0;
}

static int do_human(struct passage_call *command, virDomainPtr domain) {
    char *answer;

    if (virDomainQemuMonitorCommand(domain, command->text, &answer, VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP) < 0)
        return -1;
    if (strnlen(answer, CALLER_TEXT_BOUND + 1) > CALLER_TEXT_BOUND)
        refuse(command, "Garbage", "the answer is longer than any answer");
    else
        command->value = json_object_new_string(answer);
    free(answer);

    return 0;
}

static int do_forbidden(struct passage_call *command, virDomainPtr domain) {
    (void)domain;

    return refuse(command, "Forbidden", "the sensor's option monitor forbids it");
}

static struct passage_call *command_of(struct call *call) {
    return (struct passage_call *)((char *)call - offsetof(struct passage_call, call));
}

static void run(struct call *call, virConnectPtr connection) {
    struct passage_call *command = command_of(call);
    virDomainPtr domain;

    command->outcome = MONITOR_LOST;
    if (atomic_load(&command->dropped))
        return;
    domain = virDomainLookupByUUID(connection, command->uuid);
    command->outcome = MONITOR_RETURN;
    if (!domain || command->operation(command, domain) < 0) {
        /* Of a connection that broke nobody knows what was done. */
        command->outcome = virConnectIsAlive(connection) == 1 ? MONITOR_ERROR : MONITOR_LOST;
        snprintf(command->error_class, sizeof(command->error_class), "libvirt-%d", virGetLastErrorCode());
        call_note_error(call);
    }
    if (domain)
        virDomainFree(domain);
}

static void discard(struct call *call) {
    struct passage_call *command = command_of(call);

    json_object_put(command->value);
    free(command->text);
    free(command->chords);
    free(command);
}

/* --- on the loop --------------------------------------------------------------------------------- */

static void answer(struct passage_call *command, enum monitor_outcome outcome) {
    const struct monitor_reply reply = {
        .outcome = outcome,
        .value = outcome == MONITOR_RETURN ? command->value : NULL,
        .error_class = command->error_class,
        .error_text = command->call.message,
    };
    monitor_reply_fn function = command->reply;

    command->reply = NULL;
    if (function)
        function(command->userdata, &reply);
}

static void rearm(struct passage *passage) {
    const struct passage_call *command, *first = NULL;
    uint64_t now = passage->api->now();

    TAILQ_FOREACH(command, &passage->pending, link)
    if (!first || command->deadline < first->deadline)
        first = command;
    if (!first || passage->stuck)
        passage->api->timer_set(passage->timer, 0);
    else
        passage->api->timer_set(passage->timer, first->deadline > now ? first->deadline - now : 1);
}

static void note_change(struct passage *passage, struct passage_call *command) {
    bool seen;

    if (command->change == PASSAGE_CHANGES)
        return;
    seen = passage->changes[command->change].seen;
    passage->changes[command->change].calling = passage->changes[command->change].seen = false;
    if (!command->changed || seen || !passage->open)
        return;
    passage->changes[command->change].owed++;
    passage->callbacks->changed(passage->userdata, command->change);
}

static void done(struct call *call) {
    struct passage_call *command = command_of(call);
    struct passage *passage = command->passage;

    if (call->outcome == CALL_NO_CONNECTION)
        command->outcome = MONITOR_LOST;
    TAILQ_REMOVE(&passage->pending, command, link);
    passage->n_pending--;
    if (!atomic_load(&command->dropped)) {
        note_change(passage, command);
        if (command->button && command->outcome == MONITOR_RETURN)
            passage->callbacks->button_pressed(passage->userdata);
        answer(command, command->outcome);
    }
    discard(call);
    if (passage->stuck && TAILQ_EMPTY(&passage->pending)) {
        passage->stuck = false;
        passage->callbacks->stuck(passage->userdata, NULL);
    }
    rearm(passage);
}

/* Nobody waits for anything any more. */
static void drop_all(struct passage *passage) {
    struct passage_call *command;

    TAILQ_FOREACH(command, &passage->pending, link)
    atomic_store(&command->dropped, true);
    memset(passage->changes, 0, sizeof(passage->changes));
    TAILQ_FOREACH(command, &passage->pending, link)
    answer(command, MONITOR_LOST);
}

static void on_timer(void *userdata) {
    struct passage *passage = userdata;

    passage->open = false;
    passage->stuck = true;
    drop_all(passage);
    passage->callbacks->stuck(passage->userdata, "libvirt does not answer a call for it; does its QEMU hang?");
}

static int submit(struct passage *passage, struct passage_call *command, monitor_reply_fn reply, void *userdata, uint64_t limit) {
    int r;

    command->call = (struct call){.run = run, .done = done, .discard = discard};
    command->passage = passage;
    command->reply = reply;
    command->userdata = userdata;
    memcpy(command->uuid, passage->uuid, sizeof(command->uuid));
    command->deadline = passage->api->now() + limit;
    r = !passage->open ? -ENOTCONN : passage->n_pending == PASSAGE_PENDING_BOUND ? -ENOBUFS : 0;
    if (r == 0)
        r = caller_make(passage->caller, &command->call);
    if (r < 0) {
        discard(&command->call);
        return r == -EAGAIN ? -ENOMEM : r;
    }
    TAILQ_INSERT_TAIL(&passage->pending, command, link);
    passage->n_pending++;
    if (command->change != PASSAGE_CHANGES)
        passage->changes[command->change].calling = true;
    rearm(passage);

    return 0;
}

static struct passage_call *command_new(operation_fn operation) {
    struct passage_call *command = calloc(1, sizeof(*command));

    if (!command)
        return NULL;
    command->operation = operation;
    command->change = PASSAGE_CHANGES;

    return command;
}

/* The text of a command, and its arguments, which are consumed. */
static char *command_text(const char *name, json_object *arguments) {
    json_object *request = json_object_new_object();
    const char *text = NULL;
    char *copy = NULL;

    if (!request || (arguments && json_object_object_add(request, "arguments", arguments) < 0)) {
        json_object_put(arguments);
        json_object_put(request);
        return NULL;
    }
    if (json_object_object_add(request, "execute", json_object_new_string(name)) == 0)
        text = json_object_to_json_string_ext(request, JSON_C_TO_STRING_PLAIN);
    if (text)
        copy = strdup(text);
    json_object_put(request);

    return copy;
}

/* What is libvirt's own to do. */
static const struct {
    const char *name;
    operation_fn operation;
    enum passage_change change;
    bool button;
    uint64_t limit;
} own[] = {
    {"query-status", do_status, PASSAGE_CHANGES, false, MONITOR_DEADLINE_NS},
    {"stop", do_stop, PASSAGE_STOP, false, MONITOR_DEADLINE_NS},
    {"cont", do_go_on, PASSAGE_GO_ON, false, MONITOR_DEADLINE_NS},
    {"system_reset", do_reset, PASSAGE_CHANGES, false, MONITOR_DEADLINE_NS},
    {"system_powerdown", do_powerdown, PASSAGE_CHANGES, true, MONITOR_DEADLINE_NS},
    {"system_wakeup", do_wakeup, PASSAGE_CHANGES, false, MONITOR_DEADLINE_NS},
    {"quit", do_quit, PASSAGE_CHANGES, false, PASSAGE_QUIT_NS},
};

static struct passage *of(const struct monitor *monitor) {
    return (struct passage *)((uintptr_t)monitor - offsetof(struct passage, monitor));
}

static bool is_ready(const struct monitor *monitor) {
    return of(monitor)->open;
}

static int execute(struct monitor *monitor, const char *name, json_object *arguments, monitor_reply_fn reply, void *userdata) {
    struct passage_call *command;
    uint64_t limit = MONITOR_DEADLINE_NS;
    size_t i = 0;

    while (i < sizeof(own) / sizeof(*own) && strcmp(own[i].name, name) != 0)
        i++;
    command = command_new(monitor->closed ? do_forbidden : do_command);
    if (!command) {
        json_object_put(arguments);
        return -ENOMEM;
    }
    if (i < sizeof(own) / sizeof(*own)) {
        command->operation = own[i].operation;
        command->change = own[i].change;
        command->button = own[i].button;
        limit = own[i].limit;
        json_object_put(arguments);
    } else {
        command->text = command_text(name, arguments);
        if (!command->text) {
            free(command);
            return -ENOMEM;
        }
    }

    return submit(of(monitor), command, reply, userdata, limit);
}

static int execute_human(struct monitor *monitor, const char *line, monitor_reply_fn reply, void *userdata) {
    struct passage_call *command = command_new(monitor->closed ? do_forbidden : do_human);

    if (!command)
        return -ENOMEM;
    command->text = strdup(line);
    if (!command->text) {
        free(command);
        return -ENOMEM;
    }

    return submit(of(monitor), command, reply, userdata, MONITOR_DEADLINE_NS);
}

static void linger(struct monitor *monitor, int timeout_ms) {
    caller_wait(of(monitor)->caller, timeout_ms);
}

static const struct monitor_ops monitor_ops = {
    .is_ready = is_ready,
    .execute = execute,
    .execute_human = execute_human,
    .linger = linger,
};

int passage_send_keys(struct passage *passage, const struct chord *chords, size_t n_chords, monitor_reply_fn reply,
                      void *userdata) {
    struct passage_call *command = command_new(do_keys);

    if (!command)
        return -ENOMEM;
    command->chords = calloc(n_chords + 1, sizeof(*chords));
    if (!command->chords) {
        free(command);
        return -ENOMEM;
    }
    memcpy(command->chords, chords, n_chords * sizeof(*chords));
    command->n_chords = n_chords;

    return submit(passage, command, reply, userdata, MONITOR_DEADLINE_NS);
}

bool passage_is_echo(struct passage *passage, enum passage_change change) {
    if (passage->changes[change].owed) {
        passage->changes[change].owed--;
        return true;
    }
    if (passage->changes[change].calling)
        passage->changes[change].seen = true;

    return false;
}

void passage_close(struct passage *passage) {
    passage->open = false;
    drop_all(passage);
    rearm(passage);
}

void passage_end(struct passage *passage) {
    struct passage_call *command;

    passage->open = false;
    /* libvirt's event may come before its answer. */
    TAILQ_FOREACH(command, &passage->pending, link)
    if (command->operation == do_quit && !atomic_exchange(&command->dropped, true))
        answer(command, MONITOR_RETURN);
    passage_close(passage);
}

void passage_open(struct passage *passage) {
    passage->open = !passage->stuck;
    for (size_t i = 0; i < PASSAGE_CHANGES; i++)
        passage->changes[i].owed = 0;
}

int passage_init(struct passage *passage, const struct vmibus_sensor_api *api, struct vmibus_sensor_host *host,
                 struct caller *caller, const uint8_t *uuid, const struct passage_callbacks *callbacks, void *userdata) {
    *passage = (struct passage){.monitor = {.ops = &monitor_ops, .managed = true},
                                .api = api,
                                .callbacks = callbacks,
                                .userdata = userdata,
                                .caller = caller};
    memcpy(passage->uuid, uuid, sizeof(passage->uuid));
    TAILQ_INIT(&passage->pending);

    return api->timer_new(host, on_timer, passage, &passage->timer);
}

void passage_deinit(struct passage *passage) {
    if (passage->api)
        passage->api->timer_free(passage->timer);
    passage->timer = NULL;
}
