"""The fields of Qdrant's protobuf messages that say where vectors, texts and scores stand.

Importing the stubs of qdrant_client.grpc for their descriptors would cost every worker 65 MB and more than a second, so
the numbers stand here; a test holds each of them against those descriptors. Of a oneof every member is listed, since
each of them puts the others out of force.
"""

from __future__ import annotations

from typing import Final

from ..wire import Shape, compile_shapes

TABLE: Final = {
    "DenseVector": "data=1:floats",
    "MultiDenseVector": "vectors=1:DenseVector",
    "Document": "text=1:string model=3:string",
    "Vector": (
        "data=1:floats indices=2:SparseIndices vectors_count=3:uint dense=101:DenseVector|vector "
        "sparse=102:SparseVector|vector multi_dense=103:MultiDenseVector|vector document=104:Document|vector "
        "image=105:Image|vector object=106:InferenceObject|vector"
    ),
    "VectorInput": (
        "id=1:PointId|variant dense=2:DenseVector|variant sparse=3:SparseVector|variant "
        "multi_dense=4:MultiDenseVector|variant document=5:Document|variant image=6:Image|variant "
        "object=7:InferenceObject|variant"
    ),
    "VectorOutput": (
        "data=1:floats indices=2:SparseIndices vectors_count=3:uint dense=101:DenseVector|vector "
        "sparse=102:SparseVector|vector multi_dense=103:MultiDenseVector|vector"
    ),
    "Vectors": "vector=1:Vector|vectors_options vectors=2:NamedVectors|vectors_options",
    "NamedVectors": "vectors=1:NamedVectors.VectorsEntry",
    "VectorsOutput": "vector=1:VectorOutput|vectors_options vectors=2:NamedVectorsOutput|vectors_options",
    "NamedVectorsOutput": "vectors=1:NamedVectorsOutput.VectorsEntry",
    "NamedVectors.VectorsEntry": "key=1:string value=2:Vector",
    "NamedVectorsOutput.VectorsEntry": "key=1:string value=2:VectorOutput",
    "WithVectorsSelector": "enable=1:bool|selector_options include=2:VectorsSelector|selector_options",
    "VectorsSelector": "names=1:string",
    "WithLookup": "collection=1:string with_vectors=3:WithVectorsSelector",
    "UpsertPoints": "collection_name=1:string points=3:PointStruct",
    "PointStruct": "vectors=4:Vectors",
    "UpdatePointVectors": "collection_name=1:string points=3:PointVectors",
    "PointVectors": "vectors=2:Vectors",
    "UpdateBatchPoints": "collection_name=1:string operations=3:PointsUpdateOperation",
    "PointsUpdateOperation": (
        "upsert=1:PointsUpdateOperation.PointStructList|operation "
        "delete_deprecated=2:PointsSelector|operation "
        "set_payload=3:PointsUpdateOperation.SetPayload|operation "
        "overwrite_payload=4:PointsUpdateOperation.OverwritePayload|operation "
        "delete_payload=5:PointsUpdateOperation.DeletePayload|operation "
        "clear_payload_deprecated=6:PointsSelector|operation "
        "update_vectors=7:PointsUpdateOperation.UpdateVectors|operation "
        "delete_vectors=8:PointsUpdateOperation.DeleteVectors|operation "
        "delete_points=9:PointsUpdateOperation.DeletePoints|operation "
        "clear_payload=10:PointsUpdateOperation.ClearPayload|operation"
    ),
    "PointsUpdateOperation.PointStructList": "points=1:PointStruct",
    "PointsUpdateOperation.UpdateVectors": "points=1:PointVectors",
    "SearchPoints": (
        "collection_name=1:string vector=2:floats score_threshold=8:float vector_name=10:string "
        "with_vectors=11:WithVectorsSelector sparse_indices=15:SparseIndices"
    ),
    "SearchPointGroups": (
        "collection_name=1:string vector=2:floats score_threshold=7:float vector_name=8:string "
        "with_vectors=9:WithVectorsSelector with_lookup=13:WithLookup sparse_indices=16:SparseIndices"
    ),
    "SearchBatchPoints": "collection_name=1:string search_points=2:SearchPoints",
    "RecommendPoints": (
        "collection_name=1:string score_threshold=9:float using=11:string with_vectors=12:WithVectorsSelector "
        "strategy=16:enum positive_vectors=17:Vector negative_vectors=18:Vector"
    ),
    "RecommendPointGroups": (
        "collection_name=1:string score_threshold=8:float using=9:string with_vectors=10:WithVectorsSelector "
        "with_lookup=15:WithLookup strategy=17:enum positive_vectors=18:Vector negative_vectors=19:Vector"
    ),
    "RecommendBatchPoints": "collection_name=1:string recommend_points=2:RecommendPoints",
    "DiscoverPoints": (
        "collection_name=1:string target=2:TargetVector context=3:ContextExamplePair using=9:string "
        "with_vectors=10:WithVectorsSelector"
    ),
    "DiscoverBatchPoints": "collection_name=1:string discover_points=2:DiscoverPoints",
    "TargetVector": "single=1:VectorExample|target",
    "VectorExample": "id=1:PointId|example vector=2:Vector|example",
    "ContextExamplePair": "positive=1:VectorExample negative=2:VectorExample",
    "QueryPoints": (
        "collection_name=1:string prefetch=2:PrefetchQuery query=3:Query using=4:string "
        "score_threshold=7:float with_vectors=10:WithVectorsSelector"
    ),
    "QueryPointGroups": (
        "collection_name=1:string prefetch=2:PrefetchQuery query=3:Query using=4:string "
        "score_threshold=7:float with_vectors=9:WithVectorsSelector with_lookup=15:WithLookup"
    ),
    "QueryBatchPoints": "collection_name=1:string query_points=2:QueryPoints",
    "PrefetchQuery": "prefetch=1:PrefetchQuery query=2:Query using=3:string score_threshold=6:float",
    "Query": (
        "nearest=1:VectorInput|variant recommend=2:RecommendInput|variant discover=3:DiscoverInput|variant "
        "context=4:ContextInput|variant order_by=5:OrderBy|variant fusion=6:enum|variant "
        "sample=7:enum|variant formula=8:Formula|variant nearest_with_mmr=9:NearestInputWithMmr|variant "
        "rrf=10:Rrf|variant relevance_feedback=11:RelevanceFeedbackInput|variant text=12:TextQuery|variant"
    ),
    "NearestInputWithMmr": "nearest=1:VectorInput",
    "RecommendInput": "positive=1:VectorInput negative=2:VectorInput strategy=3:enum",
    "DiscoverInput": "target=1:VectorInput context=2:ContextInput",
    "ContextInput": "pairs=1:ContextInputPair",
    "ContextInputPair": "positive=1:VectorInput negative=2:VectorInput",
    "RelevanceFeedbackInput": "target=1:VectorInput feedback=2:FeedbackItem",
    "FeedbackItem": "example=1:VectorInput score=2:float",
    "GetPoints": "collection_name=1:string with_vectors=5:WithVectorsSelector",
    "ScrollPoints": "collection_name=1:string with_vectors=7:WithVectorsSelector",
    "GetResponse": "result=1:RetrievedPoint",
    "ScrollResponse": "result=2:RetrievedPoint",
    "SearchResponse": "result=1:ScoredPoint",
    "SearchBatchResponse": "result=1:BatchResult",
    "SearchGroupsResponse": "result=1:GroupsResult",
    "RecommendResponse": "result=1:ScoredPoint",
    "RecommendBatchResponse": "result=1:BatchResult",
    "RecommendGroupsResponse": "result=1:GroupsResult",
    "DiscoverResponse": "result=1:ScoredPoint",
    "DiscoverBatchResponse": "result=1:BatchResult",
    "QueryResponse": "result=1:ScoredPoint",
    "QueryBatchResponse": "result=1:BatchResult",
    "QueryGroupsResponse": "result=1:GroupsResult",
    "BatchResult": "result=1:ScoredPoint",
    "GroupsResult": "groups=1:PointGroup",
    "PointGroup": "hits=2:ScoredPoint lookup=3:RetrievedPoint",
    "ScoredPoint": "vectors=6:VectorsOutput",
    "RetrievedPoint": "vectors=4:VectorsOutput",
}

SHAPES: Final[dict[str, Shape]] = compile_shapes(TABLE)
