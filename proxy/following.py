"""Requests without vectors of collections that are being migrated: counts, facets, descriptions, writes by id.

They come through Python only while they have to: reads that follow their client to the new index, and everything once
the collection's name stands for its target.
"""

from __future__ import annotations

from crossfade.backends.dialect import MalformedError, Operation, RequestContext, Role, Transport

from .detect import detect_model, read_declared
from .driver import Incoming, Outgoing, carries_answer
from .errors import MalformedRequest, RequestError
from .framing import pack, unpack
from .migration.machine import State
from .migration.record import MigrationView
from .patience import Patience, TargetFailed
from .reading import check_answer, wait_seconds
from .routing import Snapshot, find_view
from .strategies import Request, choose_way, find_key, read_wanted
from .upstream import call_upstream, forwarded_headers, read_all
from .worker import Worker

_ENCODINGS = frozenset({"grpc-encoding", "content-encoding"})


def find_other(worker: Worker, transport: Transport, method: str, path: str) -> Operation | None:
    """The method without vectors that a request line names, while some collection is migrated, or may be."""
    if not worker.live.snapshot.watches or worker.dialect.reading is None:
        return None
    return worker.dialect.reading.find_other(transport, method, path)


async def follow(worker: Worker, incoming: Incoming) -> Outgoing | None:
    """Answer one request from where it belongs; None when that is where it goes anyway, byte for byte.

    Raises UpstreamDown, and RequestError for a strategy that is none.
    """
    snapshot, operation, codec = worker.live.snapshot, incoming.operation, worker.dialect.reading
    assert codec is not None  # `find_other` found the operation by it
    names = {view.collection: view.target for view in snapshot.migrations.values() if view.state is State.COMPLETED}
    try:
        encoding = incoming.named.get("grpc-encoding" if operation.transport == "grpc" else "content-encoding")
        message = unpack(operation, incoming.body, encoding, snapshot.config.limits.body) if incoming.body else b""
        collection = codec.find_collection(operation, incoming.path, message, RequestContext(incoming.named))
    except (MalformedError, MalformedRequest):
        return None  # the database says best what is wrong with it
    view = find_view(snapshot, () if collection is None else (collection,))
    if collection is None or (view is not None and view.state is State.COMPLETED):
        return await _ask(worker, incoming, message, names, snapshot) if names else None
    if view is None or operation.writes or not _goes_there(incoming, snapshot, view):
        return None
    worker.tally.reads[view.collection, "native"] += 1
    patience = worker.patience.setdefault(view.id, Patience())
    try:
        patience.check()
        asking = _ask_target(worker, incoming, message, snapshot, view)
        return await patience.wait(asking, wait_seconds(incoming, snapshot, view))
    except TargetFailed as error:
        worker.tally.fallbacks[view.collection, "native", error.reason] += 1
        return None


def _goes_there(incoming: Incoming, snapshot: Snapshot, view: MigrationView) -> bool:
    """Whether a read belongs to the new index: its client is of the new model, and of the share that is switched."""
    wanted = read_wanted(incoming.named, view.collection)
    space = snapshot.find_space(view.collection, view.field)
    if space is None:
        return False
    declared = read_declared(incoming.named, snapshot.config.detect)
    try:
        model = detect_model(space, declared, Role.RESULT, None, None, snapshot.models)
    except RequestError:
        return False
    key = find_key(incoming.named, snapshot.config.detect.clients.header, incoming.peer, None)
    return choose_way(view, wanted, Request(model, key, plain=False, texts=False)) == "native"


async def _ask_target(
    worker: Worker, incoming: Incoming, message: bytes, snapshot: Snapshot, view: MigrationView
) -> Outgoing:
    outgoing = await _ask(worker, incoming, message, {view.collection: view.target}, snapshot)
    if not carries_answer(incoming.operation, outgoing.response):
        raise TargetFailed("refused")
    gathered = await read_all(outgoing.target, outgoing.response, snapshot.config.limits.body)
    outgoing = outgoing._replace(gathered=gathered)
    check_answer(worker, incoming, outgoing, snapshot)
    return outgoing


async def _ask(
    worker: Worker, incoming: Incoming, message: bytes, names: dict[str, str], snapshot: Snapshot
) -> Outgoing:
    operation, codec = incoming.operation, worker.dialect.reading
    assert codec is not None  # as above
    path, message = codec.retarget(operation, incoming.path, message, names, RequestContext(incoming.named))
    target = worker.target(snapshot, operation.transport)
    headers = forwarded_headers(incoming.headers, _ENCODINGS)
    body = pack(message, operation.transport) if incoming.body else b""
    path = f"{path}?{incoming.query}" if incoming.query else path
    response = await call_upstream(target, operation.method, incoming.authority, path, headers, body)
    mark = "native; strategy=native" if snapshot.config.answers.mark else None
    return Outgoing(target, response, b"", False, mark, "native")
