"""Queries that wait together are multiplied together, and never get each other's rows or errors."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field

import numpy as np
import pytest

from crossfade.adapters.base import Float32, Map
from crossfade.proxy.batching import Batcher


@dataclass
class Doubling:
    """A map that notes the sizes it was asked for, and on which threads."""

    sizes: list[int] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)
    fails: bool = False

    def apply(self, rows: Float32) -> Float32:
        self.sizes.append(len(rows))
        self.threads.add(threading.get_ident())
        if self.fails:
            raise ValueError("no such product")
        return rows * 2


def rows(n: int, start: int) -> Float32:
    return np.arange(start, start + n * 3, dtype=np.float32).reshape(n, 3)


def as_map(doubling: Doubling) -> Map:
    return doubling  # type: ignore[return-value]  # all of a Map that the batcher asks for


async def test_requests_of_one_tick_share_a_product_and_get_their_own_rows() -> None:
    batcher, doubling = Batcher(asyncio.get_running_loop()), Doubling()
    asked = [rows(n, n * 100) for n in (1, 3, 2, 1)]
    mapped = await asyncio.gather(*(batcher.apply(as_map(doubling), one, 64) for one in asked))
    for one, result in zip(asked, mapped, strict=True):
        np.testing.assert_array_equal(result, one * 2)
    assert doubling.sizes == [7]


async def test_different_maps_are_applied_apart() -> None:
    batcher, first, second = Batcher(asyncio.get_running_loop()), Doubling(), Doubling()
    await asyncio.gather(*(batcher.apply(as_map(one), rows(2, 0), 64) for one in (first, second, first)))
    assert (first.sizes, second.sizes) == ([4], [2])


async def test_many_rows_are_mapped_in_a_thread() -> None:
    batcher, doubling = Batcher(asyncio.get_running_loop()), Doubling()
    np.testing.assert_array_equal(await batcher.apply(as_map(doubling), rows(65, 0), 64), rows(65, 0) * 2)
    assert threading.get_ident() not in doubling.threads


async def test_an_error_reaches_those_who_wait_for_it_and_nobody_else() -> None:
    batcher, bad, good = Batcher(asyncio.get_running_loop()), Doubling(fails=True), Doubling()
    tasks = [batcher.apply(as_map(one), rows(1, 0), 64) for one in (bad, good, bad)]
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(result, ValueError) for result in results] == [True, False, True]


async def test_a_client_that_has_gone_does_not_keep_the_others_from_their_rows() -> None:
    batcher, doubling = Batcher(asyncio.get_running_loop()), Doubling()
    gone = asyncio.ensure_future(batcher.apply(as_map(doubling), rows(1, 0), 64))
    stays = asyncio.ensure_future(batcher.apply(as_map(doubling), rows(1, 9), 64))
    await asyncio.sleep(0)
    gone.cancel()
    np.testing.assert_array_equal(await stays, rows(1, 9) * 2)
    with pytest.raises(asyncio.CancelledError):
        await gone
