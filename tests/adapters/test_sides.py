"""Sides given the wrong way round are noticed by what observed queries look like."""

import numpy as np
import pytest

from crossfade.adapters.base import PairsError
from crossfade.adapters.pairs import make_pairs
from crossfade.adapters.select import fit_adapter
from crossfade.adapters.sides import FEWEST_QUERIES, check_sides
from crossfade.adapters.vectors import unit_rows

from .vector_pack import pack_vectors

MODELS = ("minilm-l6", "e5-small")


@pytest.mark.parametrize("collection", ["cranfield", "med", "tatqa"])
@pytest.mark.parametrize("count", [50, 1_000])
def test_observed_queries_of_real_models_tell_the_sides_apart(collection: str, count: int) -> None:
    for new, old in (MODELS, MODELS[::-1]):
        pairs = make_pairs(*(pack_vectors(collection, "docs", model)[:count] for model in (new, old)))
        queries = pack_vectors(collection, "queries", new)
        check_sides(pairs, queries)
        with pytest.raises(PairsError, match=f"of {len(queries)} observed queries look like the target's .* swapped"):
            check_sides(pairs.turned(), queries)


def test_a_fit_refuses_swapped_sides_and_cannot_know_without_queries() -> None:
    rng = np.random.default_rng(0)
    meaning = rng.normal(size=(400, 16))
    new, old = (unit_rows(meaning @ rng.normal(size=(16, 16)) + 2.0 * rng.normal(size=16)) for _ in range(2))
    queries, pairs = new[:100], make_pairs(new[100:], old[100:])
    assert fit_adapter(pairs, method="linear", queries=queries).card.pairs.count == 300
    with pytest.raises(PairsError, match="100 of 100 observed queries look like the target's"):
        fit_adapter(pairs.turned(), method="linear", queries=queries)
    fit_adapter(pairs.turned(), method="linear")
    check_sides(pairs.turned(), queries[: FEWEST_QUERIES - 1])
    check_sides(pairs.turned().take(slice(49)), queries)
