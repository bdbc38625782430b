"""Half-migrated quality through the running proxy, beside the same figures computed offline; writes
build/half-migrated.json and prints a table.

Run from the repository's root as `python -m tests.bench.half_migrated [--only COLLECTION ...] [--old MODEL]
[--queries N] [--backend milvus] [--shares 0 0.5 1]`, best with OPENBLAS_NUM_THREADS=1; CROSSFADE_DATA names the data.
A part of the documents, drawn at random, is written to the target of a migration, the adapter is fitted on it (on a
tenth of all documents before that many are there; at most
8,000), and judged queries are asked through `crossfade serve` with an unmodified client, once for each strategy.
Both indexes are searched exactly. `offline` is the same merge on arrays: as many adapted candidates of the old index,
the true best of the migrated part, and the matcher made of the same kept sample.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qdrant_client import models as m

from crossfade.adapters.base import Adapter, Card, Float32, PairsCard
from crossfade.adapters.candidates import MOST_FOR_COHERENCE, OFFSET, memory_for
from crossfade.adapters.dataset import read_dataset, rows_of
from crossfade.adapters.evaluate import Judged, load_judged
from crossfade.adapters.half_migrated import HalfMigrated
from crossfade.adapters.merge import fit_matcher
from crossfade.adapters.metrics import ndcg_at
from crossfade.adapters.pairs import make_pairs
from crossfade.adapters.recipe import Recipe, Workshop
from crossfade.adapters.search import search_exact
from crossfade.adapters.select import served
from crossfade.adapters.store import save_adapter
from crossfade.adapters.weights import usual_weights
from crossfade.proxy.loading import load_config
from crossfade.proxy.migration.sample import read_sample, sample_folder, sample_path
from tests.bench.half_migrated_milvus import MilvusSide
from tests.bench.quality_migration import scene_of
from tests.proxy.migrating import OLD, TARGET, Migrating, fill, start_migrating

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("CROSSFADE_DATA", ROOT.parent / "shared" / "data"))
SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
CASES = (
    ("scifact", "minilm-l6", "e5-small"),
    ("scifact", "wordllama", "minilm-l6"),
    ("msmarco-dl", "minilm-l6", "e5-small"),
    ("msmarco-dl", "wordllama", "minilm-l6"),
)
STRATEGIES = ("auto", "adapt", "crossfade", "native")
MOST_PAIRS, SAMPLE, DEPTH = 8_000, 2_000, 10


def settings_of(judged: Judged, adapter: str, text: str) -> str:
    old, new = judged.old_documents.shape[1], judged.new_documents.shape[1]
    # An encoder is named and never asked. Batches of 50 exact searches take their time: nothing shall fall back.
    return f"""
models: {{old: {{dim: {old}}}, new: {{dim: {new}, encoder: {{python: "tests.proxy.encoding_function:encode"}}}}}}
collections:
  docs:
    index_model: old
    query_model: new
    adapters: {{new: {adapter}}}
    text: {text}
    migrate: {{to: new, fall_back_after: 60s}}
"""


def fit(judged: Judged, rows: NDArray[np.int64]) -> Adapter:
    """An adapter from pairs of these documents, by the recipe that `auto` starts from, without observed queries."""
    new, old = judged.new_documents[rows], judged.old_documents[rows]
    few = len(rows) <= MOST_FOR_COHERENCE * min(new.shape[1], old.shape[1])
    memory = memory_for(len(rows) / len(judged.new_documents))
    recipe = Recipe("coherence" if few else "whitened", ridge=0.1, offset=OFFSET, memory=memory)
    forward = served(Workshop(make_pairs(new, old)).make(recipe))
    back = Workshop(make_pairs(old, new)).make(Recipe())
    card = Card("new", "old", new.shape[1], old.shape[1], recipe.method, PairsCard(len(rows), "bench"))
    return Adapter(card, forward, forward, back)


class QdrantSide:
    """An embedded Qdrant with both collections, and its client."""

    text = "payload.row"

    def start(self, home: Path, settings: str, dims: tuple[int, int]) -> AbstractContextManager[Migrating]:
        """Both collections, empty, and Crossfade in front of them."""
        return start_migrating(home, settings, dims=dims)

    def fill(self, migrating: Migrating, *, target: bool, vectors: Float32, rows: Sequence[int]) -> None:
        """Write rows of vectors under their row numbers."""
        fill(migrating.direct, TARGET if target else OLD, vectors, rows)

    def ask(self, migrating: Migrating, queries: Float32, strategy: str, depth: int) -> NDArray[np.int64]:
        """The documents found (n, depth) through the proxy by a strategy; -1 where there are fewer."""
        headers = {} if strategy == "auto" else {"x_crossfade_strategy": strategy}
        client = migrating.client(grpc=True, **headers)
        found = np.full((len(queries), depth), -1, np.int64)
        for start in range(0, len(queries), 50):
            requests = [m.QueryRequest(query=row.tolist(), limit=depth) for row in queries[start : start + 50]]
            for at, answer in enumerate(client.query_batch_points(OLD, requests)):
                found[start + at, : len(answer.points)] = [point.id for point in answer.points]
        return found


Side = QdrantSide | MilvusSide


def measure_case(
    side: Side, collection: str, old: str, new: str, queries: int | None, shares: Sequence[float]
) -> Iterator[Any]:
    """A row for each share."""
    folder = DATA / collection
    dataset = read_dataset(folder, rows=rows_of(folder, [old, new]))
    judged = load_judged(dataset, old, new, None if queries is None else range(min(queries, len(dataset.query_ids))))
    count = len(judged.new_documents)
    order = np.random.default_rng(0).permutation(count)
    oracle = search_exact(judged.new_queries, judged.new_documents, DEPTH)[0]
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        save_adapter(fit(judged, order[: round(0.1 * count)]), home / "a-0")
        dims = judged.old_documents.shape[1], judged.new_documents.shape[1]
        with side.start(home, settings_of(judged, "a-0", side.text), dims) as migrating:
            side.fill(migrating, target=False, vectors=judged.old_documents, rows=range(count))
            done = 0
            for share in shares:
                reach = round(share * count)
                side.fill(migrating, target=True, vectors=judged.new_documents, rows=order[done:reach].tolist())
                done = max(done, reach)
                adapter = fit(judged, order[: min(max(reach, round(0.1 * count)), MOST_PAIRS)])
                row = measure_share(side, migrating, judged, adapter, order[:reach], share, home)
                yield {"collection": collection, "old": old, "new": new, "share": share, **row,
                       "oracle": mean(oracle, judged)}  # fmt: skip


def measure_share(
    side: Side,
    migrating: Migrating,
    judged: Judged,
    adapter: Adapter,
    there: NDArray[np.int64],
    share: float,
    home: Path,
) -> dict[str, Any]:
    """nDCG@10 of every strategy through the proxy, and of the same merge offline."""
    name = f"a-{len(list(home.glob('a-*')))}"
    save_adapter(adapter, home / name)
    config = migrating.serving.config
    config.write_text(f"{config.read_text().partition('models:')[0]}{settings_of(judged, name, side.text)}")
    generation = migrating.serving.status()["generation"]
    migrating.serving.reload()
    assert migrating.serving.status()["generation"] > generation
    sample = sample_path(sample_folder(load_config(config)), migrating.view.id)
    if len(there) >= 20:
        migrating.write_sample(judged.new_documents, judged.old_documents, there.tolist())
    migrating.move(migrated=share)
    found = {one: mean(side.ask(migrating, judged.new_queries, one, DEPTH), judged) for one in STRATEGIES}
    assert "crossfade_migration_fallbacks_total{" not in migrating.serving.metrics()
    offline = mean(merge_offline(judged, adapter, there, share, sample), judged)
    return {**found, "offline": offline, "pairs": adapter.card.pairs.count}


def merge_offline(
    judged: Judged, adapter: Adapter, there: NDArray[np.int64], share: float, sample: Path
) -> NDArray[np.int64]:
    """The same candidates and the same merge on arrays."""
    mapped = adapter.query.apply(judged.new_queries)
    mapped /= np.linalg.norm(mapped, axis=1, keepdims=True)
    if not len(there):
        return search_exact(mapped, judged.old_documents, DEPTH)[0]
    kept = read_sample(sample)
    assert kept is not None
    half = HalfMigrated(scene_of(judged), there, fit_matcher(kept[0], kept[1]))
    return half.rank(mapped, [usual_weights(share).trust], DEPTH)[0]


def mean(rows: NDArray[np.int64], judged: Judged) -> float:
    return round(float(ndcg_at(rows, judged.judgements).mean()), 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", help="collections to measure")
    parser.add_argument("--queries", type=int, help="ask the first so many judged queries alone")
    parser.add_argument("--old", help="measure the pairs with this old model alone")
    parser.add_argument("--backend", choices=["qdrant", "milvus"], default="qdrant")
    parser.add_argument("--shares", nargs="*", type=float, default=SHARES)
    arguments = parser.parse_args()
    if not DATA.is_dir():
        sys.exit(f"no evaluation data at {DATA}; set CROSSFADE_DATA to its folder")
    rows = []
    side = MilvusSide() if arguments.backend == "milvus" else QdrantSide()
    for case in CASES:
        if (arguments.only is None or case[0] in arguments.only) and arguments.old in (None, case[1]):
            for row in measure_case(side, *case, arguments.queries, arguments.shares):
                rows.append(row)
                print(json.dumps(row), flush=True)  # noqa: T201  # a program's output
    name = "half-migrated-milvus.json" if arguments.backend == "milvus" else "half-migrated.json"
    path = ROOT / "build" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
