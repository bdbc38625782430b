"""Columns of every kind cut by row and put together again, and answers whose hits are exchanged."""

from __future__ import annotations

import random
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymilvus.grpc_gen import milvus_pb2, schema_pb2

from crossfade.backends.dialect import MalformedError
from crossfade.backends.milvus.cutting import Column, cut_rows, join_rows, read_column, write_column
from crossfade.backends.milvus.hits import form_hits, read_hits
from crossfade.backends.wire import root_span

SEEDS = st.integers(0, 2**32)
SCALARS = [field.name for field in schema_pb2.ScalarField.DESCRIPTOR.fields]
VECTORS = [field.name for field in schema_pb2.VectorField.DESCRIPTOR.fields if field.name != "dim"]
DIM = 8
BYTES = {"binary_vector": 1, "float16_vector": 16, "bfloat16_vector": 16, "int8_vector": 8}


def read(body: bytes) -> Column:
    return read_column(body, root_span(body, "FieldData"))


def value(rng: random.Random, name: str) -> Any:
    """One row's value of a member of ScalarField."""
    if name == "array_data":
        inner = rng.choice([one for one in SCALARS if one != "array_data"])
        array = schema_pb2.ScalarField()
        getattr(array, inner).data.extend([value(rng, inner) for _ in range(rng.randint(0, 3))])
        return array
    if name == "bool_data":
        return rng.random() < 0.5
    if name in ("float_data", "double_data"):
        return struct.unpack("<f", struct.pack("<f", rng.gauss(0, 9)))[0]
    if name in ("string_data", "geometry_wkt_data", "mol_smiles_data"):
        return rng.choice(["", "é", "a" * rng.choice([1, 200])])
    if name in ("bytes_data", "json_data", "geometry_data", "mol_data"):
        return rng.choice([b"", b'{"a": 1}', b"\x00\xff" * 90])
    return rng.choice([0, -1, 7, 300, -(2**31), 2**31 - 1])


def add_row(rng: random.Random, column: Any, name: str) -> None:
    """Append one row to a FieldData."""
    if name in SCALARS:
        getattr(column.scalars, name).data.append(value(rng, name))
        return
    vectors = column.vectors
    vectors.dim = DIM
    if name == "float_vector":
        vectors.float_vector.data.extend(value(rng, "float_data") for _ in range(DIM))
    elif name == "sparse_float_vector":
        size = rng.randint(0, 3)
        vectors.sparse_float_vector.contents.append(rng.randbytes(8 * size))
        vectors.sparse_float_vector.dim = max(vectors.sparse_float_vector.dim, size)
    elif name == "vector_array":
        vectors.vector_array.dim, vectors.vector_array.element_type = DIM, 101
        inner = vectors.vector_array.data.add(dim=DIM)
        inner.float_vector.data.extend(rng.random() for _ in range(DIM * rng.randint(1, 3)))
    else:
        setattr(vectors, name, getattr(vectors, name) + rng.randbytes(BYTES[name]))


def make_columns(rng: random.Random, name: str, rows: int, nulls: str, seed: int) -> list[Any]:
    """The first row, the first two, ... and all rows of the same column; the last is the whole, the others its rows."""
    whole, alone = head(rng), []
    valid = [nulls == "none" or rng.random() < 0.6 for _ in range(rows)]
    for row in range(rows):
        one = type(whole).FromString(whole.SerializeToString()) if row == 0 else head(rng)
        for field in ("type", "field_name", "field_id", "is_dynamic"):
            setattr(one, field, getattr(whole, field))
        touch(one, name)
        if valid[row] or nulls == "full":
            state = rng.getstate()
            add_row(rng, one, name)
            rng.setstate(state)
            touch(whole, name)
            add_row(rng, whole, name)
        if nulls != "none":
            one.valid_data.append(valid[row])
        alone.append(one)
    if nulls != "none":
        whole.valid_data.extend(valid)
    touch(whole, name)
    return [*alone, whole]


def touch(column: Any, name: str) -> None:
    """Make the member present, whether it has data or not."""
    if name in SCALARS:
        getattr(column.scalars, name).SetInParent()
    else:
        column.vectors.dim = DIM
        member = getattr(column.vectors, name)
        if isinstance(member, bytes):
            setattr(column.vectors, name, member)
        else:
            member.SetInParent()


def head(rng: random.Random) -> Any:
    return schema_pb2.FieldData(
        type=rng.choice([5, 21, 23, 101]), field_name="f é", field_id=rng.randint(0, 300), is_dynamic=rng.random() < 0.5
    )


def settle_beside(column: Any, whole: Any) -> Any:
    """A row alone tells what its column tells beside the data, the length of the longest sparse vector, say."""
    if column.vectors.HasField("sparse_float_vector"):
        column.vectors.sparse_float_vector.dim = whole.vectors.sparse_float_vector.dim
    if column.vectors.HasField("vector_array"):
        for name in ("dim", "element_type"):
            setattr(column.vectors.vector_array, name, getattr(whole.vectors.vector_array, name))
    return column


def spread(message: Any, rng: random.Random) -> bytes:
    """The message in two parts that every reader merges, and with something unknown beside it."""
    body: bytes = message.SerializeToString()
    first = schema_pb2.FieldData.FromString(body)
    if message.HasField("scalars") and rng.random() < 0.7:
        name = message.scalars.WhichOneof("data")
        values = list(getattr(message.scalars, name).data) if name else []
        if len(values) > 1:
            at, second = rng.randrange(len(values)), schema_pb2.FieldData()
            for part, some in ((first, values[:at]), (second, values[at:])):
                del getattr(part.scalars, name).data[:]
                getattr(part.scalars, name).data.extend(some)
            body = first.SerializeToString() + second.SerializeToString()
    return body + rng.choice([b"", b"\xf8\x7d\x96\x01"])


@pytest.mark.parametrize("nulls", ["none", "full", "left out"])
@pytest.mark.parametrize("name", [*SCALARS, *VECTORS])
@settings(max_examples=25, deadline=None)
@given(seed=SEEDS)
def test_a_column_cut_by_row_gives_each_row_and_put_together_the_column(name: str, nulls: str, seed: int) -> None:
    rng = random.Random(seed)
    *alone, whole = make_columns(rng, name, rng.randint(1, 6), nulls, seed)
    rows = cut_rows(read(spread(whole, rng)), len(alone))
    for row, expected in zip(rows, alone, strict=True):
        found = schema_pb2.FieldData.FromString(write_column(row))
        found.DiscardUnknownFields()
        assert found == settle_beside(expected, whole)
    read_again = [read(write_column(row)) for row in rows]
    joined = schema_pb2.FieldData.FromString(write_column(join_rows(read_again)))
    joined.DiscardUnknownFields()
    assert joined == whole


def test_columns_inside_a_column_of_structs_are_cut_as_well() -> None:
    whole = schema_pb2.FieldData(type=201, field_name="s", valid_data=[True, True, True])
    for name in ("string_data", "array_data"):
        inner = whole.struct_arrays.fields.add(type=22, field_name=name)
        for _ in range(3):
            add_row(random.Random(3), inner, name)
    rows = cut_rows(read(whole.SerializeToString()), 3)
    one = schema_pb2.FieldData.FromString(write_column(rows[1]))
    assert [
        len(field.scalars.string_data.data) + len(field.scalars.array_data.data) for field in one.struct_arrays.fields
    ] == [1, 1]
    assert schema_pb2.FieldData.FromString(write_column(join_rows(rows))) == whole


def test_rows_of_columns_with_and_without_nulls_come_together() -> None:
    plain, nullable = (schema_pb2.FieldData(type=21, field_name="t") for _ in range(2))
    plain.scalars.string_data.data.extend(["a", "b"])
    nullable.scalars.string_data.data.extend(["", "c"])
    nullable.valid_data.extend([False, True])
    rows = [*cut_rows(read(plain.SerializeToString()), 2), *cut_rows(read(nullable.SerializeToString()), 2)]
    joined = schema_pb2.FieldData.FromString(write_column(join_rows(rows)))
    assert list(joined.scalars.string_data.data) == ["a", "b", "", "c"]
    assert list(joined.valid_data) == [True, True, False, True]


def test_a_column_that_cannot_be_cut_is_refused() -> None:
    strange = schema_pb2.FieldData(field_name="x").SerializeToString() + b"\x1a\x05\xfa\x01\x02\x0a\x00"  # scalars 31
    with pytest.raises(MalformedError, match="5 bytes are data of a kind that cannot be cut"):
        read(strange)
    short = schema_pb2.FieldData()
    short.scalars.long_data.data.extend([1, 2])
    with pytest.raises(MalformedError, match="2 values for 3 rows"):
        cut_rows(read(short.SerializeToString()), 3)
    short.valid_data.extend([True])
    with pytest.raises(MalformedError, match="says of 1 rows"):
        cut_rows(read(short.SerializeToString()), 2)
    wide, narrow = schema_pb2.FieldData(), schema_pb2.FieldData()
    for column, dim in ((wide, 3), (narrow, 2)):
        column.vectors.dim = dim
        column.vectors.float_vector.data.extend([1.0] * dim)
    with pytest.raises(MalformedError, match=r"different dimensions in one column: \[2, 3\]"):
        join_rows([read(wide.SerializeToString()), read(narrow.SerializeToString())])
    with pytest.raises(MalformedError, match="different kinds"):
        join_rows(
            [read(wide.SerializeToString()), read(schema_pb2.FieldData(scalars=short.scalars).SerializeToString())]
        )
    wide.vectors.float_vector.data.append(1.0)
    with pytest.raises(MalformedError, match="no whole vectors"):
        read(wide.SerializeToString())


def answer_of(rng: random.Random, text_ids: bool, counts: list[int]) -> Any:
    """An answer to several queries, with columns of every kind."""
    total = sum(counts)
    results = schema_pb2.SearchResultData(
        num_queries=len(counts), top_k=max(counts, default=0), topks=counts, all_search_count=77,
        scores=[struct.unpack("<f", struct.pack("<f", rng.random()))[0] for _ in range(total)],
        output_fields=["a", "b"], primary_field_name="pk",
    )  # fmt: skip
    ids = rng.sample(range(-50, 1000), total)
    if text_ids:
        results.ids.str_id.data.extend(f"é{one}" for one in ids)
    else:
        results.ids.int_id.data.extend(ids)
    for name in rng.sample([*SCALARS, *VECTORS], 4):
        column = make_columns(rng, name, total, rng.choice(["none", "full", "left out"]), 0)[-1] if total else head(rng)
        column.field_name = name
        results.fields_data.append(column)
    return milvus_pb2.SearchResults(results=results, collection_name="docs", session_ts=5)


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, text_ids=st.booleans())
def test_an_answer_of_its_own_hits_is_the_answer(seed: int, text_ids: bool) -> None:
    rng = random.Random(seed)
    answer = answer_of(rng, text_ids, [rng.randint(0, 4) for _ in range(rng.randint(1, 3))])
    body = answer.SerializeToString()
    hits = read_hits(body)
    ids = answer.results.ids.str_id.data if text_ids else answer.results.ids.int_id.data
    assert [hit.id for one in hits for hit in one] == list(ids)
    assert [len(one) for one in hits] == list(answer.results.topks)
    found = milvus_pb2.SearchResults.FromString(form_hits(body, hits, -1, shows=True))
    if not ids:  # nothing then tells columns, and ids of no kind
        for message in (answer, found):
            del message.results.fields_data[:], message.results.output_fields[:]
            message.results.ClearField("ids")
    assert found == answer


def test_hits_of_two_answers_stand_in_one_in_the_order_given_with_their_rows_and_scores() -> None:
    rng = random.Random(5)
    first, second = answer_of(rng, False, [3]), milvus_pb2.SearchResults()
    second.CopyFrom(first)
    second.results.ids.int_id.data[:] = [2001, 2002, 2003]
    mine, theirs = read_hits(first.SerializeToString())[0], read_hits(second.SerializeToString())[0]
    chosen = [theirs[2]._replace(score=0.98765), mine[0], theirs[0]]
    found = milvus_pb2.SearchResults.FromString(form_hits(first.SerializeToString(), [chosen], 2, shows=True))
    assert list(found.results.ids.int_id.data) == [2003, mine[0].id, 2001]
    assert list(found.results.scores) == pytest.approx([0.99, round(mine[0].score, 2), round(theirs[0].score, 2)])
    assert (found.results.topks, found.results.top_k, found.collection_name) == ([3], 3, "docs")
    for before, after in zip(first.results.fields_data, found.results.fields_data, strict=True):
        rows = cut_rows(read(before.SerializeToString()), 3)
        expected = join_rows([rows[2], rows[0], rows[0]])
        assert after == schema_pb2.FieldData.FromString(write_column(expected))
    bare = milvus_pb2.SearchResults.FromString(form_hits(first.SerializeToString(), [chosen], -1, shows=False))
    assert not bare.results.fields_data
    assert not bare.results.output_fields


def test_answers_that_say_more_of_their_hits_than_can_be_cut_are_refused() -> None:
    answer = answer_of(random.Random(1), False, [2])
    answer.results.element_indices.data.extend([1, 2])
    with pytest.raises(MalformedError, match="element_indices"):
        read_hits(answer.SerializeToString())
    answer = answer_of(random.Random(1), False, [2])
    answer.results.topks[0] = 3
    with pytest.raises(MalformedError, match="2 ids and 2 scores for 3 hits"):
        read_hits(answer.SerializeToString())
    with pytest.raises(MalformedError, match="no results"):
        form_hits(b"", [[]], -1, shows=False)
    hits = read_hits(answer_of(random.Random(1), False, [1]).SerializeToString())[0]
    others = read_hits(answer_of(random.Random(2), False, [1]).SerializeToString())[0]
    with pytest.raises(MalformedError, match="different columns"):
        form_hits(answer.SerializeToString(), [[*hits, *others]], -1, shows=True)
