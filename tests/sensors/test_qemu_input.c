/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Encoding of input: evdev events to the arguments of input-send-event.
 */
#include "harness.h"

#include <linux/input-event-codes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qemu/input.h"

/* Encodes one batch and compares it with json. */
static size_t check(const struct vmibus_input_event *events, size_t n, const char *json) {
    json_object *arguments;
    size_t taken;

    ck_assert_int_eq(input_encode(events, n, &taken, &arguments), 0);
    if (json)
        ck_assert_str_eq(json_object_to_json_string_ext(
                             arguments, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE),
                         json);
    json_object_put(arguments);

    return taken;
}

#define KEY_JSON(key, down)                                                                        \
    "{\"type\":\"key\",\"data\":{\"key\":{\"type\":\"qcode\",\"data\":\"" key "\"},\"down\":" down \
    "}}"
#define BTN_JSON(button, down)                                                                     \
    "{\"type\":\"btn\",\"data\":{\"down\":" down ",\"button\":\"" button "\"}}"
#define MOVE_JSON(type, axis, value)                                                               \
    "{\"type\":\"" type "\",\"data\":{\"axis\":\"" axis "\",\"value\":" value "}}"

TEST(test_kinds_of_events) {
    const struct vmibus_input_event key = {1, KEY_A, 1}, button = {1, BTN_LEFT, 0},
                                    relative = {2, REL_Y, -5}, absolute = {3, ABS_X, 32767},
                                    wheel = {2, REL_WHEEL, -2}, sideways = {2, REL_HWHEEL, 1};

    check(&button, 1, "{\"events\":[" BTN_JSON("left", "false") "]}");
    check(&relative, 1, "{\"events\":[" MOVE_JSON("rel", "y", "-5") "]}");
    check(&absolute, 1, "{\"events\":[" MOVE_JSON("abs", "x", "32767") "]}");
    check(&wheel, 1,
          "{\"events\":[" BTN_JSON("wheel-down", "true") "," BTN_JSON(
              "wheel-down", "false") "," BTN_JSON("wheel-down", "true") "," BTN_JSON("wheel-down",
                                                                                     "false") "]}");
    check(
        &sideways, 1,
        "{\"events\":[" BTN_JSON("wheel-right", "true") "," BTN_JSON("wheel-right", "false") "]}");
    check(&key, 1, NULL);
}

/*
 * QKeyCode of QEMU 7.2 (query-qmp-schema), less "unmapped", what evdev has no key for, and second
 * names.
 */
static const char *const qemu_keys =
    " shift shift_r alt alt_r ctrl ctrl_r menu esc 1 2 3 4 5 6 7 8 9 0 minus equal backspace tab q "
    "w e r t y u i o p bracket_left "
    "bracket_right ret a s d f g h j k l semicolon apostrophe grave_accent backslash z x c v b n m "
    "comma dot slash asterisk spc "
    "caps_lock f1 f2 f3 f4 f5 f6 f7 f8 f9 f10 num_lock scroll_lock kp_divide kp_multiply "
    "kp_subtract kp_add kp_enter kp_decimal "
    "sysrq kp_0 kp_1 kp_2 kp_3 kp_4 kp_5 kp_6 kp_7 kp_8 kp_9 less f11 f12 print home pgup pgdn end "
    "left up down right insert "
    "delete stop again props undo front copy open paste find cut lf help meta_l meta_r compose "
    "pause ro hiragana henkan yen "
    "muhenkan katakanahiragana kp_comma kp_equals power sleep wake audionext audioprev audiostop "
    "audioplay audiomute volumeup "
    "volumedown mediaselect mail calculator computer ac_home ac_back ac_forward ac_refresh "
    "ac_bookmarks lang1 lang2 ";

TEST(test_every_key_of_the_table_is_known_to_qemu_once) {
    const char *seen[INPUT_CODES];
    size_t n = 0;

    for (uint16_t code = 0; code < INPUT_CODES; code++) {
        const struct vmibus_input_event down = {1, code, 1}, up = {1, code, 0};
        const char *name = input_key_name(code);
        char word[40];

        if (!name)
            continue;
        snprintf(word, sizeof(word), " %s ", name);
        ck_assert_msg(strstr(qemu_keys, word), "QEMU knows no %s", name);
        for (size_t i = 0; i < n; i++)
            ck_assert_str_ne(seen[i], name);
        seen[n++] = name;
        ck_assert(input_is_valid(&down) && input_is_valid(&up));
        ck_assert_uint_eq(check(&down, 1, NULL), 1);
    }
    /* 143 names, less asterisk (that of the keypad), sysrq (that of print) and lf. */
    ck_assert_uint_ge(n, 139);
}

TEST(test_what_cannot_be_expressed_is_refused) {
    static const struct vmibus_input_event bad[] = {
        {0, 0, 0},
        {4, 4, 4},
        {1, KEY_RESERVED, 1},
        {1, KEY_A, 2},
        {1, KEY_A, -1},
        {1, 65535, 1},
        {1, BTN_TOUCH, 1},
        {2, REL_Z, 1},
        {2, REL_X, INPUT_RELATIVE_BOUND + 1},
        {2, REL_X, INT32_MIN},
        {2, REL_WHEEL, INPUT_WHEEL_BOUND + 1},
        {2, REL_WHEEL, INT32_MIN},
        {3, ABS_Z, 1},
        {3, ABS_X, -1},
        {3, ABS_X, INPUT_ABSOLUTE_BOUND + 1},
    };

    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        ck_assert_msg(!input_is_valid(&bad[i]), "event %zu", i);
}

TEST(test_a_report_says_nothing_twice) {
    const struct vmibus_input_event events[] = {
        {1, KEY_A, 1}, {1, KEY_A, 0}, {1, KEY_B, 1}, {1, KEY_C, 1},
        {1, KEY_D, 1}, {1, KEY_E, 1}, {1, KEY_F, 1},
    };

    ck_assert_uint_eq(check(events, 7, NULL), 1);
    ck_assert_uint_eq(check(events + 1, 6, NULL), INPUT_BATCH_BOUND);
    /* The same number of another kind is another thing. */
    ck_assert_uint_eq(
        check((const struct vmibus_input_event[]){{2, REL_X, 1}, {2, REL_Y, 1}, {3, ABS_X, 1}}, 3,
              NULL),
        3);
}

HARNESS_SUITE("qemu: input encoding", HARNESS_QUICK)
