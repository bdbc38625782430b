"""A Qdrant message that has been read: its slots, and what its answer needs to know of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..dialect import Edit, Slot
from ..pieces import Pieces, join_pieces

Editor = Callable[[bytes, Sequence[Edit]], Pieces]


class QdrantMessage(NamedTuple):
    """One request or answer (see dialect.Message); `lookup` is the collection of a group request's with_lookup.

    A tuple, since one is made for every message and a frozen dataclass takes four times as long.
    """

    body: bytes
    collections: Sequence[str]
    slots: Sequence[Slot]
    wants_vectors: bool
    lookup: str | None
    editor: Editor

    @property
    def unsettled(self) -> bool:
        """Never: Qdrant's messages name the vector they mean."""
        return False

    def edited(self, edits: Sequence[Edit]) -> bytes:
        """The message's bytes with these slots replaced. Raises ValueError for rows that do not fit their slot."""
        return join_pieces(self.pieces(edits))

    def pieces(self, edits: Sequence[Edit]) -> Pieces:
        """The same, not joined yet."""
        return self.editor(self.body, edits) if edits else (self.body,)
