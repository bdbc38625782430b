"""What quality.py measures: a case's data, how its queries and documents are shared out, and its rows as JSON."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossfade.adapters.base import Float32
from crossfade.adapters.dataset import Dataset, read_dataset, rows_of
from crossfade.adapters.evaluate import Judged, Row, load_judged
from crossfade.adapters.vectors import unit_rows

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("CROSSFADE_DATA", ROOT.parent / "shared" / "data"))
MOST_PAIRS = 8_000
MOST_TESTED = 500  # queries of a collection


@dataclass(frozen=True)
class Case:
    """One fit and its tests: kind is "families", "curve" or "migration"."""

    kind: str
    collection: str
    old: str
    new: str
    pairs: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.kind}--{self.collection}--{self.old}--{self.new}--{self.pairs}--{self.seed}"


def models_of(folder: Path) -> list[str]:
    return [path.name.removeprefix("docs.").removesuffix(".f16.npy") for path in folder.glob("docs.*.f16.npy")]


@cache
def dataset_of(collection: str, old: str, new: str) -> Dataset:
    folder = DATA / collection
    if (folder / "manifest.json").is_file():
        return read_dataset(folder)
    return read_dataset(folder, rows=rows_of(folder, [old, new]))


def split(case: Case, dataset: Dataset) -> tuple[Judged, Float32, NDArray[np.int64]]:
    """The judged half, the observed half's vectors and the documents' order, by the case's seed."""
    tested, seen, documents = halves(case, dataset)
    return load_judged(dataset, case.old, case.new, tested), unit_rows(dataset.queries(case.new)[seen]), documents


def halves(case: Case, dataset: Dataset) -> tuple[list[int], list[int], NDArray[np.int64]]:
    """Rows of the queries to test and to observe, of each member of a joined corpus half, and the documents' order."""
    rng = np.random.default_rng(case.seed)
    tested: list[int] = []
    seen: list[int] = []
    groups = np.array(dataset.groups)
    for group in dict.fromkeys(dataset.groups):
        rows = rng.permutation(np.flatnonzero(groups == group))
        half = len(rows) // 2
        most = 100 if case.collection == "hetero" else MOST_TESTED
        tested.extend(rows[:half][:most].tolist())
        seen.extend(rows[half:].tolist())
    return tested, seen, rng.permutation(len(dataset.document_ids))


def with_values(row: Row, values: NDArray[np.float64], judged: Judged, seed: int) -> dict[str, Any]:
    """A row as JSON with each query's figure; on a joined corpus with the mean over its members beside their mean."""
    groups = np.array(judged.dataset.groups)[judged.rows]
    members = list(dict.fromkeys(groups.tolist()))
    means = [float(values[groups == group].mean()) for group in members]
    figures = {"values": np.round(values, 4).tolist(), "of_members": round(float(np.mean(means)), 5)}
    if len(members) > 1:
        figures["members"] = [members.index(group) for group in groups.tolist()]
    return row.to_json() | {"seed": seed, **figures}
