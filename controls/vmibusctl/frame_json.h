/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Frames as JSON, by the descriptions of the wire: keys are field names.  An enumeration becomes its
 * name (a number if it is unknown), a bit set an array of names, octets hexadecimal text, a UUID its
 * usual form, text a string; reserved fields are left out.
 */
#ifndef VMIBUSCTL_FRAME_JSON_H
#define VMIBUSCTL_FRAME_JSON_H

#include <json.h>
#include <stdio.h>

#include <vmibus/client.h>
#include <vmibus/names.h>

/** The fields of a body or record at base. The object is the caller's. */
struct json_object *frame_json_fields(const struct vmibus_field_description *fields, size_t n_fields, const void *base);

/** A frame's body; an empty object for an unknown kind. */
struct json_object *frame_json_body(const struct vmibus_frame *frame);

/** An array of records; what is left over at the end is dropped. */
struct json_object *frame_json_records(const struct vmibus_record_description *record, const void *tail, size_t length);

/** A whole message: the header's fields, body, and tail if there is one. */
struct json_object *frame_json_message(const struct vmibus_message *message);

/** The names of the flags that are set, as an array; bits without a name make one number. */
struct json_object *frame_json_flags(const char *table, uint64_t value);

/** A string of octets that may not be UTF-8 or hold NUL: what is malformed becomes U+FFFD. */
struct json_object *frame_json_text(const char *text, size_t length);

/** Octets in hexadecimal. */
struct json_object *frame_json_hex(const uint8_t *octets, size_t length);

/** A UUID as people write it. */
struct json_object *frame_json_uuid(const uint8_t *uuid);

/** Writes an object as one line, without what a terminal could take for a command. */
void frame_json_write(FILE *stream, struct json_object *object);

/** Prints an object on a line of its own, and frees it. */
void frame_json_print(struct json_object *object);

#endif
