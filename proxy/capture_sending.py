"""Sending a captured write on, and what the database's answer says of its end."""

from __future__ import annotations

from time import perf_counter
from typing import Final

from .driver import ENCODINGS, Incoming, Outgoing
from .endings import Ending
from .routing import Snapshot
from .upstream import call_upstream, forwarded_headers, read_all
from .worker import Worker

ENCODED: Final = frozenset(ENCODINGS.values())  # headers that say nothing true of a body that was written again


async def send_write(worker: Worker, incoming: Incoming, snapshot: Snapshot, dropped: frozenset[str]) -> Outgoing:
    """Send a write; its answer is gathered, since only its end says what became of it. Raises UpstreamDown."""
    began = perf_counter()
    target = worker.target(snapshot, incoming.operation.transport)
    path = f"{incoming.path}?{incoming.query}" if incoming.query else incoming.path
    headers = forwarded_headers(incoming.headers, dropped)
    response = await call_upstream(target, incoming.operation.method, incoming.authority, path, headers, incoming.body)
    gathered = await read_all(target, response, snapshot.config.limits.body)
    worker.tally.latency["upstream"].observe(perf_counter() - began)
    return Outgoing(target, response, gathered, False, None, "passed")


async def gather(outgoing: Outgoing, limit: int) -> Outgoing:
    """An answer with the rest of its content. Raises UpstreamDown."""
    rest = await read_all(outgoing.target, outgoing.response, limit)
    return outgoing._replace(gathered=outgoing.gathered + rest)


def ending_of(worker: Worker, incoming: Incoming, outgoing: Outgoing) -> Ending:
    """What a gathered answer says of its write."""
    response, operation = outgoing.response, incoming.operation
    status = response.headers.get("grpc-status") or response.trailers.get("grpc-status") or ""
    encoding = None if outgoing.changed else response.headers.get(ENCODINGS[operation.transport])
    limit = worker.live.snapshot.config.limits.body
    return Ending(operation, response.status, status, outgoing.gathered, encoding, limit)
