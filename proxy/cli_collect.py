"""Pairs from a live collection: its stored vectors beside the same documents encoded by the new model.

Work is kept in a folder, a file for every finished batch, so that a run that was stopped goes on where it was:

plan.json       what is being collected; a folder made for something else is refused
ids.json        the sampled ids, drawn once
batch-N.npz     ids, source (new model) and target (stored) of batch N, written whole by rename
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import orjson
from numpy.typing import NDArray

from crossfade.backends.index import PointId

from .cli_output import UsageProblem
from .encoders import Encoder, Float32

Progress = Callable[[int, int], None]
BATCH = 128  # documents read and encoded together; what a kill can cost is this times the batches under way


@dataclass(frozen=True, slots=True)
class Document:
    """A stored point: its vector, or None when it has none in this field, and its text, None when it has none."""

    id: PointId
    vector: Float32 | None
    text: str | None


class Documents(Protocol):
    """The live collection, as far as collecting pairs needs it."""

    async def sample(self, count: int, seed: int) -> Sequence[PointId]:
        """Up to `count` different ids, chosen by chance."""
        ...

    async def read(self, ids: Sequence[PointId]) -> Sequence[Document]:
        """The documents of these ids; one that was deleted meanwhile is left out."""
        ...


@dataclass(frozen=True, slots=True)
class Plan:
    """What is collected: everything that would make finished batches worthless when it changed."""

    upstream: str
    collection: str
    field: str
    index_model: str
    model: str
    endpoint: str
    text: str
    sample: int
    seed: int


@dataclass(frozen=True, slots=True, eq=False)
class Collected:
    """The pairs: source (n, dim of the new model), target (n, dim of the index), and how many documents gave none."""

    source: Float32
    target: Float32
    without_text: int
    without_vector: int


async def collect_pairs(
    documents: Documents, encoder: Encoder, plan: Plan, work: Path, *, parallel: int, progress: Progress
) -> Collected:
    """Collect pairs into `work`, going on from what is there; `progress` gets (documents done, documents in all).

    Raises UsageProblem when the folder was made for another plan or no document has text and vector, EncoderFailed
    when the encoder does; finished batches stay in any case.
    """
    _open_work(work, plan)
    ids = await _sampled_ids(documents, plan, work)
    batches = [ids[first : first + BATCH] for first in range(0, len(ids), BATCH)]
    waiting = [number for number in range(len(batches)) if not _batch_path(work, number).exists()]
    done = sum(len(batch) for batch in batches) - sum(len(batches[number]) for number in waiting)
    progress(done, len(ids))
    todo = iter(waiting)

    async def run() -> None:
        nonlocal done
        for number in todo:
            await _collect_batch(documents, encoder, batches[number], _batch_path(work, number))
            done += len(batches[number])
            progress(done, len(ids))

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(parallel, len(waiting))):
                group.create_task(run())
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from failures
    return _gather(work, len(batches), plan)


def _open_work(work: Path, plan: Plan) -> None:
    work.mkdir(parents=True, exist_ok=True)
    place = work / "plan.json"
    if not place.exists():
        _write(place, orjson.dumps(asdict(plan), option=orjson.OPT_INDENT_2))
        return
    found, wanted = orjson.loads(place.read_bytes()), asdict(plan)
    changed = [
        f"{key} was {found.get(key)!r} and is {wanted[key]!r}" for key in wanted if found.get(key) != wanted[key]
    ]
    if changed:
        raise UsageProblem(
            f"{work} holds an unfinished collection of other pairs ({'; '.join(changed)}); "
            "remove that folder, or ask for the same again"
        )


async def _sampled_ids(documents: Documents, plan: Plan, work: Path) -> list[PointId]:
    place = work / "ids.json"
    if not place.exists():
        ids = await documents.sample(plan.sample, plan.seed)
        if not ids:
            raise UsageProblem(f"collection {plan.collection!r} on upstream {plan.upstream!r} holds no points")
        _write(place, orjson.dumps(list(ids)))
    found: list[PointId] = orjson.loads(place.read_bytes())
    return found


async def _collect_batch(documents: Documents, encoder: Encoder, ids: Sequence[PointId], place: Path) -> None:
    found = await documents.read(ids)
    texts = [document.text for document in found]
    usable = [document for document in found if document.vector is not None and document.text and document.text.strip()]
    source = await encoder.encode([document.text or "" for document in usable], "passage")
    target = np.array([document.vector for document in usable], dtype=np.float32)
    counts = (sum(not (text or "").strip() for text in texts), sum(document.vector is None for document in found))
    fresh = place.with_name(f".{place.name}.{os.getpid()}.npz")
    np.savez(fresh, source=source, target=target, missing=np.array(counts))
    fresh.replace(place)


def _gather(work: Path, count: int, plan: Plan) -> Collected:
    parts: list[dict[str, NDArray[np.generic]]] = []
    for number in range(count):
        with np.load(_batch_path(work, number), allow_pickle=False) as stored:
            parts.append(dict(stored))
    full = [part for part in parts if len(part["source"])]
    without_text, without_vector = (int(sum(part["missing"][side] for part in parts)) for side in (0, 1))
    if not full:
        raise UsageProblem(
            f"collection {plan.collection!r}: none of the sampled points gives a pair: {without_text} have no "
            f"text at {plan.text!r}, {without_vector} no vector in the field {plan.field!r}; "
            f"correct collections.{plan.collection}.text or choose another --field"
        )
    source, target = (np.concatenate([part[side] for part in full]).astype(np.float32) for side in ("source", "target"))
    return Collected(source, target, without_text, without_vector)


def read_batches(work: Path) -> list[tuple[list[PointId], int]]:
    """Of each finished batch, in the order of the pairs, its sampled ids and how many pairs they gave."""
    ids: list[PointId] = orjson.loads((work / "ids.json").read_bytes())
    found = []
    for number, first in enumerate(range(0, len(ids), BATCH)):
        with np.load(_batch_path(work, number), allow_pickle=False) as stored:
            found.append((ids[first : first + BATCH], len(stored["source"])))
    return found


def _batch_path(work: Path, number: int) -> Path:
    return work / f"batch-{number:05d}.npz"


def _write(place: Path, data: bytes) -> None:
    fresh = place.with_name(f".{place.name}.{os.getpid()}")
    fresh.write_bytes(data)
    fresh.replace(place)
