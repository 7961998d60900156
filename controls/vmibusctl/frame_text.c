/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "frame_text.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <vmibus/names.h>

#include "report.h"
#include "units.h"

static void print_flags(const struct vmibus_table_description *table, uint64_t value) {
    const char *separator = "";

    if (value == 0)
        printf("none");
    for (size_t i = 0; i < table->n_values; i++) {
        if (value & table->values[i].value) {
            printf("%s%s", separator, table->values[i].name);
            separator = ",";
        }
        value &= ~(uint64_t)table->values[i].value;
    }
    if (value)
        printf("%s0x%" PRIx64, separator, value);
}

void frame_text_flags(const char *table, uint64_t value) {
    print_flags(vmibus_table_describe(table), value);
}

/* Counts and sizes read better in decimal; everything else of 64 bits is an address or a number made of parts. */
static bool is_decimal(const struct vmibus_field_description *field) {
    static const char *const names[] = {"count", "start_time", "expires", "received", "started", "finished", "value"};

    if (field->type != VMIBUS_FIELD_U64)
        return true;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(field->name, names[i]) == 0)
            return true;
    return false;
}

static void print_octets(const struct vmibus_field_description *field, const uint8_t *octets) {
    char text[2 * VMIBUS_BODY_SIZE + 1];

    if (field->is_text) {
        snprintf(text, sizeof(text), "%.*s", (int)field->size, (const char *)octets);
        printf("%s", printable(text));
    } else if (field->size == 16 && strcmp(field->name, "uuid") == 0) {
        printf("%s", units_uuid(octets, text));
    } else {
        printf("%s", units_hex(octets, field->size, text));
    }
}

static void print_number(const struct vmibus_field_description *field, uint64_t value) {
    const struct vmibus_value_description *known;
    char size[UNITS_SIZE_SIZE];

    if (field->table && field->table->is_flags) {
        print_flags(field->table, value);
        return;
    }
    known = field->table ? vmibus_table_find(field->table, value) : NULL;
    if (known)
        printf("%s", known->name);
    else if (field->type == VMIBUS_FIELD_S32 || field->type == VMIBUS_FIELD_S64)
        printf("%" PRId64, (int64_t)value);
    else if (strcmp(field->name, "ram_size") == 0)
        printf("%s", units_size(value, size));
    else if (is_decimal(field))
        printf("%" PRIu64, value);
    else
        printf("0x%" PRIx64, value);
}

static bool is_zero(const uint8_t *octets, size_t length) {
    for (size_t i = 0; i < length; i++)
        if (octets[i])
            return false;
    return true;
}

static void print_value(const struct vmibus_field_description *field, const uint8_t *body) {
    if (field->is_bytes)
        print_octets(field, body + field->offset);
    else if (field->type == VMIBUS_FIELD_RECORD)
        printf("%u records", field->count);
    else
        print_number(field, vmibus_field_get(field, body));
}

void frame_text_fields(const struct vmibus_frame *frame) {
    const struct vmibus_frame_description *description = vmibus_frame_describe(frame->header.kind);
    int widest = 12;

    for (size_t i = 0; description && i < description->n_fields; i++) {
        const struct vmibus_field_description *field = &description->fields[i];

        if (field->is_reserved)
            continue;
        printf("  %-*s ", widest, field->name);
        print_value(field, frame->body);
        putchar('\n');
    }
}

void frame_text_line(const struct vmibus_frame *frame) {
    const struct vmibus_frame_description *description = vmibus_frame_describe(frame->header.kind);

    for (size_t i = 0; description && i < description->n_fields; i++) {
        const struct vmibus_field_description *field = &description->fields[i];
        bool zero = is_zero(frame->body + field->offset, field->size);

        /* A zero that has a name says something. */
        if (field->is_reserved || (zero && (!field->table || field->table->is_flags || !vmibus_table_find(field->table, 0) ||
                                            strcmp(field->name, "reason") == 0)))
            continue;
        printf(" %s ", field->name);
        print_value(field, frame->body);
    }
}
