"""Workers take up an adapter that a migration has fitted again, and let go of it: through a running Crossfade."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crossfade.adapters.base import Adapter
from crossfade.adapters.store import save_adapter
from crossfade.backends.dialect import Float32
from crossfade.proxy.loading import load_config
from crossfade.proxy.migration.machine import State
from crossfade.proxy.migration.places import grown_path
from crossfade.proxy.migration.refit import forget_refit
from crossfade.proxy.migration.sample import sample_folder
from tests.proxy.migrating import OLD, TARGET, Migrating, fill, ids, start_migrating, unit
from tests.proxy.serving import wait_until
from tests.proxy.toy_adapters import toy_adapter

COUNT = 200
SETTINGS = """
models: {old: {dim: 16}, new: {dim: 24}}
collections: {docs: {index_model: old, query_model: new, adapters: {new: adapter}}}
"""
ADAPTING: dict[str, Any] = {"state": State.BACKFILLING, "percent": 0.0, "migrated": 0.5, "strategy": "adapt"}
QUERY = unit(np.random.default_rng(3).normal(size=(1, 24)))[0]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Migrating, Adapter, Float32, Float32]]:
    folder = tmp_path_factory.mktemp("grown")
    toy = toy_adapter()
    adapter = replace(toy, card=replace(toy.card, created="2050-01-01T00:00:00+00:00"))
    save_adapter(adapter, folder / "adapter")
    numbers = np.random.default_rng(0)
    new, old = unit(numbers.normal(size=(COUNT, 24))), unit(numbers.normal(size=(COUNT, 16)))
    with start_migrating(folder, SETTINGS, dims=(16, 24), workers=2) as migrating:
        fill(migrating.direct, OLD, old, range(COUNT))
        fill(migrating.direct, TARGET, new, range(COUNT))
        yield migrating, adapter, new, old


def grown_of(configured: Adapter, **card: Any) -> Adapter:
    """Another adapter, newer than the configured one unless the card says otherwise."""
    other = toy_adapter(seed=77)
    return replace(other, card=replace(other.card, **{"created": "2100-01-01T00:00:00+00:00", **card}))


def folder_of(migrating: Migrating) -> Path:
    return sample_folder(load_config(migrating.serving.config))


def best(vectors: Float32, query: Float32) -> list[int]:
    return [int(row) for row in np.argsort(-(vectors @ unit(query[None])[0]), kind="stable")[:10]]


def asked(migrating: Migrating, query: Float32) -> list[int]:
    """Through a connection of its own, so that every worker is asked sooner or later."""
    client = migrating.client(grpc=True)
    try:
        return ids(client.query_points(OLD, query=query.tolist(), limit=10).points)
    finally:
        client.close()


def wait_for(migrating: Migrating, query: Float32, expected: list[int]) -> None:
    """Until ten answers in a row are the expected ones."""
    wait_until(lambda: all(asked(migrating, query) == expected for _ in range(10)), 15, f"answers are {expected}")


def test_what_was_fitted_last_serves(made: tuple[Migrating, Adapter, Float32, Float32]) -> None:
    migrating, configured, _, old = made
    migrating.move(**ADAPTING)
    first = best(old, configured.query.apply(QUERY[None])[0])
    wait_for(migrating, QUERY, first)
    grown, place = grown_of(configured), grown_path(folder_of(migrating), migrating.view.id)
    second = best(old, grown.query.apply(QUERY[None])[0])
    assert first != second
    save_adapter(grown, place)
    wait_for(migrating, QUERY, second)
    save_adapter(grown_of(configured, created="2049-01-01T00:00:00+00:00"), place)
    wait_for(migrating, QUERY, first)  # the configured one was fitted after it
    save_adapter(grown, place)
    wait_for(migrating, QUERY, second)
    (place / "card.json").write_text("{}")
    wait_for(migrating, QUERY, first)  # one that cannot be read is none
    save_adapter(grown_of(configured, target_model="another"), place)
    wait_for(migrating, QUERY, first)
    forget_refit(folder_of(migrating), migrating.view.id, adapter=True)
    wait_for(migrating, QUERY, first)


def test_after_completion_old_queries_are_mapped_back_by_what_has_grown(
    made: tuple[Migrating, Adapter, Float32, Float32],
) -> None:
    migrating, configured, new, _ = made
    migrating.move(state=State.COMPLETED, migrated=1.0)
    query = unit(np.random.default_rng(4).normal(size=(1, 16)))[0]
    grown = grown_of(configured)
    before, after = (best(new, one.reverse.apply(query[None])[0]) for one in (configured, grown))
    assert before != after
    client = migrating.client(grpc=True, x_embedding_model="old")

    def answers() -> list[list[int]]:
        return [ids(client.query_points(OLD, query=query.tolist(), limit=10).points) for _ in range(5)]

    wait_until(lambda: answers() == [before] * 5, 15, "the configured adapter maps back")
    save_adapter(grown, grown_path(folder_of(migrating), migrating.view.id))
    wait_until(lambda: answers() == [after] * 5, 15, "the grown adapter maps back")
