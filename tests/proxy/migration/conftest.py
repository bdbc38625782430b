"""The embedded Qdrant of these tests, a migration on it, and the databases that journal and store are kept in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from crossfade.backends.embedded.qdrant.server import QdrantServer
from tests.proxy.migration.postgres_cluster import PostgresCluster, why_not
from tests.proxy.migration.scenery import Scene, set_up


@pytest.fixture(scope="session")
def qdrant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QdrantServer]:
    with QdrantServer(tmp_path_factory.mktemp("qdrant")) as running:
        yield running


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresCluster]:
    """A PostgreSQL server; a test that stops it starts it again."""
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    with PostgresCluster() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'migrations.db'}"
    cluster: PostgresCluster = request.getfixturevalue("postgres")
    return cluster.make_database()


@pytest.fixture
async def scene(qdrant: QdrantServer, tmp_path: Path) -> AsyncIterator[Scene]:
    """A started migration of 300 points."""
    async with set_up(qdrant.grpc_port, qdrant.rest_port, f"sqlite:///{tmp_path / 'm.db'}", 300) as made:
        yield made
