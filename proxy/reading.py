"""Requests of collections that are being migrated: read by the strategy that holds, and led to where the points are.

A collection whose migration is completed is its target from then on, whatever is asked. Before that, reads are
answered as `strategies` says; whatever goes wrong with the new index, the old one answers alone, and the mark and the
metrics say why. Writes go on as they are: the old index takes every write first.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np

from crossfade.adapters.weights import Weights
from crossfade.backends.dialect import MalformedError, RequestContext, Role, ScoreSlot, VectorSlot
from crossfade.backends.reading import Asking, Search

from .asking import asked_headers
from .crossfading import Asked, Crossfade, OldFailed
from .detect import detect_model
from .driver import ENCODINGS, Incoming, Outgoing, Read, carries_answer, carry_out, prepare, read_incoming, settle
from .errors import BodyTooLarge, EncoderFailed, MalformedRequest, RequestError
from .exchange import Float32, Plan, TextJob, plan_request
from .framing import unpack
from .migration.machine import State
from .migration.record import MigrationView
from .patience import Patience, TargetFailed, seconds_to_wait
from .routing import Snapshot, find_view
from .shadowing import TOP, Shadow, draws
from .strategies import Request, Way, choose_way, find_key, find_weights, read_wanted
from .upstream import read_all
from .worker import Worker

_PATIENCE = 2.0  # seconds, of a migration that the configuration does not name any more


async def exchange_migrated(worker: Worker, incoming: Incoming) -> Outgoing:
    """Do what one request needs while some collection is being migrated; raises what `driver.exchange` raises."""
    snapshot = worker.live.snapshot
    read = await read_incoming(worker, incoming, snapshot)
    view = find_view(snapshot, read.message.collections)
    if view is not None and view.state is not State.COMPLETED and not incoming.operation.writes:
        if view.migrated > 0:
            read = await settle(worker, incoming, snapshot, read, view.collection)
        return await Reading(worker, incoming, read, snapshot, view).answer()
    plan = plan_request(read.message, read.declared, snapshot)
    names = None if view is None or view.state is not State.COMPLETED else {view.collection: view.target}
    outgoing = await carry_out(worker, incoming, read, plan, snapshot, names)
    if view is not None and names is not None and not incoming.operation.writes:
        worker.tally.reads[view.collection, "completed"] += 1
    return outgoing


def check_answer(worker: Worker, incoming: Incoming, outgoing: Outgoing, snapshot: Snapshot) -> None:
    """Raise TargetFailed where the target says in its answer that it failed."""
    operation, codec = incoming.operation, worker.dialect.reading
    assert codec is not None  # a dialect without one has no target
    encoding = None if outgoing.changed else outgoing.response.headers.get(ENCODINGS[operation.transport])
    try:
        failed = codec.refuses(operation, unpack(operation, outgoing.gathered, encoding, snapshot.config.limits.body))
    except (MalformedRequest, BodyTooLarge):
        return  # whatever it is, the client may still make sense of it
    if failed:
        raise TargetFailed("refused")


def wait_seconds(incoming: Incoming, snapshot: Snapshot, view: MigrationView) -> float:
    """How long a request may wait for the new index."""
    settings = snapshot.config.collections.get(view.collection)
    migrate = None if settings is None else settings.migrate
    limit = _PATIENCE if migrate is None else migrate.fall_back_after
    return seconds_to_wait(limit, incoming.named.get("grpc-timeout"))


@dataclass(slots=True, eq=False)
class Reading:
    """One read of a collection whose migration is not completed."""

    worker: Worker
    incoming: Incoming
    read: Read
    snapshot: Snapshot
    view: MigrationView

    async def answer(self) -> Outgoing:
        """The answer by the strategy that holds for this request."""
        began = perf_counter()
        wanted = read_wanted(self.incoming.named, self.view.collection)
        plan = plan_request(self.read.message, self.read.declared, self.snapshot)
        searches = self._find_searches(plan)
        model = self._find_model(plan)
        why: str | None = None
        verdict = self.snapshot.verdicts.get(self.view.collection)
        request = self._describe(plan, searches, model)
        way = choose_way(self.view, wanted, request, verdict)
        weights = find_weights(self.view, wanted, way, request.texts, verdict)
        self._count_model(plan, model)
        try:
            outgoing = await self._go(way, weights, plan, searches)
        except TargetFailed as error:
            why = error.reason
        except OldFailed:  # whatever it was, the request as it is will meet it too, and say so
            why = "old"
        except EncoderFailed:
            if not way.startswith("legacy"):
                raise
            why = "encoder"
        if why is not None:
            self.worker.tally.fallbacks[self.view.collection, way, why] += 1
            outgoing = await carry_out(self.worker, self.incoming, self.read, plan, self.snapshot)
        self.worker.tally.read_latency[self.view.collection].observe(perf_counter() - began)
        if way not in ("old", "native") and searches is not None and draws(self.view.shadow):
            outgoing = await self._shadow(outgoing, plan, searches)
        return self._mark(outgoing, way, why)

    async def _shadow(self, outgoing: Outgoing, plan: Plan, searches: list[Search]) -> Outgoing:
        """Ask the new index the same once the answer has gone, if it is one search from the first hit on."""
        operation, codec, config = self.incoming.operation, self.worker.dialect.reading, self.snapshot.config
        vector = _true_vector(plan, searches[0])
        if (
            len(searches) > 1
            or searches[0].offset
            or vector is None
            or not carries_answer(operation, outgoing.response)
        ):
            return outgoing
        assert codec is not None  # it has found the searches
        limit = config.limits.body
        if not outgoing.gathered:
            outgoing = outgoing._replace(gathered=await read_all(outgoing.target, outgoing.response, limit))
        try:
            encoding = None if outgoing.changed else outgoing.response.headers.get(ENCODINGS[operation.transport])
            lists = codec.read_hits(operation, self.read.message, unpack(operation, outgoing.gathered, encoding, limit))
        except (MalformedError, MalformedRequest, BodyTooLarge):
            return outgoing
        found = [hit.id for hits in lists[:1] for hit in hits[:TOP]]
        if found:
            asked = codec.form_searches(operation, self.read.message, [(searches[0], Asking(vector, len(found)))])
            names = {self.view.collection: self.view.target}
            path, message = codec.retarget(
                operation, self.incoming.path, asked, names, RequestContext(self.incoming.named)
            )
            path = f"{path}?{self.incoming.query}" if self.incoming.query else path
            headers = asked_headers(self.incoming)
            shadow = Shadow(self.view.collection, operation, path, self.read.message, message, headers, found, limit)
            self.worker.shadows.start(shadow, config.upstreams[outgoing.target.upstream], codec)
        return outgoing

    def _find_searches(self, plan: Plan) -> list[Search] | None:
        """The plain searches of the request, if it is nothing but such, in the field that is re-encoded."""
        codec = self.worker.dialect.reading
        searches = None if codec is None else codec.find_searches(self.incoming.operation, self.read.message)
        if searches is None:
            return None
        jobs = {id(slot): job.space for job in plan.jobs for slot in job.slots}
        jobs |= {id(text.slot): text.space for text in plan.texts}
        spaces = [jobs.get(id(search.slot)) for search in searches]
        there = all(space is not None and space.field in (self.view.field, "") for space in spaces)
        return list(searches) if there else None

    def _find_model(self, plan: Plan) -> str | None:
        """The model of the request's queries, or the one whose vectors the client would be given."""
        space = self.snapshot.find_space(self.view.collection, self.view.field)
        if space is None:
            return None
        for field in (self.view.field, ""):  # a request that names none means the only one there is
            asked = plan.models.get((space.collection, field))
            if asked is not None:
                return asked
        try:
            return detect_model(space, self.read.declared, Role.RESULT, None, None, self.snapshot.models)
        except RequestError:
            return None

    def _describe(self, plan: Plan, searches: list[Search] | None, model: str | None) -> Request:
        slot = next((one for one in self.read.message.slots if isinstance(one, VectorSlot)), None)
        vector = None if slot is None else slot.rows[0].tobytes()
        header = self.snapshot.config.detect.clients.header
        key = find_key(self.incoming.named, header, self.incoming.peer, vector)
        texts = bool(plan.texts) and not plan.jobs and self.snapshot.encodes(self.view.from_model)
        return Request(model, key, searches is not None, texts)

    def _count_model(self, plan: Plan, model: str | None) -> None:
        """Remember queries of other models: a migration is not completed while they come."""
        if model is not None and model != self.view.to_model and plan.models:
            self.worker.tally.old_queries[self.view.collection, model] += 1
            self.worker.tally.last_old[self.view.collection, model] = time.time()

    async def _go(self, way: Way, weights: Weights, plan: Plan, searches: list[Search] | None) -> Outgoing:
        match way:
            case "native":
                return await self._ask_target()
            case "crossfade" | "legacy-crossfade":
                assert searches is not None  # the choice was made for plain searches
                asking = self._with_both(plan, weights) if way == "legacy-crossfade" else plan
                return await self._crossfade(plan, asking, searches, weights.trust)
            case "legacy-encode":
                plan = self._with_both(plan, weights)
        return await carry_out(self.worker, self.incoming, self.read, plan, self.snapshot)

    def _with_both(self, plan: Plan, weights: Weights) -> Plan:
        """Texts of the new model as the old one makes vectors of them, blended with what the new one does."""

        def both(text: TextJob) -> TextJob:
            if text.model != self.view.to_model:
                return text
            old = TextJob(text.space, self.view.from_model, None, text.slot)
            return replace(old, beside=text, weight=weights.adapted)

        return replace(plan, texts=[both(text) for text in plan.texts])

    @property
    def _patience(self) -> Patience:
        return self.worker.patience.setdefault(self.view.id, Patience())

    @property
    def _seconds(self) -> float:
        return wait_seconds(self.incoming, self.snapshot, self.view)

    async def _ask_target(self) -> Outgoing:
        """The request as it will be once the migration is completed; raises TargetFailed."""
        turned = self.snapshot.turn(self.view.collection)
        plan = plan_request(self.read.message, self.read.declared, turned)
        self._patience.check()
        return await self._patience.wait(self._gather(plan, turned), self._seconds)

    async def _gather(self, plan: Plan, turned: Snapshot) -> Outgoing:
        names = {self.view.collection: self.view.target}
        outgoing = await carry_out(self.worker, self.incoming, self.read, plan, turned, names)
        if not carries_answer(self.incoming.operation, outgoing.response):
            raise TargetFailed("refused")
        if not outgoing.gathered:
            limit = self.snapshot.config.limits.body
            outgoing = outgoing._replace(gathered=await read_all(outgoing.target, outgoing.response, limit))
        check_answer(self.worker, self.incoming, outgoing, self.snapshot)
        return outgoing

    async def _crossfade(self, plan: Plan, asking: Plan, searches: list[Search], trust: float) -> Outgoing:
        """Both indexes merged; `asking` is the plan that makes the old one's vectors."""
        target = self.worker.target(self.snapshot, self.incoming.operation.transport)
        crossfade = Crossfade(
            self.worker,
            self.incoming,
            self.read,
            plan,
            self.snapshot,
            self.view,
            target,
            self._patience,
            self._seconds,
            trust,
        )
        outgoing, _ = await crossfade.answer(await self._find_vectors(plan, asking, searches))
        if self.snapshot.config.detect.observe:
            self.worker.observe(plan)
        return outgoing

    async def _find_vectors(self, plan: Plan, asking: Plan, searches: list[Search]) -> list[Asked]:
        """Each search with its vectors for both indexes."""
        edits = await prepare(self.worker, asking, self.snapshot)
        old = {id(slot): np.asarray(rows) for slot, rows in edits if not isinstance(slot, ScoreSlot)}
        asked = []
        for search in searches:
            true = _true_vector(plan, search)
            assert true is not None  # `prepare` has encoded every text
            asked.append(Asked(search, true, old[id(search.slot)][search.row]))
        return asked

    def _mark(self, outgoing: Outgoing, way: Way, why: str | None) -> Outgoing:
        """Say how the answer was found, and count it."""
        done = "adapt" if why is not None else way
        self.worker.tally.reads[self.view.collection, done] += 1
        if way == "old" or not self.snapshot.config.answers.mark:
            return outgoing
        mark = outgoing.mark
        if outgoing.mark is None:
            index = self.view.to_model if done == "native" else f"{self.view.from_model},{self.view.to_model}"
            mark = f"{outgoing.done}; model={self.view.to_model}; index={index}"
        instead = f"; instead-of={way}; because={why}" if why is not None else ""
        return outgoing._replace(mark=f"{mark}; strategy={done}{instead}")


def _true_vector(plan: Plan, search: Search) -> Float32 | None:
    """The vector (dim,) of a search as its model made it; None of a text that has not been encoded."""
    if isinstance(search.slot, VectorSlot):
        row: Float32 = search.slot.rows[search.row]
        return row
    return next((text.row[0] for text in plan.texts if text.slot is search.slot and text.row is not None), None)
