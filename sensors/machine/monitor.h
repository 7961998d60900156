/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A monitor: what executes the commands for a machine, and answers them.  Its vocabulary is QMP's, whoever
 * passes it on: a socket of QEMU's, or a service that manages the machine.
 *
 * Rules: answers come later, on the loop, never from within the call; each command is answered once.  What
 * an answer holds is nobody's word: readers check each type.
 */
#ifndef SENSORS_MACHINE_MONITOR_H
#define SENSORS_MACHINE_MONITOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <json-c/json.h>

/** How long a command may take. */
#define MONITOR_DEADLINE_NS (UINT64_C(5) * 1000 * 1000 * 1000)

/** What came of a command. */
enum monitor_outcome {
    MONITOR_RETURN = 0, /**< executed: value is what it returned */
    MONITOR_ERROR = 1,  /**< refused: error_class and error_text */
    MONITOR_LOST = 2,   /**< the connection failed first; whether it was executed is not known */
};

/** The answer to a command; everything in it is valid during the callback only. */
struct monitor_reply {
    enum monitor_outcome outcome;
    json_object *value;
    const char *error_class;
    const char *error_text;
};

typedef void (*monitor_reply_fn)(void *userdata, const struct monitor_reply *reply);

struct monitor;

/** What a kind of monitor does; see the functions of the same names. */
struct monitor_ops {
    bool (*is_ready)(const struct monitor *monitor);
    int (*execute)(struct monitor *monitor, const char *command, json_object *arguments, monitor_reply_fn reply,
                   void *userdata);
    int (*execute_human)(struct monitor *monitor, const char *line, monitor_reply_fn reply, void *userdata);
    void (*linger)(struct monitor *monitor, int timeout_ms);
};

/** A monitor, embedded in what implements it. */
struct monitor {
    const struct monitor_ops *ops;
    bool managed;       /**< by somebody else: it is told nothing but run state and power, and asked the rest */
    bool closed;        /**< nothing may be asked of it but run state and power: its memory is not provided */
};

/** Whether commands can be given. NULL: no. */
bool monitor_is_ready(const struct monitor *monitor);

/**
 * Gives a command.
 * @param command    its name
 * @param arguments  consumed in every case; NULL for none
 * @param reply      called exactly once if 0 is returned, unless the monitor is freed; may be NULL
 * @return 0, -ENOTCONN, -ENOBUFS (too much is unanswered), -ENOMEM
 */
int monitor_execute(struct monitor *monitor, const char *command, json_object *arguments, monitor_reply_fn reply,
                    void *userdata);

/** Gives a command of the human monitor; the answer's value is a string. Returns as monitor_execute(). */
int monitor_execute_human(struct monitor *monitor, const char *line, monitor_reply_fn reply, void *userdata);

/**
 * Waits until the last command was answered, or for so long.  For a last command only, before the monitor is freed: the one
 * function that blocks.
 */
void monitor_linger(struct monitor *monitor, int timeout_ms);

/** A member of an object, or NULL if @a object is none, lacks it, or it has another type. */
json_object *monitor_member(json_object *object, const char *key, enum json_type type);

/** A string member, or NULL. Strings with an embedded NUL are not given out. */
const char *monitor_string(json_object *object, const char *key);

/** A boolean member. */
bool monitor_boolean(json_object *object, const char *key, bool *valuep);

/** The text of an answer to monitor_execute_human(), and its length in octets; NULL if it is none. */
const char *monitor_text(const struct monitor_reply *reply, size_t *lenp);

#endif
