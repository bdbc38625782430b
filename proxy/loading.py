"""From a YAML file to a Config with its defaults filled in, or to one ConfigError with every problem, path and line.

Three passes, and a problem in one does not hide those of the others: YAML (`yaml_lines`), each section on its own
(pydantic), and what sections mean for each other (`config_check`), where sections that are broken are left out.
"""

from __future__ import annotations

import os
import typing
from collections.abc import Iterator, Mapping
from copy import deepcopy
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from .config import Config
from .config_check import Known, find_conflicts
from .config_fields import fill_defaults
from .errors import ConfigError, Problem
from .yaml_lines import Document, KeyPath, read_yaml, spell_path

_EXPECTED = {
    "literal_error": "allowed: {expected}",
    "model_type": "expected keys with values below it",
    "mapping_type": "expected keys with values below it",
    "string_type": "expected text (put it in quotes)",
    "string_too_short": "expected text",
    "string_pattern_mismatch": "it must match {pattern}",
    "int_parsing": "expected a whole number",
    "int_type": "expected a whole number",
    "int_from_float": "expected a whole number",
    "bool_parsing": "expected true or false",
    "bool_type": "expected true or false",
    "path_type": "expected a path",
    "list_type": "expected a list",
    "float_type": "expected a number",
    "float_parsing": "expected a number",
    "greater_than": "it must be more than {gt}",
    "greater_than_equal": "it must be at least {ge}",
    "less_than_equal": "it must be at most {le}",
}
_SECRETS = ("api_key", "store", "journal")  # keys whose values no message shows
_NAMED = ("upstreams", "models", "collections")  # sections whose entries are left out alone when one is broken


def load_config(path: Path, environ: Mapping[str, str] = os.environ) -> Config:
    """Read a configuration file; paths in it are relative to its directory. Raises ConfigError."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError([Problem("", None, f"is not UTF-8: byte {error.start} cannot be read")], str(path)) from None
    except OSError as error:
        raise ConfigError([Problem("", None, f"cannot be read: {error.strerror}")], str(path)) from None
    return read_config(text, path.absolute().parent, environ, source=str(path))


def read_config(
    text: str, base: Path, environ: Mapping[str, str] = os.environ, *, source: str = "configuration"
) -> Config:
    """Read a configuration from YAML text; relative paths in it start at `base`. Raises ConfigError."""
    document = read_yaml(text, environ)
    if not isinstance(document.data, dict):
        found = "is empty" if document.data is None else f"is {_describe(document.data)}, not a mapping"
        raise ConfigError(
            document.problems or [Problem("", None, f"{found}; start with listen: and upstreams:")], source
        )
    data = {
        key: value for key, value in document.data.items() if value is not None
    }  # "collections:" alone says nothing
    problems = list(document.problems)
    config, errors = _validate(data, base)
    spoiled = {problem.path for problem in problems}
    problems += [problem for problem in _explain(errors, document) if problem.path not in spoiled]
    problems += _conflicts(config if not errors else _sound_part(data, errors, base), data, document)
    if problems or config is None:
        raise ConfigError(sorted(problems, key=lambda problem: problem.line or 0), source)
    return fill_defaults(config)


def _validate(data: Mapping[str, Any], base: Path) -> tuple[Config | None, list[ErrorDetails]]:
    try:
        return Config.model_validate(data, context={"base": base}), []
    except ValidationError as error:
        return None, error.errors(include_url=False)


def _sound_part(data: Mapping[str, Any], errors: list[ErrorDetails], base: Path) -> Config | None:
    """The configuration without its broken entries, or None when what remains is still broken."""
    remaining = deepcopy(dict(data))
    for error in errors:
        path = error["loc"]
        end = 2 if path[0] in _NAMED and error["type"] != "extra_forbidden" else len(path)
        parent: Any = remaining
        for key in path[: end - 1]:
            parent = parent.get(key) if isinstance(parent, dict) else None
        if isinstance(parent, dict):
            parent.pop(path[end - 1], None)
    return _validate(remaining, base)[0]


def _conflicts(config: Config | None, data: Mapping[str, Any], document: Document) -> Iterator[Problem]:
    if config is None:
        return
    models, upstreams = (list(data[key]) if isinstance(data.get(key), dict) else [] for key in ("models", "upstreams"))
    for path, message in find_conflicts(config, Known(models, upstreams)):
        yield Problem(spell_path(path), document.line(path), message)


def _explain(errors: list[ErrorDetails], document: Document) -> Iterator[Problem]:
    for error in errors:
        path: KeyPath = tuple(key for key in error["loc"] if key != "[key]")
        yield Problem(spell_path(path), document.line(path), _reason(error, path))


def _reason(error: ErrorDetails, path: KeyPath) -> str:
    """What pydantic found, as a sentence that goes on from the key path."""
    context = error.get("ctx", {})
    found = "(not shown)" if path and path[-1] in _SECRETS else _describe(error["input"])
    match error["type"]:
        case "extra_forbidden":
            return _unknown_key(path)
        case "missing":
            return "is missing; it has no default"
        case "value_error":
            said = str(context["error"])
            return said if isinstance(error["input"], dict) else f"{found} {said}"
    return (
        f"is {found}; {_EXPECTED[error['type']].format(**context)}"
        if error["type"] in _EXPECTED
        else (f"is {found}: {error['msg'][0].lower()}{error['msg'][1:]}")
    )


def _unknown_key(path: KeyPath) -> str:
    known = _keys_at(path[:-1])
    near = get_close_matches(str(path[-1]), known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"is no key Crossfade knows; {hint}keys here are {', '.join(known)}"


def _keys_at(path: KeyPath) -> list[str]:
    """The keys allowed under a key path, by walking the models' annotations."""
    kind: Any = Config
    for key in path:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            kind = kind.model_fields[str(key)].annotation
            kind = next((part for part in _parts(kind) if part is not type(None)), kind)
        else:
            kind = typing.get_args(kind)[-1]
    return list(kind.model_fields) if isinstance(kind, type) and issubclass(kind, BaseModel) else []


def _parts(kind: Any) -> Iterator[Any]:
    """The types an annotation is made of: Optional and Annotated taken off, mappings left whole."""
    if hasattr(kind, "__metadata__"):
        yield from _parts(kind.__origin__)
    elif typing.get_origin(kind) is not None and type(None) in typing.get_args(kind):
        for part in typing.get_args(kind):
            yield from _parts(part)
    else:
        yield kind


def _describe(value: Any) -> str:
    """A value as the file has it."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return f"a mapping with {', '.join(value)}" if value else "an empty mapping"
    return "a list" if isinstance(value, list) else repr(value)
