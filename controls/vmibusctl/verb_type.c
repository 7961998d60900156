/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmibusctl type: text, by the keys that give it on the guest's layout. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "input.h"
#include "keys.h"
#include "report.h"
#include "typing.h"
#include "units.h"
#include "utf8.h"

#define DELAY_MS 20
#define DELAY_BOUND_MS 10000

/* Looks before anything is typed whether all of it can be. */
static int check_text(const struct typing *typing, const char *layout, const char *text) {
    struct typing_stroke strokes[TYPING_STROKES];
    uint32_t codepoint;

    for (size_t at = 0, length = strlen(text), n; at < length; at += n) {
        n = utf8_decode(text + at, length - at, &codepoint);
        if (n == 0)
            return vmibusctl_usage("text", text, "it is UTF-8");
        if (typing_find(typing, codepoint, strokes) == 0) {
            fprintf(stderr, "vmibusctl: layout %s has no key for '%.*s' (U+%04" PRIX32 "): name another by --layout\n",
                    printable(layout), (int)n, codepoint < 0x20 || codepoint == 0x7f ? "?" : text + at, codepoint);
            return STATUS_USAGE;
        }
    }
    return STATUS_OK;
}

static void pause_for(uint64_t ms) {
    struct timespec left = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000};

    while (nanosleep(&left, &left) < 0 && errno == EINTR)
        ;
}

/*
 * One command for each press, and time after it: a keyboard has a queue of some 16 octets (PS/2), and what comes while it is full
 * is lost without anybody being told.
 */
static int type_text(struct input *input, const struct typing *typing, const char *text, uint64_t delay_ms) {
    struct vmibus_input_event events[2 * TYPING_CODES];
    struct typing_stroke strokes[TYPING_STROKES];
    uint32_t codepoint = 0;
    int r = STATUS_OK;

    for (size_t at = 0, length = strlen(text); at < length && r == STATUS_OK;) {
        size_t n;

        at += utf8_decode(text + at, length - at, &codepoint);
        n = typing_find(typing, codepoint, strokes);
        for (size_t i = 0; i < n && r == STATUS_OK; i++) {
            r = input_send(input, events, keys_press(strokes[i].codes, strokes[i].n_codes, events));
            pause_for(delay_ms);
        }
    }
    return r;
}

static int run(struct vmibusctl *ctl, const struct arguments *arguments) {
    const char *layout = arguments_get(arguments, "layout"), *delay = arguments_get(arguments, "delay");
    const char *text = arguments->words[1];
    struct typing *typing = NULL;
    uint64_t delay_ms = DELAY_MS;
    struct input input;
    int r;

    if (!layout)
        layout = "us";
    if (delay && !units_parse_number(delay, DELAY_BOUND_MS, &delay_ms))
        return vmibusctl_usage("--delay", delay, "it is a number of milliseconds, 0 to 10000");
    r = typing_new(&typing, layout);
    if (r == -ENOENT)
        return vmibusctl_usage("--layout", layout, "this build, or the xkb data of this host, does not know it");
    if (r < 0)
        return report_failure("%s", strerror(-r));
    r = check_text(typing, layout, text);
    if (r == STATUS_OK) {
        r = input_begin(ctl, arguments->words[0], arguments_get(arguments, "token"), &input);
        if (r == STATUS_OK)
            r = type_text(&input, typing, text, delay_ms);
        r = input_end(&input, r);
    }
    typing_free(typing);
    return r;
}

static const struct option_description options[] = {
    {"layout", "NAME", "the guest's keyboard layout: us (default), de, fr, de(nodeadkeys), ..."},
    {"delay", "MS", "milliseconds after each press (20)"},
    {"token", "TOKEN", "the INPUT lease is held already, under this fencing token"},
    {},
};

const struct verb verb_type = {
    .name = "type",
    .synopsis = "VM TEXT",
    .summary = "type a text",
    .min_words = 2,
    .max_words = 2,
    .options = options,
    .run = run,
};
