"""What Ray's actors open in the tests: importable by name, on the embedded Qdrant."""

from __future__ import annotations

from crossfade.backends.payload_text import compile_text
from crossfade.backends.qdrant.index import QdrantIndex
from crossfade.proxy.migration.moving import LocalMover
from crossfade.proxy.migration.record import Spec
from tests.proxy.migration.scenery import TestEncoder, connect


async def open_mover(grpc_port: int, rest_port: int, spec: Spec, delay: float = 0.0) -> LocalMover:
    """A mover of its own connection and encoder."""
    index = QdrantIndex(connect(grpc_port, rest_port))
    return LocalMover(spec, index, TestEncoder(delay=delay), compile_text(spec.text))
