# SPDX-License-Identifier: LGPL-2.1-or-later
"""A second reader of the wire, written by hand from the tables of vmibus-protocol(7).

It knows nothing of the definition or of what is generated from it: where both agree on a frame, octet by octet,
the manual says what the programs do.  One line per structure: a format of the struct module, little-endian and
without any alignment, and the names of its fields in order.  Fields that only fill up are skipped by the format (x).
"""

import struct

FRAME_SIZE = 128
HEADER_SIZE = 64

HEADER = ("<HBBHBBIIIIQQQQQ",
          "kind direction priority source version fd_count flags tail_length slot deadline_us generation publication "
          "delivery correlation timestamp")

RECORDS = {
    "ram_range": ("<QQQHH4x", "gpa len offset object flags"),
    "layout_range": ("<QQQHH4x", "gpa len location object flags"),
    "input_event": ("<HHi", "type code value"),
    "counter_value": ("<I4xQ", "counter value"),
    "sensor_info": ("<HBxII4x32s", "source state groups endpoints name"),
    "extent_result": ("<QQIHHB7x", "gpa value written error reason level"),
    "limit_use": ("<HBxIQQ", "limit total uid used bound"),
    "memory_holder": ("<QQIII4x", "epoch overdue uid pid descriptors"),
    "rule_info": ("<IIIIQQIBB2x56s128s128s",
                  "capabilities rank lease_ttl_ms id write_size write_rate line subject match name endpoints source"),
    "latency": ("<H6xQQ24Q", "command count sum " + " ".join(f"buckets.{i}.count" for i in range(24))),
    "vcpu_registers": ("<IBBH27Q8x",
                       "vcpu halted cpl cs rax rbx rcx rdx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15 rip rflags "
                       "cr0 cr2 cr3 cr4 efer fs_base gs_base gdt_base idt_base"),
}

# kind: name, format and fields of the body, what the tail is.
BODIES = {
    0x0001: ("HELLO", "<QHHBB2xQ16s24s", "magic version_min version_max role channel features session name", None),
    0x0002: ("WELCOME", "<QQ16sIIIIIHBB",
             "magic features session incarnation tail_bound queue_depth commands endpoints version memory "
             "fds_per_frame",
             "octets"),
    0x0101: ("ROSTER", "<B3xIQ16sI8H", "change pid start_time uuid groups reason lifecycle_source power_source input_source "
             "memory_source screen_source registers_source watch_source", "octets"),
    0x0102: ("LIFECYCLE", "<BBH", "state cause flags", None),
    0x0103: ("MEMCTX", "<QQQQQIHHHBBBB",
             "epoch cr3 ram_size note vcpu_cr3 evidence reason range_count object_count levels state confidence access",
             "ram_range"),
    0x0104: ("MEMCTX_INVALIDATED", "<QH", "epoch reason", None),
    0x0105: ("LEASE", "<QQBBHIIII", "token expires class state reason holder_uid holder_pid rank waiters", None),
    0x0106: ("ACK", "<HHHBxQQQQQQQ", "error reason command level value count token epoch received started finished",
             "octets"),
    0x0107: ("GAP", "<H2xI", "dropped count", None),
    0x0108: ("SENSOR", "<B3xI32s", "state groups name", "octets"),
    0x0109: ("ERROR", "<HHHBxQQ", "error reason offender closing value bound", None),
    0x010A: ("RESOURCES", "<QqQIiI4x", "resident resident_unaccounted cpu fds fds_unaccounted pid", None),
    0x010B: ("PROCESS", "<QQQQIIIB3x16s", "epoch cr3 task start_time pid ppid uid change comm", None),
    0x010C: ("MODULE", "<QQQQB", "epoch base module size change", "octets"),
    0x010D: ("WATCH_CHANGED", "<QQIIII", "epoch address len watch looks flags", "octets"),
    0x0201: ("SUBSCRIBE", "<Q", "kinds", "octets"),
    0x0202: ("CMD_LEASE", "<QIBBBx", "token ttl_ms operation class mode", None),
    0x0203: ("CMD_INPUT", "<QIH2x" + 6 * "HHi",
             "token not_before_us count " + " ".join(f"events.{index}.{name}" for index in range(6)
                                                     for name in ("type", "code", "value")), "input_event"),
    0x0204: ("CMD_POWER", "<QB", "token operation", None),
    0x0205: ("CMD_VM", "<QB", "token operation", None),
    0x0206: ("QUERY", "<B", "query", None),
    0x0207: ("WATCH", "<QQQIIIIB", "cr3 address epoch len interval_ms watch flags operation", None),
    0x0208: ("SCREENSHOT", "<IB", "head format", None),
    0x0209: ("REGISTERS", "<I", "vcpu", None),
    0x020a: ("CMD_MONITOR", "<32sB", "sensor operation", "octets"),
    0x020b: ("EXPLAIN", "<16sIH2x", "uuid uid group_count", "octets"),
    0x0301: ("CMD_MEMWRITE", "<QQIIQQ24s", "cr3 gva len flags token epoch data", "octets"),
    0x0302: ("MEM_ATTACH", "<Q", "epoch", None),
    0x0303: ("MEM_RELEASE", "<Q", "epoch", None),
    0x0304: ("MEM_READ", "<QQQQIII4x", "cr3 gva epoch offset len buffer flags", None),
    0x0305: ("BUFFER", "<QIB3x", "size buffer operation", None),
    0x0306: ("MEM_QUERY", "<B", "query", None),
    0x0401: ("SENSOR_ANNOUNCE", "<BB2xII32s", "state flags groups fallback name", "octets"),
    0x0402: ("ENDPOINT_OFFER", "<16sQII", "uuid start_time pid groups", "octets"),
    0x0403: ("ENDPOINT_WITHDRAW", "<H", "reason", None),
    0x0411: ("MEM_LAYOUT", "<QIH2x", "start_time pid range_count", "layout_range"),
    0x0412: ("MEM_ROOT", "<QQQQQIHBB", "epoch cr3 note vcpu_cr3 probe_gva note_len reason levels confidence", None),
    0x0413: ("MEM_END", "<QH", "epoch reason", None),
    0x0414: ("MEM_BUSY", "<BxH", "busy reason", None),
    0x0415: ("MEM_IDENTITY", "<16sQI", "uuid start_time pid", "octets"),
    0x0421: ("CANCEL", "<", "", None),
    0x0422: ("DEMAND", "<Q", "kinds", None),
    0x0423: ("INPUT_RELEASE", "<", "", None),
    0x0424: ("MEM_RETIRED", "<Q", "epoch", None),
    0x0427: ("ACTIVE", "<I", "groups", None),
    0x0501: ("ENDPOINT_OPENED", "<16s", "uuid", "octets"),
    0x0502: ("ENDPOINT_CLOSED", "<H", "reason", None),
    0x0503: ("FENCE_ISSUE", "<16sQQI", "session token expires uid", None),
    0x0504: ("FENCE_REVOKE", "<Q", "token", None),
    0x0505: ("FENCE_DRAINED", "<Q", "token", None),
    0x0506: ("SESSION_CLOSED", "<16s", "session", None),
    0x0507: ("QUIESCE_BEGIN", "<", "", None),
    0x0508: ("QUIESCE_STATE", "<HH", "error reason", None),
    0x0509: ("QUIESCE_END", "<", "", None),
    0x050a: ("SESSION_OPENED", "<16sIIB", "session uid pid role", None),
    0x050b: ("SESSION_LOST", "<16s", "session", None),
    0x050c: ("LINK_SYNCED", "<", "", None),
    0x0510: ("MEMORY_PROVIDER", "<16s", "session", None),
    0x0511: ("NUMBERS_TAKEN", "<I", "incarnation", None),
}


class DecodeError(Exception):
    """The octets are no frame."""


def unpack(prefix, layout, names, octets):
    """Reads one structure; returns values by their path."""
    values = struct.unpack_from(layout, octets)
    names = names.split()
    assert len(values) == len(names), (prefix, names)
    return {f"{prefix}.{name}": value for name, value in zip(names, values)}


def decode_tail(content, octets):
    """Reads a tail; returns values by their path."""
    if content == "octets":
        return {"tail": octets}
    layout, names = RECORDS[content]
    size = struct.calcsize(layout)
    if len(octets) % size:
        raise DecodeError(f"tail of {len(octets)} octets is no array of {content}")
    values = {}
    for at in range(0, len(octets), size):
        values |= unpack(f"tail.{at // size}", layout, names, octets[at:at + size])
    return values


def decode(octets, answer=None):
    """Reads a frame with its tail; returns the kind's name and the values of all fields by their path.

    What the tail of an ACK is made of, depends on the command; answer says it.
    """
    if len(octets) < FRAME_SIZE:
        raise DecodeError(f"{len(octets)} octets are no frame")
    values = unpack("header", *HEADER, octets)
    if values["header.tail_length"] != len(octets) - FRAME_SIZE:
        raise DecodeError("the tail is not as long as the header says")
    if values["header.kind"] not in BODIES:
        raise DecodeError(f"unknown kind {values['header.kind']:#06x}")
    name, layout, names, tail = BODIES[values["header.kind"]]
    used = struct.calcsize(layout)
    if any(octets[HEADER_SIZE + used:FRAME_SIZE]):
        raise DecodeError(f"{name}: padding is not zero")
    values |= unpack("body", layout, names, octets[HEADER_SIZE:FRAME_SIZE])
    if len(octets) > FRAME_SIZE:
        if tail is None:
            raise DecodeError(f"{name}: has no tail")
        values |= decode_tail(answer or tail, octets[FRAME_SIZE:])
    return name, values
