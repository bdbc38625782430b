"""Random Milvus messages in which it is known where every dense vector, text and bound stands.

A message is filled by its descriptor, so that whatever stands beside the vectors is there too; the rows of the table
of where vectors stand (FieldData columns, placeholder groups, search parameters) are filled on purpose.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from pymilvus.grpc_gen import common_pb2, milvus_pb2

from crossfade.backends.dialect import Role
from crossfade.backends.milvus.forms import read_form, write_form

REQUESTS = {
    "Insert": (milvus_pb2.InsertRequest, milvus_pb2.MutationResult),
    "Upsert": (milvus_pb2.UpsertRequest, milvus_pb2.MutationResult),
    "Search": (milvus_pb2.SearchRequest, milvus_pb2.SearchResults),
    "HybridSearch": (milvus_pb2.HybridSearchRequest, milvus_pb2.SearchResults),
    "Query": (milvus_pb2.QueryRequest, milvus_pb2.QueryResults),
}
ANSWERS = ("Search", "HybridSearch", "Query")
WRITES = ("Insert", "Upsert")
FORMS = {"float": 101, "float16": 102, "bfloat16": 103, "int8": 105}
BYTES = {"float16": "float16_vector", "bfloat16": "bfloat16_vector", "int8": "int8_vector"}
OTHERS = ("sparse", "binary", "array", "scalars", "struct")

Key = tuple[str, str | None, str, Any]


@dataclass
class Place:
    """What a slot must say, and how the message is changed there."""

    key: Key
    shape: tuple[int, int] | None
    replace: Callable[[Any], None]


@dataclass
class Builder:
    """Builds one message; `places` are the slots it must give."""

    rng: random.Random
    database: str = ""
    collection: str = "docs é"
    dims: tuple[int, ...] = (2, 7, 40, 300)
    places: list[Place] = field(default_factory=list)
    wants_vectors: bool = False

    @property
    def name(self) -> str:
        return f"{self.database}/{self.collection}" if self.database else self.collection

    def request(self, operation: str) -> Any:
        self.database = self.rng.choice(("", "tenant"))
        message = REQUESTS[operation][0](db_name=self.database or self.rng.choice(("", "default")))
        self._fill(message, {"db_name", "collection_name", "fields_data", "placeholder_group", "ids", "search_params"})
        message.collection_name = self.collection
        if operation in WRITES:
            message.ClearField("fields_data")
            for index in range(self.rng.randint(0, 4)):
                self._column(message.fields_data.add(), f"f{index}", Role.DOCUMENT)
        elif operation == "Search":
            message.ClearField("sub_reqs")
            self._search(message)
            for _ in range(self.rng.choice((0, 0, 2))):
                self._search(message.sub_reqs.add())
        elif operation == "HybridSearch":
            message.ClearField("requests")
            for _ in range(self.rng.randint(0, 3)):
                self._search(message.requests.add())
        if operation not in WRITES:
            del message.output_fields[:]
            self.wants_vectors = self.rng.random() < 0.5
            message.output_fields.extend(["title", "vector"] if self.wants_vectors else [])
        return message

    def answer(self, operation: str) -> Any:
        message = REQUESTS[operation][1]()
        self._fill(message, {"fields_data", "results"})
        if operation == "Query":
            self._columns(message.fields_data)
            return message
        self._fill(message.results, {"fields_data", "group_by_field_value", "group_by_field_values"})
        self._columns(message.results.fields_data)
        self._columns(message.results.group_by_field_values)
        if self.rng.random() < 0.3:
            self._column(message.results.group_by_field_value, "grouped", Role.RESULT)
        return message

    def _columns(self, repeated: Any) -> None:
        for index in range(self.rng.randint(0, 3)):
            self._column(repeated.add(), f"f{index}", Role.RESULT)

    def _fill(self, message: Any, without: set[str], depth: int = 2) -> None:
        """Random values in every field but those named."""
        for one in message.DESCRIPTOR.fields:
            if one.name in without or self.rng.random() < 0.4 or one.full_name.startswith("google."):
                continue
            if one.message_type is not None:
                if depth and not one.message_type.GetOptions().map_entry and one.message_type.name != "FieldData":
                    below = getattr(message, one.name)
                    self._fill(below.add() if one.is_repeated else below, without, depth - 1)
            elif one.is_repeated:
                getattr(message, one.name).extend([self._scalar(one) for _ in range(2)])
            elif one.containing_oneof is None or one.containing_oneof.name.startswith("_"):
                setattr(message, one.name, self._scalar(one))

    def _scalar(self, one: FieldDescriptor) -> Any:
        if one.type == FieldDescriptor.TYPE_STRING:
            return self.rng.choice(("x", "été", "a" * 200))
        if one.type == FieldDescriptor.TYPE_BYTES:
            return self.rng.randbytes(3)
        if one.type in (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE):
            return self.rng.choice((0.5, -2.0, 1024.0))
        if one.type == FieldDescriptor.TYPE_BOOL:
            return self.rng.random() < 0.5
        if one.type == FieldDescriptor.TYPE_ENUM:
            assert one.enum_type is not None
            return self.rng.choice(one.enum_type.values).number
        return self.rng.randint(0, 1 << 30)

    def _numbers(self, form: str, n: int, dim: int) -> Any:
        """Rows (n, dim) that the form holds exactly."""
        rows = np.random.default_rng(self.rng.randrange(1 << 30)).normal(scale=40, size=(n, dim)).astype(np.float32)
        return read_form(form, write_form(form, rows)).reshape(n, dim)

    def _column(self, column: Any, name: str, role: Role) -> None:
        column.field_name = name
        kind = self.rng.choice((*FORMS, *FORMS, *OTHERS))
        vectors = column.vectors
        if kind in FORMS:
            stored = self.rng.choice((kind, "float16")) if kind == "float" else kind
            column.type = FORMS[stored]  # float32 numbers may be sent for a half-precision field
            self._dense(column, kind if self.rng.random() < 0.9 else "", role)
        elif kind == "sparse":
            column.type, vectors.dim = 104, 30000
            vectors.sparse_float_vector.contents.append(self.rng.randbytes(16))
        elif kind == "binary":
            column.type, vectors.dim, vectors.binary_vector = 100, 16, self.rng.randbytes(6)
        elif kind == "array":
            column.type, vectors.dim = 106, 2
            vectors.vector_array.data.add(dim=2).float_vector.data.extend([1.0, 2.0])
        elif kind == "struct":
            column.type = 200
            below = column.struct_arrays.fields.add(type=106, field_name="inner")
            below.vectors.vector_array.data.add(dim=2).float_vector.data.extend([1.0, 2.0])
        else:
            column.type = 5
            column.scalars.long_data.data.extend([1, 2, 3])

    def _dense(self, column: Any, form: str, role: Role) -> None:
        """A dense column of n rows; `form` "" where no row has a vector, which then only has its length."""
        n, dim = self.rng.randint(1, 4), self.rng.choice(self.dims)
        vectors = column.vectors
        if self.rng.random() < 0.3:  # nullable: as many rows as are valid
            column.valid_data.extend([True, False] * n if form else [False] * n)
        vectors.dim = dim
        rows = self._numbers(form, n, dim) if form else np.empty((0, dim), np.float32)
        if form:
            _write_column(vectors, form, rows)

        def replace(new: Any) -> None:
            vectors.dim = new.shape[1]
            if form:
                _write_column(vectors, form, new)

        key = (self.name, column.field_name, role.value, rows.tolist())
        self.places.append(Place((*key[:3], [key[3], None]), rows.shape, replace))

    def _search(self, message: Any) -> None:
        """One search: its placeholder group, its field and its bounds."""
        asked = self.rng.choice(("dense", "other", None))
        message.search_params.add(key="topk", value="10")
        if asked:
            message.search_params.add(key="anns_field", value=asked)
        kind = self.rng.choice((*FORMS, *FORMS, "sparse", "binary", "ids", "text"))
        model = self._params(message, bounds=kind != "text")  # whose scores a text's are is another test's
        if kind == "ids" and hasattr(message, "ids"):
            message.ids.int_id.data.append(3)
        elif kind in FORMS:
            self._queries(message, kind, asked, model)
            self._bounds(message, asked)
        else:
            group = common_pb2.PlaceholderGroup()
            numbers = {"sparse": 104, "binary": 100, "text": 21, "ids": 301}
            group.placeholders.add(tag="$0", type=numbers[kind], values=[b"abcd", b"efgh"])
            message.placeholder_group = group.SerializeToString()

    def _params(self, message: Any, *, bounds: bool) -> str | None:
        """The JSON of `params`, perhaps with bounds and a model."""
        params: dict[str, Any] = {"nprobe": 8, "été": [1, {"radius": 3}]}
        if bounds and self.rng.random() < 0.5:
            params["radius"], params["range_filter"] = 0.25, 1
        model = self.rng.choice((None, "e5-small"))
        if model:
            params["embedding_model"] = model
        message.search_params.add(key="params", value=json.dumps(params))
        if bounds and self.rng.random() < 0.3:
            message.search_params.add(key="radius", value="0.125")
        if self.rng.random() < 0.2:
            message.search_params.add(key="iterator", value="True")
        return model

    def _bounds(self, message: Any, asked: str | None) -> None:
        pairs = {pair.key: pair for pair in message.search_params}
        if "iterator" in pairs:
            return
        if "radius" in pairs:
            self.places.append(
                Place((self.name, asked, "score", 0.125), None, lambda new: setattr(pairs["radius"], "value", str(new)))
            )
        for key in ("radius", "range_filter"):
            params = json.loads(pairs["params"].value)
            if key in params:

                def replace(new: float, key: str = key) -> None:
                    changed = json.loads(pairs["params"].value)
                    changed[key] = new
                    pairs["params"].value = json.dumps(changed)

                self.places.append(Place((self.name, asked, "score", float(params[key])), None, replace))

    def _queries(self, message: Any, form: str, asked: str | None, model: str | None) -> None:
        n, dim = self.rng.randint(1, 3), self.rng.choice(self.dims)
        rows = self._numbers(form, n, dim)

        def replace(new: Any) -> None:
            group = common_pb2.PlaceholderGroup()
            values = [write_form(form, row) for row in new]
            group.placeholders.add(tag="$0", type=FORMS[form], values=values)
            message.placeholder_group = group.SerializeToString()

        replace(rows)
        self.places.append(Place((self.name, asked, Role.QUERY.value, [rows.tolist(), model]), rows.shape, replace))


def _write_column(vectors: Any, form: str, rows: Any) -> None:
    if form == "float":
        del vectors.float_vector.data[:]
        vectors.float_vector.data.extend(rows.ravel().tolist())
    else:
        setattr(vectors, BYTES[form], write_form(form, rows))


def same_params(message: Any) -> None:
    """Write every `params` alike, so that messages compare by what their JSON says."""
    searches = [message, *getattr(message, "sub_reqs", ()), *getattr(message, "requests", ())]
    for search in searches:
        for pair in getattr(search, "search_params", ()):
            if pair.key == "params":
                pair.value = json.dumps(json.loads(pair.value))
            elif pair.key == "radius":
                pair.value = repr(float(pair.value))


__all__ = ["ANSWERS", "REQUESTS", "WRITES", "Builder", "Place", "same_params"]
