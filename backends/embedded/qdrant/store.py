"""A data folder opened by this process: its collections, their shards, and the lock that keeps others out."""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from qdrant_client import grpc as pb

from .catalog import Catalog, Entry, read_catalog, sync_folder, write_catalog
from .config import engine_config
from .engine import edge
from .errors import AlreadyExists, NotFound, Unprocessable, WrongInput, engine_errors
from .shard import Collection

FORBIDDEN = '/\\:*?"<>|\0\x1f'


class Store:
    """The collections of one data folder.

    Opening raises BlockingIOError when another process holds the folder, ValueError when its catalog cannot be read.
    """

    def __init__(self, data: Path) -> None:
        self.data = data
        self._shards = data / "shards"
        self._shards.mkdir(parents=True, exist_ok=True)
        self._lock = lock_folder(data)
        self._changing = threading.RLock()
        try:
            self._catalog = read_catalog(data / "catalog.json")
            self._remove_leftovers()
            self._open = {name: self._load(name, entry) for name, entry in self._catalog.collections.items()}
        except BaseException:
            os.close(self._lock)
            raise

    def _load(self, name: str, entry: Entry) -> Collection:
        folder = self._shards / entry.shard
        try:
            shard = edge.EdgeShard.load(str(folder))
        except Exception as error:
            raise ValueError(f"collection `{name}`: shard {folder} cannot be opened: {error}") from error
        return Collection(name, folder, shard, entry.config)

    def _remove_leftovers(self) -> None:
        known = {entry.shard for entry in self._catalog.collections.values()}
        for folder in self._shards.iterdir():
            if folder.name not in known:
                shutil.rmtree(folder, ignore_errors=True)  # an indexing child may be dying in it

    def collection(self, name: str) -> Collection:
        """The collection of that name or alias; raises NotFound."""
        found = self._open.get(name) or self._open.get(self._catalog.aliases.get(name, ""))
        if found is None:
            raise NotFound(f"Collection `{name}` doesn't exist!")
        return found

    def collections(self) -> list[Collection]:
        """Every collection, by name."""
        return sorted(self._open.values(), key=lambda collection: collection.name)

    def exists(self, name: str) -> bool:
        """Whether a collection or an alias has that name."""
        return name in self._open or name in self._catalog.aliases

    def create(self, name: str, config: pb.CollectionConfig) -> Collection:
        """Make a collection; raises AlreadyExists, or Unprocessable for a name that a folder could not have."""
        check_name(name)
        with self._changing:
            if name in self._open:
                raise AlreadyExists(f"Collection `{name}` already exists!")
            if name in self._catalog.aliases:
                raise WrongInput(f"Can't create collection with name {name}. Alias with the same name already exists")
            entry = Entry(uuid.uuid4().hex, config)
            folder = self._shards / entry.shard
            with engine_errors():
                shard = edge.EdgeShard.create(str(folder), engine_config(config))
            sync_folder(self._shards)
            collection = Collection(name, folder, shard, config)
            self._change(self._catalog.with_collection(name, entry))
            self._open[name] = collection
            return collection

    def delete(self, name: str) -> bool:
        """Drop a collection with its aliases; False when there is none of that name."""
        collection = self._open.get(name)
        if collection is None:
            return False
        with collection.writing, self._changing:  # in this order everywhere
            if self._open.get(name) is not collection:
                return False
            self._change(self._catalog.without_collection(name))
            del self._open[name]
            collection.drop()
        shutil.rmtree(collection.folder)
        return True

    def reconfigure(self, collection: Collection, change: Callable[[pb.CollectionConfig], pb.CollectionConfig]) -> None:
        """Replace a collection's configuration; the engine takes it up when it next rebuilds the shard."""
        with self._changing:
            if self._open.get(collection.name) is not collection:
                raise NotFound(f"Collection `{collection.name}` doesn't exist!")
            config = change(collection.config)
            engine_config(config)
            self._change(self._catalog.with_collection(collection.name, Entry(collection.folder.name, config)))
            collection.config = config

    def move(self, collection: Collection, folder: Path, shard: Any) -> None:
        """Let a collection go on in another folder, that of an indexed copy of its shard."""
        with self._changing:
            self._change(self._catalog.with_collection(collection.name, Entry(folder.name, collection.config)))
            collection.folder, collection.shard = folder, shard

    def aliases(self) -> list[tuple[str, str]]:
        """Every (alias, collection), by alias."""
        return sorted(self._catalog.aliases.items())

    def change_aliases(self, actions: Iterable[pb.AliasOperations]) -> None:
        """Apply alias actions in order, all of them or none."""
        with self._changing:
            aliases = dict(self._catalog.aliases)
            for action in actions:
                self._change_alias(aliases, action)
            self._change(Catalog(self._catalog.collections, aliases))

    def _change_alias(self, aliases: dict[str, str], action: pb.AliasOperations) -> None:
        match action.WhichOneof("action"):
            case "create_alias":
                alias, target = action.create_alias.alias_name, action.create_alias.collection_name
                if target not in self._open:
                    raise NotFound(f"Collection `{target}` doesn't exist!")
                if alias in self._open:
                    raise AlreadyExists(f"Collection `{alias}` already exists!")
                check_name(alias)
                aliases[alias] = target
            case "rename_alias":
                old, new = action.rename_alias.old_alias_name, action.rename_alias.new_alias_name
                if old not in aliases:
                    raise NotFound(f"Alias {old} does not exists!")
                if new in self._open:
                    raise AlreadyExists(f"Collection `{new}` already exists!")
                check_name(new)
                aliases[new] = aliases.pop(old)
            case "delete_alias":
                aliases.pop(action.delete_alias.alias_name, None)
            case _:
                raise WrongInput("Malformed AliasOperations: none of its actions is set")

    def _change(self, catalog: Catalog) -> None:
        write_catalog(self.data / "catalog.json", catalog)
        self._catalog = catalog

    def flush(self) -> None:
        """Flush every collection that was written to."""
        for collection in self.collections():
            collection.flush()

    def close(self) -> None:
        """Flush and close every shard and let the folder go."""
        for collection in self.collections():
            collection.drop()
        self._open.clear()
        os.close(self._lock)


def lock_folder(data: Path) -> int:
    """Take the folder for this process; raises BlockingIOError naming the holder's process id."""
    descriptor = os.open(data / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise BlockingIOError(
            f"{data}: in use by another embedded Qdrant (process {holder}); stop it or choose another data folder"
        ) from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def check_name(name: str) -> None:
    """Refuse names that Qdrant refuses: empty, longer than 255, or with characters that no file name can have."""
    if not 1 <= len(name) <= 255:
        raise Unprocessable(f"collection_name: length {len(name)} invalid, must be from 1 to 255 characters")
    for character in name:
        if character in FORBIDDEN:
            raise Unprocessable(f"collection_name: collection name cannot contain {character!r} char")
