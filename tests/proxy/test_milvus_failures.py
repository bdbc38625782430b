"""What goes wrong reaches pymilvus as a MilvusException with Crossfade's message, at once and not after 75 tries."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from pymilvus import MilvusClient
from pymilvus.exceptions import MilvusException
from pymilvus.grpc_gen import common_pb2, milvus_pb2

from crossfade.backends.dialect import Failure
from crossfade.backends.milvus import MilvusDialect
from crossfade.backends.milvus.others import GRPC_OTHERS
from tests.ports import free_ports
from tests.proxy.milvus_serving import SERVICE, MilvusServing, start_embedded, start_milvus_serving
from tests.proxy.recording import GrpcCall, Recorders
from tests.proxy.test_milvus_adapted import answer_describe
from tests.proxy.toy_adapters import NEW, save_toy

SECONDS = 5.0  # pymilvus's own tries would go on for minutes
SETTINGS = """
models: {old: {dim: 16}, new: {dim: 24}, wide: {dim: 32}}
collections:
  docs: &docs {index_model: old, query_model: new, adapters: {new: adapters/new}}
  fields: {index_model: old, query_model: new, adapters: {new: adapters/new}, fields: {other: {query_model: old}}}
"""
VECTOR = np.ones(NEW, np.float32).tolist()


@pytest.fixture(scope="module")
def milvus(recorders: Recorders, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusServing]:
    directory = tmp_path_factory.mktemp("milvus-failures")
    save_toy(directory / "adapters" / "new")
    with start_milvus_serving(directory, f'grpc: "{recorders.grpc.address}"', SETTINGS) as serving:
        yield serving


@pytest.fixture
def client(milvus: MilvusServing, recorded: Recorders) -> Iterator[MilvusClient]:
    recorded.grpc.answer = answer_describe
    opened = MilvusClient(milvus.uri)
    yield opened
    opened.close()


def refused(ask: Callable[[], Any]) -> MilvusException:
    started = time.monotonic()
    with pytest.raises(MilvusException) as raised:
        ask()
    assert time.monotonic() - started < SECONDS
    return raised.value


def test_a_wrong_dimension_is_refused_with_the_models_and_their_dimensions(client: MilvusClient) -> None:
    error = refused(lambda: client.search("docs", [[1.0] * 7], limit=1))
    assert error.code == 1100
    assert "a vector has 7 dimensions" in error.message
    assert "old (16), new (24)" in error.message


def test_a_row_of_a_wrong_dimension_is_refused_before_it_is_written(client: MilvusClient, recorded: Recorders) -> None:
    error = refused(lambda: client.insert("docs", [{"id": 1, "dense": [1.0] * 7, "bits": b"ab"}]))
    assert "a vector has 7 dimensions" in error.message
    assert not any(call.method.endswith("/Insert") for call in recorded.grpc.calls)


@pytest.mark.parametrize(
    ("model", "said"),
    [("gpt", "declares the model 'gpt', which is not configured"), ("wide", "no adapter from 'wide'")],
)
def test_an_unknown_or_unmapped_model_is_refused(client: MilvusClient, model: str, said: str) -> None:
    error = refused(lambda: client.search("docs", [VECTOR], limit=1, search_params={"embedding_model": model}))
    assert said in error.message


def test_a_vector_with_nan_is_refused(client: MilvusClient) -> None:
    assert "NaN or infinity" in refused(lambda: client.search("docs", [[float("nan")] * NEW], limit=1)).message


def test_a_milvus_that_dies_in_mid_search_is_told_at_once(tmp_path: Path) -> None:
    save_toy(tmp_path / "adapters" / "new")
    (port,) = free_ports(1)
    with (
        start_embedded(tmp_path / "data", port) as database,
        start_milvus_serving(tmp_path, f'grpc: "127.0.0.1:{port}"', SETTINGS) as serving,
    ):
        client = MilvusClient(serving.uri)
        client.create_collection("docs", dimension=16)
        assert client.describe_collection("docs")["fields"][1]["params"]["dim"] == NEW
        client.insert("docs", [{"id": 1, "vector": VECTOR}])
        assert len(client.search("docs", [VECTOR], limit=1)[0]) == 1
        database.send_signal(signal.SIGSTOP)  # the search waits for an answer
        with pytest.raises(grpc.RpcError) as late:  # what pymilvus raises of any Milvus that is too slow
            client.search("docs", [VECTOR], limit=1, anns_field="vector", timeout=0.5)
        assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        killing = threading.Timer(0.3, database.kill)
        killing.start()
        error = refused(lambda: client.search("docs", [VECTOR], limit=1, anns_field="vector"))
        assert f"crossfade: upstream 'main' at 127.0.0.1:{port} does not answer" in error.message
        killing.join()
        for ask in (
            lambda: client.search("docs", [VECTOR], limit=1, anns_field="vector"),
            lambda: client.query("docs", filter="id > 0"),
            lambda: client.describe_collection("docs"),
            lambda: client.insert("docs", [{"id": 1, "vector": VECTOR}]),
        ):
            assert "does not answer: upstream connect error" in refused(ask).message


def test_a_refusal_of_the_database_itself_is_passed_on_as_it_is(client: MilvusClient, recorded: Recorders) -> None:
    status = common_pb2.Status(error_code=5, code=1100, reason="no such index")
    answer = milvus_pb2.SearchResults(status=status).SerializeToString()
    recorded.grpc.answer = lambda call, context: (
        answer if call.method.endswith("/Search") else answer_describe(call, context)
    )
    assert refused(lambda: client.search("docs", [VECTOR], limit=1)).message == "no such index"


def test_a_schema_that_the_database_does_not_tell_is_refused_with_its_reason(
    client: MilvusClient, recorded: Recorders
) -> None:
    def refuse(call: GrpcCall, context: grpc.ServicerContext) -> bytes:
        if not call.method.endswith("/DescribeCollection"):
            return b""
        status = common_pb2.Status(error_code=3, code=65535, reason="no privilege to describe")
        return bytes(milvus_pb2.DescribeCollectionResponse(status=status).SerializeToString())

    recorded.grpc.answer = refuse
    error = refused(lambda: client.search("fields", [VECTOR], limit=1))
    assert "cannot be learned from upstream 'main', which says: no privilege to describe" in error.message
    time.sleep(5.1)  # what was learned of it before is not fresh any more
    client.search("docs", [VECTOR], limit=1)  # all its fields are alike, so it is served without
    assert len(read_vector(recorded)) == 16


def read_vector(recorded: Recorders) -> Any:
    """The query vector that reached Milvus last."""
    request = milvus_pb2.SearchRequest.FromString(recorded.grpc.last.body)
    group = common_pb2.PlaceholderGroup.FromString(request.placeholder_group)
    return np.frombuffer(group.placeholders[0].values[0], "<f4")


OPERATIONS = [one for one in MilvusDialect.operations if one.transport == "grpc"]


@pytest.mark.parametrize("operation", [*OPERATIONS, *GRPC_OTHERS.values()], ids=lambda one: str(one.name))
def test_every_reply_has_its_status_where_a_failure_puts_it(operation: Any) -> None:
    dialect = MilvusDialect()
    answer = dialect.fail(operation, "grpc", Failure(14, 503, "down"))
    assert answer.grpc_code == 0
    method = milvus_pb2.DESCRIPTOR.services_by_name["MilvusService"].methods_by_name[operation.name]
    kind: Any = getattr(common_pb2 if method.output_type.name == "Status" else milvus_pb2, method.output_type.name)
    reply = kind.FromString(answer.body)
    status = next((value for field, value in reply.ListFields() if field.name.endswith("status")), reply)
    assert (status.code, status.reason, status.retriable) == (2, "down", True)
    assert operation.path == f"{SERVICE}/{operation.name}"
    assert len(reply.ListFields()) == (1 if status is not reply else 5)
    assert dialect.reading is not None
    assert dialect.reading.refuses(operation, answer.body)
    assert not dialect.reading.refuses(operation, b"")
