"""What the fast path holds of a request, from its arrival to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from crossfade.backends.dialect import Message, Operation

from .exchange import Float32, Plan
from .fastwrites import Passage
from .keys import Known
from .templates import Template

if TYPE_CHECKING:
    from ._filter import Call

Arrived = tuple["Call", bytes, bytes]
"""A call, its key and its body."""


class Alike(NamedTuple):
    """A request that fits a template."""

    call: Call
    key: bytes
    known: Known
    template: Template
    body: bytes


class Sent(NamedTuple):
    """What is remembered of a request until it has ended: its query vectors, for what is observed of them."""

    operation: Operation
    done: str
    plan: Plan | None
    template: Template | None = None
    row: Float32 | None = None
    passage: Passage | None = None
    reads: str | None = None


class Arrival(NamedTuple):
    """A request whose key is known."""

    call: Call
    known: Known
    body: bytes
    began: float


class Item(NamedTuple):
    """A request on its way through a batch, and where the mapped rows of its jobs will be found."""

    call: Call
    known: Known
    message: Message | None  # None: it carries no vectors
    plan: Plan
    body: bytes
    began: float
    places: list[tuple[int, int, int]]  # of each job with a map: the map's number, first row and last
    passage: Passage | None  # of a write that a migration may have to know of
    reads: str | None  # the collection under migration that it reads, adapted

    def hand_on(self) -> None:
        """Leave it to the full route after all."""
        if self.passage is not None:
            self.passage.drop()
        self.call.hand_on()
