"""Message bytes out of HTTP bodies and back."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.backends.pieces import LARGE, Chunks, join_pieces, regroup, take_first, take_from
from crossfade.proxy.errors import BodyTooLarge, MalformedRequest
from crossfade.proxy.framing import frame, inflate, pack_pieces, unframe

LIMIT = 1 << 22


@given(st.binary(max_size=3000))
def test_a_framed_message_is_read_back(message: bytes) -> None:
    assert unframe(frame(message), None, "Search", LIMIT) == message
    assert frame(message)[:5] == b"\0" + len(message).to_bytes(4, "big")


@given(st.binary(max_size=3000), st.sampled_from(["gzip", "deflate"]))
def test_a_compressed_message_is_read(message: bytes, encoding: str) -> None:
    packed = gzip.compress(message, mtime=0) if encoding == "gzip" else zlib.compress(message)
    framed = b"\1" + len(packed).to_bytes(4, "big") + packed
    assert unframe(framed, encoding, "Search", LIMIT) == message
    assert inflate(packed, encoding, "Search", LIMIT) == message


def test_an_uncompressed_frame_is_read_as_it_is_whatever_the_header_says() -> None:
    assert unframe(frame(b"plain"), "gzip", "Search", LIMIT) == b"plain"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "a gRPC frame has at least 5 bytes, the body has 0"),
        (b"\0\0\0\0", "a gRPC frame has at least 5 bytes, the body has 4"),
        (frame(b"abc")[:-1], "the gRPC frame says 3 bytes, the body has 2 after its prefix"),
        (frame(b"abc") + frame(b""), "the gRPC frame says 3 bytes, the body has 8 after its prefix"),
    ],
)
def test_a_body_that_is_not_one_frame_is_refused_with_both_numbers(body: bytes, reason: str) -> None:
    with pytest.raises(MalformedRequest, match=f"Search: the request cannot be read: {reason}"):
        unframe(body, None, "Search", LIMIT)


@pytest.mark.parametrize(
    ("data", "encoding", "reason"),
    [
        (b"x", "zstd", "compressed with 'zstd'; Crossfade reads gzip, deflate and identity"),
        (b"not gzip", "gzip", "its gzip compression is broken"),
        (gzip.compress(b"abc" * 99, mtime=0)[:-9], "gzip", "its gzip compression ends early"),
        (gzip.compress(b"abc", mtime=0) + b"more", "gzip", "4 bytes stand behind the end of its gzip"),
    ],
)
def test_broken_compression_is_refused(data: bytes, encoding: str, reason: str) -> None:
    with pytest.raises(MalformedRequest, match=reason):
        inflate(data, encoding, "Query", LIMIT)


@given(st.integers(0, 100))
def test_what_inflates_beyond_the_limit_is_refused_without_inflating_it_all(over: int) -> None:
    bomb = gzip.compress(bytes(1000 + over))
    if over == 0:
        assert len(inflate(bomb, "gzip", "Query", 1000)) == 1000
    else:
        with pytest.raises(BodyTooLarge, match="the body goes on, beyond the limit of 1,000 bytes"):
            inflate(bomb, "gzip", "Query", 1000)


@pytest.mark.parametrize("size", [0, 10, LARGE - 1, LARGE, 3 * LARGE + 7])
def test_pieces_are_joined_as_ever_however_large(size: int) -> None:
    whole = bytes(range(256)) * (size // 256 + 1)
    whole = whole[:size]
    cut = size // 3
    assert join_pieces([whole[:cut], b"", memoryview(whole)[cut:]]) == whole
    assert unframe(frame(whole), None, "Upsert", 1 << 30) == whole


@given(st.lists(st.binary(max_size=9)), st.integers(0, 30), st.integers(0, 2))
def test_a_body_in_chunks_is_read_as_the_whole_would_be(pieces: list[bytes], start: int, stretch: int) -> None:
    pieces = [piece * (1 << 17) ** bool(stretch) if at % 3 == stretch else piece for at, piece in enumerate(pieces)]
    whole = b"".join(pieces)
    chunks = Chunks(pieces, len(whole))
    assert take_first(chunks, start) == take_first(whole, start) == whole[:start]
    assert take_from(chunks, start) == take_from(whole, start) == whole[start:]
    again = list(regroup(pieces))
    assert b"".join(again) == whole
    assert all(len(chunk) == len(again[0]) for chunk in again[:-1])
    framed = Chunks(pack_pieces(pieces, "grpc"), len(whole) + 5)
    assert unframe(framed, None, "Upsert", 1 << 30) == whole == take_from(frame(whole), 5)
