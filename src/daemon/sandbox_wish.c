/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The key `sandbox`, for who reads it and sets up none. */
#include <string.h>

#include "daemon/sandbox.h"

bool sandbox_parse(const char *value, enum sandbox_wish *wish) {
    static const char *const words[] = {[SANDBOX_NO] = "no", [SANDBOX_YES] = "yes", [SANDBOX_REQUIRE] = "require"};

    for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++)
        if (strcmp(value, words[i]) == 0) {
            *wish = (enum sandbox_wish)i;
            return true;
        }
    return false;
}
