"""A Qdrant message that has been read: its slots, and what its answer needs to know of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..dialect import Edit, Slot

Editor = Callable[[bytes, Sequence[Edit]], bytes]


@dataclass(frozen=True, slots=True, eq=False)
class QdrantMessage:
    """One request or answer (see dialect.Message); `lookup` is the collection of a group request's with_lookup."""

    body: bytes
    collections: Sequence[str]
    slots: Sequence[Slot]
    wants_vectors: bool
    lookup: str | None
    editor: Editor

    def edited(self, edits: Sequence[Edit]) -> bytes:
        """The message's bytes with these slots replaced. Raises ValueError for rows that do not fit their slot."""
        return self.editor(self.body, edits) if edits else self.body
