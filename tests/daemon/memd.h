/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A vmibus-memd of a test's own, and everybody around it played by the test in octets: the bus on the link, controls and
 * sensors on their channels.
 */
#ifndef TESTS_DAEMON_MEMD_H
#define TESTS_DAEMON_MEMD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "daemon/wire.h"

#define MEMD_RAM (UINT64_C(4) << 20)

struct memd {
    char directory[64];
    char path[96];              /**< of its socket */
    pid_t pid;
    int listener;               /**< what it is given to listen on; 0: it listens by itself */
    int log_fd;                 /**< what it writes to stderr */
    char log[4096];             /**< of that, what was read and is not waited for */
    size_t n_log;
};

/** Starts one, and waits until it serves. @a config: text of its configuration file */
void memd_start(struct memd *memd, const char *config);

/** Starts one that is given its socket, as by a service manager that listens itself. */
void memd_start_activated(struct memd *memd, const char *config);

/** Starts it anew in the same directory, after memd_kill(). */
void memd_restart(struct memd *memd);

/** Starts one in a directory that has a vmibusd.conf; without waiting: it may be meant to fail. */
void memd_spawn(struct memd *memd, const char *directory);

/** Waits until it has written this to its log since the last wait. False: it has ended. */
bool memd_await_log(struct memd *memd, const char *text);

/** Asks it to end, which it may have done already. Returns the exit status, or 128 + signal. */
int memd_end(struct memd *memd);

void memd_kill(struct memd *memd);

/** Ends it: it has to exit with 0, having given everything back. */
void memd_stop(struct memd *memd);

/** Connects as a user and says HELLO; the answer is not waited for. */
int memd_say_hello(const struct memd *memd, uid_t uid, enum vmibus_role role, enum vmibus_channel channel, const uint8_t *session);

/** A link, welcomed. */
int memd_link(const struct memd *memd);

/** A control's or a sensor's channel, welcomed. */
int memd_channel(const struct memd *memd, enum vmibus_role role, const uint8_t *session);

/* What a bus says. */
void bus_opened(int link, uint32_t slot, const char *name, uint8_t uuid);
void bus_session(int link, const uint8_t *session, uid_t uid, enum vmibus_role role);
void bus_closed(int link, const uint8_t *session);
void bus_issue(int link, uint32_t slot, const uint8_t *session, uint64_t token);
void bus_revoke(int link, uint32_t slot, uint64_t token);
void bus_synced(int link);

/** What a sensor says of a VM whose RAM is @a ram. @return the ACK to MEM_LAYOUT */
struct vmibus_ack sensor_propose(int fd, uint32_t slot, const char *name, uint8_t uuid, int ram, bool identify);

/** A memfd of MEMD_RAM octets. */
int memd_ram(void);

/** A write of 8 octets by physical address, asked for, and its answer. */
struct vmibus_frame control_write_frame(uint32_t slot, uint64_t token, uint64_t epoch);
struct vmibus_ack control_write(int fd, uint32_t slot, uint64_t token, uint64_t epoch);

/** The generation that bus_opened() gives a slot. */
uint64_t memd_generation(uint32_t slot);

#endif
