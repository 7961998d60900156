/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fault injection as the administrator sees it: where the rules come from, and a log that leaves no doubt
 * that this daemon fails on purpose.  In a build without --enable-fault-injection nothing here does anything.
 *
 * Rules are in force from when the daemon serves: what fails at the start is the start, and needs no rule to be tried.
 */
#ifndef DAEMON_FAULTS_H
#define DAEMON_FAULTS_H

#include "daemon/config.h"

/** Adds the rules of VMIBUS_FAULTS to those of the file. 0, or -EINVAL, and the mistake has been told. */
int faults_add_environment(struct config *config);

/** Says that this daemon can fail on purpose, and whether it is going to. */
void faults_warn(const struct config *config);

/** Tells what the rules in force have caused, and puts those of a configuration in their place. */
void faults_apply(const struct config *config);

/** Tells what the rules in force have caused. */
void faults_tell(void);

#endif
