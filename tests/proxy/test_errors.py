"""The tree of errors: drawn completely, split by fault, and messages that say what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import grpc
import pytest

from crossfade.proxy import errors
from crossfade.proxy.errors import (
    AdapterUnavailable,
    BadVector,
    BodyTooLarge,
    CaptureFailed,
    ChangeRefused,
    ConfigError,
    CrossfadeError,
    EncoderFailed,
    EncoderMissing,
    ForeignVector,
    ListingRefused,
    MalformedRequest,
    ModelNotMapped,
    OperatorError,
    Problem,
    RequestError,
    SchemaUnknown,
    UnknownModel,
    UnknownStrategy,
    UpstreamDown,
    UpstreamError,
    UpstreamTimeout,
    VerdictUnusable,
    WritesHeld,
    WrongDimension,
)

KNOWN = {"old": 384, "new": 768}
EXAMPLES: list[tuple[CrossfadeError, int, int, list[str]]] = [
    (
        UnknownStrategy(strategy="fast", collection="docs", known=["adapt", "native"]),
        3,
        400,
        ["'docs'", "x-crossfade-strategy", "'fast'", "adapt", "native"],
    ),
    (
        ListingRefused(operation="Delete", collection="docs", reason="no privilege"),
        3,
        400,
        ["Delete", "'docs'", "no privilege", "nothing was written"],
    ),
    (
        ChangeRefused(operation="DeleteCollection", collection="docs", model="new", reason="cancel it first"),
        9,
        409,
        ["DeleteCollection", "'docs'", "'new'", "cancel it first"],
    ),
    (CaptureFailed(collection="docs", reason="disk full"), 14, 503, ["'docs'", "disk full", "migrate.writes: open"]),
    (WritesHeld(collection="docs", seconds=13.0), 14, 503, ["'docs'", "13.0 s", "retry"]),
    (
        WrongDimension(dim=768, model="old", collection="docs", field="title", known=KNOWN),
        3,
        400,
        ["'docs'", "'title'", "768", "384", "old (384), new (768)", "declare one of 'new'"],
    ),
    (
        WrongDimension(dim=5, model="old", collection="docs", field="", known=KNOWN),
        3,
        400,
        ["5 dimensions", "send vectors of one of these models"],
    ),
    (
        UnknownModel(model="gpt", collection="docs", declared_by="the header x-embedding-model", known=KNOWN),
        3,
        400,
        ["'docs'", "the header x-embedding-model declares the model 'gpt'", "old (384)"],
    ),
    (BadVector(collection="docs", field="", row=3, rows=7), 3, 400, ["'docs'", "vector 3 of 7", "NaN or infinity"]),
    (MalformedRequest("Points/Search", "truncated at byte 12"), 3, 400, ["Points/Search", "truncated at byte 12"]),
    (
        ForeignVector(collection="docs", field="", row=0, rows=1, model="new", likely="old"),
        3,
        400,
        ["declared as 'new' but looks like one of 'old'", "detect.fingerprint"],
    ),
    (
        ModelNotMapped(model="gpt", index_model="old", collection="docs", field="", mapped=["new"]),
        9,
        400,
        ["no adapter from 'gpt'", "'old', 'new'", "fit an adapter"],
    ),
    (BodyTooLarge(size=600_000_000, limit=536_870_912), 8, 413, ["600,000,000", "536,870,912", "limits.body"]),
    (BodyTooLarge(size=None, limit=10), 8, 413, ["goes on, beyond the limit of 10 bytes"]),
    (
        AdapterUnavailable(collection="docs", field="t", model="new", path=Path("/a/b"), reason="card.json is missing"),
        9,
        500,
        ["'docs'", "'t'", "'new'", "/a/b", "card.json is missing", "crossfade check"],
    ),
    (
        VerdictUnusable(collection="docs", path=Path("/a/probe.json"), reason="it is no probe.json"),
        9,
        500,
        ["collections.docs.migrate.verdict", "/a/probe.json", "it is no probe.json", "crossfade probe"],
    ),
    (EncoderMissing(model="new"), 9, 500, ["'new'", "models.new.encoder"]),
    (EncoderMissing(model="new", reason="no such module"), 9, 500, ["'new'", "no such module"]),
    (
        UpstreamDown(upstream="main", address="qdrant:6334", reason="connection refused"),
        14,
        503,
        ["'main'", "qdrant:6334", "connection refused"],
    ),
    (
        SchemaUnknown(collection="docs", upstream="main", reason="no privilege"),
        9,
        502,
        ["'docs'", "which of its fields hold vectors", "'main'", "no privilege"],
    ),
    (UpstreamTimeout(upstream="main", address="qdrant:6334", seconds=0.5), 4, 504, ["'main'", "qdrant:6334", "0.5 s"]),
    (
        EncoderFailed(model="new", endpoint="http://tei/v1", reason="overloaded", status=429),
        14,
        503,
        ["'new'", "http://tei/v1", "(HTTP 429)", "overloaded"],
    ),
]


def subclasses(of: type[CrossfadeError]) -> Iterator[type[CrossfadeError]]:
    for each in of.__subclasses__():
        if each.__module__ == errors.__name__:
            yield each
            yield from subclasses(each)


TREE = list(subclasses(CrossfadeError))


@pytest.mark.parametrize(
    ("error", "grpc_code", "http_status", "words"), EXAMPLES, ids=lambda value: type(value).__name__
)
def test_an_error_says_where_both_numbers_and_what_to_do(
    error: CrossfadeError, grpc_code: int, http_status: int, words: list[str]
) -> None:
    assert [word for word in words if word not in str(error)] == []
    assert (error.grpc_code, error.http_status) == (grpc_code, http_status)


def test_every_error_has_an_example_here() -> None:
    shown = {type(error) for error, *_ in EXAMPLES} | {ConfigError, RequestError, OperatorError, UpstreamError}
    assert set(TREE) == shown


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    assert errors.__doc__ is not None
    drawn = re.findall(r"^[| ]*[|'][-] (\w+)", errors.__doc__, flags=re.MULTILINE)
    assert drawn == [each.__name__ for each in TREE]


def test_labels_are_unique_so_that_metrics_tell_kinds_apart() -> None:
    labels = [each.label for each in TREE]
    assert len(labels) == len(set(labels))


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_codes_are_real_and_faults_agree_with_them(kind: type[CrossfadeError]) -> None:
    codes = {code.value[0] for code in grpc.StatusCode}
    assert kind.grpc_code in codes
    status = HTTPStatus(kind.http_status).value
    assert (400 <= status < 500) == (kind.fault == "client")
    assert (kind.fault == "upstream") == issubclass(kind, UpstreamError)


def test_a_configuration_error_lists_its_problems() -> None:
    error = ConfigError([Problem("a.b", 3, "is wrong"), Problem("", None, "cannot be read")], "x.yaml")
    assert str(error) == "x.yaml: 2 problems\n  line 3: a.b: is wrong\n  cannot be read"
