"""Everything that can go wrong, split by whose fault it is.

CrossfadeError
|- ConfigError               operator   the configuration cannot be used; lists every problem
|- RequestError              client     INVALID_ARGUMENT 3   400
|  |- WrongDimension                    a vector is not as long as its model's vectors
|  |- UnknownModel                      a declared model is not in the configuration
|  |- BadVector                         NaN or infinity in a vector
|  |- MalformedRequest                  bytes that are not what the method says
|  |- UnknownStrategy                   a strategy that is none (x-crossfade-strategy)
|  |- ForeignVector                     a vector that does not look like its model's (fingerprint: refuse)
|  |- ModelNotMapped         FAILED_PRECONDITION 9  400   a known model without an adapter into this index
|  |- ChangeRefused          FAILED_PRECONDITION 9  409   a change that a migration under way forbids
|  |- ListingRefused                    the points that a write names by a condition cannot be listed
|  '- BodyTooLarge           RESOURCE_EXHAUSTED 8   413
|- OperatorError             operator   FAILED_PRECONDITION 9  500
|  |- AdapterUnavailable                an adapter is missing, corrupt, or for other models
|  |- VerdictUnusable                   a probe's report is missing, damaged, or of something else
|  '- EncoderMissing                    no encoder for a text's model, or one that cannot be set up
'- UpstreamError             upstream   UNAVAILABLE 14   503
   |- UpstreamDown                      the database does not answer
   |- CaptureFailed                     a write to a collection under migration cannot be journalled
   |- WritesHeld                        writes wait for a migration that is being completed
   |- SchemaUnknown          FAILED_PRECONDITION 9  502   the database does not tell which fields are vectors
   |- UpstreamTimeout        DEADLINE_EXCEEDED 4    504
   '- EncoderFailed                     the encoder does not answer, or answers wrongly

The gRPC code and HTTP status are class attributes; `label` names the kind in metrics. One place in the proxy turns
these into the database's own form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

Fault = Literal["client", "operator", "upstream"]


class CrossfadeError(Exception):
    """Any error that Crossfade explains; `str` is the message for whoever has to act on it."""

    grpc_code: ClassVar[int] = 13  # INTERNAL
    http_status: ClassVar[int] = 500
    fault: ClassVar[Fault] = "operator"
    label: ClassVar[str] = "internal"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in a configuration: its key path, its line (None: not in the file), and what to do."""

    path: str
    line: int | None
    message: str

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line is not None else ""
        return f"{where}{self.path}: {self.message}" if self.path else f"{where}{self.message}"


class ConfigError(CrossfadeError):
    """A configuration that cannot be used, with all its problems, in the order of the file."""

    label = "config"

    def __init__(self, problems: Sequence[Problem], source: str = "configuration") -> None:
        self.problems = tuple(problems)
        self.source = source
        count = f"{len(self.problems)} problem{'s' if len(self.problems) != 1 else ''}"
        super().__init__("\n".join([f"{source}: {count}", *(f"  {problem}" for problem in self.problems)]))


class RequestError(CrossfadeError):
    """What the client sent cannot be served."""

    grpc_code = 3  # INVALID_ARGUMENT
    http_status = 400
    fault: ClassVar[Fault] = "client"
    label = "request"


class WrongDimension(RequestError):
    """A vector whose length cannot be the declared model's."""

    label = "wrong_dimension"

    def __init__(self, *, dim: int, model: str, collection: str, field: str, known: Mapping[str, int]) -> None:
        expected = known.get(model)
        fitting = [name for name, length in known.items() if length == dim]
        advice = f"declare one of {_listed(fitting)}" if fitting else "send vectors of one of these models"
        super().__init__(
            f"{_place(collection, field)}: a vector has {dim} dimensions, but it is declared as {model!r}, which has "
            f"{expected}; models known here: {_dims(known)}; {advice}"
        )


class UnknownModel(RequestError):
    """A declared model that the configuration does not have."""

    label = "unknown_model"

    def __init__(self, *, model: str, collection: str, declared_by: str, known: Mapping[str, int]) -> None:
        super().__init__(
            f"collection {collection!r}: {declared_by} declares the model {model!r}, which is not configured; models "
            f"known here: {_dims(known) or 'none'}"
        )


class BadVector(RequestError):
    """A vector with NaN or infinity in it."""

    label = "bad_vector"

    def __init__(self, *, collection: str, field: str, row: int, rows: int) -> None:
        super().__init__(
            f"{_place(collection, field)}: vector {row} of {rows} (counted from 0) contains NaN or infinity; "
            "a model never gives that, look at how it was computed"
        )


class MalformedRequest(RequestError):
    """Bytes that are not the message their method says: truncated protobuf, JSON that does not parse."""

    label = "malformed"

    def __init__(self, operation: str, reason: str) -> None:
        super().__init__(f"{operation}: the request cannot be read: {reason}")


class UnknownStrategy(RequestError):
    """A request that asks to be answered in a way that does not exist."""

    label = "unknown_strategy"

    def __init__(self, *, strategy: str, collection: str, known: Sequence[str]) -> None:
        super().__init__(
            f"collection {collection!r}: the header x-crossfade-strategy asks for {strategy!r}; strategies are "
            f"{_listed(known)}"
        )


class ForeignVector(RequestError):
    """A vector that does not look like the model it is declared as."""

    label = "foreign_vector"

    def __init__(self, *, collection: str, field: str, row: int, rows: int, model: str, likely: str | None) -> None:
        looks = f"looks like one of {likely!r}" if likely else "looks like none of the known models"
        super().__init__(
            f"{_place(collection, field)}: vector {row} of {rows} (counted from 0) is declared as {model!r} but "
            f"{looks}; declare the model it was made with (detect.fingerprint: warn lets such vectors pass)"
        )


class ModelNotMapped(RequestError):
    """A known model from which there is no adapter into the index asked."""

    grpc_code = 9  # FAILED_PRECONDITION
    label = "model_not_mapped"

    def __init__(self, *, model: str, index_model: str, collection: str, field: str, mapped: Sequence[str]) -> None:
        super().__init__(
            f"{_place(collection, field)}: holds vectors of {index_model!r}, and there is no adapter from {model!r}; "
            f"it takes {_listed([index_model, *mapped])}; fit an adapter and add it to the collection's adapters"
        )


class ChangeRefused(RequestError):
    """A change of a collection that would make the two sides of its migration differ."""

    grpc_code = 9  # FAILED_PRECONDITION
    http_status = 409
    label = "change_refused"

    def __init__(self, *, operation: str, collection: str, model: str, reason: str) -> None:
        super().__init__(
            f"collection {collection!r} is being migrated to {model!r}, and {operation} is not possible meanwhile: "
            f"{reason}"
        )


class ListingRefused(RequestError):
    """The database does not list the points that a write names by a condition."""

    label = "listing_refused"

    def __init__(self, *, operation: str, collection: str, reason: str) -> None:
        super().__init__(
            f"{operation}: collection {collection!r} is being migrated, so the points that a write names by a filter "
            f"are listed first, and the database refused that: {reason}; nothing was written"
        )


class BodyTooLarge(RequestError):
    """A body beyond limits.body."""

    grpc_code = 8  # RESOURCE_EXHAUSTED
    http_status = 413
    label = "body_too_large"

    def __init__(self, *, size: int | None, limit: int) -> None:
        found = f"has {size:,} bytes" if size is not None else "goes on"
        super().__init__(
            f"the body {found}, beyond the limit of {limit:,} bytes; send smaller batches or raise limits.body"
        )


class OperatorError(CrossfadeError):
    """What the configuration promises cannot be done here."""

    grpc_code = 9  # FAILED_PRECONDITION
    http_status = 500
    fault: ClassVar[Fault] = "operator"
    label = "operator"


class AdapterUnavailable(OperatorError):
    """An adapter that is missing, corrupt, or made for other models."""

    label = "adapter_unavailable"

    def __init__(self, *, collection: str, field: str, model: str, path: Path, reason: str) -> None:
        super().__init__(
            f"{_place(collection, field)}: the adapter from {model!r} at {path} cannot be used: {reason}; "
            "fit it again or correct the path (crossfade check says more)"
        )


class VerdictUnusable(OperatorError):
    """A probe's report that is missing, damaged, or of something else."""

    label = "verdict_unusable"

    def __init__(self, *, collection: str, path: Path, reason: str) -> None:
        self.reason = f"{path} cannot be used: {reason}; say crossfade probe again, or remove the key"
        super().__init__(f"collections.{collection}.migrate.verdict: {self.reason}")


class EncoderMissing(OperatorError):
    """Text came for a model that has no encoder in the configuration, or one that cannot be set up here."""

    label = "encoder_missing"

    def __init__(self, *, model: str, reason: str | None = None) -> None:
        none = f"text has to be encoded, but it has no encoder; add models.{model}.encoder"
        super().__init__(f"model {model!r}: {reason or none}")


class UpstreamError(CrossfadeError):
    """What stands behind Crossfade does not do its part."""

    grpc_code = 14  # UNAVAILABLE
    http_status = 503
    fault: ClassVar[Fault] = "upstream"
    label = "upstream"


class UpstreamDown(UpstreamError):
    """The database does not answer."""

    label = "upstream_down"

    def __init__(self, *, upstream: str, address: str, reason: str) -> None:
        super().__init__(f"upstream {upstream!r} at {address} does not answer: {reason}; retry, or see that it runs")


class CaptureFailed(UpstreamError):
    """What a write touches cannot be journalled, so the write was not sent."""

    label = "capture_failed"

    def __init__(self, *, collection: str, reason: str) -> None:
        super().__init__(
            f"collection {collection!r} is being migrated, and the write was not sent, since it could not be "
            f"journalled: {reason}; retry (migrate.writes: open lets writes pass meanwhile)"
        )


class WritesHeld(UpstreamError):
    """Writes wait for the end of a migration, and have waited long enough."""

    label = "writes_held"

    def __init__(self, *, collection: str, seconds: float) -> None:
        super().__init__(
            f"collection {collection!r}: its migration is being completed, and the write was not sent after it had "
            f"waited {seconds:.1f} s for that; retry"
        )


class SchemaUnknown(UpstreamError):
    """The database does not tell a collection's vector fields, without which its messages cannot be read."""

    grpc_code = 9  # FAILED_PRECONDITION
    http_status = 502
    label = "schema_unknown"

    def __init__(self, *, collection: str, upstream: str, reason: str) -> None:
        super().__init__(
            f"collection {collection!r}: which of its fields hold vectors cannot be learned from upstream "
            f"{upstream!r}, which says: {reason}"
        )


class UpstreamTimeout(UpstreamError):
    """The database did not answer within the request's deadline."""

    grpc_code = 4  # DEADLINE_EXCEEDED
    http_status = 504
    label = "upstream_timeout"

    def __init__(self, *, upstream: str, address: str, seconds: float) -> None:
        super().__init__(f"upstream {upstream!r} at {address} did not answer within {seconds:g} s")


class EncoderFailed(UpstreamError):
    """The encoder of a model does not answer, or answers something that cannot be its vectors."""

    label = "encoder_failed"

    def __init__(self, *, model: str, endpoint: str, reason: str, status: int | None = None) -> None:
        self.status = status
        answered = f" (HTTP {status})" if status is not None else ""
        super().__init__(f"model {model!r}: the encoder {endpoint} failed{answered}: {reason}")


def _place(collection: str, field: str) -> str:
    return f"collection {collection!r}, vector {field!r}" if field else f"collection {collection!r}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)


def _dims(known: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({length})" for name, length in known.items())
