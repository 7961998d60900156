# SPDX-License-Identifier: LGPL-2.1-or-later
"""<vmibus/protocol.h>: the wire as C structures, checked by the compiler that uses them."""

import functools
import operator

from generator.output import c_comment, c_file_comment

SCALAR_TYPES = {"u8": "uint8_t", "u16": "uint16_t", "u32": "uint32_t", "u64": "uint64_t", "s32": "int32_t",
                "s64": "int64_t"}

FILE_COMMENT = """
The wire of vmibus: vmibus-protocol(7) describes it.

A frame is VMIBUS_FRAME_SIZE octets: a header and a body that begins on a multiple of eight. Every number is
little-endian and naturally aligned; there is no hidden padding, so that structures are sent as they lie in
memory. Fields named reserved, and padding, are zero on sending and ignored on receipt.
"""

ASSERTIONS = """\
#ifdef __cplusplus
#define VMIBUS_PROTOCOL_ASSERT(condition, message) static_assert(condition, message)
#else
#define VMIBUS_PROTOCOL_ASSERT(condition, message) _Static_assert(condition, message)
#endif
#define VMIBUS_PROTOCOL_FIELD(type, member, at) \\
    VMIBUS_PROTOCOL_ASSERT(offsetof(type, member) == (at), #type ": " #member " has moved")
#define VMIBUS_PROTOCOL_SIZE(type, octets) \\
    VMIBUS_PROTOCOL_ASSERT(sizeof(type) == (octets), #type ": the size has changed")

VMIBUS_PROTOCOL_ASSERT(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the wire is little-endian");
"""


def constant_name(table, value):
    """The C name of an enumerator or flag."""
    return f"VMIBUS_{table.prefix}_{value.name}"


def frame_struct(frame):
    """The C structure that holds a frame's body."""
    return f"struct vmibus_{frame.c_name}"


def record_struct(record):
    """The C structure of a record."""
    return f"struct vmibus_{record.name}"


def inline_constant(frame):
    """The constant that tells a command's inline budget."""
    return f"VMIBUS_{frame.name.removeprefix('CMD_')}_INLINE"


def _declaration(field):
    if field.kind == "bytes":
        return f"uint8_t {field.c_name}[{field.size}]"
    if field.kind == "record":
        return f"{record_struct(field.record)} {field.c_name}[{field.count}]"
    return f"{SCALAR_TYPES[field.kind]} {field.c_name}"


def _field_doc(field):
    if field.table is None:
        return field.doc
    if field.table.is_flags:
        return f"{field.doc} Bits VMIBUS_{field.table.prefix}_."
    return f"{field.doc} Values: enum vmibus_{field.table.name}."


def _member_lines(declaration, doc):
    line = f"    {declaration + ';':<32}/**< {doc} */"
    if len(line) <= 100:
        return [line]
    return c_comment(doc, "    ") + [f"    {declaration};"]


def _structure(tag, doc, fields, size, padded_size):
    """A structure and the assertions that pin its layout."""
    lines = c_comment(doc) + [f"{tag} {{"]
    for field in fields:
        lines += _member_lines(_declaration(field), _field_doc(field))
    if padded_size > size:
        lines += _member_lines(f"uint8_t padding[{padded_size - size}]", "Zero.")
    lines.append("};")
    for field in fields:
        lines.append(f"VMIBUS_PROTOCOL_FIELD({tag}, {field.c_name}, {field.offset});")
    lines.append(f"VMIBUS_PROTOCOL_SIZE({tag}, {padded_size});")
    return lines + [""]


def _define(name, value, doc):
    return c_comment(doc) + [f"#define {name} {value}", ""]


def _constants(definition):
    lines = []
    for name, value, doc in (
            ("PROTOCOL_VERSION", definition.version, "Version of this protocol, as HELLO and WELCOME tell it."),
            ("FRAME_SIZE", definition.frame_size, "Octets of a frame without its tail."),
            ("HEADER_SIZE", definition.header_size, "Octets of the header."),
            ("BODY_SIZE", definition.body_size, "Octets of the body, padding included."),
            ("MAGIC", f"UINT64_C({definition.magic:#018x})", "First field of HELLO and WELCOME."),
            ("TAIL_BOUND_DEFAULT", definition.tail_bound_default,
             "Longest tail in octets, unless WELCOME tells another bound."),
            ("FDS_PER_FRAME", definition.fds_per_frame, "Most descriptors that travel with one frame."),
            ("NAME_BOUND", definition.name_bound, "Longest endpoint name or pattern in octets."),
            ("EXTENTS_BOUND", definition.extents_bound, "Most extents in one CMD_MEMWRITE."),
            ("BUFFER_BOUND", definition.buffer_bound, "Longest buffer in octets."),
            ("BUFFERS_BOUND", definition.buffers_bound, "Most buffers of one session.")):
        lines += _define(f"VMIBUS_{name}", value, doc)
    for frame in definition.frames:
        if frame.inline_budget is not None:
            lines += _define(inline_constant(frame), frame.inline_budget, f"Octets that fit into {frame.name} itself.")
        for field in frame.fields:
            if field.kind == "record":
                lines += _define(f"VMIBUS_{frame.name.removeprefix('CMD_')}_{field.name.upper()}_INLINE", field.count,
                                 f"Records of {field.name} that fit into {frame.name} itself.")
    return lines


def _enumeration(table):
    doc = [table.doc] if table.doc else []
    if table.is_flags:
        lines = c_comment(" ".join(doc + [f"Bits of {table.name}."])) + ["enum {"]
    else:
        lines = c_comment(" ".join(doc) or f"Values of {table.name}.") + [f"enum vmibus_{table.name} {{"]
    for value in table.values:
        if table.is_flags:
            number = f"1u << {value.number.bit_length() - 1}"
        elif table.name == "kind":
            number = f"{value.number:#06x}"
        else:
            number = str(value.number)
        lines += _member_lines_of_enum(f"{constant_name(table, value)} = {number},", value.doc)
    if table.is_flags:
        every = functools.reduce(operator.or_, (value.number for value in table.values))
        prefix = constant_name(table, table.values[0]).removesuffix(table.values[0].name)
        lines += _member_lines_of_enum(f"{prefix}ALL = {every:#x}u,", "Every bit there is.")
    return lines + ["};", ""]


def _member_lines_of_enum(declaration, doc):
    line = f"    {declaration:<44}/**< {doc} */"
    if len(line) <= 100:
        return [line]
    return c_comment(doc, "    ") + [f"    {declaration}"]


def _frame_doc(frame):
    facts = [f"Sent by {' and '.join(frame.senders)}."]
    if frame.tail.allowed:
        facts.append(f"Tail: {frame.tail.doc}.")
    return " ".join([f"{frame.name}: {frame.doc}"] + facts)


def _whole_frame(definition):
    lines = ["/** One frame as it travels; frames without fields have no structure of their own. */",
             "struct vmibus_frame {", "    struct vmibus_header header;", "    union {",
             "        uint8_t body[VMIBUS_BODY_SIZE];"]
    lines += [f"        {frame_struct(frame)} {frame.member};" for frame in definition.frames if frame.fields]
    lines += ["    };", "};",
              "VMIBUS_PROTOCOL_FIELD(struct vmibus_frame, body, VMIBUS_HEADER_SIZE);",
              "VMIBUS_PROTOCOL_SIZE(struct vmibus_frame, VMIBUS_FRAME_SIZE);", ""]
    return lines


def generate(definition):
    """Returns the text of the header."""
    lines = c_file_comment(FILE_COMMENT)
    lines += ["#ifndef VMIBUS_PROTOCOL_H", "#define VMIBUS_PROTOCOL_H", "", "#include <stddef.h>",
              "#include <stdint.h>", ""]
    lines += [ASSERTIONS]
    lines += _constants(definition)
    lines += ["/* --- enumerations and bits --- */", ""]
    for table in definition.tables.values():
        lines += _enumeration(table)
    lines += c_comment("The bit that stands for a kind in SUBSCRIBE and DEMAND; kinds 0x0100 to 0x013f have one.")
    lines += ["#define VMIBUS_KIND_BIT(kind) (UINT64_C(1) << ((kind) - 0x0100))", ""]
    lines += ["/* --- header and records --- */", ""]
    header = definition.header
    lines += _structure("struct vmibus_header", header.doc, header.fields, header.size, definition.header_size)
    for record in definition.records.values():
        lines += _structure(record_struct(record), record.doc, record.fields, record.size, record.size)
    lines += ["/* --- bodies --- */", ""]
    for frame in definition.frames:
        if frame.fields:
            lines += _structure(frame_struct(frame), _frame_doc(frame), frame.fields, frame.size, definition.body_size)
    lines += _whole_frame(definition)
    lines += [f"#undef VMIBUS_PROTOCOL_{name}" for name in ("SIZE", "FIELD", "ASSERT")] + ["", "#endif"]
    return "\n".join(lines) + "\n"
