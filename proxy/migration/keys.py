"""Point ids as text, for tables that hold ids of every kind, and their order in a database."""

from __future__ import annotations

from uuid import UUID

from crossfade.backends.index import PointId


def write_key(point: PointId) -> str:
    """An id as text that tells 7 from "7"; a UUID in any spelling gives the same text."""
    if isinstance(point, int):
        return f"i{point}"
    return f"s{_canonical(point)}"


def read_key(key: str) -> PointId:
    """The id that `write_key` wrote. Raises ValueError for anything else."""
    kind, text = key[:1], key[1:]
    if kind == "i":
        return int(text)
    if kind == "s":
        return text
    raise ValueError(f"{key!r} is no key of a point")


def order_of(point: PointId) -> tuple[bool, int, str]:
    """What to sort ids by: numbers by value, then text, the order in which databases list them."""
    return (False, point, "") if isinstance(point, int) else (True, 0, point)


def _canonical(text: str) -> str:
    """Qdrant takes a UUID in four spellings and answers in one; other texts are ids as they are."""
    try:
        return str(UUID(text))
    except ValueError:
        return text
