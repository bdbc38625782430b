"""Qdrant's API over Qdrant's own shard engine (qdrant-edge-py), without a Qdrant server.

server        QdrantServer: data folder, ports, draining     service    RPC path -> function, both APIs use it
grpc_api      the gRPC listener                              rest_api   the REST listener
rest_requests JSON bodies -> messages                        rest_answers   messages -> JSON
collections   the Collections service                        store, catalog   data folder, names, locks
reads  queries  formula  groups  matrix  legacy              everything that finds points
writes  indexes                                              everything that changes them
config  filters  values                                      messages -> what the engine takes
errors  access  engine                                       failures, API key, the engine's module
"""

from .server import QdrantServer, serve_qdrant

__all__ = ["QdrantServer", "serve_qdrant"]
