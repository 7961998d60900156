/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "arguments.h"

#include <string.h>

static int find_option(const struct option_description *options, const char *name, size_t length) {
    for (int i = 0; options[i].name; i++)
        if (strlen(options[i].name) == length && memcmp(options[i].name, name, length) == 0)
            return i;
    return -1;
}

/* Takes the option at argv[at]; *at then is the last word that belongs to it. */
static int take_option(struct arguments *arguments, char **argv, size_t *at) {
    const char *name = argv[*at] + 2;
    size_t length = strcspn(name, "=");
    int i = find_option(arguments->options, name, length);

    arguments->offender = argv[*at];
    if (i < 0)
        return ARGUMENTS_UNKNOWN;
    if (arguments->values[i])
        return ARGUMENTS_REPEATED;
    if (!arguments->options[i].argument) {
        arguments->values[i] = "";
        return name[length] ? ARGUMENTS_SUPERFLUOUS : 0;
    }
    if (name[length]) {
        arguments->values[i] = name + length + 1;
        return 0;
    }
    arguments->values[i] = argv[*at + 1];
    if (!argv[*at + 1])
        return ARGUMENTS_MISSING;
    ++*at;
    return 0;
}

int arguments_parse(struct arguments *arguments, const struct option_description *options, char **argv) {
    bool ended = false;
    int r;

    *arguments = (struct arguments){.options = options, .words = argv};
    for (size_t at = 0; argv[at]; at++) {
        if (!ended && strcmp(argv[at], "--") == 0) {
            ended = true;
        } else if (!ended && strncmp(argv[at], "--", 2) == 0) {
            r = take_option(arguments, argv, &at);
            if (r)
                return r;
        } else {
            /* Never ahead of what is still to be read. */
            argv[arguments->n_words++] = argv[at];
        }
    }
    argv[arguments->n_words] = NULL;
    arguments->offender = NULL;
    return 0;
}

const char *arguments_get(const struct arguments *arguments, const char *name) {
    int i = find_option(arguments->options, name, strlen(name));

    return i < 0 ? NULL : arguments->values[i];
}
