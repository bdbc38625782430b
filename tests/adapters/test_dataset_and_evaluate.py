"""The evaluation format, the pack's published figures, the four rows and the reports of them."""

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pytest

from crossfade.adapters.base import DatasetError
from crossfade.adapters.dataset import read_dataset, rows_of
from crossfade.adapters.evaluate import NAIVE, ORACLE, STATUS_QUO, evaluate, load_judged
from crossfade.adapters.linear import fit_linear, fit_procrustes
from crossfade.adapters.metrics import mrr_at, ndcg_at, recall_at
from crossfade.adapters.report import plot_curves, plot_rows, to_markdown, write_json
from crossfade.adapters.search import search_exact

from .vector_pack import ROOT

needs_pack = pytest.mark.skipif(
    not ROOT.is_dir(), reason=f"no evaluation data at {ROOT}; set CROSSFADE_DATA to its folder"
)


def write_collection(folder: Path, name: str = "tiny", *, grades: tuple[int, ...] = (1, 2)) -> Path:
    """Three documents, two queries; query b asks for documents 1 and 2."""
    place = folder / name
    place.mkdir(parents=True)
    for side, ids in (("docs", "xyz"), ("queries", "ab")):
        with gzip.open(place / f"{side}.jsonl.gz", "wb") as file:
            file.writelines(orjson.dumps({"id": one, "text": f"text {one}"}) + b"\n" for one in ids)
        rng = np.random.default_rng(len(ids))
        for model, dim in (("m1", 4), ("m2", 6)):
            np.save(place / f"{side}.{model}.f16.npy", rng.normal(size=(len(ids), dim)).astype(np.float16))
    (place / "qrels.tsv").write_text(f"query_id\tdoc_id\tgrade\nb\ty\t{grades[0]}\nb\tz\t{grades[1]}\n")
    return place


def test_a_collection_is_read_by_row_with_text_only_when_asked(tmp_path: Path) -> None:
    dataset = read_dataset(write_collection(tmp_path))
    assert dataset.document_ids == ("x", "y", "z")
    assert dataset.judgements == ({}, {1: 1.0, 2: 2.0})
    assert dataset.models == ["m1", "m2"]
    assert list(dataset.document_texts()) == ["text x", "text y", "text z"]
    assert list(dataset.query_texts()) == ["text a", "text b"]
    assert dataset.documents("m2").dtype == np.float32


def test_the_first_rows_alone_keep_only_their_judgements(tmp_path: Path) -> None:
    dataset = read_dataset(write_collection(tmp_path), rows=2)
    assert dataset.judgements[1] == {1: 1.0}
    assert dataset.documents("m1").shape == (2, 4)
    assert list(dataset.document_texts()) == ["text x", "text y"]


def test_a_manifest_joins_members_with_prefixed_ids_and_lowers_graded_gains(tmp_path: Path) -> None:
    write_collection(tmp_path, "one")
    write_collection(tmp_path, "two", grades=(1, 3))
    (tmp_path / "joined").mkdir()
    members = [{"collection": "one", "doc_rows": 2}, {"collection": "two", "doc_rows": None}]
    (tmp_path / "joined" / "manifest.json").write_bytes(orjson.dumps({"name": "joined", "members": members}))
    pack = {"collections": [{"name": "two", "relevant_from_grade": 2}]}
    (tmp_path / "manifest.json").write_bytes(orjson.dumps(pack))
    dataset = read_dataset(tmp_path / "joined")
    assert dataset.document_ids == ("one/x", "one/y", "two/x", "two/y", "two/z")
    assert dataset.judgements == ({}, {1: 1.0}, {}, {3: 0.0, 4: 2.0})
    assert dataset.groups == ("one", "one", "two", "two")
    assert dataset.documents("m1").shape == (5, 4)


def test_what_is_missing_or_malformed_is_named_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"docs.jsonl.gz is missing"):
        read_dataset(tmp_path)
    place = write_collection(tmp_path)
    with pytest.raises(DatasetError, match=r"models with vectors in .* are m1, m2"):
        read_dataset(place).documents("m3")
    (place / "qrels.tsv").write_text("query_id\tdoc_id\tgrade\nb\ty\t1\nb\tnobody\t1\n")
    with pytest.raises(DatasetError, match=r"qrels.tsv, line 3: 'b\\tnobody\\t1'"):
        read_dataset(place)
    (place / "qrels.tsv").unlink()
    with pytest.raises(DatasetError, match=r"qrels.tsv is missing"):
        read_dataset(place)


@needs_pack
@pytest.mark.parametrize(
    "name", ["scifact", "medquad", "med", "cranfield", "tatqa", "mtrag", "banking77", "msmarco-dl"]
)
def test_native_figures_equal_those_published_with_the_data(name: str) -> None:
    published = orjson.loads((ROOT / "manifest.json").read_bytes())["collections"]
    figures = next(entry for entry in published if entry["name"] == name)["models"]["e5-small"]
    dataset = read_dataset(ROOT / name)
    rankings, _ = search_exact(dataset.queries("e5-small"), dataset.documents("e5-small"), 100)
    start = dataset.relevant_from
    found = {
        "ndcg10": ndcg_at(rankings, dataset.judgements),
        "recall10": recall_at(rankings, dataset.judgements, relevant_from=start),
        "mrr10": mrr_at(rankings, dataset.judgements, relevant_from=start),
        "recall100": recall_at(rankings, dataset.judgements, 100, relevant_from=start),
    }
    for metric, values in found.items():
        assert values.mean() == pytest.approx(figures[metric], abs=6e-4), metric


@needs_pack
def test_the_mixed_corpus_has_the_published_size_and_members() -> None:
    dataset = read_dataset(ROOT / "hetero")
    assert (len(dataset.document_ids), len(dataset.query_ids)) == (40_643, 7_827)
    assert len(set(dataset.groups)) == 13
    assert dataset.models == ["e5-small", "minilm-l6"]


@needs_pack
def test_the_four_rows_stand_in_the_order_that_the_field_expects(tmp_path: Path) -> None:
    dataset = read_dataset(ROOT / "cranfield")
    judged = load_judged(dataset, "minilm-l6", "e5-small", range(0, 225, 2))
    fit = slice(0, 700)
    source, target = judged.new_documents[fit], judged.old_documents[fit]
    maps = {"ridge": fit_linear(source, target), "procrustes": fit_procrustes(source, target, centred=False)}
    evaluation = evaluate(judged, maps, pairs=700, share=0.5, seed=0)
    assert [row.method for row in evaluation.rows] == [STATUS_QUO, NAIVE, "ridge", "procrustes", ORACLE]
    quality = {row.method: row.ndcg10 for row in evaluation.rows}
    assert quality[NAIVE] < 0.02 < quality["procrustes"] < quality["ridge"] < quality[STATUS_QUO]
    oracle, ridge = evaluation.row(ORACLE), evaluation.row("ridge")
    assert oracle.overlap10 == 1.0
    assert ridge.low < ridge.ndcg10 < ridge.high
    assert ridge.p < 0.05 < oracle.p
    assert (ridge.pairs, oracle.pairs) == (700, None)
    check_reports(evaluation.rows, tmp_path)


def check_reports(rows: object, folder: Path) -> None:
    assert isinstance(rows, tuple)
    write_json(rows, folder / "rows.json")
    assert [row["method"] for row in orjson.loads((folder / "rows.json").read_bytes())] == [row.method for row in rows]
    assert to_markdown(rows).count("\n| cranfield | minilm-l6 -> e5-small |") == len(rows)
    pytest.importorskip("matplotlib", reason="plots need matplotlib")
    plot_rows([*rows, *(replace(row, collection="other") for row in rows)], folder / "rows.png")
    curve = [(250.0, 0.3, 0.2, 0.4), (500.0, 0.35, 0.3, 0.4)]
    plot_curves({"auto": curve}, folder / "c.png", title="t", xlabel="pairs", levels={STATUS_QUO: 0.36}, log=True)
    for name in ("rows.png", "c.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")


@needs_pack
def test_models_of_unequal_dimensions_have_a_naive_row_of_zero_that_says_why() -> None:
    dataset = read_dataset(ROOT / "med")
    judged = load_judged(dataset, "wordllama", "minilm-l6")
    naive = evaluate(judged, {}).row(NAIVE)
    assert naive.ndcg10 == 0
    assert "dimensions differ" in naive.note


def test_unjudged_queries_alone_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="none of the queries"):
        load_judged(read_dataset(write_collection(tmp_path)), "m1", "m2", [0])


def test_a_model_with_fewer_rows_is_refused_with_both_figures(tmp_path: Path) -> None:
    place = write_collection(tmp_path)
    np.save(place / "docs.m1.f16.npy", np.ones((2, 4), np.float16))
    assert rows_of(place, ["m1", "m2"]) == 2
    with pytest.raises(DatasetError, match="m1 has vectors for 2 of 3 documents"):
        load_judged(read_dataset(place), "m1", "m2")
