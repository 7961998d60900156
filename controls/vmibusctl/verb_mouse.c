/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmibusctl mouse: motion, buttons, wheel. */
#include "input.h"
#include "mouse.h"

static int run(struct vmibusctl *ctl, const struct arguments *arguments) {
    struct vmibus_input_event events[MOUSE_EVENTS];
    size_t n = mouse_parse(arguments->words + 1, events);
    struct input input;
    int r;

    if (n == 0)
        return vmibusctl_usage(
            "action", arguments->words[1],
            "it is move DX DY, to X Y (0 to 32767 across the screen), click, press or release BUTTON, "
            "drag X1 Y1 X2 Y2, or scroll N [N]");
    r = input_begin(ctl, arguments->words[0], arguments_get(arguments, "token"), &input);
    if (r == STATUS_OK)
        r = input_send(&input, events, n);
    return input_end(&input, r);
}

static const struct option_description options[] = {
    {"token", "TOKEN", "the INPUT lease is held already, under this fencing token"},
    {},
};

const struct verb verb_mouse = {
    .name = "mouse",
    .synopsis = "VM move DX DY | to X Y | click|press|release BUTTON | drag X1 Y1 X2 Y2 | scroll N [N]",
    .summary = "move the pointer, click, drag, scroll",
    .min_words = 3,
    .max_words = 6,
    .options = options,
    .run = run,
};
