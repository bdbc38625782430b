"""The reproduction report: every family of adapters on judged collections; writes build/quality.json and
docs/quality.md.

Run from the repository's root as `python -m tests.bench.quality [--quick] [--seeds N] [--only NAME ...]`, best with
OPENBLAS_NUM_THREADS=1; CROSSFADE_DATA names the data. Cases that build/quality-parts holds already are not measured
again, so an interrupted run goes on. `--shard 0/2` and `--shard 1/2` share the cases between two processes.

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
from crossfade.adapters.candidates import select_recipe
from crossfade.adapters.choice import METHODS
from crossfade.adapters.dataset import Dataset, read_dataset, rows_of
from crossfade.adapters.evaluate import Judged, Row, evaluate, load_judged, measure
from crossfade.adapters.merge import TRUST, blend_hits, blend_queries, fit_matcher, match_hits
from crossfade.adapters.metrics import ndcg_at
from crossfade.adapters.pairs import Pairs, make_pairs
from crossfade.adapters.recipe import Recipe, Workshop
from crossfade.adapters.search import search_exact
from crossfade.adapters.select import served
from crossfade.adapters.trial import make_trials
from crossfade.adapters.vectors import unit_rows
from crossfade.proxy.verdicts import WORTH
from tests.bench.quality_report import read_parts, write_report
from tests.bench.quality_required import Planned

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("CROSSFADE_DATA", ROOT.parent / "shared" / "data"))
PARTS = ROOT / "build" / "quality-parts"
MOST_PAIRS = 8_000
MOST_TESTED = 500  # queries of a collection
NAMED = ("scifact", "msmarco-dl", "cranfield", "med")
UPGRADES = (
    ("minilm-l6", "e5-small"),
    ("e5-small", "minilm-l6"),
    ("wordllama", "minilm-l6"),
    ("use-m3", "minilm-l6"),
)
MIGRATED = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
LEGACY = "crossfade, legacy-encoded"
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
    parser.add_argument("--shard", default="0/1", help="measure only every n-th case, as at/n")
    parser.add_argument("--report", action="store_true", help="write the report from what is measured already")
    arguments = parser.parse_args()
    if not DATA.is_dir():
        sys.exit(f"no evaluation data at {DATA}; set CROSSFADE_DATA to its folder")
    if not arguments.report:
        at, shards = map(int, arguments.shard.split("/"))
        wanted = cases(1 if arguments.quick else arguments.seeds, arguments.quick)
        chosen = [case for case in wanted if arguments.only is None or case.collection in arguments.only]
        for case in chosen[at::shards]:
            run(case)
    kinds = [case.kind for case in cases(1, quick=False)]
    planned = Planned(kinds.count("families"), kinds.count("migration"))
    write_report(read_parts(PARTS), ROOT / "build" / "quality.json", ROOT / "docs" / "quality.md", planned)


def cases(seeds: int, quick: bool) -> Iterator[Case]:
    """Every case: those of the required figures first, then seed by seed and cheap ones first."""
    found = [case for seed in range(seeds) for case in _cases_of(seed, quick)]
    return iter(sorted(found, key=lambda case: (_tier(case), case.seed, case.pairs)))


def _tier(case: Case) -> int:
    """0: named collections; 1: the mixed corpus and half-migrated ones; 2: the rest; 3: curves."""
    named = case.collection in NAMED and (case.old, case.new) == UPGRADES[0]
    if case.kind == "families":
        return 0 if named else 1 if case.collection == "hetero" else 2
    return 3 if case.kind == "curve" else 1 if case.collection in ("scifact", "cranfield", "msmarco-dl") else 2


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
        if not quick and collection != "hetero":
            yield Case("migration", collection, old, new, round(0.1 * size), seed)


def model_pairs(quick: bool) -> Iterator[tuple[str, str, str]]:
    """Collections of the data folder with the upgrades that their vectors allow."""
    for folder in sorted(path for path in DATA.iterdir() if (path / "README.md").is_file()):
        if quick and folder.name not in ("cranfield", "med", "mtrag"):
            continue
        known = ["minilm-l6", "e5-small"] if folder.name == "hetero" else models_of(folder)
        for old, new in UPGRADES if not quick else UPGRADES[:1]:
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
    path.with_suffix(".new").write_text(json.dumps([{"kind": case.kind, "case": case.pairs, **row} for row in rows]))
    path.with_suffix(".new").rename(path)
    sys.stderr.write(f"{case.name}: {time.monotonic() - start:.0f} s\n")


def measure_families(case: Case) -> list[dict[str, Any]]:
    """The four rows, with an adapted row for the best recipe of each family and for auto."""
    dataset = dataset_of(case.collection, case.old, case.new)
    judged, observed, documents = split(case, dataset)
    pairs = make_pairs(judged.new_documents[documents[: case.pairs]], judged.old_documents[documents[: case.pairs]])
    share = case.pairs / len(documents)
    maps, methods = fit_families(pairs, observed, share, case.seed)
    evaluation = evaluate(judged, maps, pairs=case.pairs, share=share, seed=case.seed)
    return [
        with_values(row, evaluation.values[row.method], judged, case.seed) | {"chosen": methods.get(row.method, "")}
        for row in evaluation.rows
    ]


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


def fit_families(pairs: Pairs, observed: Float32, share: float, seed: int) -> tuple[dict[str, Map], dict[str, str]]:
    """The best recipe of each family on all pairs, the best of all as "auto" as it is served, and what each became."""
    mean = observed.mean(axis=0, dtype=np.float64)
    trials = make_trials(pairs, queries=observed, query_mean=mean, share=share, seed=seed)
    selection = select_recipe(trials, baselines=True, count=len(pairs), seed=seed)
    workshop = Workshop(pairs, mean, seed=seed)
    recipes = {"procrustes uncentred": Recipe("procrustes", centring="none"), "procrustes": Recipe("procrustes")}
    for method in METHODS[2:]:
        found = selection.best_of(method)
        if found is not None and method != "procrustes" and not method.startswith("distilled"):
            recipes[method] = found.recipe
    maps = {name: workshop.make(recipe) for name, recipe in recipes.items()}
    maps["auto"] = served(workshop.make(selection.winner.recipe))
    recipes["auto"] = selection.winner.recipe
    return maps, {name: recipe.method for name, recipe in recipes.items()}


def with_values(row: Row, values: NDArray[np.float64], judged: Judged, seed: int) -> dict[str, Any]:
    """A row as JSON with each query's figure; on a joined corpus with the mean over its members beside their mean."""
    groups = np.array(judged.dataset.groups)[judged.rows]
    members = list(dict.fromkeys(groups.tolist()))
    means = [float(values[groups == group].mean()) for group in members]
    figures = {"values": np.round(values, 4).tolist(), "of_members": round(float(np.mean(means)), 5)}
    if len(members) > 1:
        figures["members"] = [members.index(group) for group in groups.tolist()]
    return row.to_json() | {"seed": seed, **figures}


def measure_migration(case: Case) -> list[dict[str, Any]]:
    """Adapt only, and both indexes together with adapted or blended queries, by the share migrated.

    The adapter is fitted anew on what is migrated. With everything migrated the new index answers alone. "by a verdict"
    is what `auto` does that follows a probe (proxy/strategies.py): the judgements of the observed half choose.
    """
    dataset = dataset_of(case.collection, case.old, case.new)
    tested, seen, documents = halves(case, dataset)
    judged, probed = (load_judged(dataset, case.old, case.new, rows) for rows in (tested, seen[:MOST_TESTED]))
    observed = unit_rows(dataset.queries(case.new)[seen])
    mean = observed.mean(axis=0, dtype=np.float64)
    fixed = {
        "status quo": search_exact(judged.old_queries, judged.old_documents, 100)[0],
        "oracle": search_exact(judged.new_queries, judged.new_documents, 100)[0],
    }
    rows: list[dict[str, Any]] = []
    for migrated in MIGRATED:
        known = documents[: min(max(round(migrated * len(documents)), case.pairs), MOST_PAIRS)]
        pairs = make_pairs(judged.new_documents[known], judged.old_documents[known])
        share = len(known) / len(documents)
        trials = make_trials(pairs, queries=observed, query_mean=mean, share=share, seed=case.seed)
        recipe = select_recipe(trials, method="residual", count=len(pairs), seed=case.seed).winner.recipe
        fitted = Workshop(pairs, mean, seed=case.seed).make(recipe)
        done = documents[: round(migrated * len(documents))]
        ways = HalfMigrated(judged, done, known).ways(fitted, migrated)
        rankings = fixed | ways | steered(ways, HalfMigrated(probed, done, known).ways(fitted, migrated), probed)
        evaluation = measure(judged, rankings, pairs=len(known), share=share, migrated=migrated)
        rows += [
            with_values(row, evaluation.values[row.method], judged, case.seed)
            | {"migrated": migrated, "chosen": recipe.method}
            for row in evaluation.rows
        ]
    return rows


def steered(
    ways: dict[str, NDArray[np.int64]], probed_ways: dict[str, NDArray[np.int64]], probed: Judged
) -> dict[str, NDArray[np.int64]]:
    """Of the ways' rankings those that `auto` would take after a probe's: for queries as vectors, and for texts."""
    found = {name: float(ndcg_at(ranking, probed.judgements).mean()) for name, ranking in probed_ways.items()}
    alone = found["adapt"] - found["crossfade"] > WORTH
    old = found[LEGACY] - found["crossfade"] > WORTH
    vectors = "adapt" if alone else "crossfade"
    return {"by a verdict": ways[vectors], "by a verdict, texts": ways[LEGACY if old else vectors]}


@dataclass(frozen=True)
class HalfMigrated:
    """A collection whose documents `done` are in the new index, searched as the proxy does.

    Both indexes give their 60 best, the old one of all documents, and the new one its scores of the old one's;
    `known` are documents with both vectors, a sample of which matches the scores.
    """

    judged: Judged
    done: NDArray[np.int64]
    known: NDArray[np.int64]

    def ways(self, fitted: Map, migrated: float) -> dict[str, NDArray[np.int64]]:
        """Rankings (n, 100) by each way of asking."""
        judged = self.judged
        adapted = fitted.apply(judged.new_queries)
        return {
            "adapt": search_exact(adapted, judged.old_documents, 100)[0],
            "crossfade": self.rank(adapted),
            "crossfade, true scores alone": self.rank(adapted, trust=1.0),
            LEGACY: self.rank(blend_queries(judged.old_queries, adapted, migrated)),
            "crossfade, legacy-encoded alone": self.rank(judged.old_queries),
        }

    def rank(self, asked: Float32, *, trust: float = TRUST) -> NDArray[np.int64]:
        """The best 100 documents (n, 100) for the judged queries, asked (n, old_dim) in the old space."""
        judged = self.judged
        if len(self.done) == len(judged.new_documents):
            return search_exact(judged.new_queries, judged.new_documents, 100)[0]
        matcher = fit_matcher(judged.new_documents[self.known], judged.old_documents[self.known])
        rows, scores = search_exact(asked, judged.old_documents, 60)
        line = matcher.match(judged.new_queries, asked)
        fresh = np.zeros(len(judged.new_documents), bool)
        fresh[self.done] = True
        best_new = search_exact(judged.new_queries, judged.new_documents[self.done], 60)[0] if len(self.done) else None
        ranked = np.full((len(rows), 100), -1)
        for at, query in enumerate(judged.new_queries):
            among = rows[at][fresh[rows[at]]]
            true = among if best_new is None else np.union1d(self.done[best_new[at]], among)
            new = zip(true.tolist(), (judged.new_documents[true] @ query).tolist(), strict=True)
            known, own = dict(new), list(zip(rows[at].tolist(), scores[at].tolist(), strict=True))
            scale, shift = match_hits(known, own) or (line.scale[at], line.shift[at])
            old = [(row, scale * score + shift) for row, score in own]
            best = [row for row, _ in blend_hits(list(known.items()), old, 100, trust=trust)]
            ranked[at, : len(best)] = best
        return ranked


if __name__ == "__main__":
    main()
