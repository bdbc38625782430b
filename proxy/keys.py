"""Keys of the fast path's filter: what requests of one method, path and set of headers have in common, read once.

A key is "POST /path\\nname: value\\n...", with the headers that a decision can depend on and no others, so that
deadlines, trace ids and the like do not make each request's its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from crossfade.backends.dialect import Dialect, Operation, RequestContext, Transport

from .config import Config
from .detect import PORT_MODEL, Declared, read_declared
from .envoy_clusters import cluster_name
from .routing import Snapshot
from .strategies import HEADER
from .templates import Templates

if TYPE_CHECKING:
    from .worker import Worker


class Known(NamedTuple):
    """What requests with one key have in common."""

    operation: Operation
    path: str
    context: RequestContext
    declared: Declared
    cluster: bytes
    templates: Templates
    carries: bool = True  # vectors
    guarded: bool = False  # a write that a migration may have to know of


def selected_headers(dialect: Dialect, config: Config) -> list[bytes]:
    """The names of the headers that keys are made of."""
    detect, clients = config.detect, config.detect.clients
    names = {detect.header, clients.header, PORT_MODEL, "grpc-encoding", "content-encoding", "content-type", HEADER}
    names.update(dialect.read_headers)
    if clients.request_ids:
        names.add("client-request-id")
    if clients.user_agents:
        names.add("user-agent")
    return [name.lower().encode("latin-1") for name in sorted(names)]


def read_key(key: bytes, worker: Worker, listening: Transport | None, snapshot: Snapshot) -> Known | None:
    """Read a key; None where its requests are always the full route's. Raises what a strange key is wrong with."""
    request, *lines = key.decode("latin-1").split("\n")
    method, _, target = request.partition(" ")
    path, _, query = target.partition("?")
    named = dict(line.split(": ", 1) for line in lines if line)
    transport = listening or ("grpc" if named["content-type"].startswith("application/grpc") else "rest")
    carrying = worker.dialect.find_operation(transport, method, path)
    operation = carrying or _find_write(worker, transport, method, path, snapshot)
    if operation is None or operation.describes:
        return None
    guarded = operation.writes and snapshot.watches
    writing = worker.dialect.writing
    if guarded and (writing is None or operation.name not in writing.told_by_status):
        return None
    context = RequestContext(named, snapshot.config.detect.param, worker.schemas.find, query)
    declared = read_declared(named, snapshot.config.detect)
    cluster = cluster_name(worker.target(snapshot, transport).upstream, transport, snapshot.epoch)
    return Known(
        operation, path, context, declared, cluster.encode(), Templates(), carrying is not None, guarded=guarded
    )


def _find_write(worker: Worker, transport: Transport, method: str, path: str, snapshot: Snapshot) -> Operation | None:
    """A write without vectors, which comes here only while a migration may have to know of it."""
    reading = worker.dialect.reading
    if reading is None or not snapshot.watches:
        return None
    other = reading.find_other(transport, method, path)
    return other if other is not None and other.writes else None
