/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reads protocol/vectors.txt line by line.
 */
#include "vector_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"

/* Room for a line: the longest is a field of text or octets. */
#define LINE_OCTETS 512

static int hex_digit(char c)
{
    const char digits[] = "0123456789abcdef";
    const char *found = c != '\0' ? strchr(digits, c) : NULL;

    return found != NULL ? (int)(found - digits) : -1;
}

/** Appends hexadecimal text to octets. */
static void append_hex(uint8_t *octets, size_t room, size_t *used, const char *text)
{
    while (*text != '\0') {
        int high = hex_digit(text[0]);
        int low = high >= 0 ? hex_digit(text[1]) : -1;

        ck_assert_msg(low >= 0, "not hexadecimal: %s", text);
        ck_assert_msg(*used < room, "more than %zu octets", room);
        octets[(*used)++] = (uint8_t)(high << 4 | low);
        text += 2;
    }
}

static void parse_value(struct vector_field *field, const char *text)
{
    char *end;

    if (strncmp(text, "octets ", 7) == 0) {
        append_hex(field->octets, sizeof(field->octets), &field->n_octets, text + 7);
    } else if (text[0] == '"') {
        field->n_octets = strlen(text) - 2;
        ck_assert_uint_le(field->n_octets, sizeof(field->octets));
        memcpy(field->octets, text + 1, field->n_octets);
    } else {
        field->number = text[0] == '-' ? (uint64_t)strtoll(text, &end, 0) : strtoull(text, &end, 0);
        ck_assert_msg(end != text && (*end == '\0' || *end == ' '), "no number: %s", text);
    }
}

static void parse_line(struct vector *vector, char *line)
{
    char *separator = strstr(line, " = ");
    const char *value;

    ck_assert_msg(separator != NULL, "not understood: %s", line);
    *separator = '\0';
    value = separator + 3;
    if (strcmp(line, "frame") == 0) {
        append_hex(vector->frame, sizeof(vector->frame), &vector->frame_octets, value);
    } else if (strcmp(line, "tail-octets") == 0) {
        append_hex(vector->tail, sizeof(vector->tail), &vector->tail_octets, value);
    } else {
        struct vector_field *field = &vector->fields[vector->n_fields++];

        ck_assert_uint_le(vector->n_fields, VECTOR_FIELDS);
        ck_assert_uint_lt(strlen(line), sizeof(field->path));
        strcpy(field->path, line);
        parse_value(field, value);
    }
}

static struct vector *add_vector(struct vector_file *file, const char *name)
{
    struct vector *vector;

    file->vectors = realloc(file->vectors, (file->n_vectors + 1) * sizeof(*file->vectors));
    ck_assert_ptr_nonnull(file->vectors);
    vector = &file->vectors[file->n_vectors++];
    memset(vector, 0, sizeof(*vector));
    ck_assert_uint_lt(strlen(name), sizeof(vector->name));
    strcpy(vector->name, name);
    return vector;
}

void vector_file_init(struct vector_file *file)
{
    const char *top = getenv("top_srcdir");
    char path[4096], line[LINE_OCTETS];
    struct vector *vector = NULL;
    FILE *stream;

    *file = (struct vector_file){0};
    snprintf(path, sizeof(path), "%s/protocol/vectors.txt", top != NULL ? top : ".");
    stream = fopen(path, "re");
    ck_assert_msg(stream != NULL, "cannot open %s: set top_srcdir", path);
    while (fgets(line, sizeof(line), stream) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        if (line[0] == '\0' || line[0] == '#')
            continue;
        if (strncmp(line, "vector ", 7) == 0) {
            vector = add_vector(file, line + 7);
        } else {
            ck_assert_ptr_nonnull(vector);
            parse_line(vector, line);
        }
    }
    fclose(stream);
    ck_assert_uint_gt(file->n_vectors, 0);
    for (size_t i = 0; i < file->n_vectors; i++)
        ck_assert_uint_eq(file->vectors[i].frame_octets, VMIBUS_FRAME_SIZE);
}

void vector_file_deinit(struct vector_file *file)
{
    free(file->vectors);
    *file = (struct vector_file){0};
}

const struct vector *vector_file_find(const struct vector_file *file, const char *name)
{
    for (size_t i = 0; i < file->n_vectors; i++) {
        if (strcmp(file->vectors[i].name, name) == 0)
            return &file->vectors[i];
    }
    ck_abort_msg("no vector %s", name);
}
