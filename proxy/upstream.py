"""Calls to the database through Envoy's own clusters, so that TLS, pools, DNS and statistics stay Envoy's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import unquote

from pyqwest import Headers, ReadError, Request, Response, Transport, WriteError

from crossfade.backends.pieces import LARGE, Chunks, Pieces, join_pieces, regroup

from .errors import UpstreamDown

# Connection headers, and what Envoy sets anew from the call itself.
_NOT_FORWARDED = frozenset({"host", "content-length", "connection", "transfer-encoding", "x-forwarded-proto"})
_BODILESS = frozenset({"GET", "HEAD"})  # an empty body of theirs is none: content-length: 0 was not there before
_NOT_RETURNED = frozenset({"x-envoy-upstream-service-time", "content-length", "transfer-encoding", "connection"})
# Envoy sets this on every answer that really came from the database; its own (connection refused, reset) lack it.
_FROM_DATABASE = "x-envoy-upstream-service-time"

_REASON = 1 << 16  # bytes of an error's text; Envoy's own are one line

BREAKS = (ReadError, WriteError, ConnectionError, TimeoutError, OSError)
"""What a call to the database can break with: it broke off, or the client has gone and Envoy ended the call."""

HeaderList = list[tuple[bytes, bytes]]
TextHeaders = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Target:
    """Which upstream, by what address, through which of Envoy's clusters."""

    upstream: str
    address: str
    transport: Transport

    def down(self, reason: object) -> UpstreamDown:
        """The error of a call that broke."""
        return UpstreamDown(upstream=self.upstream, address=self.address, reason=str(reason))


def read_headers(headers: HeaderList) -> TextHeaders:
    """A request's headers as text; repeated ones and -bin metadata stay as they are."""
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]


def forwarded_headers(headers: TextHeaders, without: frozenset[str]) -> Headers:
    """A request's headers as they go on."""
    dropped = _NOT_FORWARDED | without if without else _NOT_FORWARDED
    return Headers([header for header in headers if header[0] not in dropped])


def returned_headers(response: Response, *, changed: bool) -> HeaderList:
    """An answer's headers as they go back; a changed body is no longer compressed."""
    left = _NOT_RETURNED | {"content-encoding"} if changed else _NOT_RETURNED
    return [
        (name.encode("latin-1"), value.encode("latin-1"))
        for name, value in response.headers.items()
        if name not in left
    ]


async def call_upstream(
    target: Target, method: str, authority: str, path: str, headers: Headers, body: bytes | Chunks
) -> Response:
    """Send a request on; the answer's content is still to be read. A large body is not joined before.

    Raises UpstreamDown when the database did not answer.
    """
    pieces = (body,) if isinstance(body, bytes) else body.pieces
    content: bytes | AsyncIterator[bytes] | None = None
    if len(body) > LARGE:
        headers.add("content-length", str(len(body)))
        content = _send_in_pieces(pieces)
    elif body or method not in _BODILESS:
        content = join_pieces(pieces)
    try:
        response = await target.transport.execute(Request(method, f"http://{authority}{path}", headers, content))
    except BREAKS as error:
        raise target.down(error) from error
    if _FROM_DATABASE not in response.headers:
        reason = (await read_all(target, response, _REASON)).decode("utf-8", "replace")
        raise target.down(reason or unquote(response.headers.get("grpc-message", "")) or f"HTTP {response.status}")
    return response


async def _send_in_pieces(pieces: Pieces) -> AsyncIterator[bytes]:
    """A large body bit by bit: Envoy copies what it is given in one go, and serves nobody else meanwhile."""
    for chunk in regroup(pieces):
        yield chunk
        await asyncio.sleep(0)  # or all of it is there before Envoy has taken the first, and is taken together


async def read_all(target: Target, response: Response, limit: int) -> bytes:
    """The content, nearly always one chunk; what goes beyond `limit` bytes is left to be read.

    Raises UpstreamDown when it breaks off.
    """
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in response.content:
            chunks.append(bytes(chunk))
            size += len(chunk)
            if size > limit:
                break
    except BREAKS as error:
        raise target.down(error) from error
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
