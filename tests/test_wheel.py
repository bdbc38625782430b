"""The built wheel, installed alone in a clean environment, has everything and serves."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import time
import venv
import zipfile
from importlib.metadata import Distribution, PathDistribution, distribution
from pathlib import Path

import httpx
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.ports import free_ports

ROOT = Path(__file__).parents[1]
ROOMS = ("adapters", "backends", "proxy")
CONFIG = """
listen: {{qdrant: {{rest: "127.0.0.1:{rest}"}}, admin: "127.0.0.1:{admin}"}}
upstreams: {{main: {{kind: qdrant, rest: "http://127.0.0.1:{upstream}"}}}}
models: {{old: {{dim: 4}}}}
collections: {{docs: {{index_model: old}}}}
workers: 1
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source distribution, the wheel built from the latter."""
    out = tmp_path_factory.mktemp("dist")
    compiler = out.with_name("cc")  # half a minute goes into making the search fast, which is not what is shown here
    compiler.write_text('#!/bin/sh\nexec cc "$@" -O0\n')
    compiler.chmod(0o755)
    command = [sys.executable, "-m", "build", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "CC": str(compiler)})
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def tracked(suffixes: tuple[str, ...]) -> set[str]:
    """Files of the rooms that belong into a package."""
    files = (path for room in ROOMS for path in (ROOT / room).rglob("*") if path.is_file())
    return {
        str(Path("crossfade") / path.relative_to(ROOT))
        for path in files
        if "__pycache__" not in path.parts and (path.suffix in suffixes or path.parent.name == "static")
    }


def test_the_wheel_has_every_file_of_the_rooms_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        packed = {name for name in opened.namelist() if ".dist-info/" not in name}
        assert any(name.endswith("licenses/LICENSE") for name in opened.namelist())
    compiled = {name for name in packed if name.endswith(".so")}  # left out where there is no C compiler
    assert compiled <= {"crossfade/proxy/_filter.abi3.so", "crossfade/adapters/_kernel.abi3.so"}
    assert packed - compiled == tracked((".py", ".pyi", ".json", ".typed"))


def test_the_source_distribution_has_the_rooms(built: Path) -> None:
    (source,) = built.glob("*.tar.gz")
    with tarfile.open(source) as opened:
        packed = {name.partition("/")[2] for name in opened.getnames()}
    assert {f"{room}/__init__.py" for room in ROOMS} | {"pyproject.toml", "LICENSE", "README.md"} <= packed
    for place in ("proxy/filter", "adapters/kernel"):
        assert {f"{place}/{path.name}" for path in (ROOT / place).iterdir()} <= packed


@pytest.fixture(scope="module")
def clean(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment with the wheel and what it asks for itself, no extras.

    What it asks for is linked from the environment of the tests, which pip has filled from the same metadata: to
    unpack and compile a hundred megabytes once more shows nothing else.
    """
    place = tmp_path_factory.mktemp("clean") / "venv"
    venv.create(place, with_pip=False)
    (wheel,) = built.glob("*.whl")
    options = ["--no-deps", "--no-index", "--no-compile", "--quiet", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "--python", str(place), "install", *options, str(wheel)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (packages,) = place.glob("lib/python*/site-packages")
    (metadata,) = packages.glob("crossfade-*.dist-info")
    for one in asked_for(PathDistribution(metadata)).values():
        link(one, packages)
    return place / "bin"


def asked_for(wanting: Distribution) -> dict[str, Distribution]:
    """What a distribution asks for, and what that asks for in its turn, by name."""
    found: dict[str, Distribution] = {}
    waiting: list[tuple[Distribution, frozenset[str]]] = [(wanting, frozenset({""}))]
    while waiting:
        one, extras = waiting.pop()
        for line in one.requires or ():
            asked = Requirement(line)
            if asked.marker is not None and not any(asked.marker.evaluate({"extra": extra}) for extra in extras):
                continue
            there = distribution(asked.name)
            assert asked.specifier.contains(there.version, prereleases=True), (one.name, line, there.version)
            if canonicalize_name(asked.name) not in found or asked.extras:
                found[canonicalize_name(asked.name)] = there
                waiting.append((there, frozenset({"", *asked.extras})))
    return found


def link(installed: Distribution, packages: Path) -> None:
    """Lead the modules of an installed distribution, and what it says about itself, into another environment."""
    tops = {file.parts[0] for file in installed.files or () if file.parts[0] not in ("..", "__pycache__")}
    for top in tops:
        if not (packages / top).exists():  # parts of one namespace come in several distributions
            (packages / top).symlink_to(Path(str(installed.locate_file(top))))


def outside() -> dict[str, str]:
    """An environment that does not lead back to the checkout."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}


@pytest.mark.parametrize("verb", ["--version", "check --help", "fit --help", "demo --help", "embedded qdrant --help"])
def test_verbs_answer_without_any_extra(clean: Path, verb: str, tmp_path: Path) -> None:
    command = [str(clean / "crossfade"), *verb.split()]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=outside())
    assert (done.returncode, done.stderr) == (0, "")
    assert "rossfade" in done.stdout or "Usage" in done.stdout


def test_the_demo_says_which_extra_it_needs(clean: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [str(clean / "crossfade"), "demo"], capture_output=True, text=True, cwd=tmp_path, env=outside()
    )
    assert done.returncode == 1
    assert 'pip install "crossfade[demo]"' in done.stderr


def test_the_wheel_alone_serves_and_says_that_the_database_is_down(clean: Path, tmp_path: Path) -> None:
    rest, admin, upstream = free_ports(3)
    config = tmp_path / "crossfade.yaml"
    config.write_text(CONFIG.format(rest=rest, admin=admin, upstream=upstream))
    with (tmp_path / "log").open("wb") as log:
        command = [str(clean / "crossfade"), "serve", str(config)]
        process = subprocess.Popen(command, cwd=tmp_path, env=outside(), stdout=log, stderr=log)
    try:
        wait_until_ready(process, admin, tmp_path / "log")
        body = {"query": [0.1, 0.2, 0.3, 0.4], "limit": 1}
        answer = httpx.post(f"http://127.0.0.1:{rest}/collections/docs/points/query", json=body)
        assert answer.status_code == 503
        assert set(answer.json()["status"]) == {"error"}, "Qdrant's own form of an error"
        assert "crossfade_" in httpx.get(f"http://127.0.0.1:{admin}/metrics").text
    finally:
        process.terminate()
        assert process.wait(30) == 0, (tmp_path / "log").read_text(errors="replace")


def wait_until_ready(process: subprocess.Popen[bytes], admin: int, log: Path) -> None:
    deadline = time.monotonic() + 120
    while True:
        assert process.poll() is None, log.read_text(errors="replace")
        assert time.monotonic() < deadline, f"not ready within 120 s:\n{log.read_text(errors='replace')}"
        try:
            if httpx.get(f"http://127.0.0.1:{admin}/readyz").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
