"""The openai encoder against a real HTTP server with OpenAI's embeddings API, well-behaved and not."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import uvicorn
from numpy.typing import NDArray
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from crossfade.proxy.config_models import EncoderChoice, Model
from crossfade.proxy.encoders import ModelEncoder, build_encoder
from crossfade.proxy.errors import EncoderFailed

DIM = 8


def vector_of(text: str, dim: int = DIM) -> NDArray[np.float32]:
    """What the fake model gives for a text: numbers that depend on all of it."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
    return np.random.default_rng(seed).normal(size=dim).astype(np.float32)


Twist = Callable[[dict[str, Any], list[dict[str, Any]]], Response | None]


@dataclass
class Endpoint:
    """The fake endpoint: what it was asked, and what goes wrong, one entry for each of the next calls."""

    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    script: list[Twist] = field(default_factory=list)
    always: Twist | None = None
    pause: float = 0.0
    busy: int = 0
    busiest: int = 0

    async def answer(self, request: Request) -> Response:
        body = await request.json()
        self.asked.append(body)
        self.headers.append(dict(request.headers))
        self.busy += 1
        self.busiest = max(self.busiest, self.busy)
        await asyncio.sleep(self.pause)
        self.busy -= 1
        rows = [self.entry(index, text, body) for index, text in enumerate(body["input"])]
        twist = self.script.pop(0) if self.script else self.always
        twisted = twist(body, rows) if twist else None
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        return twisted or JSONResponse({"object": "list", "data": rows, "model": body["model"], "usage": usage})

    def entry(self, index: int, text: str, body: dict[str, Any]) -> dict[str, Any]:
        vector = vector_of(text, body.get("dimensions", DIM))
        asked = body.get("encoding_format")
        packed = base64.b64encode(vector.tobytes()).decode() if asked == "base64" else vector.tolist()
        return {"object": "embedding", "index": index, "embedding": packed}


def failing(status: int, message: str = "no", **headers: str) -> Twist:
    return lambda body, rows: JSONResponse({"error": {"message": message}}, status, headers=headers)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    fake = Endpoint()
    app = Starlette(routes=[Route("/v1/embeddings", fake.answer, methods=["POST"])])
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.005)
        fake.url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        yield fake
        server.should_exit = True
        thread.join(10)


def encoder_for(
    endpoint: Endpoint, *, dim: int = DIM, model: dict[str, Any] | None = None, **openai: Any
) -> ModelEncoder:
    choice = EncoderChoice.model_validate({"openai": {"base_url": endpoint.url, "model": "fake", **openai}})
    return build_encoder("new", Model(dim=dim, encoder=choice, **(model or {})))


async def test_texts_are_encoded_in_batches_and_come_back_in_their_order(endpoint: Endpoint) -> None:
    texts = [f"text {number}" for number in range(25)]
    rows = await encoder_for(endpoint, batch_size=10).encode(texts, "passage")
    np.testing.assert_array_equal(rows, np.stack([vector_of(text) for text in texts]))
    assert sorted(len(body["input"]) for body in endpoint.asked) == [5, 10, 10]


async def test_two_429_and_a_500_are_waited_out(endpoint: Endpoint) -> None:
    now = {"retry-after-ms": "1"}
    endpoint.script = [failing(429, **now), failing(429, **now), failing(500, **now)]
    rows = await encoder_for(endpoint).encode(["a"], "query")
    np.testing.assert_array_equal(rows[0], vector_of("a"))
    assert len(endpoint.asked) == 4


async def test_an_endpoint_that_keeps_answering_429_fails_with_model_endpoint_and_status(endpoint: Endpoint) -> None:
    endpoint.always = failing(429, "slow down", **{"retry-after-ms": "1"})
    with pytest.raises(EncoderFailed) as raised:
        await encoder_for(endpoint, max_retries=2).encode(["a"], "query")
    assert raised.value.status == 429
    assert "'new'" in str(raised.value)
    assert endpoint.url in str(raised.value)
    assert "slow down" in str(raised.value)
    assert len(endpoint.asked) == 3


async def test_a_refused_request_is_not_retried_and_the_servers_words_are_passed_on(endpoint: Endpoint) -> None:
    endpoint.always = failing(401, "bad key")
    with pytest.raises(EncoderFailed, match=r"\(HTTP 401\): bad key"):
        await encoder_for(endpoint).encode(["a"], "query")
    assert len(endpoint.asked) == 1


async def test_a_wrong_dimension_names_the_model_and_both_numbers(endpoint: Endpoint) -> None:
    with pytest.raises(EncoderFailed, match=r"vectors of 8 dimensions, but models\.new\.dim is 16"):
        await encoder_for(endpoint, dim=16).encode(["a"], "query")


async def test_a_wrong_number_of_vectors_is_refused(endpoint: Endpoint) -> None:
    endpoint.always = lambda body, rows: rows.__delitem__(0)
    with pytest.raises(EncoderFailed, match="answered 2 vectors for 3 texts"):
        await encoder_for(endpoint).encode(["a", "b", "c"], "query")


async def test_vectors_out_of_order_are_put_in_order_by_their_index(endpoint: Endpoint) -> None:
    endpoint.always = lambda body, rows: rows.reverse()
    rows = await encoder_for(endpoint).encode(["a", "b", "c"], "query")
    np.testing.assert_array_equal(rows, np.stack([vector_of(text) for text in "abc"]))


async def test_an_index_given_twice_is_refused(endpoint: Endpoint) -> None:
    endpoint.always = lambda body, rows: rows[1].update(index=0)
    with pytest.raises(EncoderFailed, match="indices that are not 0 to 1"):
        await encoder_for(endpoint).encode(["a", "b"], "query")


async def test_nan_is_refused_with_the_text_it_belongs_to(endpoint: Endpoint) -> None:
    spoiled = base64.b64encode(np.full(DIM, np.nan, dtype=np.float32).tobytes()).decode()
    endpoint.always = lambda body, rows: rows[1].update(embedding=spoiled)
    with pytest.raises(EncoderFailed, match="NaN or infinity for text 1 of 2"):
        await encoder_for(endpoint).encode(["a", "b"], "query")


def _no_base64(body: dict[str, Any], rows: list[dict[str, Any]]) -> Response | None:
    return failing(400, "base64 is not supported")(body, rows) if body.get("encoding_format") == "base64" else None


def _no_data(body: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    if body.get("encoding_format") == "base64":
        rows.clear()


@pytest.mark.parametrize("refusal", [_no_base64, _no_data])
async def test_a_server_without_base64_is_asked_for_floats_from_then_on(endpoint: Endpoint, refusal: Twist) -> None:
    endpoint.always = refusal
    encoder = encoder_for(endpoint)
    for text in "ab":
        np.testing.assert_array_equal((await encoder.encode([text], "query"))[0], vector_of(text))
    assert [body["encoding_format"] for body in endpoint.asked] == ["base64", "float", "float"]


async def test_a_server_that_ignores_the_format_and_answers_floats_is_understood(endpoint: Endpoint) -> None:
    endpoint.always = lambda body, rows: rows[0].update(embedding=vector_of("a").tolist())
    np.testing.assert_array_equal((await encoder_for(endpoint).encode(["a"], "query"))[0], vector_of("a"))
    assert len(endpoint.asked) == 1


async def test_a_key_is_sent_as_bearer_and_without_one_nothing_is_sent_not_even_from_the_environment(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "another endpoint's")
    await encoder_for(endpoint, api_key="ours").encode(["a"], "query")
    await encoder_for(endpoint).encode(["a"], "query")
    assert [headers.get("authorization") for headers in endpoint.headers] == ["Bearer ours", None]


async def test_dimensions_are_asked_for(endpoint: Endpoint) -> None:
    rows = await encoder_for(endpoint, dim=4, dimensions=4).encode(["a"], "query")
    assert rows.shape == (1, 4)
    assert endpoint.asked[0]["dimensions"] == 4


async def test_prefixes_are_put_before_texts_by_role(endpoint: Endpoint) -> None:
    encoder = encoder_for(endpoint, model={"query_prefix": "query: ", "passage_prefix": "passage: "})
    query, passage = [await encoder.encode(["a"], role) for role in ("query", "passage")]
    np.testing.assert_array_equal(query[0], vector_of("query: a"))
    np.testing.assert_array_equal(passage[0], vector_of("passage: a"))


async def test_each_text_is_sent_once_however_many_ask_for_it_at_once(endpoint: Endpoint) -> None:
    endpoint.pause = 0.05
    encoder = encoder_for(endpoint)
    rows = await asyncio.gather(*(encoder.encode(["a", "b", "a"], "query") for _ in range(20)))
    assert [body["input"] for body in endpoint.asked] == [["a", "b"]]
    for found in rows:
        np.testing.assert_array_equal(found, np.stack([vector_of(text) for text in "aba"]))


async def test_a_caller_that_goes_away_does_not_take_the_answer_from_the_others(endpoint: Endpoint) -> None:
    endpoint.pause = 0.1
    encoder = encoder_for(endpoint)
    first = asyncio.create_task(encoder.encode(["a"], "query"))
    await asyncio.sleep(0.02)
    second = asyncio.create_task(encoder.encode(["a"], "query"))
    await asyncio.sleep(0.02)
    first.cancel()
    np.testing.assert_array_equal((await second)[0], vector_of("a"))
    assert len(endpoint.asked) == 1


async def test_the_cache_keeps_the_most_recently_used_texts(endpoint: Endpoint) -> None:
    encoder = encoder_for(endpoint, model={"cache": 2})
    for text in ["a", "b", "a", "c", "a", "b"]:
        np.testing.assert_array_equal((await encoder.encode([text], "query"))[0], vector_of(text))
    assert [body["input"][0] for body in endpoint.asked] == ["a", "b", "c", "b"]


async def test_a_failure_is_not_cached(endpoint: Endpoint) -> None:
    endpoint.script = [failing(400, "no"), failing(400, "no")]  # base64, then float
    encoder = encoder_for(endpoint)
    with pytest.raises(EncoderFailed):
        await encoder.encode(["a"], "query")
    np.testing.assert_array_equal((await encoder.encode(["a"], "query"))[0], vector_of("a"))


async def test_no_more_calls_than_concurrency_are_under_way(endpoint: Endpoint) -> None:
    endpoint.pause = 0.02
    await encoder_for(endpoint, batch_size=1, concurrency=3).encode([str(number) for number in range(12)], "query")
    assert endpoint.busiest == 3


async def test_normalize_gives_unit_rows(endpoint: Endpoint) -> None:
    rows = await encoder_for(endpoint, model={"normalize": True}).encode(["a"], "query")
    np.testing.assert_allclose(rows[0], vector_of("a") / np.linalg.norm(vector_of("a")), rtol=1e-6)


async def test_nothing_to_encode_asks_nobody(endpoint: Endpoint) -> None:
    assert (await encoder_for(endpoint).encode([], "query")).shape == (0, DIM)
    assert endpoint.asked == []


async def test_an_endpoint_that_is_not_there_fails_with_its_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    away = Endpoint(url=f"http://127.0.0.1:{port}/v1")
    with pytest.raises(EncoderFailed, match=f"127.0.0.1:{port}/v1.*cannot be reached"):
        await encoder_for(away, max_retries=0).encode(["a"], "query")


async def test_a_slow_endpoint_is_given_up_after_its_timeout(endpoint: Endpoint) -> None:
    endpoint.pause = 1.0
    with pytest.raises(EncoderFailed, match=r"no answer within 0\.1 s"):
        await encoder_for(endpoint, timeout="100ms", max_retries=0).encode(["a"], "query")


async def test_closing_lets_what_is_under_way_finish(endpoint: Endpoint) -> None:
    endpoint.pause = 0.1
    encoder = encoder_for(endpoint)
    asked = asyncio.create_task(encoder.encode(["a"], "query"))
    await asyncio.sleep(0.02)
    await encoder.close()
    np.testing.assert_array_equal((await asked)[0], vector_of("a"))
