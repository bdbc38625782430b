"""A Milvus message that has been read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from ..dialect import Edit, Schema, Slot
from ..pieces import Pieces, join_pieces

Editor = Callable[[bytes, Sequence[Edit]], Pieces]
DEFAULT_DATABASE = "default"


class MilvusMessage(NamedTuple):
    """One request or answer (see dialect.Message).

    A tuple, since one is made for every message and a frozen dataclass takes four times as long.
    """

    body: bytes
    collections: Sequence[str]
    slots: Sequence[Slot]
    wants_vectors: bool
    unsettled: bool
    editor: Editor
    schema: Schema | None = None  # that a request was read with

    def edited(self, edits: Sequence[Edit]) -> bytes:
        """The message's bytes with these slots replaced. Raises ValueError for rows that do not fit their slot."""
        return join_pieces(self.pieces(edits))

    def pieces(self, edits: Sequence[Edit]) -> Pieces:
        """The same, not joined yet."""
        return self.editor(self.body, edits) if edits else (self.body,)


def name_collection(database: str, collection: str, headers: Mapping[str, str]) -> str:
    """A collection as the configuration names it: alone in the default database, "DATABASE/NAME" in others.

    The database stands in the message, else in the metadata `dbname`, else it is the default one.
    """
    database = database or headers.get("dbname") or DEFAULT_DATABASE
    return collection if database == DEFAULT_DATABASE else f"{database}/{collection}"


def split_collection(name: str) -> tuple[str, str]:
    """The database ("" the default one) and the collection of a configured name."""
    database, _, collection = name.rpartition("/")
    return database, collection
