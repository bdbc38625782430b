"""What is to be done with one request and its answer, decided before anything is awaited.

Pure: `plan_request` and `plan_answer` turn slots into a Plan; the driver encodes, multiplies and forwards. Slots that
need the same map become one Job, so that an upsert of 10,000 points is one product.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from crossfade.adapters.base import Map
from crossfade.adapters.fingerprint import classify, mismatched
from crossfade.backends.dialect import DimSlot, Edit, Message, Role, ScoreSlot, TextSlot, VectorSlot

from .detect import Declared, check_declared, detect_model
from .errors import BadVector, ForeignVector, ModelNotMapped
from .routing import Snapshot, Space

Float32 = NDArray[np.float32]
_MOST_DECISIONS = 4096
_FEW = 64  # slots that are joined in one go
_SAMPLE = 64  # rows of one job looked at by the fingerprint where it only counts


@dataclass(slots=True)
class Job:
    """Vectors of one message that go through the same map (None: they are in the index's space already)."""

    space: Space
    model: str
    map: Map | None
    slots: list[VectorSlot] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes of its vectors."""
        return sum(slot.rows.nbytes for slot in self.slots)

    def gather(self) -> Float32:
        """All rows of the job, (n, dim)."""
        if len(self.slots) == 1:
            return self.slots[0].rows
        if len(self.slots) <= _FEW:
            return np.concatenate([slot.rows for slot in self.slots])
        gathered = np.empty((sum(len(slot.rows) for slot in self.slots), self.slots[0].rows.shape[1]), np.float32)
        start = 0
        for slot in self.slots:  # one by one, so that other threads can run in between
            end = start + len(slot.rows)
            gathered[start:end] = slot.rows
            start = end
        return gathered

    def edits(self, mapped: Float32) -> list[Edit]:
        """Hand the mapped rows (n, target_dim) back to their slots."""
        if len(self.slots) == 1:
            return [(self.slots[0], mapped)]
        edits: list[Edit] = []
        start = 0
        for slot in self.slots:
            end = start + len(slot.rows)
            edits.append((slot, mapped[start:end]))
            start = end
        return edits


@dataclass(slots=True)
class TextJob:
    """A text to be encoded by its model, and mapped if that is not the index's."""

    space: Space
    model: str
    map: Map | None
    slot: TextSlot
    row: Float32 | None = None  # (1, dim) of its model, once it is encoded
    beside: TextJob | None = None  # the same text by another model, to be blended with this one
    weight: float = 0.0  # of the one beside, 0 to 1


@dataclass(slots=True)
class Plan:
    """Everything to do before a request goes on, and what its answer needs."""

    jobs: list[Job] = field(default_factory=list)
    texts: list[TextJob] = field(default_factory=list)
    scores: list[Edit] = field(default_factory=list)
    models: dict[tuple[str, str], str] = field(default_factory=dict)  # of the queries, by (collection, field)
    reads_answer: bool = False

    @property
    def rows(self) -> int:
        """Vectors to be mapped."""
        return sum(len(slot.rows) for job in self.jobs if job.map is not None for slot in job.slots)

    @property
    def mark(self) -> str | None:
        """What was done, for the x-crossfade header: "adapted; model=e5-small; index=minilm-l6"."""
        done: list[Job | TextJob] = [*self.jobs, *self.texts]
        if not done:
            return None
        adapted = any(job.map is not None for job in done)
        word = "adapted" if adapted else "encoded" if self.texts else "native"
        if len(done) == 1:  # nearly always
            return f"{word}; model={done[0].model}; index={done[0].space.index_model}"
        models = ",".join(dict.fromkeys(job.model for job in done))
        indices = ",".join(dict.fromkeys(job.space.index_model for job in done))
        return f"{word}; model={models}; index={indices}"


def plan_request(message: Message, declared: Declared, snapshot: Snapshot) -> Plan:
    """Decide what a request needs.

    Raises RequestError (wrong dimension, unknown or unmapped model) for what no adapter can serve.
    """
    plan = Plan()
    found: dict[tuple[object, ...], Job] = {}
    for slot in message.slots:
        if isinstance(slot, VectorSlot):
            key = (slot.collection, slot.field, slot.role, slot.model, slot.rows.shape[1])
            job = found.get(key)
            if job is None:
                job = _open_declared(slot, message, declared, snapshot)
                if job is None:
                    continue
                found[key] = job
                plan.jobs.append(job)
                if slot.role is Role.QUERY:
                    plan.models.setdefault((job.space.collection, job.space.field), job.model)
            job.slots.append(slot)
    for slot in message.slots:
        if isinstance(slot, TextSlot):
            _plan_text(plan, slot, declared, snapshot)
        elif isinstance(slot, ScoreSlot):
            _plan_score(plan, slot, declared, snapshot)
    if message.wants_vectors and (configured := snapshot.configured(message.collections)):
        check_declared(declared, configured[0], snapshot)
        plan.reads_answer = True
    return plan


def plan_answer(answer: Message, plan: Plan, declared: Declared, snapshot: Snapshot) -> list[Job]:
    """Decide which vectors of an answer are mapped back, into the space of the client's model.

    A client asks for one model's vectors: that of its query on the same field, else the one that counts for queries.
    """
    jobs: dict[tuple[str, str | None], Job | None] = {}
    for slot in answer.slots:
        if not isinstance(slot, VectorSlot):
            continue
        key = (slot.collection, slot.field)
        if key not in jobs:
            jobs[key] = _open_result(slot, plan, declared, snapshot)
        job = jobs[key]
        if job is not None and slot.rows.shape[1] == job.space.dims[job.space.index_model]:
            job.slots.append(slot)
    return [job for job in jobs.values() if job is not None and job.slots]


def plan_dims(dims: Iterable[DimSlot], declared: Declared, snapshot: Snapshot) -> list[tuple[DimSlot, int]]:
    """Decide which lengths a client is told of fields that hold another model's vectors than it sends."""
    edits = []
    for slot in dims:
        space = snapshot.find_space(slot.collection, slot.field or "")
        if space is not None and slot.dim == space.dims[space.index_model]:
            asked = declared if declared.whole in space.dims else declared.without()
            model = detect_model(space, asked, Role.RESULT, None, None, snapshot.models)
            if space.dims[model] != slot.dim:
                edits.append((slot, space.dims[model]))
    return edits


def check_rows(rows: Float32, job: Job) -> None:
    """Refuse NaN and infinity; raises BadVector naming the first bad row."""
    flat = rows.ravel()
    if isfinite(flat @ flat):  # one product instead of a mask: all that nearly every vector needs
        return
    finite = np.isfinite(rows)
    if not finite.all():
        bad = int(np.argmin(finite.all(axis=1)))
        raise BadVector(collection=job.space.collection, field=job.space.field, row=bad, rows=len(rows))


def find_foreign(rows: Float32, job: Job, *, sample: bool) -> int | None:
    """The first row that does not look like the job's model, or None.

    With `sample` only the first rows are looked at: enough to count, not to refuse.
    """
    known = job.space.fingerprints.get(rows.shape[1], {})
    if job.model not in known:
        return None
    foreign = mismatched(rows[:_SAMPLE] if sample else rows, job.model, known)
    return int(np.argmax(foreign)) if foreign.any() else None


def foreign_error(rows: Float32, row: int, job: Job) -> ForeignVector:
    """The refusal of a vector that looks like another model's."""
    known = job.space.fingerprints[rows.shape[1]]
    likely = classify(rows[row : row + 1], known)[0]
    return ForeignVector(
        collection=job.space.collection,
        field=job.space.field,
        row=row,
        rows=len(rows),
        model=job.model,
        likely=likely if likely != job.model else None,
    )


def _open_declared(slot: VectorSlot, message: Message, declared: Declared, snapshot: Snapshot) -> Job | None:
    """A job for a slot; a model declared for the whole request counts for the fields that take it.

    A point with a text vector and an image vector comes with one declaration, which is about the text. Where no field
    of the message takes the declared model, it is refused.
    """
    try:
        return _open_job(slot, declared, snapshot)
    except ModelNotMapped:
        spaces = (snapshot.find_space(one.collection, one.field or "") for one in message.slots)
        if not any(space is not None and declared.whole in space.dims for space in spaces):
            raise
    return _open_job(slot, declared.without(), snapshot)


def _open_job(slot: VectorSlot, declared: Declared, snapshot: Snapshot) -> Job | None:
    """A job for a slot; what was decided once is looked up for every request that says the same."""
    dim = slot.rows.shape[1]
    said = (declared.header, declared.client, declared.port)
    key = (slot.collection, slot.field, slot.role, slot.model, dim, said)
    decision = snapshot.decisions.get(key)
    if decision is None:
        space = snapshot.find_space(slot.collection, slot.field or "")
        if space is None:
            return None
        model = detect_model(space, declared, slot.role, slot.model, dim, snapshot.models)
        decision = (space, model, _forward_map(space, model, slot.role))
        if len(snapshot.decisions) < _MOST_DECISIONS:  # the names in a key come from clients
            snapshot.decisions[key] = decision
    return Job(*decision)


def _forward_map(space: Space, model: str, role: Role) -> Map | None:
    if model == space.index_model:
        return None
    adapter = space.adapters[model]
    return adapter.document if role is Role.DOCUMENT else adapter.query


def _plan_text(plan: Plan, slot: TextSlot, declared: Declared, snapshot: Snapshot) -> None:
    """A text whose model has an encoder here is encoded here; any other is the database's to encode.

    A text that names no model itself is of the model that counts for the client's vectors.
    """
    space = snapshot.find_space(slot.collection, slot.field or "")
    if space is None:
        return
    named = slot.model or detect_model(space, declared, slot.role, None, None, snapshot.models)
    if not snapshot.encodes(named):
        if slot.model == "":  # then it is the index's own model that the database encodes it with
            plan.models.setdefault((space.collection, space.field), space.index_model)
        return
    model = detect_model(space, Declared(), slot.role, named, snapshot.models[named], snapshot.models)
    plan.texts.append(TextJob(space, model, _forward_map(space, model, slot.role), slot))
    if slot.role is Role.QUERY:
        plan.models.setdefault((space.collection, space.field), model)


def _plan_score(plan: Plan, slot: ScoreSlot, declared: Declared, snapshot: Snapshot) -> None:
    if slot.kind == "feedback":  # only the differences of these count, and they are a reranker's as often as not
        return
    space = snapshot.find_space(slot.collection, slot.field or "")
    if space is None:
        return
    model = plan.models.get((space.collection, space.field))
    if model is None:
        model = detect_model(space, declared, Role.QUERY, None, None, snapshot.models)
    adapter = space.adapters.get(model)
    if adapter is not None and adapter.calibration is not None:
        plan.scores.append((slot, adapter.calibration.apply(slot.score)))


def _open_result(slot: VectorSlot, plan: Plan, declared: Declared, snapshot: Snapshot) -> Job | None:
    space = snapshot.find_space(slot.collection, slot.field or "")
    if space is None:
        return None
    model = plan.models.get((space.collection, space.field))
    if model is None:
        if declared.whole is not None and declared.whole not in space.dims:
            return None  # another field's model: this one's vectors stay as they are
        model = detect_model(space, declared, Role.RESULT, None, None, snapshot.models)
    if model == space.index_model:
        return None
    return Job(space, model, space.adapters[model].reverse)


def describe_results(jobs: Sequence[Job], left: bool) -> str:
    """What the mark says of the vectors in an answer."""
    if left:
        return "; results=index"
    return f"; results={','.join(dict.fromkeys(job.model for job in jobs))}" if jobs else ""
