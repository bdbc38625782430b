"""Wire bytes found and spliced, with the protobuf runtime as oracle where there is one."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import qdrant_client.grpc as grpc
from hypothesis import given
from hypothesis import strategies as st

from crossfade.backends.dialect import MalformedError
from crossfade.backends.wire import (
    Patch,
    Span,
    compile_shapes,
    encode_field,
    encode_varint,
    float_bytes,
    patch_floats,
    read_floats,
    read_text,
    read_uint,
    rewrite,
    root_span,
    scan,
)

SHAPES = compile_shapes(
    {
        "DenseVector": "data=1:floats",
        "Outer": "name=1:string inner=2:Inner count=3:uint",
        "Inner": "inner=2:Inner name=1:string",
        "Choice": "a=1:string|one b=2:uint|one c=3:string|one",
    }
)
FLOATS = st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=300)


def scan_root(body: bytes, message: str) -> dict[str, list[Span]]:
    return scan(body, (root_span(body, message),), SHAPES[message])


@given(st.integers(0, 2**64 - 1))
def test_a_varint_is_written_as_the_runtime_writes_it(value: int) -> None:
    assert grpc.GetPoints(timeout=value).SerializeToString() == b"\x40" + encode_varint(value)
    body = b"\x18" + encode_varint(value)
    assert read_uint(body, scan_root(body, "Outer"), "count") == value


@given(FLOATS)
def test_packed_floats_are_a_view_into_the_body(floats: list[float]) -> None:
    body = grpc.DenseVector(data=floats).SerializeToString()
    spans = scan_root(body, "DenseVector")["data"]
    rows = read_floats(body, spans)
    np.testing.assert_array_equal(rows, np.array(floats, np.float32))
    assert np.shares_memory(rows, np.frombuffer(body, np.uint8))
    assert not rows.flags.writeable


@given(FLOATS, FLOATS)
def test_floats_are_replaced_by_floats_of_any_number(old: list[float], new: list[float]) -> None:
    body = grpc.DenseVector(data=old).SerializeToString()
    data = float_bytes(np.array(new, np.float32))
    edited = rewrite(body, patch_floats(body, scan_root(body, "DenseVector")["data"], data))
    assert list(grpc.DenseVector.FromString(edited).data) == new


def test_unpacked_and_split_floats_are_one_list_and_written_packed() -> None:
    body = b"\x0d" + struct.pack("<f", 1) + encode_field(1, struct.pack("<2f", 2, 3)) + b"\x0d" + struct.pack("<f", 4)
    spans = scan_root(body, "DenseVector")["data"]
    assert read_floats(body, spans).tolist() == [1, 2, 3, 4]
    same = float_bytes(np.array([1, 2, 3, 4], np.float32))
    assert rewrite(body, patch_floats(body, spans, same)) == body
    other = float_bytes(np.array([9, 8], np.float32))
    assert rewrite(body, patch_floats(body, spans, other)) == grpc.DenseVector(data=[9, 8]).SerializeToString()


def test_a_float_field_of_a_high_number_keeps_its_tag() -> None:
    shapes = compile_shapes({"Far": "data=5000:floats"})
    one = encode_varint(5000 << 3 | 5) + struct.pack("<f", 1)
    body = one + one
    spans = scan(body, (root_span(body, "Far"),), shapes["Far"])["data"]
    edited = rewrite(body, patch_floats(body, spans, struct.pack("<f", 2)))
    assert edited == encode_field(5000, struct.pack("<f", 2))


@given(st.lists(st.integers(0, 400), min_size=1, max_size=6), st.integers(0, 20_000))
def test_every_length_around_a_change_is_corrected(padding: list[int], size: int) -> None:
    def nest(value: bytes) -> bytes:
        for amount in padding:
            value = encode_field(2, value + encode_field(9, bytes(amount)))
        return value

    name = encode_field(1, b"x")
    body = nest(name)
    spans = (root_span(body, "Inner"),)
    for _ in padding:
        spans = (scan(body, spans, SHAPES["Inner"])["inner"][0],)
    _, _, start, end, _, _ = span = scan(body, spans, SHAPES["Inner"])["name"][0]
    patch: Patch = (start, end, bytes(size), span)
    assert rewrite(body, [patch]) == nest(encode_field(1, bytes(size)))


def test_a_length_that_does_not_change_keeps_its_long_form() -> None:
    body = b"\x12\x85\x80\x00" + encode_field(1, b"abc")
    (inner,) = scan_root(body, "Outer")["inner"]
    _, _, start, end, _, _ = span = scan(body, (inner,), SHAPES["Inner"])["name"][0]
    assert rewrite(body, [(start, end, b"xyz", span)]) == body.replace(b"abc", b"xyz")
    removed: Patch = (end, end, b"", span)
    assert rewrite(body, [(start, end, b"xyz", span), removed]) == body.replace(b"abc", b"xyz")


def test_of_a_scalar_the_last_counts_and_of_a_message_all_parts() -> None:
    body = encode_field(1, b"a") + encode_field(2, encode_field(1, b"x")) + encode_field(1, b"b")
    body += encode_field(2, encode_field(2, b""))
    found = scan_root(body, "Outer")
    assert read_text(body, found, "name") == "b"
    inner = scan(body, found["inner"], SHAPES["Inner"])
    assert read_text(body, inner, "name") == "x"
    assert "inner" in inner
    assert read_text(body, found, "absent") == ""
    assert read_uint(body, found, "count") is None


def test_of_a_oneof_the_last_member_counts() -> None:
    body = encode_field(1, b"a") + b"\x10\x05" + encode_field(3, b"c")
    assert {name for name in scan_root(body, "Choice") if name} == {"c"}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"\x0a", r"^Outer: .* at byte 0: the field is cut off by the end of the body at byte 1$"),
        (b"\x18\x01\x0a\x05ab", r"^Outer: .* at byte 2: the field ends at byte 9, past the end .* at byte 6$"),
        (b"\x12\x03\x0a\x05ab", r"^Outer: .* at byte 5: the field is cut off by the end of the body at byte 6$"),
        (b"\x12\x02\x0a\x05\x0a\x03abc", r"^Outer.inner: .* at byte 2: the field ends at byte 9, past .* at byte 4$"),
        (b"\x00\x01", r"at byte 0: field number 0 is not allowed"),
        (b"\x0e", r"at byte 0: wire type 6 does not exist"),
        (b"\x0c", r"at byte 0: wire type 4 does not exist"),
        (b"\x18" + b"\xff" * 10 + b"\x01", r"at byte 0: a varint is longer than 10 bytes"),
        (b"\x25\x00\x00", r"at byte 0: the field ends at byte 5, past the end of its message at byte 3"),
        (b"\x0a\x02\xc3\x28", r"^Outer.name: .* at byte 2: the string is not UTF-8$"),
        (b"\x23\x2c", r"at byte 0: a group is closed by field 5, which did not open it"),
        (b"\x23\x08", r"at byte 0: the field is cut off"),
        (b"\x23\x26", r"at byte 0: wire type 6 does not exist"),
    ],
)
def test_broken_bytes_are_refused_with_path_and_offset(body: bytes, message: str) -> None:
    def read() -> None:
        found = scan_root(body, "Outer")
        read_text(body, found, "name")
        for span in found.get("inner", ()):
            scan(body, (span,), SHAPES["Inner"])

    with pytest.raises(MalformedError, match=message):
        read()


def test_floats_that_are_not_whole_are_refused() -> None:
    body = encode_field(1, b"12345")
    with pytest.raises(MalformedError, match=r"^DenseVector.data: .* at byte 2: 5 bytes are no whole number of floats"):
        read_floats(body, scan_root(body, "DenseVector")["data"])
    split = encode_field(1, b"1234") + body
    with pytest.raises(MalformedError, match=r"at byte 8: 5 bytes are no whole number of floats"):
        read_floats(split, scan_root(split, "DenseVector")["data"])


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused_and_what_the_runtime_reads_is_read(body: bytes) -> None:
    try:
        oracle = grpc.DenseVector.FromString(body)
    except Exception:  # the runtime's DecodeError, whose class differs between its implementations
        oracle = None
    try:
        floats = read_floats(body, scan_root(body, "DenseVector").get("data", ()))
    except MalformedError:
        assert oracle is None
    else:
        if oracle is not None:
            np.testing.assert_array_equal(floats, np.array(oracle.data, np.float32))


def test_groups_are_passed_over() -> None:
    group = b"\x23\x08\x01\x12\x01a\x1d0000\x2101234567\x2b\x2c\x24"
    body = group + encode_field(1, b"name")
    assert read_text(body, scan_root(body, "Outer"), "name") == "name"
