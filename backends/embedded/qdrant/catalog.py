"""The catalog file: which collections and aliases there are, and which folder holds each one's shard.

One JSON file is the whole truth about names; it is replaced atomically and synced, so that after a crash either the
old or the new state is there. Shard folders that it does not name are left-overs and are removed on opening.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson
from google.protobuf import json_format
from qdrant_client import grpc as pb

FORMAT = 1


@dataclass(frozen=True)
class Entry:
    """A collection on disk: the folder of its shard (under `shards/`) and its configuration."""

    shard: str
    config: pb.CollectionConfig


@dataclass(frozen=True)
class Catalog:
    """All collections by name, and all aliases (alias -> collection)."""

    collections: Mapping[str, Entry] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)

    def with_collection(self, name: str, entry: Entry) -> Catalog:
        """This catalog with one collection added or replaced."""
        return replace(self, collections={**self.collections, name: entry})

    def without_collection(self, name: str) -> Catalog:
        """This catalog without a collection and the aliases that point at it."""
        return Catalog(
            {other: entry for other, entry in self.collections.items() if other != name},
            {alias: target for alias, target in self.aliases.items() if target != name},
        )


def read_catalog(path: Path) -> Catalog:
    """The catalog in `path`, empty when there is no file yet; raises ValueError for one that this cannot read."""
    try:
        content = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return Catalog()
    except orjson.JSONDecodeError as error:
        raise ValueError(
            f"{path}: not a catalog ({error}); restore it from a copy or use an empty data folder"
        ) from error
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        raise ValueError(f"{path}: catalog format {found!r}, this version reads {FORMAT}; use a matching version")
    entries = {name: _read_entry(item) for name, item in content["collections"].items()}
    return Catalog(entries, content["aliases"])


def _read_entry(item: dict[str, Any]) -> Entry:
    return Entry(item["shard"], json_format.ParseDict(item["config"], pb.CollectionConfig()))


def write_catalog(path: Path, catalog: Catalog) -> None:
    """Replace the catalog file, synced to disk before this returns."""
    content = {
        "format": FORMAT,
        "collections": {
            name: {"shard": entry.shard, "config": json_format.MessageToDict(entry.config)}
            for name, entry in catalog.collections.items()
        },
        "aliases": dict(catalog.aliases),
    }
    fresh = path.with_suffix(".new")
    with fresh.open("wb") as file:
        file.write(orjson.dumps(content, option=orjson.OPT_INDENT_2))
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
