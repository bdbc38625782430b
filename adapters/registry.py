"""Map kinds by name, so that a stored adapter can be restored and maps can hold other maps."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, cast

from numpy.typing import NDArray

from .base import JSON, Arrays, Map, StoreError

# Kept as names: a proxy that serves linear maps never imports the files of the other families.
KINDS: dict[str, tuple[str, str]] = {
    "linear": (".linear", "LinearMap"),
    "lowrank": (".lowrank", "LowRankMap"),
    "local": (".local", "LocalMap"),
    "residual": (".residual", "ResidualMap"),
    "mlp": (".mlp", "MlpMap"),
}


def find_kind(kind: str) -> type[Map]:
    """Return the class of a map kind. Raises StoreError for an unknown one, naming those known."""
    if kind not in KINDS:
        raise StoreError(
            f"unknown map kind {kind!r}: this version knows {', '.join(sorted(KINDS))}; was it made by a newer one?"
        )
    module, name = KINDS[kind]
    return cast("type[Map]", getattr(import_module(module, __package__), name))


def describe_map(fitted: Map) -> dict[str, JSON]:
    """The JSON that `restore_map` needs beside the arrays."""
    return {"kind": fitted.kind, "settings": fitted.settings()}


def restore_map(arrays: Arrays, description: Mapping[str, JSON]) -> Map:
    """Build a map from its arrays and the JSON of `describe_map`."""
    settings = description["settings"]
    if not isinstance(settings, dict):
        raise StoreError(f"map settings are {type(settings).__name__}: expected an object")
    return find_kind(str(description["kind"])).restore(arrays, settings)


def with_prefix(prefix: str, arrays: Arrays) -> dict[str, NDArray[Any]]:
    """Name a part's arrays inside its owner: "weight" becomes "base.weight"."""
    return {f"{prefix}.{name}": array for name, array in arrays.items()}


def without_prefix(prefix: str, arrays: Arrays) -> dict[str, NDArray[Any]]:
    """The arrays of one part, by its own names."""
    start = prefix + "."
    return {name[len(start) :]: array for name, array in arrays.items() if name.startswith(start)}
