"""What searches say of the target: whether its index finds the true neighbours, and whether the two models agree.

The queries are vectors that the target holds, so that nothing has to be encoded. `recall` compares the index's answer
with an exhaustive search of the same collection and has a gate: below it clients would get worse answers than the new
model can give. `agreement` compares the neighbours of a point in both indexes. It has no gate: how much two sound
models agree differs from pair to pair, but next to nothing (under .05) says that text or model are not those meant.
An index that is still being built stands against a switch only where its recall cannot be measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from crossfade.backends.dialect import Float32
from crossfade.backends.index import Hits, Index, PointId

from .record import Retrieval, Spec

QUERIES: Final = 50
K: Final = 10
MIN_RECALL: Final = 0.9
_TIE: Final = 1e-5


async def check_retrieval(index: Index, spec: Spec, seed: int) -> Retrieval:
    """Search the target for its own points. Raises IndexRefusedError."""
    health = await index.health(spec.target)
    chosen = await index.sample_ids(spec.target, QUERIES, seed)
    new = await _vectors(index, spec.target, spec.field, chosen)
    old = await _vectors(index, spec.collection, spec.field, list(new))
    recall = agreement = None
    if new:
        ids, rows = list(new), np.stack(list(new.values()))
        found = await index.search(spec.target, spec.field, rows, K + 1, exact=False)
        true = found
        if index.searches_exactly:
            true = await index.search(spec.target, spec.field, rows, K + 1, exact=True)
            recall = find_recall(true, found)
        if both := [at for at, point in enumerate(ids) if point in old]:
            asked = np.stack([old[ids[at]] for at in both])
            before = await index.search(spec.collection, spec.field, asked, K + 1, exact=True)
            pairs = zip((_others(hits, ids[at]) for hits, at in zip(before, both, strict=True)), both, strict=True)
            shares = [share for hits, at in pairs if (share := _share(hits, _others(true[at], ids[at]))) is not None]
            agreement = float(np.mean(shares)) if shares else None
    return Retrieval(
        queries=len(new),
        recall=recall,
        agreement=agreement,
        points=health.points,
        indexed=health.indexed,
        building=health.building,
        broken=health.broken,
    )


def find_recall(true: Sequence[Hits], found: Sequence[Hits]) -> float | None:
    """The mean share of the true hits that were found; one that is as good as the last true one counts as true."""
    shares = [
        float(np.count_nonzero(_as_good(exact, hits)[: len(exact.ids)])) / len(exact.ids)
        for exact, hits in zip(true, found, strict=True)
        if len(exact.ids)
    ]
    return float(np.mean(shares)) if shares else None


def find_problems(retrieval: Retrieval | None) -> list[str]:
    """What stands against sending reads to the target."""
    if retrieval is None:
        return []
    problems = []
    if retrieval.broken is not None:
        problems.append(f"the target's index was broken when it was verified: {retrieval.broken}; mend it, then verify")
    if retrieval.recall is None and retrieval.building is not None:
        problems.append(f"the target was still being indexed when it was verified: {retrieval.building}; verify again")
    if retrieval.recall is not None and retrieval.recall < MIN_RECALL:
        problems.append(
            f"the target's index finds {retrieval.recall:.2f} of the true nearest {K}, under {MIN_RECALL}; "
            "let it finish or build it more exactly, then say verify"
        )
    return problems


def _as_good(exact: Hits, found: Hits) -> list[bool]:
    falling = exact.scores[0] >= exact.scores[-1]  # similarities fall from the best on, distances rise
    last = float(exact.scores[-1])
    slack = _TIE * max(1.0, abs(last))
    good = found.scores >= last - slack if falling else found.scores <= last + slack
    true = set(exact.ids)
    return [bool(one) or point in true for point, one in zip(found.ids, good, strict=True)]


def _others(hits: Hits, itself: PointId) -> list[PointId]:
    return [point for point in hits.ids if point != itself][:K]


def _share(first: Sequence[PointId], second: Sequence[PointId]) -> float | None:
    return len(set(first) & set(second)) / len(first) if first else None


async def _vectors(index: Index, collection: str, field: str, ids: Sequence[PointId]) -> Mapping[PointId, Float32]:
    """The field's vectors of those points that have one."""
    points = await index.fetch(collection, ids, [field], payload=False)
    return {point.id: point.vectors[field] for point in points if field in point.vectors}
