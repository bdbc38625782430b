"""Collecting pairs from a live collection: every usable document once, in any interruption."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from crossfade.backends.index import PointId
from crossfade.proxy.cli_collect import BATCH, Collected, Document, Plan, collect_pairs
from crossfade.proxy.cli_output import UsageProblem
from crossfade.proxy.encoders import Float32
from crossfade.proxy.errors import EncoderFailed

PLAN = Plan("main", "docs", "", "old", "new", "here", "payload.text", 300, 7)


class Library:
    """A collection in memory: document i has the vector [i, 1], the text "i", or lacks one of them."""

    def __init__(self, count: int = 1000, *, textless: int = 0, vectorless: int = 0, deleted: int = 0) -> None:
        self.count, self.reads = count, 0
        self.textless, self.vectorless, self.deleted = (range(0, n * 3, 3) for n in (textless, vectorless, deleted))

    async def sample(self, count: int, seed: int) -> Sequence[PointId]:
        return random.Random(seed).sample(range(self.count), min(count, self.count))

    async def read(self, ids: Sequence[PointId]) -> Sequence[Document]:
        self.reads += 1
        return [self.document(int(number)) for number in ids if int(number) not in self.deleted]

    def document(self, number: int) -> Document:
        vector = None if number in self.vectorless else np.array([number, 1], dtype=np.float32)
        return Document(number, vector, ("" if number % 2 else None) if number in self.textless else str(number))


class Model:
    """Encodes "i" as [i, 2, 3]; fails after some texts when asked to."""

    batch_size = 64

    def __init__(self, fails_after: int | None = None) -> None:
        self.encoded: list[str] = []
        self.fails_after = fails_after

    async def encode(self, texts: Sequence[str], role: str) -> Float32:
        assert role == "passage"
        if self.fails_after is not None and len(self.encoded) + len(texts) > self.fails_after:
            raise EncoderFailed(model="new", endpoint="here", reason="broke")
        self.encoded += texts
        return np.array([[float(text), 2, 3] for text in texts], dtype=np.float32).reshape(-1, 3)

    async def close(self) -> None: ...


async def collect(
    work: Path, library: Library, model: Model, plan: Plan = PLAN, parallel: int = 3
) -> tuple[Collected, list[tuple[int, int]]]:
    steps: list[tuple[int, int]] = []
    found = await collect_pairs(
        library, model, plan, work, parallel=parallel, progress=lambda *step: steps.append(step)
    )
    return found, steps


async def test_each_sampled_document_gives_one_pair_of_its_own(tmp_path: Path) -> None:
    found, steps = await collect(tmp_path, Library(), Model())
    assert found.source.shape == (300, 3)
    np.testing.assert_array_equal(found.source[:, 0], found.target[:, 0])
    assert len(set(found.source[:, 0].tolist())) == 300
    assert steps[0] == (0, 300)
    assert steps[-1] == (300, 300)
    assert steps == sorted(steps)


async def test_the_same_seed_gives_the_same_pairs_and_another_one_others(tmp_path: Path) -> None:
    first, _ = await collect(tmp_path / "a", Library(), Model(), parallel=1)
    again, _ = await collect(tmp_path / "b", Library(), Model(), parallel=4)
    other, _ = await collect(tmp_path / "c", Library(), Model(), replace(PLAN, seed=8))
    np.testing.assert_array_equal(first.source, again.source)
    assert set(first.source[:, 0].tolist()) != set(other.source[:, 0].tolist())


async def test_documents_without_text_or_vector_or_gone_meanwhile_are_left_out_and_counted(tmp_path: Path) -> None:
    library = Library(300, textless=10, vectorless=4, deleted=2)
    found, _ = await collect(tmp_path, library, Model())
    assert (found.without_text, found.without_vector) == (8, 2)  # of those that are still there
    assert len(found.source) == 290
    np.testing.assert_array_equal(found.source[:, 0], found.target[:, 0])


async def test_after_a_failure_only_what_is_missing_is_done(tmp_path: Path) -> None:
    with pytest.raises(EncoderFailed, match="broke"):
        await collect(tmp_path, Library(), Model(fails_after=2 * BATCH), parallel=1)
    library, model = Library(), Model()
    found, steps = await collect(tmp_path, library, model)
    assert steps[0] == (2 * BATCH, 300)
    assert (library.reads, len(model.encoded)) == (1, 300 - 2 * BATCH)
    whole, _ = await collect(tmp_path / "whole", Library(), Model())
    np.testing.assert_array_equal(found.source, whole.source)
    np.testing.assert_array_equal(found.target, whole.target)


async def test_a_finished_collection_is_not_done_again(tmp_path: Path) -> None:
    await collect(tmp_path, Library(), Model())
    library, model = Library(), Model()
    await collect(tmp_path, library, model)
    assert (library.reads, model.encoded) == (0, [])


@pytest.mark.parametrize("change", [{"model": "newer"}, {"sample": 200}, {"seed": 1}, {"text": "{title}"}])
async def test_a_folder_made_for_other_pairs_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    await collect(tmp_path, Library(), Model())
    with pytest.raises(UsageProblem, match=f"{next(iter(change))} was .* and is .*remove that folder"):
        await collect(tmp_path, Library(), Model(), replace(PLAN, **change))  # type: ignore[arg-type]  # its own fields


async def test_a_collection_without_any_text_says_where_it_looked(tmp_path: Path) -> None:
    library = Library(300)
    library.textless = range(300)
    with pytest.raises(UsageProblem, match=r"300 have no text at 'payload\.text'.*collections\.docs\.text"):
        await collect(tmp_path, library, Model())


async def test_an_empty_collection_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match="'docs' on upstream 'main' holds no points"):
        await collect(tmp_path, Library(0), Model())


KILLED = """
    import asyncio, os, signal, sys
    from pathlib import Path
    sys.path.insert(0, {folder!r})
    from test_cli_collect import PLAN, Library, Model, collect
    work = Path({work!r})

    class Slow(Model):
        async def encode(self, texts, role):
            rows = await super().encode(texts, role)
            if len(self.encoded) > 200:
                os.kill(os.getpid(), signal.SIGKILL)
            return rows

    asyncio.run(collect(work, Library(), Slow(), parallel=1))
"""


async def test_after_a_kill_at_most_the_batch_under_way_is_redone_and_the_pairs_are_the_same(tmp_path: Path) -> None:
    code = textwrap.dedent(KILLED).format(folder=os.path.dirname(__file__), work=str(tmp_path / "killed"))
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    model = Model()
    found, _ = await collect(tmp_path / "killed", Library(), model)
    assert len(model.encoded) == 300 - BATCH
    whole, _ = await collect(tmp_path / "whole", Library(), Model())
    np.testing.assert_array_equal(found.source, whole.source)
