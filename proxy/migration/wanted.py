"""What the configuration says of a migration: what it would be, and whether one under way is still that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from crossfade.backends.index import Index

from ..cli_index import open_index
from ..config import Config
from ..config_fields import collection_upstream, resolve_field
from ..errors import ConfigError, Problem
from .errors import NotConfigured
from .machine import OVER
from .plan import Plan, make_plan
from .record import Migration, Spec

_FIXED = ("target", "field", "from_model", "to_model", "dim", "text")


def make_spec(config: Config, collection: str) -> Spec:
    """The migration that the configuration describes. Raises NotConfigured."""
    settings = config.collections.get(collection)
    if settings is None or settings.migrate is None:
        having = sorted(name for name, one in config.collections.items() if one.migrate is not None)
        raise NotConfigured(collection=collection, having=having)
    migrate = settings.migrate
    assert migrate.target is not None  # filled in when the file was read
    assert migrate.text is not None
    return Spec(
        collection=collection,
        target=migrate.target,
        field=migrate.field,
        from_model=resolve_field(settings, migrate.field).index_model,
        to_model=migrate.to,
        dim=config.models[migrate.to].dim,
        text=migrate.text,
    )


async def plan_from(config: Config, collection: str, price_per_million: float | None = None) -> Plan:
    """Look at a collection and its configured migration, without touching anything.

    Raises NotConfigured, BadPlan for what can never work, IndexRefusedError.
    """
    spec = make_spec(config, collection)
    upstream = collection_upstream(config, config.collections[collection])
    assert upstream is not None  # the configuration refuses a collection that does not say
    async with open_index(config, upstream) as index:
        return await make_plan(index, await _settle_field(index, spec), price_per_million)


async def _settle_field(index: Index, spec: Spec) -> Spec:
    """The same with the only vector field there is, where none is named and there is no unnamed one."""
    fields = [one.name for one in (await index.describe(spec.collection)).fields]
    if spec.field == "" and len(fields) == 1:
        return spec.model_copy(update={"field": fields[0]})
    return spec


def check_unmoved(config: Config, records: Sequence[Migration]) -> None:
    """Refuse a configuration that takes away what a migration under way rests on. Raises ConfigError."""
    problems = [problem for record in records if record.state not in OVER for problem in _moved(config, record)]
    if problems:
        raise ConfigError(problems)


def _moved(config: Config, record: Migration) -> Iterator[Problem]:
    name = record.spec.collection
    path = f"collections.{name}.migrate"
    end = f"crossfade migrate cancel {name} (or complete) ends it"
    try:
        spec = make_spec(config, name)
    except NotConfigured:
        yield Problem(path, None, f"is missing, and the migration to {record.spec.to_model!r} is {record.state}; {end}")
        return
    for key in _FIXED:
        asked, kept = getattr(spec, key), getattr(record.spec, key)
        if asked != kept and not (key == "field" and asked == ""):
            reason = f"says {key} {asked!r}, and the migration under way was begun with {kept!r}; {end}"
            yield Problem(path, None, reason)
