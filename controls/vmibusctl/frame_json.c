/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "frame_json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "units.h"
#include "utf8.h"

struct json_object *frame_json_text(const char *text, size_t length) {
    struct json_object *object;
    char *copy = malloc(length * 3 + 1);
    size_t used = 0;

    if (!copy)
        abort();
    for (size_t at = 0; at < length;) {
        uint32_t codepoint;
        size_t n = utf8_decode(text + at, length - at, &codepoint);

        if (n)
            memcpy(copy + used, text + at, n);
        else
            memcpy(copy + used, "\xef\xbf\xbd", 3);
        used += n ? n : 3;
        at += n ? n : 1;
    }
    object = json_object_new_string_len(copy, (int)used);
    free(copy);
    return object;
}

struct json_object *frame_json_hex(const uint8_t *octets, size_t length) {
    struct json_object *object;
    char *text = malloc(length * 2 + 1);

    if (!text)
        abort();
    units_hex(octets, length, text);
    object = json_object_new_string_len(text, (int)(length * 2));
    free(text);
    return object;
}

struct json_object *frame_json_uuid(const uint8_t *uuid) {
    char text[UNITS_UUID_SIZE];

    return json_object_new_string(units_uuid(uuid, text));
}

static struct json_object *octets_json(const struct vmibus_field_description *field, const uint8_t *octets) {
    if (field->is_text)
        return frame_json_text((const char *)octets, strnlen((const char *)octets, field->size));
    if (field->size == 16 && strcmp(field->name, "uuid") == 0)
        return frame_json_uuid(octets);
    return frame_json_hex(octets, field->size);
}

static struct json_object *flags_json(const struct vmibus_table_description *table, uint64_t value) {
    struct json_object *array = json_object_new_array();

    for (size_t i = 0; i < table->n_values; i++) {
        if (value & table->values[i].value)
            json_object_array_add(array, json_object_new_string(table->values[i].name));
        value &= ~(uint64_t)table->values[i].value;
    }
    /* Bits without a name are shown as one number. */
    if (value)
        json_object_array_add(array, json_object_new_uint64(value));
    return array;
}

struct json_object *frame_json_flags(const char *table, uint64_t value) {
    return flags_json(vmibus_table_describe(table), value);
}

static struct json_object *number_json(const struct vmibus_field_description *field, const void *base) {
    uint64_t value = vmibus_field_get(field, base);
    const struct vmibus_value_description *known;

    if (field->table && field->table->is_flags)
        return flags_json(field->table, value);
    known = field->table ? vmibus_table_find(field->table, value) : NULL;
    if (known)
        return json_object_new_string(known->name);
    if (field->type == VMIBUS_FIELD_S32 || field->type == VMIBUS_FIELD_S64)
        return json_object_new_int64((int64_t)value);
    return json_object_new_uint64(value);
}

struct json_object *frame_json_fields(const struct vmibus_field_description *fields, size_t n_fields, const void *base) {
    struct json_object *object = json_object_new_object();

    for (size_t i = 0; i < n_fields; i++) {
        const struct vmibus_field_description *field = &fields[i];
        const uint8_t *at = (const uint8_t *)base + field->offset;
        struct json_object *value;

        if (field->is_reserved)
            continue;
        if (field->type == VMIBUS_FIELD_RECORD)
            value = frame_json_records(field->record, at, field->size);
        else
            value = field->is_bytes ? octets_json(field, at) : number_json(field, base);
        json_object_object_add(object, field->name, value);
    }
    return object;
}

struct json_object *frame_json_body(const struct vmibus_frame *frame) {
    const struct vmibus_frame_description *description = vmibus_frame_describe(frame->header.kind);

    return description ? frame_json_fields(description->fields, description->n_fields, frame->body) : json_object_new_object();
}

struct json_object *frame_json_records(const struct vmibus_record_description *record, const void *tail, size_t length) {
    struct json_object *array = json_object_new_array();

    for (size_t at = 0; at + record->size <= length; at += record->size)
        json_object_array_add(array, frame_json_fields(record->fields, record->n_fields, (const uint8_t *)tail + at));
    return array;
}

static struct json_object *tail_json(const struct vmibus_message *message) {
    const struct vmibus_frame_description *description = vmibus_frame_describe(message->frame.header.kind);
    size_t length = message->frame.header.tail_length;

    if (description && description->tail_is_text)
        return frame_json_text(message->tail, length);
    if (description && description->tail_record)
        return frame_json_records(description->tail_record, message->tail, length);
    return frame_json_hex(message->tail, length);
}

struct json_object *frame_json_message(const struct vmibus_message *message) {
    const struct vmibus_record_description *header = vmibus_header_describe();
    struct json_object *object = frame_json_fields(header->fields, header->n_fields, &message->frame.header);

    json_object_object_add(object, "body", frame_json_body(&message->frame));
    if (message->frame.header.tail_length)
        json_object_object_add(object, "tail", tail_json(message));
    return object;
}

/* json-c leaves those controls as they are that have more than one octet, and DEL: they are for no terminal either. */
static void print_escaped(FILE *stream, const char *text, size_t length) {
    size_t written = 0;

    for (size_t at = 0, n; at < length; at += n ? n : 1) {
        uint32_t codepoint;

        n = utf8_decode(text + at, length - at, &codepoint);
        if (n == 0 || !utf8_is_control(codepoint))
            continue;
        fwrite(text + written, 1, at - written, stream);
        fprintf(stream, "\\u%04x", (unsigned int)codepoint);
        written = at + n;
    }
    fwrite(text + written, 1, length - written, stream);
}

void frame_json_write(FILE *stream, struct json_object *object) {
    size_t length;
    const char *text =
        json_object_to_json_string_length(object, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE, &length);

    print_escaped(stream, text, length);
    putc('\n', stream);
}

void frame_json_print(struct json_object *object) {
    frame_json_write(stdout, object);
    json_object_put(object);
}
