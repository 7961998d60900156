/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "memory/sessions.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int known_sessions_init(struct known_sessions *sessions, uint32_t n) {
    *sessions = (struct known_sessions){.n = n};
    list_init(&sessions->free);
    if (n == 0)
        return 0;
    sessions->all = calloc(n, sizeof(*sessions->all));
    sessions->chains = calloc(n, sizeof(*sessions->chains));
    if (!sessions->all || !sessions->chains) {
        known_sessions_deinit(sessions);
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < n; i++) {
        list_init(&sessions->chains[i]);
        list_append(&sessions->free, &sessions->all[i].link);
    }
    return 0;
}

void known_sessions_deinit(struct known_sessions *sessions) {
    free(sessions->all);
    free(sessions->chains);
    *sessions = (struct known_sessions){};
}

static struct list *chain_of(const struct known_sessions *sessions, const uint8_t *name) {
    uint32_t first;

    memcpy(&first, name, sizeof(first));
    return &sessions->chains[first % sessions->n];
}

struct known_session *known_sessions_find(const struct known_sessions *sessions, const uint8_t *name) {
    struct known_session *session;

    if (sessions->n == 0)
        return NULL;
    list_for_each(session, chain_of(sessions, name), link)
        if (memcmp(session->name, name, sizeof(session->name)) == 0)
            return session;
    return NULL;
}

void known_sessions_add(struct known_sessions *sessions, const struct vmibus_session_opened *opened) {
    struct known_session *session = known_sessions_find(sessions, opened->session);

    if (session) {
        session->told = true;
        return;
    }
    session = sessions->n ? list_first(&sessions->free, struct known_session, link) : NULL;
    if (!session)
        return;
    list_unlink(&session->link);
    *session = (struct known_session){
        .uid = opened->uid, .pid = opened->pid, .role = (enum vmibus_role)opened->role, .told = true};
    memcpy(session->name, opened->session, sizeof(session->name));
    list_append(chain_of(sessions, session->name), &session->link);
}

void known_sessions_remove(struct known_sessions *sessions, struct known_session *session) {
    list_unlink(&session->link);
    list_append(&sessions->free, &session->link);
}

void known_sessions_doubt(struct known_sessions *sessions) {
    struct known_session *session;

    for (uint32_t i = 0; i < sessions->n; i++)
        list_for_each(session, &sessions->chains[i], link)
            session->told = false;
}

struct known_session *known_sessions_untold(const struct known_sessions *sessions) {
    struct known_session *session;

    for (uint32_t i = 0; i < sessions->n; i++)
        list_for_each(session, &sessions->chains[i], link)
            if (!session->told)
                return session;
    return NULL;
}
