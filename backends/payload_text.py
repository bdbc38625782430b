"""The text of a stored point, by a path into its payload or by a template of such paths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import Formatter


@dataclass(frozen=True, slots=True)
class PayloadText:
    """A compiled path ("payload.text", "body.abstract") or template ("{title}\\n{body}").

    A path's keys are split at dots, and a leading "payload." is allowed; a list is read as its elements, one a line.
    `parts` are pairs of literal text and path, () for no path.
    """

    source: str
    parts: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def keys(self) -> Sequence[str]:
        """The top-level payload keys that are read."""
        return list(dict.fromkeys(path[0] for _, path in self.parts if path))

    def read(self, payload: Mapping[str, object]) -> str | None:
        """The text, or None when none of the paths leads to any."""
        texts = [(literal, _read_path(payload, path)) for literal, path in self.parts]
        if all(text is None for _, text in texts):
            return None
        return "".join(literal + (text or "") for literal, text in texts)


def compile_text(source: str) -> PayloadText:
    """Compile a path or a template. Raises ValueError when a brace is not closed or a path is empty."""
    if "{" not in source and "}" not in source:
        return PayloadText(source, (("", _split_path(source, source)),))
    try:
        parsed = [(literal, name) for literal, name, _, _ in Formatter().parse(source)]
    except ValueError as error:
        raise ValueError(f"text template {source!r}: {error}; write {{{{ or }}}} for a brace of the text") from error
    parts = tuple((literal, () if name is None else _split_path(name, source)) for literal, name in parsed)
    if not any(path for _, path in parts):
        raise ValueError(f"text template {source!r} names no payload field; write one as {{field}}")
    return PayloadText(source, parts)


def _split_path(path: str, source: str) -> tuple[str, ...]:
    keys = path.strip().split(".")
    if keys[0] == "payload" and len(keys) > 1:
        keys = keys[1:]
    if not all(keys):
        raise ValueError(f"text {source!r}: the path {path!r} has an empty key")
    return tuple(keys)


def _read_path(value: object, path: tuple[str, ...]) -> str | None:
    for at, key in enumerate(path):
        if isinstance(value, list):
            return _join([_read_path(one, path[at:]) for one in value])
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return _say(value) if path else None


def _say(value: object) -> str | None:
    if isinstance(value, list):
        return _join([_say(one) for one in value])
    if value is None or isinstance(value, Mapping):
        return None
    return value if isinstance(value, str) else str(value)


def _join(texts: Sequence[str | None]) -> str | None:
    found = [text for text in texts if text is not None]
    return "\n".join(found) if found else None
