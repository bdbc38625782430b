"""What an answer says of a write's end, where the database tells failures inside of good answers."""

from __future__ import annotations

import pytest
from pymilvus.grpc_gen import common_pb2, milvus_pb2

from crossfade.backends.dialect import Dialect
from crossfade.backends.milvus import MilvusDialect
from crossfade.backends.qdrant import QdrantDialect
from crossfade.proxy.endings import Ending
from crossfade.proxy.framing import frame

MILVUS, QDRANT = MilvusDialect(), QdrantDialect()


def ending(dialect: Dialect, path: str, body: bytes, status: str = "0") -> Ending:
    operation = dialect.find_operation("grpc", "POST", path)
    assert operation is not None
    return Ending(operation, 200, status, frame(body), None, 1 << 20)


@pytest.mark.parametrize(("code", "done"), [(0, True), (1, False), (65535, False)])
def test_a_failure_inside_of_a_good_answer_of_milvus_leaves_open_whether_the_write_has_ended(
    code: int, done: bool
) -> None:
    status = common_pb2.Status(code=code, reason="deadline exceeded" if code else "")
    body = milvus_pb2.MutationResult(status=status).SerializeToString()
    told = ending(MILVUS, "/milvus.proto.milvus.MilvusService/Insert", body)
    assert told.has_ended
    assert told.is_settled(MILVUS.reading) is done
    assert told.succeeded(MILVUS.reading) is done


@pytest.mark.parametrize(("status", "settled", "done"), [("0", True, True), ("3", True, False), ("14", False, False)])
def test_an_answer_of_qdrant_is_told_by_its_status_alone(status: str, settled: bool, done: bool) -> None:
    told = ending(QDRANT, "/qdrant.Points/Upsert", b"\x08\x01" if done else b"", status)
    assert told.is_settled(QDRANT.reading) is settled
    assert told.succeeded(QDRANT.reading) is done


def test_an_answer_that_cannot_be_read_is_told_by_its_status() -> None:
    operation = MILVUS.find_operation("grpc", "POST", "/milvus.proto.milvus.MilvusService/Insert")
    assert operation is not None
    assert Ending(operation, 200, "0", b"\x00\x00", None, 1 << 20).succeeded(MILVUS.reading)
