"""Milvus's filter expressions, as far as they name points by their key."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence

from ..index import PointId


def write_literal(value: PointId) -> str:
    """A key's value in an expression."""
    return str(value) if isinstance(value, int) else json.dumps(value, ensure_ascii=False)


def hold_expression(expression: str, key: str, ids: Sequence[PointId]) -> str:
    """An expression that names the same points, but none that is not one of these."""
    return f"({expression}) and {name_points(key, ids)}"


def name_points(key: str, ids: Sequence[PointId]) -> str:
    """The expression that names exactly these points."""
    return f"{key} in [{', '.join(map(write_literal, ids))}]"


def find_points(expression: str, key: str, *, text_ids: bool) -> list[PointId] | None:
    """The ids of an expression that only lists keys, as `KEY in [1, 2]` and `KEY == 1` do; None for any other.

    What pymilvus writes for `delete(ids=...)` is one, so that nothing has to be asked for it.
    """
    found = re.fullmatch(rf"\s*{re.escape(key)}\s*(?:(==)|(?i:\bin\b))\s*(.+?)\s*", expression, re.DOTALL)
    if found is None:
        return None
    try:
        value = ast.literal_eval(found[2])  # numbers, strings and lists are written as in Python
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    listed = [value] if found[1] else value
    kind = str if text_ids else int
    plain = isinstance(listed, list) and all(type(one) is kind for one in listed)
    return listed if plain else None


def read_key(value: object, *, text_ids: bool) -> PointId | None:
    """A key as JSON has it, where large numbers come as strings; None for what is none."""
    if text_ids:
        return value if isinstance(value, str) else None
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return int(value) if isinstance(value, str) and re.fullmatch(r"-?\d+", value) else None
