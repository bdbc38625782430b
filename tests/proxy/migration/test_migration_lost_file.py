"""A SQLite file that is moved or deleted while it is open: nothing may be written where nobody will read it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from crossfade.backends.index import PointId
from crossfade.proxy.migration.errors import MigrationStorageError
from crossfade.proxy.migration.journal import Journal


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "migrations"
    made.mkdir()
    return made


@pytest.fixture
def journal(folder: Path) -> Iterator[Journal]:
    opened = Journal(f"sqlite:///{folder / 'journal.sqlite'}")
    yield opened
    opened.shut()


async def check_unusable(journal: Journal) -> None:
    with pytest.raises(MigrationStorageError, match=r"journal\.sqlite is not there"):
        await journal.mark("m", [2], "w")
    with pytest.raises(MigrationStorageError, match=r"journal\.sqlite is not there"):
        await journal.dirty("m", 10)


async def points_of(journal: Journal) -> set[PointId | None]:
    return {one.point for one in await journal.dirty("m", 10)}


async def test_a_deleted_journal_takes_no_marks_and_is_not_made_anew(journal: Journal, folder: Path) -> None:
    await journal.mark("m", [1], "w")
    shutil.rmtree(folder)
    folder.mkdir()
    await check_unusable(journal)
    assert not list(folder.iterdir())


async def test_a_journal_that_was_moved_away_goes_on_when_it_is_back(journal: Journal, folder: Path) -> None:
    await journal.mark("m", [1], "w")
    folder.rename(folder.with_name("away"))
    await check_unusable(journal)
    folder.with_name("away").rename(folder)
    await journal.mark("m", [3], "w")
    assert await points_of(journal) == {1, 3}


async def test_a_journal_that_was_put_in_the_place_of_another_is_the_one_that_is_written(
    journal: Journal, folder: Path
) -> None:
    await journal.mark("m", [1], "w")
    shutil.copytree(folder, folder.with_name("copy"))
    await journal.mark("m", [2], "w")
    folder.rename(folder.with_name("away"))
    folder.with_name("copy").rename(folder)
    await journal.mark("m", [3], "w")
    assert await points_of(journal) == {1, 3}
