"""The embedded Qdrant of these tests, and a migration on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from crossfade.backends.embedded.qdrant.server import QdrantServer
from tests.proxy.migration.scenery import Scene, set_up


@pytest.fixture(scope="session")
def qdrant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QdrantServer]:
    with QdrantServer(tmp_path_factory.mktemp("qdrant")) as running:
        yield running


@pytest.fixture
async def scene(qdrant: QdrantServer, tmp_path: Path) -> AsyncIterator[Scene]:
    """A started migration of 300 points."""
    async with set_up(qdrant.grpc_port, qdrant.rest_port, f"sqlite:///{tmp_path / 'm.db'}", 300) as made:
        yield made
