# SPDX-License-Identifier: LGPL-2.1-or-later
"""C that fills the frames of the test vectors the way a program does: by assigning to members."""

from generator import vectors
from generator.c_header import constant_name, record_struct
from generator.output import c_file_comment, c_string

COMMENT = """
The frames of the test vectors, filled by assigning to the members of their structures.

A tail is written to what the caller gives, which has room for VECTOR_TAIL_ROOM octets and is aligned for
every record.
"""


def _member_path(path, fields_by_path):
    """Turns body.events.0.type into events[0].type, with the names that C uses."""
    parts = []
    for part in path:
        if part.isdigit():
            parts[-1] += f"[{part}]"
        else:
            parts.append(fields_by_path.get(part, part))
    return ".".join(parts)


def _number(field, value):
    """A number as a program would write it: by name where it has one."""
    if field.table is None:
        return f"INT32_C({value})" if field.signed else f"UINT64_C({value:#x})" if field.size == 8 else f"{value:#x}"
    if not field.table.is_flags:
        for entry in field.table.values:
            if entry.number == value:
                return constant_name(field.table, entry)
        return hex(value)
    names = [constant_name(field.table, entry) for entry in field.table.values if value & entry.number]
    return " | ".join(names) if names else "0"


def _assign(target, field, value):
    if isinstance(value, str):
        return [f"    memcpy({target}, {c_string(value)}, {len(value)});"]
    if isinstance(value, bytes):
        octets = "".join(f"\\x{octet:02x}" for octet in value)
        return [f'    memcpy({target}, "{octets}", {len(value)});']
    # A cast would hide a member that is too narrow; the compiler is to see the plain number.
    return [f"    {target} = {_number(field, value)};"]


def _assign_record(base, assignments, skip):
    lines = []
    for item in assignments:
        if item.field.is_reserved:
            continue
        c_names = {item.field.name: item.field.c_name}
        lines += _assign(f"{base}{_member_path(item.path.split('.')[skip:], c_names)}", item.field, item.value)
    return lines


def _tail(vector):
    tail = vector.tail
    if tail is None:
        return ["    (void)tail;", "    return 0;"]
    if isinstance(tail, (str, bytes)):
        return _assign("tail", None, tail) + [f"    return {len(tail)};"]
    lines = []
    for index, record in enumerate(tail):
        lines += _assign_record(f"records[{index}].", record, 2)
    return lines + [f"    return {len(tail)} * sizeof(*records);"]


def _function_name(vector):
    return "fill_" + vector.name.lower().replace("+", "_with_")


def _function(vector):
    header = [item for item in vector.assignments if item.path.startswith("header.")]
    body = [item for item in vector.assignments if item.path.startswith("body.")]
    lines = [f"static size_t {_function_name(vector)}(struct vmibus_frame *frame, void *tail)", "{"]
    if isinstance(vector.tail, list):
        lines += [f"    {record_struct(vector.record)} *records = tail;", ""]
    lines += _assign_record("frame->header.", header, 1)
    lines += _assign_record(f"frame->{vector.frame.member}.", body, 1)
    return lines + _tail(vector) + ["}", ""]


def generate(definition):
    """Returns C that a test includes."""
    built = vectors.build(definition)
    lines = c_file_comment(COMMENT)
    room = max(len(vector.tail_octets) for vector in built)
    lines += ["#include <stddef.h>", "#include <stdint.h>", "#include <string.h>", "",
              "#include <vmibus/protocol.h>", "", f"#define VECTOR_TAIL_ROOM {room}", ""]
    for vector in built:
        lines += _function(vector)
    lines += ["/** A vector's name, and who fills a zeroed frame and tail with it and returns the tail's octets. */",
              "static const struct vector_fill {", "    const char *name;", "    uint16_t kind;",
              "    size_t (*fill)(struct vmibus_frame *frame, void *tail);", "} vector_fills[] = {"]
    lines += [f"    {{{c_string(vector.name)}, VMIBUS_KIND_{vector.frame.name}, {_function_name(vector)}}},"
              for vector in built]
    return "\n".join(lines + ["};"]) + "\n"
