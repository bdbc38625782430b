"""The same protobuf message in bytes that no encoder would write, and every reader must accept."""

from __future__ import annotations

import random
import struct
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from crossfade.backends.wire import encode_varint

_VARINTS = (
    FieldDescriptor.TYPE_UINT32,
    FieldDescriptor.TYPE_UINT64,
    FieldDescriptor.TYPE_INT32,
    FieldDescriptor.TYPE_INT64,
    FieldDescriptor.TYPE_BOOL,
    FieldDescriptor.TYPE_ENUM,
)
_UNKNOWN = (b"\xf8\x7d\x96\x01", b"\x82\x7e\x03abc", b"\x8d\x7e\x00\x00\x80\x3f", b"\x83\x7e\x08\x05\x84\x7e")


def scramble(message: Any, rng: random.Random) -> bytes:
    """Fields in any order, in several parts, behind values that do not count, with long lengths and unpacked floats.

    Unknown fields that the message already holds are not kept.
    """
    parts: list[list[bytes]] = [_scramble_field(one, value, rng) for one, value in message.ListFields()]
    parts += [[unknown] for unknown in _UNKNOWN if rng.random() < 0.2]
    out = b""
    while parts:  # occurrences of one field keep their order
        part = rng.choice(parts)
        out += part.pop(0)
        parts = [part for part in parts if part]
    return out


def _scramble_field(one: FieldDescriptor, value: Any, rng: random.Random) -> list[bytes]:
    if one.message_type is not None and one.message_type.GetOptions().map_entry:
        return _scramble_map(one, value, rng)
    if one.is_repeated:
        if one.type == FieldDescriptor.TYPE_FLOAT:
            return _scramble_floats(one.number, list(value), rng)
        if one.is_packed:
            return [_delimit(one.number, b"".join(_scalar(one, item) for item in value), rng)]
        return [_encode(one, item, rng) for item in value]
    if one.message_type is not None and one.containing_oneof is None and rng.random() < 0.3:
        return _split_message(one, value, rng)
    decoys = []
    if one.type == FieldDescriptor.TYPE_STRING and one.containing_oneof is None and rng.random() < 0.3:
        decoys = [_delimit(one.number, b"overwritten", rng)]
    if one.containing_oneof is not None and rng.random() < 0.3:
        decoys = [_decoy_member(one, rng)]
    return [*decoys, _encode(one, value, rng)]


def _decoy_member(one: FieldDescriptor, rng: random.Random) -> bytes:
    """Another member of the oneof (an empty or zero one), which the member behind it puts out of force."""
    assert one.containing_oneof is not None
    others = [other for other in one.containing_oneof.fields if other.number != one.number]
    if not others:
        return b""
    other = rng.choice(others)
    if other.type in _VARINTS:
        return _tag(other.number, 0, rng) + b"\x01"
    if other.type in (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE):
        return b""
    return _delimit(other.number, b"", rng)


def _split_message(one: FieldDescriptor, value: Any, rng: random.Random) -> list[bytes]:
    """A singular message in two parts, which a reader merges."""
    first, second = type(value)(), type(value)()
    first.CopyFrom(value)
    second.CopyFrom(value)
    for below, _ in value.ListFields():
        (first if rng.random() < 0.5 else second).ClearField(below.name)
    return [_encode(one, first, rng), _encode(one, second, rng)]


def _scramble_floats(number: int, floats: list[float], rng: random.Random) -> list[bytes]:
    out = []
    while floats:
        if rng.random() < 0.3:
            out.append(_tag(number, 5, rng) + struct.pack("<f", floats.pop(0)))
        else:
            size = rng.randint(1, len(floats)) if rng.random() < 0.5 else len(floats)
            out.append(_delimit(number, struct.pack(f"<{size}f", *floats[:size]), rng))
            floats = floats[size:]
    return out


def _scramble_map(one: FieldDescriptor, value: Any, rng: random.Random) -> list[bytes]:
    assert one.message_type is not None
    key_field, value_field = one.message_type.fields_by_name["key"], one.message_type.fields_by_name["value"]
    out = []
    for key in value:
        encoded_key = _encode(key_field, key, rng)
        if rng.random() < 0.3:
            out.append(_delimit(one.number, encoded_key, rng))  # an entry which the next one replaces
        pair = [encoded_key, _encode(value_field, value[key], rng)]
        rng.shuffle(pair)
        out.append(_delimit(one.number, b"".join(pair), rng))
    return out


def _encode(one: FieldDescriptor, value: Any, rng: random.Random) -> bytes:
    if one.message_type is not None:
        return _delimit(one.number, scramble(value, rng), rng)
    if one.type == FieldDescriptor.TYPE_STRING:
        return _delimit(one.number, value.encode(), rng)
    if one.type == FieldDescriptor.TYPE_BYTES:
        return _delimit(one.number, value, rng)
    wire_type = {FieldDescriptor.TYPE_FLOAT: 5, FieldDescriptor.TYPE_DOUBLE: 1}.get(one.type, 0)
    return _tag(one.number, wire_type, rng) + _scalar(one, value)


def _scalar(one: FieldDescriptor, value: Any) -> bytes:
    if one.type == FieldDescriptor.TYPE_FLOAT:
        return struct.pack("<f", value)
    if one.type == FieldDescriptor.TYPE_DOUBLE:
        return struct.pack("<d", value)
    assert one.type in _VARINTS, one.full_name
    return encode_varint(int(value) % (1 << 64))


def _delimit(number: int, value: bytes, rng: random.Random) -> bytes:
    return _tag(number, 2, rng) + _long_varint(len(value), rng, 5) + value


def _tag(number: int, wire_type: int, rng: random.Random) -> bytes:
    return _long_varint(number << 3 | wire_type, rng, 5)


def _long_varint(value: int, rng: random.Random, limit: int) -> bytes:
    """A varint that may be longer than it needs to be."""
    out = bytearray(encode_varint(value))
    if rng.random() < 0.2:
        out[-1] |= 128
        out += b"\x80" * rng.randint(0, limit - len(out) - 1) + b"\x00"
    return bytes(out)
