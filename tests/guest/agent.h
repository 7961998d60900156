/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the parts of the agent share. */
#ifndef TESTS_GUEST_AGENT_H
#define TESTS_GUEST_AGENT_H

#include <stdbool.h>
#include <stddef.h>

/* One line on the serial port, in one write, so that lines of agent and child never mix. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Reads a small file whole, without its last newline; false when it cannot be read. */
bool slurp(const char *path, char *text, size_t size);

/* Commands about processes, their files and sockets (processes.c). */
void cmd_tasks(char *args);
void cmd_fds(char *args);
void cmd_hex(char *args);
void cmd_crowd(char *args);

/* What the agent's program is when it is started as `crowd`. */
void crowd_main(void) __attribute__((noreturn));

#endif
