/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Looking at one endpoint: RAM is attached, a kernel is open and a timer runs while somebody asks for what is told, and only then.
 *
 * Every look is the worker's: opening a kernel takes tens of milliseconds, a list as long as the guest makes it.  While one is
 * there it owns the inspection; what ends meanwhile is marked, and ended when it is back.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "linux.h"

static void go_on(struct observed *observed);

static const struct vmibus_sensor_api *api_of(const struct observed *observed) {
    return observed->observer->api;
}

static bool is_wanted(const struct observed *observed) {
    return observed->kinds && observed->epoch;
}

/* --- trouble ------------------------------------------------------------------------------------------------------ */

static void be_in_trouble(struct observed *observed, const char *why) {
    char trouble[OBSERVED_TROUBLE_BOUND];

    snprintf(trouble, sizeof(trouble), "%.200s: %.300s", observed->name, why);
    if (strcmp(trouble, observed->trouble) == 0)
        return;
    memcpy(observed->trouble, trouble, sizeof(trouble));
    observer_announce(observed->observer);
}

/* Tries again later, and later each time: a limit that was hit, or a kernel that is not understood, may be another by then. */
static void try_later(struct observed *observed, const char *why) {
    be_in_trouble(observed, why);
    api_of(observed)->timer_set(observed->timer, observed->pause);
    observed->pause = 2 * observed->pause < OBSERVED_PAUSE_MAX_NS ? 2 * observed->pause : OBSERVED_PAUSE_MAX_NS;
}

static void be_well(struct observed *observed) {
    observed->pause = 1000 * OBSERVED_NS_PER_MS;
    if (!observed->trouble[0])
        return;
    observed->trouble[0] = '\0';
    observer_announce(observed->observer);
}

/* --- RAM ---------------------------------------------------------------------------------------------------------- */

static void forget_pictures(struct inspection *inspection) {
    processes_clear(&inspection->processes);
    loaded_clear(&inspection->loaded);
    events_clear(&inspection->events);
}

static void release(struct observed *observed) {
    struct inspection *inspection = &observed->inspection;

    forget_pictures(inspection);
    inspection->kernel = vmibus_linux_free(inspection->kernel);
    inspection->ram = vmibus_guest_ram_free(inspection->ram);
    if (observed->attached && observed->endpoint)
        (void)api_of(observed)->detach(observed->endpoint, observed->attached);
    observed->attached = 0;
}

static void attach(struct observed *observed) {
    int r;

    if (observed->asked)
        return;
    observed->asked = observed->epoch;
    r = api_of(observed)->attach(observed->endpoint, observed->epoch);
    if (r < 0) {
        observed->asked = 0;
        try_later(observed, strerror(-r));
    }
}

static int open_ram(struct inspection *inspection, const struct vmibus_sensor_ram *ram) {
    return vmibus_guest_ram_new_unmapped(&inspection->ram, ram->ranges, ram->n_ranges, ram->fds, ram->n_fds, ram->pagemap_fd);
}

static void say_refusal(struct observed *observed, enum vmibus_error error, enum vmibus_reason reason) {
    char why[128];

    if (reason == VMIBUS_REASON_PRIVATE_RAM) {
        try_later(observed, "its RAM is private to its process and cannot be read from here; give it shared memory");
        return;
    }
    if (reason == VMIBUS_REASON_SENSOR_GRANT) {
        try_later(observed, "no rule gives the user of this sensor ram-fd on it, see vmibus-sensord(8)");
        return;
    }
    snprintf(why, sizeof(why), "its memory cannot be read (error %d, reason %d, as in vmibus-protocol(7))", error, reason);
    try_later(observed, why);
}

void observed_attached(struct observed *observed, const struct vmibus_sensor_ram *ram, enum vmibus_error error,
                       enum vmibus_reason reason) {
    uint64_t asked = observed->asked;
    int r;

    observed->asked = 0;
    observed->attached = ram ? ram->epoch : 0;
    if (!ram && asked == observed->epoch && is_wanted(observed)) {
        say_refusal(observed, error ? error : VMIBUS_ERROR_UNSUPPORTED, error ? reason : VMIBUS_REASON_PRIVATE_RAM);
        return;
    }
    if (ram && ram->epoch == observed->epoch && is_wanted(observed)) {
        r = open_ram(&observed->inspection, ram);
        if (r < 0) {
            release(observed);
            try_later(observed, strerror(-r));
            return;
        }
    }
    go_on(observed);
}

/* --- looking ------------------------------------------------------------------------------------------------------ */

static int open_kernel(struct inspection *inspection) {
    const struct vmibus_guest_reader reader = vmibus_guest_ram_reader(inspection->ram);
    int r = vmibus_linux_new(&inspection->kernel, &reader, &inspection->root, inspection->note);

    if (r > 0)
        snprintf(inspection->why, sizeof(inspection->why), "its kernel's note contradicts its tables");
    return r;
}

static int inspect(struct inspection *inspection) {
    int r = inspection->kernel ? 0 : open_kernel(inspection);

    if (r)
        return r;
    if (inspection->kinds & VMIBUS_KIND_BIT(VMIBUS_KIND_PROCESS))
        r = processes_look(&inspection->processes, inspection->kernel, &inspection->events);
    else
        processes_clear(&inspection->processes);
    if (r == 0 && inspection->kinds & VMIBUS_KIND_BIT(VMIBUS_KIND_MODULE))
        r = loaded_look(&inspection->loaded, inspection->kernel, &inspection->events);
    else if (r == 0)
        loaded_clear(&inspection->loaded);
    if (r > 0)
        snprintf(inspection->why, sizeof(inspection->why), "%s", vmibus_linux_why(inspection->kernel));
    return r;
}

/* On the worker's thread. */
static void look(void *data) {
    struct inspection *inspection = &((struct observed *)data)->inspection;

    inspection->result = inspect(inspection);
    if (inspection->result < 0)
        snprintf(inspection->why, sizeof(inspection->why), "reading it failed (errno %d)", -inspection->result);
}

static void publish(struct observed *observed) {
    const struct events *events = &observed->inspection.events;

    for (size_t i = 0; i < events->n; i++) {
        struct event *event = &events->items[i];

        if (event->frame.header.kind == VMIBUS_KIND_PROCESS)
            event->frame.process.epoch = observed->epoch;
        else
            event->frame.module.epoch = observed->epoch;
        (void)api_of(observed)->publish(observed->endpoint, &event->frame, event->tail_length ? event->tail : NULL,
                                        event->tail_length);
    }
    events_clear(&observed->inspection.events);
}

static void look_later(struct observed *observed) {
    uint64_t interval = observed->observer->interval_ms * OBSERVED_NS_PER_MS, now = api_of(observed)->now();

    if (observed->inspection.result == 0) {
        be_well(observed);
        /* On multiples of the interval: several guests share wake-ups. */
        api_of(observed)->timer_set(observed->timer, interval - now % interval);
        return;
    }
    try_later(observed, observed->inspection.why);
}

static void looked(void *data) {
    struct observed *observed = data;

    observed->looking = false;
    if (!observed->endpoint) {
        observed_free(observed);
        return;
    }
    if (observed->abandoned) {
        observed->abandoned = false;
        go_on(observed);
        return;
    }
    publish(observed);
    if (is_wanted(observed) && !observed->looking)
        look_later(observed);
}

static void begin_look(struct observed *observed) {
    struct inspection *inspection = &observed->inspection;

    inspection->root = observed->root;
    inspection->note = observed->note;
    inspection->kinds = observed->kinds & OBSERVED_KINDS;
    observed->looking = true;
    if (api_of(observed)->work(observed->observer->host, look, looked, observed) == 0)
        return;
    observed->looking = false;
    inspection->result = -ENOMEM;
    snprintf(inspection->why, sizeof(inspection->why), "there is no memory to look at it");
    look_later(observed);
}

/* Brings what is held to what is wanted. */
static void go_on(struct observed *observed) {
    if (observed->looking) {
        observed->abandoned = observed->abandoned || !is_wanted(observed) || observed->attached != observed->epoch;
        return;
    }
    if (observed->timer)
        api_of(observed)->timer_set(observed->timer, 0);
    if (observed->attached && (!is_wanted(observed) || observed->attached != observed->epoch))
        release(observed);
    if (!is_wanted(observed))
        be_well(observed);
    else if (observed->attached)
        begin_look(observed);
    else
        attach(observed);
}

static void timer_fired(void *userdata) {
    go_on(userdata);
}

/* --- what it hears ------------------------------------------------------------------------------------------------ */

void observed_demand(struct observed *observed, uint64_t kinds) {
    uint64_t before = observed->kinds;

    observed->kinds = kinds & OBSERVED_KINDS;
    if (observed->kinds == before)
        return;
    if (observed->kinds && !observed->timer &&
        api_of(observed)->timer_new(observed->observer->host, timer_fired, observed, &observed->timer) < 0) {
        observed->kinds = 0;
        return;
    }
    /* Who asks anew begins anew, also where the last look has not heard yet that nobody asked. */
    if (observed->looking && before & ~observed->kinds)
        observed->abandoned = true;
    go_on(observed);
}

void observed_see_memctx(struct observed *observed, const struct vmibus_memctx *memctx) {
    bool is_linux = memctx->state == VMIBUS_MEMCTX_STATE_READY && memctx->note;

    if (is_linux && memctx->epoch == observed->epoch && memctx->cr3 == observed->root.cr3 && memctx->note == observed->note)
        return;
    if (observed->looking)
        observed->abandoned = true;
    else
        release(observed);
    observed->epoch = is_linux ? memctx->epoch : 0;
    observed->root = (struct vmibus_guest_root){.cr3 = memctx->cr3, .levels = memctx->levels};
    observed->note = memctx->note;
    go_on(observed);
}

/* --- coming and going --------------------------------------------------------------------------------------------- */

struct observed *observed_new(struct observer *observer, struct vmibus_sensor_endpoint *endpoint, const char *name) {
    struct observed *observed = calloc(1, sizeof(*observed));

    if (!observed)
        return NULL;
    observed->observer = observer;
    observed->endpoint = endpoint;
    observed->pause = 1000 * OBSERVED_NS_PER_MS;
    snprintf(observed->name, sizeof(observed->name), "%s", name);
    TAILQ_INSERT_TAIL(&observer->guests, observed, link);
    return observed;
}

struct observed *observed_free(struct observed *observed) {
    if (!observed)
        return NULL;
    observed->endpoint = NULL;
    release(observed);
    api_of(observed)->timer_free(observed->timer);
    TAILQ_REMOVE(&observed->observer->guests, observed, link);
    free(observed);
    return NULL;
}

void observed_vanish(struct observed *observed) {
    observed->kinds = 0;
    be_well(observed);
    observed->endpoint = NULL;
    if (observed->looking)
        observed->abandoned = true;
    else
        observed_free(observed);
}
