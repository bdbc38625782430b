"""Which strategy a read is answered by, how hits are merged, and how long the new index is waited for."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.adapters.half_migrated import CANDIDATES
from crossfade.backends.reading import Hit
from crossfade.proxy.errors import UnknownStrategy, UpstreamDown
from crossfade.proxy.matching import build_sample
from crossfade.proxy.merging import MARGIN, Found, count_candidates, cut, find_line, merge_search
from crossfade.proxy.migration.machine import State
from crossfade.proxy.migration.record import Strategy
from crossfade.proxy.patience import REST_SECONDS, Patience, TargetFailed, seconds_to_wait
from crossfade.proxy.strategies import KNOWN, Request, adapts_every, choose_way, find_key, find_position, read_wanted
from tests.proxy.migrating import first_view, unit

MINE = Request("new", b"client a", plain=True, texts=False)
TEXT = Request("new", b"client a", plain=True, texts=True)
OTHER = Request("new", b"client a", plain=False, texts=False)
FORMER = Request("old", b"client a", plain=True, texts=True)


@pytest.mark.parametrize(
    ("strategy", "migrated", "request_", "way"),
    [
        ("auto", 0.0, MINE, "adapt"),
        ("auto", 0.01, MINE, "crossfade"),
        ("auto", 1.0, MINE, "crossfade"),
        ("auto", 0.5, OTHER, "adapt"),
        ("auto", 0.5, FORMER, "old"),
        ("adapt", 0.5, MINE, "adapt"),
        ("crossfade", 0.5, OTHER, "adapt"),
        ("crossfade", 0.0, MINE, "adapt"),
        ("legacy-encode", 0.0, TEXT, "legacy-encode"),
        ("legacy-encode", 0.5, TEXT, "legacy-crossfade"),
        ("legacy-encode", 0.5, MINE, "crossfade"),
        ("native", 0.5, MINE, "native"),
        ("native", 0.5, FORMER, "old"),
    ],
)
def test_the_strategy_follows_from_what_is_set_and_what_is_migrated(
    strategy: Strategy, migrated: float, request_: Request, way: str
) -> None:
    view = first_view(strategy=strategy, migrated=migrated)
    assert choose_way(view, None, request_) == way
    switched = view.model_copy(update={"state": State.SWITCHED, "percent": 100.0})
    assert choose_way(switched, None, request_) == ("old" if request_ is FORMER else "native")
    if request_ is not FORMER:
        assert choose_way(switched, strategy, request_) == way  # the request's own word goes first
    assert choose_way(view, "native", request_) == "native"


@given(
    st.sampled_from([None, *KNOWN]),
    st.sampled_from(KNOWN),
    st.sampled_from([0.0, 0.01, 1.0]),
    st.sampled_from([0.0, 50.0, 100.0]),
    st.binary(),
    st.booleans(),
)
def test_what_is_adapted_for_everybody_is_adapted_for_each(
    wanted: Strategy | None, strategy: Strategy, migrated: float, percent: float, key: bytes, plain: bool
) -> None:
    state = State.CANARY if percent else State.BACKFILLING
    view = first_view(strategy=strategy, migrated=migrated, percent=percent, state=state)
    if adapts_every(view, wanted):
        assert choose_way(view, wanted, Request("new", key, plain, texts=False)) == "adapt"
    assert adapts_every(view, "adapt")
    assert adapts_every(first_view(strategy="adapt", migrated=migrated), None)


def test_a_header_names_a_strategy_or_is_refused() -> None:
    assert read_wanted({}, "docs") is None
    assert read_wanted({"x-crossfade-strategy": "legacy-encode"}, "docs") == "legacy-encode"
    with pytest.raises(UnknownStrategy, match="asks for 'best'"):
        read_wanted({"x-crossfade-strategy": "best"}, "docs")


@given(st.binary(), st.floats(0, 100), st.floats(0, 100))
def test_raising_the_share_only_moves_keys_from_the_old_index_to_the_new(key: bytes, one: float, other: float) -> None:
    low, high = sorted((one, other))
    position = find_position("m", key)
    assert 0 <= position < 100
    assert not (low > position and not high > position)
    assert find_position("m", key) == position


def test_positions_are_even_and_differ_between_migrations() -> None:
    keys = [str(number).encode() for number in range(2000)]
    positions = np.array([find_position("m", key) for key in keys])
    assert all(abs((positions < percent).mean() * 100 - percent) < 4 for percent in (10, 50, 90))
    others = np.array([find_position("n", key) for key in keys])
    assert abs(np.corrcoef(positions, others)[0, 1]) < 0.1


def test_a_key_is_the_client_else_its_address_else_the_query() -> None:
    named = {"x-client-id": "é"}
    assert find_key(named, "x-client-id", "10.0.0.1", b"v") == b"client \xc3\xa9"
    assert find_key({}, "x-client-id", "10.0.0.1", b"v") == b"peer 10.0.0.1"
    assert find_key({}, "x-client-id", "127.0.0.1", b"v") == b"query v"
    assert find_key({}, "x-client-id", "::1", b"v") == b"query v"
    assert find_key({}, "x-client-id", "", b"v") == b"query v"
    assert find_key({}, "x-client-id", "127.0.0.1", None) == b"peer 127.0.0.1"


def hits(*pairs: tuple[int, float]) -> list[Hit]:
    return [Hit(point, score, b"") for point, score in pairs]


def brief(found: list[Hit]) -> list[tuple[Any, float]]:
    return [(hit.id, round(hit.score, 6)) for hit in found]


FOUND = Found(hits((1, 0.9), (2, 0.5)), hits((3, 0.1)), hits((3, 0.99), (4, 0.8), (1, 0.7)))


def test_a_probe_asks_for_as_many_candidates_as_the_proxy() -> None:
    assert count_candidates(10) == 10 + MARGIN == CANDIDATES


def test_points_of_both_indexes_are_ranked_by_a_mean_of_both_scores_and_found_once() -> None:
    # Moved: 3 to 0.695, 4 to 0.6, 1 to 0.55, which also stands for the old score of 2; 0.4 of the true score counts.
    assert brief(merge_search(FOUND, 10, (0.5, 0.2), 0.5, "similarity", 0.4)) == [
        (1, 0.69),
        (4, 0.6),
        (2, 0.53),
        (3, 0.457),
    ]
    assert brief(merge_search(FOUND, 2, (0.5, 0.2), 0.5, "similarity", 0.4)) == [(1, 0.69), (4, 0.6)]


def test_points_with_both_scores_say_how_old_scores_compare() -> None:
    old = hits(*((point, 0.9 - 0.1 * point) for point in range(7)))
    new = hits(*((point, 2 * hit.score - 1) for point, hit in enumerate(old) if point != 3))
    found = Found(new[:2], new[2:], old)
    line = find_line(found, "similarity")
    assert line is not None
    np.testing.assert_allclose(line, (2.0, -1.0))
    assert find_line(FOUND, "similarity") is None
    merged = brief(merge_search(found, 10, line, 0.5, "similarity", 0.4))
    assert merged == [(point, round(0.8 - 0.2 * point, 6)) for point in range(7)]  # 3 as if it were migrated


def test_where_the_new_index_is_trusted_alone_old_scores_only_place_what_it_does_not_hold() -> None:
    assert brief(merge_search(FOUND, 10, (0.5, 0.2), 1.0, "similarity", 1.0)) == [
        (1, 0.9),
        (4, 0.6),
        (2, 0.5),
        (3, 0.1),
    ]


def test_distances_are_compared_as_similarities_and_given_back_as_distances() -> None:
    found = Found(hits((1, 0.1), (2, 0.6)), (), hits((4, 0.2), (5, 0.9)))
    assert not found.falls
    merged = merge_search(found, 10, (1.0, 0.0), 1.0, "distance", 1.0)
    assert brief(merged) == [(1, 0.1), (4, 0.2), (2, 0.6), (5, 0.9)]
    assert brief(cut(merged, 1, 2, 0.6, falls=False)) == [(4, 0.2), (2, 0.6)]
    squares = Found(hits((1, 0.01), (2, 0.36)), (), hits((4, 0.04), (5, 0.81)))
    merged = merge_search(squares, 10, (1.0, 0.0), 1.0, "squared", 1.0)
    assert brief(merged) == [(1, 0.01), (4, 0.04), (2, 0.36), (5, 0.81)]


def test_without_a_sample_both_are_interleaved_by_rank_over_the_size_of_their_parts() -> None:
    found = Found(hits((1, 0.9), (2, 0.5)), (), hits((4, 0.8), (5, 0.7), (6, 0.6), (7, 0.5)))
    merged = merge_search(found, 10, None, 0.25, "similarity", 0.4)
    assert [hit.id for hit in merged] == [4, 5, 1, 6, 7, 2]
    scores = [hit.score for hit in merged]
    assert scores == sorted(scores, reverse=True)
    alone = merge_search(Found((), (), hits((4, 0.8))), 10, None, 0.0, "similarity", 0.4)
    assert brief(alone) == [(4, 0.8)]


def test_a_threshold_an_offset_and_a_limit_cut_the_ranking() -> None:
    ranked = hits((1, 0.9), (2, 0.8), (3, 0.7), (4, 0.6))
    assert brief(cut(ranked, 1, 2, 0.65, falls=True)) == [(2, 0.8), (3, 0.7)]
    assert brief(cut(ranked, 3, 5, 0.65, falls=True)) == []


def test_a_sample_is_of_use_only_where_inner_products_order_hits() -> None:
    rows = unit(np.random.default_rng(0).normal(size=(60, 4)))
    long = np.asarray(rows * 3, np.float32)
    assert build_sample(rows[:19], rows[:19], "cosine") is None
    assert build_sample(rows, rows, "manhattan") is None
    assert build_sample(rows, rows, "euclid") is not None
    assert build_sample(rows, long, "euclid") is None
    cosine, dot = build_sample(long, rows, "cosine"), build_sample(long, rows, "dot")
    assert cosine is not None
    assert dot is not None
    assert cosine.match(rows[:1] * 7, rows[:1]).scale[0] == pytest.approx(1.0, abs=1e-4)
    assert dot.match(rows[:1], rows[:1]).scale[0] == pytest.approx(3.0, abs=1e-4)


async def fail() -> None:
    raise UpstreamDown(upstream="main", address="a", reason="r")


async def answer() -> int:
    return 7


async def test_a_target_that_does_not_answer_rests_and_is_then_tried_by_one_request() -> None:
    now = [100.0]
    patience = Patience(lambda: now[0])
    assert await patience.wait(answer(), 1.0) == 7
    patience.check()
    with pytest.raises(TargetFailed, match="down"):
        await patience.wait(fail(), 1.0)
    with pytest.raises(TargetFailed, match="resting"):
        patience.check()
    now[0] += REST_SECONDS
    patience.check()
    with pytest.raises(TargetFailed, match="resting"):  # the one that tries it has not come back yet
        patience.check()
    assert await patience.wait(answer(), 1.0) == 7
    patience.check()
    with pytest.raises(TargetFailed, match="slow"):
        await patience.wait(asyncio.sleep(60), 0.01)
    with pytest.raises(TargetFailed, match="resting"):
        patience.check()


def test_half_of_a_deadline_is_left_for_the_old_index() -> None:
    assert seconds_to_wait(2.0, None) == 2.0
    assert seconds_to_wait(2.0, "500m") == 0.25
    assert seconds_to_wait(2.0, "10S") == 2.0
    assert seconds_to_wait(2.0, "2000000u") == 1.0
    assert seconds_to_wait(2.0, "soon") == 2.0
