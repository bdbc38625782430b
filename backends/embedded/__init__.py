"""Upstreams that need no server, for demonstrations, laptops and tests.

qdrant   Qdrant's gRPC and REST API over its own shard engine (the extra `embedded`)
milvus   Milvus's gRPC API over milvus-lite (the extra `milvus`)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .qdrant import QdrantServer, serve_qdrant

__all__ = ["QdrantServer", "serve_qdrant"]


def __getattr__(name: str) -> object:
    """Qdrant's names, imported when asked for: whoever has the extra for Milvus alone has no engine of Qdrant."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import qdrant

    found: object = getattr(qdrant, name)
    return found
