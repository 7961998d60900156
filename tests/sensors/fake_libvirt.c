/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fake_libvirt.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <libvirt/libvirt-qemu.h>
#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>

#define DOMAINS 8
#define CALLBACKS 256
#define EVENTS 16384
#define FUNCTIONS 64

struct fake_domain {
    char name[64];
    uint8_t uuid[16];
    int number; /* 0: does not run */
    int state, reason;
    pid_t pid;
    int pipe; /* its end is the end of the process */
};

struct _virConnect {
    bool alive;
};

struct _virDomain {
    struct fake_domain *domain;
    virConnectPtr connection;
    int number;
};

struct callback {
    virConnectPtr connection; /* NULL: free */
    int id;                   /* -1: of closing */
    virConnectDomainEventGenericCallback function;
    virConnectCloseFunc close;
    void *opaque;
    virFreeCallback free;
};

struct event {
    struct fake_domain *domain;
    int id, event, detail;
    virConnectPtr closed;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct fake_domain domains[DOMAINS];
static struct callback callbacks[CALLBACKS];
static struct event events[EVENTS], later[64];
static size_t first_event, n_events, n_later; /* of events: those from the first to n_events wait */
static int last_number;
static bool there;
static char hang_function[64], hang_name[64];
static char fail_function[64];
static int fail_code;
static bool hanging;
static unsigned int hang_round;
static enum fake_event_order order;
static const char *(*answers)(const char *command, bool human);
static virEventTimeoutCallback nudge;
static unsigned int left;
static char directory[64], option[160];
static struct {
    char name[48];
    unsigned int n;
} calls[FUNCTIONS];
static __thread int error_code;
static __thread char error_message[64];

static int fail(int code, const char *message) {
    error_code = code;
    snprintf(error_message, sizeof(error_message), "%s", message);

    return -1;
}

/* --- the test's side ------------------------------------------------------------------------------ */

static struct fake_domain *find(const char *name) {
    for (size_t i = 0; i < DOMAINS; i++)
        if (strcmp(domains[i].name, name) == 0)
            return &domains[i];
    abort();
}

static void end_process(struct fake_domain *domain) {
    if (!domain->pid)
        return;
    close(domain->pipe);
    kill(domain->pid, SIGKILL);
    waitpid(domain->pid, NULL, 0);
    domain->pid = 0;
}

static void path_of(const struct fake_domain *domain, char *path, size_t size) {
    if (snprintf(path, size, "%s/qemu/run/%s.pid", directory, domain->name) >= (int)size)
        abort();
}

/* A shell that waits for the end of its input, with arguments like QEMU's. */
static void start_process(struct fake_domain *domain) {
    char uuid[40], path[160];
    int ends[2];
    FILE *file;

    snprintf(uuid, sizeof(uuid), "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", domain->uuid[0],
             domain->uuid[1], domain->uuid[2], domain->uuid[3], domain->uuid[4], domain->uuid[5], domain->uuid[6], domain->uuid[7],
             domain->uuid[8], domain->uuid[9], domain->uuid[10], domain->uuid[11], domain->uuid[12], domain->uuid[13],
             domain->uuid[14], domain->uuid[15]);
    if (pipe2(ends, O_CLOEXEC) < 0)
        abort();
    domain->pid = fork();
    if (domain->pid == 0) {
        dup2(ends[0], STDIN_FILENO);
        execlp("sh", "sh", "-c", "read line", "qemu", "-uuid", uuid, (char *)NULL);
        _exit(127);
    }
    close(ends[0]);
    domain->pipe = ends[1];
    /* Until it has executed it is this program still. */
    snprintf(path, sizeof(path), "/proc/%d/cmdline", domain->pid);
    for (char text[4] = ""; memcmp(text, "sh", 3) != 0; usleep(1000)) {
        file = fopen(path, "r");
        if (file) {
            if (fread(text, 1, sizeof(text) - 1, file) == 0)
                text[0] = '\0';
            fclose(file);
        }
    }
    path_of(domain, path, sizeof(path));
    file = fopen(path, "w");
    fprintf(file, "%d\n", domain->pid);
    fclose(file);
    domain->number = ++last_number;
    domain->state = VIR_DOMAIN_RUNNING;
}

void fake_libvirt_begin(void) {
    char path[96];

    there = true;
    snprintf(directory, sizeof(directory), "/tmp/vmibus-libvirt-XXXXXX");
    if (!mkdtemp(directory))
        abort();
    snprintf(path, sizeof(path), "%s/qemu", directory);
    mkdir(path, 0700);
    snprintf(path, sizeof(path), "%s/qemu/run", directory);
    mkdir(path, 0700);
    snprintf(option, sizeof(option), "uri=qemu:///session?socket=%s/libvirt-sock", directory);
}

void fake_libvirt_end(void) {
    char path[160];

    fake_libvirt_go_on();
    for (size_t i = 0; i < DOMAINS; i++) {
        if (!domains[i].name[0])
            continue;
        end_process(&domains[i]);
        path_of(&domains[i], path, sizeof(path));
        unlink(path);
    }
    snprintf(path, sizeof(path), "%s/qemu/run", directory);
    rmdir(path);
    snprintf(path, sizeof(path), "%s/qemu", directory);
    rmdir(path);
    rmdir(directory);
}

const char *fake_libvirt_option(void) {
    return option;
}

void fake_libvirt_add(const char *name, uint8_t number) {
    struct fake_domain *domain = domains;

    pthread_mutex_lock(&lock);
    while (domain->name[0])
        domain++;
    snprintf(domain->name, sizeof(domain->name), "%s", name);
    memset(domain->uuid, number, sizeof(domain->uuid));
    start_process(domain);
    pthread_mutex_unlock(&lock);
}

pid_t fake_libvirt_pid(const char *name) {
    return find(name)->pid;
}

void fake_libvirt_restart(const char *name) {
    pthread_mutex_lock(&lock);
    end_process(find(name));
    start_process(find(name));
    pthread_mutex_unlock(&lock);
}

void fake_libvirt_shut_off(const char *name) {
    struct fake_domain *domain = find(name);

    pthread_mutex_lock(&lock);
    domain->number = 0;
    domain->state = VIR_DOMAIN_SHUTOFF;
    end_process(domain);
    pthread_mutex_unlock(&lock);
}

void fake_libvirt_set_state(const char *name, int state, int reason) {
    pthread_mutex_lock(&lock);
    find(name)->state = state;
    find(name)->reason = reason;
    pthread_mutex_unlock(&lock);
}

int fake_libvirt_state(const char *name) {
    int state;

    pthread_mutex_lock(&lock);
    state = find(name)->state;
    pthread_mutex_unlock(&lock);

    return state;
}

static void queue(const struct event *event) {
    if (n_events == EVENTS)
        abort();
    events[n_events++] = *event;
    pthread_cond_broadcast(&changed);
}

void fake_libvirt_tell(const char *name, int id, int event, int detail) {
    const struct event told = {.domain = find(name), .id = id, .event = event, .detail = detail};

    pthread_mutex_lock(&lock);
    queue(&told);
    pthread_mutex_unlock(&lock);
}

void fake_libvirt_order(enum fake_event_order wanted) {
    order = wanted;
}

void fake_libvirt_deliver(void) {
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < n_later; i++)
        queue(&later[i]);
    n_later = 0;
    pthread_mutex_unlock(&lock);
}

bool fake_libvirt_is_drained(void) {
    bool drained;

    pthread_mutex_lock(&lock);
    drained = first_event == n_events;
    pthread_mutex_unlock(&lock);

    return drained;
}

void fake_libvirt_hang(const char *function, const char *name) {
    pthread_mutex_lock(&lock);
    snprintf(hang_function, sizeof(hang_function), "%s", function);
    snprintf(hang_name, sizeof(hang_name), "%s", name ? name : "");
    pthread_mutex_unlock(&lock);
}

bool fake_libvirt_hangs(void) {
    bool hangs;

    pthread_mutex_lock(&lock);
    hangs = hanging;
    pthread_mutex_unlock(&lock);

    return hangs;
}

void fake_libvirt_go_on(void) {
    pthread_mutex_lock(&lock);
    hang_function[0] = '\0';
    hang_round++;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

static bool is_there(void) {
    bool is;

    pthread_mutex_lock(&lock);
    is = there;
    pthread_mutex_unlock(&lock);

    return is;
}

void fake_libvirt_kill(void) {
    pthread_mutex_lock(&lock);
    there = false;
    for (size_t i = 0; i < CALLBACKS; i++) {
        const struct event event = {.closed = callbacks[i].connection};

        if (!callbacks[i].connection)
            continue;
        callbacks[i].connection->alive = false;
        if (callbacks[i].id == -1)
            queue(&event);
    }
    hang_round++;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

void fake_libvirt_revive(void) {
    pthread_mutex_lock(&lock);
    there = true;
    pthread_mutex_unlock(&lock);
}

void fake_libvirt_answers(const char *(*answer)(const char *command, bool human)) {
    answers = answer;
}

static unsigned int *count_of(const char *function) {
    size_t i = 0;

    while (calls[i].name[0] && strcmp(calls[i].name, function) != 0)
        i++;
    snprintf(calls[i].name, sizeof(calls[i].name), "%s", function);

    return &calls[i].n;
}

unsigned int fake_libvirt_calls(const char *function) {
    unsigned int n;

    pthread_mutex_lock(&lock);
    n = *count_of(function);
    pthread_mutex_unlock(&lock);

    return n;
}

unsigned int fake_libvirt_left(void) {
    unsigned int n;

    pthread_mutex_lock(&lock);
    n = left;
    pthread_mutex_unlock(&lock);

    return n;
}

/* --- libvirt's side ------------------------------------------------------------------------------- */

void fake_libvirt_fail(const char *function, int code) {
    pthread_mutex_lock(&lock);
    snprintf(fail_function, sizeof(fail_function), "%s", function);
    fail_code = code;
    pthread_mutex_unlock(&lock);
}

bool fake_libvirt_failed(void) {
    bool failed;

    pthread_mutex_lock(&lock);
    failed = !fail_function[0];
    pthread_mutex_unlock(&lock);

    return failed;
}

/* A call comes in: counts it, fails or, hangs if it is to. Returns whether the service is there afterwards. */
static bool enter(const char *function, virConnectPtr connection, const char *name) {
    bool alive;

    pthread_mutex_lock(&lock);
    ++*count_of(function);
    if (strcmp(hang_function, function) == 0 && (!hang_name[0] || (name && strcmp(hang_name, name) == 0))) {
        unsigned int round = hang_round;

        hang_function[0] = '\0';
        hanging = true;
        while (hang_round == round)
            pthread_cond_wait(&changed, &lock);
        hanging = false;
    }
    alive = there && (!connection || connection->alive);
    if (connection && !there)
        connection->alive = false;
    if (alive && strcmp(fail_function, function) == 0) {
        int code = fail_code;

        fail_function[0] = '\0';
        pthread_mutex_unlock(&lock);
        fail(code, "libvirt does not want to");
        return false;
    }
    pthread_mutex_unlock(&lock);
    if (!alive)
        fail(VIR_ERR_INTERNAL_ERROR, "client socket is closed");

    return alive;
}

static bool enter_domain(const char *function, virDomainPtr domain) {
    if (!enter(function, domain->connection, domain->domain->name))
        return false;
    if (!domain->domain->number)
        fail(VIR_ERR_OPERATION_INVALID, "domain is not running");

    return domain->domain->number != 0;
}

static void *keep(size_t size) {
    pthread_mutex_lock(&lock);
    left++;
    pthread_mutex_unlock(&lock);

    return calloc(1, size);
}

static void give_back(void *what) {
    pthread_mutex_lock(&lock);
    left--;
    pthread_mutex_unlock(&lock);
    free(what);
}

int virInitialize(void) {
    return 0;
}

void virSetErrorFunc(void *userdata, virErrorFunc handler) {
    (void)userdata;
    (void)handler;
}

const char *virGetLastErrorMessage(void) {
    return error_message;
}

int virGetLastErrorCode(void) {
    return error_code;
}

virConnectPtr virConnectOpen(const char *uri) {
    virConnectPtr connection;

    if (strcmp(uri, option + strlen("uri=")) != 0)
        abort();
    if (!enter("virConnectOpen", NULL, NULL))
        return NULL;
    connection = keep(sizeof(*connection));
    connection->alive = true;

    return connection;
}

int virConnectClose(virConnectPtr connection) {
    give_back(connection);

    return 0;
}

int virConnectIsAlive(virConnectPtr connection) {
    return is_there() && connection->alive;
}

int virConnectSetKeepAlive(virConnectPtr connection, int interval, unsigned int count) {
    (void)connection;

    return interval > 0 && count > 0 ? 0 : -1;
}

static virDomainPtr new_domain(virConnectPtr connection, struct fake_domain *domain) {
    virDomainPtr made = keep(sizeof(*made));

    *made = (struct _virDomain){.domain = domain, .connection = connection, .number = domain->number};

    return made;
}

int virDomainFree(virDomainPtr domain) {
    give_back(domain);

    return 0;
}

int virConnectListAllDomains(virConnectPtr connection, virDomainPtr **domainsp, unsigned int flags) {
    int n = 0;

    if (!enter("virConnectListAllDomains", connection, NULL) || flags != VIR_CONNECT_LIST_DOMAINS_ACTIVE)
        return -1;
    *domainsp = calloc(DOMAINS + 1, sizeof(**domainsp));
    for (size_t i = 0; i < DOMAINS; i++)
        if (domains[i].number)
            (*domainsp)[n++] = new_domain(connection, &domains[i]);

    return n;
}

virDomainPtr virDomainLookupByUUID(virConnectPtr connection, const unsigned char *uuid) {
    if (!enter("virDomainLookupByUUID", connection, NULL))
        return NULL;
    for (size_t i = 0; i < DOMAINS; i++)
        if (domains[i].name[0] && memcmp(domains[i].uuid, uuid, 16) == 0)
            return new_domain(connection, &domains[i]);
    fail(VIR_ERR_NO_DOMAIN, "no domain");

    return NULL;
}

const char *virDomainGetName(virDomainPtr domain) {
    return domain->domain->name;
}

int virDomainGetUUID(virDomainPtr domain, unsigned char *uuid) {
    memcpy(uuid, domain->domain->uuid, 16);

    return 0;
}

unsigned int virDomainGetID(virDomainPtr domain) {
    return domain->number ? (unsigned int)domain->number : (unsigned int)-1;
}

int virDomainGetState(virDomainPtr domain, int *state, int *reason, unsigned int flags) {
    (void)flags;
    if (!enter("virDomainGetState", domain->connection, domain->domain->name))
        return -1;
    pthread_mutex_lock(&lock);
    *state = domain->domain->state;
    *reason = domain->domain->reason;
    pthread_mutex_unlock(&lock);

    return 0;
}

int virDomainGetJobInfo(virDomainPtr domain, virDomainJobInfoPtr info) {
    memset(info, 0, sizeof(*info));

    return enter("virDomainGetJobInfo", domain->connection, domain->domain->name) ? 0 : -1;
}

static int change(virDomainPtr domain, const char *function, int state, int event) {
    const struct event told = {.domain = domain->domain, .id = VIR_DOMAIN_EVENT_ID_LIFECYCLE, .event = event};

    if (!enter_domain(function, domain))
        return -1;
    pthread_mutex_lock(&lock);
    if (domain->domain->state != state) {
        domain->domain->state = state;
        domain->domain->reason = 1; /* by a user, in both cases */
        if (order == FAKE_EVENT_BEFORE)
            queue(&told);
        else
            later[n_later++] = told;
    }
    pthread_mutex_unlock(&lock);
    if (order == FAKE_EVENT_BEFORE)
        usleep(20000); /* so that the event is there before the answer, mostly */

    return 0;
}

int virDomainSuspend(virDomainPtr domain) {
    return change(domain, "virDomainSuspend", VIR_DOMAIN_PAUSED, VIR_DOMAIN_EVENT_SUSPENDED);
}

int virDomainResume(virDomainPtr domain) {
    return change(domain, "virDomainResume", VIR_DOMAIN_RUNNING, VIR_DOMAIN_EVENT_RESUMED);
}

int virDomainReset(virDomainPtr domain, unsigned int flags) {
    (void)flags;

    return enter_domain("virDomainReset", domain) ? 0 : -1;
}

int virDomainShutdownFlags(virDomainPtr domain, unsigned int flags) {
    (void)flags;

    return enter_domain("virDomainShutdownFlags", domain) ? 0 : -1;
}

int virDomainDestroyFlags(virDomainPtr domain, unsigned int flags) {
    (void)flags;

    return enter_domain("virDomainDestroyFlags", domain) ? 0 : -1;
}

int virDomainPMWakeup(virDomainPtr domain, unsigned int flags) {
    (void)flags;

    return enter_domain("virDomainPMWakeup", domain) ? 0 : -1;
}

int virDomainSendKey(virDomainPtr domain, unsigned int codeset, unsigned int holdtime, unsigned int *keys, int n_keys,
                     unsigned int flags) {
    (void)holdtime;
    (void)keys;
    (void)flags;
    if (codeset != VIR_KEYCODE_SET_LINUX || n_keys <= 0)
        abort();

    return enter_domain("virDomainSendKey", domain) ? 0 : -1;
}

int virDomainQemuMonitorCommand(virDomainPtr domain, const char *command, char **result, unsigned int flags) {
    bool human = flags & VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP;
    const char *answer;

    if (!enter_domain("virDomainQemuMonitorCommand", domain))
        return -1;
    answer = answers ? answers(command, human) : NULL;
    if (!answer)
        answer = human ? "unknown command" : "{\"id\":\"libvirt-1\",\"error\":{\"class\":\"GenericError\",\"desc\":\"no\"}}";
    *result = strdup(answer);

    return 0;
}

/* --- events --------------------------------------------------------------------------------------- */

static int add_callback(const struct callback *callback) {
    size_t i = 0;

    pthread_mutex_lock(&lock);
    while (callbacks[i].connection)
        i++;
    callbacks[i] = *callback;
    left++;
    pthread_mutex_unlock(&lock);

    return (int)i;
}

static void remove_callback(size_t i) {
    struct callback callback;

    pthread_mutex_lock(&lock);
    callback = callbacks[i];
    callbacks[i].connection = NULL;
    left--;
    pthread_mutex_unlock(&lock);
    callback.free(callback.opaque);
}

int virConnectDomainEventRegisterAny(virConnectPtr connection, virDomainPtr domain, int id,
                                     virConnectDomainEventGenericCallback function, void *opaque, virFreeCallback freed) {
    const struct callback callback = {.connection = connection, .id = id, .function = function, .opaque = opaque, .free = freed};

    (void)domain;
    if (!enter("virConnectDomainEventRegisterAny", connection, NULL))
        return -1;

    return add_callback(&callback);
}

int virConnectDomainEventDeregisterAny(virConnectPtr connection, int id) {
    (void)connection;
    remove_callback((size_t)id);

    return 0;
}

int virConnectRegisterCloseCallback(virConnectPtr connection, virConnectCloseFunc function, void *opaque, virFreeCallback freed) {
    const struct callback callback = {.connection = connection, .id = -1, .close = function, .opaque = opaque, .free = freed};

    add_callback(&callback);

    return 0;
}

int virConnectUnregisterCloseCallback(virConnectPtr connection, virConnectCloseFunc function) {
    (void)function;
    for (size_t i = 0; i < CALLBACKS; i++)
        if (callbacks[i].connection == connection && callbacks[i].id == -1) {
            remove_callback(i);
            return 0;
        }

    return -1;
}

int virEventRegisterDefaultImpl(void) {
    return 0;
}

int virEventAddTimeout(int frequency, virEventTimeoutCallback callback, void *opaque, virFreeCallback freed) {
    (void)frequency;
    (void)opaque;
    (void)freed;
    pthread_mutex_lock(&lock);
    nudge = callback;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);

    return 1;
}

int virEventRemoveTimeout(int timer) {
    (void)timer;

    return 0;
}

static void call(const struct callback *callback, const struct event *event) {
    struct _virDomain domain = {.domain = event->domain, .connection = callback->connection};
    void (*plain)(void) = (void (*)(void))callback->function;

    if (event->closed)
        callback->close(callback->connection, VIR_CONNECT_CLOSE_REASON_EOF, callback->opaque);
    else if (event->id == VIR_DOMAIN_EVENT_ID_LIFECYCLE)
        ((virConnectDomainEventCallback)plain)(callback->connection, &domain, event->event, event->detail,
                                                            callback->opaque);
    else if (event->id == VIR_DOMAIN_EVENT_ID_DEVICE_ADDED)
        ((virConnectDomainEventDeviceAddedCallback)plain)(callback->connection, &domain, "dimm0", callback->opaque);
    else if (event->id == VIR_DOMAIN_EVENT_ID_MIGRATION_ITERATION)
        ((virConnectDomainEventMigrationIterationCallback)plain)(callback->connection, &domain, 1, callback->opaque);
    else if (event->id == VIR_DOMAIN_EVENT_ID_JOB_COMPLETED)
        ((virConnectDomainEventJobCompletedCallback)plain)(callback->connection, &domain, NULL, 0, callback->opaque);
    else if (event->id == VIR_DOMAIN_EVENT_ID_PMWAKEUP)
        ((virConnectDomainEventPMWakeupCallback)plain)(callback->connection, &domain, 0, callback->opaque);
    else
        callback->function(callback->connection, &domain, callback->opaque);
}

static void dispatch(const struct event *event) {
    for (size_t i = 0; i < CALLBACKS; i++) {
        const struct callback callback = callbacks[i];

        if (event->closed ? callback.connection == event->closed && callback.id == -1
                          : callback.connection && callback.connection->alive && callback.id == event->id)
            call(&callback, event);
    }
}

int virEventRunDefaultImpl(void) {
    virEventTimeoutCallback timeout;
    struct event event;
    bool any;

    pthread_mutex_lock(&lock);
    while (first_event == n_events && !nudge)
        pthread_cond_wait(&changed, &lock);
    timeout = nudge;
    nudge = NULL;
    any = first_event < n_events;
    if (any)
        event = events[first_event++];
    if (first_event == n_events)
        first_event = n_events = 0;
    pthread_mutex_unlock(&lock);
    if (any)
        dispatch(&event);
    if (timeout)
        timeout(1, NULL);

    return 0;
}
