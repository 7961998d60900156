/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "mouse.h"

#include <linux/input-event-codes.h>
#include <string.h>

#include "keys.h"
#include "units.h"

#define RELATIVE_BOUND 32767

/* The whole screen, from edge to edge. */
#define ABSOLUTE_BOUND 32767

#define DRAG_STEPS 16

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

/*
 * There, the left button down, on the way in some steps, up at the end: programs want to see motion with the button down before
 * they take it for a drag.
 */
static size_t parse_drag(char *const *words, struct vmibus_input_event *events) {
    struct vmibus_input_event from[2], to[2];
    const struct vmibus_input_event button = {.type = VMIBUS_INPUT_TYPE_KEY, .code = BTN_LEFT};
    size_t n = 0;

    if (!parse_pair(words, from, VMIBUS_INPUT_TYPE_ABSOLUTE) || !parse_pair(words + 2, to, VMIBUS_INPUT_TYPE_ABSOLUTE))
        return 0;
    events[n++] = from[0];
    events[n++] = from[1];
    events[n] = button;
    events[n++].value = 1;
    for (int step = 1; step <= DRAG_STEPS; step++)
        for (size_t axis = 0; axis < 2; axis++) {
            events[n] = from[axis];
            events[n++].value += (to[axis].value - from[axis].value) * step / DRAG_STEPS;
        }
    events[n++] = button;
    return n;
}

/* Steps of the wheel: up and down, and, if there are two, to the left and right. */
static size_t parse_scroll(char *const *words, size_t n, struct vmibus_input_event *events) {
    static const uint16_t codes[] = {REL_WHEEL, REL_HWHEEL};

    for (size_t i = 0; i < n; i++) {
        events[i] = (struct vmibus_input_event){.type = VMIBUS_INPUT_TYPE_RELATIVE, .code = codes[i]};
        if (!units_parse_signed(words[i], RELATIVE_BOUND, &events[i].value))
            return 0;
    }
    return n;
}

size_t mouse_parse(char *const *words, struct vmibus_input_event *events) {
    size_t n = count(words);

    if (n == 3 && strcmp(words[0], "move") == 0)
        return parse_pair(words + 1, events, VMIBUS_INPUT_TYPE_RELATIVE);
    if (n == 3 && strcmp(words[0], "to") == 0)
        return parse_pair(words + 1, events, VMIBUS_INPUT_TYPE_ABSOLUTE);
    if (n == 5 && strcmp(words[0], "drag") == 0)
        return parse_drag(words + 1, events);
    if ((n == 2 || n == 3) && strcmp(words[0], "scroll") == 0)
        return parse_scroll(words + 1, n - 1, events);
    if (n != 2)
        return 0;
    if (strcmp(words[0], "click") == 0 || strcmp(words[0], "press") == 0 || strcmp(words[0], "release") == 0)
        return parse_button(words[0], words[1], events);
    return 0;
}
