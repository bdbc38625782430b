"""The target collection: made like the old one with the new model's dimension, destroyed only if it was made here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from crossfade.backends.index import Index

from .errors import BadPlan
from .record import Migration


async def prepare_target(index: Index, record: Migration, remember: Callable[[], Awaitable[object]]) -> None:
    """Make the target, or accept an empty one of the right shape that the operator has made.

    `remember` keeps that this migration makes it, before it does: after a kill half-way it is begun anew. Raises
    BadPlan when the target cannot take the vectors, IndexRefusedError.
    """
    spec = record.spec
    if await index.exists(spec.target):
        if await index.count(spec.target):
            raise BadPlan(
                collection=spec.collection,
                reason=f"the target {spec.target!r} holds points already; name another target, or empty that one",
            )
        if not record.made_target:
            await _check_shape(index, record)
            return
        await index.drop(spec.target)
    await remember()
    await index.create_like(spec.collection, spec.target, {spec.field: spec.dim})


async def _check_shape(index: Index, record: Migration) -> None:
    spec = record.spec
    old, new = await index.describe(spec.collection), await index.describe(spec.target)
    found = next((one.dim for one in new.fields if one.name == spec.field), None)
    if found != spec.dim:
        has = "has no such vector field" if found is None else f"has {found} dimensions"
        raise BadPlan(
            collection=spec.collection,
            reason=f"the target {spec.target!r}, vector {spec.field!r}, {has}, but {spec.to_model!r} gives {spec.dim}",
        )
    names = {one.name for one in old.fields} | set(old.sparse)
    lacking = sorted(names - {one.name for one in new.fields} - set(new.sparse))
    if lacking:
        raise BadPlan(collection=spec.collection, reason=f"the target {spec.target!r} lacks the vectors {lacking}")


async def clean_up(index: Index, record: Migration) -> None:
    """Destroy the target of a cancelled migration, if this migration made it. Raises IndexRefusedError."""
    if record.made_target and record.spec.target != record.spec.collection:
        await index.drop(record.spec.target)
