/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "mouse.h"

#include <linux/input-event-codes.h>
#include <string.h>

#include "keys.h"
#include "units.h"

#define RELATIVE_BOUND 32767

/* The whole screen, from edge to edge. */
#define ABSOLUTE_BOUND 32767

static size_t count(char *const *words) {
    size_t n = 0;

    while (words[n])
        n++;
    return n;
}

static size_t parse_pair(char *const *words, struct vmibus_input_event *events, enum vmibus_input_type type) {
    for (size_t i = 0; i < 2; i++) {
        /* REL_X and ABS_X are 0, REL_Y and ABS_Y are 1. */
        events[i] = (struct vmibus_input_event){.type = (uint16_t)type, .code = (uint16_t)i};
        if (!units_parse_signed(words[i], type == VMIBUS_INPUT_TYPE_ABSOLUTE ? ABSOLUTE_BOUND : RELATIVE_BOUND, &events[i].value))
            return 0;
        if (type == VMIBUS_INPUT_TYPE_ABSOLUTE && events[i].value < 0)
            return 0;
    }
    return 2;
}

static size_t parse_button(const char *verb, const char *name, struct vmibus_input_event *events) {
    uint16_t code = keys_find_button(name);

    if (code == 0)
        return 0;
    if (strcmp(verb, "click") == 0)
        return keys_press(&code, 1, events);
    events[0] = (struct vmibus_input_event){.type = VMIBUS_INPUT_TYPE_KEY, .code = code, .value = strcmp(verb, "press") == 0};
    return 1;
}

size_t mouse_parse(char *const *words, struct vmibus_input_event *events) {
    size_t n = count(words);

    if (n == 3 && strcmp(words[0], "move") == 0)
        return parse_pair(words + 1, events, VMIBUS_INPUT_TYPE_RELATIVE);
    if (n == 3 && strcmp(words[0], "to") == 0)
        return parse_pair(words + 1, events, VMIBUS_INPUT_TYPE_ABSOLUTE);
    if (n != 2)
        return 0;
    if (strcmp(words[0], "scroll") == 0) {
        events[0] = (struct vmibus_input_event){.type = VMIBUS_INPUT_TYPE_RELATIVE, .code = REL_WHEEL};
        return units_parse_signed(words[1], RELATIVE_BOUND, &events[0].value) ? 1 : 0;
    }
    if (strcmp(words[0], "click") == 0 || strcmp(words[0], "press") == 0 || strcmp(words[0], "release") == 0)
        return parse_button(words[0], words[1], events);
    return 0;
}
