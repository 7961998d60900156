/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which process a domain runs in.  libvirt has no call that tells; its driver for QEMU writes a file NAME.pid into its
 * run directory, and gives QEMU the domain's UUID among the arguments.
 *
 * The file is believed where root owns it, or the user that the process is of; the process where it has the
 * UUID, and is the same before and after that was read.  What is not proven is not known.
 */
#ifndef SENSORS_LIBVIRT_IDENTITY_H
#define SENSORS_LIBVIRT_IDENTITY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "machine/process.h"

/**
 * Where the driver behind a URI writes such files, on this host.
 * @return a string to be freed; NULL: it cannot be told from the URI, or there is no memory
 */
char *identity_directory(const char *uri);

/** Finds a domain's process; pid 0: it is not known. On any thread; reads files. */
void identity_find(const char *directory, const char *name, const uint8_t *uuid, struct process *process);

/** Whether arguments, each ended by a NUL, give a QEMU the UUID. */
bool identity_has_uuid(const char *arguments, size_t len, const uint8_t *uuid);

#endif
