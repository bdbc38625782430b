"""A verification: every page of both collections compared, suspects looked at again, a sample encoded
again, and the target searched.

Data moves while it is compared. A difference counts only if it is still there in a second look that surely saw both
sides at rest: the old point the same before and after the target was read, and no mark in the journal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from crossfade.backends.dialect import Float32
from crossfade.backends.index import Point, PointId

from .converge import Lane
from .record import Checkpoint, Migration, Verification
from .retrieval import check_retrieval
from .texts import encode_texts
from .verify import Finding, compare_point, find_foreign, is_sampled, sum_up
from .walk import Span, Walk

PAGE: Final = 256
SAMPLE: Final = 1000  # texts encoded again: one wrong vector in a hundred is missed once in 20,000 runs
_LOOKS: Final = 20  # a point that never rests in so many looks is left to the next verification
_PAUSE_SECONDS: Final = 0.25


class Verifying:
    """One run over all points; it goes on where a killed one was."""

    def __init__(self, lane: Lane, record: Migration, total: int) -> None:
        self._lane = lane
        self._number = record.verification.id
        self._share = min(1.0, SAMPLE / total) if total else 0.0
        self._walk = Walk(lane.index, lane.spec.collection, lane.spec.target, record.verification.checkpoint)

    async def run(self) -> Verification:
        """Compare everything; findings are in the ledger, their counts in the record."""
        while (span := await self._walk.take(PAGE)) is not None:
            found, sampled = await self._page(span)
            await self._save(span, found, sampled)
        retrieval = await check_retrieval(self._lane.index, self._lane.spec, self._number)
        finished = self._lane.ledger.store.clock()
        update = {"finished_at": finished, "asked": False, "retrieval": retrieval}
        record = await self._lane.ledger.store.change(
            self._lane.migration,
            lambda one: one.model_copy(update={"verification": one.verification.model_copy(update=update)}),
            step="verified",
            lease=self._lane.hold(),
        )
        return record.verification

    async def _page(self, span: Span) -> tuple[dict[PointId, Finding], int]:
        suspects = await self._compare(span.ids)
        proven: dict[PointId, Finding] = {}
        for _ in range(_LOOKS):
            if not suspects:
                break
            await asyncio.sleep(_PAUSE_SECONDS)
            resting = await self._resting(list(suspects))
            again = await self._compare(resting)
            # What was brought over between two reads has lost its mark by now, and shows in one more comparison.
            sure = await self._compare(await self._resting(list(again)))
            proven |= sure
            sound = {point for point in resting if point not in again}
            suspects = {point: kind for point, kind in suspects.items() if point not in sound and point not in proven}
        foreign, sampled = await self._encode_again([point for point in span.ids if point not in proven])
        return {**proven, **foreign}, sampled

    async def _resting(self, points: Sequence[PointId]) -> list[PointId]:
        touched = await self._lane.journal.touched(self._lane.migration, points)
        return [point for point in points if point not in touched]

    async def _compare(self, points: Sequence[PointId]) -> dict[PointId, Finding]:
        """What is wrong at this moment; points that changed under the comparison count as sound for now."""
        if not points:
            return {}
        spec = self._lane.spec
        before = await self._read(spec.collection, points)
        new = await self._read(spec.target, points)
        signed = await self._lane.ledger.signed(self._lane.migration, points)
        dead = await self._lane.ledger.dead_among(self._lane.migration, points)
        found = {
            point: kind
            for point in points
            if (
                kind := compare_point(
                    before.get(point), new.get(point), spec.field, signed.get(point), dead=point in dead
                )
            )
            is not None
        }
        after = await self._read(spec.collection, list(found)) if found else {}
        return {point: kind for point, kind in found.items() if _is_unmoved(before.get(point), after.get(point))}

    async def _read(self, collection: str, points: Sequence[PointId]) -> Mapping[PointId, Point]:
        return {point.id: point for point in await self._lane.index.fetch(collection, points)}

    async def _encode_again(self, points: Sequence[PointId]) -> tuple[dict[PointId, Finding], int]:
        """Compare a sample of re-encoded vectors with their texts; vectors that clients sent are not of that kind."""
        chosen = [point for point in points if is_sampled(point, self._share, self._number)]
        if not chosen:
            return {}, 0
        field, spec = self._lane.spec.field, self._lane.spec
        sent = await self._lane.journal.natives(self._lane.migration, chosen)
        texts: dict[PointId, str] = {}
        vectors: dict[PointId, Float32] = {}
        for point in await self._lane.index.fetch(spec.target, [one for one in chosen if one not in sent]):
            text = self._lane.text.read(point.payload)
            if text and text.strip() and field in point.vectors:
                texts[point.id], vectors[point.id] = text, point.vectors[field]
        made = await encode_texts(self._lane.encoder, list(texts.values()))
        pairs = [(point, vector) for point, vector in zip(texts, made.vectors, strict=True) if vector is not None]
        ids = [point for point, _ in pairs]
        foreign = find_foreign(ids, [vectors[point] for point in ids], [vector for _, vector in pairs])
        if foreign:
            self._lane.memory.forget()  # what was encoded before is to be encoded again when it is repaired
        return dict.fromkeys(foreign, "encoding"), len(ids)

    async def _save(self, span: Span, found: Mapping[PointId, Finding], sampled: int) -> None:
        await self._lane.ledger.report(
            self._lane.migration, found, [point for point in span.ids if point not in found], self._lane.hold()
        )
        self._walk.finish(span)

        def apply(one: Migration) -> Migration:
            past = one.verification
            counts = sum_up(found)
            both = {kind: past.found.get(kind, 0) + counts.get(kind, 0) for kind in {*past.found, *counts}}
            update = {
                "checkpoint": self._walk.checkpoint,
                "compared": past.compared + len(span.ids),
                "sampled": past.sampled + sampled,
                "found": both,
            }
            return one.model_copy(update={"verification": past.model_copy(update=update)})

        await self._lane.ledger.store.change(self._lane.migration, apply, lease=self._lane.hold())


def _is_unmoved(before: Point | None, after: Point | None) -> bool:
    if before is None or after is None:
        return before is after
    same_vectors = before.vectors.keys() == after.vectors.keys() and all(
        (before.vectors[name] == after.vectors[name]).all() for name in before.vectors
    )
    return same_vectors and before.payload == after.payload


def ask_again(record: Migration) -> Migration:
    """The record with a new verification asked for."""
    asked = Verification(id=record.verification.id + 1, asked=True, checkpoint=Checkpoint())
    return record.model_copy(update={"verification": asked})
