"""kill -9 of the controller at seeded moments: the content ends the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from crossfade.backends.embedded.qdrant.server import QdrantServer
from tests.proxy.migration.chaos_runs import run_chaos


@pytest.mark.parametrize("seed", [1])
async def test_a_controller_killed_anywhere_loses_resurrects_and_overwrites_nothing(
    qdrant: QdrantServer, tmp_path: Path, seed: int
) -> None:
    outcome = await run_chaos(qdrant.grpc_port, qdrant.rest_port, tmp_path, kills=3, seed=seed)
    assert outcome.kills.total() == 3
    assert outcome.writes > 20
    assert outcome.failed_writes == 0
    assert outcome.differences.none, outcome
