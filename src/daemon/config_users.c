/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Lists of users, by name or number. */
#include <pwd.h>
#include <string.h>

#include <vmibus/syscalls.h>

#include "daemon/config_reading.h"

VMIBUS_SYSCALLS("connect getdents64 openat recvmsg sendto socket")

int reading_set_users(struct reading *reading, const char *name, struct user_list *list, const char *value) {
    char copy[1024];
    char *rest = copy, *word;

    if (strlen(value) >= sizeof(copy))
        return reading_complain(reading, "%s: the list is longer than %zu octets", name, sizeof(copy) - 1);
    strcpy(copy, value);
    user_list_deinit(list);
    while ((word = strsep(&rest, " ,"))) {
        const struct passwd *user;
        uint64_t number;

        if (!*word)
            continue;
        user = getpwnam(word);
        if (!user && !reading_parse_number(word, UINT32_MAX - 1, &number))
            return reading_complain(reading, "%s = %s: there is no user %s", name, value, word);
        if (user_list_add(list, user ? user->pw_uid : (uid_t)number) < 0)
            return reading_complain(reading, "out of memory");
    }
    return list->n ? 1 : reading_complain(reading, "%s: the list is empty", name);
}
