"""`crossfade probe` on a live collection: figures that follow from the spaces, every kind of query, clear refusals."""

from __future__ import annotations

import gzip
import json
import sys
import textwrap
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymilvus import MilvusClient
from qdrant_client import QdrantClient, models

from crossfade.backends.embedded import QdrantServer
from crossfade.backends.embedded.milvus import MilvusServer
from crossfade.proxy.verdicts import read_verdict

from .cli_runs import Run, make_run

COUNT, NEW_DIM, OLD_DIM = 500, 24, 16
# Words have directions that the new model sees sharply and the old one through noise of its own.
ENCODERS = """
    import zlib
    import numpy as np

    turn = np.random.default_rng(1).normal(size=(24, 16))

    def direction(word, salt=""):
        return np.random.default_rng(zlib.crc32(f"{salt}{word}".encode())).normal(size=24)

    def new(texts, role):
        return unit([sum(direction(word) for word in text.split()) for text in texts])

    def old(texts, role):
        rows = [sum(direction(word) + 0.7 * direction(word, "x") for word in text.split()) for text in texts]
        return unit(np.array(rows) @ turn)

    def unit(rows):
        rows = np.array(rows)
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
"""
CONFIG = """
listen: {{qdrant: {{rest: "127.0.0.1:6333"}}}}
upstreams: {{main: {{kind: qdrant, grpc: "127.0.0.1:{grpc}", rest: "http://127.0.0.1:{rest}"}}}}
models:
  old: {{dim: 16{old_encoder}}}
  new: {{dim: 24, encoder: {{python: "probe_test_encoders:new"}}}}
collections:
  docs: {{index_model: old, text: payload.text}}
"""
OLD_ENCODER = ', encoder: {python: "probe_test_encoders:old"}'
MILVUS = """
listen: {{milvus: "127.0.0.1:0"}}
upstreams: {{main: {{kind: milvus, grpc: "127.0.0.1:{grpc}"}}}}
""" + CONFIG[CONFIG.index("models:") :]


def texts(words: int = 30) -> list[str]:
    chance = np.random.default_rng(9)
    return [" ".join(f"w{number}" for number in row) for row in chance.integers(0, 400, (COUNT, words))]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return make_run(capsys, monkeypatch)


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("encoders")
    (folder / "probe_test_encoders.py").write_text(textwrap.dedent(ENCODERS))
    sys.path.insert(0, str(folder))
    import probe_test_encoders  # type: ignore[import-not-found]  # written just now

    yield probe_test_encoders
    sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def server(encoders: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[QdrantServer]:
    with QdrantServer(tmp_path_factory.mktemp("probe") / "data") as server:
        fill(server, texts(), encoders.old(texts(), "passage"))
        yield server


def fill(server: QdrantServer, written: list[str], vectors: Any) -> None:
    client = QdrantClient(host="127.0.0.1", grpc_port=server.grpc_port, port=server.rest_port, prefer_grpc=True)
    client.create_collection("docs", models.VectorParams(size=OLD_DIM, distance=models.Distance.COSINE))
    points = [
        models.PointStruct(id=row, vector=vector.tolist(), payload={"text": text})
        for row, (text, vector) in enumerate(zip(written, vectors, strict=True))
    ]
    client.upsert("docs", points, wait=True)
    client.close()


def configure(folder: Path, server: QdrantServer, old_encoder: str = OLD_ENCODER) -> tuple[object, ...]:
    text = CONFIG.format(grpc=server.grpc_port, rest=server.rest_port, old_encoder=old_encoder)
    (folder / "crossfade.yaml").write_text(text)
    words = ("--model", "new", "--sample", 400, "--method", "linear", "--out", folder / "out")
    return "probe", folder / "crossfade.yaml", "docs", *words


def told_by(run: Run, *words: object) -> dict[str, Any]:
    """What a probe prints as JSON."""
    ran = run(*words, "--json")
    assert ran.code == 0, ran.err
    told: dict[str, Any] = json.loads(ran.out)
    return told


def by_strategy(told: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["strategy"]: one for one in told["strategies"]}


class Text(HTMLParser):
    """The text of a page, and the addresses that it would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []
        self.fetched: list[str] = []

    def handle_data(self, data: str) -> None:
        self.said.append(data)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href", "data") and tag != "use"]


def test_a_probe_makes_queries_of_the_documents_and_reports_in_the_terminal_as_json_and_as_html(
    run: Run, tmp_path: Path, server: QdrantServer
) -> None:
    words = configure(tmp_path, server)
    told = told_by(run, *words)
    lines = by_strategy(told)
    assert told["truth"].startswith("known items")
    assert (told["queries"], told["cost"]["documents"], told["cost"]["pairs"]) == (told["queries"], COUNT, 400)
    assert lines["naive"]["ndcg10"] == 0  # another dimension
    assert lines["oracle"]["ndcg10"] > lines["status quo"]["ndcg10"] + 0.05  # the new model is better by construction
    assert told["recommendation"].startswith("upgrade")
    assert told["cost"]["minutes"] == pytest.approx(COUNT / told["cost"]["documents_a_second"] / 60)
    ran = run(*words)
    assert ran.code == 0, ran.err
    assert told["recommendation"] in " ".join(ran.out.replace("│", " ").split())
    assert f"{lines['oracle']['ndcg10']:.3f}" in ran.out
    page = Text()
    page.feed((tmp_path / "out" / "probe.html").read_text(encoding="utf-8"))
    assert [address for address in page.fetched if not address.startswith("#")] == []
    assert told["recommendation"] in page.said
    assert json.loads((tmp_path / "out" / "probe.json").read_text())["strategies"] == told["strategies"]


def test_a_probe_of_the_same_documents_in_milvus_says_the_same(
    run: Run, tmp_path: Path, server: QdrantServer, encoders: Any
) -> None:
    qdrant = told_by(run, *configure(tmp_path, server))
    words = configure(tmp_path, server)
    with MilvusServer(tmp_path / "data") as milvus:
        client = MilvusClient(f"http://127.0.0.1:{milvus.port}")
        client.create_collection("docs", dimension=OLD_DIM, vector_field_name="emb")
        vectors = encoders.old(texts(), "passage").tolist()
        client.insert("docs", [{"id": at, "emb": vectors[at], "text": text} for at, text in enumerate(texts())])
        client.close()
        config = tmp_path / "crossfade.yaml"
        config.write_text(MILVUS.format(grpc=milvus.port, old_encoder=OLD_ENCODER))
        told = told_by(run, words[0], config, *words[2:-1], tmp_path / "milvus")
    lines, others = by_strategy(told), by_strategy(qdrant)
    assert lines.keys() == others.keys()
    for name, line in lines.items():
        assert line["ndcg10"] == pytest.approx(others[name]["ndcg10"], abs=1e-3), name
    assert (told["recommendation"], told["cost"]["documents"]) == (qdrant["recommendation"], COUNT)


def test_without_the_old_models_encoder_a_probe_says_what_is_missing_to_decide(
    run: Run, tmp_path: Path, server: QdrantServer
) -> None:
    told = told_by(run, *configure(tmp_path, server, ""))
    assert "status quo" not in by_strategy(told)
    assert told["recommendation"].startswith("not sure")
    assert "the status quo is not known: give the old model an encoder" in told["reasons"][0]


def test_queries_of_the_operator_are_measured_by_the_new_models_neighbours(
    run: Run, tmp_path: Path, server: QdrantServer, encoders: Any
) -> None:
    asked = [" ".join(text.split()[:4]) for text in texts()[:60]]
    (tmp_path / "asked.txt").write_text("\n".join(asked))
    np.save(tmp_path / "asked.npy", encoders.new(asked, "query"))
    words = configure(tmp_path, server)
    found = {kind: told_by(run, *words, "--queries", tmp_path / f"asked.{kind}") for kind in ("txt", "npy")}
    assert found["txt"]["truth"] == found["npy"]["truth"] == "the new model's ten nearest documents"
    lines = {kind: by_strategy(told) for kind, told in found.items()}
    assert lines["txt"]["oracle"]["ndcg10"] == pytest.approx(1)
    assert lines["txt"]["adapted"]["ndcg10"] == pytest.approx(lines["npy"]["adapted"]["ndcg10"], abs=1e-3)
    assert set(lines["txt"]) - set(lines["npy"]) == {"status quo", "crossfade, old-model queries"}
    assert {told["recommendation"][:8] for told in found.values()} == {"not sure"}
    assert all(told["weights"] == [] for told in found.values())  # the new model's neighbours cannot weigh it


@pytest.mark.parametrize("vectors", ["stored", "encoded here"])
def test_judged_queries_decide(run: Run, tmp_path: Path, server: QdrantServer, encoders: Any, vectors: str) -> None:
    folder = tmp_path / "judged"
    folder.mkdir()
    asked = [" ".join(text.split()[:6]) for text in texts()[:80]]
    for name, written in (("docs", texts()), ("queries", asked)):
        with gzip.open(folder / f"{name}.jsonl.gz", "wt") as file:
            file.writelines(json.dumps({"id": f"{name}{at}", "text": text}) + "\n" for at, text in enumerate(written))
        if vectors == "stored":
            for model in ("old", "new"):
                rows = getattr(encoders, model)(written, "query")
                np.save(folder / f"{name}.{model}.f16.npy", rows.astype(np.float16))
    grades = "".join(f"queries{at}\tdocs{at}\t1\n" for at in range(0, 80, 2))  # the others are not judged
    (folder / "qrels.tsv").write_text("query_id\tdoc_id\tgrade\n" + grades)
    told = told_by(run, *configure(tmp_path, server), "--judged", folder)
    assert (told["truth"], told["queries"], told["searched"]) == ("judgements", 40, COUNT)
    found, _ = _nearest(encoders.new(asked[::2], "query"), encoders.new(texts(), "passage"))
    gains = [1 / np.log2(2 + row.tolist().index(at)) if at in row else 0.0 for at, row in zip(range(0, 80, 2), found)]  # noqa: B905  # of one length
    assert by_strategy(told)["oracle"]["ndcg10"] == pytest.approx(np.mean(gains), abs=5e-3)
    verdict = read_verdict(tmp_path / "out" / "probe.json", "docs", "old", "new")
    assert verdict.shares == (0.0, 0.1, 0.25, 0.5, 0.75, 0.9)
    chosen = [verdict.choose(share, texts=True) for share in verdict.shares]
    assert all(one is None or (0 <= one.adapted <= 1 and 0 <= one.trust <= 1) for one in chosen)


def _nearest(queries: Any, documents: Any) -> tuple[Any, Any]:
    scores = queries @ documents.T
    order = np.argsort(-scores, axis=1)[:, :10]
    return order, scores


def test_documents_too_short_to_quote_from_ask_for_their_neighbours(run: Run, tmp_path: Path, encoders: Any) -> None:
    with QdrantServer(tmp_path / "data") as server:
        fill(server, texts(8), encoders.old(texts(8), "passage"))
        told = told_by(run, *configure(tmp_path, server))
    assert told["truth"] == "the new model's ten nearest documents"
    assert "too short to quote from" in told["asked"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--model", "newer"), 1, "has no model 'newer'; it has old, new"),
        (("--model", "old"), 1, "was made with 'old' already"),
        (("--judged", "a", "--queries", "b"), 2, "--judged: says the same as --queries"),
        (("--queries", "absent.txt"), 1, "absent.txt"),
        (("--judged", "absent"), 1, "absent"),
    ],
)
def test_a_probe_refuses_what_it_cannot_use(
    run: Run, tmp_path: Path, server: QdrantServer, words: tuple[str, ...], code: int, message: str
) -> None:
    ran = run(*configure(tmp_path, server), *words)
    assert (ran.code, ran.out) == (code, "")
    assert message in " ".join(ran.err.split())
    assert "Traceback" not in ran.err
