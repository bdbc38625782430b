"""`crossfade fit`: adapters from files and from a live collection, and clear refusals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from qdrant_client import QdrantClient, models

from crossfade.adapters.store import load_adapter
from crossfade.adapters.vectors import normalise_rows
from crossfade.backends.embedded import QdrantServer
from crossfade.proxy.observing import Observer, Sighting
from crossfade.proxy.routing import Space

from .cli_runs import Run, make_run

COUNT, NEW_DIM, OLD_DIM = 600, 12, 8
ENCODER = """
    import os, signal
    from pathlib import Path
    import numpy as np

    here = Path(__file__).parent
    vectors = np.load(here / "new.npy")

    def encode(texts, role):
        assert role == "passage" or texts == ["what?"]
        with (here / "calls.log").open("a") as log:
            log.write("".join(f"{text}\\n" for text in texts))
        if (here / "kill").exists() and (here / "calls.log").read_text().count("\\n") > 200:
            (here / "kill").unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return np.stack([vectors[int(text.split()[-1])] if role == "passage" else vectors[0] for text in texts])
"""
CONFIG = """
listen: {{qdrant: {{rest: "127.0.0.1:6333"}}}}
upstreams: {{main: {{kind: qdrant, {upstream}}}}}
models:
  old: {{dim: 8}}
  new: {{dim: 12, encoder: {{python: {{function: "fit_test_encoder:encode", concurrency: 1}}}}}}
collections:
  docs:
    index_model: old
    query_model: new
    adapters: {{new: adapters/new--old}}
    text: "text {{payload.number}}"
"""


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return make_run(capsys, monkeypatch)


def two_views() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The same things as two models see them: two maps of one hidden space, with a little noise."""
    chance = np.random.default_rng(5)
    hidden = chance.normal(size=(COUNT, OLD_DIM))
    views = [hidden @ chance.normal(size=(OLD_DIM, dim)) for dim in (NEW_DIM, OLD_DIM)]
    new, old = (normalise_rows((view + 0.05 * chance.normal(size=view.shape)).astype(np.float32)) for view in views)
    return new, old


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    new, old = two_views()
    np.save(tmp_path / "new.npy", new)
    np.save(tmp_path / "old.npy", old)
    np.savez(tmp_path / "pairs.npz", source=new, target=old)
    (tmp_path / "fit_test_encoder.py").write_text(textwrap.dedent(ENCODER))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "fit_test_encoder", raising=False)
    return tmp_path


@pytest.fixture
def server(folder: Path) -> Iterator[QdrantServer]:
    """A live Qdrant with the documents as the old model sees them."""
    with QdrantServer(folder / "data") as server:
        fill(server)
        (folder / "crossfade.yaml").write_text(
            CONFIG.format(upstream=f'grpc: "127.0.0.1:{server.grpc_port}", rest: "http://127.0.0.1:{server.rest_port}"')
        )
        yield server


def fill(server: QdrantServer) -> None:
    client = QdrantClient(
        host="127.0.0.1", grpc_port=server.grpc_port, port=server.rest_port, prefer_grpc=True, timeout=60
    )
    client.create_collection("docs", models.VectorParams(size=OLD_DIM, distance=models.Distance.COSINE))
    points = [
        models.PointStruct(id=row, vector=vector.tolist(), payload={"number": row})
        for row, vector in enumerate(two_views()[1])
    ]
    client.upsert("docs", points, wait=True)
    client.close()


@pytest.mark.parametrize("form", ["two files", "one file"])
def test_fit_makes_an_adapter_from_files(run: Run, folder: Path, form: str) -> None:
    two = ("--source", folder / "new.npy", "--target", folder / "old.npy")
    words = two if form == "two files" else ("--pairs", folder / "pairs.npz")
    ran = run("fit", *words, "--model", "e5", "--index-model", "minilm", "--method", "linear", "--out", folder / "a")
    assert ran.code == 0
    assert f"linear, e5 (12) -> minilm (8), fitted on {COUNT} pairs" in ran.out
    adapter = load_adapter(folder / "a", source_model="e5", target_model="minilm")
    new, old = two_views()
    assert np.sum(adapter.document.apply(new) * old, axis=1).mean() > 0.95
    assert adapter.calibration is not None
    assert sorted(adapter.fingerprints) == ["e5", "minilm"]


def test_fit_as_json_gives_the_card_with_every_candidate(run: Run, folder: Path) -> None:
    ran = run("fit", "--pairs", folder / "pairs.npz", "--method", "ridge", "--out", folder / "a", "--json")
    told = json.loads(ran.out)
    assert (ran.code, told["out"], told["card"]["pairs"]["count"]) == (0, str(folder / "a"), COUNT)
    assert {row["method"] for row in told["card"]["figures"]["candidates"]} == {"ridge"}


def test_fit_samples_a_live_collection_and_puts_the_adapter_where_the_configuration_expects_it(
    run: Run, folder: Path, server: QdrantServer
) -> None:
    words = ("fit", "--from-collection", folder / "crossfade.yaml", "docs", "--model", "new", "--method", "linear")
    ran = run(*words, "--sample", 300)
    assert ran.code == 0, ran.err
    card = load_adapter(folder / "adapters" / "new--old", source_model="new", target_model="old").card
    assert (card.pairs.count, card.pairs.share) == (300, 300 / COUNT)
    with np.load(folder / "adapters" / "new--old.pairs" / "batch-00000.npz") as batch:
        new, old = two_views()
        rows = [int(np.argmin(np.linalg.norm(new - vector, axis=1))) for vector in batch["source"]]
        np.testing.assert_allclose(batch["target"], old[rows], atol=1e-6)
    assert run("check", folder / "crossfade.yaml").code == 0


def test_fit_encodes_query_texts_with_the_new_model(run: Run, folder: Path, server: QdrantServer) -> None:
    (folder / "queries.txt").write_text("what?\n\n")
    words = ("fit", "--from-collection", folder / "crossfade.yaml", "docs", "--model", "new", "--method", "procrustes")
    ran = run(*words, "--queries", folder / "queries.txt")
    assert ran.code == 0, ran.err
    assert "what?" in (folder / "calls.log").read_text()


@pytest.mark.parametrize(("count", "told"), [(300, "300, used"), (20, "20, too few to be used, 50 would be enough")])
def test_fit_learns_from_the_queries_that_serve_observed(
    run: Run, folder: Path, server: QdrantServer, count: int, told: str
) -> None:
    space = Space("docs", "", "old", "new", None, {"new": NEW_DIM}, {}, {})
    observer = Observer(folder / ".crossfade")
    observer.settle([Sighting(space, "new", two_views()[0][:count])])
    observer.close()
    words = ("fit", "--from-collection", folder / "crossfade.yaml", "docs", "--model", "new", "--method", "linear")
    ran = run(*words, "--json")
    assert ran.code == 0, ran.err
    assert f"observed queries of new in {folder / '.crossfade'}: {told}" in ran.err
    tried = {row["settings"]["centring"] for row in json.loads(ran.out)["card"]["figures"]["candidates"]}
    assert ("queries" in tried) == (count >= 50)


def test_a_killed_fit_goes_on_where_it_was(folder: Path, server: QdrantServer) -> None:
    (folder / "kill").touch()
    command = [sys.executable, "-m", "crossfade.proxy", "fit", "--from-collection", "crossfade.yaml", "docs"]
    command += ["--model", "new", "--method", "procrustes"]
    environment = os.environ | {"PYTHONPATH": str(folder)}
    killed = subprocess.run(command, cwd=folder, env=environment, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    done = len(list((folder / "adapters" / "new--old.pairs").glob("batch-*.npz")))
    assert done == 1
    again = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert f"going on with {done} batches of pairs" in again.stderr
    calls = (folder / "calls.log").read_text().split("\n")[:-1]
    assert len(set(calls)) == COUNT
    assert len(calls) <= 2 * COUNT - 128 * done
    assert load_adapter(folder / "adapters" / "new--old").card.pairs.count == COUNT


def test_fit_reads_an_embedded_upstream(run: Run, folder: Path) -> None:
    with QdrantServer(folder / "data") as server:
        fill(server)
    (folder / "crossfade.yaml").write_text(CONFIG.format(upstream="embedded: ./data"))
    words = ("fit", "--from-collection", folder / "crossfade.yaml", "docs", "--model", "new", "--method", "procrustes")
    ran = run(*words)
    assert ran.code == 0, ran.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--from-collection", "absent.yaml", "docs"), "absent.yaml: 1 problem"),
        (("--source", "old.npy", "--target", "absent.npy", "--out", "a"), "absent.npy is missing"),
        (("--pairs", "pairs.npz", "--out", "a", "--method", "magic"), "method is 'magic'"),
        (("--pairs", "pairs.npz", "--out", "a", "--queries", "old.npy"), "8"),
    ],
)
def test_fit_refuses_what_it_cannot_use(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(folder)
    ran = run("fit", *words)
    assert (ran.code, ran.out) == (1, "")
    assert message in ran.err
    assert "Traceback" not in ran.err
    assert not (folder / "a").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("absent", "--model", "new"), "has no collection 'absent'; it has docs"),
        (("docs", "--model", "newer"), "has no model 'newer'; it has old, new"),
        (("docs", "--model", "old"), "was made with 'old' already"),
        (("docs", "--model", "new", "--field", "title"), "has no dense vector 'title'; it has ''"),
    ],
)
def test_fit_refuses_a_collection_it_cannot_sample(
    run: Run, folder: Path, server: QdrantServer, words: tuple[str, ...], message: str
) -> None:
    ran = run("fit", "--from-collection", folder / "crossfade.yaml", *words)
    assert (ran.code, ran.out) == (1, "")
    assert message in ran.err


def test_fit_tells_when_index_and_configuration_do_not_agree(run: Run, folder: Path, server: QdrantServer) -> None:
    config = folder / "crossfade.yaml"
    config.write_text(config.read_text().replace("dim: 8", "dim: 9"))
    ran = run("fit", "--from-collection", config, "docs", "--model", "new")
    assert ran.code == 1
    assert "has 8 dimensions, but models.old.dim is 9" in ran.err


def test_fit_tells_when_the_database_does_not_answer(run: Run, folder: Path) -> None:
    (folder / "crossfade.yaml").write_text(CONFIG.format(upstream='rest: "http://127.0.0.1:1"'))
    ran = run("fit", "--from-collection", folder / "crossfade.yaml", "docs", "--model", "new")
    assert ran.code == 1
    assert "collection 'docs': no answer" in ran.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "--source and --target, or --pairs, or --from-collection CONFIG COLLECTION"),
        (("--source", "new.npy"), "nothing to fit on"),
        (("--pairs", "pairs.npz"), "--out: say where the new adapter goes"),
        (("--pairs", "pairs.npz", "--source", "new.npy"), "--pairs: says the same as --source"),
        (
            ("--from-collection", "c.yaml", "docs", "--pairs", "pairs.npz"),
            "--from-collection: says the same as --pairs",
        ),
        (("--pairs", "pairs.npz", "--out", "a", "--budget", "soon"), "--budget: 'soon' is not a duration"),
    ],
)
def test_wrong_usage_of_fit_ends_with_2(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(folder)
    ran = run("fit", *words)
    assert (ran.code, ran.out) == (2, "")
    assert message in " ".join(ran.err.split())
