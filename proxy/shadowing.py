"""Shadow queries: a share of new-model queries is asked of the new index as well, once their answer has gone.

They measure what a switch would change, overlap@10 and latency, and cost the client nothing: they go past Envoy on
connections of their own, few at a time, and are dropped when more are waiting.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pyqwest import Headers, HTTPTransport, HTTPVersion, Request, Transport

from crossfade.backends.dialect import Message, Operation
from crossfade.backends.dialect import Transport as Spoken
from crossfade.backends.index import PointId
from crossfade.backends.reading import ReadCodec

from .background import Background
from .config import Upstream
from .framing import pack, unpack
from .telemetry import Tally

TOP = 10
_MOST = 16  # under way at once; more are dropped
_SECONDS = 10.0


@dataclass(frozen=True, slots=True, eq=False)
class Shadow:
    """One query for the new index: `found` is what its client was answered, best first."""

    collection: str
    operation: Operation
    path: str  # with its query string
    request: Message  # as the client sent it
    message: bytes
    headers: Headers
    found: Sequence[PointId]
    limit: int  # of an answer's bytes


class Shadows:
    """The shadow queries of one event loop."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._background = Background()
        self._under_way = 0
        self._transports: dict[tuple[Spoken, int], tuple[Upstream, Transport]] = {}

    def start(self, shadow: Shadow, upstream: Upstream, codec: ReadCodec) -> None:
        """Ask beside everything else, or drop the query when too many are under way."""
        if self._under_way >= _MOST:
            self._tally.shadows[shadow.collection, "dropped"] += 1
            return
        self._under_way += 1
        self._background.start(self._compare(shadow, upstream, codec), "shadow query")

    async def _compare(self, shadow: Shadow, upstream: Upstream, codec: ReadCodec) -> None:
        began = time.perf_counter()
        try:
            async with asyncio.timeout(_SECONDS):
                hits = codec.read_hits(shadow.operation, shadow.request, await self._ask(shadow, upstream))[0]
        except Exception:  # whatever it is: nobody waits for this query, and the count says that it failed
            self._tally.shadows[shadow.collection, "failed"] += 1
            return
        finally:
            self._under_way -= 1
        there = {hit.id for hit in hits[: len(shadow.found)]}
        self._tally.shadows[shadow.collection, "compared"] += 1
        self._tally.overlap[(shadow.collection,)] += len(there & set(shadow.found)) / len(shadow.found)
        self._tally.shadow_seconds[(shadow.collection,)] += time.perf_counter() - began

    async def _ask(self, shadow: Shadow, upstream: Upstream) -> bytes:
        operation = shadow.operation
        url = _address(upstream, operation.transport) + shadow.path
        body = pack(shadow.message, operation.transport)
        request = Request(operation.method, url, shadow.headers, body)
        response = await self._transport(upstream, operation.transport).execute(request)
        chunks = [bytes(chunk) async for chunk in response.content]
        return unpack(operation, b"".join(chunks), None, shadow.limit)

    def _transport(self, upstream: Upstream, spoken: Spoken) -> Transport:
        key = (spoken, id(upstream))
        kept = self._transports.get(key)
        if kept is None:
            self._transports.clear()  # of an older configuration
            kept = self._transports[key] = (upstream, _build_transport(upstream, spoken))
        return kept[1]

    async def stop(self) -> None:
        """Give up what is under way."""
        await self._background.stop()


def draws(percent: float) -> bool:
    """Whether one of so many in a hundred is this one."""
    return percent > 0 and random.random() * 100 < percent


def _address(upstream: Upstream, spoken: Spoken) -> str:
    if spoken == "grpc":
        return f"{'https' if upstream.tls is not None else 'http'}://{upstream.grpc}"
    return str(upstream.rest)


def _build_transport(upstream: Upstream, spoken: Spoken) -> Transport:
    tls = upstream.tls
    ca, cert, key = (None, None, None) if tls is None else map(_read, (tls.ca, tls.cert, tls.key))
    return HTTPTransport(
        tls_ca_cert=ca,
        tls_cert=cert,
        tls_key=key,
        http_version=HTTPVersion.HTTP2 if spoken == "grpc" else HTTPVersion.HTTP1,
        tls_include_system_certs=tls is not None and tls.ca is None,
        timeout=_SECONDS,
        follow_redirects=False,
        enable_gzip=False,
        enable_brotli=False,
        enable_zstd=False,
        enable_otel=False,
    )


def _read(path: Path | None) -> bytes | None:
    return None if path is None else path.read_bytes()
