"""The journal of dirty keys: what it keeps, over processes and kills, and what `clear` may take away."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from crossfade.proxy.migration.errors import MigrationStorageError
from crossfade.proxy.migration.journal import Backlog, Journal, Native
from crossfade.proxy.migration.keys import order_of, read_key, write_key

UUID = "5c56c793-69f3-4fbf-87e6-c4bf54c28c26"


@pytest.fixture
def journal(url: str) -> Iterator[Journal]:
    opened = Journal(url)
    yield opened
    opened.shut()


async def test_a_mark_is_there_until_its_write_has_ended_and_it_was_brought_over(journal: Journal) -> None:
    mark = await journal.mark("m", [1, UUID, 1], "w")
    (first, second) = await journal.dirty("m", 10)
    assert (first.point, second.point) == (1, UUID)
    assert not first.finished
    assert await journal.clear("m", [first, second]) == 0
    await journal.close(mark)
    assert (await journal.backlog("m")).count == 2
    done = await journal.dirty("m", 10)
    assert all(one.finished for one in done)
    assert await journal.clear("m", done) == 2
    assert await journal.dirty("m", 10) == []
    assert (await journal.backlog("m")).count == 0


async def test_a_mark_that_came_after_the_point_was_read_stays(journal: Journal) -> None:
    await journal.close(await journal.mark("m", [7], "w"))
    seen = await journal.dirty("m", 10)
    newer = await journal.mark("m", [7], "w")
    await journal.close(newer)
    await journal.clear("m", seen)
    (left,) = await journal.dirty("m", 10)
    assert left.ended == (newer.seq,)


async def test_a_write_that_ended_after_dirty_was_asked_keeps_its_mark(journal: Journal) -> None:
    mark = await journal.mark("m", [7], "w")
    seen = await journal.dirty("m", 10)
    await journal.close(mark)
    await journal.clear("m", seen)
    assert [one.point for one in await journal.dirty("m", 10)] == [7]


async def test_an_older_write_still_under_way_keeps_a_point_unfinished(journal: Journal) -> None:
    slow, fast = await journal.mark("m", [7], "slow"), await journal.mark("m", [7], "fast")
    await journal.close(fast)
    (seen,) = await journal.dirty("m", 10)
    assert (seen.seq, seen.ended, seen.finished) == (fast.seq, (fast.seq,), False)
    await journal.close(slow)
    assert await journal.clear("m", [seen]) == 1
    (left,) = await journal.dirty("m", 10)
    assert (left.seq, left.ended, left.finished) == (slow.seq, (slow.seq,), True)


async def test_points_that_can_be_cleared_come_before_points_that_cannot(journal: Journal) -> None:
    await journal.mark("m", [1, 2, 3], "stuck")
    await journal.close(await journal.mark("m", [9], "w"))
    assert [one.point for one in await journal.dirty("m", 1)] == [9]


async def test_what_a_dead_writer_left_counts_as_ended_once_its_last_requests_must_have_arrived(url: str) -> None:
    now = 1000.0
    journal = Journal(url, clock=lambda: now)
    await journal.mark("m", [1], "dead")
    await journal.mark("m", [2], "alive")
    assert await journal.open_writers() == ["alive", "dead"]
    assert await journal.close_dead("dead", settles_in=5) == 1
    assert await journal.open_writers() == ["alive"]
    assert {one.point: one.finished for one in await journal.dirty("m", 9)} == {1: False, 2: False}
    now = 1005.5
    seen = await journal.dirty("m", 9)
    assert {one.point: one.finished for one in seen} == {1: True, 2: False}
    assert await journal.clear("m", seen) == 1
    assert await journal.backlog("m") == Backlog(1, 0.0)  # its write is still under way: nothing is late
    journal.shut()


async def test_a_write_of_unknown_end_settles_later(url: str) -> None:
    now = 1000.0
    journal = Journal(url, clock=lambda: now)
    await journal.close(await journal.mark("m", [1], "w"), settles_in=10)
    assert not (await journal.dirty("m", 9))[0].finished
    now = 1009.0
    assert await journal.backlog("m") == Backlog(1, 0.0)
    now = 1011.0
    assert (await journal.dirty("m", 9))[0].finished
    assert await journal.backlog("m") == Backlog(1, 1.0)
    await journal.close(await journal.mark("m", [2], "w"))
    now = 1014.0
    assert await journal.backlog("m") == Backlog(2, 4.0)
    journal.shut()


async def test_the_newest_mark_and_the_oldest_that_can_be_brought_over_bound_what_was_acknowledged(
    journal: Journal,
) -> None:
    assert (await journal.newest("m"), await journal.oldest_ended("m")) == (0, None)
    slow, fast = await journal.mark("m", [1], "slow"), await journal.mark("m", [2], "fast")
    assert (await journal.newest("m"), await journal.oldest_ended("m")) == (fast.seq, None)
    await journal.close(fast)
    assert await journal.oldest_ended("m") == fast.seq
    await journal.clear("m", await journal.dirty("m", 9))
    assert await journal.oldest_ended("m") is None
    await journal.close(slow)
    assert await journal.oldest_ended("m") == slow.seq


async def test_the_whole_collection_is_one_mark(journal: Journal) -> None:
    await journal.close(await journal.mark_all("m", "w"))
    (seen,) = await journal.dirty("m", 10)
    assert seen.point is None
    await journal.clear("m", [seen])
    assert await journal.dirty("m", 10) == []


async def test_migrations_do_not_see_each_others_marks(journal: Journal) -> None:
    await journal.close(await journal.mark("a", [1], "w"))
    await journal.close(await journal.mark("b", [1], "w"))
    await journal.clear("a", await journal.dirty("a", 9))
    assert len(await journal.dirty("b", 9)) == 1
    await journal.forget("b")
    assert await journal.dirty("b", 9) == []


async def test_new_model_vectors_that_clients_sent_are_kept_newest_first(journal: Journal) -> None:
    old, new = np.arange(3, dtype=np.float32), np.arange(5, dtype=np.float32)
    await journal.mark("m", [4, 5], "w", {4: Native(old, new)})
    await journal.mark("m", [4], "w", {4: Native(old + 1, new + 1)})
    found = await journal.natives("m", [4, 5, 6])
    assert found.keys() == {4}
    np.testing.assert_array_equal(found[4][0].vector, new + 1)
    np.testing.assert_array_equal(found[4][1].stored, old)


async def test_a_sent_vector_says_whether_its_write_has_ended_and_can_be_forgotten(journal: Journal) -> None:
    old, new = np.arange(3, dtype=np.float32), np.arange(5, dtype=np.float32)
    first = await journal.mark("m", [4], "w", {4: Native(old, new)})
    second = await journal.mark("m", [4], "w", {4: Native(old + 1, new + 1)})
    await journal.close(first)
    kept = (await journal.natives("m", [4]))[4]
    assert [(one.seq, one.ended) for one in kept] == [(second.seq, False), (first.seq, True)]
    await journal.forget_natives("m", {4: [first.seq], 5: [second.seq]})
    assert [one.seq for one in (await journal.natives("m", [4]))[4]] == [second.seq]


async def test_many_marks_at_once_are_all_kept_each_with_its_own_number(journal: Journal) -> None:
    made = await asyncio.gather(*(journal.mark("m", [at % 50], "w") for at in range(400)))
    assert len({mark.seq for mark in made}) == 400
    await asyncio.gather(*(journal.close(mark) for mark in made))
    seen = await journal.dirty("m", 100)
    assert sum(len(one.ended) for one in seen) == 400
    assert all(one.finished for one in seen)


async def test_a_cancelled_writer_leaves_no_open_write(journal: Journal) -> None:
    waiting = [asyncio.ensure_future(journal.mark("m", [at], "w")) for at in range(20)]
    await asyncio.sleep(0)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    await journal.close(await journal.mark("m", [99], "other"))  # its commit comes after theirs
    for _ in range(100):
        if await journal.open_writers() == []:
            break
        await asyncio.sleep(0.02)
    assert await journal.open_writers() == []


_WRITER = """
import asyncio, sys
from crossfade.proxy.migration.journal import Journal

async def main():
    journal = Journal(sys.argv[1])
    for at in range(100000):
        mark = await journal.mark("m", [at], "child")
        print(at, flush=True)
        await journal.close(mark)

asyncio.run(main())
"""


async def test_a_returned_mark_survives_the_kill_of_its_process(url: str) -> None:
    journal = Journal(url)
    child = subprocess.Popen([sys.executable, "-c", _WRITER, url], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    returned = [int(child.stdout.readline()) for _ in range(60)]
    os.kill(child.pid, signal.SIGKILL)
    returned += [int(line) for line in child.stdout.read().split()]
    child.wait()
    await journal.close_dead("child", settles_in=0)
    seen = await journal.dirty("m", 100_000)
    assert set(returned) <= {one.point for one in seen}
    assert all(one.finished for one in seen)
    journal.shut()


async def test_a_journal_that_cannot_be_written_says_which_and_why(tmp_path: Path) -> None:
    with pytest.raises(MigrationStorageError, match=r"sqlite:///.*absent/x\.db cannot be used: unable to open"):
        Journal(f"sqlite:///{tmp_path}/absent/x.db")


@pytest.mark.parametrize("point", [0, 7, 2**64 - 1, "7", "text with : in it", UUID])
def test_keys_give_back_the_id_they_were_made_from(point: int | str) -> None:
    assert read_key(write_key(point)) == point


def test_keys_have_the_order_of_the_database() -> None:
    ids: list[int | str] = [UUID, 10, 9, "00000000-0000-0000-0000-000000000000"]
    assert sorted(ids, key=order_of) == [9, 10, "00000000-0000-0000-0000-000000000000", UUID]
    assert write_key(UUID.upper().replace("-", "")) == write_key(UUID)
