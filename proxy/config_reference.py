"""What the configuration's models say about themselves: the JSON Schema, and the table of keys in the documentation."""

from __future__ import annotations

import json
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from .config import Config
from .config_values import Address, Origin

_WORDS = {
    str: "text",
    int: "whole number",
    float: "duration",
    bool: "true or false",
    Path: "path",
    SecretStr: "text (secret)",
    Address: "host:port",
    Origin: "URL",
}


@dataclass(frozen=True, slots=True)
class Key:
    """One key: its path with NAME where a name of the operator's stands, what it takes, its default, what it is for."""

    path: str
    takes: str
    default: str
    description: str


def build_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a configuration file."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}


def list_keys(model: type[BaseModel] = Config, path: str = "") -> Iterator[Key]:
    """Every key of the configuration, sections before what is in them, in the models' order."""
    schemas = model.model_json_schema()["properties"]
    for name, field in model.model_fields.items():
        here = f"{path}.{name}" if path else name
        section, named = _section(field.annotation)
        description = " ".join((field.description or "").split())
        yield Key(here, _takes(field, section, named), _default(field, schemas[name]), description)
        if section is not None:
            yield from list_keys(section, f"{here}.NAME" if named else here)


def render_table() -> str:
    """The keys as a Markdown table."""
    rows = [f"| `{key.path}` | {key.takes} | {key.default} | {key.description} |" for key in list_keys()]
    return "\n".join(["| key | takes | default | |", "| --- | --- | --- | --- |", *rows]) + "\n"


def _section(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """The section an annotation leads to, and whether names of the operator's stand in between."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    found = [_section(part) for part in typing.get_args(annotation)]
    section = next((section for section, _ in found if section is not None), None)
    return section, section is not None and _is_mapping(annotation)


def _is_mapping(annotation: Any) -> bool:
    origin = typing.get_origin(annotation)
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _takes(field: FieldInfo, section: type[BaseModel] | None, named: bool) -> str:
    if section is not None:
        return "sections by name" if named else "section"
    examples = [part.json_schema.get("examples") for part in field.metadata if hasattr(part, "json_schema")]
    if field.annotation is int and examples:
        return "size"
    return _words(field.annotation)


def _words(annotation: Any) -> str:
    if typing.get_origin(annotation) is typing.Literal:
        return ", ".join(typing.get_args(annotation))
    if _is_mapping(annotation):
        return f"{_words(typing.get_args(annotation)[-1])} by name"
    if hasattr(annotation, "__metadata__"):
        return _words(annotation.__origin__)
    parts = [part for part in typing.get_args(annotation) if part is not NoneType]
    return _words(parts[0]) if parts else _WORDS[annotation]


def _default(field: FieldInfo, schema: Mapping[str, Any]) -> str:
    if field.is_required():
        return "required"
    default = schema.get("default")
    if default is None or isinstance(default, dict):
        return ""
    return f"`{json.dumps(default)}`" if default == "" or isinstance(default, bool) else f"`{default}`"
