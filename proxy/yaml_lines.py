"""YAML text as plain data with the line of every key, by PyYAML's nodes.

Scalars follow YAML 1.2's core schema: `off`, `on`, `yes` and `no` are text, `010` is not octal, `1:30` is not ninety.
`${NAME}` and `${NAME:-default}` are replaced in scalar values (never in keys or comments) and what comes out is text,
whatever it looks like; `$${` writes a literal `${`. A key given twice is a problem, an alias and `<<` work as usual.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from .errors import Problem

KeyPath = tuple[str | int, ...]

_TAG = "tag:yaml.org,2002:"
_VARIABLE = re.compile(r"\$(\$\{)|\$\{([^}]*)\}")
_VARIABLE_BODY = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)
_RESOLVERS = (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(0|[1-9][0-9_]*)", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ("merge", r"<<", ["<"]),
)


class CoreLoader(yaml.SafeLoader):
    """PyYAML's safe loader with YAML 1.2's resolution of plain scalars."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own class registry


for _name, _pattern, _first in _RESOLVERS:
    CoreLoader.add_implicit_resolver(_TAG + _name, re.compile(f"^(?:{_pattern})$"), _first)


@dataclass(slots=True)
class Document:
    """A YAML text read: its data, the line of every key path (from 1), and what was wrong on the way."""

    data: Any = None
    lines: dict[KeyPath, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def line(self, path: KeyPath) -> int | None:
        """The line of the key path, or of its nearest ancestor in the file."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path)


def read_yaml(text: str, environ: Mapping[str, str]) -> Document:
    """Read one YAML document; never raises: what is wrong stands in `problems`."""
    document = Document()
    try:
        loader = CoreLoader(text)
        root = loader.get_single_node()
        if root is not None:
            document.lines[()] = root.start_mark.line + 1
            document.data = _Reader(loader, environ, document).read(root, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = " ".join(part for part in (error.context, error.problem) if part)
        if mark and "${" in text.splitlines()[mark.line : mark.line + 1][0]:
            reason += "; put ${...} in quotes where it stands between { and }"
        document.problems.append(Problem("", mark.line + 1 if mark else None, f"is not YAML: {reason}"))
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        document.problems.append(
            Problem("", line, f"has the character U+{error.character:04X}, which YAML does not allow")
        )
    return document


def spell_path(path: KeyPath) -> str:
    """A key path as messages show it: collections.docs."v1.5".adapters, names with odd characters in quotes."""
    plain = re.compile(r"[\w-]+")
    return ".".join(str(key) if plain.fullmatch(str(key)) else f'"{key}"' for key in path)


class _Reader:
    """Walks nodes into plain data, noting lines and problems in the document."""

    def __init__(self, loader: CoreLoader, environ: Mapping[str, str], document: Document) -> None:
        self.loader, self.environ, self.document = loader, environ, document
        self.open: set[int] = set()  # nodes being read: an alias to one of them has no end

    def read(self, node: yaml.Node, path: KeyPath) -> Any:
        if id(node) in self.open:
            return self.complain(node, path, "is an alias to something it stands in")
        self.open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self.mapping(node, path)
            if isinstance(node, yaml.SequenceNode):
                return [self.value(child, (*path, index)) for index, child in enumerate(node.value)]
            return self.scalar(node, path)
        finally:
            self.open.discard(id(node))

    def value(self, node: yaml.Node, path: KeyPath) -> Any:
        self.document.lines[path] = node.start_mark.line + 1
        return self.read(node, path)

    def mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        self.refuse_twice(node, path)
        self.loader.flatten_mapping(node)
        found: dict[str, Any] = {}
        for key, child in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.complain(key, path, "has a key that is not text")
                continue
            here = (*path, key.value)
            self.document.lines[here] = key.start_mark.line + 1
            found[key.value] = self.read(child, here)
        return found

    def refuse_twice(self, node: yaml.MappingNode, path: KeyPath) -> None:
        seen: dict[str, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != _TAG + "merge":
                if key.value in seen:
                    self.complain(key, (*path, key.value), f"is given twice, first in line {seen[key.value]}; keep one")
                seen.setdefault(key.value, key.start_mark.line + 1)

    def scalar(self, node: yaml.Node, path: KeyPath) -> Any:
        kind, text = node.tag.removeprefix(_TAG), str(node.value)
        if "${" in text:
            return _VARIABLE.sub(lambda found: self.variable(found, node, path), text)
        try:
            match kind:
                case "null":
                    return None
                case "bool":
                    return text.lower() == "true"
                case "int":
                    return int(text)
                case "float":
                    return float(text)
                case "str":
                    return text
        except ValueError:
            return self.complain(node, path, f"is {text!r}, which is no {kind}")
        return self.complain(node, path, f"has the tag {node.tag}, which has no meaning here; remove it")

    def variable(self, found: re.Match[str], node: yaml.Node, path: KeyPath) -> str:
        if found[1]:
            return "${"
        body = _VARIABLE_BODY.fullmatch(found[2])
        if body is None:
            self.complain(node, path, f"has {found[0]!r}; write ${{NAME}} or ${{NAME:-default}}")
        elif body[1] in self.environ and (self.environ[body[1]] or body[2] is None):
            return self.environ[body[1]]
        elif body[2] is not None:
            return body[2]
        else:
            self.complain(
                node,
                path,
                f"uses the environment variable {body[1]}, which is not set; set it, or write ${{{body[1]}:-default}}",
            )
        return ""

    def complain(self, node: yaml.Node, path: KeyPath, message: str) -> None:
        self.document.problems.append(Problem(spell_path(path), node.start_mark.line + 1, message))
