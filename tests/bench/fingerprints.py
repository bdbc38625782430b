"""How often fingerprints are wrong on single queries: prints a table and writes build/fingerprints.json.

Run as `python tests/bench/fingerprints.py`; CROSSFADE_DATA names the data. Three ways to fit: on the documents of the
queries' own collection, on those and half of its queries (the other half is tested), and on the documents of one other
collection (every ordered pair of collections).
"""

import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from crossfade.adapters.base import Float32
from crossfade.adapters.fingerprint import Fingerprint, fit_fingerprint, mismatched

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("CROSSFADE_DATA", ROOT.parent / "shared" / "data"))
MODELS = ("minilm-l6", "e5-small", "paraphrase-l3")  # all of 384 dimensions
MOST_DOCUMENTS = 8_000


@dataclass(frozen=True)
class Row:
    """Rates are shares of `queries`; `worst` is the highest false-refusal rate of one (fitted on, asked of) pair."""

    fitted_on: str
    model: str
    queries: int
    misclassified: float
    refused_by_comparison: float
    missed_by_comparison: float
    refused_alone: float
    worst_refused_alone: float
    missed_alone: float


@dataclass(frozen=True)
class Trial:
    """Own queries of a model against the fingerprints of one corpus, and the same queries as other models made them."""

    model: str
    own: Float32
    foreign: Float32
    fingerprints: dict[str, Fingerprint]


def load(collection: str, part: str, model: str) -> Float32 | None:
    path = DATA / collection / f"{part}.{model}.f16.npy"
    return np.load(path)[:MOST_DOCUMENTS].astype(np.float32) if path.exists() else None


def collections() -> list[str]:
    return sorted(path.parent.name for path in DATA.glob("*/docs.minilm-l6.f16.npy"))


def fit(collection: str, *, with_queries: bool = False) -> dict[str, Fingerprint]:
    fitted = {}
    for model in MODELS:
        docs, queries = load(collection, "docs", model), load(collection, "queries", model)
        if docs is not None and queries is not None:
            enough = with_queries and len(queries) >= 100
            fitted[model] = fit_fingerprint(docs, queries=queries[::2] if enough else None)
    return fitted


def trials(corpus: dict[str, Fingerprint], collection: str, step: slice) -> Iterator[Trial]:
    made = {model: queries[step] for model in corpus if (queries := load(collection, "queries", model)) is not None}
    for model, own in made.items():
        foreign = np.concatenate([queries for other, queries in made.items() if other != model])
        yield Trial(model, own, foreign, corpus)


def measure(trial: Trial) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Sums over a trial, in the order of Row's rates without `worst`, then both sizes."""
    declared, prints = trial.fingerprints[trial.model], trial.fingerprints
    return np.array(
        [
            mismatched(trial.own, trial.model, prints, margin=0.0).sum(),
            mismatched(trial.own, trial.model, prints).sum(),
            (~mismatched(trial.foreign, trial.model, prints)).sum(),
            declared.is_foreign(trial.own).sum(),
            (~declared.is_foreign(trial.foreign)).sum(),
            len(trial.own),
            len(trial.foreign),
        ],
        dtype=np.float64,
    )


def summarise(fitted_on: str, rounds: Iterable[Trial]) -> list[Row]:
    measured = [(trial.model, measure(trial)) for trial in rounds if len(trial.foreign)]
    rows = []
    for model in dict.fromkeys(model for model, _ in measured):
        sums = np.array([found for name, found in measured if name == model])
        wrong, refused, missed, alone, overlooked, own, foreign = sums.sum(axis=0)
        worst = float((sums[:, 3] / sums[:, 5]).max())
        rates = (wrong / own, refused / own, missed / foreign, alone / own, worst, overlooked / foreign)
        rows.append(Row(fitted_on, model, int(own), *map(float, rates)))
    return rows


def run() -> list[Row]:
    names = collections()
    documents = {name: fit(name) for name in names}
    observed = {name: fit(name, with_queries=True) for name in names}
    return [
        *summarise("own documents", (t for name in names for t in trials(documents[name], name, slice(None)))),
        *summarise("own documents + queries", (t for n in names for t in trials(observed[n], n, slice(1, None, 2)))),
        *summarise(
            "another collection",
            (t for a in names for b in names if a != b for t in trials(documents[a], b, slice(None))),
        ),
    ]


def cells(row: Row) -> list[str]:
    alone = f"{row.refused_alone:.3%} ({row.worst_refused_alone:.1%})"
    compared = (row.misclassified, row.refused_by_comparison, row.missed_by_comparison)
    return [*(f"{rate:.3%}" for rate in compared), alone, f"{row.missed_alone:.3%}"]


def main() -> None:
    if not collections():
        sys.exit(f"no evaluation data in {DATA}; set CROSSFADE_DATA to its folder")
    rows = run()
    table = Table(title="Single queries, 384 dimensions", caption="comparison: mismatched(); alone: is_foreign()")
    for heading in ("fitted on", "model", "queries", "misclassified"):
        table.add_column(heading)
    for heading in ("refused, comparison", "missed, comparison", "refused, alone (worst)", "missed, alone"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(row.fitted_on, row.model, str(row.queries), *cells(row))
    Console().print(table)
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    (build / "fingerprints.json").write_text(json.dumps([asdict(row) for row in rows], indent=1))


if __name__ == "__main__":
    main()
