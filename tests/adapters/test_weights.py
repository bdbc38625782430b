"""Weights chosen by judged queries: the better model is trusted, chance is not followed."""

from __future__ import annotations

import numpy as np
import pytest

from crossfade.adapters.weights import (
    Choice,
    Chosen,
    Weighed,
    Weights,
    choose_weights,
    usual_weights,
    weights_to_try,
)

SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9)
QUERIES = 200


def weighed(best: dict[float, Choice], gain: float, *, texts: bool = True, noise: float = 0.1) -> list[Weighed]:
    """Figures that are chance but for the best choice of some shares."""
    chance = np.random.default_rng(5)
    found = []
    for share in SHARES:
        base = chance.uniform(0.3, 0.6, QUERIES)
        choices: list[Choice] = [None, *weights_to_try(share, texts=texts)]
        values = {one: base + noise * chance.normal(size=QUERIES) for one in choices}
        values[usual_weights(share)] = base
        values[None] = base - 0.02
        if share in best:
            values[best[share]] = base + gain
        found.append(Weighed(share, values))
    return found


def test_what_is_usual_leans_from_the_old_model_to_the_middle_and_trusts_the_whole_index_alone() -> None:
    assert [usual_weights(share, texts=True).adapted for share in (-1.0, 0.0, 0.5, 1.0, 7.0)] == [
        0.25, 0.25, 0.375, 0.5, 0.5
    ]  # fmt: skip
    assert [usual_weights(share).adapted for share in (0.0, 1.0)] == [1.0, 1.0]
    assert [usual_weights(share).trust for share in (0.0, 0.99, 1.0)] == [0.4, 0.4, 1.0]


def test_everything_that_is_usual_is_tried_and_without_old_queries_nothing_that_needs_them() -> None:
    for share in SHARES:
        tried = weights_to_try(share, texts=True)
        assert {usual_weights(share), usual_weights(share, texts=True)} <= set(tried)
        assert len(tried) == len(set(tried))
        assert {one.adapted for one in weights_to_try(share, texts=False)} == {1.0}
    assert {one.trust for one in weights_to_try(0.0, texts=True)} == {0.4}


def test_chance_is_seldom_followed_and_its_gain_is_told_as_none() -> None:
    chosen = choose_weights(weighed({}, 0.0, noise=0.02))
    assert [one.migrated for one in chosen] == list(SHARES)
    assert all(abs(one.texts_gain) < 0.005 and abs(one.vectors_gain) < 0.005 for one in chosen)


def test_a_lean_and_a_trust_that_are_better_everywhere_are_chosen() -> None:
    best: dict[float, Choice] = {share: Weights(0.75, 0.8 if share > 0 else 0.4) for share in SHARES}
    for one in choose_weights(weighed(best, 0.05)):
        assert one.texts == (0.75, 0.8)
        assert one.texts_gain == pytest.approx(0.05)
        assert one.vectors is None or one.vectors.adapted == 1


def test_the_old_index_alone_is_chosen_from_where_it_is_better() -> None:
    chosen = choose_weights(weighed({0.75: None, 0.9: None}, 0.08, noise=0.0))
    assert [one.vectors for one in chosen[-2:]] == [None, None]
    assert chosen[1].vectors == usual_weights(0.1)


def test_without_queries_by_the_old_model_texts_are_asked_as_vectors() -> None:
    best: dict[float, Choice] = {share: Weights(1.0, 1.0) for share in SHARES[1:]}
    for one in choose_weights(weighed(best, 0.05, texts=False))[2:]:
        assert one.texts == one.vectors == (1.0, 1.0)


def test_a_choice_is_written_as_json() -> None:
    told = Chosen(0.5, None, Weights(0.25, 0.6), 0.01, 0.02).to_json()
    assert told == {
        "migrated": 0.5,
        "vectors": None,
        "texts": {"adapted": 0.25, "trust": 0.6},
        "vectors_gain": 0.01,
        "texts_gain": 0.02,
    }
