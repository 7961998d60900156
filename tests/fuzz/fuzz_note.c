/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fuzz target: the text of a note.  What is believed has a release that can be shown to people, and
 * a length within the text.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <vmibus/guest.h>

#include "fuzz/target.h"

FUZZ_TARGET(note) {
    struct vmibus_guest_note note;
    int r = vmibus_guest_note_parse((const char *)data, size, &note);

    if (r != 0 && r != VMIBUS_GUEST_UNPROVEN)
        abort();
    if (note.len > size || note.len > VMIBUS_GUEST_NOTE_MAX || note.gpa != 0 ||
        !memchr(note.release, 0, sizeof(note.release)))
        abort();
    for (const char *c = note.release; *c; c++)
        if (*c <= ' ' || *c > '~')
            abort();
    if (r == 0 && !note.release[0])
        abort();
    return 0;
}
