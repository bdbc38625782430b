"""A probe's report as serving follows it: where `auto` has texts encoded by the old model too, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from crossfade.adapters.merge import TailMatch, blend_queries
from crossfade.adapters.store import load_adapter
from crossfade.adapters.weights import usual_weights
from crossfade.proxy.errors import VerdictUnusable
from crossfade.proxy.merging import count_candidates
from crossfade.proxy.migration.machine import State
from crossfade.proxy.strategies import Request, choose_way, find_weights
from crossfade.proxy.verdicts import read_verdict
from tests.proxy.encoding_function import encode, encode_old
from tests.proxy.merged_scores import merge_scores
from tests.proxy.migrating import OLD, TARGET, fill, first_view, start_migrating, unit
from tests.proxy.toy_adapters import save_toy

NO_SAMPLE = TailMatch(np.ones(1), np.zeros(1))  # enough hits are in both
TEXT = Request("new", b"client a", plain=True, texts=True)
SETTINGS = """
models:
  old: {dim: 16, encoder: {python: "tests.proxy.encoding_function:encode_old"}}
  new: {dim: 24, encoder: {python: "tests.proxy.encoding_function:encode"}}
collections:
  docs:
    index_model: old
    query_model: new
    adapters: {new: adapter}
    text: payload.text
    migrate: {to: new, verdict: probe.json}
"""


Told = dict[str, Any]


def blend(adapted: float, trust: float) -> Told:
    return {"adapted": adapted, "trust": trust}


def report(lines: dict[float, tuple[Told | None, Told | None]], **other: Any) -> Told:
    """A probe's report with what was chosen at each share, for vectors and for texts."""
    weights = [{"migrated": share, "vectors": vectors, "texts": texts} for share, (vectors, texts) in lines.items()]
    return {"collection": "docs", "index_model": "old", "model": "new", "weights": weights, **other}


USUAL = blend(1.0, 0.4)
FALLING = report(
    {
        0.0: (USUAL, blend(0.2, 0.4)),
        0.25: (USUAL, blend(0.4, 0.8)),
        0.75: (blend(1.0, 0.8), blend(1.0, 0.6)),
        0.9: (None, None),
    }
)


def written(folder: Path, told: object) -> Path:
    path = folder / "probe.json"
    path.write_text(told if isinstance(told, str) else json.dumps(told), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("migrated", "plain", "way", "weights"),
    [
        (0.0, True, "legacy-encode", (0.2, 0.4)),
        (0.125, True, "legacy-crossfade", (0.3, 0.6)),
        (0.25, True, "legacy-crossfade", (0.4, 0.8)),
        (0.49, True, "legacy-crossfade", (0.4, 0.8)),  # there is nothing between one encoder and two: the nearer share
        (0.51, True, "crossfade", (1.0, 0.6)),
        (0.75, True, "crossfade", (1.0, 0.6)),
        (0.85, True, "adapt", None),
        (1.0, True, "adapt", None),
        (0.9, False, "legacy-encode", (0.2, 0.4)),  # what is not merged is answered by the old index, as at first
    ],
)
def test_texts_are_encoded_by_the_old_model_and_weighed_as_the_probe_found_best(
    tmp_path: Path, migrated: float, plain: bool, way: str, weights: tuple[float, float] | None
) -> None:
    verdict = read_verdict(written(tmp_path, FALLING), "docs", "old", "new")
    view = first_view(migrated=migrated)
    chosen = choose_way(view, None, TEXT._replace(plain=plain), verdict)
    assert chosen == way
    if weights is not None:
        assert find_weights(view, None, chosen, True, verdict) == pytest.approx(weights)
    for strategy, others in (("adapt", ("adapt",)), ("crossfade", ("crossfade", "adapt")), ("native", ("native",))):
        assert choose_way(view.model_copy(update={"strategy": strategy}), None, TEXT, verdict) in others
    assert choose_way(view, None, TEXT._replace(model="old"), verdict) == "old"
    switched = view.model_copy(update={"state": State.SWITCHED, "percent": 100.0})
    assert choose_way(switched, None, TEXT, verdict) == "native"


@pytest.mark.parametrize(
    ("migrated", "way", "trust"),
    [
        (0.0, "adapt", None),
        (0.1, "crossfade", 0.4),
        (0.5, "crossfade", 0.6),
        (0.75, "crossfade", 0.8),
        (0.9, "adapt", None),
    ],
)
def test_vectors_are_merged_as_the_probe_found_best(
    tmp_path: Path, migrated: float, way: str, trust: float | None
) -> None:
    verdict = read_verdict(written(tmp_path, FALLING), "docs", "old", "new")
    view = first_view(migrated=migrated)
    assert choose_way(view, None, TEXT._replace(texts=False), verdict) == way
    if trust is not None:
        assert find_weights(view, None, "crossfade", False, verdict) == pytest.approx((1.0, trust))
    assert choose_way(view, "crossfade", TEXT, verdict) == ("crossfade" if migrated else "adapt")
    assert find_weights(view, "crossfade", "crossfade", True, verdict) == usual_weights(migrated)
    assert find_weights(view, "legacy-encode", "legacy-crossfade", True, verdict) == usual_weights(migrated, texts=True)


def test_beyond_the_last_share_that_was_measured_its_weights_hold(tmp_path: Path) -> None:
    told = report({0.0: (USUAL, USUAL), 0.9: (blend(1.0, 0.2), blend(0.5, 0.2))})
    verdict = read_verdict(written(tmp_path, told), "docs", "old", "new")
    assert [verdict.choose(share, texts=True) for share in (0.9, 0.99, 1.0)] == [(0.5, 0.2)] * 3
    assert [verdict.choose(share, texts=False) for share in (0.9, 1.0)] == [(1.0, 0.2)] * 2


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (None, "it cannot be read: No such file"),
        ("{", "it is no probe.json"),
        ({"collection": "docs"}, "it is no probe.json"),
        ({**FALLING, "collection": "books"}, "its collection is 'books', here it is 'docs'"),
        ({**FALLING, "index_model": "older"}, "its index_model is 'older', here it is 'old'"),
        ({**FALLING, "model": "newer"}, "its model is 'newer', here it is 'new'"),
        ({**FALLING, "weights": []}, "its queries' truth was the new model's own neighbours"),
        (report({0.0: (USUAL, blend(1.5, 0.4))}), "weights are from 0 to 1"),
        (report({0.0: (USUAL, {"adapted": 1.0})}), "it is no probe.json"),
    ],
)
def test_what_is_no_verdict_of_this_migration_is_refused(tmp_path: Path, told: object, reason: str) -> None:
    path = tmp_path / "probe.json" if told is None else written(tmp_path, told)
    with pytest.raises(VerdictUnusable, match=reason) as caught:
        read_verdict(path, "docs", "old", "new")
    assert "collections.docs.migrate.verdict" in str(caught.value)
    assert "say crossfade probe again, or remove the key" in str(caught.value)


def test_serve_follows_the_verdict_that_its_file_names(tmp_path: Path) -> None:
    save_toy(tmp_path / "adapter")
    written(tmp_path, FALLING)
    rows = unit(np.random.default_rng(0).normal(size=(60, 24)))
    with start_migrating(tmp_path, SETTINGS, dims=(16, 24)) as migrating:
        fill(migrating.direct, OLD, rows[:, :16], range(60))
        fill(migrating.direct, TARGET, rows, range(60))
        migrating.write_sample(rows, unit(rows[:, :16]), range(60))

        def ask() -> httpx.Response:
            url = f"{migrating.serving.rest}/collections/docs/points/query"
            answer = httpx.post(url, json={"query": {"text": "some words", "model": "new"}, "limit": 5})
            assert answer.status_code == 200, answer.text
            return answer

        def way() -> str:
            return ask().headers["x-crossfade"].rpartition("strategy=")[2]

        state: dict[str, Any] = {"state": State.BACKFILLING, "percent": 0.0, "strategy": "auto"}
        migrating.move(migrated=0.0, **state)
        assert way() == "legacy-encode"
        migrating.move(migrated=0.3, **state)
        assert way() == "legacy-crossfade"
        new, legacy = encode(["some words"], "query"), encode_old(["some words"], "query")
        asked = blend_queries(legacy, load_adapter(tmp_path / "adapter").query.apply(new), 0.4)
        old, true = unit(rows[:, :16]) @ asked[0], rows @ unit(new)[0]
        candidates = np.argsort(-old)[: count_candidates(5)].tolist()
        known = dict(enumerate(true.tolist()))  # all of them: the new index's best, and its scores of the others
        expected = merge_scores(known, {row: float(old[row]) for row in candidates}, NO_SAMPLE, trust=0.8)[:5]
        hits = ask().json()["result"]["points"]
        assert [hit["id"] for hit in hits] == [row for row, _ in expected]
        np.testing.assert_allclose([hit["score"] for hit in hits], [score for _, score in expected], atol=2e-5)
        migrating.move(migrated=0.75, **state)
        assert way() == "crossfade"
        migrating.move(migrated=0.9, **state)
        assert way() == "adapt"
