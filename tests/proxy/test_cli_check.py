"""`crossfade check`, `schema`, `apply`, and what holds for every verb: exit codes, where errors go, import time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from .cli_runs import Run, make_run, unit_rows, write_adapter

CONFIG = """
listen:
  qdrant: {grpc: "127.0.0.1:6334"}
upstreams:
  main: {kind: qdrant, grpc: "qdrant:6334"}
models:
  old: {dim: 4}
  new: {dim: 6}
collections:
  docs:
    index_model: old
    query_model: new
    adapters: {new: adapters/new--old}
    fields:
      image: {index_model: new}
      title-new: {declares: new}
  kept:
    index_model: old
    adapters: {new: adapters/new--old}
"""


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return make_run(capsys, monkeypatch)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "crossfade.yaml"
    path.write_text(CONFIG)
    return path


def test_check_says_what_each_vector_will_meet(run: Run, config: Path) -> None:
    write_adapter(config.parent / "adapters" / "new--old")
    ran = run("check", config)
    assert (ran.code, ran.err) == (0, "")
    assert "qdrant: grpc 127.0.0.1:6334 -> main (qdrant:6334)" in ran.out
    lines = {line[:40].strip(): line for line in ran.out.splitlines()}
    assert "mapped 6 -> 4 by procrustes, fitted on 200 pairs" in next(v for k, v in lines.items() if "all others" in k)
    assert "pass as they are" in next(v for k, v in lines.items() if "image" in k)
    assert "mapped 6 -> 4" in next(v for k, v in lines.items() if "title-new" in v)
    assert "pass as they are; mapped when declared as new" in next(v for k, v in lines.items() if "kept" in k)


def test_check_as_json_has_the_same_for_programs(run: Run, config: Path) -> None:
    write_adapter(config.parent / "adapters" / "new--old")
    ran = run("check", config, "--json")
    told = json.loads(ran.out)
    assert (ran.code, told["valid"], told["problems"]) == (0, True, [])
    actions = {(plan["collection"], plan["using"]): plan["action"] for plan in told["collections"]}
    assert actions == {
        ("docs", ""): "map",
        ("docs", "image"): "pass",
        ("docs", "title-new"): "map",
        ("kept", ""): "pass",
    }
    assert told["collections"][0]["adapters"]["new"]["pairs"] == 200


def test_check_tells_every_problem_on_standard_error_and_ends_with_1(run: Run, config: Path) -> None:
    config.write_text(CONFIG.replace("dim: 4", "dim: four").replace("index_model: new", "index_model: nwe"))
    ran = run("check", config)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith(f"crossfade: {config}: 2 problems\n")
    assert "line 7: models.old.dim: is 'four'; expected a whole number" in ran.err
    assert "line 15: collections.docs.fields.image.index_model" in ran.err


def test_check_tells_of_adapters_and_encoders_with_their_lines(run: Run, config: Path) -> None:
    config.write_text(CONFIG.replace("dim: 6}", "dim: 6, encoder: {python: 'absent_module:f'}}"))
    ran = run("check", config, "--json")
    told = json.loads(ran.out)
    assert (ran.code, told["valid"]) == (1, False)
    assert [(problem["line"], problem["path"]) for problem in told["problems"]] == [
        (8, "models.new.encoder"),
        (13, "collections.docs.adapters.new"),
        (19, "collections.kept.adapters.new"),
    ]
    assert "No module named 'absent_module'" in told["problems"][0]["message"]
    assert (
        "is not an adapter: card.json is missing; make one with `crossfade fit` or correct the path"
        in told["problems"][1]["message"]
    )


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"source": "other"}, "'other'"),
        ({"target": "other"}, "'other'"),
        ({"dims": (6, 5)}, "was fitted for 5 dimensions of 'old', but models.old.dim is 4"),
        ({"dims": (7, 4)}, "was fitted for 7 dimensions of 'new', but models.new.dim is 6"),
    ],
)
def test_check_refuses_an_adapter_made_for_something_else(
    run: Run, config: Path, made: dict[str, object], message: str
) -> None:
    write_adapter(config.parent / "adapters" / "new--old", **made)  # type: ignore[arg-type]  # one of its keywords
    ran = run("check", config)
    assert ran.code == 1
    assert message in ran.err


def test_check_refuses_a_damaged_adapter(run: Run, config: Path) -> None:
    place = config.parent / "adapters" / "new--old"
    write_adapter(place)
    tensors = place / "adapter.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-3])
    ran = run("check", config)
    assert ran.code == 1
    assert "line 13: collections.docs.adapters.new" in ran.err


def test_schema_prints_the_schema_and_the_table(run: Run) -> None:
    assert json.loads(run("schema").out)["properties"]["collections"]
    assert "| `detect.fingerprint` | off, count, warn, refuse | `count` |" in run("schema", "--format", "table").out


@pytest.mark.parametrize("direction", ["query", "document", "reverse"])
def test_apply_writes_what_the_map_gives(run: Run, tmp_path: Path, direction: str) -> None:
    adapter = write_adapter(tmp_path / "a")
    fitted = getattr(adapter, direction)
    vectors = unit_rows(50, fitted.source_dim, 3)
    np.save(tmp_path / "in.npy", vectors.astype(np.float16))
    ran = run("apply", tmp_path / "a", tmp_path / "in.npy", tmp_path / "out.npy", "--direction", direction)
    assert (ran.code, ran.err) == (0, "")
    assert "50 vectors" in ran.out
    expected = fitted.apply(vectors.astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), expected)


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.ones((3, 5), np.float32), "vectors of 5 dimensions, but the map takes 6"),
        (np.ones(6, np.float32), "shape (6,)"),
        (np.array([["a"] * 6]), "expected numbers"),
        (np.full((2, 6), np.nan, np.float32), "row 0 has NaN"),
    ],
)
def test_apply_refuses_vectors_it_cannot_map_and_writes_nothing(
    run: Run, tmp_path: Path, vectors: np.ndarray[tuple[int, ...], np.dtype[np.generic]], message: str
) -> None:
    write_adapter(tmp_path / "a")
    np.save(tmp_path / "in.npy", vectors)
    ran = run("apply", tmp_path / "a", tmp_path / "in.npy", tmp_path / "out.npy")
    assert (ran.code, ran.out) == (1, "")
    assert message in ran.err
    assert len(ran.err.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "in.npy"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("check", "absent.yaml"), "absent.yaml: 1 problem"),
        (("apply", "absent", "in.npy", "out.npy"), "absent is not an adapter"),
        (("embedded", "qdrant", "--data", "/dev/null/x"), "/dev/null/x"),
    ],
)
def test_what_is_not_there_is_told_in_words_without_a_traceback(run: Run, words: tuple[str, ...], message: str) -> None:
    ran = run(*words)
    assert (ran.code, ran.out) == (1, "")
    assert message in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    "words", [("chekc",), ("check",), ("apply", "a", "b", "c", "--direction", "up"), ("serve", "--x")]
)
def test_wrong_usage_ends_with_2(run: Run, words: tuple[str, ...]) -> None:
    ran = run(*words)
    assert ran.code == 2
    assert "Usage: crossfade" in ran.err


def test_serve_can_print_what_envoy_would_be_given(run: Run, config: Path) -> None:
    ran = run("serve", config, "--print-envoy-config")
    told = json.loads(ran.out)
    assert ran.code == 0
    assert [cluster["name"] for cluster in told["clusters"]["resources"]] == ["main-grpc"]
    assert told["bootstrap"]["static_resources"]["listeners"]


def test_a_defect_keeps_its_traceback(run: Run, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("crossfade.proxy.loading.load_config", broken)
    with pytest.raises(ZeroDivisionError):
        run("check", config)


def test_help_imports_nothing_heavy() -> None:
    heavy = ["torch", "scipy", "matplotlib", "openai", "numpy", "pydantic", "grpc", "yaml", "pyarrow", "qdrant_client"]
    code = f"""
import sys
sys.argv = ["crossfade", "--help"]
from crossfade.proxy.cli import main
try:
    main()
except SystemExit as end:
    assert end.code == 0, end.code
print(sorted(set({heavy}) & set(sys.modules)))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "[]"
    assert "Commands:" in ran.stdout


def test_the_installed_command_prints_its_version() -> None:
    command = Path(sys.executable).with_name("crossfade")
    ran = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("crossfade ")
