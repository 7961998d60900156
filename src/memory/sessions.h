/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The sessions that the bus told of, in an authority that has a process of its own: who may open a memory channel by
 * presenting which name.  The bus is believed that there is such a session and whose it is; that whoever presents it is
 * that user, the authority sees by itself.
 *
 * The table has room for so many from the start; a bus that tells of more is not listened to.
 */
#ifndef MEMORY_SESSIONS_H
#define MEMORY_SESSIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <vmibus/protocol.h>

#include "util/list.h"

struct known_session {
    struct list link;           /**< in its chain, or among the free ones */
    uint8_t name[16];
    uid_t uid;
    uint32_t pid;
    enum vmibus_role role;
    bool told;                  /**< since the link began */
    uint32_t n_channels;        /**< memory channels that presented it */
};

struct known_sessions {
    struct known_session *all;
    struct list *chains;        /**< by the first octets of the name, which is random */
    struct list free;
    uint32_t n;                 /**< that there is room for, and chains */
};

/** Makes room for @a n; 0: none is remembered. 0 or -ENOMEM. */
int known_sessions_init(struct known_sessions *sessions, uint32_t n);

/** Forgets all. Harmless on zeros. */
void known_sessions_deinit(struct known_sessions *sessions);

/** The session of this name (16 octets); NULL: none. */
struct known_session *known_sessions_find(const struct known_sessions *sessions, const uint8_t *name);

/** The bus told of a session. Told again of one, it is the same. */
void known_sessions_add(struct known_sessions *sessions, const struct vmibus_session_opened *opened);

/** It is over. */
void known_sessions_remove(struct known_sessions *sessions, struct known_session *session);

/** A link begins: none is told yet. */
void known_sessions_doubt(struct known_sessions *sessions);

/** One that was not told since known_sessions_doubt(); NULL: all were. */
struct known_session *known_sessions_untold(const struct known_sessions *sessions);

#endif
