/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The guest in a synthetic VM: a kernel's page tables, its note and banner, and a few processes, as
 * stub_map.h says.
 */
#ifndef STUB_GUEST_H
#define STUB_GUEST_H

#include <stdint.h>

#include "stub_ram.h"

/**
 * Writes the guest of a boot into cleared RAM.
 * @param name     the VM's name, for the text of the data pages
 * @param note_len receives the octets of the VMCOREINFO text
 * @return 0 or a negative errno
 */
int stub_guest_build(struct stub_ram *ram, const char *name, unsigned boot, uint32_t *note_len);

#endif
