"""The committed field numbers against the descriptors they come from."""

from __future__ import annotations

from typing import Any

import pytest
import qdrant_client.grpc as grpc
from google.protobuf.descriptor import FieldDescriptor
from qdrant_client.grpc import points_service_pb2

from crossfade.backends.qdrant import conditions, owners, touches, writing
from crossfade.backends.qdrant.methods import GRPC_METHODS
from crossfade.backends.qdrant.schema import TABLE
from tests.backends.qdrant_tables import ANSWERS, REQUESTS

KINDS = {
    FieldDescriptor.TYPE_UINT32: "uint",
    FieldDescriptor.TYPE_UINT64: "uint",
    FieldDescriptor.TYPE_DOUBLE: "double",
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_ENUM: "enum",
    FieldDescriptor.TYPE_STRING: "string",
}
WRITE_TABLES = [conditions.TABLE, owners.TABLE, touches.TABLE, writing.TABLE]
VECTOR_TYPES = {"qdrant.Vector", "qdrant.VectorInput", "qdrant.Vectors", "qdrant.VectorsOutput", "qdrant.DenseVector"}


def find_descriptor(message: str) -> Any:
    first, *nested = message.split(".")
    descriptor = getattr(grpc, first).DESCRIPTOR
    for name in nested:
        descriptor = descriptor.nested_types_by_name[name]
    return descriptor


def describe(field: Any) -> str:
    if field.type == FieldDescriptor.TYPE_FLOAT:
        kind = "floats" if field.is_repeated else "float"
    elif field.message_type is not None:
        kind = field.message_type.full_name.removeprefix("qdrant.")
    else:
        kind = KINDS[field.type]
    oneof = field.containing_oneof
    member = f"|{oneof.name}" if oneof is not None and not oneof.name.startswith("_") else ""
    return f"{field.name}={field.number}:{kind}{member}"


@pytest.mark.parametrize("message", TABLE)
def test_fields_have_the_numbers_and_types_of_the_descriptor(message: str) -> None:
    described = {describe(field) for field in find_descriptor(message).fields if field.name in TABLE[message]}
    assert set(TABLE[message].split()) <= described


@pytest.mark.parametrize("message", TABLE)
def test_of_a_oneof_every_member_is_listed(message: str) -> None:
    listed = {field.partition("=")[0] for field in TABLE[message].split()}
    for oneof in find_descriptor(message).oneofs:
        members = {field.name for field in oneof.fields}
        if not oneof.name.startswith("_") and members & listed:
            assert members <= listed, oneof.name


@pytest.mark.parametrize(("table", "message"), [(table, message) for table in WRITE_TABLES for message in table])
def test_what_writes_are_read_by_is_as_the_descriptor_says(table: dict[str, str], message: str) -> None:
    fields = find_descriptor(message).fields
    listed = set(table[message].split())
    assert listed <= {describe(field) for field in fields}
    oneofs = {field.containing_oneof for field in fields if describe(field) in listed} - {None}
    for oneof in oneofs:
        if not oneof.name.startswith("_"):
            assert {describe(member) for member in oneof.fields} <= listed


@pytest.mark.parametrize("message", TABLE)
def test_no_field_that_leads_to_vectors_is_left_out(message: str) -> None:
    listed = {field.partition("=")[0] for field in TABLE[message].split()}
    for field in find_descriptor(message).fields:
        if field.message_type is not None and field.message_type.full_name in VECTOR_TYPES:
            assert field.name in listed, field.full_name


def test_every_rpc_whose_messages_can_reach_a_vector_is_an_operation() -> None:
    service = points_service_pb2.DESCRIPTOR.services_by_name["Points"]
    reaching = {
        method.name
        for method in service.methods
        if reaches_vectors(method.input_type, set()) or reaches_vectors(method.output_type, set())
    }
    assert {path.removeprefix("/qdrant.Points/") for path in GRPC_METHODS} == reaching == set(REQUESTS)
    answering = {method.name for method in service.methods if reaches_vectors(method.output_type, set())}
    assert set(ANSWERS) == answering
    assert {name.operation.name for name in GRPC_METHODS.values() if name.operation.answers_vectors} == answering


def reaches_vectors(descriptor: Any, seen: set[str]) -> bool:
    if descriptor.full_name in VECTOR_TYPES:
        return True
    if descriptor.full_name in seen:
        return False
    seen.add(descriptor.full_name)
    return any(reaches_vectors(field.message_type, seen) for field in descriptor.fields if field.message_type)
