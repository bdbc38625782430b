"""Points drawn by chance from a collection that only lists its ids."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence

from .index import Page, PointId


async def draw_ids(list_from: Callable[[PointId | None], Awaitable[Page]], n: int, seed: int) -> Sequence[PointId]:
    """Up to `n` different ids, each equally likely, the same for the same seed and content.

    `list_from` gives the page of ids from one on (None: the first). Vitter's algorithm R: a reservoir of n, in which
    the id of number i replaces a random one with probability n / i.
    """
    chance = random.Random(seed)
    reservoir: list[PointId] = []
    seen = 0
    page = await list_from(None)
    while True:
        for point in page.ids:
            seen += 1
            if len(reservoir) < n:
                reservoir.append(point)
            elif (at := chance.randrange(seen)) < n:
                reservoir[at] = point
        if page.next is None:
            return reservoir
        page = await list_from(page.next)
