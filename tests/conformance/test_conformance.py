"""The same scenarios and the same invariants over both databases: only the dialect differs."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import numpy as np
import pytest

from crossfade.adapters.base import Adapter, Float32
from tests.conformance.databases import KINDS, Example, start_example
from tests.proxy.serving import wait_until
from tests.proxy.toy_adapters import NEW, OLD, save_toy, toy_vectors

SETTINGS = """
models: {old: {dim: 16}, new: {dim: 24}, wide: {dim: 32}}
collections:
  docs: &docs {index_model: old, query_model: new, adapters: {new: adapters/new}}
  written: *docs
  flipped: {index_model: old, query_model: old, adapters: {new: adapters/new}}
detect: {clients: {request_ids: {"old:": old, "new:": new, "wide:": wide}}}
"""
STORED = toy_vectors(2, 120, OLD)
QUERIES = toy_vectors(1, 7, NEW)


@pytest.fixture(scope="module", params=KINDS)
def example(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Example]:
    directory = tmp_path_factory.mktemp(f"conformance-{request.param}")
    save_toy(directory / "adapters" / "new")
    with start_example(request.param, directory, SETTINGS) as started:
        for name in ("docs", "written", "flipped", "others"):
            started.direct.create(name, OLD)
        for name in ("docs", "flipped", "others"):
            started.direct.write(name, range(len(STORED)), STORED)
        yield started


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Adapter:
    return save_toy(tmp_path_factory.mktemp("adapter"))


def same(example: Example, name: str, asked: Float32, mapped: Float32, model: str | None = None) -> None:
    """Through Crossfade a query finds what the mapped one finds directly."""
    through, direct = example.through.search(name, asked, 10, model), example.direct.search(name, mapped, 10)
    for ours, theirs in zip(through, direct, strict=True):
        assert ours.ids == theirs.ids
        assert ours.scores == pytest.approx(theirs.scores, abs=1e-5)


def refused(example: Example, name: str, asked: Float32, limit: int, model: str | None = None) -> str:
    with pytest.raises(Exception) as raised:  # noqa: PT011  # each client has its own; the text is compared
        example.through.search(name, asked, limit, model)
    return example.through.refusal(raised.value)


def test_an_undeclared_query_is_of_the_query_model_and_answered_by_the_old_index(
    example: Example, adapter: Adapter
) -> None:
    same(example, "docs", QUERIES, adapter.query.apply(QUERIES))


def test_a_declared_query_of_the_old_model_is_native(example: Example) -> None:
    same(example, "docs", STORED[:5], STORED[:5], "old")


def test_a_query_as_long_as_the_other_models_vectors_is_taken_as_its(example: Example) -> None:
    same(example, "docs", STORED[:5], STORED[:5])


def test_what_a_new_model_client_writes_is_stored_mapped_and_read_back_in_its_own_space(
    example: Example, adapter: Adapter
) -> None:
    assert adapter.reverse is not None
    ids = list(range(len(QUERIES)))
    example.through.write("written", ids, QUERIES, "new")
    stored = example.direct.read("written", ids)
    np.testing.assert_allclose(unit(stored), unit(adapter.document.apply(QUERIES)), rtol=0, atol=1e-6)
    back = example.through.read("written", ids, "new")
    np.testing.assert_allclose(back, adapter.reverse.apply(stored), rtol=0, atol=1e-5)


def test_what_an_old_model_client_writes_is_stored_and_read_as_it_is(example: Example) -> None:
    ids = [1000, 1001]
    example.through.write("written", ids, STORED[:2], "old")
    np.testing.assert_allclose(example.direct.read("written", ids), STORED[:2], rtol=0, atol=1e-6)
    np.testing.assert_allclose(example.through.read("written", ids, "old"), STORED[:2], rtol=0, atol=1e-6)


def test_a_threshold_is_moved_to_the_scores_of_the_index(example: Example, adapter: Adapter) -> None:
    assert adapter.calibration is not None
    for above in (-0.5, 0.0, 0.7):
        through = example.through.search("docs", QUERIES, 50, above=above)
        moved = adapter.calibration.apply(above)
        direct = example.direct.search("docs", adapter.query.apply(QUERIES), 50, above=moved)
        assert [found.ids for found in through] == [found.ids for found in direct]


def test_a_wrong_dimension_is_refused_naming_models_and_dimensions(example: Example) -> None:
    message = refused(example, "docs", np.ones((1, 7), np.float32), 3)
    assert "collection 'docs'" in message
    assert "a vector has 7 dimensions" in message
    assert "old (16), new (24)" in message


@pytest.mark.parametrize(
    ("model", "said"), [("gpt", "'gpt', which is not configured"), ("wide", "no adapter from 'wide'")]
)
def test_a_model_that_cannot_be_served_is_refused(example: Example, model: str, said: str) -> None:
    assert said in refused(example, "docs", QUERIES[:1], 3, model=model)


def test_nan_is_refused(example: Example) -> None:
    assert "NaN or infinity" in refused(example, "docs", np.full((1, NEW), np.nan, np.float32), 3)


def test_collections_that_are_not_configured_pass(example: Example) -> None:
    same(example, "others", STORED[:5], STORED[:5])


def test_flipping_the_flag_changes_what_undeclared_queries_are_taken_for(example: Example, adapter: Adapter) -> None:
    same(example, "flipped", STORED[:3], STORED[:3])
    generation = httpx.get(f"{example.serving.admin}/status").json()["generation"]
    example.flip("flipped", "new")
    wait_until(
        lambda: bool(httpx.get(f"{example.serving.admin}/status").json()["generation"] > generation), 20, "it reloads"
    )
    same(example, "flipped", QUERIES, adapter.query.apply(QUERIES))


def unit(rows: Float32) -> Float32:
    """Rows of length 1, as a cosine index may keep them."""
    lengths: Float32 = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / lengths
