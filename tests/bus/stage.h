/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A stage for tests of the bus: one bus with its loop, ledger, log and policy; fake controls that log
 * what they are told; fake sensors that log what they are sent and answer at once or when told; and a fake
 * memory authority.  One stage in a process.  stage_close() tears all down, which asserts that
 * every ledger is zero.
 *
 * A log is read in order: …_next() gives what came since the last call.  What it gives lives until
 * its control or sensor is closed.
 */
#ifndef TESTS_BUS_STAGE_H
#define TESTS_BUS_STAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vmibus/protocol.h>

#include "bus/bus.h"
#include "bus/control.h"
#include "bus/endpoint.h"
#include "bus/lease.h"
#include "bus/sensor.h"
#include "policy/policy.h"
#include "util/audit.h"
#include "util/clock.h"
#include "util/ledger.h"
#include "util/loop.h"

#define BIT VMIBUS_KIND_BIT
#define KINDS_RETAINED \
    (BIT(VMIBUS_KIND_ROSTER) | BIT(VMIBUS_KIND_LIFECYCLE) | BIT(VMIBUS_KIND_MEMCTX) | BIT(VMIBUS_KIND_MEMCTX_INVALIDATED) | \
     BIT(VMIBUS_KIND_LEASE))
#define KINDS_ALL (KINDS_RETAINED | BIT(VMIBUS_KIND_SENSOR))
#define GROUPS_ALL (VMIBUS_GROUP_LIFECYCLE | VMIBUS_GROUP_POWER | VMIBUS_GROUP_INPUT | VMIBUS_GROUP_MEMORY)

/** One frame as somebody was given it. */
struct entry {
    struct vmibus_frame frame;
    char *tail; /**< terminated by NUL; NULL: none */
};

struct entry_log {
    struct entry **entries;
    size_t n, next, room;
};

/** What a stage can be given; zeros are replaced by what tests usually want. */
struct stage_options {
    size_t region_octets;
    uint32_t n_endpoints, n_connections, queue_depth, commands, drain_ms, hold_ms;
    bool with_link;
    const uint64_t *limits, *limits_total; /**< of N_RESOURCES; NULL: the policy's defaults */
};

struct stage {
    struct loop *loop;
    struct ledger ledger;
    struct arena arena;
    struct audit audit;
    int audit_fd;
    struct policy *policy, *last_policy;
    struct bus *bus;
    struct entry_log link;   /**< what the memory authority was told */
    bool link_drains;        /**< it answers FENCE_REVOKE at once */
    uint64_t publication;
};

extern struct stage stage;

/** Opens the stage; its policy has one rule: everybody may do everything, with rank 0. */
void stage_open(const struct stage_options *options);
/** Opens it with defaults, for .setup. */
void stage_open_default(void);
/** Closes it; controls and sensors must be closed. */
void stage_close(void);
/** Replaces the policy by an empty one, which stage_allow() adds to; it counts from stage_apply_policy(). */
void stage_new_policy(void);
/** Adds a rule for a uid to the new policy. Returns it. */
struct policy_rule *stage_allow(uid_t uid, const char *endpoints, uint32_t capabilities, uint32_t rank);
/** Gives the bus the new policy. */
void stage_apply_policy(void);
/** The next frame that the memory authority was told; NULL: no more. */
const struct vmibus_frame *stage_link_next(void);
/** Lets the memory authority tell MEMCTX or its end. */
void stage_memctx(const struct endpoint *endpoint, uint64_t epoch, enum vmibus_memctx_state state);
void stage_invalidate(const struct endpoint *endpoint, uint64_t epoch);
/** Lets it tell FENCE_DRAINED. */
void stage_drained(const struct endpoint *endpoint, uint64_t token);
/** How much of a resource is charged. */
uint64_t stage_used(enum resource resource);

struct fake_control {
    struct control control;
    struct entry_log log;
    unsigned n_wakes, n_reclaims;
    struct vmibus_ack refusal;     /**< why it could not connect */
    bool failed;
    uint64_t correlation;
    uint64_t delivery;             /**< last delivery number; taking checks that there is no hole */
    void (*on_wake)(struct fake_control *control);
};

/** Connects as a principal. Returns what control_init() says. */
int fake_control_try(struct fake_control *control, uid_t uid);
/** Connects as one that is handed over, with nothing. Its session is all zeros but for the uid. */
int fake_control_take_over(struct fake_control *control, uid_t uid);
void fake_control_open(struct fake_control *control, uid_t uid);
void fake_control_close(struct fake_control *control);
/** Takes one frame into the log, if any waits. Returns it, or NULL. */
const struct entry *fake_control_take(struct fake_control *control);
/** Takes all. */
void fake_control_take_all(struct fake_control *control);
/** Takes all; gives the next entry of the log, or NULL. */
const struct entry *fake_control_next(struct fake_control *control);
/** The same, skipping other kinds. */
const struct vmibus_frame *fake_control_next_of(struct fake_control *control, enum vmibus_kind kind);
/** Takes and forgets all. */
void fake_control_forget(struct fake_control *control);
/** The answer to a command; NULL: none yet. */
const struct vmibus_ack *fake_control_ack(struct fake_control *control, uint64_t correlation);
/** The same, and waits for it by running the loop. */
const struct vmibus_ack *fake_control_wait_ack(struct fake_control *control, uint64_t correlation);
/** Submits a command: gives it a correlation, which is returned, and a time stamp where it has none. */
uint64_t fake_control_submit(struct fake_control *control, struct vmibus_frame *frame, const void *tail, size_t tail_length);

/** Commands, by their correlation. */
uint64_t fake_subscribe(struct fake_control *control, const char *pattern, uint64_t kinds);
uint64_t fake_acquire(struct fake_control *control, const struct endpoint *endpoint, enum vmibus_lease_class lease_class,
                      enum vmibus_lease_mode mode, uint32_t ttl_ms);
uint64_t fake_renew(struct fake_control *control, const struct endpoint *endpoint, enum vmibus_lease_class lease_class,
                    uint64_t token, uint32_t ttl_ms);
uint64_t fake_release(struct fake_control *control, const struct endpoint *endpoint, enum vmibus_lease_class lease_class,
                      uint64_t token);
uint64_t fake_input(struct fake_control *control, const struct endpoint *endpoint, uint64_t token, uint16_t code);
uint64_t fake_power(struct fake_control *control, const struct endpoint *endpoint, uint64_t token,
                    enum vmibus_power_operation operation);
uint64_t fake_query(struct fake_control *control, const struct endpoint *endpoint, enum vmibus_query query);

/** Acquires a lease that must be free; returns the token. */
uint64_t fake_hold(struct fake_control *control, const struct endpoint *endpoint, enum vmibus_lease_class lease_class);

/** Fails unless a command was answered so. */
#define assert_ack(control, correlation, error_name, reason_name)                                  \
    do {                                                                                           \
        uint64_t _command = (correlation);                                                         \
        const struct vmibus_ack *_ack = fake_control_ack(control, _command);                       \
        ck_assert_msg(_ack != NULL, "no answer to command %ju", (uintmax_t)_command);              \
        ck_assert_str_eq(vmibus_error_name(_ack->error), #error_name);                             \
        ck_assert_str_eq(vmibus_reason_name(_ack->reason), #reason_name);                          \
    } while (0)

struct fake_sensor {
    struct sensor sensor;
    struct entry_log log;
    bool answers;              /**< completes commands at once */
    uint16_t answer_error;
    bool opened;
    struct vmibus_frame last_answer; /**< to an offer */
};

void fake_sensor_open(struct fake_sensor *sensor, const char *name, uint32_t groups, uint32_t fallback);
void fake_sensor_close(struct fake_sensor *sensor);
/** Offers a VM. Returns its endpoint, or NULL where the offer was refused (see last_answer). */
struct endpoint *fake_offer(struct fake_sensor *sensor, const char *name, uint32_t groups);
/** The same with identity: the first octet of a UUID (0: none), a process. */
struct endpoint *fake_offer_as(struct fake_sensor *sensor, const char *name, uint8_t uuid, uint32_t pid, uint32_t groups);
/** Joins an endpoint. */
bool fake_join(struct fake_sensor *sensor, const struct endpoint *endpoint, uint32_t groups);
void fake_withdraw(struct fake_sensor *sensor, const struct endpoint *endpoint);
void fake_lifecycle(struct fake_sensor *sensor, const struct endpoint *endpoint, enum vmibus_vm_state state);
/** The next frame that it was sent; NULL: no more. */
const struct entry *fake_sensor_next(struct fake_sensor *sensor);
/** The same, skipping other kinds. */
const struct vmibus_frame *fake_sensor_next_of(struct fake_sensor *sensor, enum vmibus_kind kind);
/** Completes the command of a frame that it was sent, with an ACK as it is, and data. */
void fake_answer(struct fake_sensor *sensor, const struct vmibus_frame *command, const struct vmibus_ack *ack, const void *tail,
                 size_t tail_length, const int *fds, size_t n_fds);
/** Completes the command of a frame that it was sent. */
void fake_complete(struct fake_sensor *sensor, const struct vmibus_frame *command, enum vmibus_error error);

/** Runs the loop for what is ready, without waiting. */
void stage_settle(void);

#endif
