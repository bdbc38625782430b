"""What holds once defaults are filled in: the upstream of a listener or collection, and everything of a vector field.

- A field that is not listed has everything of its collection.
- A listed field has its own values; what it leaves out it takes from the collection. With an index_model of its own,
  queries default to that model, and the collection's adapters count only if the index_model is the same.
- `declares` says with which model vectors under this name were made, whatever client identity or query_model say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .config import Collection, Config, DatabaseListener, Upstream, VectorFieldSettings
from .config_migrate import name_target
from .config_values import Origin


@dataclass(frozen=True, slots=True)
class VectorField:
    """A vector field as requests meet it: `name` is how the database knows it ("" the unnamed vector)."""

    name: str
    index_model: str
    query_model: str
    adapters: Mapping[str, Path]
    declares: str | None

    @property
    def models(self) -> frozenset[str]:
        """Models whose vectors this field can take: the index's own and those with an adapter."""
        return frozenset({self.index_model, *self.adapters})


def resolve_field(collection: Collection, using: str) -> VectorField:
    """The field that a request meets when it uses this name ("" for the unnamed vector)."""
    settings = collection.fields.get(using) or VectorFieldSettings()
    index_model = settings.index_model or collection.index_model
    same = index_model == collection.index_model
    inherited = (collection.query_model or index_model) if settings.index_model is None else index_model
    return VectorField(
        name=using,
        index_model=index_model,
        query_model=settings.query_model or inherited,
        adapters={**(collection.adapters if same else {}), **settings.adapters},
        declares=settings.declares,
    )


def serving_upstream(config: Config, kind: str, listener: DatabaseListener) -> str | None:
    """The upstream behind a listener: the one it names, or the only one of its kind; None when that is not clear."""
    if listener.upstream is not None:
        return listener.upstream
    fitting = [name for name, upstream in config.upstreams.items() if upstream.kind == kind]
    return fitting[0] if len(fitting) == 1 else None


def collection_upstream(config: Config, collection: Collection) -> str | None:
    """The upstream that has a collection: the one it names, or the only one; None when that is not clear."""
    if collection.upstream is not None:
        return collection.upstream
    return next(iter(config.upstreams)) if len(config.upstreams) == 1 else None


def fill_defaults(config: Config) -> Config:
    """The same configuration with what was left to its default written out: upstreams, query models, targets, texts."""
    listeners = {
        kind: listener.model_copy(update={"upstream": serving_upstream(config, kind, listener)})
        for kind, listener in config.listen.kinds.items()
    }
    collections = {name: _fill_collection(config, name, collection) for name, collection in config.collections.items()}
    listen = config.listen.model_copy(update=listeners)
    upstreams = {name: fill_rest(upstream) for name, upstream in config.upstreams.items()}
    return config.model_copy(update={"listen": listen, "upstreams": upstreams, "collections": collections})


def _fill_collection(config: Config, name: str, collection: Collection) -> Collection:
    home = collection_upstream(config, collection)
    migrate = collection.migrate
    if migrate is not None:
        kind = config.upstreams[home].kind if home is not None else "qdrant"
        update = {"target": name_target(name, migrate, kind), "text": migrate.text or collection.text}
        migrate = migrate.model_copy(update=update)
    query_model = collection.query_model or collection.index_model
    return collection.model_copy(update={"upstream": home, "query_model": query_model, "migrate": migrate})


def fill_rest(upstream: Upstream) -> Upstream:
    """The upstream with its REST address written out: Milvus's is that of gRPC."""
    if upstream.kind != "milvus" or upstream.rest is not None or upstream.grpc is None:
        return upstream
    return upstream.model_copy(update={"rest": Origin("https" if upstream.tls else "http", upstream.grpc)})
