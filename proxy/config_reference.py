"""What the configuration's models say about themselves: the JSON Schema, and the table of keys in the documentation."""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import NoneType
from typing import Any

from pydantic import BaseModel, SecretStr, WithJsonSchema
from pydantic.fields import FieldInfo

from .config import Config
from .config_section import Section
from .config_values import Address, Origin

_WORDS = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    Path: "path",
    SecretStr: "text (secret)",
    Address: "host:port",
    Origin: "URL",
}


@dataclass(frozen=True, slots=True)
class Key:
    """One key: its path, what it takes, its default, what it is for.

    In the path NAME is a name of the operator's, N the number of an entry of a list.
    """

    path: str
    takes: str
    default: str
    description: str


def build_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a configuration file."""
    schema = Config.model_json_schema()
    sections: set[type[BaseModel]] = {Config, *_sections(Config)}
    for section in sections:
        described = schema if section is Config else schema["$defs"][section.__name__]
        for name, text in describe_keys(section).items():
            schema_of_key = {**described["properties"][name], "description": text}
            described["properties"][name] = dict(sorted(schema_of_key.items()))  # as pydantic orders them
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def describe_keys(model: type[BaseModel]) -> dict[str, str]:
    """What stands under the keys of a section in its source, those that it inherits included."""
    found = {}
    for one in reversed(model.__mro__):
        if not issubclass(one, Section) or one is Section:
            continue
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(one))).body
        assert isinstance(body, ast.ClassDef)  # it is the source of a class
        for key, below in pairwise(body.body):
            if isinstance(key, ast.AnnAssign) and isinstance(key.target, ast.Name) and isinstance(below, ast.Expr):
                found[key.target.id] = inspect.cleandoc(ast.literal_eval(below.value))
    return found


def _sections(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """The sections below a section."""
    waiting = [field.annotation for field in model.model_fields.values()]
    while waiting:
        annotation = waiting.pop()
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield annotation
            yield from _sections(annotation)
        waiting.extend(typing.get_args(annotation))


def list_keys(model: type[BaseModel] = Config, path: str = "") -> Iterator[Key]:
    """Every key of the configuration, sections before what is in them, in the models' order."""
    schemas, described = model.model_json_schema()["properties"], describe_keys(model)
    for name, field in model.model_fields.items():
        here = f"{path}.{name}" if path else name
        section, step = _section(field.annotation)
        description = " ".join(described.get(name, "").split())
        yield Key(here, _takes(field, section, step), _default(field, schemas[name]), description)
        if section is not None:
            yield from list_keys(section, f"{here}{step}")


def render_table() -> str:
    """The keys as a Markdown table."""
    rows = [f"| `{key.path}` | {key.takes} | {key.default} | {key.description} |" for key in list_keys()]
    return "\n".join(["| key | takes | default | |", "| --- | --- | --- | --- |", *rows]) + "\n"


def _section(annotation: Any) -> tuple[type[BaseModel] | None, str]:
    """The section an annotation leads to, and what stands in a key path on the way: a name, a number, or nothing."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, ""
    found = [_section(part) for part in typing.get_args(annotation)]
    section = next((section for section, _ in found if section is not None), None)
    step = ".NAME" if _is_a(annotation, Mapping) else ".N" if _is_a(annotation, Sequence) else ""
    return section, step if section is not None else ""


def _is_a(annotation: Any, kind: type) -> bool:
    origin = typing.get_origin(annotation)
    return isinstance(origin, type) and issubclass(origin, kind)


def _takes(field: FieldInfo, section: type[BaseModel] | None, step: str) -> str:
    if section is not None:
        return {".NAME": "sections by name", ".N": "list of sections", "": "section"}[step]
    return _words(field.annotation, *field.metadata)


def _words(annotation: Any, *metadata: Any) -> str:
    if typing.get_origin(annotation) is typing.Literal:
        return ", ".join(typing.get_args(annotation))
    if _is_a(annotation, Mapping):
        return f"{_words(typing.get_args(annotation)[-1])} by name"
    if hasattr(annotation, "__metadata__"):
        return _words(annotation.__origin__, *annotation.__metadata__, *metadata)
    if any(isinstance(part, WithJsonSchema) and (part.json_schema or {}).get("examples") for part in metadata):
        # A number that is written with its unit.
        return {int: "size", float: "duration"}.get(annotation) or _WORDS[annotation]
    parts = [part for part in typing.get_args(annotation) if part is not NoneType]
    return _words(parts[0], *metadata) if parts else _WORDS[annotation]


def _default(field: FieldInfo, schema: Mapping[str, Any]) -> str:
    if field.is_required():
        return "required"
    default = schema.get("default")
    if default is None or isinstance(default, dict) or default == []:
        return ""
    if isinstance(default, float):
        return f"`{default:g}`"
    return f"`{json.dumps(default)}`" if default == "" or isinstance(default, bool) else f"`{default}`"
