/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See facts.h. */
#include "facts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"

char *facts_line(char **text) {
    char *line = *text, *end;

    if (!line || !*line)
        return NULL;
    end = strchr(line, '\n');
    *text = end ? end + 1 : NULL;
    if (end)
        *end = '\0';
    return line;
}

char *facts_next(char **text, const char *word) {
    size_t len = strlen(word);
    char *line;

    while ((line = facts_line(text)))
        if (strncmp(line, word, len) == 0 && line[len] == ' ')
            return line;
    return NULL;
}

bool facts_text(const char *line, const char *key, bool last, char *value, size_t size) {
    char word[64];
    const char *at;

    snprintf(word, sizeof(word), " %s=", key);
    at = strstr(line, word);
    if (!at)
        return false;
    at += strlen(word);
    snprintf(value, size, "%.*s", (int)(last ? strlen(at) : strcspn(at, " ")), at);
    return true;
}

uint64_t facts_number(const char *line, const char *key) {
    char value[64];

    ck_assert_msg(facts_text(line, key, false, value, sizeof(value)), "no %s in: %s", key, line);
    return strtoull(value, NULL, 0);
}
