"""One request from body to answer: read, plan, encode, map, forward, map back. The only place that awaits for it."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter
from typing import NamedTuple

from pyqwest import Response

from crossfade.backends.dialect import Edit, MalformedError, Message, Operation, RequestContext, Transport

from .detect import Declared, read_declared
from .errors import BodyTooLarge, MalformedRequest, SchemaUnknown
from .exchange import (
    Float32,
    Job,
    Plan,
    check_rows,
    describe_results,
    find_foreign,
    foreign_error,
    plan_answer,
    plan_dims,
    plan_request,
)
from .framing import frame, inflate, unframe
from .routing import Snapshot
from .upstream import Target, TextHeaders, call_upstream, forwarded_headers, read_all
from .worker import LOOP_BYTES, Worker

_NOTHING: frozenset[str] = frozenset()
_ENCODING = {"grpc": "grpc-encoding", "rest": "content-encoding"}
_ACCEPT = {"grpc": "grpc-accept-encoding", "rest": "accept-encoding"}


class Incoming(NamedTuple):
    """A request as it arrived, its body gathered; `named` has the last value of each header."""

    operation: Operation
    headers: TextHeaders
    named: dict[str, str]
    authority: str
    path: str  # raw, without the query string
    query: str
    body: bytes


class Outgoing(NamedTuple):
    """An answer on its way back: what of its content was gathered, whether it was changed, and what to say of it."""

    target: Target
    response: Response
    gathered: bytes  # the rest, if any, is still to be read from the response
    changed: bool
    mark: str | None
    done: str  # the first word of the mark, for metrics


async def exchange(worker: Worker, incoming: Incoming) -> Outgoing:
    """Do what one request needs.

    Raises RequestError for what cannot be served, UpstreamDown, EncoderFailed.
    """
    started = perf_counter()
    snapshot = worker.live.snapshot
    operation = incoming.operation
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
    declared = read_declared(named, snapshot.config.detect)
    plan = plan_request(message, declared, snapshot)
    planned = perf_counter()
    worker.tally.latency["detect"].observe(planned - started)

    edits = await _prepare(worker, plan, snapshot)
    body, dropped = incoming.body, _NOTHING
    if edits:
        body = (
            _edit(message, edits, operation.transport)
            if small
            else await worker.off_loop(len(body), _edit, message, edits, operation.transport)
        )
        dropped = frozenset({_ENCODING[operation.transport]})
    if plan.reads_answer:
        dropped = dropped | {_ACCEPT[operation.transport]}
    mapped = perf_counter()
    if edits:
        worker.tally.latency["map"].observe(mapped - planned)

    path = f"{incoming.path}?{incoming.query}" if incoming.query else incoming.path
    target = worker.target(snapshot, operation.transport)
    headers = forwarded_headers(incoming.headers, dropped)
    response = await call_upstream(target, operation.method, incoming.authority, path, headers, body)
    worker.tally.latency["upstream"].observe(perf_counter() - mapped)
    if snapshot.config.detect.observe and _carries_answer(operation, response):
        worker.observe(plan)
    back = _Back(b"", False, "")
    if plan.reads_answer and _carries_answer(operation, response):
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
    operation, limit = incoming.operation, snapshot.config.limits.body
    if operation.transport == "grpc":
        body = unframe(incoming.body, named.get("grpc-encoding"), operation.name, limit)
    else:
        body = inflate(incoming.body, named.get("content-encoding"), operation.name, limit)
    context = RequestContext(named, snapshot.config.detect.param, worker.schemas.find, incoming.query)
    try:
        return worker.dialect.read_request(operation, incoming.path, body, context)
    except MalformedError as error:
        raise MalformedRequest(operation.name, str(error)) from error


def _edit(message: Message, edits: list[Edit], transport: Transport) -> bytes:
    edited = message.edited(edits)
    return frame(edited) if transport == "grpc" else edited


async def _prepare(worker: Worker, plan: Plan, snapshot: Snapshot) -> list[Edit]:
    """Encode and map everything a request needs."""
    edits: list[Edit] = list(plan.scores)
    for job in plan.jobs:
        if job.size <= LOOP_BYTES:
            rows = _check_job(worker, job, snapshot)
        else:
            rows = await worker.off_loop(job.size, _check_job, worker, job, snapshot)
        if job.map is not None:
            edits.extend(job.edits(await worker.apply(job.map, rows)))
    for text in plan.texts:
        row = text.row = await worker.encode(text, snapshot)
        edits.append((text.slot, row if text.map is None else await worker.apply(text.map, row)))
    return edits


def _check_job(worker: Worker, job: Job, snapshot: Snapshot) -> Float32:
    """The rows of a job (n, dim), found sound; raises BadVector and ForeignVector."""
    rows = job.gather()
    check_rows(rows, job)
    mode = snapshot.config.detect.fingerprint
    if mode == "off" or not job.space.fingerprints or (mode == "count" and not worker.samples()):
        return rows
    row = find_foreign(rows, job, sample=mode != "refuse")
    if row is None:
        return rows
    worker.tally.foreign[job.space.collection, job.model] += 1
    if mode == "refuse":
        raise foreign_error(rows, row, job)
    if mode == "warn":
        worker.warn(f"{foreign_error(rows, row, job)}; it passes")
    return rows


def _carries_answer(operation: Operation, response: Response) -> bool:
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
    encoding = response.headers.get(_ENCODING[operation.transport])
    if operation.describes:
        return _tell_dims(worker, operation, request, declared, snapshot, body, encoding)
    try:
        answer = await worker.off_loop(len(body), _read_answer, worker, operation, request, body, encoding, limit)
    except (MalformedError, MalformedRequest, BodyTooLarge):
        return unread  # whatever it is, the client may still make sense of it
    jobs = plan_answer(answer, plan, declared, snapshot)
    edits: list[Edit] = []
    for job in jobs:
        assert job.map is not None  # plan_answer lists only what is mapped
        edits.extend(job.edits(await worker.apply(job.map, await worker.off_loop(job.size, job.gather))))
    if not edits:
        return _Back(body, False, "")
    edited = await worker.off_loop(len(body), _edit, answer, edits, operation.transport)
    return _Back(edited, True, describe_results(jobs, left=False))


def _read_answer(
    worker: Worker, operation: Operation, request: Message, body: bytes, encoding: str | None, limit: int
) -> Message:
    return worker.dialect.read_answer(operation, request, _open(operation, body, encoding, limit))


def _open(operation: Operation, body: bytes, encoding: str | None, limit: int) -> bytes:
    opened = unframe if operation.transport == "grpc" else inflate
    return opened(body, encoding, operation.name, limit)


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
    opened = _open(operation, body, encoding, snapshot.config.limits.body)
    try:
        edits = plan_dims(schemas.find_dims(operation, request, opened), declared, snapshot)
    except MalformedError:
        return _Back(body, False, "")  # whatever it is, the client may still make sense of it
    if not edits:
        return _Back(body, False, "")
    edited = schemas.write_dims(operation, opened, edits)
    return _Back(frame(edited) if operation.transport == "grpc" else edited, True, "")
