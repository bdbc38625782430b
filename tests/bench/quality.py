"""The reproduction report: every family of adapters on judged collections; writes build/quality.json and
docs/quality.md.

Run from the repository's root as `python -m tests.bench.quality`, best with OPENBLAS_NUM_THREADS=1; CROSSFADE_DATA
names the data, `--help` the options. Cases that build/quality-parts holds already are not measured again, so an
interrupted run goes on. `--shard 0/2` and `--shard 1/2` share the cases between two processes.

In every case new-model queries are mapped into the old model's index. For each seed the pairs are a random part of
the documents and the judged queries are halved: one half is observed (vectors only, no judgement is ever shown to a
fit), the other is tested. One selection run gives every family its own best recipe by held-out retrieval, on equal
pairs; `auto` is the best of all by the same figure.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from crossfade.adapters.base import Float32, Map
from crossfade.adapters.candidates import select_recipe
from crossfade.adapters.choice import METHODS
from crossfade.adapters.evaluate import evaluate
from crossfade.adapters.pairs import Pairs, make_pairs
from crossfade.adapters.recipe import Recipe, Workshop
from crossfade.adapters.select import served
from crossfade.adapters.trial import make_trials
from tests.bench.quality_cases import DATA, MOST_PAIRS, ROOT, Case, dataset_of, models_of, split, with_values
from tests.bench.quality_migration import measure_migration
from tests.bench.quality_report import read_parts, write_report
from tests.bench.quality_required import Planned

PARTS = ROOT / "build" / "quality-parts"
NAMED = ("scifact", "msmarco-dl", "cranfield", "med")
UPGRADES = (
    ("minilm-l6", "e5-small"),
    ("e5-small", "minilm-l6"),
    ("wordllama", "minilm-l6"),
    ("use-m3", "minilm-l6"),
)
CURVE = (250, 500, 1_000, 2_000, 4_000, 8_000, 16_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one seed, small collections, no curves")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", nargs="*", help="collections to measure")
    parser.add_argument("--kinds", nargs="*", help="families, curve or migration; default: all")
    parser.add_argument("--shard", default="0/1", help="measure only every n-th case, as at/n")
    parser.add_argument("--report", action="store_true", help="write the report from what is measured already")
    arguments = parser.parse_args()
    if not DATA.is_dir():
        sys.exit(f"no evaluation data at {DATA}; set CROSSFADE_DATA to its folder")
    if not arguments.report:
        at, shards = map(int, arguments.shard.split("/"))
        wanted = cases(1 if arguments.quick else arguments.seeds, arguments.quick)
        chosen = [case for case in wanted if arguments.only is None or case.collection in arguments.only]
        chosen = [case for case in chosen if arguments.kinds is None or case.kind in arguments.kinds]
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


if __name__ == "__main__":
    main()
