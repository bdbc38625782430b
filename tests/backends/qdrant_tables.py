"""Where vectors stand in Qdrant's gRPC messages, as tables that tests are made from.

A path names fields; `[]` repeats them; what stands behind the colon is V (Vector), VI (VectorInput), VS (Vectors),
VO (VectorsOutput), F (bare floats) or Q (a Query level, with its prefetches).
"""

from __future__ import annotations

REQUESTS: dict[str, tuple[str, str]] = {
    "Upsert": ("UpsertPoints", "points[].vectors:VS"),
    "UpdateVectors": ("UpdatePointVectors", "points[].vectors:VS"),
    "UpdateBatch": (
        "UpdateBatchPoints",
        "operations[].upsert.points[].vectors:VS operations[].update_vectors.points[].vectors:VS",
    ),
    "Search": ("SearchPoints", "vector:F"),
    "SearchBatch": ("SearchBatchPoints", "search_points[].vector:F"),
    "SearchGroups": ("SearchPointGroups", "vector:F"),
    "Recommend": ("RecommendPoints", "positive_vectors[]:V negative_vectors[]:V"),
    "RecommendBatch": (
        "RecommendBatchPoints",
        "recommend_points[].positive_vectors[]:V recommend_points[].negative_vectors[]:V",
    ),
    "RecommendGroups": ("RecommendPointGroups", "positive_vectors[]:V negative_vectors[]:V"),
    "Discover": (
        "DiscoverPoints",
        "target.single.vector:V context[].positive.vector:V context[].negative.vector:V",
    ),
    "DiscoverBatch": (
        "DiscoverBatchPoints",
        "discover_points[].target.single.vector:V discover_points[].context[].positive.vector:V",
    ),
    "Query": ("QueryPoints", ":Q"),
    "QueryBatch": ("QueryBatchPoints", "query_points[]:Q"),
    "QueryGroups": ("QueryPointGroups", ":Q"),
    "Get": ("GetPoints", ""),
    "Scroll": ("ScrollPoints", ""),
}
ANSWERS: dict[str, tuple[str, str]] = {
    "Search": ("SearchResponse", "result[].vectors:VO"),
    "SearchBatch": ("SearchBatchResponse", "result[].result[].vectors:VO"),
    "SearchGroups": ("SearchGroupsResponse", "result.groups[].hits[].vectors:VO result.groups[].lookup.vectors:VO"),
    "Recommend": ("RecommendResponse", "result[].vectors:VO"),
    "RecommendBatch": ("RecommendBatchResponse", "result[].result[].vectors:VO"),
    "RecommendGroups": (
        "RecommendGroupsResponse",
        "result.groups[].hits[].vectors:VO result.groups[].lookup.vectors:VO",
    ),
    "Discover": ("DiscoverResponse", "result[].vectors:VO"),
    "DiscoverBatch": ("DiscoverBatchResponse", "result[].result[].vectors:VO"),
    "Query": ("QueryResponse", "result[].vectors:VO"),
    "QueryBatch": ("QueryBatchResponse", "result[].result[].vectors:VO"),
    "QueryGroups": ("QueryGroupsResponse", "result.groups[].hits[].vectors:VO result.groups[].lookup.vectors:VO"),
    "Get": ("GetResponse", "result[].vectors:VO"),
    "Scroll": ("ScrollResponse", "result[].vectors:VO"),
}
QUERY_VARIANTS = {
    "nearest": "nearest:VI",
    "nearest_with_mmr": "nearest_with_mmr.nearest:VI",
    "recommend": "recommend.positive[]:VI recommend.negative[]:VI",
    "discover": "discover.target:VI discover.context.pairs[].positive:VI discover.context.pairs[].negative:VI",
    "context": "context.pairs[].positive:VI context.pairs[].negative:VI",
    "relevance_feedback": "relevance_feedback.target:VI relevance_feedback.feedback[].example:VI",
    **dict.fromkeys(("order_by", "fusion", "sample", "formula", "rrf", "text"), ""),
}
