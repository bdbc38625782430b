"""The routes: an immutable snapshot of what every collection needs, built once at load and swapped whole.

Pure: adapters are handed in, already loaded and checked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from crossfade.adapters.base import Adapter, Map
from crossfade.adapters.fingerprint import Fingerprint

from .config import Collection, Config
from .config_fields import resolve_field
from .errors import AdapterUnavailable
from .matching import Sample
from .migration.machine import State
from .migration.record import MigrationView
from .turning import turn_adapters
from .verdicts import Verdict

LoadAdapter = Callable[["AdapterKey"], Adapter]


@dataclass(frozen=True, slots=True)
class AdapterKey:
    """Which adapter a field of a collection needs, and where the configuration says it is."""

    collection: str
    field: str
    model: str
    index_model: str
    path: Path


@dataclass(frozen=True, slots=True)
class Space:
    """One vector field of a collection: the models it takes, and their maps into its index's space.

    `document_model` is what undeclared vectors that are stored count as, where that is not the index's own: a migration
    changes the index under clients that were told nothing.
    """

    collection: str
    field: str
    index_model: str
    query_model: str
    declares: str | None
    dims: Mapping[str, int]  # of the models this field takes
    adapters: Mapping[str, Adapter]
    fingerprints: Mapping[int, Mapping[str, Fingerprint]]  # of the models its adapters know, by dimension
    document_model: str | None = None


Decision = tuple[Space, str, Map | None]
"""A vector's space, the model that made it, and the map into the index's space (None: it is there already)."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything a request is decided on; `generation` counts the configurations since start."""

    generation: int
    config: Config
    models: Mapping[str, int]  # dimensions by model name
    adapters: Mapping[AdapterKey, Adapter]
    migrations: Mapping[str, MigrationView] = field(default_factory=dict)  # by collection
    samples: Mapping[str, Sample] = field(default_factory=dict)  # of migrations that have one, by id
    grown: Mapping[str, Adapter] = field(default_factory=dict)  # fitted again by migrations, by id
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)  # of probes, by collection
    spaces: dict[tuple[str, str], Space] = field(default_factory=dict)  # filled as field names are met

    turned: dict[str, Snapshot] = field(default_factory=dict)  # filled as collections are met
    epoch: int = 0  # see leading.py
    watched: Mapping[str, MigrationView] = field(init=False)  # by every name of their collections
    watches: bool = field(init=False)  # whether any collection is being migrated, or may be at any moment

    def __post_init__(self) -> None:
        views = self.migrations.values()
        watched = {name: view for view in views for name in (view.collection, *view.aliases)}
        migrates = any(settings.migrate is not None for settings in self.config.collections.values())
        object.__setattr__(self, "watched", watched)
        object.__setattr__(self, "watches", bool(watched) or migrates)

    def turn(self, collection: str) -> Snapshot:
        """The same, but as if this collection's migration were completed: for what is asked of its target."""
        turned = self.turned.get(collection)
        if turned is None:
            view = self.migrations[collection].model_copy(update={"state": State.COMPLETED})
            moved = {**self.migrations, collection: view}
            turned = self.turned[collection] = move_migrations(self, moved, self.samples, self.grown)
        return turned

    def encodes(self, model: str) -> bool:
        """Whether texts for a model are encoded here."""
        settings = self.config.models.get(model)
        return settings is not None and settings.encoder is not None

    def configured(self, collections: Iterable[str]) -> list[str]:
        """Those of these collections that are in the configuration."""
        return [name for name in collections if name in self.config.collections]

    decisions: dict[tuple[object, ...], Decision] = field(default_factory=dict)  # exchange's, of requests like this one

    def find_space(self, collection: str, using: str) -> Space | None:
        """The space a vector stands in, or None when the collection is not configured."""
        space = self.spaces.get((collection, using))
        if space is None and (settings := self.config.collections.get(collection)) is not None:
            space = _build_space(self, collection, settings, using)
            # Names come from clients: listed ones are kept, others are as cheap to build as to look up.
            if using in settings.fields or using == "":
                self.spaces[collection, using] = space
        return space


def build_snapshot(
    config: Config,
    generation: int,
    load: LoadAdapter,
    migrations: Mapping[str, MigrationView] | None = None,
    samples: Mapping[str, Sample] | None = None,
    grown: Mapping[str, Adapter] | None = None,
) -> Snapshot:
    """Build the snapshot of a configuration and of the migrations under way, loading every adapter it names.

    Raises what `load` raises, and AdapterUnavailable for an adapter of other dimensions than its models'.
    """
    models = {name: model.dim for name, model in config.models.items()}
    adapters = {key: _checked(load(key), key, models) for key in adapter_keys(config)}
    return _with_spaces(Snapshot(generation, config, models, adapters, migrations or {}, samples or {}, grown or {}))


def move_migrations(
    snapshot: Snapshot,
    migrations: Mapping[str, MigrationView],
    samples: Mapping[str, Sample],
    grown: Mapping[str, Adapter],
) -> Snapshot:
    """The same configuration with other migrations; what was decided under the old ones is decided again."""
    moved = replace(snapshot, migrations=migrations, samples=samples, grown=grown, spaces={}, decisions={}, turned={})
    return _with_spaces(moved)


def _with_spaces(snapshot: Snapshot) -> Snapshot:
    for collection, settings in snapshot.config.collections.items():
        for using in ("", *settings.fields):
            snapshot.find_space(collection, using)
    return snapshot


def _checked(adapter: Adapter, key: AdapterKey, models: Mapping[str, int]) -> Adapter:
    """The adapter, if it is for vectors as long as its models'; raises AdapterUnavailable."""
    for reason in wrong_dims(adapter, key, models):
        raise AdapterUnavailable(
            collection=key.collection, field=key.field, model=key.model, path=key.path, reason=reason
        )
    return adapter


def wrong_dims(adapter: Adapter, key: AdapterKey, models: Mapping[str, int]) -> list[str]:
    """What an adapter's dimensions and its models' have against each other."""
    pairs = ((key.model, adapter.card.source_dim), (key.index_model, adapter.card.target_dim))
    return [
        f"{key.path} was fitted for {dim} dimensions of {model!r}, but models.{model}.dim is {models[model]}"
        for model, dim in pairs
        if dim != models[model]
    ]


def adapter_keys(config: Config) -> list[AdapterKey]:
    """Every adapter the configuration names, once for each field that uses it."""
    keys = []
    for collection, settings in config.collections.items():
        for using in ("", *settings.fields):
            resolved = resolve_field(settings, using)
            for model, path in resolved.adapters.items():
                key = AdapterKey(collection, resolved.name, model, resolved.index_model, path)
                if key not in keys:
                    keys.append(key)
    return keys


def _build_space(snapshot: Snapshot, collection: str, settings: Collection, using: str) -> Space:
    resolved = resolve_field(settings, using)
    listed = resolved.name if resolved.name in settings.fields else ""
    adapters = {
        model: snapshot.adapters[AdapterKey(collection, listed, model, resolved.index_model, path)]
        for model, path in resolved.adapters.items()
    }
    index_model = resolved.index_model
    view = snapshot.migrations.get(collection)
    if view is not None and _is_moved(view, using, index_model):
        adapters = _with_grown(snapshot, view, adapters)
        if view.state is State.COMPLETED:
            adapters, index_model = turn_adapters(adapters, view.from_model, view.to_model), view.to_model
    names = (index_model, *adapters)
    return Space(
        collection=collection,
        field=resolved.name,
        index_model=index_model,
        query_model=resolved.query_model if resolved.query_model in names else index_model,
        declares=resolved.declares,
        dims={name: snapshot.models[name] for name in names},
        adapters=adapters,
        fingerprints=_by_dimension(adapters),
        document_model=resolved.index_model if resolved.index_model in names else None,
    )


def _with_grown(snapshot: Snapshot, view: MigrationView, adapters: dict[str, Adapter]) -> dict[str, Adapter]:
    """The adapters with the one that the migration has fitted again, unless the configured one is newer."""
    grown, configured = snapshot.grown.get(view.id), adapters.get(view.to_model)
    if grown is None or configured is None or configured.card.created > grown.card.created:
        return adapters
    if (grown.card.source_dim, grown.card.target_dim) != (configured.card.source_dim, configured.card.target_dim):
        return adapters  # the models' dimensions were changed since
    return {**adapters, view.to_model: grown}


def _is_moved(view: MigrationView, using: str, index_model: str) -> bool:
    """Whether a field is the one that was re-encoded, and the configuration still says what it was before.

    Where no field is named it is the only one there is.
    """
    return using in (view.field, "") and index_model == view.from_model


def _by_dimension(adapters: Mapping[str, Adapter]) -> dict[int, dict[str, Fingerprint]]:
    grouped: dict[int, dict[str, Fingerprint]] = {}
    for adapter in adapters.values():
        for model, known in adapter.fingerprints.items():
            grouped.setdefault(known.dim, {})[model] = known
    return grouped


def find_view(snapshot: Snapshot, collections: Iterable[str]) -> MigrationView | None:
    """The migration of the first of these collections that has one."""
    return next((snapshot.migrations[name] for name in collections if name in snapshot.migrations), None)
