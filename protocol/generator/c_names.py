# SPDX-License-Identifier: LGPL-2.1-or-later
"""<vmibus/names.h> and names.c: names, explanations, and descriptions of every frame for table-driven code."""

from generator.c_header import constant_name
from generator.output import c_comment, c_file_comment, c_string, c_string_or_null

HEADER_COMMENT = """
Names and explanations of everything on the wire, and descriptions of every frame: what a program needs to
print, parse or check frames without knowing each of them.

Nothing here allocates, fails, keeps state or depends on the locale; every function may be called by any
thread. Strings and descriptions are constant and live as long as the program.
"""

SOURCE_COMMENT = """
Names, explanations and descriptions of everything on the wire, as constant tables.

Values of a table lie in rising order, so that they can be searched by halves; frames are found by a switch.
"""

TYPES = """\
/** What a field holds. */
enum vmibus_field_type {
    VMIBUS_FIELD_U8,
    VMIBUS_FIELD_U16,
    VMIBUS_FIELD_U32,
    VMIBUS_FIELD_U64,
    VMIBUS_FIELD_S32,
    VMIBUS_FIELD_S64,
    VMIBUS_FIELD_BYTES,             /**< count octets */
    VMIBUS_FIELD_RECORD,            /**< an array of count records */
};

/** Who may send a frame: bits. */
enum {
    VMIBUS_SENDER_CONTROL = 1u << 0,
    VMIBUS_SENDER_SENSOR = 1u << 1,
    VMIBUS_SENDER_BUS = 1u << 2,
    VMIBUS_SENDER_MEMORY = 1u << 3, /**< the memory authority */
};

/** Where a frame travels: bits.  The first two are the values of enum vmibus_channel. */
enum {
    VMIBUS_ON_BUS = 1u << 0,
    VMIBUS_ON_MEMORY = 1u << 1,
    VMIBUS_ON_LINK = 1u << 2,       /**< between the bus and the memory authority */
};

/** One enumerator, or one flag. */
struct vmibus_value_description {
    uint32_t value;                 /**< the number; of a flag, its bit as a mask */
    const char *name;               /**< as vmibus-protocol(7) writes it */
    const char *doc;                /**< one or more sentences */
    const char *remedy;             /**< what to do about it, NULL if nothing */
};

/** An enumeration or a bit set. */
struct vmibus_table_description {
    const char *name;
    const char *doc;                /**< NULL if its name says all */
    bool is_flags;
    uint16_t n_values;
    uint32_t all;                   /**< flags: the bits that are known */
    const struct vmibus_value_description *values; /**< by rising value */
};

struct vmibus_record_description;

/** One field of the header, a body or a record. */
struct vmibus_field_description {
    const char *name;               /**< also its key in JSON */
    const char *doc;
    enum vmibus_field_type type;
    uint16_t offset;                /**< octets from the start of the header, body or record */
    uint16_t size;                  /**< octets in all */
    uint16_t count;                 /**< octets of BYTES, elements of RECORD, else 1 */
    bool is_bytes;                  /**< type is BYTES */
    bool is_text;                   /**< BYTES that hold text, padded with NUL */
    bool is_reserved;               /**< zero on sending, ignored on receipt */
    const struct vmibus_table_description *table;   /**< its values or bits, NULL: a number */
    const struct vmibus_record_description *record; /**< RECORD: of what */
};

/** A record, or the header. */
struct vmibus_record_description {
    const char *name;
    const char *doc;
    uint16_t size;                  /**< octets */
    uint16_t n_fields;
    const struct vmibus_field_description *fields;
};

/** A kind of frame. */
struct vmibus_frame_description {
    uint16_t kind;                  /**< enum vmibus_kind */
    const char *name;
    const char *doc;
    uint8_t direction;              /**< enum vmibus_direction */
    uint8_t senders;                /**< VMIBUS_SENDER_ bits */
    uint8_t channels;               /**< VMIBUS_ON_ bits */
    int8_t priority;                /**< enum vmibus_priority; -1: the sender chooses */
    uint8_t lease_class;            /**< enum vmibus_lease_class that it needs, 0 none */
    uint32_t capability;            /**< VMIBUS_CAP_ bit that it needs, 0 none */
    bool retained;                  /**< replayed to late subscribers */
    bool reserved;                  /**< not built: answered UNSUPPORTED */
    bool fds_allowed;               /**< may carry descriptors */
    bool tail_allowed;              /**< may have a tail */
    bool tail_is_text;              /**< the tail is text, without a NUL */
    uint32_t tail_min;              /**< shortest tail in octets */
    uint32_t tail_max;              /**< longest, 0: the tail bound */
    const char *tail_doc;           /**< what the tail is, NULL if none is allowed */
    /** What the tail is an array of; NULL if it is none, or if that depends on something else. */
    const struct vmibus_record_description *tail_record;
    uint16_t body_size;             /**< octets that fields take; the rest of the body is padding */
    uint16_t n_fields;
    const struct vmibus_field_description *fields;
};
"""

FUNCTIONS = """\
/** Describes a kind; NULL if unknown.  Takes the same time for every kind. */
VMIBUS_PUBLIC const struct vmibus_frame_description *vmibus_frame_describe(unsigned kind);

/** The frame descriptions one by one, by rising kind: NULL for an index past the last one. */
VMIBUS_PUBLIC const struct vmibus_frame_description *vmibus_frame_describe_at(size_t index);

/** Describes the header. */
VMIBUS_PUBLIC const struct vmibus_record_description *vmibus_header_describe(void);

/** Describes a record by its name in vmibus-protocol(7), such as "ram_range"; NULL if unknown. */
VMIBUS_PUBLIC const struct vmibus_record_description *vmibus_record_describe(const char *name);

/** Describes an enumeration or a bit set by its name, such as "capability"; NULL if unknown. */
VMIBUS_PUBLIC const struct vmibus_table_description *vmibus_table_describe(const char *name);

/** Finds an enumerator by number, or a single flag by mask; NULL if unknown. */
VMIBUS_PUBLIC const struct vmibus_value_description *
vmibus_table_find(const struct vmibus_table_description *table, uint64_t value);

/** Finds an enumerator or flag by name, in any case, with - for _ if one likes; NULL if unknown. */
VMIBUS_PUBLIC const struct vmibus_value_description *
vmibus_table_find_name(const struct vmibus_table_description *table, const char *name);

/**
 * Reads a number (U8 to S32) out of a header, body or record; any other field reads as 0.
 * @param base where the header, body or record begins; need not be aligned
 * @return the number, an S32 extended by its sign
 */
VMIBUS_PUBLIC uint64_t vmibus_field_get(const struct vmibus_field_description *field,
                                        const void *base);

/**
 * Writes a number (U8 to S32) into a header, body or record; leaves any other field alone.
 * @param base  where the header, body or record begins; need not be aligned
 * @param value the number; what the field has no room for is cut off
 */
VMIBUS_PUBLIC void vmibus_field_set(const struct vmibus_field_description *field, void *base,
                                    uint64_t value);
"""

# Enumerations and bit sets whose explanations have accessors of their own.
DOCUMENTED = {"error": ("doc", "remedy"), "reason": ("doc", "remedy"), "capability": ("doc",), "counter": ("doc",)}

ACCESSOR_DOCS = {"doc": "explained in a sentence", "remedy": "what to do about it, NULL if nothing"}

SOURCE_FUNCTIONS = """\
static char fold(char c)
{
    if (c >= 'A' && c <= 'Z')
        return (char)(c - 'A' + 'a');
    return c == '-' ? '_' : c;
}

static bool same_name(const char *a, const char *b)
{
    while (*a != '\\0' && fold(*a) == fold(*b)) {
        a++;
        b++;
    }
    return *a == '\\0' && *b == '\\0';
}

const struct vmibus_value_description *
vmibus_table_find(const struct vmibus_table_description *table, uint64_t value)
{
    size_t low = 0, high = table->n_values;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (table->values[middle].value == value)
            return &table->values[middle];
        if (table->values[middle].value < value)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

const struct vmibus_value_description *
vmibus_table_find_name(const struct vmibus_table_description *table, const char *name)
{
    for (size_t i = 0; i < table->n_values; i++) {
        if (same_name(table->values[i].name, name))
            return &table->values[i];
    }
    return NULL;
}

static const char *value_name(const struct vmibus_value_description *value)
{
    return value != NULL ? value->name : NULL;
}

static const char *value_doc(const struct vmibus_value_description *value)
{
    return value != NULL ? value->doc : NULL;
}

static const char *value_remedy(const struct vmibus_value_description *value)
{
    return value != NULL ? value->remedy : NULL;
}

static int value_number(const struct vmibus_value_description *value)
{
    return value != NULL ? (int)value->value : -1;
}

uint64_t vmibus_field_get(const struct vmibus_field_description *field, const void *base)
{
    const uint8_t *octets = (const uint8_t *)base + field->offset;
    uint64_t value = 0;

    if (field->type > VMIBUS_FIELD_S64)
        return 0;
    for (size_t i = field->size; i-- > 0;)
        value = value << 8 | octets[i];
    if (field->type == VMIBUS_FIELD_S32 && (value & UINT64_C(0x80000000)) != 0)
        value |= UINT64_C(0xffffffff00000000);
    return value;
}

void vmibus_field_set(const struct vmibus_field_description *field, void *base, uint64_t value)
{
    uint8_t *octets = (uint8_t *)base + field->offset;

    if (field->type > VMIBUS_FIELD_S64)
        return;
    for (size_t i = 0; i < field->size; i++)
        octets[i] = (uint8_t)(value >> (8 * i));
}

const struct vmibus_frame_description *vmibus_frame_describe_at(size_t index)
{
    return index < sizeof(frames) / sizeof(frames[0]) ? &frames[index] : NULL;
}

const struct vmibus_record_description *vmibus_header_describe(void)
{
    return &header;
}

const struct vmibus_record_description *vmibus_record_describe(const char *name)
{
    for (size_t i = 0; i < sizeof(records) / sizeof(records[0]); i++) {
        if (strcmp(records[i].name, name) == 0)
            return &records[i];
    }
    return NULL;
}

const struct vmibus_table_description *vmibus_table_describe(const char *name)
{
    for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++) {
        if (strcmp(tables[i]->name, name) == 0)
            return tables[i];
    }
    return NULL;
}
"""


# --- names.h -----------------------------------------------------------------------------------------


def _accessors(table):
    """Pairs of (documentation, declaration) of the functions of one table."""
    what = "flag" if table.is_flags else "enumerator"
    given = "mask" if table.is_flags else "number"
    yield (f"Name of the {what} of {table.name} with this {given}; NULL if unknown.",
           f"const char *vmibus_{table.name}_name(unsigned value)")
    yield (f"The {given} of the {what} of {table.name} with this name, in any case, - or _; -1 if unknown.",
           f"int vmibus_{table.name}_from_name(const char *name)")
    for accessor in DOCUMENTED.get(table.name, ()):
        yield (f"The {what} of {table.name}, {ACCESSOR_DOCS[accessor]}; NULL if unknown.",
               f"const char *vmibus_{table.name}_{accessor}(unsigned value)")


def generate_header(definition):
    """Returns the text of names.h."""
    lines = c_file_comment(HEADER_COMMENT)
    lines += ["#ifndef VMIBUS_NAMES_H", "#define VMIBUS_NAMES_H", "", "#include <stdbool.h>", "#include <stddef.h>",
              "#include <stdint.h>", "", "#include <vmibus/protocol.h>", "#include <vmibus/visibility.h>", "",
              "#ifdef __cplusplus", 'extern "C" {', "#endif", "", "/* --- descriptions --- */", "", TYPES, FUNCTIONS,
              "/* --- names and explanations --- */", ""]
    for table in definition.tables.values():
        for doc, declaration in _accessors(table):
            lines += c_comment(doc) + [f"VMIBUS_PUBLIC {declaration};", ""]
    lines += ["#ifdef __cplusplus", "}", "#endif", "", "#endif"]
    return "\n".join(lines) + "\n"


# --- names.c -----------------------------------------------------------------------------------------


def _table_source(table):
    lines = [f"static const struct vmibus_value_description values_{table.name}[] = {{"]
    for value in table.values:
        lines += ["    {", f"        .value = {constant_name(table, value)},",
                  f"        .name = {c_string(value.name)},", f"        .doc = {c_string(value.doc)},"]
        if value.remedy:
            lines.append(f"        .remedy = {c_string(value.remedy)},")
        lines.append("    },")
    everything = sum(value.number for value in table.values) if table.is_flags else 0
    return lines + ["};", "", f"static const struct vmibus_table_description table_{table.name} = {{",
                    f"    .name = {c_string(table.name)},", f"    .doc = {c_string_or_null(table.doc)},",
                    f"    .is_flags = {_bool(table.is_flags)},", f"    .n_values = {len(table.values)},",
                    f"    .all = {everything:#x},", f"    .values = values_{table.name},", "};", ""]


def _bool(value):
    return "true" if value else "false"


def _field_source(field, record_indices):
    lines = ["    {", f"        .name = {c_string(field.name)},", f"        .doc = {c_string(field.doc)},",
             f"        .type = VMIBUS_FIELD_{field.kind.upper()},", f"        .offset = {field.offset},",
             f"        .size = {field.size},", f"        .count = {field.count},"]
    for name, value in (("is_bytes", field.kind == "bytes"), ("is_text", field.is_text),
                        ("is_reserved", field.is_reserved)):
        if value:
            lines.append(f"        .{name} = true,")
    if field.table is not None:
        lines.append(f"        .table = &table_{field.table.name},")
    if field.record is not None:
        lines.append(f"        .record = &records[{record_indices[field.record.name]}],")
    return lines + ["    },"]


def _fields_source(name, fields, record_indices):
    lines = [f"static const struct vmibus_field_description fields_{name}[] = {{"]
    for field in fields:
        lines += _field_source(field, record_indices)
    return lines + ["};", ""]


def _record_initializer(record, fields_name, indent):
    return [f"{indent}.name = {c_string(record.name)},", f"{indent}.doc = {c_string(record.doc)},",
            f"{indent}.size = {record.size},", f"{indent}.n_fields = {len(record.fields)},",
            f"{indent}.fields = {fields_name},"]


def _records_source(definition, record_indices):
    """Records may hold records that come before them, so each sees the whole array."""
    lines = [f"static const struct vmibus_record_description records[{len(definition.records)}];", ""]
    for record in definition.records.values():
        lines += _fields_source(f"record_{record.name}", record.fields, record_indices)
    lines.append(f"static const struct vmibus_record_description records[{len(definition.records)}] = {{")
    for record in definition.records.values():
        lines += ["    {"] + _record_initializer(record, f"fields_record_{record.name}", " " * 8) + ["    },"]
    lines += ["};", ""]
    lines += _fields_source("header", definition.header.fields, record_indices)
    lines += ["static const struct vmibus_record_description header = {"]
    return lines + _record_initializer(definition.header, "fields_header", " " * 4) + ["};", ""]


def _frame_source(frame, record_indices):
    channels = ("bus", "memory") if frame.channel == "both" else (frame.channel,)
    members = [
        ("kind", f"VMIBUS_KIND_{frame.name}"), ("name", c_string(frame.name)), ("doc", c_string(frame.doc)),
        ("direction", f"VMIBUS_DIRECTION_{frame.direction}"),
        ("senders", " | ".join(f"VMIBUS_SENDER_{sender.upper()}" for sender in frame.senders)),
        ("channels", " | ".join(f"VMIBUS_ON_{channel.upper()}" for channel in channels)),
        ("priority", f"VMIBUS_PRIORITY_{frame.priority}" if frame.priority else "-1")]
    if frame.lease is not None:
        members.append(("lease_class", f"VMIBUS_LEASE_CLASS_{frame.lease.name}"))
    if frame.capability is not None:
        members.append(("capability", f"VMIBUS_CAP_{frame.capability.name}"))
    members += [(name, "true") for name, value in (
        ("retained", frame.retained), ("reserved", frame.reserved), ("fds_allowed", frame.descriptors),
        ("tail_allowed", frame.tail.allowed), ("tail_is_text", frame.tail.is_text)) if value]
    if frame.tail.allowed:
        members += [("tail_min", frame.tail.minimum), ("tail_max", frame.tail.maximum or 0),
                    ("tail_doc", c_string(frame.tail.doc))]
    if frame.tail.record is not None:
        members.append(("tail_record", f"&records[{record_indices[frame.tail.record.name]}]"))
    members += [("body_size", frame.size), ("n_fields", len(frame.fields))]
    if frame.fields:
        members.append(("fields", f"fields_{frame.member}"))
    return ["    {"] + [f"        .{name} = {value}," for name, value in members] + ["    },"]


def _frames_source(definition, record_indices):
    lines = []
    for frame in definition.frames:
        if frame.fields:
            lines += _fields_source(frame.member, frame.fields, record_indices)
    lines.append("static const struct vmibus_frame_description frames[] = {")
    for frame in definition.frames:
        lines += _frame_source(frame, record_indices)
    return lines + ["};", ""]


def _describe_source(definition):
    lines = ["const struct vmibus_frame_description *vmibus_frame_describe(unsigned kind)", "{", "    switch (kind) {"]
    for index, frame in enumerate(definition.frames):
        lines += [f"    case VMIBUS_KIND_{frame.name}:", f"        return &frames[{index}];"]
    return lines + ["    default:", "        return NULL;", "    }", "}", ""]


def _accessors_source(table):
    lines = [f"const char *vmibus_{table.name}_name(unsigned value)", "{",
             f"    return value_name(vmibus_table_find(&table_{table.name}, value));", "}", "",
             f"int vmibus_{table.name}_from_name(const char *name)", "{",
             f"    return value_number(vmibus_table_find_name(&table_{table.name}, name));", "}", ""]
    for accessor in DOCUMENTED.get(table.name, ()):
        lines += [f"const char *vmibus_{table.name}_{accessor}(unsigned value)", "{",
                  f"    return value_{accessor}(vmibus_table_find(&table_{table.name}, value));", "}", ""]
    return lines


def generate_source(definition):
    """Returns the text of names.c."""
    record_indices = {name: index for index, name in enumerate(definition.records)}
    lines = c_file_comment(SOURCE_COMMENT)
    lines += ["#include <vmibus/names.h>", "", "#include <string.h>", "", "/* --- tables --- */", ""]
    for table in definition.tables.values():
        lines += _table_source(table)
    lines.append("static const struct vmibus_table_description *const tables[] = {")
    lines += [f"    &table_{name}," for name in definition.tables] + ["};", ""]
    lines += _records_source(definition, record_indices) + _frames_source(definition, record_indices)
    lines += ["/* --- functions --- */", "", SOURCE_FUNCTIONS] + _describe_source(definition)
    for table in definition.tables.values():
        lines += _accessors_source(table)
    return "\n".join(lines).rstrip("\n") + "\n"
