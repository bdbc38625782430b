"""What an operator can say: the configuration as frozen models.

Pure: `loading` reads the file, `config_check` compares keys, `config_fields` puts a collection's fields together.
The docstring under a key is its description in the JSON Schema and in docs/configuration.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator, Field, model_validator

from crossfade.backends.dialect import Transport

from .config_migrate import Databases, Migrate
from .config_models import Model
from .config_section import HeaderName, Name, Secret, Section, written
from .config_values import Address, AddressValue, Bytes, OriginValue, PathValue, PositiveSeconds, Seconds


class Port(NamedTuple):
    """One port of a database's listener."""

    key: tuple[str, ...]  # where the configuration has it, below the listener's own key
    address: Address
    transport: Transport | None  # None: gRPC and REST on one port, told apart by the content type
    declares: str | None = None  # the model of everything that comes in here


class ListenTls(Section):
    """TLS on ports that clients connect to. Files that are replaced are read again, without a restart."""

    cert: PathValue
    """PEM file of the certificate, and of those between it and its authority."""
    key: PathValue
    """PEM file of the certificate's key."""
    client_ca: PathValue | None = None
    """PEM file of authorities: with it, clients must show a certificate of theirs (mutual TLS)."""


class QdrantListener(Section):
    """Where Qdrant's clients connect; at least one of `grpc` and `rest`."""

    grpc: AddressValue | None = None
    """Address for Qdrant's gRPC API."""
    rest: AddressValue | None = None
    """Address for Qdrant's REST API."""
    upstream: Name | None = None
    """Upstream behind these ports; needed only when several upstreams are of kind qdrant."""
    tls: ListenTls | None = None
    """TLS on both ports; without it they speak plain text."""

    @model_validator(mode="after")
    def _somewhere(self) -> QdrantListener:
        if self.grpc is None and self.rest is None:
            raise ValueError("listens nowhere; give it grpc, rest or both")
        return self

    @property
    def ports(self) -> Iterator[Port]:
        """Its ports."""
        if self.grpc is not None:
            yield Port(("grpc",), self.grpc, "grpc")
        if self.rest is not None:
            yield Port(("rest",), self.rest, "rest")


class MilvusListener(Section):
    """Where Milvus's clients connect: gRPC and REST on one port, as Milvus has them."""

    address: AddressValue
    """Address for Milvus's gRPC and REST API."""
    by_model: Mapping[Name, AddressValue] = Field(default_factory=dict)
    """Further addresses by model: clients that connect there are declared to use that model."""
    upstream: Name | None = None
    """Upstream behind these ports; needed only when several upstreams are of kind milvus."""
    tls: ListenTls | None = None
    """TLS on all of its ports; without it they speak plain text."""

    @property
    def ports(self) -> Iterator[Port]:
        """Its ports."""
        yield Port(("address",), self.address, None)
        for model, address in self.by_model.items():
            yield Port(("by_model", model), address, None, model)


DatabaseListener = QdrantListener | MilvusListener


def _listener_section(value: Any) -> Any:
    return {"address": value} if isinstance(value, str) else value


class Listen(Section):
    """The ports Crossfade opens. Each database has its own key, named as the `kind` of its upstreams."""

    qdrant: QdrantListener | None = None
    """Ports that speak Qdrant's API."""
    milvus: (
        Annotated[MilvusListener, BeforeValidator(_listener_section, json_schema_input_type=MilvusListener | str)]
        | None
    ) = None
    """Ports that speak Milvus's API; "host:port" alone is short for {address: "host:port"}."""
    admin: AddressValue = written("127.0.0.1:6380")
    """Address of health checks, metrics and the admin API."""

    @property
    def kinds(self) -> Mapping[str, DatabaseListener]:
        """The listeners of databases that are given, by kind."""
        given: dict[str, DatabaseListener | None] = {"qdrant": self.qdrant, "milvus": self.milvus}
        return {kind: listener for kind, listener in given.items() if listener is not None}


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

    kind: Literal["qdrant", "milvus"]
    """Which database it is."""
    grpc: AddressValue | None = None
    """Address of its gRPC API."""
    rest: OriginValue | None = None
    """URL of its REST API, http or https, without a path; default for Milvus: at the address of grpc."""
    embedded: PathValue | None = None
    """Data directory of an embedded database that `serve` starts itself, instead of grpc and rest."""
    tls: Tls | None = None
    """TLS towards the upstream; needed for gRPC over TLS, and for https with own certificates."""
    connect_timeout: PositiveSeconds = written("1s")
    """How long opening a connection may take."""
    api_key: Secret = None
    """API key for background work (fit --from-collection); clients' own keys are passed on as they are."""

    @model_validator(mode="after")
    def _reachable(self) -> Upstream:
        if self.embedded is not None and (self.grpc or self.rest or self.tls):
            raise ValueError("is embedded and has grpc, rest or tls as well; an embedded upstream has none of them")
        if self.embedded is None and self.grpc is None and self.rest is None:
            raise ValueError("has no address; give it grpc, rest or both, or embedded with a data directory")
        if self.kind == "milvus" and self.embedded is not None and self.api_key is not None:
            raise ValueError("is an embedded Milvus, which knows no keys; leave out api_key")
        if self.kind == "milvus" and self.embedded is None and self.grpc is None:
            raise ValueError("has no grpc address; Milvus has gRPC and REST on one port: give it grpc")
        if self.tls and self.rest and self.rest.scheme == "http":
            raise ValueError("has tls, but rest is http://; write https:// (a server with TLS has it on both ports)")
        if not self.tls and self.grpc and self.rest and self.rest.scheme == "https":
            raise ValueError("has rest over https://, but grpc without TLS; add tls: {} for the system's authorities")
        return self


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
    migrate: Migrate | None = None
    """Re-encodes the collection with another model while it serves; see docs/migration.md."""


class Clients(Section):
    """Models by client identity."""

    header: HeaderName = "x-client-id"
    """Request header or gRPC metadata that says who asks."""
    models: Mapping[str, Name] = Field(default_factory=dict)
    """Model each client queries with."""
    user_agents: Mapping[Name, Name] = Field(default_factory=dict)
    """Model by how the user-agent begins; of several that fit the longest counts."""
    request_ids: Mapping[Name, Name] = Field(default_factory=dict)
    """Model by how Milvus's client-request-id begins; of several that fit the longest counts."""


class Detect(Section):
    """How the model behind a query is found."""

    header: HeaderName = "x-embedding-model"
    """Request header or gRPC metadata that declares the model."""
    param: Name = "embedding_model"
    """Search parameter that declares the model in Milvus's messages, beside nprobe and the like."""
    clients: Clients = Clients()
    """Models by client identity, for clients that declare nothing."""
    fingerprint: Literal["off", "count", "warn", "refuse"] = "count"
    """What to do with vectors that do not look like the declared model's."""
    observe: bool = True
    """Keeps mean and covariance of each model's query vectors in `state`, from which `fit` learns; no query is kept."""


class Answers(Section):
    """What Crossfade adds to answers."""

    mark: bool = True
    """Says in the header x-crossfade what was done."""


class Limits(Section):
    """Bounds that keep one request from hurting the others."""

    body: Bytes = written("512MiB")
    """Largest body of a request or an answer that is gathered; bodies that pass untouched are streamed."""
    drain: Seconds = written("30s")
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
    migrations: Databases = Databases()
    """Where migrations are kept."""
    detect: Detect = Detect()
    """How the model behind a query is found."""
    answers: Answers = Answers()
    """What Crossfade adds to answers."""
    limits: Limits = Limits()
    """Bounds that keep one request from hurting the others."""
    workers: int = Field(default=0, ge=0, le=1024)
    """Envoy processes; 0 is one a core."""
    state: PathValue = written(".crossfade")
    """Folder for what is learnt from traffic, next to this file; read at start."""
    log: Log = Log()
    """What is written to standard error."""
