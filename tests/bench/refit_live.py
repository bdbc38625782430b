"""What the adapter gains by learning from a migration as it runs: nDCG@10 through `crossfade serve`, with and without.

Run from the repository's root as `python -m tests.bench.refit_live [--only COLLECTION ...]`, best with
OPENBLAS_NUM_THREADS=1; CROSSFADE_DATA names the data. A collection is stored by the old model, an adapter is fitted on
a tenth of its documents, and a real migration re-encodes it within a minute (the new model's stored vectors stand for
its encoder). Judged queries are asked again and again meanwhile, by `adapt` and by `auto`. Prints a line for each round
and writes build/refit-live.json and docs/refit.png.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from qdrant_client import QdrantClient
from qdrant_client import models as m

from crossfade.adapters.dataset import read_dataset, rows_of
from crossfade.adapters.evaluate import Judged, load_judged
from crossfade.adapters.metrics import ndcg_at
from crossfade.adapters.pairs import make_pairs
from crossfade.adapters.select import fit_adapter
from crossfade.adapters.store import save_adapter
from crossfade.backends.embedded import QdrantServer
from tests.proxy.serving import Serving, start_serving

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("CROSSFADE_DATA", ROOT.parent / "shared" / "data"))
CASES: Final = (("scifact", "minilm-l6", "e5-small"), ("msmarco-dl", "wordllama", "minilm-l6"))
NAME, DEPTH, SECONDS, QUERIES = "docs", 10, 60.0, 300


def measure_case(collection: str, old: str, new: str, refit: int) -> Iterator[dict[str, Any]]:
    """A row for each round of queries while one migration runs."""
    folder = DATA / collection
    dataset = read_dataset(folder, rows=rows_of(folder, [old, new]))
    judged = load_judged(dataset, old, new, range(min(QUERIES, len(dataset.query_ids))))
    count = len(judged.new_documents)
    first = np.random.default_rng(0).permutation(count)[: count // 10]
    pairs = make_pairs(judged.new_documents[first], judged.old_documents[first])
    adapter = fit_adapter(pairs, source_model="new", target_model="old", corpus_size=count)
    with tempfile.TemporaryDirectory() as place, QdrantServer(Path(place) / "data") as server:
        home = Path(place)
        save_adapter(adapter, home / "adapter")
        np.save(home / "new.npy", judged.new_documents)
        os.environ["CROSSFADE_BENCH_VECTORS"] = str(home / "new.npy")
        direct = QdrantClient(host="127.0.0.1", port=server.rest_port, grpc_port=server.grpc_port, prefer_grpc=True)
        store(direct, judged)
        upstream = f'grpc: "127.0.0.1:{server.grpc_port}", rest: "http://127.0.0.1:{server.rest_port}"'
        with start_serving(home, upstream, settings_of(judged, refit, count / SECONDS), 1) as serving:
            answer = httpx.post(f"{serving.admin}/migrations/{NAME}/start", json={"actor": "bench"}, timeout=60)
            assert answer.status_code == 200, answer.text
            yield from follow(serving, judged, {"collection": collection, "old": old, "new": new, "refit": refit})


def settings_of(judged: Judged, refit: int, rate: float) -> str:
    return f"""
models:
  old: {{dim: {judged.old_documents.shape[1]}}}
  new: {{dim: {judged.new_documents.shape[1]}, encoder: {{python: "tests.bench.stored_encoder:encode"}}}}
collections:
  {NAME}:
    index_model: old
    query_model: new
    adapters: {{new: adapter}}
    text: payload.row
    migrate: {{to: new, refit: {refit}, pace: {{rate: {rate:.0f}}}, fall_back_after: 60s}}
"""


def store(direct: QdrantClient, judged: Judged) -> None:
    """Every document under its row, with the row as its text, in an order that is not that of the ids."""
    dim = judged.old_documents.shape[1]
    direct.create_collection(NAME, vectors_config=m.VectorParams(size=dim, distance=m.Distance.COSINE))
    numbers = np.random.default_rng(1).permutation(len(judged.old_documents))
    points = [
        m.PointStruct(id=int(numbers[row]), vector=vector.tolist(), payload={"row": str(row)})
        for row, vector in enumerate(judged.old_documents)
    ]
    for start in range(0, len(points), 500):
        direct.upsert(NAME, points[start : start + 500], wait=True)


def follow(serving: Serving, judged: Judged, case: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Ask until everything is re-encoded and the last fit has had its time."""
    ended: float | None = None
    while ended is None or time.monotonic() - ended < 30:
        before = httpx.get(f"{serving.admin}/migrations/{NAME}").json()
        found = {strategy: ask(serving, judged, strategy) for strategy in ("adapt", "auto")}
        yield {**case, "migrated": round(before["migrated"], 3), "fitted_on": before["refitted"], **found}
        if before["migrated"] == 1.0 and ended is None:
            ended = time.monotonic()


def ask(serving: Serving, judged: Judged, strategy: str) -> float:
    """The judged queries' nDCG@10 through the proxy by a strategy."""
    client = serving.client(grpc=True, headers={} if strategy == "auto" else {"x-crossfade-strategy": strategy})
    found = np.full((len(judged.new_queries), DEPTH), -1, np.int64)
    for start in range(0, len(found), 50):
        rows = judged.new_queries[start : start + 50]
        requests = [m.QueryRequest(query=row.tolist(), limit=DEPTH, with_payload=True) for row in rows]
        for at, answer in enumerate(client.query_batch_points(NAME, requests)):
            found[start + at, : len(answer.points)] = [int((one.payload or {})["row"]) for one in answer.points]
    client.close()
    return round(float(ndcg_at(found, judged.judgements).mean()), 4)


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """A panel for each collection: both strategies over the share that is re-encoded, with refitting and without."""
    names = list(dict.fromkeys((row["collection"], row["old"], row["new"]) for row in rows))
    figure, panels = plt.subplots(1, len(names), figsize=(5.2 * len(names), 3.6), squeeze=False)
    for panel, name in zip(panels[0], names, strict=True):
        for strategy, colour in (("auto", "#0b7a75"), ("adapt", "#c9622d")):
            for refit, line in ((8_000, "-"), (0, ":")):
                found = [row for row in rows if (row["collection"], row["old"], row["new"]) == name]
                curve = [(row["migrated"], row[strategy]) for row in found if row["refit"] == refit]
                label = f"{strategy}, {'fitted again' if refit else 'never again'}"
                panel.plot(*zip(*curve, strict=True), line, color=colour, label=label, linewidth=1.8)
        panel.set_title(f"{name[0]}: {name[1]} → {name[2]}", fontsize=10)
        panel.set_xlabel("re-encoded")
        panel.xaxis.set_major_formatter("{x:.0%}")
        panel.set_ylabel("nDCG@10 through crossfade serve")
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0][-1].legend(fontsize=8, frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", help="collections to measure")
    arguments = parser.parse_args()
    if not DATA.is_dir():
        sys.exit(f"no evaluation data at {DATA}; set CROSSFADE_DATA to its folder")
    rows = []
    for case in CASES:
        if arguments.only is None or case[0] in arguments.only:
            for refit in (8_000, 0):
                for row in measure_case(*case, refit):
                    rows.append(row)
                    print(json.dumps(row), flush=True)  # noqa: T201  # a program's output
    path = ROOT / "build" / "refit-live.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(rows, indent=1))
    draw(rows, ROOT / "docs" / "refit.png")


if __name__ == "__main__":
    main()
