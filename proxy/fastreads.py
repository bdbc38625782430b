"""Reads of collections under migration that the fast path serves as if there were none."""

from __future__ import annotations

from crossfade.backends.dialect import Message

from .exchange import Plan
from .keys import Known
from .migration.record import MigrationView
from .strategies import adapts_every, read_wanted


def is_adapted(message: Message, plan: Plan, view: MigrationView, known: Known) -> bool:
    """Whether a request of a collection under migration is a read that no more is done for than without one.

    Raises UnknownStrategy.
    """
    if known.operation.writes or view.shadow or set(message.collections) != {view.collection}:
        return False
    of_the_new = bool(plan.jobs) and set(plan.models.values()) == {view.to_model}
    return of_the_new and adapts_every(view, read_wanted(known.context.headers, view.collection))
