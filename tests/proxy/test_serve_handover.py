"""`crossfade serve --replace`: the new one listens before the old one stops, and no migration moves meanwhile."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pytest
import qdrant_client.grpc as qdrant

from tests.proxy.capture_stage import SETTINGS
from tests.proxy.recording import Recorders
from tests.proxy.serving import START_SECONDS, Serving, is_ready, spawn_serve, start_serving, wait_serving, wait_until
from tests.proxy.toy_adapters import save_toy

SEARCH = qdrant.SearchPoints(collection_name="docs", vector=[0.5] * 24, limit=3).SerializeToString()


@pytest.fixture
def serving(recorders: Recorders, tmp_path: Path) -> Iterator[Serving]:
    save_toy(tmp_path / "adapters" / "new")
    settings = SETTINGS.replace("WRITES", "closed").replace("STATE", str(tmp_path / "state"))
    upstream = f'grpc: "{recorders.grpc.address}", rest: "{recorders.rest.address}"'
    with start_serving(tmp_path, upstream, settings) as serving:
        yield serving


def replace(serving: Serving) -> subprocess.Popen[bytes]:
    """Start the one that takes over."""
    return spawn_serve(serving.config, serving.log.with_name("again.log"), 1, None, "--replace")


def written(serving: Serving) -> str:
    return serving.log.with_name("again.log").read_text(errors="replace")


def test_no_request_fails_while_one_serve_takes_the_place_of_another(serving: Serving, recorded: Recorders) -> None:
    recorded.grpc.answer = lambda call, context: b""
    old, stop, failures, resets = serving.process, threading.Event(), list[str](), list[str]()
    asked = [0, 0]

    def ask_grpc() -> None:
        with serving.channel() as channel:
            call = channel.unary_unary("/qdrant.Points/Search")
            while not stop.is_set():
                asked[0] += 1
                try:
                    call(SEARCH, timeout=20)
                except grpc.RpcError as error:
                    failures.append(str(error))

    def ask_rest() -> None:
        while not stop.is_set():
            asked[1] += 1
            try:  # each on a connection of its own
                httpx.post(f"{serving.rest}/collections/docs/points/query", json={"query": [0.5] * 24}, timeout=20)
            except (httpx.ReadError, httpx.RemoteProtocolError) as error:
                resets.append(repr(error))
            except httpx.HTTPError as error:
                failures.append(repr(error))

    threads = [threading.Thread(target=ask) for ask in (ask_grpc, ask_grpc, ask_rest)]
    for thread in threads:
        thread.start()
    serving.process = replace(serving)
    assert old.wait(START_SECONDS) == 0, written(serving)
    wait_serving(serving, "the new one serves alone")
    before = list(asked)
    wait_until(lambda: all(now > then + 5 for now, then in zip(asked, before, strict=True)), 20, "it answers")
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    # Linux resets what waits to be accepted where a port is closed, unless net.ipv4.tcp_migrate_req is set.
    assert len(resets) <= 1


def test_the_old_one_goes_on_when_the_new_one_ends_before_its_time(serving: Serving) -> None:
    log = serving.log
    wait_until(lambda: "leads with token 1" in log.read_text(), 20, "its controller leads")
    new = replace(serving)
    wait_until(lambda: "another serve takes over" in log.read_text(), 30, "the old one holds still")
    assert httpx.get(f"{serving.admin}/status").status_code == 200
    new.kill()
    new.wait()
    wait_until(lambda: "leads with token 2" in log.read_text(), 30, "its controller leads again")
    assert is_ready(serving)
    assert serving.process.poll() is None


def test_with_nobody_to_replace_it_serves_all_the_same(serving: Serving) -> None:
    serving.end()
    serving.process = replace(serving)
    wait_serving(serving, "it serves")


def test_two_do_not_open_one_embedded_database(tmp_path: Path) -> None:
    config = tmp_path / "crossfade.yaml"
    config.write_text(
        "listen: {qdrant: {grpc: '127.0.0.1:1', rest: '127.0.0.1:2'}, admin: '127.0.0.1:3'}\n"
        "upstreams: {main: {kind: qdrant, embedded: ./data}}\n"
    )
    process = spawn_serve(config, tmp_path / "log", 1, None, "--replace")
    assert process.wait(START_SECONDS) == 1
    log = (tmp_path / "log").read_text()
    assert "upstreams.main.embedded: is opened by one serve alone; end that first, without --replace" in log


def test_a_page_of_another_origin_cannot_hold_migrations_still(serving: Serving) -> None:
    answer = httpx.post(f"{serving.admin}/handover", content=b"{}", headers={"content-type": "text/plain"})
    assert answer.status_code == 415
