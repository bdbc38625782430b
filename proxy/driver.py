"""One request from body to answer: read, plan, encode, map, forward, map back. The only place that awaits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from time import perf_counter
from typing import NamedTuple

import numpy as np
from pyqwest import Response

from crossfade.adapters.merge import blend_queries
from crossfade.backends.dialect import Edit, MalformedError, Message, Operation, RequestContext
from crossfade.backends.pieces import Chunks, join_pieces

from .detect import Declared, read_declared
from .errors import BodyTooLarge, MalformedRequest, SchemaUnknown
from .exchange import (
    Float32,
    Job,
    Plan,
    TextJob,
    check_rows,
    describe_results,
    find_foreign,
    foreign_error,
    plan_answer,
    plan_dims,
    plan_request,
)
from .framing import inflate, pack, pack_pieces, unframe, unpack
from .routing import Snapshot
from .upstream import Target, TextHeaders, call_upstream, forwarded_headers, read_all
from .worker import LOOP_BYTES, Worker

_NOTHING: frozenset[str] = frozenset()
ENCODINGS = {"grpc": "grpc-encoding", "rest": "content-encoding"}
_ACCEPT = {"grpc": "grpc-accept-encoding", "rest": "accept-encoding"}


class Incoming(NamedTuple):
    """A request as it arrived, its body gathered; `named` has the last value of each header."""

    operation: Operation
    headers: TextHeaders
    named: dict[str, str]
    authority: str
    path: str  # raw, without the query string
    query: str
    body: bytes | Chunks
    peer: str = ""  # the client's address without its port, where it is known


class Outgoing(NamedTuple):
    """An answer on its way back: what of its content was gathered, whether it was changed, and what to say of it."""

    target: Target
    response: Response
    gathered: bytes  # the rest, if any, is still to be read from the response
    changed: bool
    mark: str | None
    done: str  # the first word of the mark, for metrics


class Read(NamedTuple):
    """A request that has been read, with what it says of its model, and when that began."""

    message: Message
    declared: Declared
    started: float


async def exchange(worker: Worker, incoming: Incoming) -> Outgoing:
    """Do what one request needs.

    Raises RequestError for what cannot be served, UpstreamDown, EncoderFailed.
    """
    snapshot = worker.live.snapshot
    read = await read_incoming(worker, incoming, snapshot)
    return await carry_out(worker, incoming, read, plan_request(read.message, read.declared, snapshot), snapshot)


async def read_incoming(worker: Worker, incoming: Incoming, snapshot: Snapshot) -> Read:
    """Read one request, and learn the schemas it cannot be read without."""
    started = perf_counter()
    named = incoming.named
    small = len(incoming.body) <= LOOP_BYTES
    message = (
        _read_request(worker, incoming, named, snapshot)
        if small
        else await worker.off_loop(len(incoming.body), _read_request, worker, incoming, named, snapshot)
    )
    if message.unsettled and (configured := snapshot.configured(message.collections)):
        await _learn_schemas(worker, incoming, named, snapshot, configured)
        message = await worker.off_loop(len(incoming.body), _read_request, worker, incoming, named, snapshot)
    return Read(message, read_declared(named, snapshot.config.detect), started)


async def settle(worker: Worker, incoming: Incoming, snapshot: Snapshot, read: Read, collection: str) -> Read:
    """The request read with its collection's schema, where there are schemas, if the database tells it."""
    if worker.schemas.codec is None or worker.schemas.find(collection) is not None:
        return read
    try:
        await _learn_schemas(worker, incoming, incoming.named, snapshot, snapshot.configured([collection]))
    except SchemaUnknown:
        return read  # what can be done without is done
    message = await worker.off_loop(len(incoming.body), _read_request, worker, incoming, incoming.named, snapshot)
    return read._replace(message=message)


async def carry_out(
    worker: Worker,
    incoming: Incoming,
    read: Read,
    plan: Plan,
    snapshot: Snapshot,
    names: Mapping[str, str] | None = None,
) -> Outgoing:
    """Do what was planned for one request; `names` has the collections that it is to name otherwise."""
    message, declared, started = read
    operation = incoming.operation
    planned = perf_counter()
    worker.tally.latency["detect"].observe(planned - started)

    edits = await prepare(worker, plan, snapshot)
    path, dropped = incoming.path, _NOTHING
    body = incoming.body
    if edits or names:
        given = (worker, incoming.named, message, edits, operation, path, names)
        path, body = await worker.off_loop(len(incoming.body), _edit, *given)
        dropped = frozenset({ENCODINGS[operation.transport]})
    if plan.reads_answer:
        dropped = dropped | {_ACCEPT[operation.transport]}
    mapped = perf_counter()
    if edits:
        worker.tally.latency["map"].observe(mapped - planned)

    path = f"{path}?{incoming.query}" if incoming.query else path
    target = worker.target(snapshot, operation.transport)
    headers = forwarded_headers(incoming.headers, dropped)
    response = await call_upstream(target, operation.method, incoming.authority, path, headers, body)
    worker.tally.latency["upstream"].observe(perf_counter() - mapped)
    if snapshot.config.detect.observe and carries_answer(operation, response):
        worker.observe(plan)
    back = _Back(b"", False, "")
    if plan.reads_answer and carries_answer(operation, response):
        back = await _map_back(worker, incoming, message, plan, declared, snapshot, target, response)
    mark = plan.mark
    done = mark.partition(";")[0] if mark else "passed"
    if back.results:
        mark = f"{mark or 'native'}{back.results}"
    return Outgoing(target, response, back.body, back.changed, mark if snapshot.config.answers.mark else None, done)


async def _learn_schemas(
    worker: Worker, incoming: Incoming, named: Mapping[str, str], snapshot: Snapshot, collections: list[str]
) -> None:
    """Learn what a request cannot be read without.

    Raises SchemaUnknown; but where a collection's fields are all alike, a gRPC request is served without: a client may
    search that may not ask for descriptions.
    """
    transport, limit = incoming.operation.transport, snapshot.config.limits.body
    try:
        await worker.schemas.learn(collections, worker.target(snapshot, "grpc"), transport, named, limit)
    except SchemaUnknown:
        if transport == "rest" or any(snapshot.config.collections[name].fields for name in collections):
            raise


def _read_request(worker: Worker, incoming: Incoming, named: dict[str, str], snapshot: Snapshot) -> Message:
    context = RequestContext(named, snapshot.config.detect.param, worker.schemas.find, incoming.query)
    limit = snapshot.config.limits.body
    return read_message(worker, incoming.operation, incoming.path, incoming.body, context, limit)


def read_message(
    worker: Worker, operation: Operation, path: str, body: bytes | Chunks, context: RequestContext, limit: int
) -> Message:
    """Unpack and read one request; raises MalformedRequest, BodyTooLarge."""
    if operation.transport == "grpc":
        opened = unframe(body, context.headers.get("grpc-encoding"), operation.name, limit)
    else:
        opened = inflate(body, context.headers.get("content-encoding"), operation.name, limit)
    try:
        return worker.dialect.read_request(operation, path, opened, context)
    except MalformedError as error:
        raise MalformedRequest(operation.name, str(error)) from error


def _edit(
    worker: Worker,
    named: Mapping[str, str],
    message: Message,
    edits: list[Edit],
    operation: Operation,
    path: str,
    names: Mapping[str, str] | None = None,
) -> tuple[str, Chunks]:
    """Path and packed body of a message with new values in its slots, and with collections named otherwise."""
    edited = message.pieces(edits)
    if names:
        assert worker.dialect.reading is not None  # only its collections are ever named otherwise
        renamed = worker.dialect.reading.retarget(operation, path, join_pieces(edited), names, RequestContext(named))
        path, edited = renamed[0], (renamed[1],)
    packed = pack_pieces(edited, operation.transport)
    return path, Chunks(packed, sum(map(len, packed)))


async def prepare(worker: Worker, plan: Plan, snapshot: Snapshot) -> list[Edit]:
    """Encode and map everything a request needs."""
    edits: list[Edit] = list(plan.scores)
    for job in plan.jobs:
        if job.size <= LOOP_BYTES:
            rows = check_job(worker, job, snapshot)
        else:
            rows = await worker.off_loop(job.size, check_job, worker, job, snapshot)
        if job.map is not None:
            edits.extend(job.edits(await worker.apply(job.map, rows)))
    for text in plan.texts:
        edits.append((text.slot, await _encode(worker, text, snapshot)))
    return edits


async def _encode(worker: Worker, text: TextJob, snapshot: Snapshot) -> Float32:
    """A text as a row (1, dim) in its index's space."""
    if text.beside is not None:
        legacy, adapted = await asyncio.gather(
            _encode(worker, replace(text, beside=None), snapshot), _encode(worker, text.beside, snapshot)
        )
        blended: Float32 = blend_queries(legacy, adapted, text.weight) * np.float32(np.linalg.norm(legacy))
        return blended  # as long as the index's own
    row = text.row = await worker.encode(text, snapshot)
    return row if text.map is None else await worker.apply(text.map, row)


def check_job(worker: Worker, job: Job, snapshot: Snapshot, *, counts: bool = True) -> Float32:
    """The rows of a job (n, dim), found sound; raises BadVector and ForeignVector.

    Without `counts` a refusal is not counted: somebody else will come to it again.
    """
    rows = job.gather()
    check_rows(rows, job)
    mode = snapshot.config.detect.fingerprint
    if mode == "off" or not job.space.fingerprints or (mode == "count" and not worker.samples()):
        return rows
    row = find_foreign(rows, job, sample=mode != "refuse")
    if row is None:
        return rows
    if counts or mode != "refuse":
        worker.tally.foreign[job.space.collection, job.model] += 1
    if mode == "refuse":
        raise foreign_error(rows, row, job)
    if mode == "warn":
        worker.warn(f"{foreign_error(rows, row, job)}; it passes")
    return rows


def carries_answer(operation: Operation, response: Response) -> bool:
    """Whether there is an answer to read: not an error, which passes as it is."""
    if operation.transport == "grpc":
        return response.status == 200 and "grpc-status" not in response.headers
    return response.status == 200


class _Back(NamedTuple):
    """An answer's body after mapping back, and what the mark says of its vectors."""

    body: bytes
    changed: bool
    results: str


async def _map_back(
    worker: Worker,
    incoming: Incoming,
    request: Message,
    plan: Plan,
    declared: Declared,
    snapshot: Snapshot,
    target: Target,
    response: Response,
) -> _Back:
    """The answer with its vectors in the client's space; one that cannot be read, or is too large, stays as it is."""
    operation, limit = incoming.operation, snapshot.config.limits.body
    body = await read_all(target, response, limit)
    if not body:
        return _Back(body, False, "")
    unread = _Back(body, False, describe_results([], left=True))
    if len(body) > limit:
        return unread
    encoding = response.headers.get(ENCODINGS[operation.transport])
    if operation.describes:
        return _tell_dims(worker, operation, request, declared, snapshot, body, encoding)
    try:
        opened = await worker.off_loop(len(body), unpack, operation, body, encoding, limit)
        mapped, results = await map_answer(worker, operation, Read(request, declared, 0.0), plan, snapshot, opened)
    except (MalformedError, MalformedRequest, BodyTooLarge):
        return unread  # whatever it is, the client may still make sense of it
    if mapped is None:
        return _Back(body, False, "")
    return _Back(pack(mapped, operation.transport), True, results)


async def map_answer(
    worker: Worker, operation: Operation, read: Read, plan: Plan, snapshot: Snapshot, body: bytes
) -> tuple[bytes | None, str]:
    """An unpacked answer with its vectors in the client's space (None: as it is), and what the mark says of them.

    Raises MalformedError.
    """
    answer = await worker.off_loop(len(body), worker.dialect.read_answer, operation, read.message, body)
    jobs = plan_answer(answer, plan, read.declared, snapshot)
    edits: list[Edit] = []
    for job in jobs:
        assert job.map is not None  # plan_answer lists only what is mapped
        edits.extend(job.edits(await worker.apply(job.map, await worker.off_loop(job.size, job.gather))))
    if not edits:
        return None, ""
    return await worker.off_loop(len(body), answer.edited, edits), describe_results(jobs, left=False)


def _tell_dims(
    worker: Worker,
    operation: Operation,
    request: Message,
    declared: Declared,
    snapshot: Snapshot,
    body: bytes,
    encoding: str | None,
) -> _Back:
    """A description of collections with the lengths of the vectors that this client sends."""
    schemas = worker.dialect.schemas
    assert schemas is not None  # a dialect whose operations describe has one
    opened = unpack(operation, body, encoding, snapshot.config.limits.body)
    try:
        edits = plan_dims(schemas.find_dims(operation, request, opened), declared, snapshot)
    except MalformedError:
        return _Back(body, False, "")  # whatever it is, the client may still make sense of it
    if not edits:
        return _Back(body, False, "")
    edited = schemas.write_dims(operation, opened, edits)
    return _Back(pack(edited, operation.transport), True, "")
