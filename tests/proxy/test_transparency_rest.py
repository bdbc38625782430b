"""What Crossfade must not touch on REST: bytes, paths, headers, compression, connections, and bodies of any size."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import json
import threading
import time
import zlib
from collections.abc import AsyncIterator, Iterator
from urllib.parse import quote

import httpx
import numpy as np
import pytest
from starlette.responses import Response, StreamingResponse

from crossfade.adapters.base import Adapter
from tests.proxy.recording import Recorders
from tests.proxy.serving import Serving, tree_rss
from tests.proxy.toy_adapters import NEW, OLD, toy_vectors

MIB = 1 << 20
VECTOR = toy_vectors(1, 1, NEW)
QUERY = json.dumps({"query": VECTOR[0].tolist(), "limit": 3}).encode()
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def client(proxy: Serving) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=proxy.rest, timeout=60) as client:
        yield client


def mapped(recorded: Recorders) -> list[float]:
    vector: list[float] = json.loads(recorded.rest.last.body)["query"]
    return vector


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/", b""),
        ("GET", "/collections/docs?x=%7Ea&x=b&empty=", b""),
        ("PUT", "/collections/docs/index?wait=true", b'{ "field_name": "a",  "n": 1.10 }'),
        ("POST", "/collections/elsewhere/points/search", b'{"vector": [1.0, 2.50e0], "limit": 1}'),
        ("POST", "/collections/docs/points/delete", b"not JSON at all \xff\x00"),
        ("DELETE", "/collections/a%2Fb%20c/points/x//y/../z", b""),
        ("PATCH", "/anything/new", b"x" * 100_000),
    ],
)
def test_requests_without_vectors_and_other_collections_pass_byte_for_byte(
    method: str, path: str, body: bytes, proxy: Serving, recorded: Recorders
) -> None:
    recorded.rest.answer = lambda call: Response(
        b"any \xff\x00 bytes", 207, headers={"X-Own": "1", "Content-Type": "text/odd"}
    )
    connection = http.client.HTTPConnection("127.0.0.1", proxy.rest_port, timeout=10)
    connection.putrequest(method, path, skip_accept_encoding=True)
    for name, value in (("X-Twice", "b"), ("X-Twice", "a"), ("api-key", "k"), ("X-Forwarded-For", "203.0.113.9")):
        connection.putheader(name, value)
    if body:
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body)
    answer = connection.getresponse()
    received = recorded.rest.last
    sent_path, _, sent_query = path.partition("?")
    assert (received.method, received.path, received.query, received.body) == (method, sent_path, sent_query, body)
    expected = {"host", "x-twice", "api-key", "x-forwarded-for", *(["content-length"] if body else [])}
    assert {name for name, _ in received.headers} == expected
    assert received.values("x-twice") == ["b", "a"]
    assert received.values("host") == [f"127.0.0.1:{proxy.rest_port}"]
    assert (answer.status, answer.read()) == (207, b"any \xff\x00 bytes")
    assert answer.headers["x-own"] == "1"
    assert answer.headers["content-type"] == "text/odd"
    assert "x-crossfade" not in answer.headers
    assert not [name for name in answer.headers if name.startswith("x-envoy")]
    connection.close()


def test_what_passes_through_python_has_no_headers_of_envoys_either(client: httpx.Client, recorded: Recorders) -> None:
    client.get("/collections/docs/points/7", headers={"accept-encoding": "gzip", "x-own": "1"})
    names = {name for name, _ in recorded.rest.last.headers}
    assert names - {"content-length"} == {"host", "accept", "user-agent", "x-own"}  # of 0 bytes, which says nothing new
    client.post("/collections/docs/points/query", content=QUERY, headers={**JSON, "x-forwarded-proto": "https"})
    sent = recorded.rest.last
    assert not [name for name, _ in sent.headers if name.startswith(("x-envoy", "x-crossfade"))]
    assert sent.values("x-forwarded-proto") == ["https"]
    assert sent.values("x-forwarded-for") == []
    assert sent.values("content-length") == [str(len(sent.body))]


@pytest.mark.parametrize("name", ["docs é", "docs"])
def test_a_collections_name_is_found_however_it_is_encoded_and_passed_on_as_written(
    name: str, client: httpx.Client, recorded: Recorders
) -> None:
    everything = "".join(f"%{byte:02x}" for byte in name.encode())
    for written in {quote(name), quote(name).lower(), everything, everything.upper()}:
        path = f"/collections/{written}/points/query"
        answer = client.post(path, content=QUERY, headers={**JSON, "x-embedding-model": "new"})
        assert answer.headers["x-crossfade"].startswith("adapted; model=new"), written
        assert recorded.rest.last.path == path
        assert len(mapped(recorded)) == OLD


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_compressed_requests_are_read_and_mapped(
    encoding: str, client: httpx.Client, recorded: Recorders, adapter: Adapter
) -> None:
    body = gzip.compress(QUERY) if encoding == "gzip" else zlib.compress(QUERY)
    client.post("/collections/docs/points/query", content=body, headers={**JSON, "content-encoding": encoding})
    np.testing.assert_allclose([mapped(recorded)], adapter.query.apply(VECTOR), rtol=0, atol=1e-6)
    assert recorded.rest.last.values("content-encoding") == []


@pytest.mark.parametrize("model", ["new", "old"])
def test_a_large_write_arrives_whole_and_says_its_length(
    model: str, client: httpx.Client, recorded: Recorders, adapter: Adapter
) -> None:
    vector = toy_vectors(5, 1, NEW if model == "new" else OLD)
    points = [{"id": at, "vector": vector[0].tolist(), "payload": {"text": "é" * 4000}} for at in range(200)]
    body = json.dumps({"points": points}, ensure_ascii=False).encode()
    assert MIB < len(body) < 4 * MIB
    client.put("/collections/docs/points", content=body, headers={**JSON, "x-embedding-model": model})
    received = recorded.rest.last
    assert received.values("content-length") == [str(len(received.body))]
    assert received.values("transfer-encoding") == []
    if model == "old":
        assert received.body == body
        return
    found = json.loads(received.body)["points"]
    expected = np.repeat(adapter.document.apply(vector), 200, axis=0)
    np.testing.assert_allclose([point.pop("vector") for point in found], expected, rtol=0, atol=1e-6)
    assert found == [{key: value for key, value in point.items() if key != "vector"} for point in points]


def test_compressed_requests_that_need_no_change_pass_compressed(client: httpx.Client, recorded: Recorders) -> None:
    body = gzip.compress(json.dumps({"query": toy_vectors(3, 1, OLD)[0].tolist()}).encode())
    client.post(
        f"/collections/{quote('docs é')}/points/query", content=body, headers={**JSON, "content-encoding": "gzip"}
    )
    assert recorded.rest.last.body == body
    assert recorded.rest.last.values("content-encoding") == ["gzip"]


@pytest.mark.parametrize("asks", [False, True], ids=["without vectors", "with vectors"])
def test_compressed_answers_pass(asks: bool, client: httpx.Client, recorded: Recorders, adapter: Adapter) -> None:
    vector = toy_vectors(4, 1, OLD)
    points = [{"id": 1, "score": 0.5, **({"vector": vector[0].tolist()} if asks else {})}]
    text = json.dumps({"result": {"points": points}, "time": 0.10}).encode()
    recorded.rest.answer = lambda call: Response(
        gzip.compress(text), headers={"content-encoding": "gzip", "content-type": "application/json"}
    )
    query = json.dumps({"query": VECTOR[0].tolist(), "with_vector": asks})
    answer = client.post("/collections/docs/points/query", content=query, headers=JSON)
    found = answer.json()["result"]["points"][0]
    if asks:
        np.testing.assert_allclose([found["vector"]], adapter.reverse.apply(vector), rtol=0, atol=1e-6)
        assert "content-encoding" not in answer.headers
    else:
        assert found == points[0]
        assert answer.headers["content-encoding"] == "gzip"


def test_an_unread_compressed_answer_stays_compressed(client: httpx.Client, recorded: Recorders) -> None:
    text = gzip.compress(b'{"result": {"points": []}}')
    recorded.rest.answer = lambda call: Response(text, headers={"content-encoding": "gzip"})
    body = json.dumps({"query": VECTOR[0].tolist(), "with_vector": True})
    with client.stream("POST", "/collections/docs/points/query", content=body, headers=JSON) as answer:
        assert b"".join(answer.iter_raw()) == text
        assert answer.headers["content-encoding"] == "gzip"


def test_connections_are_kept_alive_on_both_sides(proxy: Serving, recorded: Recorders) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", proxy.rest_port, timeout=10)
    connection.connect()
    kept = connection.sock
    for _ in range(20):
        for path, body in (("/collections/docs/points/query", QUERY), ("/collections/docs/points/count", b"{}")):
            connection.request("POST", path, body, JSON)
            answer = connection.getresponse()
            answer.read()
            assert answer.headers.get("connection", "keep-alive") == "keep-alive"
            assert answer.headers["content-length"] == "40"
            assert connection.sock is kept
    assert len(recorded.rest.calls) == 40
    assert len(recorded.rest.connections) <= 3
    connection.close()


@pytest.mark.parametrize("path", ["/collections/docs/points/query", "/collections/docs/points/count"])
def test_an_idle_connection_is_given_up_before_the_database_closes_it(
    path: str, client: httpx.Client, recorded: Recorders
) -> None:
    for _ in range(2):  # the worker's connections, whichever there are
        client.post(path, content=QUERY, headers=JSON)
    before = set(recorded.rest.connections)
    time.sleep(4)  # Qdrant waits for five
    client.post(path, content=QUERY, headers=JSON)
    assert recorded.rest.connections - before


def test_answers_that_were_changed_say_their_length(client: httpx.Client, recorded: Recorders) -> None:
    text = json.dumps({"result": [{"id": 1, "vector": toy_vectors(4, 1, OLD)[0].tolist()}]}).encode()
    recorded.rest.answer = lambda call: Response(text, media_type="application/json")
    answer = client.post("/collections/docs/points", content=b'{"ids": [1], "with_vector": true}', headers=JSON)
    assert answer.headers["content-length"] == str(len(answer.content))


def test_errors_of_the_upstream_pass_as_they_are(client: httpx.Client, recorded: Recorders) -> None:
    text = b'{"status":{"error":"Not found: Collection `docs` doesn\'t exist!"},"time":1.10e-5}'
    recorded.rest.answer = lambda call: Response(text, 404, media_type="application/json")
    body = json.dumps({"query": VECTOR[0].tolist(), "with_vector": True})
    answer = client.post("/collections/docs/points/query", content=body, headers=JSON)
    assert (answer.status_code, answer.content) == (404, text)


@pytest.mark.parametrize("parts", [1, 3])
def test_an_answer_that_breaks_off_does_not_look_whole(parts: int, client: httpx.Client, recorded: Recorders) -> None:
    async def broken() -> AsyncIterator[bytes]:
        for _ in range(parts):
            yield b'{"result": {"points": ['
            await asyncio.sleep(0.02)
        raise ConnectionResetError("the upstream breaks here, as the test wants it")

    recorded.rest.answer = lambda call: StreamingResponse(broken(), media_type="application/json")
    with pytest.raises(httpx.TransportError):
        client.post("/collections/docs/points/count", content=QUERY, headers=JSON)
    gathered = json.dumps({"query": VECTOR[0].tolist(), "with_vector": True}).encode()
    for body in (gathered, *([QUERY] if parts == 1 else [])):  # nothing was sent on yet
        answer = client.post("/collections/docs/points/query", content=body, headers=JSON)
        assert answer.status_code == 503
        assert "does not answer" in answer.json()["status"]["error"]
    if parts > 1:
        with pytest.raises(httpx.TransportError):
            client.post("/collections/docs/points/query", content=QUERY, headers=JSON)


@pytest.mark.parametrize("stated", [True, False], ids=["length stated", "chunked"])
def test_a_body_beyond_the_limit_is_refused_with_413(stated: bool, client: httpx.Client, recorded: Recorders) -> None:
    parts = [b'{"query": [', b"0.5, " * MIB, b"0.5]}"]
    content = b"".join(parts) if stated else iter(parts)
    answer = client.post("/collections/docs/points/query", content=content, headers=JSON)
    assert answer.status_code == 413
    found = "has 5,242,896 bytes" if stated else "goes on"
    assert answer.json()["status"]["error"] == (
        f"crossfade: the body {found}, beyond the limit of 4,194,304 bytes; send smaller batches or raise limits.body"
    )
    assert not recorded.rest.calls


def test_512_mebibytes_pass_a_native_route_in_bounded_memory(
    proxy: Serving, client: httpx.Client, recorded: Recorders
) -> None:
    recorded.rest.keeps_bodies = False
    peaks: list[int] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            peaks.append(tree_rss(proxy.process.pid))

    before = tree_rss(proxy.process.pid)
    watching = threading.Thread(target=watch)
    watching.start()
    chunk = bytes(MIB)
    answer = client.post("/collections/docs/snapshots/upload", content=(chunk for _ in range(512)))
    ended.set()
    watching.join()
    assert answer.status_code == 200
    assert recorded.rest.received == 512 * MIB
    assert max(peaks) - before < 64 * MIB
