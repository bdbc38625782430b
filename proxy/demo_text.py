"""The demo's text: what Debian packages say about themselves.

A package's long description is a document, its one-line synopsis a query, and the package itself the one right answer
(known-item retrieval): a judged collection that nobody had to judge. The sample that is shipped gives everybody the
same figures; a Debian machine's own package lists give as much text as wanted.
"""

from __future__ import annotations

import gzip
import random
import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import orjson

from .errors import CrossfadeError

WORDS = 64  # descriptions are cut here: the new model's time grows with the length
_FEWEST_WORDS = 25
_LISTS = Path("/var/lib/apt/lists")
_HELPER = Path("/usr/lib/apt/apt-helper")  # reads package lists however they are compressed
_SAMPLE = "demo-packages.jsonl.gz"
_NAME = re.compile(r"^Package: (\S+)$", re.MULTILINE)
_DESCRIPTION = re.compile(r"^Description-en: (.+)\n((?: .*\n?)+)", re.MULTILINE)


class TextMissing(CrossfadeError):
    """There is not the text that the demo was asked to run on."""


@dataclass(frozen=True, slots=True)
class Package:
    """One package: its name, its synopsis (a query) and its description (a document)."""

    name: str
    synopsis: str
    description: str


def parse_translations(text: str) -> Iterator[Package]:
    """Read the records of a Translation-en list, white space collapsed and descriptions cut at WORDS words."""
    for record in text.split("\n\n"):
        name, described = _NAME.search(record), _DESCRIPTION.search(record)
        if name and described:
            lines = (line.strip() for line in described[2].splitlines())
            words = " ".join(line for line in lines if line != ".").split()
            yield Package(name[1], described[1].strip(), " ".join(words[:WORDS]))


def choose_packages(packages: Iterable[Package], count: int, seed: int = 7) -> list[Package]:
    """Draw packages that say enough and are the only ones with their synopsis and description; the same for a seed."""
    known = {package.name: package for package in packages}
    synopses = Counter(package.synopsis for package in known.values())
    descriptions = Counter(package.description for package in known.values())
    fitting = [
        package
        for _, package in sorted(known.items())
        if synopses[package.synopsis] == descriptions[package.description] == 1
        and len(package.description.split()) >= _FEWEST_WORDS
    ]
    random.Random(seed).shuffle(fitting)
    return fitting[:count]


def read_sample(count: int) -> list[Package]:
    """The first packages of the shipped sample; raises TextMissing when it has fewer."""
    place = resources.files(__package__) / "static" / _SAMPLE
    lines = gzip.decompress(place.read_bytes()).splitlines()
    if count > len(lines):
        raise TextMissing(
            f"{count:,} documents were asked for and the sample has {len(lines):,}; take fewer, or --from-machine on "
            "Debian or Ubuntu"
        )
    return [Package(**orjson.loads(line)) for line in lines[:count]]


def read_machine(count: int, lists: Path = _LISTS) -> list[Package]:
    """Packages from this machine's own package lists; raises TextMissing when it has none with long descriptions."""
    files = sorted(lists.glob("*_i18n_Translation-en*"))
    if not files or not _HELPER.exists():
        raise TextMissing(
            f"no package lists with long descriptions in {lists}: run `apt-get update -o Acquire::Languages=en`, or "
            "leave out --from-machine to take the sample"
        )
    command = [str(_HELPER), "cat-file", *map(str, files)]
    text = subprocess.run(command, capture_output=True, check=True).stdout.decode(errors="replace")
    chosen = choose_packages(parse_translations(text), count)
    if len(chosen) < count:
        raise TextMissing(f"{count:,} documents were asked for and the lists in {lists} give {len(chosen):,}")
    return chosen
