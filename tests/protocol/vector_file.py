# SPDX-License-Identifier: LGPL-2.1-or-later
"""Reads protocol/vectors.txt; its head says how it is written."""

import re
from dataclasses import dataclass, field


@dataclass
class Vector:
    """One vector: values by their path (numbers or octets), and what they are on the wire."""
    name: str
    values: dict = field(default_factory=dict)
    frame: bytes = b""
    tail: bytes = b""

    @property
    def frame_name(self):
        return self.name.partition("+")[0]

    @property
    def answer(self):
        """The record that the tail of an ACK is made of, or None."""
        suffix = self.name.partition("+")[2]
        return suffix if suffix not in ("", "tail") else None


def parse_value(text):
    """A number, or octets; text is octets too."""
    if text.startswith("octets "):
        return bytes.fromhex(text.removeprefix("octets "))
    if text.startswith('"'):
        return text[1:-1].encode("ascii")
    return int(text.split()[0], 0)


def read(path):
    """Returns all vectors of a file."""
    vectors = []
    with open(path, encoding="ascii") as file:
        for number, line in enumerate(file, 1):
            line = line.rstrip("\n")
            if not line or line.startswith("#"):
                continue
            if line.startswith("vector "):
                vectors.append(Vector(line.removeprefix("vector ")))
                continue
            match = re.match(r"([a-z0-9_.-]+) = (.+)\Z", line)
            if not match or not vectors:
                raise ValueError(f"{path}:{number}: not understood: {line}")
            key, text = match.groups()
            if key == "frame":
                vectors[-1].frame += bytes.fromhex(text)
            elif key == "tail-octets":
                vectors[-1].tail += bytes.fromhex(text)
            elif key in vectors[-1].values:
                raise ValueError(f"{path}:{number}: {key} is there twice")
            else:
                vectors[-1].values[key] = parse_value(text)
    return vectors
