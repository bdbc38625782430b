"""The four rows of every quality report, on judged queries: status quo, naive, adapted by each method, oracle.

status quo: old-model queries on the old index, the honest alternative. naive: new-model queries sent to the old index
as they are. adapted: new-model queries mapped, on the old index. oracle: new-model queries on a fully re-encoded
index. The old index is searched exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import JSON, Adapter, DatasetError, Float32, Map
from .dataset import Dataset
from .metrics import bootstrap_interval, mrr_at, ndcg_at, overlap_at, paired_bootstrap, recall_at
from .search import Int64, search_exact
from .vectors import unit_rows

Float64 = NDArray[np.float64]
STATUS_QUO, NAIVE, ORACLE = "status quo", "naive", "oracle"


@dataclass(frozen=True)
class Row:
    """One line of a quality table: means over judged queries; low and high bound the central 95 % of ndcg10.

    of_status_quo and of_oracle are ratios of ndcg10; p is of the paired bootstrap against the status quo; overlap10 is
    with the new model's exact neighbours. share is pairs as a part of the corpus.
    """

    collection: str
    old_model: str
    new_model: str
    method: str
    queries: int
    ndcg10: float
    low: float
    high: float
    recall10: float
    recall100: float
    mrr10: float
    overlap10: float
    of_status_quo: float
    of_oracle: float
    p: float
    pairs: int | None = None
    share: float | None = None
    seed: int | None = None
    migrated: float | None = None
    note: str = ""

    def to_json(self) -> dict[str, JSON]:
        """The row with figures rounded to five places."""
        return {name: round(value, 5) if isinstance(value, float) else value for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Evaluation:
    """Rows, and each one's nDCG@10 for every query, by method, for paired comparisons."""

    rows: tuple[Row, ...]
    values: dict[str, Float64]

    def row(self, method: str) -> Row:
        """The row of one method. Raises KeyError."""
        for row in self.rows:
            if row.method == method:
                return row
        raise KeyError(method)


@dataclass(frozen=True)
class Judged:
    """What an evaluation searches: unit vectors of the judged queries and of the documents in both spaces."""

    dataset: Dataset
    old_model: str
    new_model: str
    rows: Int64
    old_documents: Float32
    new_documents: Float32
    old_queries: Float32
    new_queries: Float32

    @property
    def judgements(self) -> list[dict[int, float]]:
        return [self.dataset.judgements[row] for row in self.rows.tolist()]


def load_judged(dataset: Dataset, old_model: str, new_model: str, rows: Sequence[int] | None = None) -> Judged:
    """Read the vectors for an evaluation; rows are the judged queries to use (default: all).

    Raises DatasetError when a model has no vectors for these documents or no query is judged.
    """
    chosen = np.arange(len(dataset.query_ids)) if rows is None else np.asarray(rows)
    chosen = np.array([row for row in chosen.tolist() if dataset.judgements[row]], np.int64)
    if not chosen.size:
        raise DatasetError(f"{dataset.name}: none of the queries asked for is judged; give qrels.tsv rows for them")
    vectors = [_documents(dataset, model) for model in (old_model, new_model)]
    queries = [unit_rows(dataset.queries(model)[chosen]) for model in (old_model, new_model)]
    return Judged(dataset, old_model, new_model, chosen, vectors[0], vectors[1], queries[0], queries[1])


def evaluate(judged: Judged, maps: Mapping[str, Map | Adapter], **labels: Any) -> Evaluation:
    """Measure the four rows; maps are named query maps (an adapter stands for its query map).

    labels (pairs, share, seed) are written on the adapted rows. The naive row is 0 when dimensions differ, since the
    index refuses such queries.
    """
    rankings = {
        STATUS_QUO: search_exact(judged.old_queries, judged.old_documents, 100)[0],
        ORACLE: search_exact(judged.new_queries, judged.new_documents, 100)[0],
    }
    for name, fitted in maps.items():
        query = fitted.query if isinstance(fitted, Adapter) else fitted
        rankings[name] = search_exact(query.apply(judged.new_queries), judged.old_documents, 100)[0]
    if judged.new_queries.shape[1] == judged.old_queries.shape[1]:
        rankings[NAIVE] = search_exact(judged.new_queries, judged.old_documents, 100)[0]
    else:
        rankings[NAIVE] = np.full((len(judged.rows), 1), -1)
    return measure(judged, rankings, **labels)


def measure(judged: Judged, rankings: Mapping[str, Int64], **labels: Any) -> Evaluation:
    """Turn rankings (queries, depth) by method into rows; STATUS_QUO and ORACLE must be among them."""
    judgements = judged.judgements
    values = {name: ndcg_at(ranking, judgements) for name, ranking in rankings.items()}
    order = [STATUS_QUO, NAIVE, *(name for name in rankings if name not in (STATUS_QUO, NAIVE, ORACLE)), ORACLE]
    rows = []
    for name in (name for name in order if name in rankings):
        row = _row(judged, name, rankings, values)
        if name not in (STATUS_QUO, NAIVE, ORACLE):
            row = replace(row, **labels)
        rows.append(row)
    return Evaluation(tuple(rows), values)


def _row(judged: Judged, name: str, rankings: Mapping[str, Int64], values: Mapping[str, Float64]) -> Row:
    ranking, found, judgements = rankings[name], values[name], judged.judgements
    start = judged.dataset.relevant_from
    low, high = bootstrap_interval(found)
    note = "dimensions differ: the index refuses these queries" if name == NAIVE and ranking.shape[1] == 1 else ""
    return Row(
        collection=judged.dataset.name,
        old_model=judged.old_model,
        new_model=judged.new_model,
        method=name,
        queries=len(found),
        ndcg10=float(found.mean()),
        low=low,
        high=high,
        recall10=float(recall_at(ranking, judgements, 10, relevant_from=start).mean()),
        recall100=float(recall_at(ranking, judgements, 100, relevant_from=start).mean()),
        mrr10=float(mrr_at(ranking, judgements, 10, relevant_from=start).mean()),
        overlap10=float(overlap_at(ranking, rankings[ORACLE]).mean()),
        of_status_quo=_ratio(found, values[STATUS_QUO]),
        of_oracle=_ratio(found, values[ORACLE]),
        p=1.0 if name == STATUS_QUO else paired_bootstrap(found, values[STATUS_QUO])[2],
        note=note,
    )


def _ratio(found: Float64, reference: Float64) -> float:
    mean = float(reference.mean())
    return float(found.mean()) / mean if mean > 0 else float("nan")


def _documents(dataset: Dataset, model: str) -> Float32:
    vectors = dataset.documents(model)
    if len(vectors) != len(dataset.document_ids):
        raise DatasetError(
            f"{dataset.name}: {model} has vectors for {len(vectors)} of {len(dataset.document_ids)} documents; "
            f"read the dataset with rows={len(vectors)}"
        )
    return unit_rows(vectors)
