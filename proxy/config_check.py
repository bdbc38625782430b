"""What one key of a configuration means for another: names that must exist, ports that must differ, adapters needed.

Pure: takes a Config whose sections are valid each on its own, and yields every conflict with its key path.
"""

from __future__ import annotations

from collections.abc import Collection as Names
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import combinations

from crossfade.backends.payload_text import compile_text

from .config import Collection, Config, DatabaseListener, Upstream, VectorFieldSettings
from .config_check_migrate import Conflict, KeyPath, find_migration_conflicts
from .config_fields import collection_upstream, resolve_field, serving_upstream
from .config_values import Address
from .yaml_lines import spell_path

_WILDCARDS = {"0.0.0.0", "::", "*"}
_LOCAL = _WILDCARDS | {"127.0.0.1", "::1", "localhost"}


@dataclass(frozen=True, slots=True)
class Known:
    """Names the file gives, including those whose own section is broken and reported already."""

    models: Names[str]
    upstreams: Names[str]


def find_conflicts(config: Config, known: Known | None = None) -> Iterator[Conflict]:
    """Every conflict between keys, as (key path, what is wrong and what to do)."""
    known = known or Known(config.models, config.upstreams)
    yield from _listen(config, known)
    yield from _addresses(config)
    yield from _upstreams(config, known)
    yield from _models(config)
    clients = config.detect.clients
    by_client = {"models": clients.models, "user_agents": clients.user_agents, "request_ids": clients.request_ids}
    for key, declared in by_client.items():
        for client, model in declared.items():
            yield from _unknown(("detect", "clients", key, client), model, known.models, "model")
    for name, collection in config.collections.items():
        yield from _collection(config, known, name, collection)
    yield from find_migration_conflicts(config, known.models)


def _listen(config: Config, known: Known) -> Iterator[Conflict]:
    if not config.listen.kinds:
        yield ("listen",), "opens no port for a database; add qdrant: {grpc: ..., rest: ...} or milvus: ..."
    for kind, listener in config.listen.kinds.items():
        path = ("listen", kind)
        if listener.upstream is not None:
            yield from _unknown((*path, "upstream"), listener.upstream, known.upstreams, "upstream")
        for port in listener.ports:
            if port.declares is not None:
                yield from _unknown((*path, *port.key), port.declares, known.models, "model")
        name = serving_upstream(config, kind, listener)
        if name is None and set(known.upstreams) == set(config.upstreams):
            fitting = [name for name, upstream in config.upstreams.items() if upstream.kind == kind]
            which = f"{', '.join(fitting)} are all of kind {kind}" if fitting else f"there is none of kind {kind}"
            yield (
                path,
                f"does not say which upstream it serves, and {which}; "
                + (f"add upstream: {fitting[0]}" if fitting else "add one under upstreams"),
            )
        if name is not None and name in config.upstreams:
            yield from _served(path, kind, listener, name, config.upstreams[name])


def _served(path: KeyPath, kind: str, listener: DatabaseListener, name: str, upstream: Upstream) -> Iterator[Conflict]:
    if upstream.kind != kind:
        yield (*path, "upstream"), f"is {name!r}, which is of kind {upstream.kind}, not {kind}"
    if upstream.embedded is not None:
        return
    for port in listener.ports:
        if port.transport is not None and getattr(upstream, port.transport) is None:
            yield (
                (*path, *port.key),
                (
                    f"is opened, but its upstream {name!r} has no {port.transport} address; "
                    f"add upstreams.{name}.{port.transport} or leave this port out"
                ),
            )


def _addresses(config: Config) -> Iterator[Conflict]:
    opened: list[tuple[KeyPath, Address]] = [(("listen", "admin"), config.listen.admin)]
    for kind, listener in config.listen.kinds.items():
        opened += [(("listen", kind, *port.key), port.address) for port in listener.ports]
    for (path, address), (other, taken) in combinations(sorted(opened, key=lambda entry: entry[0], reverse=True), 2):
        if _collide(address, taken):
            yield path, f"is {address}, and {spell_path(other)} is {taken}: one port cannot be opened twice; change one"
    for name, upstream in config.upstreams.items():
        targets = (("grpc", upstream.grpc), ("rest", upstream.rest.address if upstream.rest else None))
        for transport, target in targets:
            for own, address in opened:
                if (
                    target is not None
                    and target.port == address.port
                    and target.host in _LOCAL & {address.host, *_reached(address)}
                ):
                    clash = (
                        f"is {target}, which is Crossfade's own port {spell_path(own)}; give the database another port"
                    )
                    yield ("upstreams", name, transport), clash


def _reached(address: Address) -> set[str]:
    return _LOCAL if address.host in _WILDCARDS else {"localhost"} if address.host in ("127.0.0.1", "::1") else set()


def _collide(one: Address, other: Address) -> bool:
    same = one.host == other.host or one.host in _WILDCARDS or other.host in _WILDCARDS
    return one.port != 0 and one.port == other.port and same


def _upstreams(config: Config, known: Known) -> Iterator[Conflict]:
    if not known.upstreams:
        yield ("upstreams",), "names no database; add main: {kind: qdrant, grpc: ..., rest: ...}"
    embedded = [(name, upstream.embedded) for name, upstream in config.upstreams.items() if upstream.embedded]
    for (name, data), (other, taken) in combinations(embedded, 2):
        if data == taken:
            yield ("upstreams", other, "embedded"), f"is {taken}, which upstream {name!r} has already; give it its own"


def _models(config: Config) -> Iterator[Conflict]:
    for name, model in config.models.items():
        asked = model.encoder.openai.dimensions if model.encoder and model.encoder.openai else None
        if asked is not None and asked != model.dim:
            path = ("models", name, "encoder", "openai", "dimensions")
            yield path, f"asks for {asked} dimensions, but models.{name}.dim is {model.dim}; make them equal"


def _collection(config: Config, known: Known, name: str, collection: Collection) -> Iterator[Conflict]:
    path = ("collections", name)
    yield from _home(config, known, path, collection)
    yield from _text(path, collection.text)
    yield from _names(path, collection, known)
    yield from _reachable(path, collection, "", "query_model", known)
    for using, settings in collection.fields.items():
        yield from _field((*path, "fields", using), collection, using, settings, known)


def _field(
    path: KeyPath, collection: Collection, using: str, settings: VectorFieldSettings, known: Known
) -> Iterator[Conflict]:
    yield from _names(path, settings, known)
    if settings.declares is not None:
        yield from _unknown((*path, "declares"), settings.declares, known.models, "model")
        yield from _reachable(path, collection, using, "declares", known)
    elif settings.index_model or settings.query_model or settings.adapters:  # else it is as its collection, told there
        yield from _reachable(path, collection, using, "query_model", known)


def _text(path: KeyPath, text: str | None) -> Iterator[Conflict]:
    try:
        compile_text(text or "text")
    except ValueError as error:
        yield (*path, "text"), str(error)


def _home(config: Config, known: Known, path: KeyPath, collection: Collection) -> Iterator[Conflict]:
    if collection.upstream is not None:
        yield from _unknown((*path, "upstream"), collection.upstream, known.upstreams, "upstream")
    elif len(known.upstreams) > 1:
        yield path, f"does not say which upstream has it; add upstream: one of {', '.join(known.upstreams)}"
    home = collection_upstream(config, collection)
    served = {serving_upstream(config, kind, listener) for kind, listener in config.listen.kinds.items()}
    if home is not None and home in config.upstreams and home not in served and served <= set(config.upstreams):
        where = (*path, "upstream") if collection.upstream is not None else path
        yield (
            where,
            f"is on upstream {home!r}, which no listener serves; set listen.{config.upstreams[home].kind}.upstream",
        )


def _names(path: KeyPath, settings: Collection | VectorFieldSettings, known: Known) -> Iterator[Conflict]:
    for key, model in (("index_model", settings.index_model), ("query_model", settings.query_model)):
        if model is not None:
            yield from _unknown((*path, key), model, known.models, "model")
    for model in settings.adapters:
        yield from _unknown((*path, "adapters", model), model, known.models, "model")
        if model == settings.index_model:
            yield (*path, "adapters", model), "maps from the index_model itself; remove it or name the new model"


def _reachable(path: KeyPath, collection: Collection, using: str, key: str, known: Known) -> Iterator[Conflict]:
    """Whether the index can take vectors of the model its queries are made with; unknown names are told elsewhere."""
    field = resolve_field(collection, using)
    wanted = field.declares or field.query_model
    if wanted not in field.models and wanted in known.models and field.index_model in known.models:
        have = f"adapters from {', '.join(field.adapters)}" if field.adapters else "no adapter"
        yield (
            (*path, key),
            f"is {wanted!r}, the index_model is {field.index_model!r}, and there is {have}; "
            f"fit one and add adapters: {{{wanted}: DIRECTORY}}",
        )


def _unknown(path: KeyPath, name: str, known: Names[str], what: str) -> Iterator[Conflict]:
    if name not in known:
        near = get_close_matches(name, list(known), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known) or 'none'}"
        yield path, f"names the {what} {name!r}, which {what}s does not have; {hint}"
