"""Requests that differ in nothing but their vector: what was decided and written for one holds for the next.

Clients ask the same question with another vector: the bytes before and after its floats are the same. A template keeps
both as they came and as they went on; a body that fits needs no reading, no planning and no splicing. Protobuf alone
allows it, where floats are raw bytes of a fixed length that no reader looks into.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from crossfade.adapters.base import Map
from crossfade.backends.dialect import Role, Schema, VectorSlot

from .exchange import Float32, Job, Plan
from .routing import Space

_MOST_SIZES = 64
_TRIES = 64
_RARELY = 32
_FEWEST_BYTES = 32  # of a vector; a shorter one may stand elsewhere in a message by chance


class Template(NamedTuple):
    """One query with one vector, mapped; `slot` and `plan` are those of the request it was made of."""

    size: int  # of the body
    start: int  # of the floats
    end: int
    before: bytes
    after: bytes
    head: bytes  # what goes on: head, mapped floats, tail
    tail: bytes
    space: Space
    model: str
    map: Map
    slot: VectorSlot
    schemas: tuple[tuple[str, Schema | None], ...]  # as they were when it was read, by collection
    mark: bytes | None
    done: str
    reads: str | None  # as Sent has it

    def fits(self, body: bytes) -> bool:
        """Whether a body of the template's size differs in its vector alone."""
        return body.startswith(self.before) and body.endswith(self.after)

    def job(self, rows: Float32) -> Job:
        """The job of a request with these rows (1, dim)."""
        slot = VectorSlot(self.slot.collection, self.slot.field, Role.QUERY, rows, self.slot.model, None)
        return Job(self.space, self.model, self.map, [slot])


class Templates:
    """The templates of requests with one method, path and set of headers: the last one of each size."""

    def __init__(self) -> None:
        self._by_size: dict[int, Template] = {}
        self._made = self._used = self._asked = 0

    def find(self, body: bytes) -> Template | None:
        """The template that a body fits."""
        template = self._by_size.get(len(body))
        if template is None or not template.fits(body):
            return None
        self._used += 1
        return template

    def keep(self, template: Template) -> None:
        """Keep a template for the requests to come."""
        self._made += 1
        if len(self._by_size) >= _MOST_SIZES:
            self._by_size.clear()
        self._by_size[template.size] = template

    def pay(self) -> bool:
        """Whether it is worth making one more: not where each request differs from the one before, by its filter say.

        Traffic changes, so that one is tried now and then all the same.
        """
        self._asked += 1
        return self._made < _TRIES or self._used > self._made or self._asked % _RARELY == 0


def make_template(
    body: bytes,
    sent: bytes,
    plan: Plan,
    mapped: Float32,
    schemas: tuple[tuple[str, Schema | None], ...],
    mark: bytes | None,
    done: str,
    reads: str | None = None,
) -> Template | None:
    """The template of a request that came as `body` and went on as `sent`, its one row mapped to `mapped` (1, dim).

    None where it is no single query vector, or its floats do not stand in both bodies exactly once.
    """
    if len(plan.jobs) != 1 or plan.texts or len(mapped) != 1:
        return None
    (job,) = plan.jobs
    if job.map is None or len(job.slots) != 1 or job.slots[0].role is not Role.QUERY:
        return None
    (slot,) = job.slots
    came, went = _wire(slot.rows), _wire(mapped)
    start, put = body.find(came), sent.find(went)
    if min(len(came), len(went)) < _FEWEST_BYTES or start < 0 or put < 0:
        return None
    if body.find(came, start + 1) >= 0 or sent.find(went, put + 1) >= 0:
        return None
    end = start + len(came)
    head, tail = sent[:put], sent[put + len(went) :]
    kept = (slot, schemas, mark, done, reads)
    return Template(len(body), start, end, body[:start], body[end:], head, tail, job.space, job.model, job.map, *kept)


def _wire(rows: Float32) -> bytes:
    return np.ascontiguousarray(rows, "<f4").tobytes()


def read_together(floats: list[bytes]) -> Float32:
    """Vectors of one length as they stood in their bodies, (n, dim)."""
    return np.frombuffer(floats[0] if len(floats) == 1 else b"".join(floats), "<f4").reshape(len(floats), -1)


def fill_templates(templates: list[Template], mapped: Float32) -> list[bytes]:
    """The bodies that go on, from mapped rows (n, target_dim)."""
    floats = np.ascontiguousarray(mapped, "<f4").data.cast("B")
    width = len(floats) // len(templates)
    return [
        b"".join((template.head, floats[at * width : (at + 1) * width], template.tail))
        for at, template in enumerate(templates)
    ]
