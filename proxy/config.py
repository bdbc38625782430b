"""What an operator can say: the configuration as frozen models.

Pure: `loading` reads the file, `config_check` compares keys, `config_fields` puts a collection's fields together.
The docstring under a key is its description in the JSON Schema and in docs/configuration.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, StringConstraints, model_validator

from .config_values import AddressValue, Bytes, OriginValue, PathValue, PositiveSeconds, Seconds

Name = Annotated[str, StringConstraints(min_length=1)]
# An empty key, as ${KEY:-} gives, is none.
Secret = Annotated[SecretStr | None, BeforeValidator(lambda given: given if given != "" else None)]
HeaderName = Annotated[str, StringConstraints(to_lower=True, pattern=r"^[A-Za-z0-9_.-]+$")]


def _written(default: str) -> Any:
    """A default as the file would have it: read like any other value, and shown so in schema and documentation."""
    return Field(default=default)


class Section(BaseModel):
    """A mapping of the configuration: frozen, and a key it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, use_attribute_docstrings=True)


class QdrantListener(Section):
    """Where Qdrant's clients connect; at least one of `grpc` and `rest`."""

    grpc: AddressValue | None = None
    """Address for Qdrant's gRPC API."""
    rest: AddressValue | None = None
    """Address for Qdrant's REST API."""
    upstream: Name | None = None
    """Upstream behind these ports; needed only when several upstreams are of kind qdrant."""

    @model_validator(mode="after")
    def _somewhere(self) -> QdrantListener:
        if self.grpc is None and self.rest is None:
            raise ValueError("listens nowhere; give it grpc, rest or both")
        return self


class Listen(Section):
    """The ports Crossfade opens. Each database has its own key, named as the `kind` of its upstreams."""

    qdrant: QdrantListener | None = None
    """Ports that speak Qdrant's API."""
    admin: AddressValue = _written("127.0.0.1:6380")
    """Address of health checks, metrics and the admin API."""

    @property
    def kinds(self) -> Mapping[str, QdrantListener]:
        """The listeners of databases that are given, by kind."""
        return {"qdrant": self.qdrant} if self.qdrant else {}


class Tls(Section):
    """TLS towards an upstream; `tls: {}` trusts the system's certificate authorities."""

    ca: PathValue | None = None
    """PEM file of the certificate authorities to trust instead of the system's."""
    cert: PathValue | None = None
    """PEM file of the client certificate, for mutual TLS; needs `key`."""
    key: PathValue | None = None
    """PEM file of the client certificate's key."""
    server_name: Name | None = None
    """Name the server's certificate must carry; default: the host of the address."""

    @model_validator(mode="after")
    def _both(self) -> Tls:
        if (self.cert is None) != (self.key is None):
            raise ValueError("has only one of cert and key; mutual TLS needs both")
        return self


class Upstream(Section):
    """A database that Crossfade stands in front of."""

    kind: Literal["qdrant"]
    """Which database it is."""
    grpc: AddressValue | None = None
    """Address of its gRPC API."""
    rest: OriginValue | None = None
    """URL of its REST API, http or https, without a path."""
    embedded: PathValue | None = None
    """Data directory of an embedded database that `serve` starts itself, instead of grpc and rest."""
    tls: Tls | None = None
    """TLS towards the upstream; needed for gRPC over TLS, and for https with own certificates."""
    connect_timeout: PositiveSeconds = _written("1s")
    """How long opening a connection may take."""
    api_key: Secret = None
    """API key for background work (fit --from-collection); clients' own keys are passed on as they are."""

    @model_validator(mode="after")
    def _reachable(self) -> Upstream:
        if self.embedded is not None and (self.grpc or self.rest or self.tls):
            raise ValueError("is embedded and has grpc, rest or tls as well; an embedded upstream has none of them")
        if self.embedded is None and self.grpc is None and self.rest is None:
            raise ValueError("has no address; give it grpc, rest or both, or embedded with a data directory")
        if self.tls and self.rest and self.rest.scheme == "http":
            raise ValueError("has tls, but rest is http://; write https:// (a server with TLS has it on both ports)")
        if not self.tls and self.grpc and self.rest and self.rest.scheme == "https":
            raise ValueError("has rest over https://, but grpc without TLS; add tls: {} for the system's authorities")
        return self


class EncoderSection(Section):
    """What every encoder can be told."""

    batch_size: int = Field(default=64, ge=1)
    """Texts in one call of the encoder."""
    concurrency: int = Field(default=4, ge=1)
    """Calls of the encoder at the same time; more wait their turn."""


class OpenAIEncoder(EncoderSection):
    """Any endpoint with OpenAI's embeddings API: OpenAI, Text Embeddings Inference, vLLM, Ollama."""

    base_url: Annotated[str, StringConstraints(pattern=r"^https?://")]
    """URL up to and including /v1."""
    model: Name
    """Name of the model at the endpoint."""
    api_key: Secret = None
    """Key sent as a bearer token; left out for endpoints that need none."""
    dimensions: int | None = Field(default=None, ge=1)
    """Asks the endpoint for shortened vectors; models that cannot do it refuse."""
    timeout: PositiveSeconds = _written("30s")
    """How long one call may take."""
    max_retries: int = Field(default=4, ge=0)
    """Further tries after a lost connection, a timeout, 408, 409, 429 or 5xx, with growing pauses."""
    encoding_format: Literal["auto", "base64", "float"] = "auto"
    """How vectors travel; auto asks for base64 and falls back to float where an endpoint refuses it."""


class SentenceTransformersEncoder(EncoderSection):
    """A model run in the proxy's own process by the sentence-transformers package (extra `encoders`)."""

    model: Name
    """Model name or folder, as SentenceTransformer takes it."""
    device: Name | None = None
    """cpu, cuda, mps; default: what sentence-transformers chooses."""
    concurrency: int = Field(default=1, ge=1)
    """Calls of the model at the same time; more wait their turn."""


class PythonEncoder(EncoderSection):
    """Your own function f(texts: list[str], role: str) -> array (n, dim), plain or async."""

    function: Annotated[str, StringConstraints(pattern=r"^[\w.]+:[\w.]+$")]
    """Where it is: "module:function", importable by the proxy."""


def _function_section(value: Any) -> Any:
    return {"function": value} if isinstance(value, str) else value


class EncoderChoice(Section):
    """Exactly one way to turn text into vectors."""

    openai: OpenAIEncoder | None = None
    """An OpenAI-compatible endpoint."""
    sentence_transformers: SentenceTransformersEncoder | None = None
    """A model in this process."""
    python: (
        Annotated[PythonEncoder, BeforeValidator(_function_section, json_schema_input_type=PythonEncoder | str)] | None
    ) = None
    """Your own function; "module:function" alone is short for {function: "module:function"}."""

    @model_validator(mode="after")
    def _one(self) -> EncoderChoice:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"names {' and '.join(given) or 'no encoder'}; give exactly one of openai, "
                "sentence_transformers and python"
            )
        return self

    @property
    def chosen(self) -> OpenAIEncoder | SentenceTransformersEncoder | PythonEncoder:
        """The one that is given."""
        chosen = self.openai or self.sentence_transformers or self.python
        assert chosen is not None  # _one refused everything else
        return chosen


class Model(Section):
    """An embedding model: its name here is what clients declare."""

    dim: int = Field(ge=1, le=65536)
    """Length of its vectors."""
    encoder: EncoderChoice | None = None
    """How to run it, where Crossfade has to encode text itself."""
    query_prefix: str = ""
    """Text put before every query ("query: " for E5)."""
    passage_prefix: str = ""
    """Text put before every document ("passage: " for E5)."""
    normalize: bool = False
    """Scales encoded vectors to unit length; otherwise they stay as the encoder returns them."""
    cache: int = Field(default=10_000, ge=0)
    """Encoded texts kept in memory, the least recently used leave first; 0 keeps none."""


class VectorFieldSettings(Section):
    """A named vector that differs from its collection, or a name that declares a model."""

    index_model: Name | None = None
    """What the stored vectors were made with; default: the collection's."""
    query_model: Name | None = None
    """What undeclared queries on it are made with; default: index_model given here, else the collection's."""
    adapters: Mapping[str, PathValue] = Field(default_factory=dict)
    """Adapter directories by the model they map from; the collection's count too when index_model is the same."""
    declares: Name | None = None
    """A query or vector under this name was made with that model."""
    stored_in: str | None = None
    """This name exists only here: the vector really asked is that one ("" is the unnamed vector)."""

    @model_validator(mode="after")
    def _alias(self) -> VectorFieldSettings:
        if self.stored_in is not None and self.declares is None:
            raise ValueError("has stored_in without declares; say which model vectors under this name are made with")
        if self.stored_in is not None and (self.index_model or self.query_model or self.adapters):
            raise ValueError("has stored_in, so index_model, query_model and adapters belong to the field it names")
        return self


class Collection(Section):
    """A collection whose vectors Crossfade maps; collections not named here pass untouched."""

    upstream: Name | None = None
    """Upstream that has it; needed only when there are several."""
    index_model: Name
    """What the stored vectors were made with."""
    query_model: Name | None = None
    """What undeclared queries are made with: the flag to flip; default: index_model."""
    adapters: Mapping[str, PathValue] = Field(default_factory=dict)
    """Adapter directories by the model they map from, relative to this file."""
    fields: Mapping[str, VectorFieldSettings] = Field(default_factory=dict)
    """Named vectors that differ from the collection, and names that declare a model."""
    text: Name | None = None
    """Where a document's text is: a payload path ("payload.text") or a template ("{title}\\n{body}")."""


class Clients(Section):
    """Models by client identity."""

    header: HeaderName = "x-client-id"
    """Request header or gRPC metadata that says who asks."""
    models: Mapping[str, Name] = Field(default_factory=dict)
    """Model each client queries with."""


class Detect(Section):
    """How the model behind a query is found."""

    header: HeaderName = "x-embedding-model"
    """Request header or gRPC metadata that declares the model."""
    clients: Clients = Clients()
    """Models by client identity, for clients that declare nothing."""
    fingerprint: Literal["off", "count", "warn", "refuse"] = "count"
    """What to do with vectors that do not look like the declared model's."""


class Answers(Section):
    """What Crossfade adds to answers."""

    mark: bool = True
    """Says in the header x-crossfade what was done."""


class Limits(Section):
    """Bounds that keep one request from hurting the others."""

    body: Bytes = _written("512MiB")
    """Largest body of a request or an answer that is gathered; bodies that pass untouched are streamed."""
    drain: Seconds = _written("30s")
    """How long calls in flight may go on after SIGTERM."""
    inline_rows: int = Field(default=64, ge=1)
    """Vectors of one request that are mapped on the event loop; more go to a thread."""


class Log(Section):
    """What is written to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least important level that is written."""
    format: Literal["text", "json"] = "text"
    """One line of text, or one JSON object, for each event."""


class Config(Section):
    """Everything an operator says, in one file."""

    listen: Listen
    """The ports Crossfade opens."""
    upstreams: Mapping[Name, Upstream]
    """Databases by name."""
    models: Mapping[Name, Model] = Field(default_factory=dict)
    """Embedding models by name."""
    collections: Mapping[Name, Collection] = Field(default_factory=dict)
    """Collections by their name in the database."""
    detect: Detect = Detect()
    """How the model behind a query is found."""
    answers: Answers = Answers()
    """What Crossfade adds to answers."""
    limits: Limits = Limits()
    """Bounds that keep one request from hurting the others."""
    workers: int = Field(default=0, ge=0, le=1024)
    """Envoy processes; 0 is one a core."""
    log: Log = Log()
    """What is written to standard error."""
