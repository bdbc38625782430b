"""One request from body to answer: read, plan, encode, map, forward, map back. The only place that awaits for it."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

from pyqwest import Response

from crossfade.backends.dialect import Edit, MalformedError, Message, Operation

from .detect import Declared, read_declared
from .errors import MalformedRequest
from .exchange import (
    Float32,
    Job,
    Plan,
    check_rows,
    describe_results,
    find_foreign,
    foreign_error,
    plan_answer,
    plan_request,
)
from .framing import frame, inflate, unframe
from .routing import Snapshot
from .upstream import TextHeaders, call_upstream, forwarded_headers, read_all
from .worker import Worker

_NOTHING: frozenset[str] = frozenset()
_ENCODING = {"grpc": "grpc-encoding", "rest": "content-encoding"}
_ACCEPT = {"grpc": "grpc-accept-encoding", "rest": "accept-encoding"}


@dataclass(frozen=True, slots=True)
class Incoming:
    """A request as it arrived, its body gathered."""

    operation: Operation
    headers: TextHeaders
    authority: str
    path: str  # raw, without the query string
    query: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Outgoing:
    """An answer on its way back: the upstream's response, a new body if it was changed, and the mark."""

    response: Response
    body: bytes | None
    mark: str | None


async def exchange(worker: Worker, incoming: Incoming) -> Outgoing:
    """Do what one request needs.

    Raises RequestError for what cannot be served, UpstreamDown, EncoderFailed.
    """
    started = perf_counter()
    snapshot = worker.live.snapshot
    operation = incoming.operation
    named = dict(incoming.headers)
    message = _read_request(worker, incoming, named, snapshot)
    declared = read_declared(named, snapshot.config.detect)
    plan = plan_request(message, declared, snapshot, worker.encodes)
    planned = perf_counter()
    worker.tally.latency["detect"].observe(planned - started)

    edits = await _prepare(worker, plan, snapshot)
    body, dropped = incoming.body, _NOTHING
    if edits:
        edited = message.edited(edits)
        body = frame(edited) if operation.transport == "grpc" else edited
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
    mark = plan.mark
    answer = None
    if plan.reads_answer and _carries_answer(operation, response):
        answer, results = await _map_back(worker, incoming, message, plan, declared, snapshot, response)
        mark = f"{mark or 'native'}{results}" if results else mark
    return Outgoing(response, answer, mark if snapshot.config.answers.mark else None)


def _read_request(worker: Worker, incoming: Incoming, named: dict[str, str], snapshot: Snapshot) -> Message:
    operation, limit = incoming.operation, snapshot.config.limits.body
    if operation.transport == "grpc":
        body = unframe(incoming.body, named.get("grpc-encoding"), operation.name, limit)
    else:
        body = inflate(incoming.body, named.get("content-encoding"), operation.name, limit)
    try:
        return worker.dialect.read_request(operation, incoming.path, body)
    except MalformedError as error:
        raise MalformedRequest(operation.name, str(error)) from error


async def _prepare(worker: Worker, plan: Plan, snapshot: Snapshot) -> list[Edit]:
    """Encode and map everything a request needs."""
    edits: list[Edit] = list(plan.scores)
    for job in plan.jobs:
        rows = job.gather()
        check_rows(rows, job)
        _check_fingerprint(worker, rows, job, snapshot)
        if job.map is not None:
            edits.extend(job.edits(await worker.apply(job.map, rows)))
    for text in plan.texts:
        row = await worker.encode(text)
        edits.append((text.slot, row if text.map is None else await worker.apply(text.map, row)))
    return edits


def _check_fingerprint(worker: Worker, rows: Float32, job: Job, snapshot: Snapshot) -> None:
    mode = snapshot.config.detect.fingerprint
    if mode == "off" or not job.space.fingerprints or (mode != "refuse" and not worker.samples()):
        return
    row = find_foreign(rows, job, sample=mode != "refuse")
    if row is None:
        return
    worker.tally.foreign[job.space.collection, job.model] += 1
    if mode == "refuse":
        raise foreign_error(rows, row, job)


def _carries_answer(operation: Operation, response: Response) -> bool:
    """Whether there is an answer to read: not an error, which passes as it is."""
    if operation.transport == "grpc":
        return response.status == 200 and "grpc-status" not in response.headers
    return response.status == 200


async def _map_back(
    worker: Worker,
    incoming: Incoming,
    request: Message,
    plan: Plan,
    declared: Declared,
    snapshot: Snapshot,
    response: Response,
) -> tuple[bytes, str]:
    """The answer's body with its vectors in the client's space, and what the mark says of it."""
    operation, limit = incoming.operation, snapshot.config.limits.body
    body = await read_all(response)
    if not body:
        return body, ""
    encoding = response.headers.get(_ENCODING[operation.transport])
    try:
        if operation.transport == "grpc":
            answer = worker.dialect.read_answer(operation, request, unframe(body, encoding, operation.name, limit))
        else:
            answer = worker.dialect.read_answer(operation, request, inflate(body, encoding, operation.name, limit))
    except (MalformedError, MalformedRequest):
        return body, describe_results([], left=True)  # whatever it is, the client may still make sense of it
    jobs = plan_answer(answer, plan, declared, snapshot)
    edits: list[Edit] = []
    for job in jobs:
        assert job.map is not None  # plan_answer lists only what is mapped
        edits.extend(job.edits(await worker.apply(job.map, job.gather())))
    if not edits:
        return body, ""
    edited = answer.edited(edits)
    return frame(edited) if operation.transport == "grpc" else edited, describe_results(jobs, left=False)
