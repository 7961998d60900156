/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "policy/users.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

int user_list_add(struct user_list *list, uid_t uid) {
    uid_t *uids = reallocarray(list->uids, list->n + 1, sizeof(*uids));

    if (!uids)
        return -ENOMEM;
    list->uids = uids;
    list->uids[list->n++] = uid;
    return 0;
}

void user_list_deinit(struct user_list *list) {
    free(list->uids);
    *list = (struct user_list){};
}

bool user_list_has(const struct user_list *list, const struct principal *principal) {
    for (size_t i = 0; i < list->n; i++)
        if (list->uids[i] == principal->uid)
            return true;
    return list->n == 0 && (principal->uid == 0 || principal->uid == geteuid());
}
