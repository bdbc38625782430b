"""What a migration's keys mean for the rest of the configuration. Pure."""

from __future__ import annotations

from collections.abc import Collection as Names
from collections.abc import Iterator
from difflib import get_close_matches
from itertools import pairwise

from crossfade.backends.payload_text import compile_text

from .config import Collection, Config
from .config_fields import collection_upstream, resolve_field
from .config_migrate import Migrate, name_target, wanted_percent

KeyPath = tuple[str | int, ...]
Conflict = tuple[KeyPath, str]


def find_migration_conflicts(config: Config, models: Names[str]) -> Iterator[Conflict]:
    """Every conflict of a migration with other keys; `models` are the names the file gives."""
    for name, collection in config.collections.items():
        if collection.migrate is not None:
            path = ("collections", name, "migrate")
            yield from _model(config, path, collection, collection.migrate, models)
            yield from _text(path, name, collection, collection.migrate)
            yield from _ramp(path, collection.migrate)
    yield from _targets(config)
    yield from _databases(config)


def _model(
    config: Config, path: KeyPath, collection: Collection, migrate: Migrate, models: Names[str]
) -> Iterator[Conflict]:
    here = (*path, "to")
    if migrate.to not in models:
        near = get_close_matches(migrate.to, list(models), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(models) or 'none'}"
        yield here, f"names the model {migrate.to!r}, which models does not have; {hint}"
    elif migrate.to == resolve_field(collection, migrate.field).index_model:
        yield here, f"is {migrate.to!r}, which is the index_model already; name another model, or remove migrate"
    elif migrate.to in config.models and config.models[migrate.to].encoder is None:
        yield here, f"is {migrate.to!r}, which has no encoder; add models.{migrate.to}.encoder, which texts go through"


def _text(path: KeyPath, name: str, collection: Collection, migrate: Migrate) -> Iterator[Conflict]:
    if migrate.text is None and collection.text is None:
        yield path, f"does not say where a document's text is; add text: payload.text to it or to collections.{name}"
    if migrate.text is not None:
        try:
            compile_text(migrate.text)
        except ValueError as error:
            yield (*path, "text"), str(error)


def _ramp(path: KeyPath, migrate: Migrate) -> Iterator[Conflict]:
    for number, (first, second) in enumerate(pairwise(migrate.ramp)):
        if second.percent <= first.percent:
            reason = f"is {second.percent:g} after {first.percent:g}; steps have to rise"
            yield (*path, "ramp", number + 1, "percent"), reason
    wanted = wanted_percent(migrate.goal)
    if migrate.ramp and wanted is not None and 0 < wanted < migrate.ramp[0].percent:
        reason = f"is {migrate.goal}, less than the first step of ramp, {migrate.ramp[0].percent:g}; lower that step"
        yield (*path, "goal"), reason
    if migrate.guardrails.overlap is not None and migrate.shadow == 0:
        yield (*path, "guardrails", "overlap"), "is measured by shadow queries, and shadow is 0; give migrate.shadow"


def _targets(config: Config) -> Iterator[Conflict]:
    taken: dict[tuple[str | None, str], str] = {}
    for name, collection in config.collections.items():
        taken[collection_upstream(config, collection), name] = f"collections.{name}"
    for name, collection in config.collections.items():
        if collection.migrate is None:
            continue
        home = collection_upstream(config, collection)
        upstream = config.upstreams.get(home or "")
        target = name_target(name, collection.migrate, upstream.kind if upstream else "qdrant")
        if other := taken.get((home, target)):
            reason = f"is {target!r}, which is {other} already; name another collection"
            yield ("collections", name, "migrate", "target"), reason
        taken[home, target] = f"the target of collections.{name}"


def _databases(config: Config) -> Iterator[Conflict]:
    store, journal = config.migrations.store, config.migrations.journal
    shared = [one is not None and one.get_secret_value().startswith("postgresql") for one in (store, journal)]
    if shared[0] != shared[1]:
        reason = "is on this machine, and the other one is not; replicas have to share both: give both a PostgreSQL URL"
        yield ("migrations", "journal" if shared[0] else "store"), reason
        return
    if store is None or journal is None:
        return
    url = store.get_secret_value()
    if url == journal.get_secret_value() and url.startswith("sqlite"):
        reason = "is the same SQLite file as store; give it its own: heavy writing would keep the controller waiting"
        yield ("migrations", "journal"), reason
