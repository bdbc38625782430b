"""Upstreams that need no server, for demonstrations, laptops and tests.

qdrant   Qdrant's gRPC and REST API over its own shard engine (the extra `embedded`)
"""

from .qdrant import QdrantServer, serve_qdrant

__all__ = ["QdrantServer", "serve_qdrant"]
