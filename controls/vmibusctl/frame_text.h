/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Frames as text for people, by the descriptions of the wire. */
#ifndef VMIBUSCTL_FRAME_TEXT_H
#define VMIBUSCTL_FRAME_TEXT_H

#include <vmibus/client.h>

/** Prints the body's fields, each on an indented line. */
void frame_text_fields(const struct vmibus_frame *frame);

/** Prints the body's fields that are not zero, on the current line. */
void frame_text_line(const struct vmibus_frame *frame);

/** Prints the names of the flags that are set, or "none". */
void frame_text_flags(const char *table, uint64_t value);

#endif
