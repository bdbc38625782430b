"""The fast path: what most requests need, decided for all that wait at once, and done by Envoy itself.

Envoy's filter (`filter/`, in C) hands over small requests whole. Here they are read, planned and mapped, with no task,
no await and no object of ASGI; Envoy's thread then calls the upstream and relays its answer, which Python never sees.
Whatever needs more (an answer that must be read, a text to encode, a schema to learn, an error to explain) is handed on
to the full route (`app`, `driver`), which begins again.
"""

from __future__ import annotations

import asyncio
import logging
from math import isfinite
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from crossfade.adapters.base import Map
from crossfade.backends.dialect import Edit, Message, Operation, Schema, Transport
from crossfade.backends.pieces import join_pieces

from .driver import check_job, read_message
from .envoy_clusters import channel_name
from .exchange import Float32, Plan, find_foreign, plan_request
from .fastcalls import Alike, Arrival, Arrived, Item, Sent
from .fastfailure import answer_failure
from .fastreads import is_adapted
from .fastwrites import FastWrites, Passage
from .framing import pack_pieces
from .keys import Known, read_key, selected_headers
from .native import load_filter
from .routing import Snapshot, find_view
from .templates import Template, fill_templates, make_template, read_together

if TYPE_CHECKING:
    from ._filter import Call, Channel
    from .worker import Worker

_MOST_CALLS = 32  # taken in one go: the first of them waits for the last
_MOST_KNOWN = 4096
_SAMPLED = ("off", "count")  # the fingerprint modes that do not look at every vector
_BROKEN_OFF, _RELAYED = 0, 1  # outcomes, as filter/call.h has them

log = logging.getLogger("crossfade.fastpath")
_opened: set[str] = set()


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
        self._writes = FastWrites(worker, self._loop)
        self._loop.add_reader(self._channel.fileno(), self._take)
        self._switch(worker.live.snapshot)
        self._channel.attend(True)

    def _switch(self, snapshot: Snapshot) -> None:
        """Begin to decide by another configuration."""
        self._snapshot = snapshot
        self._known.clear()
        self._selection = b"%d " % self._channel.select(*selected_headers(self._worker.dialect, snapshot.config))

    def _take(self) -> None:
        """Decide the calls that wait, those that need the same map in one product."""
        snapshot = self._worker.live.snapshot
        if snapshot is not self._snapshot:
            self._switch(snapshot)
        began = perf_counter()
        alike: dict[int, list[Alike]] = {}
        others: list[Arrived] = []
        for call, key, body in self._channel.take(_MOST_CALLS):
            if key is None:
                self._loop.call_soon(answer_failure, self._worker, call, body)
                continue
            known = self._known.get(key)
            template = None if known is None else self._find_template(known, body)
            if known is None or template is None:
                others.append((call, key, body))
            else:
                alike.setdefault(id(template.map), []).append(Alike(call, key, known, template, body))
        for together in alike.values():
            others += self._fill(together, snapshot, began)
        if others:
            self._decide(others, snapshot)
        self.settle()

    def _find_template(self, known: Known, body: bytes) -> Template | None:
        template = known.templates.find(body)
        if template is not None:
            for collection, schema in template.schemas:
                if self._worker.schemas.find(collection) is not schema:
                    return None
        return template

    def _fill(self, together: list[Alike], snapshot: Snapshot, began: float) -> list[Arrived]:
        """Send on requests that fit templates with one map; returns them when they have to be looked at one by one."""
        worker = self._worker
        rows = read_together([one.body[one.template.start : one.template.end] for one in together])
        flat = rows.ravel()
        mapped = _multiply(together[0].template.map, [rows]) if isfinite(flat @ flat) else None
        if mapped is None:
            return [(one.call, one.key, one.body) for one in together]
        planned = perf_counter()
        bodies = fill_templates([one.template for one in together], mapped)
        for at, (call, _, known, template, _) in enumerate(together):
            row = rows[at : at + 1]
            self._sample(template, row, snapshot)
            sent = Sent(known.operation, template.done, None, template, row, reads=template.reads)
            if not call.forward(known.cluster, bodies[at], True, template.mark, sent, False):
                self._count(known.operation, "cancelled")
        worker.tally.latency["detect"].observe(planned - began, len(together))
        worker.tally.latency["map"].observe(perf_counter() - planned, len(together))
        return []

    def _sample(self, template: Template, row: Float32, snapshot: Snapshot) -> None:
        """Let the fingerprint count a vector that looks like another model's, now and then."""
        space = template.space
        if snapshot.config.detect.fingerprint == "off" or not space.fingerprints or not self._worker.samples():
            return
        if find_foreign(row, template.job(row), sample=True) is not None:
            self._worker.tally.foreign[space.collection, template.model] += 1

    def _decide(self, arrived: list[Arrived], snapshot: Snapshot) -> None:
        """Read and plan requests one by one, multiply together, and send on."""
        items: list[Item] = []
        maps: dict[int, tuple[Map, list[Float32]]] = {}
        for call, key, body in arrived:
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
            try:
                self._end(item, mapped, snapshot)
            except Exception:
                log.exception("%s failed on the fast path", item.known.operation.name)
                item.hand_on()

    def _begin(
        self, call: Call, key: bytes, body: bytes, snapshot: Snapshot, maps: dict[int, tuple[Map, list[Float32]]]
    ) -> Item | None:
        """Read and plan one request, and put its rows beside those of others; None: it needs the full route."""
        began = perf_counter()
        known = self._known.get(key) or self._learn(key, snapshot)
        if known is None:
            return None
        if not known.guarded:
            return self._plan(Arrival(call, known, body, began), None, snapshot, maps)
        passage = self._writes.admit(known, body, snapshot)
        if passage is None:
            return None
        item = None
        try:
            item = self._plan(Arrival(call, known, body, began), passage, snapshot, maps)
        finally:
            if item is None:
                passage.drop()
        return item

    def _plan(
        self,
        arrival: Arrival,
        passage: Passage | None,
        snapshot: Snapshot,
        maps: dict[int, tuple[Map, list[Float32]]],
    ) -> Item | None:
        call, known, body, began = arrival
        worker, limits = self._worker, snapshot.config.limits
        message, plan, reads = None, Plan(), None
        if known.carries:
            message = read_message(worker, known.operation, known.path, body, known.context, limits.body)
            if message.unsettled:
                return None
            plan = plan_request(message, known.declared, snapshot)
            if passage is None and snapshot.migrations and (view := find_view(snapshot, message.collections)):
                if not is_adapted(message, plan, view, known):
                    return None  # its writes are captured, its reads may go elsewhere
                reads = view.collection
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
        return Item(call, known, message, plan, body, began, places, passage, reads)

    def _learn(self, key: bytes, snapshot: Snapshot) -> Known | None:
        """Read a key; None where its requests are always the full route's."""
        if not key.startswith(self._selection):
            return None  # made before the configuration changed
        known = read_key(key[len(self._selection) :], self._worker, self._transport, snapshot)
        if known is not None and len(self._known) < _MOST_KNOWN:  # what stands in a key comes from clients
            self._known[key] = known
        return known

    def _end(self, item: Item, mapped: dict[int, Float32 | None], snapshot: Snapshot) -> None:
        """Write the mapped rows into a request and send it on."""
        call, known, message, plan, body, began, places, passage, reads = item
        planned = perf_counter()
        latency = self._worker.tally.latency
        edits: list[Edit] = list(plan.scores)
        rows: Float32 | None = None
        jobs = (job for job in plan.jobs if job.map is not None)
        for job, (number, start, end) in zip(jobs, places, strict=True):
            product = mapped[number]
            if product is None:
                item.hand_on()
                return
            rows = product[start:end]
            edits.extend(job.edits(rows))
        sent = body
        if edits and message is not None:
            sent = join_pieces(pack_pieces(message.pieces(edits), known.operation.transport))
        mark = plan.mark
        done = mark.partition(";")[0] if mark else "passed"
        if passage is not None and passage.view is not None:
            mark = f"{mark or 'passed'}; captured"
        elif reads is not None:
            mark = f"{mark}; strategy=adapt"
        told = mark.encode("latin-1", "replace") if mark and snapshot.config.answers.mark else None
        token = Sent(known.operation, done, plan, passage=passage, reads=reads)
        if passage is not None:
            natives = self._writes.find_natives(passage, known, message, plan, edits)
            self._writes.capture(call, passage, known, sent, bool(edits), told, token, natives)
        elif not call.forward(known.cluster, sent, bool(edits), told, token, False):
            self._count(known.operation, "cancelled")
        latency["detect"].observe(planned - began)
        if edits:
            latency["map"].observe(perf_counter() - planned)
        if message is not None and rows is not None:
            self._keep_template(item, message, sent, rows, told, snapshot)

    def _keep_template(
        self, item: Item, message: Message, sent: bytes, rows: Float32, told: bytes | None, snapshot: Snapshot
    ) -> None:
        """Remember how a request was changed, for others that differ in their vector alone."""
        known = item.known
        if item.passage is not None or snapshot.config.detect.fingerprint not in _SAMPLED or not known.templates.pay():
            return
        done = (item.plan.mark or "passed").partition(";")[0]
        template = make_template(item.body, sent, item.plan, rows, self._schemas_of(message), told, done, item.reads)
        if template is not None:
            known.templates.keep(template)

    def _schemas_of(self, message: Message) -> tuple[tuple[str, Schema | None], ...]:
        """What a message was read by, where it does not say everything itself."""
        schemas = self._worker.schemas
        return () if schemas.codec is None else tuple((name, schemas.find(name)) for name in message.collections)

    def settle(self) -> None:
        """Count the calls that have ended."""
        worker = self._worker
        observes = worker.live.snapshot.config.detect.observe
        for (
            operation,
            done,
            plan,
            template,
            row,
            passage,
            reads,
        ), outcome, seconds, status in self._channel.finished():
            if passage is not None:
                passage.end(-1 if outcome == _BROKEN_OFF else status)
                if passage.mark is not None:
                    worker.tally.latency["journal"].observe(passage.marked_after)
            if outcome == _BROKEN_OFF:
                self._count(operation, "cancelled")
                continue
            self._count(operation, done)
            if reads is not None:
                worker.tally.reads[reads, "adapt"] += 1
                worker.tally.read_latency[reads].observe(seconds)
            worker.tally.routes["fast",] += 1
            worker.tally.latency["upstream"].observe(seconds)
            if not observes or outcome != _RELAYED:
                continue
            if plan is not None:
                worker.observe(plan)
            else:
                worker.observer.see(template.space, template.model, row)

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


def _multiply(through: Map, rows: list[Float32]) -> Float32 | None:
    """The product for all requests that wait; None when it fails, which the full route finds for each."""
    try:
        return through.apply(rows[0] if len(rows) == 1 else np.concatenate(rows))
    except Exception:
        log.exception("a product for %d requests failed", len(rows))
        return None
