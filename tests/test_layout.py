"""The house: packages as listed, links in place, every source file known to a test, files of a readable size."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tests.conftest import FIRST

ROOT = Path(__file__).parents[1]
ROOMS = ("adapters", "backends", "proxy")
SETUP = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
SOURCES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py") if "__pycache__" not in path.parts)
TESTS = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "tests").rglob("*.py")))

LONGEST = 350  # lines of a file; the aim is 120
AIM, SHARE_WITHIN_AIM = 200, 0.7  # so many of the files stay below this


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("crossfade", *(parts[:-1] if parts[-1] == "__init__" else parts)))


def test_the_packages_listed_are_the_folders_with_python_in_them() -> None:
    folders = {module_of(path / "__init__.py") for path in {source.parent for source in SOURCES}}
    assert set(SETUP["packages"]) == folders, "a folder missing here is missing from the wheel"


def test_every_folder_with_python_in_it_is_a_package() -> None:
    without = [path for path in {source.parent for source in SOURCES} if not (path / "__init__.py").is_file()]
    assert not without


def test_the_rooms_lie_where_the_package_dir_says() -> None:
    assert SETUP["package-dir"] == {f"crossfade.{room}": room for room in ROOMS}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_is_typed_and_linked_for_type_checkers(room: str) -> None:
    assert (ROOT / room / "py.typed").is_file()
    link = ROOT / ".types" / "crossfade" / room
    assert link.is_symlink()
    assert link.resolve() == ROOT / room


def test_crossfade_itself_has_no_init_that_would_hide_the_other_rooms() -> None:
    assert not list((ROOT / ".types" / "crossfade").glob("*.py"))
    assert not (ROOT / "crossfade").exists()


def reached(start: set[str]) -> set[str]:
    """Modules that are imported by some, or by what those import: a private part is tested by its whole."""
    by_name = {module_of(path): path for path in SOURCES}
    reached = start & set(by_name)
    waiting = list(reached)
    while waiting:
        module = waiting.pop()
        for imported in imports_of(by_name[module].read_text(encoding="utf-8"), package_of(by_name[module])):
            if imported in by_name and imported not in reached:
                reached.add(imported)
                waiting.append(imported)
    return reached


def package_of(path: Path) -> str:
    module = module_of(path)
    return module if path.name == "__init__.py" else module.rpartition(".")[0]


def imports_of(text: str, package: str = "") -> set[str]:
    """Modules that a text imports, wherever in it the import stands; names in them count as modules too."""
    found = set(re.findall(r"^\s*import ([\w.]+)", text, re.MULTILINE))
    for dots, stem, names in re.findall(r"from (\.*)([\w.]*) import (\([^)]*\)|[^\n]*)", text):
        base = package.rsplit(".", len(dots) - 1)[0] if len(dots) > 1 else package
        origin = ".".join(part for part in ((base if dots else ""), stem) if part)
        found |= {origin, *(f"{origin}.{name}" for name in re.findall(r"\w+", names))}
    return found


def run_by_name() -> set[str]:
    """Modules that are started and not imported: `python -m PACKAGE`, and what a worker runs ("MODULE:name")."""
    text = TESTS + "\n".join(path.read_text(encoding="utf-8") for path in SOURCES)
    named = set(re.findall(r"\"(crossfade\.[\w.]+)[:\"]", text))
    return named | {f"{name}.__main__" for name in named}


def test_every_source_file_is_imported_by_a_test_or_by_what_a_test_imports() -> None:
    known = reached(imports_of(TESTS) | run_by_name())
    known |= {module.rpartition(".")[0] for module in known}  # a module brings its package
    assert not sorted(str(path.relative_to(ROOT)) for path in SOURCES if module_of(path) not in known)


def test_no_source_file_is_too_long_and_most_are_short() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    too_long = {str(path.relative_to(ROOT)): length for path, length in lengths.items() if length > LONGEST}
    assert not too_long, f"split these: one concept a file, aim {AIM} lines"
    within = sum(length <= AIM for length in lengths.values())
    assert within >= SHARE_WITHIN_AIM * len(lengths), f"only {within} of {len(lengths)} files within {AIM} lines"


def test_no_name_says_nothing() -> None:
    empty = re.compile(r"manager|helper|util|handler|misc|common", re.IGNORECASE)
    assert not [str(path.relative_to(ROOT)) for path in SOURCES if empty.search(path.stem)]


def test_the_files_that_are_tested_first_are_there() -> None:
    assert [name for name in FIRST if not (ROOT / "tests" / name).is_file()] == []
