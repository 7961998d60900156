# SPDX-License-Identifier: LGPL-2.1-or-later
"""Frames as protocol/vmibus.toml defines them, for who writes and reads them by hand."""

import os
import struct
import sys
import tomllib

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

import harness

SIZE, HEADER_SIZE = 128, 64
CODES = {"u8": "B", "u16": "H", "u32": "I", "u64": "Q", "i8": "b", "i16": "h", "i32": "i", "i64": "q"}

with open(os.path.join(harness.top_srcdir(), "protocol", "vmibus.toml"), "rb") as _stream:
    _DEFINITION = tomllib.load(_stream)
_FRAMES = {entry["name"]: entry for entry in _DEFINITION["frame"]}
_NAMES = {entry["kind"]: entry["name"] for entry in _DEFINITION["frame"]}


def enumerator(enum, name):
    """The number of a name."""
    values = next(entry["values"] for entry in _DEFINITION["enum"] if entry["name"] == enum)
    return next(value["value"] for value in values if value["name"] == name)


def flag(flags, name):
    """The bit of a name, as a value."""
    values = next(entry["values"] for entry in _DEFINITION["flags"] if entry["name"] == flags)
    return 1 << next(value["bit"] for value in values if value["name"] == name)


def error_name(number):
    values = next(entry["values"] for entry in _DEFINITION["enum"] if entry["name"] == "error")
    return next((value["name"] for value in values if value["value"] == number), str(number))


def _layout(fields):
    return "<" + "".join(CODES.get(field["type"]) or field["type"].split(":")[1] + "s" for field in fields)


def _pack(fields, values):
    empty = [b"" if field["type"].startswith("bytes") else 0 for field in fields]
    known = {field["name"] for field in fields}
    assert set(values) <= known, set(values) - known
    return struct.pack(_layout(fields), *(values.get(field["name"], nothing) for field, nothing in zip(fields, empty)))


def _unpack(fields, octets):
    layout = _layout(fields)
    return dict(zip((field["name"] for field in fields), struct.unpack_from(layout, octets)))


def frame(kind, tail=b"", *, header=None, **body):
    """A frame by the name of its kind, or by its number, with its tail."""
    entry = _FRAMES.get(kind, {"fields": []})
    head = {"kind": entry.get("kind", kind), "direction": enumerator("direction", entry.get("direction", "DOWN")), "version": 1,
            "priority": enumerator("priority", "NORMAL"), "tail_length": len(tail), **(header or {})}
    octets = _pack(_DEFINITION["header"]["fields"], head) + _pack(entry["fields"], body)
    return octets.ljust(SIZE, b"\0") + tail


def parse(octets):
    """The name or number of a frame's kind, its header and its body."""
    header = _unpack(_DEFINITION["header"]["fields"], octets)
    name = _NAMES.get(header["kind"])
    scalar = name and all(field["type"] in CODES or field["type"].startswith("bytes") for field in _FRAMES[name]["fields"])
    return name or header["kind"], header, _unpack(_FRAMES[name]["fields"], octets[HEADER_SIZE:]) if scalar else {}


def hello(role="CONTROL", channel="BUS", session=b""):
    return frame("HELLO", magic=_DEFINITION["protocol"]["magic"], version_min=1, version_max=1, session=session, name=b"attacker",
                 role=enumerator("role", role), channel=enumerator("channel", channel))
