"""The Protocol both databases speak to the proxy: operations, and the slots of a message that matter to an adapter.

A codec never decides anything. It says where the vectors, texts and scores of a message stand (`Message.slots`), and
writes new values into those places (`Message.edited`), leaving every other byte (gRPC) or value (JSON) as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from .pieces import Pieces

if TYPE_CHECKING:
    from .reading import ReadCodec  # which is made of what stands here
    from .writing import WriteCodec  # which is made of what stands here

Float32 = NDArray[np.float32]
Transport = Literal["grpc", "rest"]
ScoreKind = Literal["threshold", "feedback"]


class Role(Enum):
    """What a vector is in its message: asked with, to be stored, or handed back."""

    QUERY = "query"
    DOCUMENT = "document"
    RESULT = "result"


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of the database's API that can carry vectors.

    `path` is the gRPC path ("/qdrant.Points/Search") or the REST path with placeholders
    ("/collections/{collection}/points/search"); `name` is the same for both transports and labels metrics.
    """

    name: str
    transport: Transport
    method: str  # the HTTP method: POST for every gRPC call
    path: str
    writes: bool  # changes what is stored
    answers_vectors: bool  # its answer can carry vectors
    describes: bool = False  # its answer tells the lengths of vectors, and `Dialect.schemas` reads it


@dataclass(frozen=True, slots=True, eq=False)
class VectorSlot:
    """Dense vectors that stand in one place of a message."""

    collection: str
    field: str | None  # the named vector; "" the default one; None when the message does not say (Milvus)
    role: Role
    rows: Float32  # (n, dim), read-only: a view into the message where its encoding allows
    model: str | None  # declared in the message itself
    place: object  # the codec's own address of the slot


@dataclass(frozen=True, slots=True, eq=False)
class TextSlot:
    """A text that the database would encode itself, with the model it names (Qdrant's Document; "": it names none)."""

    collection: str
    field: str | None
    role: Role
    text: str
    model: str
    place: object


@dataclass(frozen=True, slots=True, eq=False)
class ScoreSlot:
    """A number in the score space of a vector field: score_threshold, radius, range_filter, feedback scores.

    A feedback score is what the client's own model (a reranker, say) gave an example: the database looks only at the
    differences between them, never at how they compare with similarities.
    """

    collection: str
    field: str | None
    score: float
    place: object
    kind: ScoreKind = "threshold"


Slot = VectorSlot | TextSlot | ScoreSlot
Edit = tuple[VectorSlot, Float32] | tuple[TextSlot, Float32] | tuple[ScoreSlot, float]
"""A slot and what is to stand in its place: rows (n, new dim), one row (1, dim) for a text, or a score."""


@dataclass(frozen=True, slots=True, eq=False)
class DimSlot:
    """The length of a field's vectors as an answer tells it, where clients build their vectors by it (Milvus)."""

    collection: str
    field: str | None
    dim: int
    place: object


@dataclass(frozen=True, slots=True)
class Schema:
    """The dense vector fields of a collection, by name, and how each is stored ("float", "float16", ...); and its key.

    `text_ids`: ids are strings, and numbers otherwise. `makes_ids`: the database makes them.
    """

    vectors: Mapping[str, str]
    key: str = ""
    text_ids: bool = False
    makes_ids: bool = False

    @property
    def only_vector(self) -> str | None:
        """The field that is meant where a message names none; None when there is not exactly one."""
        return next(iter(self.vectors)) if len(self.vectors) == 1 else None


class RequestContext(NamedTuple):
    """What a codec may need beside a request's body: its headers, the operator's names, and what is known already."""

    headers: Mapping[str, str] = MappingProxyType({})  # lower-case names
    model_param: str = "embedding_model"  # the search parameter that declares a model
    find_schema: Callable[[str], Schema | None] = lambda collection: None
    query: str = ""  # of the request line, after its "?"


NO_CONTEXT = RequestContext()


class Message(Protocol):
    """One request or answer, read."""

    @property
    def collections(self) -> Sequence[str]:
        """Every collection the message names as the one searched or written."""

    @property
    def slots(self) -> Sequence[Slot]:
        """Where vectors, texts and scores stand, in the order of the message."""

    @property
    def wants_vectors(self) -> bool:
        """Whether a request asks for vectors in its answer (False for an answer)."""

    @property
    def unsettled(self) -> bool:
        """Whether the slots of a request can only be told with the schemas of its collections, which were not known."""

    def edited(self, edits: Sequence[Edit]) -> bytes:
        """The message's bytes with these slots replaced and everything else untouched."""

    def pieces(self, edits: Sequence[Edit]) -> Pieces:
        """The same, not joined yet: a large message is never copied as a whole."""


class RefusedError(ValueError):
    """The database refused to tell a collection's schema; the text is its own reason."""


class MalformedError(ValueError):
    """A message that is not what its operation says: truncated protobuf, JSON that does not parse."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as a client is to see it, before it is put in the database's own form."""

    grpc_code: int
    http_status: int
    message: str


@dataclass(frozen=True, slots=True)
class FailureAnswer:
    """A failure in the database's own form.

    For gRPC `body` is an unframed message (empty: a trailers-only answer with grpc_code and message).
    """

    http_status: int
    grpc_code: int
    message: str
    content_type: str
    body: bytes


class SchemaCodec(Protocol):
    """How a database is asked for a collection's schema, where its messages cannot be read without."""

    path: str  # of the gRPC method

    def ask(self, collection: str) -> bytes:
        """The request's message."""

    def form_headers(self, transport: Transport, headers: Mapping[str, str]) -> Mapping[str, str]:
        """The request's metadata: in the name of a client that has sent these headers over this transport."""

    def read(self, body: bytes) -> Schema:
        """The schema in the answer's message. Raises RefusedError and MalformedError."""

    def find_dims(self, operation: Operation, request: Message, body: bytes) -> Sequence[DimSlot]:
        """The lengths of dense vectors that the answer of a describing operation tells. Raises MalformedError."""

    def write_dims(self, operation: Operation, body: bytes, edits: Sequence[tuple[DimSlot, int]]) -> bytes:
        """That answer with other lengths and everything else untouched."""


class Dialect(Protocol):
    """What the proxy asks of a database's codecs."""

    kind: str  # "qdrant", "milvus"
    operations: Sequence[Operation]
    schemas: SchemaCodec | None  # None: its messages say everything themselves
    reading: ReadCodec | None  # None: its collections cannot be read from another one yet
    writing: WriteCodec | None  # None: its writes cannot be captured yet, so its collections cannot be migrated
    read_headers: Sequence[str]  # of a request, that `read_request` looks at

    def find_operation(self, transport: Transport, method: str, path: str) -> Operation | None:
        """The operation a request line names, or None when the method cannot carry a vector."""

    def read_request(
        self, operation: Operation, path: str, body: bytes, context: RequestContext = NO_CONTEXT
    ) -> Message:
        """The slots of a request; `body` is one unframed gRPC message or a JSON text. Raises MalformedError."""

    def read_answer(self, operation: Operation, request: Message, body: bytes) -> Message:
        """The slots of the answer to `request`. Raises MalformedError."""

    def fail(self, operation: Operation | None, transport: Transport, failure: Failure) -> FailureAnswer:
        """A failure as this database would report it."""
