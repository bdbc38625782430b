"""The other end of process_mover: `python -m crossfade.proxy.migration.moving_child FD`."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from contextlib import suppress
from typing import Any, Final

from .hand import Hand, Refused
from .process_mover import pack_pairs, receive, send

_NICE: Final = 10


async def work(fd: int) -> None:
    """Open, then move pages as they are asked for, until the other end has gone."""
    reader, writer = await asyncio.open_unix_connection(sock=socket.socket(fileno=fd))
    sys.path[:] = await receive(reader)  # functions of the operator's are found where the other process finds them
    hand: Hand | None = None
    pages: set[asyncio.Task[None]] = set()

    async def move(number: int, arguments: tuple[Any, ...]) -> None:
        assert hand is not None  # it is opened before anything else is asked
        done = await hand.move(*arguments)
        await send(writer, (number, done if isinstance(done, Refused) else pack_pairs(done)))

    while True:
        number, what, arguments = await receive(reader)
        if what == "open":
            hand = Hand(*arguments)
            await send(writer, (number, await _try(hand)))
        else:
            page = asyncio.create_task(move(number, arguments))
            pages.add(page)
            page.add_done_callback(_end_with_error)
            page.add_done_callback(pages.discard)


async def _try(hand: Hand) -> str | None:
    """Open it; what stands against that, in words."""
    try:
        await hand.ready()
    except Exception as error:  # whatever it is, whoever asked has to be told
        return f"{type(error).__name__}: {error}"
    return None


def _end_with_error(page: asyncio.Task[None]) -> None:
    """A page that fails in a way that nobody has foreseen would be waited for in vain: the other end sees an end."""
    if not page.cancelled() and (error := page.exception()) is not None:
        sys.excepthook(type(error), error, error.__traceback__)
        os._exit(1)


def main() -> int:
    """Work at low priority."""
    os.nice(_NICE)
    with suppress(asyncio.IncompleteReadError, ConnectionError):
        asyncio.run(work(int(sys.argv[1])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
