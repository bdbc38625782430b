"""Sending a captured write on, and what the database's answer says of its end."""

from __future__ import annotations

from time import perf_counter
from typing import Final

from pyqwest import Response

from .driver import ENCODINGS, Incoming, Outgoing
from .routing import Snapshot
from .upstream import call_upstream, forwarded_headers, read_all
from .worker import Worker

ENCODED: Final = frozenset(ENCODINGS.values())  # headers that say nothing true of a body that was written again
# OK, and what a database says before it has begun. Any other status may come while it still works on the write.
_DECIDED: Final = frozenset({"0", "3", "5", "6", "7", "9", "11", "12", "16"})


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


def has_ended(incoming: Incoming, response: Response) -> bool:
    """Whether an answer means that nothing of the write is still to happen, once what was answered before has."""
    if incoming.operation.transport == "grpc":
        return _status_of(response) in _DECIDED
    return response.status < 500 and response.status != 408


def succeeded(incoming: Incoming, response: Response) -> bool:
    """Whether the database has done what was asked."""
    return _status_of(response) == "0" if incoming.operation.transport == "grpc" else response.status < 300


def _status_of(response: Response) -> str:
    return response.headers.get("grpc-status") or response.trailers.get("grpc-status") or ""
