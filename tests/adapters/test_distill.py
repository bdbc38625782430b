import numpy as np
import pytest

from crossfade.adapters.base import Float32, PairsError
from crossfade.adapters.distill import Schedule, fit_distilled, mix_queries
from crossfade.adapters.linear import LinearMap, fit_system
from crossfade.adapters.training import neighbour_overlap
from tests.adapters.vector_pack import pack_vectors


def need_torch() -> None:
    pytest.importorskip("torch", reason="torch is not installed: pip install 'crossfade[train]'")


def turned_spaces() -> tuple[Float32, Float32, Float32, LinearMap]:
    """Queries, documents in two spaces that a rotation joins, and a base map that is off from it."""
    rng = np.random.default_rng(0)
    docs = rng.normal(size=(600, 8)).astype(np.float32)
    turn = np.linalg.qr(rng.normal(size=(8, 8)))[0].astype(np.float32)
    off = (turn + rng.normal(scale=0.15, size=(8, 8))).astype(np.float32)
    queries = rng.normal(size=(300, 8)).astype(np.float32)
    return queries, docs, docs @ turn, LinearMap(off, np.zeros(8, np.float32))


def test_distillation_brings_a_map_that_is_off_nearer_to_the_right_ranking_and_repeats_by_seed() -> None:
    need_torch()
    queries, source, target, base = turned_spaces()
    score = neighbour_overlap(queries[200:], source, target)
    schedule = Schedule(hold=0.0, rate=1e-2, rounds=6, list_size=256)
    first, second = (fit_distilled(queries[:200], source, target, base, score=score, schedule=schedule) for _ in "ab")
    assert 1 - score(first) < 0.6 * (1 - score(base))
    assert np.array_equal(first.weight, second.weight)


def test_holding_keeps_the_map_near_its_base() -> None:
    need_torch()
    queries, source, target, base = turned_spaces()

    def strayed(hold: float) -> float:
        schedule = Schedule(hold=hold, rate=5e-3, rounds=5, patience=5)
        seen: list[LinearMap] = []
        fit_distilled(queries, source, target, base, score=lambda m: seen.append(m) or 0.0, schedule=schedule)  # type: ignore[arg-type,func-returns-value]  # every round is a linear map
        return float(np.abs(seen[-1].weight - base.weight).max())

    assert 0 < strayed(100.0) < 0.5 * strayed(0.0)


def test_the_base_comes_back_where_no_round_retrieves_better() -> None:
    need_torch()
    queries, source, target, base = turned_spaces()
    assert fit_distilled(queries, source, target, base, score=lambda _: 0.0, schedule=Schedule(patience=2)) is base


def test_distilling_on_observed_queries_beats_the_best_linear_map_on_real_data() -> None:
    need_torch()
    source, target = (pack_vectors("scifact", "docs", model)[:2_000] for model in ("e5-small", "minilm-l6"))
    queries = pack_vectors("scifact", "queries", "e5-small")
    observed, choosing, tested = queries[:400], queries[400:600], queries[600:]
    system, score = fit_system(source, target), neighbour_overlap(choosing, source, target)
    maps = [system.fit(ridge) for ridge in (0.3, 1.0, 3.0)]
    means = observed.mean(axis=0), target.mean(axis=0)
    base = max([*maps, *(fitted.recentred(*means) for fitted in maps)], key=score)
    fitted = fit_distilled(
        mix_queries(observed, source), source, target, base, score=score, schedule=Schedule(rounds=5)
    )
    judge = neighbour_overlap(tested, source, target)
    assert judge(fitted) > judge(base) + 0.02


def test_mixed_queries_are_half_observed_and_half_documents_moved_to_where_those_live() -> None:
    rng = np.random.default_rng(1)
    observed: Float32 = (rng.normal(size=(20, 4)) + 3).astype(np.float32)
    documents: Float32 = rng.normal(size=(100, 4)).astype(np.float32)
    mixed = mix_queries(observed, documents)
    assert len(mixed) == 200
    assert np.array_equal(mixed[:20], observed)
    assert np.allclose(mixed[100:].mean(axis=0), observed.mean(axis=0), atol=1e-5)
    assert np.allclose(np.cov(mixed[100:], rowvar=False), np.cov(documents, rowvar=False), atol=1e-4)
    assert np.array_equal(mix_queries(observed[:0], documents), documents)


@pytest.mark.parametrize(
    ("queries", "source", "target", "message"),
    [
        (np.ones((5, 7)), np.ones((40, 8)), np.ones((40, 8)), "do not fit a map 8 -> 8"),
        (np.ones((5, 8)), np.ones((40, 8)), np.ones((39, 8)), "same rows in both spaces"),
        (np.ones((5, 8)), np.ones((9, 8)), np.ones((9, 8)), "5 queries and 9 documents"),
    ],
)
def test_arrays_that_do_not_fit_say_why(queries: Float32, source: Float32, target: Float32, message: str) -> None:
    with pytest.raises(PairsError, match=message):
        fit_distilled(queries, source, target, turned_spaces()[3], score=lambda _: 0.0)
