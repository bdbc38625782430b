"""Qdrant's API over Qdrant's own shard engine (qdrant-edge-py), without a Qdrant server.

server                                      QdrantServer: data folder, ports, draining
grpc_api  rest_api  rest_operations         the two listeners, and the table of REST paths
rest_requests  rest_legacy  rest_answers    JSON bodies to messages, and messages to JSON
service                                     RPC path to function: both listeners call it
collections  store  catalog  shard          what there is, under which names, in which folder
reads  queries  examples  formula           everything that finds points
groups  matrix  legacy                      ... in groups, in matrices, by deprecated calls
writes  indexes  indexing                   everything that changes them; HNSW in a child process
config  filters  values                     messages to what the engine takes
errors  access  engine                      failures, the API key, the engine's module
"""

from .server import QdrantServer, serve_qdrant

__all__ = ["QdrantServer", "serve_qdrant"]
