"""The Collections service: what there is, how it is configured, and by which names it goes."""

from __future__ import annotations

from typing import Any

from qdrant_client import grpc as pb

from .config import settle_config, update_config
from .errors import Unsupported, engine_errors
from .indexes import write_schema
from .shard import Collection
from .store import Store

PEER = 1
"""The peer id of this one-process server in cluster information."""


class Collections:
    """Every call of Qdrant's Collections service on one store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def create(self, request: pb.CreateCollection) -> bool:
        """Make a collection."""
        with engine_errors():
            self._store.create(request.collection_name, settle_config(request))
        return True

    def update(self, request: pb.UpdateCollection) -> bool:
        """Change a collection's configuration; its index follows when it is next built."""
        collection = self._store.collection(request.collection_name)
        with engine_errors():
            self._store.reconfigure(collection, lambda config: update_config(config, request))
        return True

    def delete(self, request: pb.DeleteCollection) -> bool:
        """Drop a collection; False when there was none."""
        with engine_errors():
            return self._store.delete(request.collection_name)

    def names(self) -> list[str]:
        """The names of all collections."""
        return [collection.name for collection in self._store.collections()]

    def info(self, request: pb.GetCollectionInfoRequest) -> pb.CollectionInfo:
        """Status, size, configuration and payload indexes of a collection."""
        collection = self._store.collection(request.collection_name)
        with engine_errors():
            shard = collection.ask("info")
        info = pb.CollectionInfo(
            status=pb.CollectionStatus.Green if collection.pending is None else pb.CollectionStatus.Yellow,
            optimizer_status=pb.OptimizerStatus(ok=True),
            segments_count=shard.segments_count,
            points_count=shard.points_count,
            indexed_vectors_count=shard.indexed_vectors_count,
            config=collection.config,
            update_queue=pb.UpdateQueueInfo(length=0),
        )
        for key, schema in shard.payload_schema.items():
            write_schema(schema, info.payload_schema[key])
        return info

    def exists(self, request: pb.CollectionExistsRequest) -> bool:
        """Whether a collection or alias of that name is there."""
        return self._store.exists(request.collection_name)

    def change_aliases(self, request: pb.ChangeAliases) -> bool:
        """Apply alias actions, all or none."""
        self._store.change_aliases(request.actions)
        return True

    def aliases(self, collection_name: str | None = None) -> list[pb.AliasDescription]:
        """The aliases of one collection, or all."""
        wanted = None if collection_name is None else self._store.collection(collection_name).name
        return [
            pb.AliasDescription(alias_name=alias, collection_name=target)
            for alias, target in self._store.aliases()
            if wanted in (None, target)
        ]

    def cluster(self, request: pb.CollectionClusterInfoRequest) -> pb.CollectionClusterInfoResponse:
        """The one local, active shard of a collection."""
        collection: Collection = self._store.collection(request.collection_name)
        with engine_errors():
            points = collection.ask("info").points_count
        shard = pb.LocalShardInfo(shard_id=0, points_count=points, state=pb.ReplicaState.Active)
        return pb.CollectionClusterInfoResponse(peer_id=PEER, shard_count=1, local_shards=[shard])

    def shard_keys(self, request: pb.ListShardKeysRequest) -> list[pb.ShardKeyDescription]:
        """No shard keys: every collection is one shard."""
        self._store.collection(request.collection_name)
        return []

    def refuse_sharding(self, request: Any) -> Any:
        """Answer every change of shards."""
        self._store.collection(request.collection_name)
        raise Unsupported("changing shards; a collection here is one shard on one machine")
