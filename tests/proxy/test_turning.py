"""Spaces after a migration: the index is the new model's, and everybody else's vectors are led there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from crossfade.adapters.base import Adapter
from crossfade.backends.dialect import Role
from crossfade.proxy.detect import Declared, detect_model
from crossfade.proxy.loading import read_config
from crossfade.proxy.migration.machine import State
from crossfade.proxy.migration.record import MigrationView
from crossfade.proxy.routing import AdapterKey, Snapshot, build_snapshot
from crossfade.proxy.turning import Chain
from tests.proxy.toy_adapters import toy_adapter, toy_vectors

CONFIG = """
listen: {qdrant: {grpc: "127.0.0.1:1"}}
upstreams: {main: {kind: qdrant, grpc: "127.0.0.1:2"}}
models: {old: {dim: 16}, new: {dim: 24}, third: {dim: 20}}
collections:
  docs: {index_model: INDEX, query_model: QUERY, adapters: {ADAPTERS}}
  others: {index_model: old, adapters: {new: a}}
"""
VIEW = MigrationView(
    id="m", collection="docs", target="docs--new", field="", from_model="old", to_model="new", state=State.SWITCHED,
    percent=100, strategy="auto", shadow=0, migrated=1, captures=True, holds_writes=False, version=1,
)  # fmt: skip
DONE = VIEW.model_copy(update={"state": State.COMPLETED})
ADAPTERS = {"new": toy_adapter(), "third": toy_adapter("third", "old", (20, 16), seed=5)}


def load(key: AdapterKey) -> Adapter:
    return ADAPTERS[key.model]


def snapshot_of(
    view: MigrationView, index: str = "old", query: str = "new", adapters: str = "new: a, third: b"
) -> Snapshot:
    text = CONFIG.replace("INDEX", index).replace("QUERY", query).replace("ADAPTERS", adapters)
    return build_snapshot(read_config(text, Path("/")), 1, load, {view.collection: view})


def model_of(snapshot: Snapshot, role: Role, dim: int | None = None) -> str:
    space = snapshot.find_space("docs", "")
    assert space is not None
    return detect_model(space, Declared(), role, None, dim, snapshot.models)


def test_until_it_is_completed_nothing_of_a_space_changes() -> None:
    snapshot = snapshot_of(VIEW)
    space = snapshot.find_space("docs", "")
    assert space is not None
    assert (space.index_model, set(space.adapters), space.query_model) == ("old", {"new", "third"}, "new")


def test_afterwards_new_vectors_are_at_home_and_old_ones_go_through_the_reverse_map() -> None:
    space = snapshot_of(DONE).find_space("docs", "")
    assert space is not None
    assert (space.index_model, set(space.adapters)) == ("new", {"old", "third"})
    rows = toy_vectors(7, 3, 16)
    back = space.adapters["old"]
    np.testing.assert_array_equal(back.query.apply(rows), ADAPTERS["new"].reverse.apply(rows))
    np.testing.assert_array_equal(back.document.apply(rows), ADAPTERS["new"].reverse.apply(rows))
    new = toy_vectors(8, 3, 24)
    np.testing.assert_array_equal(back.reverse.apply(new), ADAPTERS["new"].document.apply(new))
    calibration, forward = back.calibration, ADAPTERS["new"].calibration
    assert calibration is not None
    assert forward is not None
    assert calibration.apply(forward.apply(0.3)) == pytest.approx(0.3)
    assert (back.card.source_dim, back.card.target_dim) == (16, 24)


def test_a_third_model_goes_through_the_old_space_into_the_new_one() -> None:
    space = snapshot_of(DONE).find_space("docs", "")
    assert space is not None
    rows = toy_vectors(9, 3, 20)
    expected = ADAPTERS["new"].reverse.apply(ADAPTERS["third"].query.apply(rows))
    through = space.adapters["third"].query
    np.testing.assert_array_equal(through.apply(rows), expected)
    assert (through.source_dim, through.target_dim) == (20, 24)
    with pytest.raises(NotImplementedError, match="not stored"):
        Chain.restore({}, {})


def test_clients_that_were_told_nothing_still_count_as_what_the_configuration_says() -> None:
    for view in (VIEW, DONE):
        flipped, kept = snapshot_of(view), snapshot_of(view, query="old")
        assert (model_of(flipped, Role.QUERY), model_of(kept, Role.QUERY)) == ("new", "old")
        assert (model_of(flipped, Role.DOCUMENT), model_of(kept, Role.DOCUMENT)) == ("old", "old")
        assert model_of(kept, Role.DOCUMENT, 24) == "new"  # its length says so


def test_a_configuration_that_has_caught_up_is_taken_at_its_word() -> None:
    space = snapshot_of(DONE, index="new", adapters="").find_space("docs", "")
    assert space is not None
    assert (space.index_model, dict(space.adapters), space.document_model) == ("new", {}, "new")


def test_without_an_adapter_only_the_new_model_is_taken() -> None:
    space = snapshot_of(DONE, query="old", adapters="third: b").find_space("docs", "")
    assert space is not None
    assert (space.index_model, dict(space.adapters), space.query_model) == ("new", {}, "new")


def test_only_the_field_and_the_collection_that_were_migrated_change() -> None:
    snapshot = snapshot_of(DONE)
    for collection, using in (("docs", "title"), ("others", "")):
        space = snapshot.find_space(collection, using)
        assert space is not None
        assert space.index_model == "old"


def test_a_request_that_names_no_field_means_the_only_one_there_is() -> None:
    snapshot = snapshot_of(DONE.model_copy(update={"field": "vector"}))
    for using, index_model in (("vector", "new"), ("", "new"), ("other", "old")):
        space = snapshot.find_space("docs", using)
        assert space is not None
        assert space.index_model == index_model


def test_a_snapshot_is_turned_for_one_collection_and_only_once() -> None:
    snapshot = snapshot_of(VIEW)
    turned = snapshot.turn("docs")
    space, before = turned.find_space("docs", ""), snapshot.find_space("docs", "")
    assert space is not None
    assert before is not None
    assert (space.index_model, before.index_model) == ("new", "old")
    assert snapshot.turn("docs") is turned
