"""`crossfade evaluate`: the four rows, on a small made-up collection and on a real one."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from crossfade.adapters.vectors import normalise_rows

from .cli_runs import Run, make_run, write_adapter

DATA = Path(os.environ.get("CROSSFADE_DATA", Path(__file__).parents[3] / "shared" / "data"))
DOCUMENTS, QUERIES = 300, 40


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return make_run(capsys, monkeypatch)


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """Documents and queries of one hidden space as two models see them; each query's own document is relevant."""
    folder = tmp_path / "made"
    folder.mkdir()
    chance = np.random.default_rng(3)
    hidden = chance.normal(size=(DOCUMENTS, 8))
    asked = hidden[:QUERIES] + 0.1 * chance.normal(size=(QUERIES, 8))
    for model, dim in (("old", 8), ("new", 12)):
        view = chance.normal(size=(8, dim))
        for side, rows in (("docs", hidden), ("queries", asked)):
            np.save(folder / f"{side}.{model}.f16.npy", _as_stored(rows @ view))
    _write_lines(folder / "docs.jsonl.gz", "d", DOCUMENTS)
    _write_lines(folder / "queries.jsonl.gz", "q", QUERIES)
    judgements = "".join(f"q{row}\td{row}\t1\n" for row in range(QUERIES))
    (folder / "qrels.tsv").write_text(f"query_id\tdoc_id\tgrade\n{judgements}")
    return folder


def _as_stored(rows: NDArray[np.float64]) -> NDArray[np.float16]:
    return normalise_rows(rows.astype(np.float32)).astype(np.float16)


def _write_lines(path: Path, prefix: str, count: int) -> None:
    with gzip.open(path, "wt") as lines:
        lines.writelines(json.dumps({"id": f"{prefix}{row}", "text": str(row)}) + "\n" for row in range(count))


def words(collection: Path, *more: object) -> tuple[object, ...]:
    return ("evaluate", collection, "--old", "old", "--new", "new", "--out", collection.parent / "report", *more)


def test_the_four_rows_are_printed_and_written(run: Run, collection: Path) -> None:
    ran = run(*words(collection, "--pairs", 200, "--method", "linear"))
    assert ran.code == 0, ran.err
    assert "made: old -> new, 300 documents, 40 judged queries; fitted on 200 pairs (67%)" in ran.out
    names = [line.split("  ")[0].strip() for line in ran.out.splitlines()[3:-1]]
    assert names == ["status quo", "naive", "adapted (linear)", "oracle"]
    report = collection.parent / "report"
    told = json.loads((report / "evaluation.json").read_text())
    assert [row["method"] for row in told["rows"]] == names
    assert "| made | old -> new | adapted (linear) | 200 | 67% | 40 |" in (report / "evaluation.md").read_text()
    assert (report / "evaluation.png").read_bytes().startswith(b"\x89PNG")


def test_the_figures_are_those_of_the_vectors(run: Run, collection: Path) -> None:
    rows = {row["method"]: row for row in json.loads(run(*words(collection, "--pairs", 200, "--json")).out)}
    assert rows["oracle"]["overlap10"] == 1
    assert rows["naive"]["ndcg10"] == 0
    assert "dimensions differ" in rows["naive"]["note"]
    assert rows["status quo"]["of_status_quo"] == 1
    assert rows["naive"]["ndcg10"] < rows["adapted (auto)"]["ndcg10"] < rows["status quo"]["ndcg10"]
    assert rows["adapted (auto)"]["low"] <= rows["adapted (auto)"]["ndcg10"] <= rows["adapted (auto)"]["high"]


def test_several_seeds_give_the_mean_and_keep_each_ones_rows(run: Run, collection: Path) -> None:
    run(*words(collection, "--pairs", 40, "--method", "procrustes", "--method", "ridge", "--seeds", 3))
    told = json.loads((collection.parent / "report" / "evaluation.json").read_text())
    for method in ("adapted (procrustes)", "adapted (ridge)"):
        each = [row["ndcg10"] for row in told["by_seed"] if row["method"] == method]
        mean = next(row for row in told["rows"] if row["method"] == method)
        assert len(each) == 3
        assert len(set(each)) > 1
        assert mean["ndcg10"] == pytest.approx(sum(each) / 3, abs=1e-4)
        assert mean["seed"] is None
        assert mean["low"] <= mean["ndcg10"] <= mean["high"]


def test_the_same_seed_gives_the_same_figures(run: Run, collection: Path) -> None:
    first, second = (run(*words(collection, "--pairs", 40, "--method", "ridge", "--json")).out for _ in range(2))
    assert first == second


def test_observed_queries_are_not_judged(run: Run, collection: Path) -> None:
    ran = run(*words(collection, "--pairs", 200, "--method", "linear", "--observe", 0.25))
    assert "30 judged queries; fitted on 200 pairs (67%), having observed 10 other queries" in ran.out


def test_an_adapter_is_judged_as_it_is(run: Run, collection: Path) -> None:
    write_adapter(collection.parent / "adapter", dims=(12, 8))
    ran = run(*words(collection, "--adapter", collection.parent / "adapter", "--json"))
    assert [row["method"] for row in json.loads(ran.out)] == ["status quo", "naive", "adapted", "oracle"]
    assert json.loads(ran.out)[2]["pairs"] == 200


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--pairs", 301), "made has 300 documents with vectors of both models; --pairs 301 is more"),
        (("--new", "newer"), "docs.newer.f16.npy is missing: models with vectors in"),
        (("--pairs", 100, "--method", "magic"), "method is 'magic'"),
        (("--adapter", "absent"), "absent is not an adapter"),
    ],
)
def test_what_cannot_be_measured_is_told(run: Run, collection: Path, more: tuple[object, ...], message: str) -> None:
    ran = run(*words(collection, *more))
    assert (ran.code, ran.out) == (1, "")
    assert message in ran.err
    assert "Traceback" not in ran.err


def test_an_adapter_for_other_models_is_refused(run: Run, collection: Path) -> None:
    write_adapter(collection.parent / "adapter", source="e5", dims=(12, 8))
    ran = run(*words(collection, "--adapter", collection.parent / "adapter"))
    assert ran.code == 1
    assert "'e5'" in ran.err


def test_a_folder_that_is_no_collection_is_told(run: Run, tmp_path: Path) -> None:
    ran = run(*words(tmp_path / "absent"))
    assert ran.code == 1
    assert "docs.jsonl.gz is missing" in ran.err


def test_a_real_collection_gives_its_published_figures(run: Run, tmp_path: Path) -> None:
    if not (DATA / "cranfield").is_dir():
        pytest.skip(f"no evaluation data at {DATA}; set CROSSFADE_DATA")
    models = ("--old", "minilm-l6", "--new", "e5-small", "--pairs", 700, "--method", "linear")
    ran = run("evaluate", DATA / "cranfield", *models, "--out", tmp_path, "--json")
    rows = {row["method"]: row for row in json.loads(ran.out)}
    assert rows["status quo"]["ndcg10"] == pytest.approx(0.372, abs=0.0006)
    assert rows["oracle"]["ndcg10"] == pytest.approx(0.372, abs=0.0006)
    assert rows["naive"]["ndcg10"] < 0.02
    assert rows["adapted (linear)"]["of_status_quo"] > 0.8
