"""Adapters on disk: a round trip, every check on load, atomic replacement."""

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pytest

from crossfade.adapters.base import Adapter, Card, Map, PairsCard, StoreError
from crossfade.adapters.calibrate import fit_calibration
from crossfade.adapters.fingerprint import fit_fingerprint
from crossfade.adapters.linear import fit_linear
from crossfade.adapters.local import fit_local
from crossfade.adapters.lowrank import fit_low_rank
from crossfade.adapters.residual import fit_residual
from crossfade.adapters.store import CARD, TENSORS, load_adapter, save_adapter

RNG = np.random.default_rng(0)
SOURCE = RNG.normal(size=(200, 8)).astype(np.float32)
TARGET = RNG.normal(size=(200, 12)).astype(np.float32)


def make_adapter(query: Map | None = None, *, seed: int = 0) -> Adapter:
    fitted = fit_linear(SOURCE, TARGET)
    card = Card("new", "old", 8, 12, "linear", PairsCard(200, "test", 0.5), settings={"ridge": 0.1}, seed=seed)
    return Adapter(card, query or fitted, fitted, fit_linear(TARGET, SOURCE))


def edit_card(path: Path, **changes: object) -> None:
    card = orjson.loads((path / CARD).read_bytes())
    (path / CARD).write_bytes(orjson.dumps(card | changes))


BASE = fit_linear(SOURCE, TARGET)
LOCAL = fit_local(BASE, SOURCE, TARGET, clusters=4)
KINDS: list[Map] = [
    BASE,
    fit_low_rank(SOURCE, TARGET, rank=3),
    LOCAL,
    fit_residual(BASE, SOURCE, TARGET),
    fit_residual(LOCAL, SOURCE, TARGET),
]


@pytest.mark.parametrize("query", KINDS, ids=lambda fitted: fitted.kind)
def test_every_kind_of_map_comes_back_as_it_was(tmp_path: Path, query: Map) -> None:
    adapter = make_adapter(query)
    save_adapter(adapter, tmp_path / "a")
    loaded = load_adapter(tmp_path / "a", source_model="new", target_model="old")
    assert loaded.card == adapter.card
    np.testing.assert_array_equal(loaded.query.apply(SOURCE), query.apply(SOURCE))
    np.testing.assert_array_equal(loaded.reverse.apply(TARGET), adapter.reverse.apply(TARGET))


def test_calibration_and_fingerprints_come_back(tmp_path: Path) -> None:
    scores = np.sort(RNG.random(100))
    prints = {"team/new": fit_fingerprint(RNG.normal(size=(300, 8)).astype(np.float32))}
    adapter = replace(make_adapter(), calibration=fit_calibration(scores, scores**2), fingerprints=prints)
    save_adapter(adapter, tmp_path / "a")
    loaded = load_adapter(tmp_path / "a")
    assert loaded.calibration is not None
    assert adapter.calibration is not None
    assert loaded.calibration.apply(0.4) == adapter.calibration.apply(0.4)
    np.testing.assert_array_equal(loaded.fingerprints["team/new"].distance(SOURCE), prints["team/new"].distance(SOURCE))


def test_arrays_that_two_maps_share_are_stored_and_held_once(tmp_path: Path) -> None:
    fitted = fit_residual(BASE, SOURCE, TARGET)
    save_adapter(replace(make_adapter(fitted), document=fitted.recentred(BASE, SOURCE[0])), tmp_path / "a")
    loaded = load_adapter(tmp_path / "a")
    assert loaded.query.arrays()["keys"] is loaded.document.arrays()["keys"]
    assert not np.array_equal(loaded.query.arrays()["centre"], loaded.document.arrays()["centre"])


def test_other_models_are_refused_and_swapped_ones_are_named(tmp_path: Path) -> None:
    save_adapter(make_adapter(), tmp_path / "a")
    with pytest.raises(StoreError, match="maps from 'new', the configuration needs 'other'"):
        load_adapter(tmp_path / "a", source_model="other")
    with pytest.raises(StoreError, match="maps into 'old', the configuration needs 'other'"):
        load_adapter(tmp_path / "a", source_model="new", target_model="other")
    with pytest.raises(StoreError, match="swapped"):
        load_adapter(tmp_path / "a", source_model="old", target_model="new")


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"card.json is missing"):
        load_adapter(tmp_path / "nowhere")
    save_adapter(make_adapter(), tmp_path / "a")
    (tmp_path / "a" / TENSORS).unlink()
    with pytest.raises(StoreError, match=r"adapter.safetensors is missing"):
        load_adapter(tmp_path / "a")


def test_a_single_flipped_byte_is_found(tmp_path: Path) -> None:
    save_adapter(make_adapter(), tmp_path / "a")
    data = bytearray((tmp_path / "a" / TENSORS).read_bytes())
    data[-5] ^= 1
    (tmp_path / "a" / TENSORS).write_bytes(data)
    with pytest.raises(StoreError, match=r"corrupt: its SHA-256 is [0-9a-f]{64}, the card says [0-9a-f]{64}"):
        load_adapter(tmp_path / "a")


def test_cards_of_another_format_broken_or_incomplete_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a"
    save_adapter(make_adapter(), path)
    good = (path / CARD).read_bytes()
    edit_card(path, format=99)
    with pytest.raises(StoreError, match="has format 99, this version reads 1"):
        load_adapter(path)
    (path / CARD).write_bytes(good)
    edit_card(path, source_dim=9)
    with pytest.raises(StoreError, match="from 8 to 12 dimensions, the card says 9 to 12"):
        load_adapter(path)
    (path / CARD).write_bytes(good)
    edit_card(path, maps={})
    with pytest.raises(StoreError, match="incomplete"):
        load_adapter(path)
    (path / CARD).write_bytes(good.replace(b'"kind": "linear"', b'"kind": "future"'))
    with pytest.raises(StoreError, match="unknown map kind 'future'"):
        load_adapter(path)
    (path / CARD).write_bytes(b"{")
    with pytest.raises(StoreError, match="is not JSON"):
        load_adapter(path)


def test_values_that_are_not_finite_are_never_written(tmp_path: Path) -> None:
    bad = replace(BASE, bias=np.full(12, np.nan, np.float32))
    with pytest.raises(StoreError, match=r"query.bias has NaN"):
        save_adapter(make_adapter(bad), tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_of_something_else_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("keep")
    with pytest.raises(StoreError, match="is not an adapter"):
        save_adapter(make_adapter(), tmp_path)
    assert (tmp_path / "precious.txt").read_text() == "keep"


def test_readers_see_a_whole_adapter_while_it_is_being_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a"
    save_adapter(make_adapter(seed=-1), path)
    done = threading.Event()

    def replace_often() -> None:
        for seed in range(60):
            save_adapter(make_adapter(seed=seed), path)
        done.set()

    writer = threading.Thread(target=replace_often)
    writer.start()
    seen = set()
    while not done.is_set():
        seen.add(load_adapter(path).card.seed)
    writer.join()
    assert load_adapter(path).card.seed == 59
    assert len(seen) > 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]
