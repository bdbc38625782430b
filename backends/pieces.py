"""Large bytes put together piece by piece, so that other threads can run in between.

`b"".join` and slicing copy in one go and hold the interpreter meanwhile: 60 MB are tens of milliseconds in which an
event loop beside them answers nobody. BytesIO hands out what it has gathered without another copy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import BytesIO

LARGE = 1 << 20  # bytes; below, one copy is over before anyone waits for it
_PIECE = 1 << 18


def join_pieces(pieces: Sequence[bytes | memoryview]) -> bytes:
    """The pieces, one after the other."""
    if sum(map(len, pieces)) < LARGE:
        return b"".join(pieces)
    whole = BytesIO()
    for piece in pieces:
        if len(piece) <= _PIECE:
            whole.write(piece)
        else:
            whole.writelines(cut_pieces(memoryview(piece)))
    return whole.getvalue()


def cut_pieces(whole: memoryview) -> Iterator[memoryview]:
    """The same bytes as views that are quickly copied."""
    for start in range(0, len(whole), _PIECE):
        yield whole[start : start + _PIECE]
