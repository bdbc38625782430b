"""The reproduction report: every family of adapters on judged collections; writes build/quality.json and
docs/quality.md.

Run from the repository's root as `python -m tests.bench.quality [--quick] [--seeds N] [--only NAME ...]`, best with
OPENBLAS_NUM_THREADS=1; CROSSFADE_DATA names the data. Cases that build/quality-parts holds already are not measured
again, so an interrupted run goes on.

In every case new-model queries are mapped into the old model's index. For each seed the pairs are a random part of
the documents and the judged queries are halved: one half is observed (vectors only, no judgement is ever shown to a
fit), the other is tested. One selection run gives every family its own best recipe by held-out retrieval, on equal
pairs; `auto` is the best of all by the same figure.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossfade.adapters.base import Float32, Map
from crossfade.adapters.candidates import METHODS, select_recipe
from crossfade.adapters.dataset import Dataset, read_dataset, rows_of
from crossfade.adapters.evaluate import Judged, Row, evaluate, load_judged, measure
from crossfade.adapters.merge import fit_matcher
from crossfade.adapters.pairs import Pairs, make_pairs
from crossfade.adapters.recipe import Recipe, Workshop
from crossfade.adapters.search import best, search_exact
from crossfade.adapters.trial import make_trials
from crossfade.adapters.vectors import unit_rows
from tests.bench.quality_report import write_report

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("CROSSFADE_DATA", ROOT.parent / "shared" / "data"))
PARTS = ROOT / "build" / "quality-parts"
MOST_PAIRS = 8_000
FADED = (("minilm-l6", "e5-small"), ("wordllama", "minilm-l6"))
MIGRATED = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
CURVE = (250, 500, 1_000, 2_000, 4_000, 8_000, 16_000)


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one seed, small collections, no curves")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", nargs="*", help="collections to measure")
    parser.add_argument("--report", action="store_true", help="write the report from what is measured already")
    arguments = parser.parse_args()
    if not DATA.is_dir():
        sys.exit(f"no evaluation data at {DATA}; set CROSSFADE_DATA to its folder")
    if not arguments.report:
        for case in cases(1 if arguments.quick else arguments.seeds, arguments.quick):
            if arguments.only is None or case.collection in arguments.only:
                run(case)
    rows = [row for path in sorted(PARTS.glob("*.json")) for row in json.loads(path.read_text())]
    write_report(rows, ROOT / "build" / "quality.json", ROOT / "docs" / "quality.md")


def cases(seeds: int, quick: bool) -> Iterator[Case]:
    """Every case, cheap ones first and seed by seed, so that a run cut short has something of everything."""
    for seed in range(seeds):
        found = list(_cases_of(seed, quick))
        yield from sorted(found, key=lambda case: case.pairs * (6 if case.kind == "migration" else 1))


def _cases_of(seed: int, quick: bool) -> Iterator[Case]:
    for collection, old, new in model_pairs(quick):
        size = len(dataset_of(collection, old, new).document_ids)
        large = size // 2 if collection == "hetero" else min(round(0.8 * size), MOST_PAIRS)
        yield Case("families", collection, old, new, large, seed)
        yield Case("families", collection, old, new, 2_000 if collection == "hetero" else round(0.1 * size), seed)
        if collection == "hetero":
            yield Case("families", collection, old, new, 8_000, seed)
        elif not quick and collection in ("scifact", "msmarco-dl") and new == "e5-small":
            yield from (Case("curve", collection, old, new, pairs, seed) for pairs in CURVE if pairs <= 0.8 * size)
        if not quick and collection in ("scifact", "cranfield", "msmarco-dl") and (old, new) in FADED:
            yield Case("migration", collection, old, new, round(0.1 * size), seed)


def model_pairs(quick: bool) -> Iterator[tuple[str, str, str]]:
    """Collections of the data folder with the upgrades that their vectors allow."""
    wanted = [("minilm-l6", "e5-small"), ("e5-small", "minilm-l6"), ("wordllama", "minilm-l6"), ("use-m3", "minilm-l6")]
    for folder in sorted(path for path in DATA.iterdir() if (path / "README.md").is_file()):
        if quick and folder.name not in ("cranfield", "med", "mtrag"):
            continue
        known = ["minilm-l6", "e5-small"] if folder.name == "hetero" else models_of(folder)
        for old, new in wanted if not quick else wanted[:1]:
            if old in known and new in known and not (folder.name == "hetero" and quick):
                yield folder.name, old, new


def models_of(folder: Path) -> list[str]:
    return [path.name.removeprefix("docs.").removesuffix(".f16.npy") for path in folder.glob("docs.*.f16.npy")]


@cache
def dataset_of(collection: str, old: str, new: str) -> Dataset:
    folder = DATA / collection
    if (folder / "manifest.json").is_file():
        return read_dataset(folder)
    return read_dataset(folder, rows=rows_of(folder, [old, new]))


def run(case: Case) -> None:
    """Measure one case unless its part is there."""
    path = PARTS / f"{case.name}.json"
    if path.is_file():
        return
    start = time.monotonic()
    rows = measure_migration(case) if case.kind == "migration" else measure_families(case)
    PARTS.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".new").write_text(json.dumps([{"kind": case.kind, **row} for row in rows]))
    path.with_suffix(".new").rename(path)
    sys.stderr.write(f"{case.name}: {time.monotonic() - start:.0f} s\n")


def measure_families(case: Case) -> list[dict[str, Any]]:
    """The four rows, with an adapted row for the best recipe of each family and for auto."""
    dataset = dataset_of(case.collection, case.old, case.new)
    judged, observed, documents = split(case, dataset)
    pairs = make_pairs(judged.new_documents[documents[: case.pairs]], judged.old_documents[documents[: case.pairs]])
    share = case.pairs / len(documents)
    maps = fit_families(pairs, observed, share, case.seed)
    evaluation = evaluate(judged, maps, pairs=case.pairs, share=share, seed=case.seed)
    return [with_members(row, evaluation.values[row.method], judged, case.seed) for row in evaluation.rows]


def split(case: Case, dataset: Dataset) -> tuple[Judged, Float32, NDArray[np.int64]]:
    """The judged half, the observed half's vectors and the documents' order, by the case's seed."""
    rng = np.random.default_rng(case.seed)
    tested: list[int] = []
    seen: list[int] = []
    groups = np.array(dataset.groups)
    for group in dict.fromkeys(dataset.groups):
        rows = rng.permutation(np.flatnonzero(groups == group))
        half = len(rows) // 2
        most = 100 if case.collection == "hetero" else 500
        tested.extend(rows[:half][:most].tolist())
        seen.extend(rows[half:].tolist())
    judged = load_judged(dataset, case.old, case.new, tested)
    return judged, unit_rows(dataset.queries(case.new)[seen]), rng.permutation(len(dataset.document_ids))


def fit_families(pairs: Pairs, observed: Float32, share: float, seed: int) -> dict[str, Map]:
    """The best recipe of each family on all pairs, and the best of all as "auto"."""
    mean = observed.mean(axis=0, dtype=np.float64)
    trials = make_trials(pairs, queries=observed, query_mean=mean, share=share, seed=seed)
    selection = select_recipe(trials, count=len(pairs), seed=seed)
    workshop = Workshop(pairs, mean, seed=seed)
    uncentred = next(one.recipe for one in selection.table if one.recipe.centring == "none")
    maps = {
        "procrustes uncentred": workshop.make(uncentred),
        "procrustes": workshop.make(Recipe("procrustes")),
        "auto": workshop.make(selection.winner.recipe),
    }
    for method in METHODS[2:]:
        found = selection.best_of(method)
        if found is not None and method != "procrustes" and not method.startswith("distilled"):
            maps[method] = workshop.make(found.recipe)
    return maps


def with_members(row: Row, values: NDArray[np.float64], judged: Judged, seed: int) -> dict[str, Any]:
    """A row as JSON; on a joined corpus with the mean over its members beside the mean over queries."""
    groups = np.array(judged.dataset.groups)[judged.rows]
    means = [float(values[groups == group].mean()) for group in dict.fromkeys(groups.tolist())]
    return row.to_json() | {"seed": seed, "of_members": round(float(np.mean(means)), 5)}


def measure_migration(case: Case) -> list[dict[str, Any]]:
    """Adapt only, crossfade by tail matching, and tail matching with legacy-encoded queries, by the share migrated."""
    dataset = dataset_of(case.collection, case.old, case.new)
    judged, observed, documents = split(case, dataset)
    rows: list[dict[str, Any]] = []
    for migrated in MIGRATED:
        done = round(migrated * len(documents))
        known = documents[: min(max(done, case.pairs), MOST_PAIRS)]
        pairs = make_pairs(judged.new_documents[known], judged.old_documents[known])
        mean = observed.mean(axis=0, dtype=np.float64)
        share = len(known) / len(documents)
        trials = make_trials(pairs, queries=observed, query_mean=mean, share=share, seed=case.seed)
        recipe = select_recipe(trials, method="residual", count=len(pairs), seed=case.seed).winner.recipe
        adapted = Workshop(pairs, mean, seed=case.seed).make(recipe).apply(judged.new_queries)
        rankings = {
            "status quo": search_exact(judged.old_queries, judged.old_documents, 100)[0],
            "oracle": search_exact(judged.new_queries, judged.new_documents, 100)[0],
            "adapt": search_exact(adapted, judged.old_documents, 100)[0],
            "crossfade": merged(judged, adapted, documents, done, known),
            "crossfade, legacy-encoded": merged(judged, judged.old_queries, documents, done, known),
        }
        labels = {"pairs": len(known), "share": share, "migrated": migrated}
        evaluation = measure(judged, rankings, **labels)
        rows += [
            with_members(row, evaluation.values[row.method], judged, case.seed) | {"migrated": migrated}
            for row in evaluation.rows
        ]
    return rows


def merged(
    judged: Judged, asked: Float32, documents: NDArray[np.int64], done: int, known: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Rank 200 candidates of the old part and 50 of the migrated part together, old scores moved by tail matching."""
    new_part, old_part = documents[:done], documents[done:]
    matcher = fit_matcher(judged.new_documents[known], judged.old_documents[known])
    match = matcher.match(judged.new_queries, asked)
    old_rows, old_scores = search_exact(asked, judged.old_documents[old_part], 200)
    new_rows, new_scores = search_exact(
        judged.new_queries, judged.new_documents[new_part], 100 if not len(old_part) else 50
    )
    scores = np.concatenate([match.apply(old_scores), new_scores.astype(np.float64)], axis=1)
    rows = np.concatenate([old_part[old_rows], new_part[new_rows]], axis=1)
    return np.take_along_axis(rows, best(scores, 100)[0], axis=1)


if __name__ == "__main__":
    main()
