"""Calls to the database through Envoy's own clusters, so that TLS, pools, DNS and statistics stay Envoy's."""

from __future__ import annotations

from dataclasses import dataclass

from pyqwest import Headers, Request, Response, Transport

from .errors import UpstreamDown

# Connection headers, and what Envoy sets anew from the call itself.
_NOT_FORWARDED = frozenset({"host", "content-length", "connection", "transfer-encoding", "x-forwarded-proto"})
_NOT_RETURNED = frozenset({"x-envoy-upstream-service-time", "content-length", "transfer-encoding", "connection"})
# Envoy sets this on every answer that really came from the database; its own (connection refused, reset) lack it.
_FROM_DATABASE = "x-envoy-upstream-service-time"

HeaderList = list[tuple[bytes, bytes]]
TextHeaders = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Target:
    """Which upstream, by what address, through which of Envoy's clusters."""

    upstream: str
    address: str
    transport: Transport


def read_headers(headers: HeaderList) -> TextHeaders:
    """A request's headers as text; repeated ones and -bin metadata stay as they are."""
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]


def forwarded_headers(headers: TextHeaders, without: frozenset[str]) -> Headers:
    """A request's headers as they go on."""
    dropped = _NOT_FORWARDED | without if without else _NOT_FORWARDED
    return Headers([header for header in headers if header[0] not in dropped])


def returned_headers(response: Response) -> HeaderList:
    """An answer's headers as they go back."""
    return [
        (name.encode("latin-1"), value.encode("latin-1"))
        for name, value in response.headers.items()
        if name not in _NOT_RETURNED
    ]


async def call_upstream(
    target: Target, method: str, authority: str, path: str, headers: Headers, body: bytes
) -> Response:
    """Send a request on; the answer's content is still to be read.

    Raises UpstreamDown when the database did not answer.
    """
    try:
        response = await target.transport.execute(Request(method, f"http://{authority}{path}", headers, body))
    except (ConnectionError, TimeoutError, OSError) as error:
        raise UpstreamDown(upstream=target.upstream, address=target.address, reason=str(error)) from error
    if _FROM_DATABASE not in response.headers:
        reason = bytes(await read_all(response)).decode("utf-8", "replace")
        raise UpstreamDown(upstream=target.upstream, address=target.address, reason=reason or f"HTTP {response.status}")
    return response


async def read_all(response: Response) -> bytes:
    """The whole content; nearly always one chunk."""
    chunks = [chunk async for chunk in response.content]
    return bytes(chunks[0]) if len(chunks) == 1 else b"".join(chunks)
