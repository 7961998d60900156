# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmibus-protocol(7) and vmibus-errors(7): the prose of the templates, and what the definition holds.

The pages are mdoc(7) with tbl(1); both mandoc and groff take them.  A line @NAME@ of the prose is replaced by what
the function of that name in SECTIONS returns.
"""

import os
import re
import textwrap

from generator.c_header import inline_constant

TEMPLATES = os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir)

# Of the source, before hyphens are escaped.
LINE_WIDTH = 72

# Frames by the upper octet of their kind, as subsections.
FAMILIES = {
    0x00: ("Opening", "Before anything else."),
    0x01: ("Events", "What controls receive. The lower octet of the kind is its bit in SUBSCRIBE and DEMAND."),
    0x02: ("Commands to the bus", "What a control sends on the bus channel."),
    0x03: ("Commands to the memory authority", "What is sent on the memory channel."),
    0x04: ("Sensors", "Between a sensor and the bus or the memory authority, besides the commands a sensor executes."),
    0x05: ("Link", "Between the bus and a memory authority in a process of its own. No peer may send these."),
}


def _cell(text):
    """Text that roff takes as it is, wherever a line begins."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text[:1] in (".", "'") else text


def _text(text):
    """The same as lines, of which each sentence begins a new one: roff sets the space between sentences."""
    lines = []
    for sentence in re.split(r"(?<=[\w)][.?!]) ", text):
        lines += textwrap.wrap(sentence, LINE_WIDTH, break_on_hyphens=False, break_long_words=False)
    return [_cell(line) for line in lines]


def _table(columns, rows):
    """A tbl(1) table; the last column is a text block that wraps."""
    layout = " ".join("r" if right else "l" for _, right in columns[:-1])
    # Without nokeep a formatter that paginates wants each table on one page.
    lines = [".TS", "nokeep;", f"{layout} lx.", "_", "\t".join(name for name, _ in columns), "_"]
    for row in rows:
        lines += ["\t".join([_cell(str(cell)) for cell in row[:-1]] + ["T{"]), *_text(row[-1]), "T}"]
    return lines + ["_", ".TE"]


def _meaning(field):
    meaning = field.doc
    if field.table is not None:
        what = "Flags" if field.table.is_flags else "See"
        meaning += f" {what}: {field.table.name}."
    if field.is_text:
        meaning += " Text."
    return meaning


def _fields(fields, base):
    rows = [(base + field.offset, field.type_name, field.name, _meaning(field)) for field in fields]
    return _table([("at", True), ("type", False), ("name", False), ("meaning", False)], rows)


def _header(definition):
    return _text(definition.header.doc) + _fields(definition.header.fields, 0)


def _senders(frame):
    names = {"control": "a control", "sensor": "a sensor", "bus": "the bus", "memory": "the memory authority"}
    return " or ".join(names[sender] for sender in frame.senders)


def _facts(frame):
    channel = {"bus": "bus channel", "memory": "memory channel", "both": "both channels", "link": "link"}[frame.channel]
    facts = [f"{frame.direction}, sent by {_senders(frame)}; {channel}."]
    if frame.priority is not None:
        facts.append(f"Priority {frame.priority}{', retained' if frame.retained else ''}.")
    if frame.capability is not None:
        facts.append(f"Needs the capability {frame.capability.name}.")
    if frame.lease is not None:
        facts.append(f"Needs the {frame.lease.name} lease.")
    if frame.inline_budget is not None:
        facts.append(f"Inline budget: {frame.inline_budget} octets.")
    if frame.descriptors:
        facts.append("May carry descriptors.")
    return " ".join(facts)


def _tail_sentence(frame):
    tail = frame.tail
    if not tail.allowed:
        return "No tail."
    bounds = []
    if tail.record is not None and tail.minimum:
        bounds.append(f"at least {tail.minimum // tail.record.size}")
    elif tail.minimum and "octets" not in tail.doc:
        bounds.append(f"at least {tail.minimum} octets")
    if tail.maximum is not None and "octets" not in tail.doc:
        bounds.append(f"at most {tail.maximum} octets")
    return f"Tail: {'; '.join([tail.doc] + bounds)}."


def _frame(definition, frame):
    lines = [".Pp", f".Sy {frame.name}", f"(0x{frame.kind:04x}).", *_text(frame.doc), ".br", *_text(_facts(frame)),
             *_text(_tail_sentence(frame))]
    if frame.fields:
        lines += _fields(frame.fields, definition.header_size)
    return lines


def _frames(definition):
    lines, family = [], None
    for frame in definition.frames:
        if frame.kind >> 8 != family:
            family = frame.kind >> 8
            title, doc = FAMILIES[family]
            lines += [f".Ss {title}", *_text(doc)]
        lines += _frame(definition, frame)
    return lines


def _records(definition):
    lines = []
    for record in definition.records.values():
        lines += [".Pp", f".Sy {record.name}", f"({record.size} octets).", *_text(record.doc)]
        lines += _fields(record.fields, 0)
    return lines


def _values(table, numbers):
    lines = [f".Ss {table.name}"]
    if table.doc:
        lines += _text(table.doc)
    rows = [(numbers(value), value.name, value.doc) for value in table.values]
    lines += _table([("bit" if table.is_flags else "value", True), ("name", False), ("meaning", False)], rows)
    retired = [value.name for value in table.all_values if value.retired]
    if retired:
        lines += _text(f"Retired, never to be used again: {', '.join(retired)}.")
    return lines


def _enumerations(definition):
    lines = []
    for table in definition.enums:
        if table.name not in ("kind", "error"):
            lines += _values(table, lambda value: value.number)
    return lines


def _flags(definition):
    lines = []
    for table in definition.flag_sets:
        lines += _values(table, lambda value: value.number.bit_length() - 1)
    return lines


def _errors(definition):
    table = definition.tables["error"]
    lines = [*_text(table.doc), ".Bl -tag -width VALIDATION"]
    for value in table.values:
        lines += [f".It Er {value.name} Pq {value.number}", *_text(value.doc)]
        if value.remedy:
            lines += [".br", ".Em Remedy :", *_text(value.remedy)]
    return lines + [".El"]


# Exit statuses of vmibusctl(1): this, and the number of the error.
EXIT_STATUS = 10


def _catalog_entry(name, facts, value):
    lines = [f".It Er {name} Pq {facts}", *_text(value.doc)]
    if value.remedy:
        lines += [".br", ".Em Remedy :", *_text(value.remedy)]
    return lines


def _error_catalog(definition):
    lines = [".Bl -tag -width Ds"]
    for value in definition.tables["error"].values:
        if value.number:
            lines += _catalog_entry(value.name, f"{value.number}, exit status {EXIT_STATUS + value.number}", value)
    return lines + [".El"]


def _reason_catalog(definition):
    lines = [".Bl -tag -width Ds"]
    for value in sorted(definition.tables["reason"].values, key=lambda value: value.name):
        if value.number:
            lines += _catalog_entry(value.name, value.number, value)
    return lines + [".El"]


def _limits(definition):
    rows = [(definition.frame_size, "octets of a frame"), (definition.header_size, "octets of its header"),
            (definition.body_size, "octets of its body"),
            (definition.tail_bound_default, "octets of the longest tail, unless WELCOME tells another bound"),
            (definition.fds_per_frame, "descriptors that travel with one frame"),
            (definition.name_bound, "octets of an endpoint name or pattern"),
            (definition.extents_bound, "extents in one CMD_MEMWRITE"),
            (definition.buffer_bound, "octets of one buffer"),
            (definition.buffers_bound, "buffers of one session")]
    for frame in definition.frames:
        if frame.inline_budget is not None:
            rows.append((frame.inline_budget, f"octets of data inside {frame.name} ({inline_constant(frame)})"))
        rows += [(field.count, f"records of {field.name} inside {frame.name}")
                 for field in frame.fields if field.kind == "record"]
    rows.append((definition.version, "the version of the protocol described here"))
    return _table([("limit", True), ("of what", False)], rows)


SECTIONS = {"HEADER": _header, "FRAMES": _frames, "RECORDS": _records, "ENUMERATIONS": _enumerations,
            "FLAGS": _flags, "ERRORS": _errors, "LIMITS": _limits,
            "ERRORCATALOG": _error_catalog, "REASONCATALOG": _reason_catalog}


def _fill(definition, template):
    with open(os.path.join(TEMPLATES, template), encoding="ascii") as file:
        prose = file.read()
    lines = []
    for line in prose.splitlines():
        match = re.match(r"@([A-Z]+)@\Z", line)
        lines += SECTIONS[match.group(1)](definition) if match else [line]
    return "\n".join(lines) + "\n"


def generate(definition):
    """Returns the text of vmibus-protocol(7)."""
    return _fill(definition, "vmibus-protocol.7.in")


def generate_errors(definition):
    """Returns the text of vmibus-errors(7)."""
    return _fill(definition, "vmibus-errors.7.in")
