"""The fast path: what most requests need, decided for all that wait at once, and done by Envoy itself.

Envoy's filter (`filter/`, in C) hands over small requests whole. Here they are read, planned and mapped, with no task,
no await and no object of ASGI; Envoy's thread then calls the upstream and relays its answer, which Python never sees.
Whatever needs more (an answer that must be read, a text to encode, a schema to learn, an error to explain) is handed on
to the full route (`app`, `driver`), which begins again.
"""

from __future__ import annotations

import asyncio
import logging
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from crossfade.adapters.base import Map
from crossfade.backends.dialect import Edit, Message, Operation, RequestContext, Transport

from .detect import PORT_MODEL, Declared, read_declared
from .driver import check_job, read_message
from .envoy_clusters import channel_name, cluster_name
from .exchange import Float32, Plan, plan_request
from .framing import pack
from .native import load_filter
from .rescue import form_rescue, grpc_status, told
from .routing import Snapshot

if TYPE_CHECKING:
    from ._filter import Call, Channel
    from .worker import Worker

_MOST_CALLS = 32  # taken in one go: the first of them waits for the last
_MOST_KNOWN = 4096
_BROKEN_OFF, _RELAYED = 0, 1  # outcomes, as filter/call.h has them

log = logging.getLogger("crossfade.fastpath")
_opened: set[str] = set()


class Known(NamedTuple):
    """What requests of one method, path and set of headers have in common."""

    operation: Operation
    path: str
    context: RequestContext
    declared: Declared
    cluster: bytes


class Item(NamedTuple):
    """A request on its way through a batch, and where the mapped rows of its jobs will be found."""

    call: Call
    known: Known
    message: Message
    plan: Plan
    body: bytes
    began: float
    places: list[tuple[int, int, int]]  # of each job with a map: the map's number, first row and last


class FastPath:
    """The calls of one listener, on its event loop."""

    def __init__(self, worker: Worker, channel: Channel, transport: Transport | None) -> None:
        self._worker = worker
        self._transport = transport
        self._channel = channel
        self._snapshot: Snapshot | None = None
        self._selection = b""
        self._known: dict[bytes, Known] = {}
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._channel.fileno(), self._take)
        self._switch(worker.live.snapshot)
        self._channel.attend(True)

    def _switch(self, snapshot: Snapshot) -> None:
        """Begin to decide by another configuration."""
        detect, clients = snapshot.config.detect, snapshot.config.detect.clients
        names = {detect.header, clients.header, PORT_MODEL, "grpc-encoding", "content-encoding"}
        names |= {"content-type", *self._worker.dialect.read_headers}
        if clients.request_ids:
            names.add("client-request-id")
        if clients.user_agents:
            names.add("user-agent")
        self._snapshot = snapshot
        self._known.clear()
        self._selection = b"%d " % self._channel.select(*(name.lower().encode("latin-1") for name in sorted(names)))

    def _take(self) -> None:
        """Decide the calls that wait, those that need the same map in one product."""
        snapshot = self._worker.live.snapshot
        if snapshot is not self._snapshot:
            self._switch(snapshot)
        items: list[Item] = []
        maps: dict[int, tuple[Map, list[Float32]]] = {}
        for call, key, body in self._channel.take(_MOST_CALLS):
            if key is None:
                self._fail(call, body)
                continue
            try:
                item = self._begin(call, key, body, snapshot, maps)
            except Exception:  # the full route comes to the same, and explains it
                item = None
            if item is None:
                call.hand_on()
            else:
                items.append(item)
        mapped = {number: _multiply(through, rows) for number, (through, rows) in maps.items()}
        for item in items:
            self._end(item, mapped, snapshot)
        self.settle()

    def _begin(
        self, call: Call, key: bytes, body: bytes, snapshot: Snapshot, maps: dict[int, tuple[Map, list[Float32]]]
    ) -> Item | None:
        """Read and plan one request, and put its rows beside those of others; None: it needs the full route."""
        began = perf_counter()
        known = self._known.get(key) or self._learn(key, snapshot)
        if known is None:
            return None
        worker, limits = self._worker, snapshot.config.limits
        message = read_message(worker, known.operation, known.path, body, known.context, limits.body)
        if message.unsettled or (snapshot.migrations and _migrates(message, snapshot)):
            return None
        plan = plan_request(message, known.declared, snapshot)
        if plan.reads_answer or plan.texts or plan.rows > limits.inline_rows:
            return None
        places = []
        for job in plan.jobs:
            rows = check_job(worker, job, snapshot, counts=False)
            if job.map is not None:
                _, waiting = maps.setdefault(id(job.map), (job.map, []))
                start = sum(map(len, waiting))
                waiting.append(rows)
                places.append((id(job.map), start, start + len(rows)))
        return Item(call, known, message, plan, body, began, places)

    def _learn(self, key: bytes, snapshot: Snapshot) -> Known | None:
        """Read a key; None where its requests are always the full route's."""
        if not key.startswith(self._selection):
            return None  # made before the configuration changed
        request, *lines = key[len(self._selection) :].decode("latin-1").split("\n")
        method, _, target = request.partition(" ")
        path, _, query = target.partition("?")
        named = dict(line.split(": ", 1) for line in lines if line)
        transport = self._transport or ("grpc" if named["content-type"].startswith("application/grpc") else "rest")
        operation = self._worker.dialect.find_operation(transport, method, path)
        if operation is None or operation.describes:
            return None
        context = RequestContext(named, snapshot.config.detect.param, self._worker.schemas.find, query)
        declared = read_declared(named, snapshot.config.detect)
        if operation.writes and snapshot.watches:
            return None  # a migration has to know when it has ended
        cluster = cluster_name(self._worker.target(snapshot, transport).upstream, transport, snapshot.epoch).encode()
        known = Known(operation, path, context, declared, cluster)
        if len(self._known) < _MOST_KNOWN:  # what stands in a key comes from clients
            self._known[key] = known
        return known

    def _end(self, item: Item, mapped: dict[int, Float32 | None], snapshot: Snapshot) -> None:
        """Write the mapped rows into a request and send it on."""
        call, known, message, plan, body, began, places = item
        planned = perf_counter()
        latency = self._worker.tally.latency
        edits: list[Edit] = list(plan.scores)
        jobs = (job for job in plan.jobs if job.map is not None)
        for job, (number, start, end) in zip(jobs, places, strict=True):
            rows = mapped[number]
            if rows is None:
                call.hand_on()
                return
            edits.extend(job.edits(rows[start:end]))
        if edits:
            body = pack(message.edited(edits), known.operation.transport)
        mark = plan.mark
        done = mark.partition(";")[0] if mark else "passed"
        sent = mark.encode("latin-1", "replace") if mark and snapshot.config.answers.mark else None
        if not call.forward(known.cluster, body, bool(edits), sent, (known.operation, done, plan)):
            self._count(known.operation, "cancelled")
        latency["detect"].observe(planned - began)
        if edits:
            latency["map"].observe(perf_counter() - planned)

    def _fail(self, call: Call, reason: bytes) -> None:
        """Answer a call that the upstream did not answer, or not to the end."""
        if call.gone:
            return
        operation, _, _ = call.token
        transport = operation.transport
        worker = self._worker
        error = worker.target(worker.live.snapshot, transport).down(reason.decode("utf-8", "replace"))
        worker.tally.errors[operation.name, error.label] += 1
        if call.started:
            trailers = tuple(grpc_status(error.grpc_code, told(error))) if transport == "grpc" else None
            call.answer((), b"", trailers)
            return
        rescue = form_rescue(worker.dialect, operation, transport, error)
        headers = ((b":status", str(rescue.status).encode()), *rescue.headers)
        call.answer(headers, rescue.body, None if rescue.trailers is None else tuple(rescue.trailers))

    def settle(self) -> None:
        """Count the calls that have ended."""
        worker = self._worker
        observes = worker.live.snapshot.config.detect.observe
        for (operation, done, plan), outcome, seconds in self._channel.finished():
            if outcome == _BROKEN_OFF:
                self._count(operation, "cancelled")
                continue
            self._count(operation, done)
            worker.tally.routes["fast",] += 1
            worker.tally.latency["upstream"].observe(seconds)
            if observes and outcome == _RELAYED:
                worker.observe(plan)

    def _count(self, operation: Operation, done: str) -> None:
        self._worker.tally.requests[operation.name, operation.transport, done] += 1

    def stop(self) -> None:
        """Take no more calls."""
        self._channel.attend(False)
        self._loop.remove_reader(self._channel.fileno())
        self.settle()


def open_fastpath(worker: Worker, transport: Transport | None) -> FastPath | None:
    """The fast path of a listener; None where there is no filter, or another loop of this process serves it."""
    name = channel_name(worker.dialect.kind, transport)
    loaded = load_filter()
    if loaded is None or name in _opened:
        return None
    _opened.add(name)
    return FastPath(worker, loaded.open(name), transport)


def _migrates(message: Message, snapshot: Snapshot) -> bool:
    """Whether a request names a collection with a migration: its writes are captured, its reads may go elsewhere."""
    return any(name in snapshot.migrations for name in message.collections)


def _multiply(through: Map, rows: list[Float32]) -> Float32 | None:
    """The product for all requests that wait; None when it fails, which the full route finds for each."""
    try:
        return through.apply(rows[0] if len(rows) == 1 else np.concatenate(rows))
    except Exception:
        log.exception("a product for %d requests failed", len(rows))
        return None
