"""Protobuf wire bytes: find a field, read its floats, splice new ones in, and leave every other byte alone.

A message is never decoded as a whole. `compile_shapes` turns a table of the fields that matter into lookups once;
`scan` walks one message and notes where those fields stand; `rewrite` replaces stretches of bytes and sets right the
length prefixes of the messages around them. What the protobuf specification leaves to the reader is kept to:

- a singular message that occurs several times is the merge of its parts, so a message is read from a list of spans;
- of a singular scalar the last one counts, of a oneof the last member (and earlier parts of that same member);
- repeated floats may be packed, unpacked, or in several packed pieces, and are one list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NoReturn

import numpy as np

from .dialect import Float32, MalformedError
from .pieces import Pieces, join_pieces

Span = tuple[int, int, int, int, "Span | None", str]
"""One occurrence of a field: where its tag, its length prefix and its value start, where it ends, the message that
holds it, and its name. A field without a length prefix has prefix == start."""

Found = dict[str, list[Span]]
"""The occurrences of each wanted field of a message that are in force, by field name."""

Patch = tuple[int, int, bytes, "Span | None"]
"""Bytes start:end of the body to be replaced, by what, and the innermost message (or packed field) around them."""

Shape = dict[int, tuple[str, tuple[str, ...]]]
"""Tag -> the field's name and the other members of its oneof."""

CLEARED = ""  # the key in Found of occurrences that a later member of their oneof put out of force
_LITTLE_FLOAT = np.dtype("<f4")
_WIRE_TYPES = {
    **dict.fromkeys(("uint", "bool", "enum"), (0,)),
    "uints": (2, 0),
    "float": (5,),
    "floats": (2, 5),
    "doubles": (2, 1),
    "string": (2,),
}
_LENGTH_DELIMITED = (2,)  # of every other kind: the name of a message
_LAST_TAG = (1 << 32) - 1


def compile_shapes(table: Mapping[str, str]) -> dict[str, Shape]:
    """Make lookups of a table "Message": "field=number:kind[|oneof] ...".

    A kind is uint, uints, bool, enum, float, floats, doubles, string, or the name of a message.
    """
    return {message: _compile_shape(fields.split()) for message, fields in table.items()}


def _compile_shape(fields: Sequence[str]) -> Shape:
    shape: Shape = {}
    members: dict[str, list[str]] = {}
    parsed = [(name, *rest.partition("|")[::2]) for name, _, rest in (field.partition("=") for field in fields)]
    for name, _, oneof in parsed:
        members.setdefault(oneof, []).append(name)
    for name, number_kind, oneof in parsed:
        number, _, kind = number_kind.partition(":")
        rivals = tuple(member for member in members[oneof] if member != name) if oneof else ()
        for wire_type in _WIRE_TYPES.get(kind, _LENGTH_DELIMITED):
            shape[int(number) << 3 | wire_type] = (name, rivals)
    return shape


def root_span(body: bytes, name: str) -> Span:
    """The whole of a message, to start from."""
    return (0, 0, 0, len(body), None, name)


def scan(body: bytes, spans: Sequence[Span], shape: Shape) -> Found:
    """Find the fields of `shape` in the message that stands in `spans` (its parts, in order).

    Raises MalformedError where the bytes are not a protobuf message. A known field with a wire type that is not its
    own counts as unknown, and unknown fields are passed over. One long function, since it is the hot loop.
    """
    found: Found = {}
    wanted = shape.get
    at = tag = 0
    for span in spans:
        at, end = span[2], span[3]
        try:
            while at < end:
                tag = at
                key = body[at]
                at += 1
                if key > 127:
                    key, at = _read_varint(body, tag)
                wire_type = key & 7
                start = prefix = at
                if wire_type == 2:
                    size = body[at]
                    at += 1
                    if size > 127:
                        high = body[at]
                        at += 1
                        if high > 127:
                            size, at = _read_varint(body, prefix)
                        else:
                            size += (high << 7) - 128
                    start = at
                    at += size
                elif wire_type == 0:
                    if body[at] > 127:
                        _, at = _read_varint(body, at)
                    else:
                        at += 1
                elif wire_type == 5:
                    at += 4
                elif wire_type == 1:
                    at += 8
                elif wire_type == 3:
                    at = _skip_group(body, at, end, key >> 3)
                else:
                    _refuse(span, tag, f"wire type {wire_type} does not exist")
                field = wanted(key)
                if field is not None:
                    name, rivals = field
                    if rivals:
                        _clear(found, rivals)
                    if name in found:
                        found[name].append((tag, prefix, start, at, span, name))
                    else:
                        found[name] = [(tag, prefix, start, at, span, name)]
                elif key < 8 or key > _LAST_TAG:
                    _refuse(span, tag, f"field number {key >> 3} is not allowed")
        except IndexError:
            _refuse(span, tag, f"the field is cut off by the end of the body at byte {len(body)}")
        except _VarintError as error:
            _refuse(span, tag, str(error))
        if at != end:
            _refuse(span, tag, f"the field ends at byte {at}, past the end of its message at byte {end}")
    return found


def _clear(found: Found, rivals: Sequence[str]) -> None:
    for rival in rivals:
        if rival in found:
            found.setdefault(CLEARED, []).extend(found.pop(rival))


class _VarintError(ValueError):
    pass


def _read_varint(body: bytes, at: int) -> tuple[int, int]:
    """The number at `at` and where the next thing starts; IndexError at the end of the body."""
    value = shift = 0
    while True:
        byte = body[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise _VarintError("a varint is longer than 10 bytes")


def _skip_group(body: bytes, at: int, end: int, number: int) -> int:
    """Where the (long deprecated, still legal) group with this number ends."""
    open_groups = [number]
    while open_groups:
        if at >= end:
            raise IndexError
        key, at = _read_varint(body, at)
        wire_type = key & 7
        if wire_type == 4:
            if open_groups.pop() != key >> 3:
                raise _VarintError(f"a group is closed by field {key >> 3}, which did not open it")
        elif wire_type == 3:
            open_groups.append(key >> 3)
        elif wire_type == 0:
            _, at = _read_varint(body, at)
        elif wire_type == 2:
            size, at = _read_varint(body, at)
            at += size
        elif wire_type in (1, 5):
            at += 8 if wire_type == 1 else 4
        else:
            raise _VarintError(f"wire type {wire_type} does not exist")
    return at


def _refuse(span: Span, at: int, reason: str) -> NoReturn:
    raise MalformedError(f"{path_of(span)}: not a valid protobuf message at byte {at}: {reason}")


def path_of(span: Span) -> str:
    """The dotted path of a field, from the message at the root."""
    names = []
    step: Span | None = span
    while step is not None:
        names.append(step[5])
        step = step[4]
    return ".".join(reversed(names))


def read_text(body: bytes, found: Found, name: str) -> str:
    """A singular string field ("" when absent). Raises MalformedError when it is not UTF-8."""
    spans = found.get(name)
    if spans is None:
        return ""
    span = spans[-1]
    try:
        return body[span[2] : span[3]].decode()
    except UnicodeDecodeError as error:
        _refuse(span, span[2] + error.start, "the string is not UTF-8")


def read_uint(body: bytes, found: Found, name: str) -> int | None:
    """A singular varint field, or None when it is absent."""
    spans = found.get(name)
    return None if spans is None else _read_varint(body, spans[-1][2])[0]


def read_ints(body: bytes, spans: Sequence[Span]) -> list[int]:
    """A repeated int64 field. Raises MalformedError where a packed piece ends within a number."""
    numbers = []
    for span in spans:
        at, end = span[2], span[3]
        while at < end:
            number, at = _read_varint(body, at)
            numbers.append(number - (1 << 64) if number >> 63 else number)
        if at != end:
            _refuse(span, span[2], "it ends within a number")
    return numbers


def read_float(body: bytes, span: Span) -> float:
    """A fixed32 field."""
    return float(np.frombuffer(body, _LITTLE_FLOAT, 1, span[2])[0])


def read_floats(body: bytes, spans: Sequence[Span]) -> Float32:
    """A repeated float field, (n,): a view into the body when it stands there in one packed piece."""
    if len(spans) == 1:
        _, _, start, end, _, _ = span = spans[0]
        if end - start & 3:
            _refuse(span, start, f"{end - start} bytes are no whole number of floats")
        return np.frombuffer(body, _LITTLE_FLOAT, end - start >> 2, start)
    for span in spans:
        if span[3] - span[2] & 3:
            _refuse(span, span[2], f"{span[3] - span[2]} bytes are no whole number of floats")
    return np.frombuffer(b"".join([body[span[2] : span[3]] for span in spans]), _LITTLE_FLOAT)


def float_bytes(rows: Float32) -> bytes:
    """Floats of any shape as they stand on the wire."""
    return np.ascontiguousarray(rows, dtype=_LITTLE_FLOAT).tobytes()


def patch_floats(body: bytes, spans: Sequence[Span], data: bytes) -> list[Patch]:
    """Patches that make `data` (little-endian floats) the value of the repeated float field in `spans`, packed."""
    first = spans[0]
    if len(spans) == 1 and first[1] != first[2]:
        return [(first[2], first[3], data, first)]
    if b"".join([body[span[2] : span[3]] for span in spans]) == data:
        return []
    number = _read_varint(body, first[0])[0] >> 3
    removed: list[Patch] = [(span[0], span[3], b"", span[4]) for span in spans[1:]]
    return [(first[0], first[3], encode_field(number, data), first[4]), *removed]


def encode_field(number: int, value: bytes) -> bytes:
    """A length-delimited field."""
    return encode_varint(number << 3 | 2) + encode_varint(len(value)) + value


def encode_varint(value: int) -> bytes:
    """A number as a minimal varint."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def rewrite(body: bytes, patches: Sequence[Patch]) -> bytes:
    """The body with the patches applied and the length prefixes around them set right; linear in the body.

    Patches must not overlap. A prefix whose length does not change keeps its bytes, however they were written.
    """
    return join_pieces(splice(body, patches))


def splice(body: bytes, patches: Sequence[Patch]) -> Pieces:
    """The pieces of that body."""
    if not patches:
        return (body,)
    if len(patches) == 1:
        start, end, new, _ = patches[0]
        if len(new) == end - start:
            return body[:start], new, body[end:]
    stretches = [(start, end, new) for start, end, new, _ in patches]
    stretches += _correct_prefixes(patches)
    stretches.sort(key=_start_of)
    view = memoryview(body)
    pieces: list[bytes | memoryview] = []
    at = 0
    for start, end, new in stretches:
        pieces.append(view[at:start])
        pieces.append(new)
        at = end
    pieces.append(view[at:])
    return pieces


def _start_of(stretch: tuple[int, int, bytes]) -> int:
    return stretch[0]


def _correct_prefixes(patches: Sequence[Patch]) -> list[tuple[int, int, bytes]]:
    """New length prefixes of all messages that grow or shrink, innermost first."""
    growth: dict[int, int] = {}  # by where the prefix stands, which names a span
    around: dict[int, Span] = {}
    for start, end, new, span in patches:
        change = len(new) - (end - start)
        if change == 0 or span is None:
            continue
        growth[span[1]] = growth.get(span[1], 0) + change
        step: Span | None = span
        while step is not None and step[4] is not None and step[1] not in around:
            around[step[1]] = step
            step = step[4]
    stretches = []
    for prefix in sorted(around, reverse=True):  # what is inside stands behind its own prefix
        _, _, start, end, parent, _ = around[prefix]
        change = growth.get(prefix, 0)
        if change:
            new = encode_varint(end - start + change)
            stretches.append((prefix, start, new))
            if parent is not None:
                growth[parent[1]] = growth.get(parent[1], 0) + change + len(new) - (start - prefix)
    return stretches
