"""Large bytes as pieces, put together and handed on bit by bit, so that other threads can run in between.

`b"".join`, slicing and a buffer that grows copy in one go and hold the interpreter meanwhile: 60 MB are tens of
milliseconds in which an event loop beside them answers nobody.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO

Pieces = Sequence[bytes | memoryview]
"""Bytes that are not joined yet; the views are into messages that came in."""

LARGE = 1 << 20  # bytes; below, one copy is over before anyone waits for it
_PIECE = 1 << 18


@dataclass(frozen=True, slots=True)
class Chunks:
    """A large body that is not joined yet, and its length in bytes."""

    pieces: Pieces
    size: int

    def __len__(self) -> int:
        return self.size


def join_pieces(pieces: Pieces) -> bytes:
    """The pieces, one after the other."""
    if len(pieces) == 1 and isinstance(pieces[0], bytes):
        return pieces[0]
    size = sum(map(len, pieces))
    if size < LARGE:
        return b"".join(pieces)
    whole = BytesIO(bytes(size))  # nobody else holds these bytes, so they are written to and handed out as they are
    for chunk in regroup(pieces):
        whole.write(chunk)
    return whole.getvalue()


def take_from(body: bytes | Chunks, start: int) -> bytes:
    """A body from its byte `start` on, as one."""
    pieces = (body,) if isinstance(body, bytes) else body.pieces
    return join_pieces(tuple(_skip(pieces, start)) or (b"",))


def take_first(body: bytes | Chunks, count: int) -> bytes:
    """The first `count` bytes of a body, or all it has."""
    if isinstance(body, bytes):
        return body[:count]
    return next(regroup(body.pieces), b"")[:count]


def _skip(pieces: Pieces, count: int) -> Iterator[bytes | memoryview]:
    for piece in pieces:
        if count >= len(piece):
            count -= len(piece)
            continue
        yield memoryview(piece)[count:] if count else piece
        count = 0


def regroup(pieces: Pieces) -> Iterator[bytes]:
    """The same bytes in chunks that are quickly copied, however small or large the pieces are."""
    waiting: list[bytes | memoryview] = []
    size = 0
    for piece in pieces:
        view = memoryview(piece)
        while size + len(view) >= _PIECE:
            cut = _PIECE - size
            waiting.append(view[:cut])
            yield b"".join(waiting)
            waiting.clear()
            view, size = view[cut:], 0
        waiting.append(view)
        size += len(view)
    if size:
        yield b"".join(waiting)
