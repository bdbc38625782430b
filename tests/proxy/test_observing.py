"""Observed queries: their mean and covariance are those of what was sent, in one process, in several, and after all."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import numpy as np
import pytest
from starlette.responses import JSONResponse, Response

from crossfade.adapters.base import Float32, StoreError
from crossfade.adapters.fingerprint import fit_fingerprint
from crossfade.adapters.observe import QueryStatistics
from crossfade.proxy.observing import ROWS, Key, Observer, Sighting, count_observed, read_observed
from crossfade.proxy.routing import Space
from tests.proxy.recording import Recorders
from tests.proxy.serving import Serving, start_serving, wait_until
from tests.proxy.toy_adapters import NEW, save_toy, toy_vectors

SPACE = Space("docs", "", "old", "new", None, {"new": 6}, {}, {})
KEY = Key("docs", "", "new")


def vectors(count: int, dim: int = 6, seed: int = 0) -> Float32:
    drawn: Float32 = np.random.default_rng(seed).normal(1, 2, (count, dim)).astype(np.float32)
    return drawn


def watch(observer: Observer, rows: Float32, space: Space = SPACE) -> None:
    for row in rows:
        observer.see(space, "new", row[None])
    observer.settle(observer.take())


def assert_are(found: QueryStatistics | None, rows: Float32) -> None:
    assert found is not None
    assert found.count == len(rows)
    np.testing.assert_allclose(found.mean, rows.mean(axis=0, dtype=np.float64), atol=1e-9)
    np.testing.assert_allclose(found.covariance, np.cov(rows.astype(np.float64), rowvar=False), atol=1e-8)


def test_workers_side_by_side_are_merged(tmp_path: Path) -> None:
    first, second = Observer(tmp_path), Observer(tmp_path)
    rows = vectors(200)
    watch(first, rows[:90])
    watch(second, rows[90:])
    first.close()
    second.close()
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
    assert_are(read_observed(tmp_path, KEY, 6), rows)
    assert count_observed(tmp_path) == {KEY: 200}


def test_a_worker_that_starts_again_goes_on_with_its_file(tmp_path: Path) -> None:
    rows = vectors(200)
    for part in (rows[:90], rows[90:]):
        observer = Observer(tmp_path)
        watch(observer, part)
        observer.close()
    assert len(list(tmp_path.glob("*.safetensors"))) == 1
    assert_are(read_observed(tmp_path, KEY, 6), rows)


def test_of_many_queries_few_are_looked_at_and_their_mean_is_still_the_mean(tmp_path: Path) -> None:
    observer = Observer(tmp_path)
    rows = vectors(20_000) + np.linspace(0, 5, 20_000, dtype=np.float32)[:, None]  # drifting within the second
    for row in rows:
        observer.see(SPACE, "new", row[None])
    taken = observer.take()
    assert len(taken) == 256
    found = np.concatenate([one.rows for one in taken])
    np.testing.assert_allclose(found.mean(axis=0), rows.mean(axis=0), atol=5 * 2.5 / np.sqrt(len(taken)))


def test_what_is_seen_is_a_copy_of_a_few_rows(tmp_path: Path) -> None:
    observer = Observer(tmp_path)
    rows = vectors(5_000)
    observer.see(SPACE, "new", rows)
    rows[:] = 0
    (seen,) = observer.take()
    np.testing.assert_array_equal(seen.rows, vectors(5_000)[:ROWS])


def test_vectors_that_look_like_another_models_are_left_out(tmp_path: Path) -> None:
    own, other = toy_vectors(1, 400, NEW), toy_vectors(7, 400, NEW)
    known = {NEW: {"new": fit_fingerprint(own), "other": fit_fingerprint(other)}}
    space = Space("docs", "", "old", "new", None, {"new": NEW}, {}, known)
    observer = Observer(tmp_path)
    observer.settle([Sighting(space, "new", own[:50]), Sighting(space, "new", other[:50])])
    observer.close()
    assert_are(read_observed(tmp_path, KEY, NEW), own[:50])


def test_a_model_that_changed_its_dimension_starts_anew(tmp_path: Path) -> None:
    observer = Observer(tmp_path)
    watch(observer, vectors(50))
    watch(observer, vectors(30, dim=4))
    observer.close()
    assert read_observed(tmp_path, KEY, 6) is None
    assert_are(read_observed(tmp_path, KEY, 4), vectors(30, dim=4))


def test_old_traffic_gives_way_to_new(tmp_path: Path) -> None:
    observer = Observer(tmp_path)
    observer.settle([Sighting(SPACE, "new", np.zeros((150_000, 6), np.float32))])
    observer.settle([Sighting(SPACE, "new", np.ones((100_000, 6), np.float32))])
    observer.close()
    found = read_observed(tmp_path, KEY, 6)
    assert found is not None
    np.testing.assert_allclose(found.mean, 0.5)


def test_a_folder_that_cannot_be_written_is_told_once_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "state").write_text("a file where the folder should be")
    observer = Observer(tmp_path / "state")
    watch(observer, vectors(3))
    watch(observer, vectors(3))
    observer.close()
    assert [record.message for record in caplog.records if "not observed" in record.message] == [
        f"queries are not observed in {tmp_path / 'state'}: [Errno 17] File exists: '{tmp_path / 'state'}'"
    ]


def test_a_damaged_file_is_refused_by_readers_and_replaced_by_workers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "queries-0.safetensors").write_bytes(b"not this")
    with pytest.raises(StoreError, match=r"queries-0\.safetensors holds no observed queries .*remove it"):
        read_observed(tmp_path, KEY, 6)
    assert count_observed(tmp_path) == {}
    observer = Observer(tmp_path)
    watch(observer, vectors(5))
    observer.close()
    assert_are(read_observed(tmp_path, KEY, 6), vectors(5))


SETTINGS = """
models: {old: {dim: 16}, new: {dim: 24}}
collections: {docs: {index_model: old, query_model: new, adapters: {new: adapters/new}}}
detect: {observe: %s}
"""


def ask(serving: Serving, rows: Float32) -> None:
    with httpx.Client(base_url=serving.rest) as client:
        for row in rows:
            answer = client.post("/collections/docs/points/search", json={"vector": row.tolist(), "limit": 3})
            assert answer.status_code == 200, answer.text


def test_the_mean_of_a_running_crossfade_is_that_of_the_queries_it_served(recorded: Recorders, tmp_path: Path) -> None:
    rows = toy_vectors(1, 60, NEW)
    save_toy(tmp_path / "adapters" / "new")
    upstream = f'grpc: "{recorded.grpc.address}", rest: "{recorded.rest.address}"'
    for part in (rows[:25], rows[25:]):  # the second start goes on where the first one stopped
        with start_serving(tmp_path, upstream, SETTINGS % "true", workers=2) as serving:
            ask(serving, part)
            recorded.rest.answer = lambda call: JSONResponse({"status": {"error": "no"}}, 400)
            with httpx.Client(base_url=serving.rest) as client:
                refused = client.post("/collections/docs/points/search", json={"vector": rows[0].tolist(), "limit": 3})
            assert refused.status_code == 400  # what the database refuses is no query
            recorded.rest.answer = lambda call: Response(json.dumps({"result": []}), 200, media_type="application/json")
            so_far = 25 if len(part) == 25 else 60
            shown = [{"collection": "docs", "field": "", "model": "new", "queries": so_far}]
            wait_until(lambda: serving.status()["observed"] == shown, 20, f"/status shows {shown}")  # noqa: B023  # called here
    assert_are(read_observed(tmp_path / ".crossfade", KEY, NEW), rows)


def test_nothing_is_observed_where_the_configuration_says_so(recorded: Recorders, tmp_path: Path) -> None:
    save_toy(tmp_path / "adapters" / "new")
    upstream = f'grpc: "{recorded.grpc.address}", rest: "{recorded.rest.address}"'
    with start_serving(tmp_path, upstream, SETTINGS % "false") as serving:
        ask(serving, toy_vectors(1, 5, NEW))
    assert not (tmp_path / ".crossfade").exists()


def test_above_1024_dimensions_the_mean_alone_is_kept_and_written(tmp_path: Path) -> None:
    observer = Observer(tmp_path)
    rows = vectors(30, dim=1_025)
    watch(observer, rows)
    observer.close()
    found = read_observed(tmp_path, KEY, 1_025)
    assert found is not None
    assert (found.count, found.has_spread) == (30, False)
    np.testing.assert_allclose(found.mean, rows.mean(axis=0, dtype=np.float64), atol=1e-7)
    assert sum(path.stat().st_size for path in tmp_path.glob("*.safetensors")) < 20_000
