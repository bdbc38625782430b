"""The fields of Milvus's protobuf messages that say where vectors, texts and scores stand.

The stubs of pymilvus would cost every worker some hundred megabytes (pandas comes with them), so the numbers stand
here; a test holds each of them against those descriptors. Of a oneof every member is listed, since each of them puts
the others out of force.
"""

from __future__ import annotations

from typing import Final

from ..wire import Shape, compile_shapes

TABLE: Final = {
    "FloatArray": "data=1:floats",
    "VectorField": (
        "dim=1:uint float_vector=2:FloatArray|data binary_vector=3:bytes|data float16_vector=4:bytes|data "
        "bfloat16_vector=5:bytes|data sparse_float_vector=6:SparseFloatArray|data int8_vector=7:bytes|data "
        "vector_array=8:VectorArray|data"
    ),
    "FieldData": (
        "type=1:enum field_name=2:string scalars=3:ScalarField|field vectors=4:VectorField|field "
        "struct_arrays=8:StructArrayField|field"
    ),
    "InsertRequest": "db_name=2:string collection_name=3:string fields_data=5:FieldData",
    "UpsertRequest": "db_name=2:string collection_name=3:string fields_data=5:FieldData",
    "SearchRequest": (
        "db_name=2:string collection_name=3:string placeholder_group=6:PlaceholderGroup|search_input "
        "output_fields=8:string search_params=9:KeyValuePair sub_reqs=17:SubSearchRequest ids=22:IDs|search_input"
    ),
    "SubSearchRequest": "placeholder_group=2:PlaceholderGroup search_params=4:KeyValuePair",
    "HybridSearchRequest": (
        "db_name=2:string collection_name=3:string requests=5:SearchRequest output_fields=10:string"
    ),
    "QueryRequest": "db_name=2:string collection_name=3:string output_fields=5:string",
    "KeyValuePair": "key=1:string value=2:string",
    "PlaceholderGroup": "placeholders=1:PlaceholderValue",
    "PlaceholderValue": "type=2:enum values=3:bytes",
    "SearchResults": "results=2:SearchResultData",
    "SearchResultData": "fields_data=3:FieldData group_by_field_value=8:FieldData group_by_field_values=17:FieldData",
    "QueryResults": "fields_data=2:FieldData",
    "DescribeCollectionRequest": "db_name=2:string collection_name=3:string",
    "BatchDescribeCollectionRequest": "db_name=1:string collection_name=2:string",
    "DescribeCollectionResponse": (
        "status=1:Status schema=2:CollectionSchema collection_name=12:string db_name=14:string"
    ),
    "BatchDescribeCollectionResponse": "responses=2:DescribeCollectionResponse",
    "Status": "error_code=1:enum reason=2:string code=3:uint retriable=4:bool detail=5:string",
    "CollectionSchema": "name=1:string fields=4:FieldSchema",
    "FieldSchema": "name=2:string is_primary_key=3:bool data_type=5:enum type_params=6:KeyValuePair autoID=8:bool",
}

SHAPES: Final[dict[str, Shape]] = compile_shapes(TABLE)

SERVICE: Final = "/milvus.proto.milvus.MilvusService"
VARCHAR: Final = 21  # schema.DataType
DENSE_TYPES: Final = {101: "float", 102: "float16", 103: "bfloat16", 105: "int8"}
"""schema.DataType and common.PlaceholderType of dense vectors -> their form (forms.py)."""
TEXT_TYPE: Final = 21  # a VarChar placeholder
