/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "keys.h"

#include <linux/input-event-codes.h>
#include <string.h>
#include <strings.h>

#include "units.h"

struct key {
    const char *name;
    uint16_t code;
};

static const struct key keys[] = {
    {"a", KEY_A}, {"b", KEY_B}, {"c", KEY_C}, {"d", KEY_D}, {"e", KEY_E}, {"f", KEY_F}, {"g", KEY_G},
    {"h", KEY_H}, {"i", KEY_I}, {"j", KEY_J}, {"k", KEY_K}, {"l", KEY_L}, {"m", KEY_M}, {"n", KEY_N},
    {"o", KEY_O}, {"p", KEY_P}, {"q", KEY_Q}, {"r", KEY_R}, {"s", KEY_S}, {"t", KEY_T}, {"u", KEY_U},
    {"v", KEY_V}, {"w", KEY_W}, {"x", KEY_X}, {"y", KEY_Y}, {"z", KEY_Z},
    {"1", KEY_1}, {"2", KEY_2}, {"3", KEY_3}, {"4", KEY_4}, {"5", KEY_5}, {"6", KEY_6}, {"7", KEY_7},
    {"8", KEY_8}, {"9", KEY_9}, {"0", KEY_0},
    {"f1", KEY_F1}, {"f2", KEY_F2}, {"f3", KEY_F3}, {"f4", KEY_F4}, {"f5", KEY_F5}, {"f6", KEY_F6},
    {"f7", KEY_F7}, {"f8", KEY_F8}, {"f9", KEY_F9}, {"f10", KEY_F10}, {"f11", KEY_F11}, {"f12", KEY_F12},
    {"ctrl", KEY_LEFTCTRL}, {"control", KEY_LEFTCTRL}, {"rightctrl", KEY_RIGHTCTRL},
    {"alt", KEY_LEFTALT}, {"altgr", KEY_RIGHTALT}, {"rightalt", KEY_RIGHTALT},
    {"shift", KEY_LEFTSHIFT}, {"rightshift", KEY_RIGHTSHIFT},
    {"meta", KEY_LEFTMETA}, {"super", KEY_LEFTMETA}, {"win", KEY_LEFTMETA}, {"rightmeta", KEY_RIGHTMETA},
    {"esc", KEY_ESC}, {"escape", KEY_ESC}, {"tab", KEY_TAB}, {"enter", KEY_ENTER}, {"return", KEY_ENTER},
    {"space", KEY_SPACE}, {"backspace", KEY_BACKSPACE}, {"delete", KEY_DELETE}, {"del", KEY_DELETE},
    {"insert", KEY_INSERT}, {"ins", KEY_INSERT}, {"home", KEY_HOME}, {"end", KEY_END},
    {"pageup", KEY_PAGEUP}, {"pgup", KEY_PAGEUP}, {"pagedown", KEY_PAGEDOWN}, {"pgdn", KEY_PAGEDOWN},
    {"up", KEY_UP}, {"down", KEY_DOWN}, {"left", KEY_LEFT}, {"right", KEY_RIGHT},
    {"minus", KEY_MINUS}, {"equal", KEY_EQUAL}, {"plus", KEY_KPPLUS}, {"comma", KEY_COMMA}, {"dot", KEY_DOT},
    {"slash", KEY_SLASH}, {"backslash", KEY_BACKSLASH}, {"semicolon", KEY_SEMICOLON},
    {"apostrophe", KEY_APOSTROPHE}, {"grave", KEY_GRAVE}, {"leftbrace", KEY_LEFTBRACE},
    {"rightbrace", KEY_RIGHTBRACE}, {"capslock", KEY_CAPSLOCK}, {"numlock", KEY_NUMLOCK},
    {"scrolllock", KEY_SCROLLLOCK}, {"sysrq", KEY_SYSRQ}, {"print", KEY_SYSRQ}, {"pause", KEY_PAUSE},
    {"menu", KEY_COMPOSE}, {"power", KEY_POWER}, {"sleep", KEY_SLEEP}, {"wakeup", KEY_WAKEUP},
    {"mute", KEY_MUTE}, {"volumeup", KEY_VOLUMEUP}, {"volumedown", KEY_VOLUMEDOWN},
};

static const struct key buttons[] = {
    {"left", BTN_LEFT}, {"right", BTN_RIGHT}, {"middle", BTN_MIDDLE}, {"side", BTN_SIDE}, {"extra", BTN_EXTRA},
};

uint16_t keys_find(const char *name, size_t length) {
    char number[8];
    uint64_t code;

    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        if (strlen(keys[i].name) == length && strncasecmp(keys[i].name, name, length) == 0)
            return keys[i].code;
    if (length <= 4 || length >= 4 + sizeof(number) || strncasecmp(name, "key:", 4) != 0)
        return 0;
    memcpy(number, name + 4, length - 4);
    number[length - 4] = '\0';
    return units_parse_number(number, KEY_MAX, &code) ? (uint16_t)code : 0;
}

uint16_t keys_find_button(const char *name) {
    for (size_t i = 0; i < sizeof(buttons) / sizeof(buttons[0]); i++)
        if (strcasecmp(buttons[i].name, name) == 0)
            return buttons[i].code;
    return 0;
}

size_t keys_parse(const char *text, uint16_t *codes) {
    size_t n = 0;

    for (;;) {
        size_t length = strcspn(text, "-+");

        if (n == KEYS_BOUND)
            return 0;
        codes[n] = keys_find(text, length);
        if (codes[n] == 0)
            return 0;
        n++;
        if (text[length] == '\0')
            return n;
        text += length + 1;
    }
}

size_t keys_press(const uint16_t *codes, size_t n, struct vmibus_input_event *events) {
    for (size_t i = 0; i < n; i++) {
        events[i] = (struct vmibus_input_event){.type = VMIBUS_INPUT_TYPE_KEY, .code = codes[i], .value = 1};
        events[2 * n - 1 - i] = (struct vmibus_input_event){.type = VMIBUS_INPUT_TYPE_KEY, .code = codes[i], .value = 0};
    }
    return 2 * n;
}
