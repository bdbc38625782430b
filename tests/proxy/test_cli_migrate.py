"""`crossfade migrate` against a running `crossfade serve` on an embedded Qdrant: whole lives, by hand and by goal."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from qdrant_client import models

from crossfade.proxy.migration.machine import State
from tests.proxy.cli_runs import Ran, make_run
from tests.proxy.deployed_metrics import asked_metrics, exposed_metrics
from tests.proxy.serving import Serving, spawn_serve, start_serving, wait_until
from tests.proxy.toy_adapters import save_toy, toy_vectors

POINTS = 300
REST = """\
models:
  old: {dim: 16}
  new: {dim: 24, encoder: {python: "tests.proxy.encoding_function:encode"}}
collections:
  docs: {index_model: old, text: payload.text, migrate: {to: new}}
  goal: {index_model: old, text: payload.text, migrate: {to: new}}
  taken: {index_model: old, text: payload.text, migrate: {to: new}}
  railed:
    index_model: old
    query_model: new
    adapters: {new: adapter}
    text: payload.text
    migrate: {to: new, ramp: [{percent: 10, hold: 0}], guardrails: {error_rate: 0.2, window: 20s}}
  killed: {index_model: old, text: payload.text, migrate: {to: new, pace: {rate: 60, workers: 1}}}
  own: {index_model: old, text: payload.text, migrate: {to: new, pace: {engine: process}}}
"""
Migrate = Callable[..., Ran]


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """One serve with a collection for each test."""
    folder = tmp_path_factory.mktemp("migrate")
    save_toy(folder / "adapter")
    with start_serving(folder, "embedded: ./data", REST) as running:
        for collection in ("docs", "goal", "taken", "railed", "killed", "own"):
            fill(running, collection)
        yield running


def fill(serving: Serving, collection: str) -> None:
    """300 points, one in a hundred without text."""
    client = serving.client(grpc=True)
    client.create_collection(collection, models.VectorParams(size=16, distance=models.Distance.COSINE))
    vectors = np.random.default_rng(0).normal(size=(POINTS, 16))
    points = [
        models.PointStruct(id=at, vector=vectors[at].tolist(), payload={"text": f"text {at}"} if at % 100 else {})
        for at in range(POINTS)
    ]
    client.upsert(collection, points, wait=True)


def collections_of(serving: Serving, name: str) -> list[str]:
    found = serving.client(grpc=True).get_collections().collections
    return sorted(one.name for one in found if one.name.startswith(name))


@pytest.fixture
def migrate(serving: Serving, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Migrate:
    run = make_run(capsys, monkeypatch)
    monkeypatch.setenv("CROSSFADE_ADMIN", serving.admin)

    def migrate(*words: object) -> Ran:
        return run("migrate", *words)

    return migrate


def said(ran: Ran) -> Any:
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


def until(migrate: Migrate, collection: str, **wanted: object) -> Any:
    """Wait for the status to have these values."""

    def holds() -> bool:
        ran = migrate("status", collection, "--json")
        return ran.code == 0 and json.loads(ran.out).items() >= wanted.items()

    wait_until(holds, 60, f"{collection}: {wanted}")
    return said(migrate("status", collection, "--json"))


def rewrite(serving: Serving, old: str, new: str) -> None:
    text = serving.config.read_text()
    assert old in text
    serving.config.write_text(text.replace(old, new))


def test_a_migration_is_planned_started_verified_switched_reversed_and_completed_by_hand(
    serving: Serving, migrate: Migrate
) -> None:
    assert "no migration; add collections.NAME.migrate" in migrate("status").out
    plan = migrate("plan", "docs", "--price", 0.02).out
    assert "docs -> docs--new" in plan
    assert "about 3 of 300 points have no text at 'payload.text'" in plan
    assert "nothing changed (dry run)" in migrate("start", "docs", "--dry-run").out
    assert said(migrate("status", "--json")) == []
    started = migrate("start", "docs", "--reason", "a better model", "--watch")
    assert "SYNCED" in started.out
    assert "300 of 300 points" in started.out
    assert "3 points without new vector" in migrate("dead-letters", "docs").out
    refused = migrate("switch", "docs")
    assert refused.code == 1
    assert "'switch' has to wait: the last verification is never; say verify" in refused.err
    assert "nothing found" in migrate("verify", "docs", "--watch").out
    assert said(migrate("switch", "docs", "--percent", 10, "--json"))["state"] == "CANARY"
    assert "100 % from docs--new" in migrate("switch", "docs").out
    assert "SYNCED" in migrate("reverse", "docs", "--reason", "to be sure").out
    migrate("switch", "docs")
    assert "COMPLETED" in migrate("complete", "docs", "--watch").out
    assert collections_of(serving, "docs") == ["docs", "docs--new"]
    assert "points are in 'docs--new' since it was completed" in migrate("start", "docs").err
    assert migrate("complete", "docs", "--drop-old").code == 0
    wait_until(lambda: collections_of(serving, "docs") == ["docs--new"], 10, "the old collection is gone")
    aliases = serving.client(grpc=True).get_aliases
    wait_until(lambda: bool(aliases().aliases), 10, "its name is an alias")
    assert [(one.alias_name, one.collection_name) for one in aliases().aliases] == [("docs", "docs--new")]
    history = said(migrate("history", "docs", "--json"))
    assert [one["step"] for one in history if one["actor"] != "controller"] == [
        *("plan", "start", "verify", "switch to 10 %", "switch to 100 %", "reverse", "switch to 100 %", "complete"),
        "drop-old",
    ]
    assert {"a better model", "to be sure"} <= {one["reason"] for one in history}


def test_a_goal_in_the_file_goes_as_far_as_it_says_and_a_verb_by_hand_counts_until_it_changes(
    serving: Serving, migrate: Migrate
) -> None:
    old = "goal: {index_model: old, text: payload.text, migrate: {to: new}}"

    def want(goal: str, more: str = "") -> None:
        nonlocal old
        asked = f"to: new, goal: {goal}, ramp: [{{percent: 2, hold: 0}}]{more}"
        new = f"goal: {{index_model: old, text: payload.text, migrate: {{{asked}}}}}"
        rewrite(serving, old, new)
        old = new

    want("10%")
    status = until(migrate, "goal", percent=10)
    assert (status["state"], status["goal"]) == ("CANARY", "10%")
    steps = [one["step"] for one in said(migrate("history", "goal", "--json")) if one["actor"] == "configuration"]
    assert steps == ["plan", "start", "verify", "switch to 2 %", "switch to 10 %"]
    migrate("reverse", "goal")
    assert "a verb said by hand counts" in migrate("status", "goal").out
    want("switched")
    until(migrate, "goal", state="SWITCHED")
    want("copied")
    until(migrate, "goal", state="SYNCED")
    want("none", ", pace: {rate: 5}")
    wait_until(lambda: said(migrate("status", "goal", "--json"))["pace"]["rate"] == 5, 30, "the limit")
    assert said(migrate("set", "goal", "rate=none", "workers=3", "--json"))["pace"]["workers"] == 3


def test_a_share_steps_back_by_itself_when_the_new_index_fails_and_every_query_is_answered(
    serving: Serving, migrate: Migrate
) -> None:
    migrate("start", "railed", "--watch")
    migrate("verify", "railed", "--watch")
    assert migrate("switch", "railed", "--force").code == 0
    client, queries = serving.client(grpc=True), iter(toy_vectors(7, 2000, 24))
    assert client.delete_collection("railed--new")

    def asks() -> bool:
        hits = [client.query_points("railed", query=next(queries).tolist(), limit=3).points for _ in range(25)]
        assert all(len(one) == 3 for one in hits)
        return bool(json.loads(migrate("status", "railed", "--json").out)["state"] == "SYNCED")

    wait_until(asks, 60, "the old index answers everybody")
    steps = [one for one in said(migrate("history", "railed", "--json")) if one["actor"] == "guardrail"]
    assert [one["step"] for one in steps] == ["switch to 10 %", "reverse"]
    assert re.match(r"error_rate: \d+ of \d+ reads failed, \d\.\d+ > 0\.2; from 100 % to 10 %", steps[0]["reason"])
    assert "stepped back" in migrate("status", "railed").out


def test_a_file_that_takes_a_migration_away_is_refused_until_it_is_over(serving: Serving, migrate: Migrate) -> None:
    section = "  taken: {index_model: old, text: payload.text, migrate: {to: new}}\n"
    migrate("start", "taken", "--watch")
    text = serving.config.read_text()

    def refuses(new: str, problem: str) -> None:
        serving.config.write_text(text.replace(section, new))
        wait_until(lambda: problem in (serving.status()["last_problem"] or ""), 10, problem)

    refuses(
        section.replace(", migrate: {to: new}", ""),
        "collections.taken.migrate: is missing, and the migration to 'new' is SYNCED; crossfade migrate cancel taken",
    )
    refuses(section.replace("to: new", "to: new, target: x"), "says target 'x', and the migration under way was begun")
    serving.config.write_text(text)
    wait_until(lambda: serving.status()["last_problem"] is None, 10, "the file as it was is taken")
    migrate("cancel", "taken")
    generation = serving.status()["generation"]
    serving.config.write_text(text.replace(section, ""))
    wait_until(lambda: bool(serving.status()["generation"] > generation), 10, "the file is taken")
    serving.config.write_text(text)
    wait_until(lambda: collections_of(serving, "taken") == ["taken"], 20, "the target is destroyed")
    assert serving.status()["last_problem"] is None


def test_dashboard_and_alerts_name_only_metrics_that_are_exposed(serving: Serving) -> None:
    asked = asked_metrics()
    assert len(asked) > 25
    assert asked - exposed_metrics(serving.metrics()) == set()


def test_metrics_and_page_show_a_migration(serving: Serving, migrate: Migrate) -> None:
    if migrate("status", "docs").code:
        migrate("start", "docs", "--watch")
    text = serving.metrics()
    assert 'crossfade_migration_copied_points{collection="docs"} 300.0' in text
    assert 'crossfade_migration_dead_letters{collection="docs"}' in text
    assert sum(line.startswith('crossfade_migration_state{collection="docs"') for line in text.splitlines()) == len(
        State
    )
    page, script = httpx.get(f"{serving.admin}/"), httpx.get(f"{serving.admin}/admin.js")
    assert (page.headers["content-type"], page.status_code) == ("text/html; charset=utf-8", 200)
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "javascript" in script.headers["content-type"]
    assert not re.findall(r"(?:src|href)=\"(?!admin\.js|metrics|status)", page.text)  # nothing from elsewhere
    assert {one["name"]: one["migrate_to"] for one in serving.status()["collections"]}["docs"] == "new"


def test_what_cannot_be_said_is_explained(migrate: Migrate) -> None:
    missing = migrate("start", "other")
    assert (missing.code, "collection 'other' has no migrate section" in missing.err) == (1, True)
    assert "there is one in 'docs'" in missing.err
    assert "'speed=1' is no limit; write KEY=VALUE with one of engine, workers" in migrate("set", "docs", "speed=1").err
    nobody = migrate("status", "docs", "--admin", "127.0.0.1:9")
    assert "no crossfade serve answers at http://127.0.0.1:9" in nobody.err


def test_a_migration_runs_in_a_process_of_its_own_at_low_priority(serving: Serving, migrate: Migrate) -> None:
    assert "300 of 300 points" in migrate("start", "own", "--watch").out
    assert "nothing found" in migrate("verify", "own", "--watch").out
    pids = _children(serving.process.pid, "crossfade.proxy.migration.moving_child")
    assert len(pids) == 1
    assert os.getpriority(os.PRIO_PROCESS, pids[0]) >= 10
    assert "CANCELLED" in migrate("cancel", "own").out
    wait_until(lambda: not _children(serving.process.pid, "crossfade.proxy.migration.moving_child"), 30, "it has ended")


def _children(pid: int, module: str) -> list[int]:
    """Processes that one has started, by the module that they run."""
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with suppress(FileNotFoundError, ProcessLookupError):
            if module.encode() in Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0"):
                found.append(int(child))
    return found


def test_a_killed_supervisor_goes_on_where_it_was_and_plan_works_without_it(
    serving: Serving, migrate: Migrate, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate("start", "killed")
    wait_until(lambda: bool(said(migrate("status", "killed", "--json"))["copied"]), 30, "some points are copied")
    os.kill(serving.process.pid, signal.SIGKILL)
    serving.process.wait()
    monkeypatch.delenv("CROSSFADE_ADMIN")
    wait_until(lambda: migrate("plan", "killed", "--config", serving.config).code == 0, 20, "a plan without serve")
    again = spawn_serve(serving.config, serving.log)
    try:
        monkeypatch.setenv("CROSSFADE_ADMIN", serving.admin)
        wait_until(lambda: migrate("status", "killed").code == 0, 60, "it serves again")
        assert 0 < said(migrate("set", "killed", "rate=none", "--json"))["checkpoint"]["points"] < POINTS
        until(migrate, "killed", state="SYNCED")
        assert said(migrate("status", "killed", "--json"))["tally"]["written"] <= POINTS + 64  # a page, done again
    finally:
        again.send_signal(signal.SIGTERM)
        again.wait(15)
