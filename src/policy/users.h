/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Users that the configuration names for one part: who may be a sensor, say. Not to be confused with what controls may do. */
#ifndef POLICY_USERS_H
#define POLICY_USERS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "policy/principal.h"

/** All zeros: nobody was named, so root and the process's own uid are meant. */
struct user_list {
    uid_t *uids;
    size_t n;
};

/** Adds a user. 0 or -ENOMEM. */
int user_list_add(struct user_list *list, uid_t uid);

/** Forgets all of them. */
void user_list_deinit(struct user_list *list);

/** Whether a principal is one of them, by its effective uid when it connected. */
bool user_list_has(const struct user_list *list, const struct principal *principal);

#endif
