"""Which model made a vector: the whole order, as docs/detection.md tells it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crossfade.adapters.base import Adapter
from crossfade.backends.dialect import Role
from crossfade.proxy.detect import Declared, detect_model, read_declared
from crossfade.proxy.errors import ModelNotMapped, UnknownModel, WrongDimension
from crossfade.proxy.loading import read_config
from crossfade.proxy.routing import AdapterKey, Snapshot, Space, build_snapshot
from tests.proxy.toy_adapters import toy_adapter

CONFIG = """
listen: {qdrant: {grpc: "127.0.0.1:1"}}
upstreams: {only: {kind: qdrant, grpc: "127.0.0.1:2"}}
models: {old: {dim: 16}, new: {dim: 24}, same: {dim: 16}, far: {dim: 99}}
collections:
  docs:
    index_model: old
    query_model: new
    adapters: {new: a/new, same: a/same}
    fields: {sure: {declares: same}, image: {index_model: far}}
detect: {clients: {models: {ui: same, stranger: far}}}
"""


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    adapters = {name: toy_adapter(name, dims=(dim, 16)) for name, dim in (("new", 24), ("same", 16))}

    def load(key: AdapterKey) -> Adapter:
        return adapters[key.model]

    return build_snapshot(read_config(CONFIG, Path("/etc"), {}), 1, load)


def detect(
    snapshot: Snapshot,
    headers: dict[str, str],
    *,
    field: str = "",
    role: Role = Role.QUERY,
    in_message: str | None = None,
    dim: int | None = None,
) -> str:
    declared = read_declared(headers, snapshot.config.detect)
    space: Space | None = snapshot.find_space("docs", field)
    assert space is not None
    return detect_model(space, declared, role, in_message, dim, snapshot.models)


HEADER, CLIENT = {"x-embedding-model": "old"}, {"x-client-id": "ui"}


@pytest.mark.parametrize(
    ("headers", "given", "model"),
    [
        (HEADER | CLIENT, {"field": "sure", "in_message": "new"}, "old"),  # the header before everything
        (CLIENT, {"field": "sure", "in_message": "new"}, "new"),  # then the message
        (CLIENT, {"field": "sure"}, "same"),  # the vector's name
        (CLIENT, {}, "same"),  # the client
        (CLIENT, {"role": Role.DOCUMENT}, "same"),  # of what it writes, too
        ({}, {}, "new"),  # the flag
        ({}, {"role": Role.RESULT}, "new"),
        ({}, {"role": Role.DOCUMENT}, "old"),  # but what is stored undeclared is the index's
        ({"x-embedding-model": ""}, {}, "new"),  # an empty header says nothing
        ({"x-client-id": "stranger"}, {}, "new"),  # a client of a model that this field does not take
        ({"x-client-id": "unknown"}, {}, "new"),
    ],
)
def test_the_first_that_says_something_counts(
    headers: dict[str, str], given: dict[str, Any], model: str, snapshot: Snapshot
) -> None:
    assert detect(snapshot, headers, **given) == model


@pytest.mark.parametrize(
    ("headers", "role", "dim", "model"),
    [
        ({}, Role.QUERY, 24, "new"),
        ({}, Role.DOCUMENT, 24, "new"),  # an undeclared write of the new model's length is the new model's
        ({}, Role.DOCUMENT, 16, "old"),
        (CLIENT, Role.QUERY, 24, "new"),
        (CLIENT, Role.QUERY, 16, "same"),
    ],
)
def test_what_stands_by_default_gives_way_to_the_only_model_of_the_vectors_length(
    headers: dict[str, str], role: Role, dim: int, model: str, snapshot: Snapshot
) -> None:
    assert detect(snapshot, headers, role=role, dim=dim) == model


def test_two_models_of_one_length_are_not_told_apart_by_it(snapshot: Snapshot) -> None:
    with pytest.raises(WrongDimension, match=r"has 16 dimensions, but it is declared as 'new', which has 24"):
        detect(snapshot, {}, dim=16)


def test_a_declared_model_does_not_give_way(snapshot: Snapshot) -> None:
    with pytest.raises(WrongDimension, match=r"models known here: old \(16\), new \(24\), same \(16\)"):
        detect(snapshot, HEADER, dim=24)
    with pytest.raises(WrongDimension):
        detect(snapshot, {}, in_message="new", dim=16)
    with pytest.raises(WrongDimension):
        detect(snapshot, {}, field="sure", dim=24)


@pytest.mark.parametrize(
    ("headers", "in_message", "by"),
    [({"x-embedding-model": "e5"}, None, "the header x-embedding-model"), ({}, "e5", "the message")],
)
def test_an_unknown_model_is_refused_with_who_declared_it(
    headers: dict[str, str], in_message: str | None, by: str, snapshot: Snapshot
) -> None:
    with pytest.raises(UnknownModel, match=f"{by} declares the model 'e5', which is not configured"):
        detect(snapshot, headers, in_message=in_message)


def test_a_known_model_without_an_adapter_is_refused(snapshot: Snapshot) -> None:
    with pytest.raises(ModelNotMapped, match="there is no adapter from 'far'; it takes 'old', 'new', 'same'"):
        detect(snapshot, {"x-embedding-model": "far"})
    with pytest.raises(ModelNotMapped, match="collection 'docs', vector 'image'"):
        detect(snapshot, HEADER, field="image")


def test_of_a_repeated_header_the_last_value_counts(snapshot: Snapshot) -> None:
    pairs = [("x-embedding-model", "new"), ("x-embedding-model", "old")]
    assert read_declared(dict(pairs), snapshot.config.detect) == Declared("old", None, "x-embedding-model")


def test_the_toy_adapters_maps_differ() -> None:
    adapter = toy_adapter()
    row = np.ones((1, 24), np.float32)
    assert not np.allclose(adapter.query.apply(row), adapter.document.apply(row))
