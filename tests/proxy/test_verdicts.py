"""A probe's report as serving follows it: where `auto` has texts encoded by the old model too, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from crossfade.proxy.errors import VerdictUnusable
from crossfade.proxy.migration.machine import State
from crossfade.proxy.strategies import Request, choose_way
from crossfade.proxy.verdicts import read_verdict
from tests.proxy.migrating import OLD, TARGET, fill, first_view, start_migrating, unit
from tests.proxy.toy_adapters import save_toy

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


def report(old: dict[float, float], new: dict[float, float], **other: Any) -> dict[str, Any]:
    """A probe's report with nDCG@10 by share; at 0 the status quo and adapted queries."""
    rows = [
        ("status quo" if not share else "crossfade, old-model queries", share, figure) for share, figure in old.items()
    ]
    rows += [("adapted" if not share else "crossfade", share, figure) for share, figure in new.items()]
    strategies = [{"strategy": name, "migrated": share, "ndcg10": figure} for name, share, figure in rows]
    return {"collection": "docs", "index_model": "old", "model": "new", "strategies": strategies, **other}


FALLING = report({0.0: 0.6, 0.25: 0.62, 0.75: 0.65}, {0.0: 0.4, 0.25: 0.52, 0.75: 0.65})


def written(folder: Path, told: object) -> Path:
    path = folder / "probe.json"
    path.write_text(told if isinstance(told, str) else json.dumps(told), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("migrated", "plain", "way"),
    [
        (0.0, True, "legacy-encode"),
        (0.25, True, "legacy-crossfade"),
        (0.69, True, "legacy-crossfade"),  # .1 at a quarter, 0 at three quarters: .012
        (0.71, True, "crossfade"),  # .008 are not worth a second encoder call
        (0.9, True, "crossfade"),
        (1.0, True, "crossfade"),
        (0.9, False, "legacy-encode"),  # what is not merged is answered by the old index alone, as at the beginning
    ],
)
def test_texts_are_encoded_by_the_old_model_where_the_probe_found_that_better(
    tmp_path: Path, migrated: float, plain: bool, way: str
) -> None:
    verdict = read_verdict(written(tmp_path, FALLING), "docs", "old", "new")
    view = first_view(migrated=migrated)
    assert choose_way(view, None, TEXT._replace(plain=plain), verdict) == way
    assert choose_way(view, None, TEXT._replace(texts=False, plain=plain), verdict) in ("adapt", "crossfade")
    for strategy, others in (("adapt", ("adapt",)), ("crossfade", ("crossfade", "adapt")), ("native", ("native",))):
        assert choose_way(view.model_copy(update={"strategy": strategy}), None, TEXT, verdict) in others
    assert choose_way(view, None, TEXT._replace(model="old"), verdict) == "old"
    switched = view.model_copy(update={"state": State.SWITCHED, "percent": 100.0})
    assert choose_way(switched, None, TEXT, verdict) == "native"


@pytest.mark.parametrize(
    ("migrated", "way"), [(0.0, "adapt"), (0.1, "crossfade"), (0.5, "adapt"), (0.9, "adapt"), (1.0, "adapt")]
)
def test_the_old_index_is_asked_alone_where_the_new_model_is_worse_than_what_is_mapped(
    tmp_path: Path, migrated: float, way: str
) -> None:
    told = report({0.0: 0.38, 0.1: 0.38, 0.5: 0.37, 0.9: 0.35}, {0.0: 0.40, 0.1: 0.395, 0.5: 0.38, 0.9: 0.36})
    verdict = read_verdict(written(tmp_path, told), "docs", "old", "new")
    view = first_view(migrated=migrated)
    assert choose_way(view, None, TEXT._replace(texts=False), verdict) == way
    assert choose_way(view, None, TEXT, verdict) == way
    assert choose_way(view, "crossfade", TEXT, verdict) == ("crossfade" if migrated else "adapt")


def test_an_adapter_that_is_as_good_keeps_its_queries(tmp_path: Path) -> None:
    verdict = read_verdict(
        written(tmp_path, report({0.0: 0.55, 0.5: 0.6}, {0.0: 0.56, 0.5: 0.595})), "docs", "old", "new"
    )
    assert not any(verdict.prefers_old(share) or verdict.prefers_alone(share) for share in (0.0, 0.1, 0.5, 1.0))


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (None, "it cannot be read: No such file"),
        ("{", "it is no probe.json"),
        ({"collection": "docs"}, "it is no probe.json"),
        ({**FALLING, "collection": "books"}, "its collection is 'books', here it is 'docs'"),
        ({**FALLING, "index_model": "older"}, "its index_model is 'older', here it is 'old'"),
        ({**FALLING, "model": "newer"}, "its model is 'newer', here it is 'new'"),
        ({**FALLING, "strategies": FALLING["strategies"][1:]}, "it does not know the status quo"),
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

        def way() -> str:
            url = f"{migrating.serving.rest}/collections/docs/points/query"
            body = {"query": {"text": "some words", "model": "new"}, "limit": 5}
            answer = httpx.post(url, json=body)
            assert answer.status_code == 200, answer.text
            return answer.headers["x-crossfade"].rpartition("strategy=")[2]

        state: dict[str, Any] = {"state": State.BACKFILLING, "percent": 0.0, "strategy": "auto"}
        migrating.move(migrated=0.0, **state)
        assert way() == "legacy-encode"
        migrating.move(migrated=0.5, **state)
        assert way() == "legacy-crossfade"
        migrating.move(migrated=0.9, **state)
        assert way() == "crossfade"
