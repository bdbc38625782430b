"""REST bodies of search, recommend and discover, which newer clients no longer know and servers still serve.

Each becomes the universal query that it stands for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ConfigDict
from qdrant_client import grpc as pb
from qdrant_client.http import models

from .errors import BadRequest
from .rest_requests import grouped, parse, plain_query

Dense = list[float]
Example = models.VectorInput


class _Page(BaseModel):
    """What every one of these requests may carry."""

    model_config = ConfigDict(extra="ignore")  # as Qdrant's own parser does

    shard_key: models.ShardKeySelector | None = None
    filter: models.Filter | None = None
    params: models.SearchParams | None = None
    limit: int
    offset: int | None = None
    with_payload: models.WithPayloadInterface | None = None
    with_vector: models.WithVector | None = None
    score_threshold: float | None = None


class _Groups(BaseModel):
    """What makes a request a grouped one."""

    group_by: str
    group_size: int
    with_lookup: models.WithLookupInterface | None = None


class NamedVector(BaseModel):
    """A vector and the name it is stored under."""

    name: str
    vector: Dense | models.SparseVector


class Search(_Page):
    """A search by vector."""

    vector: Dense | NamedVector

    def as_query(self) -> dict[str, Any]:
        """The query and vector name that this stands for."""
        if isinstance(self.vector, NamedVector):
            return {"query": models.NearestQuery(nearest=self.vector.vector), "using": self.vector.name}
        return {"query": models.NearestQuery(nearest=self.vector)}


class Recommend(_Page):
    """A search by examples."""

    positive: list[Example] = []
    negative: list[Example] = []
    strategy: models.RecommendStrategy | None = None
    using: str | None = None
    lookup_from: models.LookupLocation | None = None

    def as_query(self) -> dict[str, Any]:
        """The query and vector name that this stands for."""
        examples = models.RecommendInput(positive=self.positive, negative=self.negative, strategy=self.strategy)
        return {
            "query": models.RecommendQuery(recommend=examples),
            "using": self.using,
            "lookup_from": self.lookup_from,
        }


class Discover(_Page):
    """A search by a target within a context of pairs."""

    target: Example | None = None
    context: list[models.ContextPair] = []
    using: str | None = None
    lookup_from: models.LookupLocation | None = None

    def as_query(self) -> dict[str, Any]:
        """The query and vector name that this stands for."""
        query: Any
        if self.target is not None:
            query = models.DiscoverQuery(discover=models.DiscoverInput(target=self.target, context=self.context))
        elif self.context:
            query = models.ContextQuery(context=self.context)
        else:
            raise BadRequest("Discovery needs a target, a context of pairs, or both")
        return {"query": query, "using": self.using, "lookup_from": self.lookup_from}


class SearchGroups(Search, _Groups):
    """A grouped search."""


class RecommendGroups(Recommend, _Groups):
    """A grouped recommendation."""


def _fields(model: Any, *names: str) -> dict[str, Any]:
    return {name: getattr(model, name) for name in names}


def _as_query(model: Any) -> pb.QueryPoints:
    shared = _fields(model, *(name for name in _Page.model_fields))
    return plain_query(models.QueryRequest(**shared, **model.as_query()))


def single(shape: type[BaseModel]) -> Callable[[bytes], pb.QueryPoints]:
    """A reader of one request of this shape."""
    return lambda body: _as_query(parse(shape, body))


def batch(shape: type[BaseModel]) -> Callable[[bytes], pb.QueryBatchPoints]:
    """A reader of `{"searches": [...]}`."""
    many = dict[str, list[shape]]  # type: ignore[valid-type]  # a shape chosen at import

    def read(body: bytes) -> pb.QueryBatchPoints:
        searches = parse(many, body).get("searches", [])
        return pb.QueryBatchPoints(query_points=[_as_query(search) for search in searches])

    return read


def groups(shape: type[BaseModel]) -> Callable[[bytes], pb.QueryPointGroups]:
    """A reader of one grouped request of this shape."""

    def read(body: bytes) -> pb.QueryPointGroups:
        model: Any = parse(shape, body)
        shared = _fields(model, *(name for name in _Page.model_fields if name != "offset"), *_Groups.model_fields)
        return grouped(models.QueryGroupsRequest(**shared, **model.as_query()))

    return read
