"""What it brings to re-encode first what observed queries find: half-migrated quality by the order of the documents.

Run from the repository's root as `python -m tests.bench.order_by_popularity [--only COLLECTION ...] [--splits N]`;
CROSSFADE_DATA names the data. Half of the judged queries are observed, that is, their mean and spread; the list of
documents is made of them as migration/popular.py makes it, by the adapter and the old index. Those on it come first,
the others follow at random, which stands for an order by id. Quality is that of the merge of both indexes (strategy
crossfade), for the other half of the queries, which nobody has observed, and for the observed ones.

`held`: the adapter is fitted on a quarter of the documents, drawn at random, and stays, as it does where a collection
has many more documents than the adapter learns from. `refitted`: it is fitted on the documents that are in the target,
as it would be if popular documents came before those it learns from.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossfade.adapters.base import Adapter, Float32
from crossfade.adapters.dataset import read_dataset, rows_of
from crossfade.adapters.evaluate import Judged, load_judged
from crossfade.adapters.observe import QueryStatistics
from crossfade.adapters.search import search_exact
from crossfade.backends.index import Hits
from crossfade.proxy.migration.popular import rank_found
from crossfade.proxy.migration.sample import Sampler
from tests.bench.half_migrated import DATA, MOST_PAIRS, fit, mean, merge_offline

SHARES, KNOWN = (0.1, 0.25, 0.5), 0.25
DRAWN, BEST = 2_000, 20  # as migration/popular.py has them
CASES = (("scifact", "minilm-l6", "e5-small"), ("scifact", "wordllama", "minilm-l6"))


def order_popular(
    judged: Judged, adapter: Adapter, observed: Sequence[int], order: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The documents that drawn queries find, most popular first, then all others in their order."""
    seen = QueryStatistics.empty(judged.new_queries.shape[1]).add(judged.new_queries[list(observed)])
    rows, scores = search_exact(unit(adapter.query.apply(unit(seen.sample(DRAWN)))), judged.old_documents, BEST)
    first = rank_found([Hits(one.tolist(), score) for one, score in zip(rows, scores, strict=True)])
    known = set(first)
    return np.array([*first, *(row for row in order.tolist() if row not in known)])


def unit(rows: Float32) -> Float32:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def measure(judged: Judged, there: NDArray[np.int64], adapter: Adapter, share: float, tested: Sequence[int]) -> float:
    """nDCG@10 of these queries with these documents in the target."""
    at = list(tested)
    part = replace(judged, rows=judged.rows[at], old_queries=judged.old_queries[at], new_queries=judged.new_queries[at])
    with tempfile.TemporaryDirectory() as folder:
        sample = Path(folder) / "sample"
        sampler = Sampler(sample, "cosine")
        sampler.note({int(row): (judged.new_documents[row], judged.old_documents[row]) for row in there}, [])
        sampler.write()
        return mean(merge_offline(part, adapter, there, share, sample), part)


def measure_case(collection: str, old: str, new: str, splits: int) -> Iterator[dict[str, Any]]:
    """A row for each share and adapter: means over the splits."""
    folder = DATA / collection
    judged = load_judged(read_dataset(folder, rows=rows_of(folder, [old, new])), old, new, None)
    count = len(judged.new_documents)
    found: dict[tuple[str, float], dict[str, list[float]]] = {}
    for seed in range(splits):
        numbers = np.random.default_rng(seed)
        order = numbers.permutation(count)
        queries = numbers.permutation(len(judged.new_queries)).tolist()
        observed, unseen = queries[: len(queries) // 2], queries[len(queries) // 2 :]
        known = fit(judged, order[: round(KNOWN * count)])
        orders = {"id": order, "popularity": order_popular(judged, known, observed, numbers.permutation(count))}
        for share in SHARES:
            for name, rows in orders.items():
                there = rows[: round(share * count)]
                for kind, adapter in (("held", known), ("refitted", fit(judged, there[:MOST_PAIRS]))):
                    row = found.setdefault((kind, share), {})
                    for group, tested in (("unseen", unseen), ("observed", observed)):
                        row.setdefault(f"{name} {group}", []).append(measure(judged, there, adapter, share, tested))
    for (kind, share), row in sorted(found.items()):
        means = {name: round(float(np.mean(values)), 3) for name, values in row.items()}
        yield {"collection": collection, "old": old, "new": new, "adapter": kind, "share": share, **means}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--only", nargs="*", help="collections to measure")
    arguments = parser.parse_args()
    for case in CASES:
        if arguments.only is None or case[0] in arguments.only:
            for row in measure_case(*case, arguments.splits):
                print(json.dumps(row), flush=True)  # noqa: T201  # a program's output


if __name__ == "__main__":
    main()
