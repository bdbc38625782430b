"""A running Crossfade whose configuration changes, whose database goes away, whose workers are killed, and its end."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from qdrant_client import grpc as qdrant

from tests.proxy.recording import GrpcCall, Recorders
from tests.proxy.serving import Channel, Serving, descendants, start_serving, wait_until
from tests.proxy.toy_adapters import NEW, OLD, save_toy, toy_vectors

SETTINGS = """
models: {old: {dim: 16}, new: {dim: 24}}
collections:
  docs: {index_model: old, query_model: new, adapters: {new: adapters/new}}
"""
SEARCH = "/qdrant.Points/Search"
MAPPED = qdrant.SearchPoints(collection_name="docs", vector=toy_vectors(1, 1, NEW)[0].tolist(), limit=1)
BODY = MAPPED.SerializeToString()
QUERY = json.dumps({"query": toy_vectors(1, 1, NEW)[0].tolist()}).encode()


@contextmanager
def serving_two(directory: Path, recorders: Recorders) -> Iterator[Serving]:
    save_toy(directory / "adapters" / "new")
    upstream = f'grpc: "{recorders.grpc.address}", rest: "{recorders.rest.address}"'
    with start_serving(directory, upstream, SETTINGS, workers=2) as serving:
        yield serving


@pytest.fixture(scope="module")
def upstream() -> Iterator[Recorders]:
    recorders = Recorders.start()
    yield recorders
    recorders.stop()


@pytest.fixture(scope="module")
def running(upstream: Recorders, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving_two(tmp_path_factory.mktemp("lifecycle"), upstream) as serving:
        yield serving


class Load:
    """Requests of every kind, one after the other, on threads of their own, until told to stop."""

    def __init__(self, serving: Serving) -> None:
        self.failures: list[str] = []
        self.done = 0
        self._stopping = threading.Event()
        kinds = (self._adapted_grpc, self._native_grpc, self._adapted_rest)
        self._threads = [threading.Thread(target=kind, args=(serving,)) for kind in kinds]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _repeat(self, ask: Callable[[], None]) -> None:
        while not self._stopping.is_set():
            try:
                ask()
                self.done += 1
            except Exception as error:
                self.failures.append(repr(error)[:500])
            time.sleep(0.002)

    def _adapted_grpc(self, serving: Serving) -> None:
        with serving.channel() as channel:
            self._repeat(lambda: channel.unary_unary(SEARCH)(BODY, timeout=10))

    def _native_grpc(self, serving: Serving) -> None:
        with serving.channel() as channel:
            self._repeat(lambda: channel.unary_unary("/qdrant.Points/Count")(b"\x0a\x04docs", timeout=10))

    def _adapted_rest(self, serving: Serving) -> None:
        headers = {"content-type": "application/json"}
        with httpx.Client(base_url=serving.rest, timeout=10) as client:
            self._repeat(
                lambda: (
                    client.post("/collections/docs/points/query", content=QUERY, headers=headers)
                    .raise_for_status()
                    .json()
                )
            )


def test_a_hundred_reloads_under_load_of_which_twenty_are_invalid_fail_no_request(
    running: Serving, upstream: Recorders
) -> None:
    upstream.reset()
    sound = running.config.read_text()
    save_toy(running.config.parent / "adapters" / "other")
    broken = sound.replace("models:", "modles:")
    corrupt = running.config.parent / "adapters" / "corrupt"
    save_toy(corrupt)
    (corrupt / "adapter.safetensors").write_bytes(b"not what the card says")
    generation = running.status()["generation"]
    with Load(running) as load:
        for number in range(100):
            if number % 5 == 4:
                text = broken if number % 10 == 4 else sound.replace("adapters/new", "adapters/corrupt")
            else:
                generation += 1
                text = sound.replace("adapters/new", "adapters/other" if number % 2 else "adapters/new")
                text += f"# {number}\n"
            running.config.write_text(text)
            answer = httpx.post(f"{running.admin}/reload").json()
            assert (answer["problem"] is not None) == (number % 5 == 4), answer
            assert answer["generation"] >= generation
            generation = answer["generation"]
    assert not load.failures
    assert load.done > 1000
    for call in upstream.grpc.calls:
        if call.method == SEARCH:
            assert len(qdrant.SearchPoints.FromString(call.body).vector) == OLD
    running.config.write_text(sound)
    httpx.post(f"{running.admin}/reload")
    status = running.status()
    assert status["last_problem"] is None
    assert [worker["generation"] for worker in status["workers"]] == [status["generation"]] * 2
    assert [worker["error"] for worker in status["workers"]] == [None, None]
    assert [worker["restarts"] for worker in status["workers"]] == [0, 0]


@pytest.mark.parametrize("by", ["file", "SIGHUP"])
def test_a_change_is_taken_up_by_itself_and_an_invalid_one_is_told_everywhere(by: str, running: Serving) -> None:
    sound = running.config.read_text()
    before = running.status()["generation"]
    running.config.write_text(f"{sound}# changed {by}\n")
    if by == "SIGHUP":
        os.kill(running.process.pid, signal.SIGHUP)
    wait_until(lambda: running.status()["generation"] > before, 10, "the new generation")
    wait_until(lambda: "crossfade_config_valid 1.0" in running.metrics(), 10, "valid")
    taken = running.status()["generation"]
    fresh = running.config.with_name("fresh.yaml")  # as editors and Kubernetes replace a file
    fresh.write_text(sound.replace("query_model", "qery_model"))
    fresh.rename(running.config)
    if by == "SIGHUP":
        os.kill(running.process.pid, signal.SIGHUP)
    wait_until(lambda: running.status()["last_problem"] is not None, 10, "the problem in /status")
    problem = running.status()["last_problem"]
    assert "collections.docs.qery_model: is no key Crossfade knows; did you mean 'query_model'?" in problem
    assert running.status()["generation"] == taken
    assert "crossfade_config_valid 0.0" in running.metrics()
    assert "qery_model" in running.written()
    answer = httpx.post(f"{running.admin}/reload")
    assert (answer.status_code, answer.json()["problem"]) == (422, problem)
    with running.channel() as channel:
        assert channel.unary_unary(SEARCH)(BODY, timeout=10) == b""
    running.config.write_text(sound)
    wait_until(lambda: running.status()["last_problem"] is None, 10, "valid again")


def test_a_database_that_is_down_is_told_at_once_and_served_again_when_it_is_back(
    running: Serving, upstream: Recorders
) -> None:
    upstream.reset()
    native, adapted = "/collections/docs/points/count", "/collections/docs/points/query"
    with running.channel() as channel, httpx.Client(base_url=running.rest) as client:

        def ask_grpc(method: str) -> grpc.StatusCode:
            try:
                channel.unary_unary(method)(BODY, timeout=10)
            except grpc.RpcError as error:
                code: grpc.StatusCode = error.code()
                return code
            return grpc.StatusCode.OK

        def ask_rest(path: str) -> int:
            headers = {"content-type": "application/json"}
            answer = client.post(path, content=QUERY, headers=headers)
            if answer.status_code != 200:
                stated = answer.json()
                assert set(stated) == {"status", "time"}
                assert stated["status"]["error"].startswith("crossfade: ")
                assert isinstance(stated["time"], float | int)
            return answer.status_code

        assert {ask_grpc(SEARCH), ask_grpc("/qdrant.Points/Count")} == {grpc.StatusCode.OK}
        assert {ask_rest(native), ask_rest(adapted)} == {200}
        upstream.stop()
        started = time.monotonic()
        assert {ask_grpc(SEARCH), ask_grpc("/qdrant.Points/Count")} == {grpc.StatusCode.UNAVAILABLE}
        assert {ask_rest(native), ask_rest(adapted)} == {503}
        assert time.monotonic() - started < 2
        upstream.grpc.start()
        upstream.rest.start()
        back = wait_until(lambda: ask_grpc(SEARCH) == grpc.StatusCode.OK, 5, "gRPC served again")
        back += wait_until(lambda: ask_rest(adapted) == ask_rest(native) == 200, 5, "REST served again")
        assert ask_grpc("/qdrant.Points/Count") == grpc.StatusCode.OK
        assert back < 2
    counted = 'crossfade_errors_total{kind="upstream_down",operation="Search"}'
    wait_until(lambda: counted in running.metrics(), 5, counted)


def hold_calls(upstream: Recorders) -> tuple[list[GrpcCall], threading.Event]:
    """Let every call wait at the upstream until the event."""
    held: list[GrpcCall] = []
    go = threading.Event()

    def hold(call: GrpcCall, context: grpc.ServicerContext) -> bytes:
        held.append(call)
        go.wait(30)
        return b""

    upstream.grpc.answer = hold
    return held, go


def start_calls(serving: Serving, count: int) -> tuple[list[Channel], list[Any]]:
    """Calls in flight on 20 connections."""
    channels = [serving.channel() for _ in range(20)]
    calls = [channels[at % 20].unary_unary(SEARCH).future(BODY, timeout=60) for at in range(count)]
    return channels, calls


def sample(metrics: str, name: str, **labels: str) -> float:
    """The sum of a metric's samples with these labels."""
    families = text_string_to_metric_families(metrics)
    return sum(
        one.value
        for family in families
        for one in family.samples
        if one.name == name and labels.items() <= one.labels.items()
    )


FOREIGN = qdrant.SearchPoints(collection_name="docs", vector=(-toy_vectors(1, 1, NEW)[0]).tolist(), limit=1)


@pytest.fixture
def sound(running: Serving) -> Iterator[str]:
    """The configuration's text, which is put back afterwards."""
    text = running.config.read_text()
    yield text
    running.config.write_text(text)
    assert httpx.post(f"{running.admin}/reload").json()["problem"] is None


@pytest.mark.parametrize("mode", ["off", "count", "warn", "refuse"])
def test_a_vector_unlike_its_models_is_counted_told_or_refused(
    mode: str, sound: str, running: Serving, upstream: Recorders
) -> None:
    upstream.reset()
    running.config.write_text(f"{sound}detect: {{fingerprint: {mode}}}\n")
    assert httpx.post(f"{running.admin}/reload").json()["problem"] is None
    counted = {"collection": "docs", "model": "new"}
    time.sleep(1.1)  # until the workers have written what they counted before
    before = sample(running.metrics(), "crossfade_foreign_vectors_total", **counted)
    logged = running.written().count("looks like none of the known models")
    codes = []
    with running.channel() as channel:
        for _ in range(40):
            channel.unary_unary(SEARCH)(BODY, timeout=10)  # one that fits
            codes.append(channel.unary_unary(SEARCH).future(FOREIGN.SerializeToString(), timeout=10).code())
    expected = grpc.StatusCode.INVALID_ARGUMENT if mode == "refuse" else grpc.StatusCode.OK
    assert set(codes) == {expected}
    assert len(upstream.grpc.calls) == (40 if mode == "refuse" else 80)
    least = {"off": 0, "count": 1, "warn": 40, "refuse": 40}[mode]
    wait_until(
        lambda: sample(running.metrics(), "crossfade_foreign_vectors_total", **counted) >= before + least, 5, "counts"
    )
    if mode == "off":
        assert sample(running.metrics(), "crossfade_foreign_vectors_total", **counted) == before
    told = running.written().count("looks like none of the known models") - logged
    assert (1 <= told < 20) if mode == "warn" else told == 0


def test_metrics_have_what_an_operator_asks_for(running: Serving, upstream: Recorders) -> None:
    upstream.reset()
    with running.channel() as channel, httpx.Client(base_url=running.rest) as client:
        channel.unary_unary(SEARCH)(BODY, timeout=10)
        client.post("/collections/docs/points/query", content=QUERY, headers={"content-type": "application/json"})
        wrong = qdrant.SearchPoints(collection_name="docs", vector=[1.0]).SerializeToString()
        assert channel.unary_unary(SEARCH).future(wrong).code() == grpc.StatusCode.INVALID_ARGUMENT
    time.sleep(1.1)
    metrics = running.metrics()
    assert httpx.get(f"{running.admin}/metrics").headers["content-type"].startswith("text/plain; version=0.0.4")
    for labels in ({"operation": "Search", "transport": "grpc"}, {"operation": "Query", "transport": "rest"}):
        assert sample(metrics, "crossfade_requests_total", done="adapted", **labels) > 0
    assert sample(metrics, "crossfade_errors_total", operation="Search", kind="wrong_dimension") > 0
    for stage in ("detect", "map", "upstream"):
        assert sample(metrics, "crossfade_stage_seconds_count", stage=stage) > 0
        assert sample(metrics, "crossfade_stage_seconds_bucket", stage=stage, le="+Inf") == sample(
            metrics, "crossfade_stage_seconds_count", stage=stage
        )
    status = running.status()
    assert sample(metrics, "crossfade_config_generation") == status["generation"]
    for worker in ("0", "1"):
        assert sample(metrics, "crossfade_worker_generation", worker=worker) == status["generation"]
    assert sample(metrics, "envoy_cluster_upstream_rq_total", envoy_cluster_name="main-grpc") > 0
    assert sample(metrics, "envoy_server_live", worker="1") == 1


def test_a_killed_worker_fails_only_its_own_calls_with_unavailable_and_is_started_again(
    running: Serving, upstream: Recorders
) -> None:
    upstream.reset()
    counted = {"operation": "Search", "done": "adapted"}
    wait_until(lambda: sample(running.metrics(), "crossfade_requests_total", **counted) > 0, 5, "counts are written")
    time.sleep(1.1)  # what was counted in the last second would be lost
    before = sample(running.metrics(), "crossfade_requests_total", **counted)
    held, go = hold_calls(upstream)
    channels, calls = start_calls(running, 100)
    wait_until(lambda: len(held) == 100, 20, "100 calls in flight")
    first = running.worker_pids()[0]
    os.kill(first, signal.SIGKILL)
    time.sleep(0.3)
    go.set()
    codes = [call.code() for call in calls]
    assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
    wait_until(lambda: None not in running.worker_pids() and first not in running.worker_pids(), 10, "a new worker")
    wait_until(lambda: all("generation" in worker for worker in running.status()["workers"]), 20, "it serves")
    assert sorted(worker["restarts"] for worker in running.status()["workers"]) == [0, 1]
    answered = codes.count(grpc.StatusCode.OK)
    wait_until(
        lambda: sample(running.metrics(), "crossfade_requests_total", **counted) == before + answered,
        5,
        "what the killed worker had counted, and what the other one answered",
    )
    upstream.reset()
    with Load(running) as load:
        time.sleep(0.5)
    assert not load.failures
    for channel in channels:
        channel.close()


def test_sigterm_lets_two_hundred_calls_finish_and_turns_readiness_false_at_once(
    tmp_path: Path, upstream: Recorders
) -> None:
    upstream.reset()
    with serving_two(tmp_path, upstream) as serving:
        held, go = hold_calls(upstream)
        channels, calls = start_calls(serving, 200)
        wait_until(lambda: len(held) == 200, 30, "200 calls in flight")
        pids = serving.worker_pids()
        serving.process.send_signal(signal.SIGTERM)
        turned = wait_until(lambda: httpx.get(f"{serving.admin}/readyz").status_code == 503, 2, "not ready")
        assert turned < 1
        assert httpx.get(f"{serving.admin}/readyz").text == "draining\n"
        assert httpx.get(f"{serving.admin}/healthz").status_code == 200
        assert serving.status()["draining"] is True
        time.sleep(1.5)
        assert serving.process.poll() is None
        go.set()
        assert {call.code() for call in calls} == {grpc.StatusCode.OK}
        assert serving.process.wait(10) == 0
        assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
        for channel in channels:
            channel.close()


def test_a_second_sigterm_ends_at_once(tmp_path: Path, upstream: Recorders) -> None:
    upstream.reset()
    with serving_two(tmp_path, upstream) as serving:
        held, go = hold_calls(upstream)
        channels, calls = start_calls(serving, 20)
        wait_until(lambda: len(held) == 20, 30, "20 calls in flight")
        pids = serving.worker_pids()
        serving.process.send_signal(signal.SIGTERM)
        wait_until(lambda: httpx.get(f"{serving.admin}/readyz").status_code == 503, 2, "draining")
        serving.process.send_signal(signal.SIGTERM)
        started = time.monotonic()
        serving.process.wait(10)
        assert time.monotonic() - started < 5
        assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
        assert {call.code() for call in calls} == {grpc.StatusCode.UNAVAILABLE}
        go.set()
        for channel in channels:
            channel.close()


def test_a_killed_supervisor_leaves_nothing_running(tmp_path: Path) -> None:
    save_toy(tmp_path / "adapters" / "new")
    with start_serving(tmp_path, "embedded: data", SETTINGS) as serving:
        below = descendants(serving.process.pid)
        assert len(below) >= 2  # a worker and the embedded database
        serving.process.kill()
        serving.process.wait()
        wait_until(lambda: not [pid for pid in below if is_alive(pid)], 10, "everything below it has ended")


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that ended and nobody waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
