"""scifact through both databases: old index, new-model queries, the quality that was measured offline."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from crossfade.adapters.base import Adapter, Card, PairsCard
from crossfade.adapters.dataset import read_dataset
from crossfade.adapters.evaluate import Judged, evaluate, load_judged
from crossfade.adapters.linear import fit_linear
from crossfade.adapters.metrics import ndcg_at
from crossfade.adapters.store import save_adapter
from tests.conformance.databases import KINDS, start_example

DATA = Path(os.environ.get("CROSSFADE_DATA", Path(__file__).parents[3] / "shared" / "data")) / "scifact"
PAIRS = 2500
SETTINGS = """
models: {minilm-l6: {dim: 384}, e5-small: {dim: 384}, new: {dim: 2}}
collections: {docs: {index_model: minilm-l6, query_model: e5-small, adapters: {e5-small: adapter}}}
"""


@pytest.fixture(scope="module")
def judged() -> Judged:
    if not DATA.is_dir():
        pytest.skip(f"no evaluation data at {DATA}; set CROSSFADE_DATA to the folder of the collections")
    return load_judged(read_dataset(DATA), "minilm-l6", "e5-small")


@pytest.fixture(scope="module")
def adapter(judged: Judged) -> Adapter:
    chosen = np.random.default_rng(0).permutation(len(judged.new_documents))[:PAIRS]
    new, old = judged.new_documents[chosen], judged.old_documents[chosen]
    forward = fit_linear(new, old, ridge=0.1)
    card = Card("e5-small", "minilm-l6", 384, 384, "ridge", PairsCard(PAIRS, "scifact"))
    return Adapter(card, forward, forward, fit_linear(old, new, ridge=0.1))


@pytest.mark.parametrize("kind", KINDS)
def test_the_quality_through_the_proxy_is_the_offline_one(
    kind: str, judged: Judged, adapter: Adapter, tmp_path: Path
) -> None:
    save_adapter(adapter, tmp_path / "adapter")
    with start_example(kind, tmp_path, SETTINGS) as example:
        example.direct.create("docs", 384)
        example.direct.write("docs", range(len(judged.old_documents)), judged.old_documents)
        found = example.through.search("docs", judged.new_queries, 10)
    through = float(ndcg_at(np.array([one.ids for one in found]), judged.judgements).mean())
    print(f"scifact through {kind}: nDCG@10 {through:.4f}")  # noqa: T201  # the figure itself, with pytest -rP
    assert through == pytest.approx(evaluate(judged, {"adapted": adapter}).row("adapted").ndcg10, abs=0.002)
