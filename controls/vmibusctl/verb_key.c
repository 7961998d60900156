/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmibusctl key: key combinations. */
#include "input.h"
#include "keys.h"

static int send_keys(struct input *input, char **words) {
    struct vmibus_input_event events[2 * KEYS_BOUND];
    uint16_t codes[KEYS_BOUND];
    int r = STATUS_OK;

    for (; *words && r == STATUS_OK; words++)
        r = input_send(input, events, keys_press(codes, keys_parse(*words, codes), events));
    return r;
}

static int run(struct vmibusctl *ctl, const struct arguments *arguments) {
    uint16_t codes[KEYS_BOUND];
    struct input input;
    int r;

    for (size_t i = 1; i < arguments->n_words; i++)
        if (keys_parse(arguments->words[i], codes) == 0)
            return vmibusctl_usage("combination", arguments->words[i],
                                   "it is up to 8 key names with - between, such as ctrl-alt-f2; vmibusctl(1) lists them");
    r = input_begin(ctl, arguments->words[0], arguments_get(arguments, "token"), &input);
    if (r == STATUS_OK)
        r = send_keys(&input, arguments->words + 1);
    return input_end(&input, r);
}

static const struct option_description options[] = {
    {"token", "TOKEN", "the INPUT lease is held already, under this fencing token"},
    {},
};

const struct verb verb_key = {
    .name = "key",
    .synopsis = "VM KEYS...",
    .summary = "press key combinations such as ctrl-alt-f2",
    .min_words = 2,
    .max_words = SIZE_MAX,
    .options = options,
    .run = run,
};
