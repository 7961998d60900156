# SPDX-License-Identifier: LGPL-2.1-or-later
"""The definition of the wire, read and checked.

Everything that is generated comes from the objects here, never from the file itself: what passes load() is
sound, so the generators check nothing.  Every error names the object, what is wrong with it, and the bound.
"""

import re
import tomllib
from dataclasses import dataclass, field as dataclass_field


class DefinitionError(Exception):
    """The definition is wrong; the message says where and how."""


# Names that C or C++ keep for themselves and that a field, frame or enumeration might bear.
KEYWORDS = frozenset("""
    alignas alignof and and_eq asm auto bitand bitor bool break case catch char class compl concept const
    consteval constexpr constinit continue co_await co_return co_yield decltype default delete do double
    else enum explicit export extern false float for friend goto if inline int long mutable namespace new
    noexcept not not_eq nullptr operator or or_eq private protected public register reinterpret_cast
    requires restrict return short signed sizeof static static_assert struct switch template this
    thread_local throw true try typedef typeid typename typeof union unsigned using virtual void volatile
    wchar_t while xor xor_eq linux unix
""".split())

SCALARS = {  # name: (octets, signed)
    "u8": (1, False),
    "u16": (2, False),
    "u32": (4, False),
    "u64": (8, False),
    "s32": (4, True),
    "s64": (8, True),
}

DIRECTIONS = ("UP", "DOWN")
SENDERS = ("control", "sensor", "bus", "memory")
CHANNELS = ("bus", "memory", "both", "link")

LOWER_NAME = re.compile(r"[a-z][a-z0-9_]*\Z")
UPPER_NAME = re.compile(r"[A-Z][A-Z0-9_]*\Z")

# Kinds that a subscription can name: bit N stands for this kind plus N.
KIND_BIT_BASE = 0x0100
KIND_BITS = 64

# Names of single flags are looked up with an int as the answer.
HIGHEST_FLAG_BIT = 30


@dataclass
class Value:
    """One enumerator, or one flag of a bit set (then number is 1 << bit)."""
    name: str
    number: int
    doc: str
    remedy: str | None
    retired: bool


@dataclass
class Table:
    """An enumeration or a bit set."""
    name: str
    prefix: str
    doc: str
    is_flags: bool
    all_values: list[Value]

    @property
    def values(self):
        """Values in use, in rising order."""
        return sorted((value for value in self.all_values if not value.retired), key=lambda value: value.number)


@dataclass
class Field:
    """One field of the header, a body or a record."""
    name: str
    c_name: str
    doc: str
    kind: str           # a scalar's name, "bytes" or "record"
    offset: int         # from the start of what it is part of
    size: int           # octets in all
    alignment: int
    count: int          # octets of bytes, elements of an array of records, else 1
    signed: bool
    is_text: bool
    is_reserved: bool
    table: Table | None = None
    record: "Record | None" = None
    example: int | None = None       # in a test vector
    example_tail: int | None = None  # in a test vector with a tail

    @property
    def type_name(self):
        """The type as the manual calls it."""
        if self.kind == "bytes":
            return f"octets[{self.size}]"
        if self.kind == "record":
            return f"{self.record.name}[{self.count}]"
        return self.kind


@dataclass
class Record:
    """A group of fields that arrays and tails are made of."""
    name: str
    doc: str
    fields: list[Field]
    size: int
    alignment: int


@dataclass
class Tail:
    """What may follow a frame."""
    allowed: bool
    doc: str
    minimum: int = 0            # octets
    maximum: int | None = None  # octets; None: the tail bound
    is_text: bool = False
    record: Record | None = None
    one_of: list[Record] = dataclass_field(default_factory=list)    # what it may be an array of


@dataclass
class Frame:
    """One kind of frame."""
    name: str
    c_name: str
    kind: int
    direction: str
    senders: list[str]
    channel: str
    doc: str
    fields: list[Field]
    size: int                   # octets of the body that fields take
    tail: Tail
    priority: str | None
    capability: Value | None
    lease: Value | None
    retained: bool
    reserved: bool
    retired: bool
    descriptors: bool
    inline_budget: int | None

    @property
    def member(self):
        """Name of the body in the union of struct vmibus_frame."""
        return self.name.lower()

    @property
    def subscription_bit(self):
        """Bit that a subscription names it by, or None."""
        bit = self.kind - KIND_BIT_BASE
        return bit if 0 <= bit < KIND_BITS else None


@dataclass
class Definition:
    """The whole wire."""
    version: int
    frame_size: int
    header_size: int
    body_size: int
    magic: int
    tail_bound_default: int
    fds_per_frame: int
    name_bound: int
    extents_bound: int
    buffer_bound: int
    buffers_bound: int
    header: Record = None
    tables: dict[str, Table] = dataclass_field(default_factory=dict)
    records: dict[str, Record] = dataclass_field(default_factory=dict)
    all_frames: list[Frame] = dataclass_field(default_factory=list)

    @property
    def enums(self):
        return [table for table in self.tables.values() if not table.is_flags]

    @property
    def flag_sets(self):
        return [table for table in self.tables.values() if table.is_flags]

    @property
    def frames(self):
        """Frames in use, by rising kind."""
        return sorted((frame for frame in self.all_frames if not frame.retired), key=lambda frame: frame.kind)


class _Entry:
    """One table of the file: every key is asked for once, and what nobody asked for is an error."""

    def __init__(self, where, data):
        if not isinstance(data, dict):
            raise DefinitionError(f"{where}: must be a table")
        self.where = where
        self.data = dict(data)

    def take(self, key, kind, default=...):
        value = self.data.pop(key, default)
        if value is ...:
            raise DefinitionError(f"{self.where}: key '{key}' is missing")
        # bool is an int to Python, never to the definition.
        if value is not default and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
            raise DefinitionError(f"{self.where}: '{key}' must be of type {kind.__name__}")
        return value

    def take_number(self, key, low, high, default=...):
        value = self.take(key, int, default)
        if value is not default and not low <= value <= high:
            raise DefinitionError(f"{self.where}: '{key}' is {value:#x}, must be {low:#x} to {high:#x}")
        return value

    def take_name(self, key, pattern, default=...):
        value = self.take(key, str, default)
        if value is not default and not pattern.match(value):
            raise DefinitionError(f"{self.where}: '{value}' is not a proper {key}")
        return value

    def take_choice(self, key, choices, default=...):
        value = self.take(key, str, default)
        if value is not default and value not in choices:
            raise DefinitionError(f"{self.where}: '{key}' is '{value}', must be one of {', '.join(choices)}")
        return value

    def take_doc(self, default=...):
        text = self.take("doc", str, default)
        if text is not default and not (text.isascii() and text.isprintable() and text.strip() == text and text):
            raise DefinitionError(f"{self.where}: 'doc' must be one line of printable ASCII")
        # It becomes C comments and string literals.
        if "*/" in text or "/*" in text:
            raise DefinitionError(f"{self.where}: 'doc' must not contain comment marks")
        return text

    def finish(self):
        if self.data:
            raise DefinitionError(f"{self.where}: unknown key '{next(iter(self.data))}'")


def _require_unique(where, what, items):
    seen = set()
    for item in items:
        if item in seen:
            shown = f"{item:#x}" if isinstance(item, int) else f"'{item}'"
            raise DefinitionError(f"{where}: {what} {shown} is used twice")
        seen.add(item)


def _require_identifier(where, name):
    if name in KEYWORDS:
        raise DefinitionError(f"{where}: '{name}' is a keyword of C or C++; give a c_name")


# --- enumerations and bit sets -----------------------------------------------------------------------


def _parse_value(where, data, is_flags):
    entry = _Entry(where, data)
    name = entry.take_name("name", UPPER_NAME)
    entry.where = f"{where} {name}"
    if is_flags:
        number = 1 << entry.take_number("bit", 0, HIGHEST_FLAG_BIT)
    else:
        number = entry.take_number("value", 0, 0xFFFF)
    value = Value(name, number, entry.take_doc(), entry.take("remedy", str, None),
                  entry.take_choice("status", ("retired",), None) == "retired")
    entry.finish()
    return value


def _parse_table(data, is_flags):
    what = "flags" if is_flags else "enum"
    entry = _Entry(what, data)
    name = entry.take_name("name", LOWER_NAME)
    where = entry.where = f"{what} {name}"
    prefix = entry.take_name("prefix", UPPER_NAME, name.upper())
    doc = entry.take_doc("")
    values = [_parse_value(where, value, is_flags) for value in entry.take("values", list)]
    entry.finish()
    if not values:
        raise DefinitionError(f"{where}: has no values")
    _require_unique(where, "name", [value.name for value in values])
    _require_unique(where, "bit" if is_flags else "value", [value.number for value in values])
    return Table(name, prefix, doc, is_flags, values)


# --- fields and records ------------------------------------------------------------------------------


def _find_record(entry, definition, name):
    if name not in definition.records:
        raise DefinitionError(f"{entry.where}: unknown record '{name}'")
    return definition.records[name]


def _parse_type(entry, definition):
    """Returns (kind, size, alignment, count, signed, record)."""
    text = entry.take("type", str)
    if text in SCALARS:
        size, signed = SCALARS[text]
        return text, size, size, 1, signed, None
    match = re.match(r"bytes:([1-9][0-9]*)\Z", text)
    if match:
        count = int(match.group(1))
        return "bytes", count, 1, count, False, None
    match = re.match(r"record:([a-z0-9_]+):([1-9][0-9]*)\Z", text)
    if match:
        record, count = _find_record(entry, definition, match.group(1)), int(match.group(2))
        return "record", record.size * count, record.alignment, count, False, record
    raise DefinitionError(f"{entry.where}: unknown type '{text}'")


def _parse_field_table(entry, definition, kind, size):
    enum_name, flags_name = entry.take("enum", str, None), entry.take("flags", str, None)
    name = enum_name or flags_name
    if name is None:
        return None
    if enum_name and flags_name:
        raise DefinitionError(f"{entry.where}: is either of an enum or of flags")
    table = definition.tables.get(name)
    if table is None or table.is_flags != (flags_name is not None):
        raise DefinitionError(f"{entry.where}: unknown {'flags' if flags_name else 'enum'} '{name}'")
    if kind not in SCALARS or SCALARS[kind][1]:
        raise DefinitionError(f"{entry.where}: '{name}' needs an unsigned number to be in")
    highest = max(value.number for value in table.all_values)
    if highest >= 1 << (8 * size):
        raise DefinitionError(f"{entry.where}: {highest:#x} of '{name}' does not fit into {kind}")
    return table


def _parse_example(entry, key, kind, size):
    example = entry.take(key, int, None)
    if example is not None and (kind not in SCALARS or not 0 <= example < 1 << (8 * size)):
        raise DefinitionError(f"{entry.where}: '{key}' does not fit into the field")
    return example


def _parse_field(where, data, definition, offset):
    entry = _Entry(f"{where} field", data)
    name = entry.take_name("name", LOWER_NAME)
    entry.where = f"{where} field {name}"
    c_name = entry.take_name("c_name", LOWER_NAME, name)
    _require_identifier(entry.where, c_name)
    kind, size, alignment, count, signed, record = _parse_type(entry, definition)
    if offset % alignment:
        raise DefinitionError(f"{entry.where}: offset {offset} is not a multiple of its alignment {alignment}")
    table = _parse_field_table(entry, definition, kind, size)
    is_text = entry.take("text", bool, False)
    if is_text and kind != "bytes":
        raise DefinitionError(f"{entry.where}: only bytes can be text")
    field = Field(name, c_name, entry.take_doc(), kind, offset, size, alignment, count, signed, is_text,
                  re.match(r"reserved[0-9]*\Z", name) is not None, table, record,
                  _parse_example(entry, "example", kind, size), _parse_example(entry, "example_tail", kind, size))
    entry.finish()
    return field


def _parse_fields(where, data, definition):
    """Returns the fields and the octets they take; there is no gap between two fields."""
    fields, offset = [], 0
    for item in data:
        field = _parse_field(where, item, definition, offset)
        fields.append(field)
        offset += field.size
    _require_unique(where, "field", [field.name for field in fields])
    _require_unique(where, "C name", [field.c_name for field in fields])
    return fields, offset


def _parse_record(where, entry, definition, name):
    doc = entry.take_doc()
    fields, size = _parse_fields(where, entry.take("fields", list), definition)
    entry.finish()
    if not fields:
        raise DefinitionError(f"{where}: has no fields")
    alignment = max(field.alignment for field in fields)
    if size % alignment:
        raise DefinitionError(f"{where}: its {size} octets are not a multiple of its alignment {alignment}")
    return Record(name, doc, fields, size, alignment)


# --- frames ------------------------------------------------------------------------------------------


def _parse_tail(entry, definition):
    doc = entry.take("tail", str)
    details = {key: entry.take(key, kind, None)
               for key, kind in (("tail_min", int), ("tail_max", int), ("tail_text", bool), ("tail_record", str),
                                 ("tail_one_of", list))}
    if doc == "none":
        for key, value in details.items():
            if value is not None:
                raise DefinitionError(f"{entry.where}: '{key}' without a tail")
        return Tail(False, doc, 0, 0)
    record = None
    if details["tail_record"] is not None:
        record = _find_record(entry, definition, details["tail_record"])
    one_of = [_find_record(entry, definition, name) for name in details["tail_one_of"] or []]
    tail = Tail(True, doc, details["tail_min"] or 0, details["tail_max"], bool(details["tail_text"]), record, one_of)
    bound = definition.tail_bound_default
    if not 0 <= tail.minimum <= (bound if tail.maximum is None else tail.maximum) <= bound:
        raise DefinitionError(f"{entry.where}: tail_min and tail_max must rise and be at most {bound}")
    if record is not None and (tail.is_text or tail.minimum % record.size or (tail.maximum or 0) % record.size):
        raise DefinitionError(f"{entry.where}: tail bounds must be multiples of the record's {record.size} octets")
    return tail


def _find_value(entry, definition, key, table):
    name = entry.take(key, str, None)
    if name is None:
        return None
    for value in definition.tables[table].values:
        if value.name == name:
            return value
    raise DefinitionError(f"{entry.where}: unknown {key} '{name}'")


def _parse_senders(entry):
    senders = entry.take("from", list)
    for sender in senders:
        if sender not in SENDERS:
            raise DefinitionError(f"{entry.where}: 'from' has '{sender}', must be of {', '.join(SENDERS)}")
    _require_unique(entry.where, "sender", senders)
    if not senders:
        raise DefinitionError(f"{entry.where}: nobody may send it")
    return senders


def _parse_frame(data, definition):
    entry = _Entry("frame", data)
    name = entry.take_name("name", UPPER_NAME)
    where = entry.where = f"frame {name}"
    c_name = entry.take_name("c_name", LOWER_NAME, name.lower())
    _require_identifier(where, name.lower())
    status = entry.take_choice("status", ("reserved", "retired"), None)
    fields, size = _parse_fields(where, entry.take("fields", list), definition)
    if size > definition.body_size:
        raise DefinitionError(f"{where}: body takes {size} octets, at most {definition.body_size} are there")
    frame = Frame(
        name=name, c_name=c_name, kind=entry.take_number("kind", 1, 0xFFFF),
        direction=entry.take_choice("direction", DIRECTIONS), senders=_parse_senders(entry),
        channel=entry.take_choice("channel", CHANNELS), doc=entry.take_doc(), fields=fields, size=size,
        tail=_parse_tail(entry, definition),
        priority=entry.take_choice("priority", [value.name for value in definition.tables["priority"].values], None),
        capability=_find_value(entry, definition, "capability", "capability"),
        lease=_find_value(entry, definition, "lease", "lease_class"),
        retained=entry.take("retained", bool, False), reserved=status == "reserved", retired=status == "retired",
        descriptors=entry.take("fds", bool, False), inline_budget=entry.take_number("inline_budget", 1, 64, None))
    entry.finish()
    _check_frame(where, frame)
    return frame


def _check_frame(where, frame):
    _require_unique(where, "C name", [field.c_name for field in frame.fields] + ["padding"])
    if frame.retained and frame.priority is None:
        raise DefinitionError(f"{where}: is retained and has no priority")
    if frame.lease is not None and not any(field.name == "token" and field.kind == "u64" for field in frame.fields):
        raise DefinitionError(f"{where}: needs a lease and has no token")
    if frame.inline_budget is not None:
        last = frame.fields[-1] if frame.fields else None
        if last is None or last.kind != "bytes" or last.size != frame.inline_budget:
            raise DefinitionError(f"{where}: inline_budget is not the size of its last field")


def _check_frames(definition):
    frames = definition.all_frames
    _require_unique("frames", "name", [frame.name for frame in frames])
    _require_unique("frames", "kind", [frame.kind for frame in frames])
    # Retained kinds of one endpoint must not overtake each other.
    lanes = {frame.priority for frame in frames if frame.retained}
    if len(lanes) > 1:
        raise DefinitionError(f"frames: retained kinds have several priorities: {', '.join(sorted(lanes))}")
    tags = [f"enum {table.name}" for table in definition.enums]
    tags += [f"record {record.name}" for record in definition.records.values()] + ["struct header", "struct frame"]
    tags += [f"frame {frame.c_name}" for frame in frames]
    # Structures, unions and enumerations share one name space in C.
    _require_unique("C names", "tag", [tag.split()[1] for tag in tags])


def _check_constants(definition):
    names = [f"{table.prefix}_{value.name}" for table in definition.tables.values() for value in table.all_values]
    _require_unique("C names", "constant", names)


# --- the file ----------------------------------------------------------------------------------------


def _parse_protocol(data):
    entry = _Entry("protocol", data)
    frame_size = entry.take_number("frame_size", 1, 4096)
    header_size = entry.take_number("header_size", 1, frame_size - 1)
    definition = Definition(
        version=entry.take_number("version", 1, 0xFF), frame_size=frame_size, header_size=header_size,
        body_size=frame_size - header_size, magic=entry.take_number("magic", 1, 2**64 - 1),
        tail_bound_default=entry.take_number("tail_bound_default", 1, 2**31),
        fds_per_frame=entry.take_number("fds_per_frame", 1, 253),     # SCM_MAX_FD of the kernel
        name_bound=entry.take_number("name_bound", 1, 255),
        extents_bound=entry.take_number("extents_bound", 1, 0xFFFF),
        buffer_bound=entry.take_number("buffer_bound", 4096, 2**31),
        buffers_bound=entry.take_number("buffers_bound", 1, 0xFFFF))
    entry.finish()
    return definition


def _add_kind_table(definition, data):
    """The kinds are an enumeration like the others; it is not written down twice."""
    values = []
    for item in data:
        entry = _Entry("frame", item)
        name = entry.take_name("name", UPPER_NAME)
        entry.where = f"frame {name}"
        values.append(Value(name, entry.take_number("kind", 1, 0xFFFF), entry.take_doc(), None,
                            entry.data.get("status") == "retired"))
    definition.tables["kind"] = Table("kind", "KIND", "What a frame is.", False, values)


def parse(data):
    """Makes the definition from what tomllib read; raises DefinitionError."""
    top = _Entry("definition", data)
    definition = _parse_protocol(top.take("protocol", dict))
    header, frames = top.take("header", dict), top.take("frame", list)
    tables = [_parse_table(item, False) for item in top.take("enum", list)]
    tables += [_parse_table(item, True) for item in top.take("flags", list)]
    _require_unique("definition", "enum or flags", [table.name for table in tables] + ["kind"])
    _add_kind_table(definition, frames)
    definition.tables |= {table.name: table for table in tables}
    for needed in ("direction", "priority", "lease_class", "capability"):
        if needed not in definition.tables:
            raise DefinitionError(f"definition: '{needed}' is missing")
    for item in top.take("record", list):
        entry = _Entry("record", item)
        name = entry.take_name("name", LOWER_NAME)
        entry.where = f"record {name}"
        if name in definition.records:
            raise DefinitionError(f"{entry.where}: is defined twice")
        definition.records[name] = _parse_record(entry.where, entry, definition, name)
    definition.header = _parse_record("header", _Entry("header", header), definition, "header")
    if definition.header.size != definition.header_size:
        raise DefinitionError(f"header: takes {definition.header.size} octets, must be {definition.header_size}")
    definition.all_frames = [_parse_frame(item, definition) for item in frames]
    top.finish()
    _check_frames(definition)
    _check_constants(definition)
    return definition


def load(path):
    """Reads and checks the definition; raises DefinitionError or OSError."""
    with open(path, "rb") as file:
        try:
            data = tomllib.load(file)
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise DefinitionError(str(error)) from error
    return parse(data)
