"""Message bytes out of HTTP bodies and back: gRPC's length prefix and compression, REST's content-encoding. Pure."""

from __future__ import annotations

import struct
import zlib

from crossfade.backends.dialect import Operation, Transport
from crossfade.backends.pieces import Chunks, Pieces, join_pieces, take_first, take_from

from .errors import BodyTooLarge, MalformedRequest

_PREFIX = struct.Struct(">BI")
PREFIX_SIZE = _PREFIX.size
_GZIP_WINDOW = 15 + 32  # 32: accept a gzip or a zlib header


def unframe(body: bytes | Chunks, encoding: str | None, operation: str, limit: int) -> bytes:
    """The one message of a unary gRPC body, decompressed.

    Raises MalformedRequest for a body that is not exactly one frame, BodyTooLarge for one that inflates beyond `limit`
    bytes.
    """
    if len(body) < PREFIX_SIZE:
        raise MalformedRequest(operation, f"a gRPC frame has at least {PREFIX_SIZE} bytes, the body has {len(body)}")
    flag, length = _PREFIX.unpack(take_first(body, PREFIX_SIZE))
    if length != len(body) - PREFIX_SIZE:
        raise MalformedRequest(
            operation,
            f"the gRPC frame says {length:,} bytes, the body has {len(body) - PREFIX_SIZE:,} after its prefix",
        )
    message = take_from(body, PREFIX_SIZE)
    return inflate(message, encoding, operation, limit) if flag else message


def frame(message: bytes) -> bytes:
    """A gRPC body with one uncompressed message."""
    return join_pieces((_PREFIX.pack(0, len(message)), message))


def inflate(data: bytes | Chunks, encoding: str | None, operation: str, limit: int) -> bytes:
    """Decompress gzip or deflate; identity passes. Raises MalformedRequest and BodyTooLarge."""
    data = take_from(data, 0)
    if encoding in (None, "", "identity"):
        return data
    if encoding not in ("gzip", "deflate", "x-gzip"):
        raise MalformedRequest(operation, f"compressed with {encoding!r}; Crossfade reads gzip, deflate and identity")
    inflater = zlib.decompressobj(_GZIP_WINDOW)
    try:
        message = inflater.decompress(data, limit + 1)
        if len(message) <= limit:
            message += inflater.flush()
    except zlib.error as error:
        raise MalformedRequest(operation, f"its {encoding} compression is broken: {error}") from None
    if len(message) > limit:
        raise BodyTooLarge(size=None, limit=limit)
    if inflater.unused_data:
        raise MalformedRequest(operation, f"{len(inflater.unused_data):,} bytes stand behind the end of its {encoding}")
    if not inflater.eof:
        raise MalformedRequest(operation, f"its {encoding} compression ends early, after {len(data):,} bytes")
    return message


def pack(message: bytes, transport: Transport) -> bytes:
    """A message as the body of a request or an answer."""
    return frame(message) if transport == "grpc" else message


def pack_pieces(message: Pieces, transport: Transport) -> Pieces:
    """The same of a message in pieces, which stay pieces."""
    if transport != "grpc":
        return message
    return _PREFIX.pack(0, sum(map(len, message))), *message


def unpack(operation: Operation, body: bytes | Chunks, encoding: str | None, limit: int) -> bytes:
    """The message in a body. Raises MalformedRequest, BodyTooLarge."""
    opened = unframe if operation.transport == "grpc" else inflate
    return opened(body, encoding, operation.name, limit)
