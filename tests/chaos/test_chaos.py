"""Chaos in its short form: each kind of run once, through real processes.

Clients pause longer than in the long form (`make chaos`), where they are to keep everything busy: here they would only
keep whatever was killed from starting again.
"""

from __future__ import annotations

from pathlib import Path

from tests.chaos.runs import run_constant, run_history, run_kills


def quiet(line: str) -> None:
    """Nobody watches."""


async def test_kill_minus_nine_of_workers_supervisor_and_upstream_ends_in_the_same_content(tmp_path: Path) -> None:
    outcome = await run_kills(tmp_path, kills=2, seed=3, tell=quiet, pause=0.3)
    assert outcome.points.total() == 2
    assert outcome.told.requests > 50
    assert outcome.compared is not None
    assert outcome.compared.equal, outcome


async def test_no_history_of_a_point_shows_a_lost_stale_or_resurrected_write_although_calls_fail(
    tmp_path: Path,
) -> None:
    watched = await run_history(tmp_path, operations=8_000, seed=5, tell=quiet, faults=0.05, keys=400, pause=0.5)
    assert watched.told.failures
    assert watched.checked >= 8_000
    assert watched.violations == {"order": [], "acknowledged": []}
    assert watched.compared.equal, watched.compared


async def test_no_request_fails_over_the_whole_way_of_a_migration(tmp_path: Path) -> None:
    figures = await run_constant(tmp_path, seed=7, tell=quiet, step_seconds=0.3, pause=0.4)
    assert len(figures["failed_by_step"]) == 11
    assert figures["requests"] > 30
    assert figures["failed_requests"] == 0, figures
