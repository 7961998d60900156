/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Command line: words, and options of the form --name, --name=value and --name value, anywhere.  A
 * lone -- ends the options.  What begins with one hyphen is a word, or negative numbers could not be.
 */
#ifndef VMIBUSCTL_ARGUMENTS_H
#define VMIBUSCTL_ARGUMENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ARGUMENTS_OPTIONS 16

/** An option, for the parser and for people. */
struct option_description {
    const char *name;       /**< without the hyphens; NULL ends a list */
    const char *argument;   /**< what its argument is called, NULL if it has none */
    const char *doc;
};

/** What was found; strings belong to argv. */
struct arguments {
    const struct option_description *options;
    const char *values[ARGUMENTS_OPTIONS];  /**< by place in options; "" for an option without argument, NULL if absent */
    char **words;                           /**< NULL-terminated */
    size_t n_words;
    const char *offender;                   /**< what was wrong, if something was */
};

/** What can be wrong with a command line. */
enum arguments_result {
    ARGUMENTS_UNKNOWN = 1,      /**< no such option */
    ARGUMENTS_MISSING = 2,      /**< an option without its argument */
    ARGUMENTS_SUPERFLUOUS = 3,  /**< an argument for an option that has none */
    ARGUMENTS_REPEATED = 4,     /**< an option twice */
};

/**
 * Parses a command line without its program's name; reorders argv.
 * @param options ends with a NULL name; at most ARGUMENTS_OPTIONS
 * @return 0 or an enum arguments_result
 */
int arguments_parse(struct arguments *arguments, const struct option_description *options, char **argv);

/** The value of an option, "" if it has no argument, NULL if it was not given. */
const char *arguments_get(const struct arguments *arguments, const char *name);

#endif
