"""The torch families against the linear map they start from, on judged queries: a table and build/trained.json.

Run as `python tests/bench/trained.py [collection ...]`; CROSSFADE_DATA names the data. In every case the map takes the
new model's queries to the old model's documents. Half of the documents, at most PAIRS, are pairs; a third of the judged
queries not tested only choose (ridge, centring, epoch), the others are observed: their vectors are known, nothing else.
All methods have the same pairs, the same observed queries and the same choosing queries. Truth: human judgements,
nDCG@10 as trec_eval computes it, on the half of the queries that nothing above has seen.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from crossfade.adapters.base import Float32, Map
from crossfade.adapters.dataset import Dataset, read_dataset, rows_of
from crossfade.adapters.distill import fit_distilled, mix_queries
from crossfade.adapters.linear import LinearMap, fit_system
from crossfade.adapters.metrics import ndcg_at
from crossfade.adapters.mlp import fit_mlp
from crossfade.adapters.observe import QueryStatistics
from crossfade.adapters.search import search_exact
from crossfade.adapters.training import Score, neighbour_overlap
from crossfade.adapters.vectors import unit_rows

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("CROSSFADE_DATA", ROOT.parent / "shared" / "data"))
COLLECTIONS = ("med", "cranfield", "scifact", "msmarco-dl")
MODELS = (("minilm-l6", "e5-small"), ("e5-small", "minilm-l6"), ("wordllama", "minilm-l6"))  # old, new
SEEDS = (0, 1, 2)
PAIRS = 4_000
RIDGES = (0.03, 0.1, 0.3, 1.0, 3.0)


@dataclass(frozen=True)
class Split:
    """One case: vectors of the new model, the old documents, and what each may be used for."""

    judgements: list[dict[int, float]]
    docs_old: Float32
    queries_new: Float32
    source: Float32
    target: Float32
    observed: Float32
    score: Score

    def ndcg(self, fitted: Map) -> float:
        mapped = unit_rows(fitted.apply(self.queries_new))
        return float(ndcg_at(search_exact(mapped, self.docs_old, 10)[0], self.judgements).mean())


@dataclass(frozen=True)
class Row:
    collection: str
    old: str
    new: str
    seed: int
    method: str
    pairs: int
    share: float
    observed: int
    tested: int
    held_out_overlap: float
    ndcg: float
    seconds: float


def split(data: Dataset, old: str, new: str, seed: int) -> Split:
    rng = np.random.default_rng(seed)
    docs_new, docs_old, queries = data.documents(new), unit_rows(data.documents(old)), data.queries(new)
    chosen = rng.permutation(len(docs_new))[: min(PAIRS, len(docs_new) // 2)]
    judged = rng.permutation([at for at, j in enumerate(data.judgements) if any(gain > 0 for gain in j.values())])
    tested, choosing, observed = np.split(judged, [len(judged) // 2, len(judged) // 2 + len(judged) // 6])
    source, target = docs_new[chosen], docs_old[chosen]
    score = neighbour_overlap(queries[choosing], source, target)
    judgements = [data.judgements[at] for at in tested]
    return Split(judgements, docs_old, queries[tested], source, target, queries[observed], score)


def best_linear(case: Split) -> LinearMap:
    system = fit_system(case.source, case.target)
    maps = [system.fit(ridge) for ridge in RIDGES]
    means = case.observed.mean(axis=0), case.target.mean(axis=0)
    return max([*maps, *(fitted.recentred(*means) for fitted in maps)], key=case.score)


def methods(case: Split, base: LinearMap, seed: int) -> dict[str, Callable[[], Map]]:
    def distilled(queries: Float32) -> Callable[[], Map]:
        return lambda: fit_distilled(queries, case.source, case.target, base, score=case.score, seed=seed)

    drawn = QueryStatistics.empty(base.source_dim).add(case.observed).sample(1_000, seed=seed)
    return {
        "linear": lambda: base,
        "mlp": lambda: fit_mlp(case.source, case.target, base, score=case.score, seed=seed),
        "distill: observed queries": distilled(case.observed),
        "distill: observed queries and documents": distilled(mix_queries(case.observed, case.source)),
        "distill: drawn queries and documents": distilled(mix_queries(drawn, case.source)),
        "distill: documents": distilled(case.source),
    }


def measure(name: str, old: str, new: str, seed: int) -> Iterator[Row]:
    data = read_dataset(DATA / name, rows=rows_of(DATA / name, (old, new)))
    case = split(data, old, new, seed)
    share = len(case.source) / len(case.docs_old)
    base = best_linear(case)
    for method, fit in methods(case, base, seed).items():
        start = time.perf_counter()
        fitted = fit()
        took = time.perf_counter() - start
        counts = (len(case.source), share, len(case.observed), len(case.queries_new))
        yield Row(name, old, new, seed, method, *counts, case.score(fitted), case.ndcg(fitted), took)


def show(rows: list[Row]) -> None:
    table = Table(title="nDCG@10 (trec_eval, human judgements): mean over seeds, difference to linear +- deviation")
    for heading in ("case", "pairs", "method", "nDCG@10", "to linear", "overlap@10 held out", "seconds"):
        table.add_column(heading)
    for (name, old, new), found in groupby(rows, lambda row: (row.collection, row.old, row.new)):
        case = list(found)
        base = np.array([row.ndcg for row in case if row.method == "linear"])
        for method in dict.fromkeys(row.method for row in case):
            mine = [row for row in case if row.method == method]
            apart = np.array([row.ndcg for row in mine]) - base
            means = (float(np.mean([getattr(row, key) for row in mine])) for key in ("held_out_overlap", "seconds"))
            overlap, seconds = means
            difference = f"{apart.mean():+.3f} +- {apart.std():.3f}"
            ndcg = f"{base.mean() + apart.mean():.3f}"
            pairs = f"{mine[0].pairs} ({mine[0].share:.0%})"
            table.add_row(f"{name} {old} -> {new}", pairs, method, ndcg, difference, f"{overlap:.3f}", f"{seconds:.1f}")
    Console().print(table)


def main() -> None:
    if not DATA.is_dir():
        sys.exit(f"no evaluation data in {DATA}; set CROSSFADE_DATA to its folder")
    wanted = sys.argv[1:] or COLLECTIONS
    rows: list[Row] = []
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    for name in wanted:
        for old, new in MODELS:
            for seed in SEEDS:
                rows.extend(measure(name, old, new, seed))
        (build / "trained.json").write_text(json.dumps([asdict(row) for row in rows], indent=1))
    show(rows)


if __name__ == "__main__":
    main()
