"""The ASGI application that Envoy runs inside each worker: requests in, answers or errors out.

Map of the path: `app` gathers the body, `driver.exchange` does the work, `_relay` sends the answer, `_rescue` turns
whatever went wrong into a gRPC status or the database's own REST error. Only this file knows ASGI.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from pathlib import Path
from typing import Any

from crossfade.backends.dialect import Dialect, Operation, Transport
from crossfade.backends.milvus import MilvusDialect
from crossfade.backends.pieces import LARGE, Chunks
from crossfade.backends.qdrant import QdrantDialect

from .capturing import exchange_write
from .config import Log
from .driver import Incoming, Outgoing, exchange
from .errors import BodyTooLarge, CrossfadeError, UpstreamDown
from .fastpath import open_fastpath
from .following import find_other, follow
from .live import RUN_DIR, Live
from .logs import start_logging
from .reading import exchange_migrated
from .rescue import form_rescue, grpc_status, told
from .upstream import (
    BREAKS,
    HeaderList,
    TextHeaders,
    call_upstream,
    forwarded_headers,
    read_headers,
    returned_headers,
)
from .worker import Worker

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
MARK = b"x-crossfade"
_GONE_SECONDS = 0.05
_SWITCH_SECONDS = 0.0005

log = logging.getLogger("crossfade.app")

_CUT_SHORT = (UpstreamDown.grpc_code, "crossfade: the upstream's answer ended without a status")


class ClientGone(Exception):
    """The client cancelled or hung up; there is nobody to answer."""


class BrokenAnswer(Exception):
    """The upstream's answer broke off after some of it had been sent on."""


class App:
    """One database's application; pyvoy runs it on an event loop of its own for each listener."""

    def __init__(self, dialect: Dialect, transport: Transport | None) -> None:
        """`transport` is what the listener speaks; None: both, told apart by the content type."""
        self._dialect = dialect
        self._transport = transport

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
            return
        await _serve(scope["state"]["worker"], self._transport, scope, receive, send)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        start_logging(Log())
        run_dir = Path(os.environ[RUN_DIR])
        await receive()
        try:
            worker = Worker(_live_snapshot(run_dir), self._dialect, run_dir)
        except (CrossfadeError, OSError, ValueError) as error:
            log.error("the worker cannot start: %s", error)
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        start_logging(worker.live.snapshot.config.log)
        _favour_latency()
        scope["state"]["worker"] = worker
        worker.fastpath = open_fastpath(worker, self._transport)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        worker.stop()
        await send({"type": "lifespan.shutdown.complete"})


def _favour_latency() -> None:
    """Keep the event loop's waits for the interpreter short, beside threads that read and change large messages."""
    sys.setswitchinterval(_SWITCH_SECONDS)
    gc.collect()
    gc.freeze()  # modules and adapters stay: no collection needs to look at them again


_live: Live | None = None
_live_lock = threading.Lock()


def _live_snapshot(run_dir: Path) -> Live:
    """The process's one Live: its listeners' loops share it."""
    global _live
    with _live_lock:
        if _live is None:
            _live = Live(run_dir)
        return _live


async def _serve(worker: Worker, listening: Transport | None, scope: Scope, receive: Receive, send: Send) -> None:
    headers = read_headers(scope["headers"])
    named = dict(headers)
    transport = listening or _transport_of(named)
    path = scope["raw_path"].decode("ascii", "surrogateescape")
    operation = worker.dialect.find_operation(transport, scope["method"], path)
    name = operation.name if operation is not None else "other"
    failing = operation  # in whose form an error is told
    try:
        body = await _gather(receive, named, worker.live.snapshot.config.limits.body)
        query = scope["query_string"].decode("ascii", "surrogateescape")
        authority = named.get("host") or "upstream"
        if operation is None and (other := find_other(worker, transport, scope["method"], path)) is not None:
            failing = other
            incoming = Incoming(other, headers, named, authority, path, query, body, _peer_of(scope))
            outgoing = await (exchange_write(worker, incoming, _follow) if other.writes else _follow(worker, incoming))
        elif operation is None:
            outgoing = await _pass_on(worker, transport, scope["method"], headers, authority, path, query, body)
        else:
            incoming = Incoming(operation, headers, named, authority, path, query, body)
            if operation.writes and worker.live.snapshot.watches:
                outgoing = await exchange_write(worker, incoming, _exchange)
            else:
                migrates = worker.live.snapshot.migrations
                outgoing = await _exchange(worker, incoming._replace(peer=_peer_of(scope)) if migrates else incoming)
        await _relay(outgoing, transport, send)
        worker.tally.requests[name, transport, outgoing.done] += 1
        worker.tally.routes["full",] += 1
    except ClientGone:
        worker.tally.requests[name, transport, "cancelled"] += 1
    except BrokenAnswer:  # the connection is cut by raising on: half an answer must not look whole
        worker.tally.errors[name, UpstreamDown.label] += 1
        raise
    except CrossfadeError as error:
        if isinstance(error, UpstreamDown) and await _has_gone(receive):
            worker.tally.requests[name, transport, "cancelled"] += 1
            return
        worker.tally.errors[name, error.label] += 1
        await _rescue(worker, failing, transport, error, send)
    except Exception:  # whatever it is must not reach the client as UNKNOWN
        log.exception("%s failed", name)
        worker.tally.errors[name, "internal"] += 1
        await _rescue(
            worker, failing, transport, CrossfadeError("internal error; Crossfade's log has the details"), send
        )


async def _exchange(worker: Worker, incoming: Incoming) -> Outgoing:
    """A request with vectors, of whatever collection."""
    return await (exchange_migrated if worker.live.snapshot.migrations else exchange)(worker, incoming)


async def _follow(worker: Worker, incoming: Incoming) -> Outgoing:
    """A request without vectors while some collection is migrated: from where it belongs, else as it is."""
    followed = await follow(worker, incoming)
    if followed is not None:
        return followed
    _, headers, _, authority, path, query, body, _ = incoming
    operation = incoming.operation
    return await _pass_on(worker, operation.transport, operation.method, headers, authority, path, query, body)


def _peer_of(scope: Scope) -> str:
    """The address of whoever connected, without its port."""
    client = scope.get("client")
    return str(client[0]) if client else ""


def _transport_of(headers: Mapping[str, str]) -> Transport:
    return "grpc" if headers.get("content-type", "").startswith("application/grpc") else "rest"


async def _has_gone(receive: Receive) -> bool:
    """Whether a call broke because its client cancelled: then Envoy has ended it, and says so here at once."""
    try:
        event = await asyncio.wait_for(receive(), _GONE_SECONDS)
    except TimeoutError:
        return False
    return bool(event["type"] == "http.disconnect")


async def _gather(receive: Receive, headers: Mapping[str, str], limit: int) -> bytes | Chunks:
    """The request's whole body; raises BodyTooLarge, ClientGone."""
    stated = headers.get("content-length", "")
    if stated.isdigit() and int(stated) > limit:
        raise BodyTooLarge(size=int(stated), limit=limit)
    chunks: list[bytes] = []
    size = 0
    while True:
        event = await receive()
        if event["type"] != "http.request":
            raise ClientGone
        chunk: bytes = event.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise BodyTooLarge(size=None, limit=limit)
        chunks.append(chunk)
        if not event.get("more_body"):
            return Chunks(chunks, size) if size > LARGE else chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def _pass_on(
    worker: Worker,
    transport: Transport,
    method: str,
    headers: TextHeaders,
    authority: str,
    path: str,
    query: str,
    body: bytes | Chunks,
) -> Outgoing:
    """A request that a route sent here though its method carries no vector: byte for byte."""
    target = worker.target(worker.live.snapshot, transport)
    whole = f"{path}?{query}" if query else path
    sent = forwarded_headers(headers, frozenset())
    response = await call_upstream(target, method, authority, whole, sent, body)
    return Outgoing(target, response, b"", False, None, "passed")


async def _relay(outgoing: Outgoing, transport: Transport, send: Send) -> None:
    """Send an answer chunk by chunk, the last one held back to be marked as such.

    Raises UpstreamDown when it breaks before anything was sent, BrokenAnswer for REST afterwards.
    """
    response = outgoing.response
    # An answer of headers only (a gRPC error) has its status there, and must not announce trailers.
    trailers = transport == "grpc" and "grpc-status" not in response.headers
    start = {"type": "http.response.start", "status": response.status, "headers": _headers_of(outgoing, transport)}
    if trailers:
        start["trailers"] = True
    held, started = outgoing.gathered, False
    try:
        if not outgoing.changed:
            async for chunk in response.content:
                if held and chunk:
                    if not started:
                        await send(start)
                        started = True
                    await send({"type": "http.response.body", "body": held, "more_body": True})
                held = bytes(chunk) or held
    except BREAKS as error:
        await _break_off(outgoing.target.down(error), held, send, started=started, trailers=trailers)
        return
    if not started:
        await send(start)
    await send({"type": "http.response.body", "body": held})
    if trailers:
        ending = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in response.trailers.items()]
        await send({"type": "http.response.trailers", "headers": ending or grpc_status(*_CUT_SHORT)})


async def _break_off(error: UpstreamDown, held: bytes, send: Send, *, started: bool, trailers: bool) -> None:
    """End an answer that broke: gRPC has a status for it, REST only the connection's end."""
    if not started:
        raise error
    if not trailers:
        raise BrokenAnswer(str(error)) from error
    await send({"type": "http.response.body", "body": held})
    await send({"type": "http.response.trailers", "headers": grpc_status(error.grpc_code, told(error))})


def _headers_of(outgoing: Outgoing, transport: Transport) -> HeaderList:
    response = outgoing.response
    headers = returned_headers(response, changed=outgoing.changed)
    if outgoing.mark is not None:
        headers.append((MARK, outgoing.mark.encode("latin-1", "replace")))
    if not outgoing.changed and (length := response.headers.get("content-length")) is not None:
        headers.append((b"content-length", length.encode("latin-1")))
    elif outgoing.changed and transport == "rest":
        headers.append((b"content-length", str(len(outgoing.gathered)).encode()))
    return headers


async def _rescue(
    worker: Worker, operation: Operation | None, transport: Transport, error: CrossfadeError, send: Send
) -> None:
    """Answer with an error in the database's own form."""
    answer = form_rescue(worker.dialect, operation, transport, error)
    start = {"type": "http.response.start", "status": answer.status, "headers": answer.headers}
    if answer.trailers is not None:
        start["trailers"] = True
    await send(start)
    await send({"type": "http.response.body", "body": answer.body})
    if answer.trailers is not None:
        await send({"type": "http.response.trailers", "headers": answer.trailers})


qdrant_grpc = App(QdrantDialect(), "grpc")
qdrant_rest = App(QdrantDialect(), "rest")
milvus_any = App(MilvusDialect(), None)
