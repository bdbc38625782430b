"""The heavy part of bringing points over: read them from the old index, encode, and write them to the target.

It knows neither journal nor store, so that it can run in other processes and on other machines as well: whoever calls
it holds the points, hands in what the journal knows of them, and notes what came out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol, TypeVar

import numpy as np

from crossfade.backends.dialect import Float32
from crossfade.backends.index import Index, Point, PointId
from crossfade.backends.payload_text import PayloadText

from ..encoders import Encoder
from .ledger import sign_vectors
from .marks import Native
from .record import Spec
from .store import Lease
from .texts import TextMemory, count_tokens, encode_texts

_PART: Final = 64  # points in one call to the database: behind a large one queries wait
_SAME: Final = 0.9999  # cosine above which a stored vector is the one that was written

Item = TypeVar("Item")
Natives = Mapping[PointId, Sequence[Native]]


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What was written, as far as it has to be noted.

    `signed`: signatures of the new vectors; `bare`: points written without one; `dead`: why; `gone`: points deleted;
    `pairs`: new and old vector of the points that have both.
    """

    signed: Mapping[PointId, bytes]
    bare: Sequence[PointId]
    dead: Mapping[PointId, str]
    gone: Sequence[PointId]
    encoded: int
    tokens: int
    pairs: Mapping[PointId, tuple[Float32, Float32]]
    sent: Mapping[PointId, int] = field(default_factory=dict)  # which of a point's natives was taken, from the newest


class Mover(Protocol):
    """Who does it."""

    async def move(self, points: Sequence[PointId], natives: Natives, check: Callable[[], Lease]) -> Outcome:
        """Make the target agree with the old index in these points.

        `check` raises when nothing may be written any more. Raises IndexRefusedError, EncoderFailed, what `check` does.
        """


@dataclass(frozen=True, slots=True, eq=False)
class LocalMover:
    """In this process."""

    spec: Spec
    index: Index
    encoder: Encoder
    text: PayloadText
    memory: TextMemory = field(default_factory=TextMemory)

    async def move(self, points: Sequence[PointId], natives: Natives, check: Callable[[], object]) -> Outcome:
        """See Mover."""
        stored: list[Point] = []
        for part in _parts(points):
            stored += await self.index.fetch(self.spec.collection, part)
        here = {point.id for point in stored}
        gone = [point for point in points if point not in here]
        wanted, outcome = await self._renew(stored, natives, gone)
        check()
        await _finish_whatever_comes(self._write(wanted, gone))
        return outcome

    async def _write(self, points: Sequence[Point], gone: Sequence[PointId]) -> None:
        for part in _parts(points):
            await self.index.upsert(self.spec.target, part)
        await self.index.delete(self.spec.target, gone)

    async def _renew(
        self, stored: Sequence[Point], natives: Natives, gone: Sequence[PointId]
    ) -> tuple[list[Point], Outcome]:
        """The points as the target shall have them, and what there is to note."""
        name = self.spec.field
        having = {point.id: point for point in stored if name in point.vectors}
        sent = _sent_by_clients(list(having.values()), natives, name)
        vectors = {point: natives[point][at].vector for point, at in sent.items()}
        texts, dead = self._read_texts([point for point in having.values() if point.id not in vectors])
        asked = {}
        for identity, text in texts.items():
            if (kept := self.memory.recall(text)) is not None:
                vectors[identity] = kept
            else:
                asked[identity] = text
        encoded = await encode_texts(self.encoder, list(asked.values()))
        for identity, vector, refused in zip(asked, encoded.vectors, encoded.refused, strict=True):
            if vector is not None:
                vectors[identity] = vector
                self.memory.keep(asked[identity], vector)
            else:
                dead[identity] = refused or "the encoder gave nothing"
        wanted = [_with_vector(point, name, vectors.get(point.id)) for point in stored]
        return wanted, Outcome(
            signed=sign_vectors(vectors),
            bare=[point.id for point in stored if point.id not in vectors],
            dead=dead,
            gone=gone,
            encoded=len(asked),
            tokens=sum(map(count_tokens, asked.values())),
            pairs={point: (vector, having[point].vectors[name]) for point, vector in vectors.items()},
            sent=sent,
        )

    def _read_texts(self, points: Sequence[Point]) -> tuple[dict[PointId, str], dict[PointId, str]]:
        """Texts by point, and why others have none."""
        dead: dict[PointId, str] = {}
        texts: dict[PointId, str] = {}
        for point in points:
            text = self.text.read(point.payload)
            if text is None or not text.strip():
                dead[point.id] = f"no text at {self.text.source!r}"
            else:
                texts[point.id] = text
        return texts, dead


def _parts(whole: Sequence[Item]) -> Iterator[Sequence[Item]]:
    return (whole[first : first + _PART] for first in range(0, len(whole), _PART))


def _sent_by_clients(points: Sequence[Point], natives: Natives, name: str) -> dict[PointId, int]:
    """Which vector of a client was sent for what the old index holds now; one for an older or lost write is none."""
    found: dict[PointId, int] = {}
    for point in points:
        for at, native in enumerate(natives.get(point.id, ())):
            if _is_same(native.stored, point.vectors[name]):
                found[point.id] = at
                break
    return found


def _is_same(written: Float32, stored: Float32) -> bool:
    """Whether one is the other up to scale, which a database may have changed."""
    if written.shape != stored.shape:
        return False
    lengths = float(np.linalg.norm(written)) * float(np.linalg.norm(stored))
    return bool(np.array_equal(written, stored)) if lengths == 0 else float(written @ stored) / lengths > _SAME


def _with_vector(point: Point, name: str, vector: Float32 | None) -> Point:
    vectors = {one: kept for one, kept in point.vectors.items() if one != name}
    if vector is not None:
        vectors[name] = vector
    return replace(point, vectors=vectors)


async def _finish_whatever_comes(work: Awaitable[None]) -> None:
    """Wait for a write also when this task is cancelled: left alone it might arrive after a newer one."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise
