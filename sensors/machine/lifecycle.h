/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The run state of a VM, told from its monitor's events, and what those mean for its memory.
 *
 *   STOP                       PAUSED; if the bus did not cause it memory is busy until the monitor
 *                              answers again and says that nothing is being saved
 *   RESUME                     RESUMED; one that the bus did not cause ends the epoch (see below)
 *   RESET                      ends the epoch; RESETs within LIFECYCLE_SETTLE_NS are one (firmware
 *                              resets the machine once more when it meets a warm one)
 *   SHUTDOWN                   ends the epoch
 *   GUEST_PANICKED             CRASHED; ends nothing: such memory is worth reading
 *   SUSPEND, SUSPEND_DISK      SUSPENDED
 *   WAKEUP                     RUNNING; ends the epoch as RESUME does
 *   BLOCK_IO_ERROR             names the cause of the STOP that follows
 *   MIGRATION                  memory is busy while it is copied; completed ends the epoch, unless it
 *                              never was active: that is savevm, after which the guest is still here
 *   JOB_STATUS_CHANGE          snapshot-load ends the epoch
 *   DEVICE_DELETED, MEMORY_DEVICE_SIZE_CHANGE, ACPI_DEVICE_OST
 *                              the layout is read anew and compared
 *
 * loadvm of a running guest is a STOP and a RESUME, loadvm of a paused one is nothing at all (measured,
 * QEMU 7.2): neither event, nor run state, nor anything that can be asked for tells it from a pause.
 * So whatever lay in RAM before a stop of somebody else's is not vouched for after it, same kernel
 * or not.
 */
#ifndef SENSORS_MACHINE_LIFECYCLE_H
#define SENSORS_MACHINE_LIFECYCLE_H

#include <stdbool.h>
#include <stdint.h>

#include <json-c/json.h>
#include <vmibus/protocol.h>

struct machine;

/**
 * RESETs that come this soon after another are the same one (measured: SeaBIOS under TCG 19 ms).
 */
#define LIFECYCLE_SETTLE_NS (UINT64_C(250) * 1000 * 1000)

/** Things that the bus asks for and then sees happen. */
enum lifecycle_expectation {
    LIFECYCLE_EXPECT_STOP,
    LIFECYCLE_EXPECT_RESUME,
    LIFECYCLE_EXPECT_RESET,
    LIFECYCLE_EXPECT_POWERDOWN,
    LIFECYCLE_EXPECT_SHUTDOWN,
    LIFECYCLE_EXPECT_WAKEUP,
    LIFECYCLE_EXPECTATIONS,
};

/** Run state. */
struct lifecycle {
    bool known;   /**< told by the monitor since it was connected to */
    bool running; /**< vCPUs run */
    bool suspended;
    bool shutdown;
    bool crashed;
    bool incoming; /**< waits for its memory to arrive from another host */
    bool migrating;
    bool snapshotting; /**< the migration is a background snapshot */
    bool active;       /**< the migration got beyond its setup: no savevm */
    bool stopping;     /**< somebody else stopped the guest, perhaps to save or load it */
    enum vmibus_reason busy; /**< why writes are refused; VMIBUS_REASON_NONE: they are not */
    enum vmibus_lifecycle_cause stop_cause; /* of the STOP that is to follow; 0: none was told */
    enum vmibus_lifecycle_cause beginning; /**< what lifecycle_begin() tells; OBSERVED unless the sensor knows more */
    bool settling;     /**< a RESET was told, and its like may follow */
    uint64_t expected_until[LIFECYCLE_EXPECTATIONS]; /* 0: not expected */
    uint64_t stops;                                  /**< STOP events seen */
    uint64_t event_time;    /**< when the event happened that is being told; 0: none is */
    uint64_t reloads;       /**< times that RAM may have become another's */
    uint64_t job_reloads;   /* ... when the job began to run that is asked about */
    void (*observed)(struct machine *machine, bool told);
    struct vmibus_sensor_timer *settle_timer;
};

/** Prepares. Returns 0 or a negative errno. */
int lifecycle_init(struct machine *machine);

/** Frees. */
void lifecycle_deinit(struct machine *machine);

/**
 * Reads the run state of a VM just connected to; then calls @a done with whether it was told.
 * Returns as monitor_execute().
 */
int lifecycle_observe(struct machine *machine, void (*done)(struct machine *machine, bool told));

/** The run state is known otherwise: as query-status names it. */
void lifecycle_told(struct machine *machine, const char *status);

/**
 * The endpoint exists: publishes what was observed, and asks for whether its memory is being
 * copied.
 */
void lifecycle_begin(struct machine *machine);

/** Publishes the state; what an event tells bears the time at which QEMU says that it happened. */
void lifecycle_publish(struct machine *machine, enum vmibus_lifecycle_cause cause, bool by_bus);

/** The connection is gone: nothing is known any more. */
void lifecycle_lost(struct machine *machine);

/** Takes an event of QMP's name; @a time: when it happened, CLOCK_MONOTONIC nanoseconds. */
void lifecycle_event(struct machine *machine, const char *name, json_object *data, uint64_t time);

/*
 * What events mean, for sensors that have them from elsewhere than a monitor of QEMU's.
 */

/** The vCPUs stand still. FROM_SNAPSHOT: and RAM became that of a snapshot. */
void lifecycle_stopped(struct machine *machine, enum vmibus_lifecycle_cause cause);

/** They run again. */
void lifecycle_resumed(struct machine *machine, enum vmibus_lifecycle_cause cause);

/** The machine was reset. @a guest: by its guest, thus not by the bus. */
void lifecycle_reset(struct machine *machine, bool guest);

/** The guest has shut down. */
void lifecycle_shut_down(struct machine *machine);

/** It was asked to power down. */
void lifecycle_powerdown(struct machine *machine);

/** It has ended: tells why, unless its shutdown was told and there is nothing to add. */
void lifecycle_ended(struct machine *machine, enum vmibus_lifecycle_cause cause);

/** The guest reported a panic. @a runs: and goes on. */
void lifecycle_panicked(struct machine *machine, bool runs);

/** The guest sleeps. */
void lifecycle_suspended(struct machine *machine);

/** It was woken. */
void lifecycle_woken(struct machine *machine);

/** Its memory is being copied, or no more; what happens to a guest that has left is told by its end. */
void lifecycle_copying(struct machine *machine, bool copying);

/** The bus has asked for it: events that follow within the deadline of a command carry BY_BUS. */
void lifecycle_expect(struct machine *machine, enum lifecycle_expectation expectation);

/** It did not happen, or no more can come of it. */
void lifecycle_unexpect(struct machine *machine, enum lifecycle_expectation expectation);

/** Whether the guest takes input: it runs, or sleeps and could be woken. */
bool lifecycle_takes_input(const struct machine *machine);

#endif
