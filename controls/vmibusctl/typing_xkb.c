/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Layouts by libxkbcommon: a key's levels are searched for the character, and a level is taken that
 * Shift and AltGr alone select.  An xkb keycode is an evdev code plus 8.
 */
#include "typing.h"

#include <errno.h>
#include <limits.h>
#include <linux/input-event-codes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <xkbcommon/xkbcommon-compose.h>
#include <xkbcommon/xkbcommon.h>

#define XKB_OFFSET 8
#define LAYOUT_BOUND 64
#define MASKS_BOUND 16

struct typing {
    struct xkb_context *context;
    struct xkb_keymap *keymap;
    struct xkb_compose_table *compose;  /* NULL: the host has none */
    xkb_mod_mask_t shift;
    xkb_mod_mask_t altgr;
};

static void log_nothing(struct xkb_context *context, enum xkb_log_level level, const char *format, va_list arguments) {
    (void)context, (void)level, (void)format, (void)arguments;
}

static xkb_mod_mask_t modifier(struct xkb_keymap *keymap, const char *name) {
    xkb_mod_index_t index = xkb_keymap_mod_get_index(keymap, name);

    return index < 32 ? (xkb_mod_mask_t)1 << index : 0;
}

/* Splits "de(nodeadkeys)". */
static bool parse_layout(const char *text, char *layout, char *variant) {
    size_t length = strcspn(text, "("), rest = strlen(text + length);

    if (length == 0 || length >= LAYOUT_BOUND || rest >= LAYOUT_BOUND || strchr(text, ',') ||
        (rest && text[length + rest - 1] != ')'))
        return false;
    memcpy(layout, text, length);
    layout[length] = '\0';
    *variant = '\0';
    if (rest > 2) {
        memcpy(variant, text + length + 1, rest - 2);
        variant[rest - 2] = '\0';
    }
    return true;
}

int typing_new(struct typing **typingp, const char *text) {
    char layout[LAYOUT_BOUND], variant[LAYOUT_BOUND];
    const struct xkb_rule_names names = {.rules = "evdev", .model = "pc105", .layout = layout, .variant = variant, .options = ""};
    struct typing *typing;

    if (!parse_layout(text, layout, variant))
        return -ENOENT;
    typing = calloc(1, sizeof(*typing));
    if (!typing)
        return -ENOMEM;
    typing->context = xkb_context_new(XKB_CONTEXT_NO_ENVIRONMENT_NAMES);
    if (!typing->context) {
        typing_free(typing);
        return -ENOENT;
    }
    xkb_context_set_log_fn(typing->context, log_nothing);
    typing->keymap = xkb_keymap_new_from_names(typing->context, &names, XKB_KEYMAP_COMPILE_NO_FLAGS);
    if (!typing->keymap) {
        typing_free(typing);
        return -ENOENT;
    }
    typing->shift = modifier(typing->keymap, XKB_MOD_NAME_SHIFT);
    typing->altgr = modifier(typing->keymap, "Mod5");
    typing->compose = xkb_compose_table_new_from_locale(typing->context, "en_US.UTF-8", XKB_COMPOSE_COMPILE_NO_FLAGS);
    *typingp = typing;
    return 0;
}

struct typing *typing_free(struct typing *typing) {
    if (!typing)
        return NULL;
    xkb_compose_table_unref(typing->compose);
    xkb_keymap_unref(typing->keymap);
    xkb_context_unref(typing->context);
    free(typing);
    return NULL;
}

/* Which of Shift and AltGr select a level; false where it takes others. */
static bool level_modifiers(const struct typing *typing, xkb_keycode_t key, xkb_level_index_t level, xkb_mod_mask_t *mask) {
    xkb_mod_mask_t masks[MASKS_BOUND];
    size_t n = xkb_keymap_key_get_mods_for_level(typing->keymap, key, 0, level, masks, MASKS_BOUND);

    for (size_t i = 0; i < n; i++) {
        if (masks[i] & ~(typing->shift | typing->altgr))
            continue;
        *mask = masks[i];
        return true;
    }
    return false;
}

static void write_stroke(const struct typing *typing, xkb_keycode_t key, xkb_mod_mask_t mask, struct typing_stroke *stroke) {
    *stroke = (struct typing_stroke){};
    if (mask & typing->shift)
        stroke->codes[stroke->n_codes++] = KEY_LEFTSHIFT;
    if (mask & typing->altgr)
        stroke->codes[stroke->n_codes++] = KEY_RIGHTALT;
    stroke->codes[stroke->n_codes++] = (uint16_t)(key - XKB_OFFSET);
}

/*
 * With as few modifiers as may be: what the guest has of a layout is surest there.  Keys that no usual keyboard has come last in
 * the keycodes, and count only where there is no other.
 */
static bool find_symbol(const struct typing *typing, xkb_keysym_t symbol, struct typing_stroke *stroke) {
    xkb_keycode_t last = xkb_keymap_max_keycode(typing->keymap);
    int best = INT_MAX;

    for (xkb_keycode_t key = xkb_keymap_min_keycode(typing->keymap); key <= last && key < XKB_OFFSET + KEY_MAX; key++) {
        xkb_level_index_t n_levels = xkb_keymap_num_levels_for_key(typing->keymap, key, 0);

        for (xkb_level_index_t level = 0; key > XKB_OFFSET && level < n_levels; level++) {
            const xkb_keysym_t *symbols;
            xkb_mod_mask_t mask;

            if (xkb_keymap_key_get_syms_by_level(typing->keymap, key, 0, level, &symbols) != 1 || symbols[0] != symbol)
                continue;
            if (!level_modifiers(typing, key, level, &mask) || __builtin_popcount(mask) >= best)
                continue;
            write_stroke(typing, key, mask, stroke);
            best = __builtin_popcount(mask);
        }
        if (best < INT_MAX && key >= XKB_OFFSET + KEY_102ND)
            return true;
    }
    return best < INT_MAX;
}

/* Whether a dead key and then a base key compose to the character. */
static bool composes(struct xkb_compose_state *state, xkb_keysym_t dead, xkb_keysym_t base, uint32_t codepoint) {
    xkb_compose_state_reset(state);
    xkb_compose_state_feed(state, dead);
    if (xkb_compose_state_get_status(state) != XKB_COMPOSE_COMPOSING)
        return false;
    xkb_compose_state_feed(state, base);
    if (xkb_compose_state_get_status(state) != XKB_COMPOSE_COMPOSED)
        return false;
    return xkb_keysym_to_utf32(xkb_compose_state_get_one_sym(state)) == codepoint;
}

static size_t find_composed(const struct typing *typing, uint32_t codepoint, struct typing_stroke *strokes) {
    static const xkb_keysym_t dead_keys[] = {
        XKB_KEY_dead_grave, XKB_KEY_dead_acute, XKB_KEY_dead_circumflex, XKB_KEY_dead_tilde, XKB_KEY_dead_diaeresis,
        XKB_KEY_dead_caron, XKB_KEY_dead_cedilla, XKB_KEY_dead_abovering, XKB_KEY_dead_macron, XKB_KEY_dead_breve,
        XKB_KEY_dead_abovedot, XKB_KEY_dead_doubleacute, XKB_KEY_dead_ogonek, XKB_KEY_dead_belowdot, XKB_KEY_dead_stroke,
    };
    struct xkb_compose_state *state = typing->compose ? xkb_compose_state_new(typing->compose, XKB_COMPOSE_STATE_NO_FLAGS) : NULL;
    size_t n = 0;

    for (size_t i = 0; state && n == 0 && i < sizeof(dead_keys) / sizeof(dead_keys[0]); i++) {
        if (!find_symbol(typing, dead_keys[i], &strokes[0]))
            continue;
        /* Bases are ASCII, whose keysyms are their codes. */
        for (xkb_keysym_t base = 0x20; n == 0 && base < 0x7f; base++)
            if (composes(state, dead_keys[i], base, codepoint) && find_symbol(typing, base, &strokes[1]))
                n = 2;
    }
    xkb_compose_state_unref(state);
    return n;
}

size_t typing_find(const struct typing *typing, uint32_t codepoint, struct typing_stroke *strokes) {
    xkb_keysym_t symbol = xkb_utf32_to_keysym(codepoint);

    if (codepoint == '\n')
        symbol = XKB_KEY_Return;
    if (codepoint == '\t')
        symbol = XKB_KEY_Tab;
    if (symbol == XKB_KEY_NoSymbol)
        return 0;
    if (find_symbol(typing, symbol, &strokes[0]))
        return 1;
    return find_composed(typing, codepoint, strokes);
}
