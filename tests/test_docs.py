"""What the documents say holds: links lead somewhere, commands and options exist, configurations are valid."""

from __future__ import annotations

import ast
import re
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import typer
import yaml

from crossfade.proxy.cli import app
from crossfade.proxy.loading import load_config, read_config

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
OWN_WORDS = ("demo", "test", "check", "bench", "bench-adapters", "quality")

names = [path.name for path in PAGES]
each_page = pytest.mark.parametrize("page", PAGES, ids=names)


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> list[str]:
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```", text_of(page), re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(body) for _, body in found]


@each_page
def test_links_and_pictures_lead_to_files_and_headings_that_exist(page: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL))
    for target in targets:
        if re.match(r"[a-z]+:", target):
            continue
        place, _, anchor = target.partition("#")
        path = (page.parent / place).resolve() if place else page
        assert path.exists(), f"{page.name} links to {target}"
        if anchor and path.suffix == ".md":
            assert anchor in anchors(path), f"{page.name} links to {target}, a heading that is not there"


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_page
def test_every_page_of_docs_is_linked_from_the_readme_or_from_a_page_that_is(page: Path) -> None:
    if page.parent == ROOT:
        return
    linked = {target for other in PAGES if other != page for target in re.findall(r"\]\(([^)\s#]+)", text_of(other))}
    assert {page.name, f"docs/{page.name}"} & {target.removeprefix("../") for target in linked}


def commands(page: Path) -> Iterator[list[str]]:
    """Words of each `$ crossfade ...` and `$ make ...` in console blocks."""
    for block in blocks(page, "console"):
        for line in re.sub(r"\\\n\s*", "", block).splitlines():
            if line.startswith("$ "):
                words = shlex.split(line[2:], comments=True)
                yield [word for word in words if not re.fullmatch(r"[A-Z_]+=\S*", word)]


@each_page
def test_commands_name_verbs_and_options_that_exist(page: Path) -> None:
    for words in commands(page):
        if words[0] == "make":
            assert set(words[1:]) <= set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE)), words
        if words[0] == "crossfade":
            check_command(words[1:])


def check_command(words: list[str]) -> None:
    command: Any = typer.main.get_command(app)
    while words and (verbs := getattr(command, "commands", None)):
        assert words[0] in verbs, f"crossfade has no verb {words[0]!r}"
        command, words = verbs[words[0]], words[1:]
    known = {option for parameter in command.params for option in parameter.opts}
    used = {word.partition("=")[0] for word in words if word.startswith("--")}
    assert used <= known | {"--help"}, f"{command.name} has no {used - known}"


@each_page
def test_whole_configurations_in_pages_are_valid(page: Path) -> None:
    for block in blocks(page, "yaml"):
        data = yaml.safe_load(block)
        if isinstance(data, dict) and {"listen", "upstreams"} <= data.keys():
            assert read_config(block, page.parent).upstreams


@each_page
def test_python_in_pages_parses(page: Path) -> None:
    for block in blocks(page, "python"):
        assert ast.parse(block).body


def test_the_readme_shows_a_whole_configuration_with_the_flag() -> None:
    assert any("query_model: e5-small" in block for block in blocks(ROOT / "README.md", "yaml"))


@pytest.mark.parametrize("name", ["crossfade.example.yaml", "crossfade.compose.yaml"])
def test_configurations_that_are_shipped_are_valid(name: str) -> None:
    assert load_config(ROOT / "deploy" / name).upstreams


def test_every_target_of_make_is_told_by_make_and_has_a_recipe() -> None:
    for word in OWN_WORDS:
        assert re.search(rf"^{word}:", MAKEFILE, re.MULTILINE), f"make {word} is missing"
        assert f"make {word}" in MAKEFILE, f"`make help` does not tell of {word}"


def test_the_compose_file_builds_this_project_and_mounts_what_is_there() -> None:
    compose = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text(encoding="utf-8"))
    crossfade = compose["services"]["crossfade"]
    assert (ROOT / "deploy" / crossfade["build"]["context"]).resolve() == ROOT
    assert (ROOT / crossfade["build"]["dockerfile"]).is_file()
    mounted = next(mount for mount in crossfade["volumes"] if "crossfade.yaml" in mount)
    assert (ROOT / "deploy" / mounted.partition(":")[0]).is_file()


def test_the_image_runs_as_a_user_and_listens_where_the_configuration_says() -> None:
    text = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    last = text.rpartition("FROM ")[2]
    assert re.search(r"^USER (?!0\b|root\b)\S+", last, re.MULTILINE)
    config = load_config(ROOT / "deploy" / "crossfade.compose.yaml")
    assert config.listen.qdrant is not None
    ports = [config.listen.qdrant.grpc, config.listen.qdrant.rest, config.listen.admin]
    exposed = next(line for line in last.splitlines() if line.startswith("EXPOSE")).split()[1:]
    assert exposed == [str(address.port) for address in ports if address is not None]


@pytest.mark.parametrize("picture", sorted((ROOT / "docs").glob("*.svg")), ids=lambda path: path.name)
def test_pictures_are_well_formed(picture: Path) -> None:
    assert ElementTree.parse(picture).getroot().tag.endswith("svg")
