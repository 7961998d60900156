/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A domain's monitor, through libvirt.  Run state and power are libvirt's own calls, so libvirt knows of
 * them; all else is passed through to QEMU, which taints the domain, and is refused where that is forbidden.
 *
 * libvirt tells of a stop, and of going on, in an event that may come before or after the answer to the
 * call that caused it.  The first of the two counts, and the other is an echo.
 *
 * A command that misses its deadline makes the passage stuck: everything unanswered is LOST, what was
 * not begun is not done any more, and nothing is taken until the call that hangs has come back.
 */
#ifndef SENSORS_LIBVIRT_PASSAGE_H
#define SENSORS_LIBVIRT_PASSAGE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include <vmibus/sensor.h>

#include "caller.h"
#include "machine/monitor.h"

/** Commands that may be unanswered. */
#define PASSAGE_PENDING_BOUND 64
/** How long the end of a domain's process may take. */
#define PASSAGE_QUIT_NS (UINT64_C(30) * 1000 * 1000 * 1000)
/** Nesting of json taken. */
#define PASSAGE_DEPTH_BOUND 32
/** Keys pressed together. */
#define PASSAGE_CHORD_BOUND VIR_DOMAIN_SEND_KEY_MAX_KEYS
/** Milliseconds for which they are held. */
#define PASSAGE_HOLD_MS 20

TAILQ_HEAD(passage_calls, passage_call);

/** What a call of ours changes of the run state. */
enum passage_change {
    PASSAGE_STOP,
    PASSAGE_GO_ON,
    PASSAGE_CHANGES,
};

/** Keys that are pressed together and released again: evdev codes. */
struct chord {
    uint32_t keys[PASSAGE_CHORD_BOUND];
    int n_keys;
};

/** What the owner learns, on the loop. */
struct passage_callbacks {
    /** A call of ours stopped the guest, or let it go on, and no event told so yet. */
    void (*changed)(void *userdata, enum passage_change change);
    /** A call succeeded of which libvirt has no event: the power button was pressed. */
    void (*button_pressed)(void *userdata);
    /** It is stuck (@a message for people), or not any more (NULL). */
    void (*stuck)(void *userdata, const char *message);
};

struct passage {
    struct monitor monitor;
    const struct vmibus_sensor_api *api;
    const struct passage_callbacks *callbacks;
    void *userdata;
    uint8_t uuid[16];
    struct caller *caller; /* borrowed */
    bool open;             /**< commands are taken */
    bool stuck;
    struct passage_calls pending;
    size_t n_pending;
    struct vmibus_sensor_timer *timer;
    struct {
        bool calling;      /* a call that changes it is under way */
        bool seen;         /* ... and its event came first */
        unsigned int owed; /* events that are echoes of answers */
    } changes[PASSAGE_CHANGES];
};

/** Prepares. @a caller and @a callbacks are borrowed. 0 or a negative errno; to be ended in both cases. */
int passage_init(struct passage *passage, const struct vmibus_sensor_api *api, struct vmibus_sensor_host *host,
                 struct caller *caller, const uint8_t *uuid, const struct passage_callbacks *callbacks, void *userdata);

/** Ends it; what is unanswered stays so. The caller has left before. */
void passage_deinit(struct passage *passage);

/** What is unanswered is LOST, and nothing is taken until it is opened again. */
void passage_close(struct passage *passage);

/** The domain has ended: whoever asked for that is told so, and it is closed. */
void passage_end(struct passage *passage);

/** Commands are taken from now on, unless it is stuck; events of before are no echoes. */
void passage_open(struct passage *passage);

/** libvirt told of such a change: whether it is an echo of what the answer to our call told already. */
bool passage_is_echo(struct passage *passage, enum passage_change change);

/**
 * Presses keys, one chord after the other.
 * @param chords  copied
 * @param reply   its value is how many chords were pressed
 * @return as monitor_execute()
 */
int passage_send_keys(struct passage *passage, const struct chord *chords, size_t n_chords, monitor_reply_fn reply, void *userdata);

/**
 * Reads what QEMU answered to a command that was passed through.
 * @param valuep  receives what it returned, or what it says of the error, to be put
 * @return whether it is an answer at all; @a failedp: whether it is an error
 */
bool passage_parse(const char *text, json_object **valuep, bool *failedp);

/** How QEMU names a run state of libvirt's (qapi/run-state.json), or NULL: the domain does not run. */
const char *passage_state_name(int state, int reason);

#endif
