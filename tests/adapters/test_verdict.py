"""The recommendation by its rules, on tables made by hand, and its strategies, on spaces whose map is known."""

from __future__ import annotations

import numpy as np
import pytest

from crossfade.adapters.base import Float32, Map, PairsError
from crossfade.adapters.evaluate import NAIVE, ORACLE, STATUS_QUO
from crossfade.adapters.linear import fit_linear
from crossfade.adapters.merge import fit_matcher
from crossfade.adapters.scene import Scene, neighbours_as_truth
from crossfade.adapters.strategies import ADAPTED, CROSSFADE, LEGACY, SHARES, Strategy, measure_strategies, weigh
from crossfade.adapters.vectors import unit_rows
from crossfade.adapters.verdict import (
    Gap,
    Recommendation,
    Standing,
    Tolerance,
    Truth,
    Verdict,
    compare,
    decide,
    queries_needed,
    stand,
)


def gap(mean: float, half: float = 0.005) -> Gap:
    return Gap(mean, mean - half, mean + half, 0.01)


def line(name: str, against: Gap | None) -> Standing:
    return Standing(name, 0.0, 300, 0.5, 0.45, 0.55, 1.0, against)


def verdict(
    adapted: Gap | None, oracle: Gap | None, *, truth: Truth = Truth.JUDGED, can_encode_old: bool = False
) -> Verdict:
    return decide((line(ADAPTED, adapted), line(ORACLE, oracle)), truth, can_encode_old=can_encode_old)


@pytest.mark.parametrize(
    ("adapted", "oracle", "can_encode_old", "expected"),
    [
        (gap(0.05), gap(0.10), False, Recommendation.FLIP_NOW),
        (gap(-0.014), gap(0.10), True, Recommendation.FLIP_NOW),  # its low end is within the accepted loss
        (gap(-0.08), gap(0.10), True, Recommendation.ENCODE_OLD),
        (gap(-0.08), gap(0.10), False, Recommendation.AFTER),
        (gap(0.05), gap(-0.05), True, Recommendation.DO_NOT),
        (gap(0.00), gap(0.003), True, Recommendation.DO_NOT),  # certainly no gain worth a re-encode
        (gap(0.00), gap(0.02, half=0.03), True, Recommendation.NOT_SURE),
    ],
)
def test_each_rule_has_its_recommendation(
    adapted: Gap, oracle: Gap, can_encode_old: bool, expected: Recommendation
) -> None:
    assert verdict(adapted, oracle, can_encode_old=can_encode_old).recommendation is expected


def test_not_sure_says_how_many_queries_would_settle_it() -> None:
    found = verdict(gap(0.0), gap(0.02, half=0.04))  # half as wide needs four times as many: 900 more than the 300
    assert found.sentence == "not sure: 900 more judged queries needed"


@pytest.mark.parametrize("truth", [Truth.JUDGED, Truth.KNOWN_ITEMS])
def test_without_a_status_quo_nothing_is_recommended(truth: Truth) -> None:
    found = verdict(None, None, truth=truth)
    assert found.recommendation is Recommendation.NOT_SURE
    assert "the status quo is not known" in found.reasons[0]
    assert found.more_queries > 0


def test_the_new_models_neighbours_never_speak_for_the_new_model() -> None:
    found = verdict(gap(0.5), gap(0.9), truth=Truth.NEIGHBOURS)
    assert found.recommendation is Recommendation.NOT_SURE


def test_an_adapted_loss_that_may_be_none_is_not_trusted_but_says_what_would_show_it() -> None:
    found = verdict(gap(0.0, half=0.04), gap(0.1))
    assert found.recommendation is Recommendation.AFTER
    assert found.more_queries == 900
    assert "900 more judged queries could show that the flag may be flipped now" in found.reasons[1]


def test_the_tolerance_is_the_operators() -> None:
    table = (line(ADAPTED, gap(-0.08)), line(ORACLE, gap(0.1)))
    lenient = decide(table, Truth.JUDGED, can_encode_old=False, tolerance=Tolerance(loss=0.1))
    demanding = decide(table, Truth.JUDGED, can_encode_old=False, tolerance=Tolerance(gain=0.2))
    assert lenient.recommendation is Recommendation.FLIP_NOW
    assert demanding.recommendation is Recommendation.DO_NOT


def test_a_table_without_oracle_is_refused() -> None:
    with pytest.raises(PairsError, match="needs adapted and oracle"):
        decide((line(ADAPTED, gap(0)),), Truth.JUDGED, can_encode_old=True)
    with pytest.raises(PairsError, match="needs the oracle"):
        stand((Strategy(ADAPTED, 0.0, np.ones(3)),))


def test_more_queries_are_needed_the_nearer_the_boundary() -> None:
    needed = [queries_needed(gap(0.0, half=0.04), 300, distance) for distance in (0.08, 0.04, 0.02, 0.01, 0.0)]
    assert needed == [1, 1, 900, 4500, 1_000_000 - 300]


def test_standings_are_the_strategies_means_and_their_paired_gaps() -> None:
    chance = np.random.default_rng(0)
    old, new = chance.random(400), chance.random(400)
    quo, oracle = Strategy(STATUS_QUO, 0.0, old), Strategy(ORACLE, 1.0, np.minimum(1, old + 0.2))
    table = stand((quo, Strategy(ADAPTED, 0.0, new), oracle))
    assert [one.ndcg10 for one in table] == pytest.approx([old.mean(), new.mean(), oracle.mean])
    assert table[0].against == Gap(0.0, 0.0, 0.0, 1.0)
    assert table[2].against == compare(oracle, quo)
    assert all(one.low < one.ndcg10 < one.high for one in table)
    assert table[2].of_oracle == 1


def turned_scene(*, old_queries: bool, noise: float = 0.0) -> tuple[Scene, np.ndarray, np.ndarray]:
    """An old space that is the new one turned, and noise; each query should find the document it is nearest to."""
    chance = np.random.default_rng(3)
    new = unit_rows(chance.normal(size=(600, 16)).astype(np.float32))
    turn = np.linalg.qr(chance.normal(size=(16, 16)))[0].astype(np.float32)
    old = unit_rows((new @ turn + noise * chance.normal(size=new.shape)).astype(np.float32))
    asked = unit_rows(new[:100] + 0.05 * chance.normal(size=(100, 16)).astype(np.float32))
    before = unit_rows(asked @ turn) if old_queries else None
    return Scene(old, new, asked, before, neighbours_as_truth(asked, new)), new, old


def measured(scene: Scene, fitted: Map, new: Float32, old: Float32) -> tuple[Strategy, ...]:
    """Every strategy with one map at all shares."""
    weighed = weigh(scene, [fitted] * len(SHARES), fit_matcher(new, old))
    return measure_strategies(scene, fitted, weighed)


def test_where_the_spaces_are_one_turned_every_strategy_but_the_naive_one_is_the_oracle() -> None:
    scene, new, old = turned_scene(old_queries=True)
    found = measured(scene, fit_linear(new, old, ridge=1e-6), new, old)
    assert {one.name for one in found} == {STATUS_QUO, NAIVE, ADAPTED, CROSSFADE, LEGACY, ORACLE}
    for one in found:
        assert one.mean == pytest.approx(1.0, abs=2e-3) if one.name != NAIVE else one.mean < 0.5


def test_the_more_is_re_encoded_the_nearer_crossfade_comes_to_the_oracle() -> None:
    scene, new, old = turned_scene(old_queries=False, noise=0.15)
    found = measured(scene, fit_linear(new, old, ridge=0.1), new, old)
    means = {(one.name, one.migrated): one.mean for one in found}
    assert STATUS_QUO not in {one.name for one in found}
    assert LEGACY not in {one.name for one in found}
    assert means[ADAPTED, 0.0] < means[CROSSFADE, 0.9] < means[ORACLE, 1.0]
    assert means[CROSSFADE, 0.1] < means[CROSSFADE, 0.9]


def test_new_queries_of_another_length_find_nothing_in_the_old_index() -> None:
    scene, new, old = turned_scene(old_queries=False)
    cut = Scene(unit_rows(old[:, :8]), new, scene.new_queries, None, scene.judgements)
    fitted = fit_linear(new, cut.old_documents, ridge=0.1)
    found = measured(cut, fitted, new, cut.old_documents)
    assert {one.name: one.mean for one in found}[NAIVE] == 0
