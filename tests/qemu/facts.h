/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Lines that the agent says: a word, then key=value fields, as tests/guest/agent.c has them. */
#ifndef TESTS_QEMU_FACTS_H
#define TESTS_QEMU_FACTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/**
 * Takes the next line off a text.
 * @param text where the rest begins; it is cut at the line's end
 * @return the line, NULL if there is none
 */
char *facts_line(char **text);

/** The next line that begins with a word, as facts_line(). */
char *facts_next(char **text, const char *word);

/** The value of a key: up to the next blank, or up to the end of the line if it is the last one's. False: there is no such key. */
bool facts_text(const char *line, const char *key, bool last, char *value, size_t size);

/** The number that a key has; a test fails that looks for one that is not there. */
uint64_t facts_number(const char *line, const char *key);

#endif
