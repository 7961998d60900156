/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "extents.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vmibus/names.h>

#include "frame_json.h"
#include "report.h"
#include "units.h"

#define BLANK " \t\r\n"

/* --- reading ------------------------------------------------------------------------------------ */

static bool add_octets(struct extents *extents, const uint8_t *octets, const uint8_t *expected, size_t length) {
    uint8_t *more = realloc(extents->octets, extents->length + length), *others;

    if (more)
        extents->octets = more;
    others = more ? realloc(extents->expected, extents->length + length) : NULL;
    if (!others)
        return false;
    extents->expected = others;
    memcpy(more + extents->length, octets, length);
    if (expected)
        memcpy(others + extents->length, expected, length);
    extents->length += length;
    return true;
}

static bool add_record(struct extents *extents, const struct vmibus_write_extent *record) {
    if (!extents->records)
        extents->records = calloc(VMIBUS_EXTENTS_BOUND, sizeof(*extents->records));
    if (extents->records)
        extents->records[extents->n++] = *record;
    return extents->records;
}

/* A line as it was taken apart. */
struct line {
    struct vmibus_write_extent record;
    uint8_t *octets, *expected;
    size_t length, n_expected;
    bool has_gpa;
};

/* What is wrong with a word, or NULL. */
static const char *take_word(struct line *line, unsigned index, const char *word) {
    if (index == 0)
        return units_parse_number(word, UINT64_MAX, &line->record.gva) ? NULL : "the address is decimal, or 0x and hexadecimal";
    if (index == 1)
        return units_parse_hex(word, &line->octets, &line->length) == 0 ? NULL
                                                                         : "what to write is two hexadecimal digits each octet";
    if (strncmp(word, "expect=", 7) == 0 && !line->expected)
        return units_parse_hex(word + 7, &line->expected, &line->n_expected) == 0 ? NULL
                                                                                   : "expect is two hexadecimal digits each octet";
    if (strncmp(word, "gpa=", 4) == 0 && !line->has_gpa) {
        line->has_gpa = true;
        return units_parse_number(word + 4, UINT64_MAX, &line->record.gpa) ? NULL : "gpa is decimal, or 0x and hexadecimal";
    }
    return "after address and octets there is expect=HEX or gpa=ADDR, each once";
}

static const char *take_line(struct extents *extents, struct line *line, char *text) {
    char *rest = NULL, *word = strtok_r(text, BLANK, &rest);
    const char *wrong;
    unsigned index = 0;

    if (!word)
        return NULL;
    for (; word; word = strtok_r(NULL, BLANK, &rest)) {
        wrong = take_word(line, index++, word);
        if (wrong)
            return wrong;
    }
    if (line->length == 0)
        return "there are no octets to write";
    if (line->expected && line->n_expected != line->length)
        return "expect is as long as what is to be written";
    if (line->length > UINT32_MAX || extents->n == VMIBUS_EXTENTS_BOUND)
        return "that is more than one command holds";
    line->record.len = (uint32_t)line->length;
    if (!add_record(extents, &line->record) || !add_octets(extents, line->octets, line->expected, line->length))
        return strerror(ENOMEM);
    extents->n_expect += line->expected != NULL;
    extents->n_gpa += line->has_gpa;
    if ((extents->n_expect && extents->n_expect != extents->n) || (extents->n_gpa && extents->n_gpa != extents->n))
        return "expect and gpa are on every line or on none";
    return NULL;
}

static int read_lines(struct extents *extents, FILE *file, const char *path) {
    char *text = NULL;
    size_t size = 0;
    unsigned number = 0;
    int r = STATUS_OK;

    while (r == STATUS_OK && getline(&text, &size, file) >= 0) {
        struct line line = {};
        const char *wrong;

        number++;
        text[strcspn(text, "#")] = '\0';
        wrong = take_line(extents, &line, text);
        if (wrong)
            r = report_failure("%s, line %u: %s", printable(path), number, wrong);
        free(line.octets);
        free(line.expected);
    }
    free(text);
    /* Lack of memory ends it too, and is no error of the file. */
    if (r == STATUS_OK && !feof(file))
        return report_failure("cannot read %s: %s", printable(path), strerror(errno));
    return r;
}

int extents_read(struct extents *extents, const char *path) {
    FILE *file = strcmp(path, "-") == 0 ? stdin : fopen(path, "re");
    int r;

    if (!file)
        return report_failure("cannot read %s: %s", printable(path), strerror(errno));
    r = read_lines(extents, file, path);
    if (file != stdin)
        fclose(file);
    if (r == STATUS_OK && extents->n == 0)
        return report_failure("%s has no extents: there is nothing to write", printable(path));
    return r;
}

bool extents_join(struct extents *extents) {
    uint8_t *both;

    if (!extents->n_expect)
        return true;
    both = realloc(extents->expected, 2 * extents->length);
    if (!both)
        return false;
    memcpy(both + extents->length, extents->octets, extents->length);
    free(extents->octets);
    extents->octets = both;
    extents->expected = NULL;
    return true;
}

uint32_t extents_get_flags(const struct extents *extents) {
    return (extents->n_expect ? VMIBUS_MEMWRITE_EXPECT : 0u) | (extents->n_gpa ? VMIBUS_MEMWRITE_EXPECT_GPA : 0u);
}

void extents_deinit(struct extents *extents) {
    free(extents->records);
    free(extents->octets);
    free(extents->expected);
    *extents = (struct extents){};
}

/* --- telling ------------------------------------------------------------------------------------ */

struct json_object *extents_json(const struct extents *extents, const struct vmibus_extent_result *results) {
    struct json_object *array =
        frame_json_records(vmibus_record_describe("extent_result"), results, extents->n * sizeof(*results));

    for (size_t i = 0; i < extents->n; i++) {
        struct json_object *object = json_object_array_get_idx(array, i);

        json_object_object_add(object, "gva", json_object_new_uint64(extents->records[i].gva));
        json_object_object_add(object, "len", json_object_new_uint64(extents->records[i].len));
    }
    return array;
}

void extents_explain(const struct extents *extents, const struct vmibus_extent_result *results) {
    for (size_t i = 0; i < extents->n; i++) {
        const char *error = vmibus_error_name(results[i].error), *reason = vmibus_reason_name(results[i].reason);

        if (results[i].error)
            fprintf(stderr, "vmibusctl: extent %zu at 0x%" PRIx64 ": %s%s%s, value 0x%" PRIx64 ", written %" PRIu32 "\n", i + 1,
                    extents->records[i].gva, error ? error : "unknown error", results[i].reason && reason ? " " : "",
                    results[i].reason && reason ? reason : "", results[i].value, results[i].written);
    }
}
