"""The one routine that moves points: read each from the old index as it is now, and make the target agree.

It does not care what happened to a point, in which order, or whether it was run before: a write of any kind, a page of
the first copy and a repair all come down to it. Run it again after a kill, and the outcome is the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from crossfade.backends.dialect import Float32
from crossfade.backends.index import Index, Point, PointId
from crossfade.backends.payload_text import PayloadText

from ..encoders import Encoder
from .claims import Claims
from .journal import Journal, Native
from .ledger import Ledger, sign_vector
from .record import Spec
from .store import Lease
from .texts import count_tokens, encode_texts

_SAME: Final = 0.9999  # cosine above which a stored vector is the one that was written


@dataclass(frozen=True, slots=True, eq=False)
class Lane:
    """Where points come from and go to, and what has to be known on the way.

    `hold` gives the lease that every write carries; it raises LeaseLost when it may have run out.
    """

    migration: str
    spec: Spec
    index: Index
    encoder: Encoder
    text: PayloadText
    journal: Journal
    ledger: Ledger
    claims: Claims
    hold: Callable[[], Lease]


@dataclass(frozen=True, slots=True)
class Moved:
    """What was done: points written and deleted, texts encoded, tokens (estimated), and points left without vector."""

    written: int = 0
    deleted: int = 0
    encoded: int = 0
    tokens: int = 0
    dead: int = 0

    def __add__(self, other: Moved) -> Moved:
        """Both together."""
        return Moved(
            self.written + other.written,
            self.deleted + other.deleted,
            self.encoded + other.encoded,
            self.tokens + other.tokens,
            self.dead + other.dead,
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Renewed:
    """Points as the target shall have them, why some have no vector, and what the encoder had to do."""

    points: Sequence[Point]
    dead: Mapping[PointId, str]
    encoded: int
    tokens: int


async def bring_over(lane: Lane, points: Sequence[PointId]) -> Moved:
    """Make the target agree with the old index in these points.

    Raises IndexRefusedError, EncoderFailed and LeaseLost; nothing is recorded as done then.
    """
    wanted = list(dict.fromkeys(points))
    async with lane.claims.hold(wanted):
        stored = await lane.index.fetch(lane.spec.collection, wanted)
        renewed = await _renew(lane, stored)
        here = {point.id for point in stored}
        gone = [point for point in wanted if point not in here]
        lane.hold()
        await _finish_whatever_comes(_write(lane, renewed.points, gone))
        await _note(lane, renewed, gone)
    return Moved(len(renewed.points), len(gone), renewed.encoded, renewed.tokens, len(renewed.dead))


async def converge(lane: Lane, limit: int) -> Moved | None:
    """Bring over up to `limit` points that finished writes have touched; None when there is none.

    A mark for the whole collection is left to the backfill.
    """
    seen = await lane.journal.dirty(lane.migration, limit)
    held = lane.claims.held
    ready = [one for one in seen if one.ended and one.point is not None and one.point not in held]
    if not ready:
        return None
    moved = await bring_over(lane, [one.point for one in ready if one.point is not None])
    await lane.journal.clear(lane.migration, ready)
    return moved


async def _write(lane: Lane, points: Sequence[Point], gone: Sequence[PointId]) -> None:
    await lane.index.upsert(lane.spec.target, points)
    await lane.index.delete(lane.spec.target, gone)


async def _note(lane: Lane, renewed: _Renewed, gone: Sequence[PointId]) -> None:
    lease = lane.hold()
    field = lane.spec.field
    signed = {point.id: sign_vector(point.vectors[field]) for point in renewed.points if field in point.vectors}
    bare = [point.id for point in renewed.points if field not in point.vectors]
    sound = [point.id for point in renewed.points if point.id not in renewed.dead]
    await lane.ledger.note_moved(
        lane.migration, signed=signed, unsigned=[*bare, *gone], dead=renewed.dead, healed=[*sound, *gone], lease=lease
    )


async def _renew(lane: Lane, stored: Sequence[Point]) -> _Renewed:
    """The stored points with the field's vectors of the new model."""
    field = lane.spec.field
    having = [point for point in stored if field in point.vectors]
    vectors = _sent_by_clients(
        having, await lane.journal.natives(lane.migration, [point.id for point in having]), field
    )
    dead: dict[PointId, str] = {}
    texts: dict[PointId, str] = {}
    for point in having:
        if point.id in vectors:
            continue
        text = lane.text.read(point.payload)
        if text is None or not text.strip():
            dead[point.id] = f"no text at {lane.text.source!r}"
        else:
            texts[point.id] = text
    encoded = await encode_texts(lane.encoder, list(texts.values()))
    for identity, vector, refused in zip(texts, encoded.vectors, encoded.refused, strict=True):
        if vector is not None:
            vectors[identity] = vector
        else:
            dead[identity] = refused or "the encoder gave nothing"
    tokens = sum(map(count_tokens, texts.values()))
    return _Renewed([_with_vector(point, field, vectors.get(point.id)) for point in stored], dead, len(texts), tokens)


def _sent_by_clients(
    points: Sequence[Point], natives: Mapping[PointId, Sequence[Native]], field: str
) -> dict[PointId, Float32]:
    """Vectors that clients sent for what the old index holds now; one sent for an older or lost write is none."""
    found: dict[PointId, Float32] = {}
    for point in points:
        for native in natives.get(point.id, ()):
            if _is_same(native.stored, point.vectors[field]):
                found[point.id] = native.vector
                break
    return found


def _is_same(written: Float32, stored: Float32) -> bool:
    """Whether one is the other up to scale, which a database may have changed."""
    if written.shape != stored.shape:
        return False
    lengths = float(np.linalg.norm(written)) * float(np.linalg.norm(stored))
    return bool(np.array_equal(written, stored)) if lengths == 0 else float(written @ stored) / lengths > _SAME


def _with_vector(point: Point, field: str, vector: Float32 | None) -> Point:
    vectors = {name: one for name, one in point.vectors.items() if name != field}
    if vector is not None:
        vectors[field] = vector
    return replace(point, vectors=vectors)


async def _finish_whatever_comes(work: Awaitable[None]) -> None:
    """Wait for a write also when this task is cancelled: left alone it might arrive after a newer one."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise
