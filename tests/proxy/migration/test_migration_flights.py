from __future__ import annotations

from pathlib import Path

import orjson

from crossfade.proxy.live import Live
from crossfade.proxy.migration.flights import Flights
from crossfade.proxy.migration.record import Migration, MigrationView, Spec
from crossfade.proxy.rundir import publish_config, publish_migrations, read_workers
from tests.proxy.serving import wait_until

CONFIG = """
listen: {qdrant: {grpc: "127.0.0.1:1"}}
upstreams: {main: {kind: qdrant, grpc: "127.0.0.1:2"}}
models: {old: {dim: 4}}
collections: {docs: {index_model: old}}
"""


def _view(version: int) -> MigrationView:
    spec = Spec(collection="docs", target="docs--new", from_model="old", to_model="new", dim=4, text="payload.text")
    return Migration(id="m1", spec=spec, version=version).view


def _stated(run_dir: Path) -> object:
    (worker,) = read_workers(run_dir).values()
    return worker["migrations"]


def test_a_version_is_seen_only_when_the_writes_that_began_before_it_have_ended() -> None:
    flights = Flights()
    with flights.write(_view(3)):
        assert flights.oldest({"m1": 7}) == {"m1": 3}
        with flights.write(_view(5)):
            assert flights.oldest({"m1": 7, "other": 1}) == {"m1": 3, "other": 1}
        assert flights.oldest({}) == {"m1": 3}  # also when the migration is not published any more
    assert flights.oldest({"m1": 7}) == {"m1": 7}


def test_a_worker_serves_with_published_migrations_and_says_which_version_it_acts_on(tmp_path: Path) -> None:
    publish_config(tmp_path, CONFIG, tmp_path, 1)
    live = Live(tmp_path)
    assert live.snapshot.migrations == {}

    publish_migrations(tmp_path, [_view(2)])
    wait_until(lambda: "docs" in live.snapshot.migrations, 5, "the worker takes the migration up")
    wait_until(lambda: _stated(tmp_path) == {"m1": 2}, 5, "and says so")
    assert live.snapshot.generation == 1

    with live.flights.write(live.snapshot.migrations["docs"]):
        publish_migrations(tmp_path, [_view(3)])
        wait_until(lambda: live.snapshot.migrations["docs"].version == 3, 5, "the next version is taken up")
        publish_config(tmp_path, CONFIG, tmp_path, 2)
        wait_until(lambda: live.snapshot.generation == 2, 5, "a new configuration keeps the migrations")
        assert live.snapshot.migrations["docs"].version == 3
        assert _stated(tmp_path) == {"m1": 2}, "a write of version 2 is still under way"
    wait_until(lambda: _stated(tmp_path) == {"m1": 3}, 5, "the write has ended")


def test_what_was_published_can_be_read_by_anyone(tmp_path: Path) -> None:
    publish_migrations(tmp_path, [_view(4)])
    (view,) = orjson.loads((tmp_path / "migrations.json").read_bytes())
    assert MigrationView.model_validate(view) == _view(4)
