"""The example file, the JSON Schema and the table of keys keep up with the models."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from crossfade.proxy.config_reference import Key, build_schema, list_keys, render_table
from crossfade.proxy.errors import ConfigError
from crossfade.proxy.loading import load_config, read_config
from crossfade.proxy.yaml_lines import KeyPath, read_yaml, spell_path

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "deploy" / "crossfade.example.yaml"
TEXT = EXAMPLE.read_text(encoding="utf-8")
KEYS = list(list_keys())


def paths_of(data: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    if isinstance(data, dict):
        for key, value in data.items():
            yield (*path, key)
            yield from paths_of(value, (*path, key))
    if isinstance(data, list):
        for number, value in enumerate(data):
            yield from paths_of(value, (*path, number))


def key_of(path: KeyPath) -> Key | None:
    """The key a path of the file is, or None when its end is a name of the operator's."""
    for key in KEYS:
        pattern = re.escape(key.path).replace("NAME", r"[^.]+").replace(r"\.N\.", r"\.\d+\.")
        if re.fullmatch(pattern, ".".join(str(part) for part in path)):
            return key
    return None


def test_the_example_is_valid_without_any_environment() -> None:
    config = load_config(EXAMPLE, {})
    assert config.upstreams["main"].api_key is None
    assert config.collections["docs"].adapters["e5-small"] == ROOT / "deploy" / "adapters" / "e5-small--minilm-l6"


def test_the_example_has_every_key() -> None:
    found = {key.path for path in paths_of(yaml.safe_load(TEXT)) if (key := key_of(path)) is not None}
    assert found == {key.path for key in KEYS}


def test_every_key_of_the_example_has_a_comment_on_its_line_or_above_its_section() -> None:
    document = read_yaml(TEXT, {})
    lines = TEXT.splitlines()
    uncommented = {path for path, line in document.lines.items() if path and "#" not in lines[line - 1]}
    explained_by_name = {
        "kind",
        "grpc",
        "rest",
        "model",
        "dim",
        "base_url",
        "api_key",
        "openai",
        "embedded",
        "query_model",
    }
    uncommented = {path for path in uncommented if key_of(path) is not None}  # names of the operator's need none
    sections = {path for path in uncommented if isinstance(_at(document.data, path), dict)}
    assert {path[-1] for path in uncommented - sections} <= explained_by_name


def _at(data: Any, path: KeyPath) -> Any:
    for key in path:
        data = data[key]
    return data


CHECKED = [path for path in read_yaml(TEXT, {}).lines if path and key_of(path) is not None]


@pytest.mark.parametrize("path", CHECKED, ids=spell_path)
def test_a_misspelt_key_is_found_with_its_path_its_line_and_the_nearest_key(path: KeyPath) -> None:
    line = read_yaml(TEXT, {}).lines[path]
    key = str(path[-1])
    wrong = key[:-1] + "ß"
    lines = TEXT.splitlines()
    lines[line - 1] = re.sub(rf"\b{key}:", f"{wrong}:", lines[line - 1], count=1)
    with pytest.raises(ConfigError) as raised:
        read_config("\n".join(lines), ROOT, {})
    problem = next(problem for problem in raised.value.problems if "no key Crossfade knows" in problem.message)
    assert problem.path == spell_path((*path[:-1], wrong))
    assert problem.line == line
    assert f"did you mean {key!r}?" in problem.message


def test_the_committed_schema_is_the_models() -> None:
    committed = json.loads((ROOT / "proxy" / "config.schema.json").read_text(encoding="utf-8"))
    assert committed == build_schema(), "run: crossfade schema > proxy/config.schema.json"


def test_the_documented_table_is_the_models() -> None:
    documented = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert render_table() in documented, "run: crossfade schema --format table, and put it into docs/configuration.md"


def test_every_key_is_described() -> None:
    assert [key.path for key in KEYS if len(key.description) < 10] == []
