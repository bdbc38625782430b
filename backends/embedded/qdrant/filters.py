"""Filters: protobuf to the engine's conditions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp
from qdrant_client import grpc as pb

from .engine import edge
from .errors import WrongInput
from .values import given, read_id


def read_filter(message: pb.Filter) -> Any:
    """The engine's filter; an empty one matches every point."""
    min_should = None
    if message.HasField("min_should"):
        conditions = read_conditions(message.min_should.conditions)
        min_should = edge.MinShould(conditions, message.min_should.min_count)
    return edge.Filter(
        must=read_conditions(message.must) or None,
        should=read_conditions(message.should) or None,
        must_not=read_conditions(message.must_not) or None,
        min_should=min_should,
    )


def read_conditions(conditions: Iterable[pb.Condition]) -> list[Any]:
    """The engine's form of each condition."""
    return [read_condition(condition) for condition in conditions]


def read_condition(condition: pb.Condition) -> Any:
    """The engine's form of one condition; raises WrongInput for an empty one."""
    kind = condition.WhichOneof("condition_one_of")
    match kind:
        case "field":
            return read_field(condition.field)
        case "is_empty":
            return edge.IsEmptyCondition(condition.is_empty.key)
        case "is_null":
            return edge.IsNullCondition(condition.is_null.key)
        case "has_id":
            return edge.HasIdCondition({read_id(point) for point in condition.has_id.has_id})
        case "has_vector":
            return edge.HasVectorCondition(condition.has_vector.has_vector)
        case "nested":
            return edge.NestedCondition(condition.nested.key, read_filter(condition.nested.filter))
        case "filter":
            return read_filter(condition.filter)
        case "slice":
            return edge.SliceCondition(condition.slice.total, condition.slice.index)
    raise WrongInput("Malformed condition: none of its kinds is set")


def read_field(field: pb.FieldCondition) -> Any:
    """The engine's condition on one payload key."""
    return edge.FieldCondition(
        key=field.key,
        match=_read_match(field.match, field.key) if field.HasField("match") else None,
        range=_read_range(field),
        geo_bounding_box=_read_box(field.geo_bounding_box) if field.HasField("geo_bounding_box") else None,
        geo_radius=_read_radius(field.geo_radius) if field.HasField("geo_radius") else None,
        geo_polygon=_read_polygon(field.geo_polygon) if field.HasField("geo_polygon") else None,
        values_count=_read_counts(field.values_count) if field.HasField("values_count") else None,
        is_empty=given(field, "is_empty"),
        is_null=given(field, "is_null"),
    )


def _read_match(match: pb.Match, key: str) -> Any:
    kind = match.WhichOneof("match_value")
    match kind:
        case "keyword" | "integer":
            return edge.MatchValue(getattr(match, kind))
        case "boolean":
            return edge.MatchValue(np.bool_(match.boolean))  # a plain bool is taken for the number 0 or 1
        case "text":
            return edge.MatchText(match.text)
        case "text_any":
            return edge.MatchTextAny(match.text_any)
        case "phrase":
            return edge.MatchPhrase(match.phrase)
        case "prefix":
            return edge.MatchPrefix(match.prefix)
        case "substring":
            return edge.MatchSubstring(match.substring)
        case "keywords":
            return edge.MatchAny(list(match.keywords.strings))
        case "integers":
            return edge.MatchAny(list(match.integers.integers))
        case "except_keywords":
            return edge.MatchExcept(list(match.except_keywords.strings))
        case "except_integers":
            return edge.MatchExcept(list(match.except_integers.integers))
    raise WrongInput(f"Malformed Match condition on `{key}`: none of its kinds is set")


def _read_range(field: pb.FieldCondition) -> Any:
    if field.HasField("datetime_range"):
        times = field.datetime_range
        return edge.RangeDateTime(**{bound: _read_time(times, bound) for bound in ("gte", "gt", "lte", "lt")})
    if not field.HasField("range"):
        return None
    return edge.RangeFloat(**{bound: given(field.range, bound) for bound in ("gte", "gt", "lte", "lt")})


def _read_time(times: pb.DatetimeRange, bound: str) -> str | None:
    return write_time(getattr(times, bound)) if times.HasField(bound) else None  # type: ignore[arg-type]  # a bound


def write_time(moment: Timestamp) -> str:
    """RFC 3339 text of a protobuf timestamp, to the nanosecond."""
    return moment.ToJsonString()


def read_point(point: pb.GeoPoint) -> Any:
    """The engine's geographic point."""
    return edge.GeoPoint(point.lon, point.lat)


def _read_box(box: pb.GeoBoundingBox) -> Any:
    return edge.GeoBoundingBox(read_point(box.top_left), read_point(box.bottom_right))


def _read_radius(circle: pb.GeoRadius) -> Any:
    return edge.GeoRadius(read_point(circle.center), circle.radius)


def _read_polygon(polygon: pb.GeoPolygon) -> Any:
    interiors = [[read_point(point) for point in line.points] for line in polygon.interiors]
    return edge.GeoPolygon([read_point(point) for point in polygon.exterior.points], interiors or None)


def _read_counts(counts: pb.ValuesCount) -> Any:
    return edge.ValuesCount(**{bound: given(counts, bound) for bound in ("lt", "gt", "lte", "gte")})
