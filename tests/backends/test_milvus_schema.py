"""The committed field numbers against the descriptors they come from."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from pymilvus.grpc_gen import common_pb2, milvus_pb2, schema_pb2

from crossfade.backends.milvus import cutting, hits, others, owners, searching, touches
from crossfade.backends.milvus.methods import GRPC_METHODS
from crossfade.backends.milvus.schema import DENSE_TYPES, TABLE

KINDS = {
    FieldDescriptor.TYPE_INT32: "uint",
    FieldDescriptor.TYPE_INT64: "uint",
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_ENUM: "enum",
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_BYTES: "bytes",
}
VECTORS = {"milvus.proto.schema.VectorField", "milvus.proto.schema.FieldData"}
# CalcDistance names no collection, and current servers refuse it; the others are opaque or internal.
WITHOUT_COLLECTION = {"CalcDistance"}


def find_descriptor(message: str) -> Any:
    for module in (milvus_pb2, schema_pb2, common_pb2):
        if hasattr(module, message):
            return getattr(module, message).DESCRIPTOR
    raise AssertionError(f"pymilvus has no message {message}")


def describe(field: Any) -> str:
    if field.name == "placeholder_group":
        kind = "PlaceholderGroup"  # a message in a bytes field
    elif field.type == FieldDescriptor.TYPE_FLOAT:
        kind = "floats" if field.is_repeated else "float"
    elif field.message_type is not None:
        kind = field.message_type.name
    else:
        kind = KINDS.get(field.type, "")
        if kind in ("uint", "bool") and field.is_repeated:
            kind = "uints"
    oneof = field.containing_oneof
    member = f"|{oneof.name}" if oneof is not None and not oneof.name.startswith("_") else ""
    return f"{field.name}={field.number}:{kind}{member}"


TABLES = [
    (message, fields)
    for table in (TABLE, touches.TABLE, others.TABLE, owners.TABLE, cutting.TABLE, hits.TABLE, searching.TABLE)
    for message, fields in table.items()
]


@pytest.mark.parametrize(("message", "fields"), TABLES)
def test_fields_have_the_numbers_and_types_of_the_descriptor(message: str, fields: str) -> None:
    assert set(fields.split()) <= {describe(field) for field in find_descriptor(message).fields}


@pytest.mark.parametrize("name", [*others.READS, *others.WRITES])
def test_a_method_without_a_table_of_its_own_names_its_collection_as_most_do(name: str) -> None:
    message = find_descriptor({"GetCompactionStateWithPlans": "GetCompactionPlansRequest"}.get(name, f"{name}Request"))
    if message.name not in others.TABLE:
        told = {describe(field) for field in message.fields}
        assert {"db_name=2:string", "collection_name=3:string"} <= told


@pytest.mark.parametrize(("message", "fields"), TABLES)
def test_of_a_oneof_every_member_is_listed(message: str, fields: str) -> None:
    listed = {field.partition("=")[0] for field in fields.split()}
    for oneof in find_descriptor(message).oneofs:
        members = {field.name for field in oneof.fields}
        if not oneof.name.startswith("_") and members & listed:
            assert members <= listed, oneof.name


@pytest.mark.parametrize("message", TABLE)
def test_no_field_that_leads_to_vectors_is_left_out(message: str) -> None:
    listed = {field.partition("=")[0] for field in TABLE[message].split()}
    for field in find_descriptor(message).fields:
        if field.message_type is not None and field.message_type.full_name in VECTORS:
            assert field.name in listed, field.full_name


def test_dense_types_have_the_numbers_of_both_enumerations() -> None:
    for number, form in DENSE_TYPES.items():
        spelled = {"float": "Float", "float16": "Float16", "bfloat16": "BFloat16", "int8": "Int8"}[form]
        assert schema_pb2.DataType.Value(f"{spelled}Vector") == number
        assert common_pb2.PlaceholderType.Value(f"{spelled}Vector") == number


def test_every_rpc_whose_messages_can_reach_a_vector_is_an_operation() -> None:
    service = milvus_pb2.DESCRIPTOR.services_by_name["MilvusService"]
    reaching = {
        method.name
        for method in service.methods
        if reaches_vectors(method.input_type, set()) or reaches_vectors(method.output_type, set())
    }
    mapped = {method.operation.name for method in GRPC_METHODS.values() if not method.operation.describes}
    assert mapped == reaching - WITHOUT_COLLECTION


def reaches_vectors(descriptor: Any, seen: set[str]) -> bool:
    if descriptor.full_name in VECTORS or any(field.name == "placeholder_group" for field in descriptor.fields):
        return True
    if descriptor.full_name in seen:
        return False
    seen.add(descriptor.full_name)
    return any(reaches_vectors(field.message_type, seen) for field in descriptor.fields if field.message_type)
