"""The sample of points in both indexes: which points it keeps, what a restart and a damaged file do to it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from crossfade.backends.dialect import Float32
from crossfade.backends.index import PointId
from crossfade.proxy.migration.machine import State
from crossfade.proxy.migration.sample import MOST, Sampler, read_sample, sample_path
from crossfade.proxy.samples import SampleShelf
from tests.proxy.migration.scenery import Scene


def pairs_of(points: list[PointId], version: int = 0) -> dict[PointId, tuple[Float32, Float32]]:
    """Vectors that say which point and version they are."""
    return {
        point: (np.full(3, hash(point) % 997 + version, np.float32), np.full(2, version, np.float32))
        for point in points
    }


def test_points_in_both_indexes_are_kept_with_their_newest_vectors(tmp_path: Path) -> None:
    path = sample_path(tmp_path, "m")
    assert read_sample(path) is None
    sampler = Sampler(path, "dot")
    sampler.note(pairs_of(list(range(30))), [])
    sampler.note(pairs_of([7, 8], version=5), [3, 4])
    sampler.write()
    found = read_sample(path)
    assert found is not None
    new, old, distance = found
    assert (new.shape, old.shape, distance) == ((28, 3), (28, 2), "dot")
    assert sorted(new[old[:, 0] == 5, 0].tolist()) == [12, 13]


def test_a_large_collection_gives_a_random_part_that_does_not_depend_on_the_order(tmp_path: Path) -> None:
    points: list[PointId] = list(range(5 * MOST))
    kept: list[Float32] = []
    for order in (points, points[::-1]):
        sampler = Sampler(sample_path(tmp_path, str(len(kept))), "cosine")
        for start in range(0, len(order), 700):
            sampler.note(pairs_of(order[start : start + 700]), [])
        sampler.write()
        found = read_sample(sample_path(tmp_path, str(len(kept))))
        assert found is not None
        kept.append(found[0])
    assert len(kept[0]) == MOST
    np.testing.assert_array_equal(kept[0], kept[1])


def test_a_restart_goes_on_with_what_was_kept_and_a_damaged_file_is_made_anew(tmp_path: Path) -> None:
    path = sample_path(tmp_path, "m")
    first = Sampler(path, "cosine")
    first.note(pairs_of(list(range(40))), [])
    assert first.due
    first.write()
    assert not first.due
    second = Sampler(path, "cosine")
    second.note(pairs_of([100]), [1])
    assert not second.due  # two of forty
    second.note(pairs_of(list(range(200, 220))), [])
    assert second.due
    second.write()
    found = read_sample(path)
    assert found is not None
    assert len(found[0]) == 60
    path.write_bytes(b"damaged")
    with pytest.raises(ValueError, match="no sample of a migration"):
        read_sample(path)
    assert not Sampler(path, "cosine").due


def test_few_points_are_not_worth_a_file(tmp_path: Path) -> None:
    sampler = Sampler(sample_path(tmp_path, "m"), "cosine")
    sampler.note(pairs_of(list(range(19))), [])
    assert not sampler.due


def test_workers_read_a_sample_once_and_again_when_it_is_replaced(tmp_path: Path) -> None:
    shelf, path = SampleShelf(), sample_path(tmp_path, "m")
    assert not shelf.is_stale(tmp_path, ["m"])
    assert shelf.load(tmp_path, ["m"]) == {}
    sampler = Sampler(path, "cosine")
    sampler.note(pairs_of(list(range(40))), [])
    sampler.write()
    assert shelf.is_stale(tmp_path, ["m"])
    kept = shelf.load(tmp_path, ["m"])
    assert kept["m"].distance == "cosine"
    assert shelf.load(tmp_path, ["m"])["m"] is kept["m"]
    path.write_bytes(b"damaged")
    assert shelf.load(tmp_path, ["m"]) == {}
    assert not shelf.is_stale(tmp_path, ["m"])


async def test_the_controller_keeps_a_sample_of_what_it_brings_over(scene: Scene, tmp_path: Path) -> None:
    scene.samples = tmp_path
    async with scene.led():
        await scene.until(lambda record: record.state is State.SYNCED)
    found = read_sample(sample_path(tmp_path, scene.id))
    assert found is not None
    new, old, distance = found
    assert len(new) == len(old) >= 240  # written again whenever it has grown by a quarter
    points, _ = await scene.client.scroll(scene.record.spec.target, limit=1000, with_vectors=True)
    stored = np.array([point.vector for point in points], np.float32)
    unit = new / np.linalg.norm(new, axis=1, keepdims=True)
    assert (unit @ stored.T).max(axis=1).min() > 0.9999
    assert distance == "cosine"
