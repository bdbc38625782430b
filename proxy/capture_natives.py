"""Vectors of the new model that clients write while a collection is migrated: the target gets them as they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from crossfade.backends.dialect import Edit, Float32, Message, Operation
from crossfade.backends.index import PointId
from crossfade.backends.writing import WriteCodec

from .exchange import Plan
from .migration.marks import Native
from .migration.record import MigrationView


def find_natives(
    codec: WriteCodec, operation: Operation, message: Message, plan: Plan, edits: Sequence[Edit], view: MigrationView
) -> dict[PointId, Native]:
    """By point: the vector that the client sent for the field that is re-encoded, and what is stored in its place."""
    sent = _sent(plan, view)
    if not sent:
        return {}
    stored = {id(slot): np.asarray(rows) for slot, rows in edits}
    found = {}
    for slot, points in zip(message.slots, codec.find_owners(operation, message), strict=True):
        if points and id(slot) in sent:
            for point, old, new in zip(points, stored[id(slot)], sent[id(slot)], strict=True):
                found[point] = Native(old, new)
    return found


def _sent(plan: Plan, view: MigrationView) -> dict[int, Float32]:
    """The rows of the new model in the field, by the identity of their slot."""
    sent: dict[int, Float32] = {}
    for job in plan.jobs:
        if job.map is not None and job.model == view.to_model and job.space.field == view.field:
            sent |= {id(slot): slot.rows for slot in job.slots}
    for text in plan.texts:
        ours = text.model == view.to_model and text.space.field == view.field
        if ours and text.map is not None and text.row is not None:
            sent[id(text.slot)] = text.row
    return sent
