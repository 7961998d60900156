/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A host for one sensor under test: struct vmibus_sensor_api over poll(2).
 *
 * Descriptors, timers and work are real; everything that a real host would hand to the bus or to
 * the memory authority is written into a log that the test reads.  The test plays bus and
 * authority: it executes commands, gives verdicts (by itself, or automatically), and owns the time
 * where it asks to.
 *
 * Rules broken by the sensor (a handle used after withdraw(), a timer or source left behind by
 * stop(), a command answered twice, a callback's tail kept) end the test with a message: the mock
 * asserts. One mock at a time in a process, used by one thread.
 */
#ifndef TESTS_SENSORS_MOCK_HOST_H
#define TESTS_SENSORS_MOCK_HOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vmibus/protocol.h>
#include <vmibus/sensor.h>

/** What of the host a sensor called. */
enum mock_call {
    MOCK_ANNOUNCE,
    MOCK_OFFER,
    MOCK_WITHDRAW,
    MOCK_PUBLISH,
    MOCK_COMPLETE,
    MOCK_LAYOUT,
    MOCK_ROOT,
    MOCK_END_EPOCH,
    MOCK_MEMORY_BUSY,
    MOCK_ATTACH,
    MOCK_DETACH,
    MOCK_PROVIDE,
    MOCK_CALLS,
};

/** A layout as it was proposed; descriptors are duplicates that live as long as the record. */
struct mock_layout {
    uint32_t pid;
    uint64_t start_time;
    struct vmibus_layout_range *ranges;
    size_t n_ranges;
    int *fds;
    size_t n_fds;
};

/** One call; members that do not belong to it are zero. */
struct mock_record {
    enum mock_call call;
    uint64_t at;                             /**< the mock's time */
    struct vmibus_sensor_endpoint *endpoint; /**< NULL: ANNOUNCE, COMPLETE */
    int result;                              /**< what the sensor was told */
    enum vmibus_sensor_state state;          /**< ANNOUNCE */
    char *message;                           /**< ANNOUNCE, may be NULL */
    enum vmibus_reason reason;               /**< WITHDRAW, END_EPOCH, MEMORY_BUSY */
    bool busy;                               /**< MEMORY_BUSY */
    uint64_t epoch;                          /**< ATTACH, DETACH */
    struct vmibus_frame frame;               /**< PUBLISH */
    void *tail;                              /**< PUBLISH, COMPLETE */
    size_t tail_length;
    int fds[VMIBUS_FDS_PER_FRAME];           /**< COMPLETE: duplicates that live as long as the record */
    size_t n_fds;
    uint32_t groups;                         /**< PROVIDE */
    uint64_t id;                 /**< COMPLETE */
    struct vmibus_ack ack;       /**< COMPLETE */
    struct vmibus_mem_root root; /**< ROOT */
    struct mock_layout layout;   /**< LAYOUT */
};

/** An endpoint of the mock. Stays readable until mock_host_free(), also after it is gone. */
struct vmibus_sensor_endpoint {
    struct mock_host *host;
    char *name;
    uint8_t uuid[16];
    uint32_t pid;
    uint64_t start_time;
    uint32_t groups;
    void *userdata;
    bool foreign;   /**< made by mock_host_appear() */
    bool gone;      /**< withdrawn or vanished */
    uint64_t epoch; /**< current epoch, 0 if none */
};

struct mock_host;

/**
 * What the mock does by itself; a test changes it at any time.  Verdicts are given at the next
 * iteration, never inside the sensor's call, as a host in another process would.
 */
struct mock_behaviour {
    int results[MOCK_CALLS]; /**< negative errno: the call fails so, nothing else happens */
    bool answer_layout;      /**< give verdicts on layout(): a new epoch, unless layout_error says
                                otherwise */
    enum vmibus_error layout_error;
    enum vmibus_reason layout_reason;
    bool answer_root; /**< give verdicts on root() */
    enum vmibus_error root_error;
    enum vmibus_reason root_reason;
    /** Called with each record as it is written. May be NULL. */
    void (*observe)(void *data, const struct mock_record *record);
    void *observe_data;
};

/** Makes a mock for a module. All verdicts are automatic and favourable. Never fails. */
struct mock_host *mock_host_new(const struct vmibus_sensor_module *module);

/** Stops the sensor if it runs, frees everything. Takes and returns NULL. */
struct mock_host *mock_host_free(struct mock_host *host);

/** What the instance before gave, borrowed; before mock_host_start(). */
void mock_host_give(struct mock_host *host, const struct vmibus_sensor_saved *saved);

/** The bus has taken an endpoint that was offered: see offered() of the module. */
void mock_host_accept(struct mock_host *host, struct vmibus_sensor_endpoint *endpoint, bool kept);

/** The mock's behaviour, to be changed. */
struct mock_behaviour *mock_host_behaviour(struct mock_host *host);

/**
 * The test owns the time from now on: now() stands still and timers fire in mock_host_advance()
 * only. Before mock_host_start().
 */
void mock_host_own_time(struct mock_host *host);

/**
 * Starts the sensor. @a options is a NULL-terminated array of "key=value", or NULL. Returns what
 * start() returned.
 */
int mock_host_start(struct mock_host *host, const char *const *options);

/**
 * Stops the sensor as a host does: work that runs is waited for, work that does not run yet is
 * dropped, no done() is called; then stop(); then all endpoints left are gone.  Asserts that no
 * timer and no source is left behind.
 */
void mock_host_stop(struct mock_host *host);

/** Whether start() succeeded and stop() was not called yet. */
bool mock_host_is_running(const struct mock_host *host);

/** The instance that start() gave. */
void *mock_host_instance(struct mock_host *host);

/* --- time and iterations ---------------------------------------------------------------------- */

/**
 * One iteration: waits up to @a timeout_ms (-1: for ever) for a descriptor, a timer, work done or
 * a verdict. Returns callbacks run.
 */
int mock_host_iterate(struct mock_host *host, int timeout_ms);

/**
 * Iterates until work, verdicts and ready descriptors are all served; does not wait for timers
 * that are not due.
 */
void mock_host_settle(struct mock_host *host);

/**
 * Iterates until @a condition holds. Returns false if it does not within @a timeout_ms (a safety
 * net, not a measurement).
 */
bool mock_host_wait(struct mock_host *host, bool (*condition)(void *data), void *data,
                    int timeout_ms);

/** Moves the owned time on, firing timers in order, settling after each. */
void mock_host_advance(struct mock_host *host, uint64_t ns);

/** The mock's time, as now() tells it. */
uint64_t mock_host_now(struct mock_host *host);

/* --- the log ---------------------------------------------------------------------------------- */

/** How often a call was made since the last mock_host_clear(). */
size_t mock_host_count(const struct mock_host *host, enum mock_call call);

/** The @a index-th such call, counted from 0, or NULL. Valid until mock_host_clear(). */
const struct mock_record *mock_host_record(const struct mock_host *host, enum mock_call call,
                                           size_t index);

/** The last such call, or NULL. */
const struct mock_record *mock_host_last(const struct mock_host *host, enum mock_call call);

/** The last such call that concerns an endpoint, or NULL. */
const struct mock_record *mock_host_last_of(const struct mock_host *host, enum mock_call call,
                                            const struct vmibus_sensor_endpoint *endpoint);

/** The @a index-th of all calls, or NULL: their order. */
const struct mock_record *mock_host_any(const struct mock_host *host, size_t index);

/** Forgets the log. */
void mock_host_clear(struct mock_host *host);

/** The latest endpoint of that name that is not gone, or NULL. */
struct vmibus_sensor_endpoint *mock_host_endpoint(struct mock_host *host, const char *name);

/** The answer to a command, or NULL. */
const struct vmibus_ack *mock_host_ack(const struct mock_host *host, uint64_t id);

/** Timers that exist; sources that exist; work given and not done. */
size_t mock_host_timers(const struct mock_host *host);
size_t mock_host_sources(const struct mock_host *host);
size_t mock_host_work(const struct mock_host *host);

/* --- playing bus and authority ---------------------------------------------------------------- */

/**
 * Executes a command: copies frame and tail, sets direction, tail_length and timestamp, calls
 * execute(), frees the copies.
 * @param endpoint NULL: the command is for the sensor as such
 * @return the command's id; where execute() returned a negative errno, an ACK with IO is in the log
 */
uint64_t mock_host_execute(struct mock_host *host, struct vmibus_sensor_endpoint *endpoint,
                           const struct vmibus_frame *frame, const void *tail, size_t tail_length);

/** Cancels a command. */
void mock_host_cancel(struct mock_host *host, struct vmibus_sensor_endpoint *endpoint, uint64_t id);

/** Tells the demand. */
void mock_host_demand(struct mock_host *host, struct vmibus_sensor_endpoint *endpoint,
                      uint64_t kinds);

/** A verdict on layout(): error 0 begins epoch @a epoch. */
void mock_host_answer_layout(struct mock_host *host, struct vmibus_sensor_endpoint *endpoint,
                             uint64_t epoch, enum vmibus_error error, enum vmibus_reason reason);

/** A verdict on root(). */
void mock_host_answer_root(struct mock_host *host, struct vmibus_sensor_endpoint *endpoint,
                           uint64_t epoch, enum vmibus_error error, enum vmibus_reason reason);

/** An answer to attach(): RAM, or NULL and why not. */
void mock_host_answer_attach(struct mock_host *host, struct vmibus_sensor_endpoint *endpoint,
                             const struct vmibus_sensor_ram *ram, enum vmibus_error error,
                             enum vmibus_reason reason);

/** Tells of an endpoint of another sensor. The endpoint's userdata is what the sensor stored. */
struct vmibus_sensor_endpoint *mock_host_appear(struct mock_host *host,
                                                const struct vmibus_sensor_offer *offer);

/** That endpoint vanishes. */
void mock_host_vanish(struct mock_host *host, struct vmibus_sensor_endpoint *endpoint);

/** Tells of a memctx of that endpoint. */
void mock_host_change_memctx(struct mock_host *host, struct vmibus_sensor_endpoint *endpoint,
                             const struct vmibus_memctx *memctx);

#endif
