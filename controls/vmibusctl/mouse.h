/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a mouse does, in words, and in input events. */
#ifndef VMIBUSCTL_MOUSE_H
#define VMIBUSCTL_MOUSE_H

#include <stddef.h>

#include <vmibus/protocol.h>

/** Events that one action takes at most. */
#define MOUSE_EVENTS 64

/**
 * Reads an action: move DX DY, to X Y, click BUTTON, press BUTTON, release BUTTON, drag X1 Y1 X2 Y2, scroll N [N].
 * @param words  NULL-terminated
 * @param events receives at most MOUSE_EVENTS
 * @return how many, 0 if it is not understood
 */
size_t mouse_parse(char *const *words, struct vmibus_input_event *events);

#endif
