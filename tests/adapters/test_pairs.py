"""Pairs: what is refused, what is dropped, how files are read."""

from pathlib import Path

import numpy as np
import pytest

from crossfade.adapters.base import Float32, PairsError
from crossfade.adapters.pairs import agreement, make_pairs, read_pairs
from crossfade.adapters.vectors import unit_rows

from .vector_pack import pack_vectors


def good_pairs(count: int = 200, source_dim: int = 16, target_dim: int = 24) -> tuple[Float32, Float32]:
    rng = np.random.default_rng(0)
    meaning = rng.normal(size=(count, 8))
    return unit_rows(meaning @ rng.normal(size=(8, source_dim))), unit_rows(meaning @ rng.normal(size=(8, target_dim)))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused_by_row(value: float) -> None:
    source, target = good_pairs()
    target[[3, 7], 2] = value
    with pytest.raises(PairsError, match=r"2 of 200 target vectors have NaN or infinite values \(rows 3, 7\)"):
        make_pairs(source, target)


def test_zero_vectors_are_refused_by_row() -> None:
    source, target = good_pairs()
    source[[0, 1, 2, 3, 4, 9]] = 0
    with pytest.raises(PairsError, match=r"6 of 200 source vectors are zero \(rows 0, 1, 2, 3, 4, \.\.\.\)"):
        make_pairs(source, target)


def test_duplicated_pairs_are_dropped_and_counted_in_the_order_given() -> None:
    source, target = good_pairs()
    twice = np.r_[np.arange(200), [5, 5, 9]]
    pairs = make_pairs(source[twice], target[twice])
    assert (len(pairs), pairs.dropped) == (200, 3)
    np.testing.assert_array_equal(pairs.rows, np.arange(200))


def test_the_same_source_with_another_target_is_another_pair() -> None:
    source, target = good_pairs()
    source[1] = source[0]
    assert len(make_pairs(source, target)) == 200


def test_swapped_models_are_named_as_such() -> None:
    source, target = good_pairs()
    with pytest.raises(PairsError, match=r"16 -> 24 dimensions, the models 24 -> 16; they look swapped"):
        make_pairs(source, target, source_dim=24, target_dim=16)
    with pytest.raises(PairsError, match=r"the models 16 -> 32$"):
        make_pairs(source, target, source_dim=16, target_dim=32)


def test_shuffled_pairs_are_detected() -> None:
    source, target = good_pairs()
    with pytest.raises(PairsError, match="these pairs look shuffled"):
        make_pairs(source, np.random.default_rng(1).permutation(target))
    assert len(make_pairs(source, np.random.default_rng(1).permutation(target), check_order=False)) == 200


def test_one_side_all_alike_looks_shuffled_instead_of_passing() -> None:
    source, target = good_pairs()
    target[:] = target[0]
    with np.errstate(invalid="ignore"), pytest.raises(PairsError, match="these pairs look shuffled"):
        make_pairs(source, target)


@pytest.mark.parametrize("collection", ["scifact", "med", "wordnet"])
def test_real_models_agree_where_rows_match_and_not_when_shifted_by_one(collection: str) -> None:
    old, new = (pack_vectors(collection, "docs", model)[:1000] for model in ("minilm-l6", "e5-small"))
    assert agreement(new, old) > 0.5
    with pytest.raises(PairsError, match="shuffled"):
        make_pairs(new[1:], old[:-1])


def test_too_few_or_unequal_or_misshapen_pairs_are_refused() -> None:
    source, target = good_pairs()
    with pytest.raises(PairsError, match="19 different pairs"):
        make_pairs(source[:19], target[:19])
    with pytest.raises(PairsError, match="200 source and 150 target"):
        make_pairs(source, target[:150])
    with pytest.raises(PairsError, match=r"expected \(n, dim\)"):
        make_pairs(source[0], target[0])


def test_unit_targets_are_recognised_also_after_float16() -> None:
    source, target = good_pairs()
    assert make_pairs(source, target.astype(np.float16)).unit
    assert not make_pairs(source, target * 3).unit
    assert make_pairs(source, target * 3).turned().unit


def test_every_file_form_gives_the_same_pairs(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow", reason="parquet pairs need pyarrow")
    import pyarrow.parquet as parquet

    source, target = good_pairs()
    np.save(tmp_path / "new.npy", source)
    np.save(tmp_path / "old.npy", target)
    np.savez(tmp_path / "pairs.npz", source=source, target=target)
    parquet.write_table(arrow.table({"source": list(source), "target": list(target)}), tmp_path / "pairs.parquet")
    for pairs in (
        read_pairs(tmp_path / "new.npy", tmp_path / "old.npy"),
        read_pairs(tmp_path / "pairs.npz"),
        read_pairs(tmp_path / "pairs.parquet"),
    ):
        np.testing.assert_array_equal(pairs.source, source)
        np.testing.assert_array_equal(pairs.target, target)


def test_files_that_do_not_fit_are_named(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow", reason="parquet pairs need pyarrow")
    import pyarrow.parquet as parquet

    source, _ = good_pairs()
    np.save(tmp_path / "new.npy", source)
    np.savez(tmp_path / "pairs.npz", new=source)
    parquet.write_table(
        arrow.table({"source": [[1.0, 2.0], [1.0]], "target": [[1.0], [2.0]]}), tmp_path / "ragged.parquet"
    )
    (tmp_path / "broken.npy").write_bytes(b"not an array")
    for path, other, message in (
        ("gone.npz", None, "gone.npz is missing"),
        ("new.npy", None, "holds one side"),
        ("broken.npy", "new.npy", "not a .npy array"),
        ("pairs.npz", None, "has no source and no target: it has new"),
        ("ragged.parquet", None, "unequal length"),
    ):
        with pytest.raises(PairsError, match=message):
            read_pairs(tmp_path / path, None if other is None else tmp_path / other)
