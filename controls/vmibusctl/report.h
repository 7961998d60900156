/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What people are told when something did not work: the object, what is wrong with it, the remedy.
 * Everything goes to stderr; with --json, a refusal also goes to stdout as the object that the bus sent.
 */
#ifndef VMIBUSCTL_REPORT_H
#define VMIBUSCTL_REPORT_H

#include <stddef.h>
#include <stdio.h>

#include "vmibusctl.h"

/** Octets that printable() takes: names of VMs and files are shorter. What a guest says may not be. */
#define PRINTABLE_MAX 1023

/**
 * A text made fit for a terminal: control characters and what is not UTF-8 become '?'. Cut after PRINTABLE_MAX octets; valid until
 * the fourth next call.
 */
const char *printable(const char *text);

/** Prints a text of any length, made fit for a terminal as by printable(); a NUL is a control character. */
void print_printable(FILE *stream, const char *text, size_t length);

/**
 * Says why there is no connection.
 * @param r       what vmibus_connect_explained() returned, not 0
 * @param refusal what the bus said; zeros if nothing
 * @return a status
 */
int report_no_connection(int r, const struct vmibus_error_body *refusal, const char *path, bool lent);

/**
 * Says that the bus refused, or that the connection broke.
 * @param r     what a function of libvmibus returned, not 0
 * @param reply holds the ACK, if one came; NULL: it is not at hand
 * @param what  what was attempted, such as "cannot take the INPUT lease of vm1"
 * @return a status
 */
int report_refusal(const struct vmibusctl *ctl, int r, const struct vmibus_message *reply, const char *what, ...)
    __attribute__((format(printf, 4, 5)));

/** Says that this side failed. Returns STATUS_FAILED. */
int report_failure(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
