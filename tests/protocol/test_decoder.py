#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The test vectors, read by a decoder that was written by hand from the manual."""

import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
os.environ.setdefault("top_srcdir", os.path.join(HERE, os.pardir, os.pardir))
sys.path.insert(0, os.path.join(HERE, os.pardir))

import decoder  # noqa: E402
import harness  # noqa: E402
import vector_file  # noqa: E402

VECTORS = vector_file.read(os.path.join(harness.top_srcdir(), "protocol", "vectors.txt"))


def is_filler(path):
    """Fields that mean nothing; the decoder skips them."""
    return re.search(r"\.reserved[0-9]*\Z", path) is not None


def same(expected, decoded):
    """Text in a field is shorter than the field."""
    if isinstance(expected, bytes) and isinstance(decoded, bytes):
        return decoded == expected.ljust(len(decoded), b"\0")
    return expected == decoded


def check(vector):
    name, decoded = decoder.decode(vector.frame + vector.tail, vector.answer)
    assert name == vector.frame_name, (name, vector.name)
    expected = {path: value for path, value in vector.values.items() if not is_filler(path)}
    assert decoded.keys() == expected.keys(), (vector.name, decoded.keys() ^ expected.keys())
    for path, value in expected.items():
        assert same(value, decoded[path]), f"{vector.name}: {path} is {decoded[path]!r}, expected {value!r}"


@harness.test
def test_decoder_agrees_with_every_vector():
    for vector in VECTORS:
        check(vector)


@harness.test
def test_decoder_knows_exactly_the_kinds_that_have_vectors():
    assert {vector.frame_name for vector in VECTORS} == {body[0] for body in decoder.BODIES.values()}
    assert {vector.values["header.kind"] for vector in VECTORS} == decoder.BODIES.keys()


@harness.test
def test_no_two_fields_of_a_vector_can_be_mistaken():
    """Plain numbers of one frame differ, or a swap of two fields would not show."""
    for vector in VECTORS:
        wide = [value for path, value in vector.values.items()
                if isinstance(value, int) and value > 0xFFFF and not path.endswith("magic")]
        assert len(wide) == len(set(wide)), vector.name


@harness.test
def test_changed_octets_are_noticed():
    """That the comparison can fail: each octet that is not zero matters."""
    for vector in VECTORS:
        frame = vector.frame + vector.tail
        for at, octet in enumerate(frame):
            if octet == 0:
                continue
            octets = frame[:at] + bytes([octet ^ 0xFF]) + frame[at + 1:]
            changed = vector_file.Vector(vector.name, vector.values, octets)
            try:
                check(changed)
            except (AssertionError, decoder.DecodeError):
                continue
            raise AssertionError(f"{vector.name}: octet {at} may be anything")


harness.main()
