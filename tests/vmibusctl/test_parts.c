/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What vmibusctl reads and writes: command lines, numbers, octets, keys, layouts, JSON. */
#include <errno.h>
#include <fcntl.h>
#include <linux/input-event-codes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "arguments.h"
#include "frame_json.h"
#include "harness.h"
#include "json_list.h"
#include "keys.h"
#include "mouse.h"
#include "typing.h"
#include "units.h"
#include "utf8.h"

/* --- command lines ---------------------------------------------------------------------------------- */

static const struct option_description options[] = {{"raw", NULL, ""}, {"cr3", "ADDR", ""}, {}};

#define PARSE(arguments, ...) arguments_parse(arguments, options, (char *[]){__VA_ARGS__, NULL})

TEST(test_options_stand_anywhere) {
    struct arguments arguments;
    char *argv[] = {"vm", "--cr3", "0x1000", "-5", "--raw", "3", NULL};

    ck_assert_int_eq(arguments_parse(&arguments, options, argv), 0);
    ck_assert_uint_eq(arguments.n_words, 3);
    ck_assert_str_eq(arguments.words[0], "vm");
    ck_assert_str_eq(arguments.words[1], "-5");
    ck_assert_str_eq(arguments.words[2], "3");
    ck_assert_ptr_null(arguments.words[3]);
    ck_assert_str_eq(arguments_get(&arguments, "cr3"), "0x1000");
    ck_assert_str_eq(arguments_get(&arguments, "raw"), "");
    ck_assert_ptr_null(arguments_get(&arguments, "other"));
}

TEST(test_lone_hyphens_end_the_options) {
    struct arguments arguments;
    char *argv[] = {"vm", "--cr3=7", "--", "--raw", "--", NULL};

    ck_assert_int_eq(arguments_parse(&arguments, options, argv), 0);
    ck_assert_uint_eq(arguments.n_words, 3);
    ck_assert_str_eq(arguments.words[1], "--raw");
    ck_assert_str_eq(arguments.words[2], "--");
    ck_assert_str_eq(arguments_get(&arguments, "cr3"), "7");
    ck_assert_ptr_null(arguments_get(&arguments, "raw"));
}

TEST(test_wrong_options) {
    struct arguments arguments;

    ck_assert_int_eq(PARSE(&arguments, "--none"), ARGUMENTS_UNKNOWN);
    ck_assert_str_eq(arguments.offender, "--none");
    ck_assert_int_eq(PARSE(&arguments, "--ra"), ARGUMENTS_UNKNOWN);
    ck_assert_int_eq(PARSE(&arguments, "--raw=1"), ARGUMENTS_SUPERFLUOUS);
    ck_assert_int_eq(PARSE(&arguments, "vm", "--cr3"), ARGUMENTS_MISSING);
    ck_assert_int_eq(PARSE(&arguments, "--raw", "--raw"), ARGUMENTS_REPEATED);
}

/* --- numbers and octets -------------------------------------------------------------------------------- */

TEST(test_numbers) {
    static const char *const wrong[] = {"", "0x", "x10", "-1", "+1", " 1", "1 ", "12z", "0x1g", "1.5", "18446744073709551616"};
    uint64_t value;

    ck_assert(units_parse_number("0", UINT64_MAX, &value) && value == 0);
    ck_assert(units_parse_number("010", UINT64_MAX, &value) && value == 10);
    ck_assert(units_parse_number("0xffffFFFF81000000", UINT64_MAX, &value) && value == 0xffffffff81000000);
    ck_assert(units_parse_number("18446744073709551615", UINT64_MAX, &value) && value == UINT64_MAX);
    ck_assert(!units_parse_number("11", 10, &value));
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        ck_assert_msg(!units_parse_number(wrong[i], UINT64_MAX, &value), "%s", wrong[i]);
}

TEST(test_lengths) {
    uint64_t value;

    ck_assert(units_parse_length("0x10", &value) && value == 16);
    ck_assert(units_parse_length("4k", &value) && value == 4096);
    ck_assert(units_parse_length("2M", &value) && value == 2 << 20);
    ck_assert(units_parse_length("3G", &value) && value == 3ull << 30);
    ck_assert(!units_parse_length("0", &value));
    ck_assert(!units_parse_length("1T", &value));
    ck_assert(!units_parse_length("1KB", &value));
    ck_assert(!units_parse_length("0x400000000G", &value));
}

TEST(test_signed_numbers) {
    int32_t value;

    ck_assert(units_parse_signed("-5", 10, &value) && value == -5);
    ck_assert(units_parse_signed("+5", 10, &value) && value == 5);
    ck_assert(!units_parse_signed("-11", 10, &value));
    ck_assert(!units_parse_signed("--5", 10, &value));
    ck_assert(!units_parse_signed("-", 10, &value));
}

TEST(test_hexadecimal_octets) {
    static const char *const wrong[] = {"", "0x", "f", "abc", "0g", "a b", "12 3"};
    uint8_t *octets;
    size_t length;
    char text[16];

    ck_assert_int_eq(units_parse_hex("0xDE:ad be,EF", &octets, &length), 0);
    ck_assert_uint_eq(length, 4);
    ck_assert_mem_eq(octets, "\xde\xad\xbe\xef", 4);
    ck_assert_str_eq(units_hex(octets, length, text), "deadbeef");
    free(octets);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        ck_assert_msg(units_parse_hex(wrong[i], &octets, &length) == -EINVAL, "%s", wrong[i]);
}

TEST(test_uuids) {
    uint8_t uuid[16];
    char text[UNITS_UUID_SIZE];

    ck_assert(units_parse_uuid("766d6962-7573-8000-8000-00000000ABCD", uuid));
    ck_assert_str_eq(units_uuid(uuid, text), "766d6962-7573-8000-8000-00000000abcd");
    ck_assert(units_parse_uuid("766d69627573800080000000000000ff", uuid));
    ck_assert(!units_parse_uuid("766d6962-7573-8000-8000-00000000abc", uuid));
    ck_assert(!units_parse_uuid("766d6962-7573-8000-8000-00000000abcde", uuid));
    ck_assert(!units_parse_uuid("guest", uuid));
}

TEST(test_sizes) {
    char text[UNITS_SIZE_SIZE];

    ck_assert_str_eq(units_size(0, text), "0 B");
    ck_assert_str_eq(units_size(1023, text), "1023 B");
    ck_assert_str_eq(units_size(1536, text), "1.5 KiB");
    ck_assert_str_eq(units_size(64ull << 20, text), "64 MiB");
    ck_assert_str_eq(units_size(UINT64_MAX, text), "15.9 EiB");
}

TEST(test_utf8) {
    static const char *const wrong[] = {"\x80", "\xc3", "\xc0\x80", "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xff"};
    uint32_t codepoint;

    ck_assert_uint_eq(utf8_decode("a", 1, &codepoint), 1);
    ck_assert_uint_eq(utf8_decode("\xe2\x82\xac", 3, &codepoint), 3);
    ck_assert_uint_eq(codepoint, 0x20ac);
    ck_assert_uint_eq(utf8_decode("\xf0\x9f\x98\x80", 4, &codepoint), 4);
    ck_assert_uint_eq(codepoint, 0x1f600);
    ck_assert_uint_eq(utf8_decode("\xe2\x82\xac", 2, &codepoint), 0);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        ck_assert_uint_eq(utf8_decode(wrong[i], strlen(wrong[i]), &codepoint), 0);
}

TEST(test_p09_texts_of_any_length_are_made_printable) {
    static const char text[] = "a\x1b[\xff\xc3\xa9\xe2\x80\xae\0z\xc3";
    char out[64], *there = malloc(100001);

    ck_assert_uint_eq(utf8_copy_printable(text, sizeof(text) - 1, out), 10);
    ck_assert_mem_eq(out, "a?[?\xc3\xa9??z?", 10);
    ck_assert_ptr_nonnull(there);
    memset(there, 'x', 100000);
    there[50000] = '\n';
    ck_assert_uint_eq(utf8_copy_printable(there, 100000, there), 100000);
    ck_assert(there[49999] == 'x' && there[50000] == '?' && there[99999] == 'x');
    free(there);
}

/* --- keys, mouse ------------------------------------------------------------------------------------------ */

TEST(test_combinations) {
    static const char *const wrong[] = {"",        "-",    "ctrl-", "-a",        "ctrl--a",
                                        "hyper-a", "key:", "key:0", "key:99999", "a-b-c-d-e-f-g-h-i"};
    struct vmibus_input_event events[2 * KEYS_BOUND];
    uint16_t codes[KEYS_BOUND];

    ck_assert_uint_eq(keys_parse("Ctrl-alt+F2", codes), 3);
    ck_assert_int_eq(codes[0], KEY_LEFTCTRL);
    ck_assert_int_eq(codes[1], KEY_LEFTALT);
    ck_assert_int_eq(codes[2], KEY_F2);
    ck_assert_uint_eq(keys_press(codes, 3, events), 6);
    for (size_t i = 0; i < 6; i++) {
        ck_assert_int_eq(events[i].type, VMIBUS_INPUT_TYPE_KEY);
        ck_assert_int_eq(events[i].code, codes[i < 3 ? i : 5 - i]);
        ck_assert_int_eq(events[i].value, i < 3);
    }
    ck_assert_uint_eq(keys_parse("key:30", codes), 1);
    ck_assert_int_eq(codes[0], KEY_A);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        ck_assert_msg(keys_parse(wrong[i], codes) == 0, "%s", wrong[i]);
}

static size_t mouse(struct vmibus_input_event *events, const char *a, const char *b, const char *c) {
    return mouse_parse((char *[]){(char *)a, (char *)b, (char *)c, NULL}, events);
}

TEST(test_mouse_actions) {
    struct vmibus_input_event events[MOUSE_EVENTS];

    ck_assert_uint_eq(mouse(events, "move", "-5", "3"), 2);
    ck_assert_int_eq(events[0].type, VMIBUS_INPUT_TYPE_RELATIVE);
    ck_assert_int_eq(events[0].code, REL_X);
    ck_assert_int_eq(events[0].value, -5);
    ck_assert_int_eq(events[1].code, REL_Y);
    ck_assert_uint_eq(mouse(events, "to", "0", "32767"), 2);
    ck_assert_int_eq(events[1].type, VMIBUS_INPUT_TYPE_ABSOLUTE);
    ck_assert_int_eq(events[1].value, 32767);
    ck_assert_uint_eq(mouse(events, "click", "left", NULL), 2);
    ck_assert_int_eq(events[0].code, BTN_LEFT);
    ck_assert_int_eq(events[0].value, 1);
    ck_assert_int_eq(events[1].value, 0);
    ck_assert_uint_eq(mouse(events, "release", "middle", NULL), 1);
    ck_assert_int_eq(events[0].value, 0);
    ck_assert_uint_eq(mouse(events, "scroll", "-2", NULL), 1);
    ck_assert_int_eq(events[0].code, REL_WHEEL);
    ck_assert_int_eq(events[0].value, -2);
    ck_assert_uint_eq(mouse(events, "to", "-1", "0"), 0);
    ck_assert_uint_eq(mouse(events, "to", "0", "32768"), 0);
    ck_assert_uint_eq(mouse(events, "move", "1", NULL), 0);
    ck_assert_uint_eq(mouse(events, "click", "fifth", NULL), 0);
    ck_assert_uint_eq(mouse(events, "jump", "1", "1"), 0);
}

TEST(test_dragging_and_both_wheels) {
    struct vmibus_input_event events[MOUSE_EVENTS];
    char *const drag[] = {"drag", "100", "32767", "16100", "0", NULL};
    char *const half[] = {"drag", "100", "32767", "16100", NULL};
    char *const out[] = {"drag", "100", "32768", "16100", "0", NULL};
    char *const wheels[] = {"scroll", "-2", "3", NULL};
    size_t n = mouse_parse(drag, events);

    ck_assert_uint_gt(n, 6);
    ck_assert_uint_le(n, MOUSE_EVENTS);
    ck_assert_int_eq(events[0].value, 100);
    ck_assert_int_eq(events[1].value, 32767);
    ck_assert(events[2].type == VMIBUS_INPUT_TYPE_KEY && events[2].code == BTN_LEFT && events[2].value == 1);
    for (size_t i = 3; i < n - 1; i++) {
        ck_assert_uint_eq(events[i].type, VMIBUS_INPUT_TYPE_ABSOLUTE);
        ck_assert(events[i].value >= 0 && events[i].value <= 32767);
    }
    ck_assert_int_eq(events[n - 3].value, 16100);
    ck_assert_int_eq(events[n - 2].value, 0);
    ck_assert(events[n - 1].type == VMIBUS_INPUT_TYPE_KEY && events[n - 1].code == BTN_LEFT && events[n - 1].value == 0);
    ck_assert_uint_eq(mouse_parse(half, events), 0);
    ck_assert_uint_eq(mouse_parse(out, events), 0);
    ck_assert_uint_eq(mouse_parse(wheels, events), 2);
    ck_assert(events[0].code == REL_WHEEL && events[0].value == -2 && events[1].code == REL_HWHEEL && events[1].value == 3);
}

/* --- typing -------------------------------------------------------------------------------------------------- */

#define S KEY_LEFTSHIFT
#define G KEY_RIGHTALT

/* What a keyboard has printed on its keys. */
static const struct {
    const char *layout;
    uint32_t codepoint;
    size_t n;
    struct typing_stroke strokes[TYPING_STROKES];
} typed[] = {
    {"us", 'a', 1, {{{KEY_A}, 1}}},
    {"us", 'Z', 1, {{{S, KEY_Z}, 2}}},
    {"us", '!', 1, {{{S, KEY_1}, 2}}},
    {"us", '|', 1, {{{S, KEY_BACKSLASH}, 2}}},
    {"us", '`', 1, {{{KEY_GRAVE}, 1}}},
    {"us", '~', 1, {{{S, KEY_GRAVE}, 2}}},
    {"us", '"', 1, {{{S, KEY_APOSTROPHE}, 2}}},
    {"us", '?', 1, {{{S, KEY_SLASH}, 2}}},
    {"us", ' ', 1, {{{KEY_SPACE}, 1}}},
    {"us", '\n', 1, {{{KEY_ENTER}, 1}}},
    {"us", '\t', 1, {{{KEY_TAB}, 1}}},
    {"us", 0xe4, 0, {}},
    {"us", 7, 0, {}},
    {"de", 'z', 1, {{{KEY_Y}, 1}}},
    {"de", 'Y', 1, {{{S, KEY_Z}, 2}}},
    {"de", '@', 1, {{{G, KEY_Q}, 2}}},
    {"de", '{', 1, {{{G, KEY_7}, 2}}},
    {"de", '\\', 1, {{{G, KEY_MINUS}, 2}}},
    {"de", '/', 1, {{{S, KEY_7}, 2}}},
    {"de", 0xe4, 1, {{{KEY_APOSTROPHE}, 1}}},
    {"de", 0xd6, 1, {{{S, KEY_SEMICOLON}, 2}}},
    {"de", 0xdf, 1, {{{KEY_MINUS}, 1}}},
    {"de", 0x20ac, 1, {{{G, KEY_E}, 2}}},
    {"de", 0xe9, 2, {{{KEY_EQUAL}, 1}, {{KEY_E}, 1}}},
    {"fr", 'a', 1, {{{KEY_Q}, 1}}},
    {"fr", 'M', 1, {{{S, KEY_SEMICOLON}, 2}}},
    {"fr", '1', 1, {{{S, KEY_1}, 2}}},
    {"fr", '&', 1, {{{KEY_1}, 1}}},
    {"fr", '@', 1, {{{G, KEY_0}, 2}}},
    {"fr", 0xe9, 1, {{{KEY_2}, 1}}},
    {"fr", 0xea, 2, {{{KEY_LEFTBRACE}, 1}, {{KEY_E}, 1}}},
    {"fr", 0xcb, 2, {{{S, KEY_LEFTBRACE}, 2}, {{S, KEY_E}, 2}}},
};

TEST(test_typing, .iterations = sizeof(typed) / sizeof(typed[0])) {
    struct typing_stroke strokes[TYPING_STROKES];
    struct typing *typing;
    size_t n;

    if (typing_new(&typing, typed[_i].layout))
        test_skip("no layout %s here: this build lacks libxkbcommon, or the host xkb-data", typed[_i].layout);
    n = typing_find(typing, typed[_i].codepoint, strokes);
    typing_free(typing);
    if (n == 0 && typed[_i].n == 2)
        test_skip("no compose table here: the host lacks libx11-data");
    ck_assert_uint_eq(n, typed[_i].n);
    for (size_t i = 0; i < n; i++) {
        ck_assert_uint_eq(strokes[i].n_codes, typed[_i].strokes[i].n_codes);
        ck_assert_mem_eq(strokes[i].codes, typed[_i].strokes[i].codes, strokes[i].n_codes * sizeof(uint16_t));
    }
}

TEST(test_layouts_that_do_not_exist) {
    static const char *const wrong[] = {"", "nosuchlayout", "us,de", "de(", "../us", "(x)"};
    struct typing *typing;

    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        ck_assert_msg(typing_new(&typing, wrong[i]) == -ENOENT, "%s", wrong[i]);
}

/* --- JSON ------------------------------------------------------------------------------------------------------ */

static void ck_assert_json(struct json_object *object, const char *text) {
    ck_assert_str_eq(json_object_to_json_string_ext(object, JSON_C_TO_STRING_PLAIN), text);
    json_object_put(object);
}

TEST(test_json_of_a_body) {
    struct vmibus_frame frame = {.header.kind = VMIBUS_KIND_ROSTER};

    frame.roster.change = VMIBUS_ROSTER_CHANGE_ADDED;
    frame.roster.pid = 42;
    frame.roster.start_time = UINT64_MAX;
    frame.roster.groups = VMIBUS_GROUP_POWER | VMIBUS_GROUP_INPUT | 1u << 31;
    frame.roster.power_source = 3;
    memset(frame.roster.uuid, 0xab, 16);
    ck_assert_json(frame_json_body(&frame), "{\"change\":\"ADDED\",\"pid\":42,\"start_time\":18446744073709551615,"
                                            "\"uuid\":\"abababab-abab-abab-abab-abababababab\","
                                            "\"groups\":[\"POWER\",\"INPUT\",2147483648],\"reason\":\"NONE\","
                                            "\"lifecycle_source\":0,\"power_source\":3,\"input_source\":0,"
                                            "\"memory_source\":0,\"screen_source\":0,\"registers_source\":0,"
                                            "\"watch_source\":0}");
    frame.roster.change = 99;
    json_object_put(frame_json_body(&frame));
    frame.header.kind = 0x7777;
    ck_assert_json(frame_json_body(&frame), "{}");
}

TEST(test_json_of_records_and_octets) {
    struct vmibus_frame frame = {.header.kind = VMIBUS_KIND_CMD_INPUT};
    struct json_object *object, *events;

    frame.cmd_input.events[0] = (struct vmibus_input_event){.type = VMIBUS_INPUT_TYPE_RELATIVE, .code = 1, .value = -7};
    object = frame_json_body(&frame);
    ck_assert(json_object_object_get_ex(object, "events", &events));
    ck_assert_uint_eq(json_object_array_length(events), 6);
    ck_assert_str_eq(json_object_to_json_string_ext(json_object_array_get_idx(events, 0), JSON_C_TO_STRING_PLAIN),
                     "{\"type\":\"RELATIVE\",\"code\":1,\"value\":-7}");
    json_object_put(object);
    frame = (struct vmibus_frame){.header.kind = VMIBUS_KIND_SESSION_CLOSED};
    frame.session_closed.session[15] = 0xff;
    ck_assert_json(frame_json_body(&frame), "{\"session\":\"000000000000000000000000000000ff\"}");
}

TEST(test_json_of_a_message) {
    struct vmibus_ram_range range = {.gpa = 0x100000, .len = 4096, .flags = VMIBUS_RANGE_ALIAS};
    struct vmibus_message message = {.frame.header = {.kind = VMIBUS_KIND_MEMCTX, .direction = VMIBUS_DIRECTION_UP}};
    struct json_object *object, *value;

    message.frame.header.flags = VMIBUS_FRAME_RETAINED;
    message.frame.header.tail_length = sizeof(range);
    message.tail = &range;
    object = frame_json_message(&message);
    ck_assert(json_object_object_get_ex(object, "kind", &value));
    ck_assert_str_eq(json_object_get_string(value), "MEMCTX");
    ck_assert(json_object_object_get_ex(object, "flags", &value));
    ck_assert_str_eq(json_object_to_json_string_ext(value, JSON_C_TO_STRING_PLAIN), "[\"RETAINED\"]");
    ck_assert(json_object_object_get_ex(object, "tail", &value));
    ck_assert_str_eq(json_object_to_json_string_ext(value, JSON_C_TO_STRING_PLAIN),
                     "[{\"gpa\":1048576,\"len\":4096,\"offset\":0,\"object\":0,\"flags\":[\"ALIAS\"]}]");
    ck_assert(json_object_object_get_ex(object, "body", &value));
    ck_assert(json_object_object_get_ex(value, "cr3", NULL));
    json_object_put(object);
}

/* Every frame there is prints, whatever its octets are. */
TEST(test_json_of_all_kinds) {
    const struct vmibus_frame_description *description;

    for (size_t i = 0; (description = vmibus_frame_describe_at(i)); i++) {
        struct vmibus_frame frame;
        struct json_object *object;

        memset(&frame, 0xff, sizeof(frame));
        frame.header.kind = description->kind;
        object = frame_json_body(&frame);
        ck_assert_ptr_nonnull(json_object_to_json_string(object));
        for (size_t j = 0; j < description->n_fields; j++)
            ck_assert_int_eq(json_object_object_get_ex(object, description->fields[j].name, NULL),
                             !description->fields[j].is_reserved);
        json_object_put(object);
    }
}

TEST(test_json_of_hostile_text) {
    ck_assert_json(frame_json_text("a\xff\x00\"b", 5), "\"a\xef\xbf\xbd\\u0000\\\"b\"");
    ck_assert_json(frame_json_text("", 0), "\"\"");
}

/* What a terminal would act on, or show in another order: escaped, and the same text for whoever parses it. */
TEST(test_p09_json_has_no_controls_of_more_than_one_octet) {
    static const char text[] = "a\xc2\x9b" "31m\x7f\xe2\x80\xae\xe2\x80\xa8\xc3\xa9";
    char printed[128] = "";
    int out = memfd_create("out", MFD_CLOEXEC), before = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);

    fflush(stdout);
    ck_assert_int_eq(dup2(out, STDOUT_FILENO), STDOUT_FILENO);
    frame_json_print(frame_json_text(text, sizeof(text) - 1));
    fflush(stdout);
    ck_assert_int_eq(dup2(before, STDOUT_FILENO), STDOUT_FILENO);
    ck_assert_int_gt(pread(out, printed, sizeof(printed) - 1, 0), 0);
    ck_assert_str_eq(printed, "\"a\\u009b31m\\u007f\\u202e\\u2028\xc3\xa9\"\n");
    ck_assert(!utf8_is_control(0xe9) && !utf8_is_control(0x1f600));
    close(before);
    close(out);
}

static struct json_object *numbered(uint64_t n) {
    struct json_object *object = json_object_new_object();

    json_object_object_add(object, "n", json_object_new_uint64(n));
    json_object_object_add(object, "text", json_object_new_string("}\n\xc2\x9b"));
    return object;
}

TEST(test_list_of_objects_gets_its_last_member_when_it_is_printed, .iterations = 3) {
    static const char *const expected[] = {
        "[]\n",
        "[{\"n\":0,\"text\":\"}\\n\\u009b\",\"picture\":[\"ENDED\"]}]\n",
        ("[{\"n\":0,\"text\":\"}\\n\\u009b\",\"picture\":[\"ENDED\"]},"
         "{\"n\":1,\"text\":\"}\\n\\u009b\",\"picture\":[\"ENDED\"]}]\n"),
    };
    char printed[256] = "";
    int out = memfd_create("out", MFD_CLOEXEC), before = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
    struct json_object *flags = json_object_new_array();
    struct json_list *list = json_list_new();

    json_object_array_add(flags, json_object_new_string("ENDED"));
    for (int i = 0; i < _i; i++)
        json_list_add(list, numbered((uint64_t)i));
    fflush(stdout);
    ck_assert_int_eq(dup2(out, STDOUT_FILENO), STDOUT_FILENO);
    json_list_print(list, "picture", flags);
    fflush(stdout);
    ck_assert_int_eq(dup2(before, STDOUT_FILENO), STDOUT_FILENO);
    ck_assert_int_gt(pread(out, printed, sizeof(printed) - 1, 0), 0);
    ck_assert_str_eq(printed, expected[_i]);
    ck_assert_ptr_null(json_list_free(list));
    json_object_put(flags);
    close(before);
    close(out);
}

HARNESS_SUITE("vmibusctl", HARNESS_QUICK)
