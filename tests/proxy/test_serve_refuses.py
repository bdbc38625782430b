"""What makes `crossfade serve` refuse to start, each with a message that says what to do, and exit code 1."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from crossfade.proxy.errors import CrossfadeError
from crossfade.proxy.supervisor import Supervisor
from tests.ports import free_ports
from tests.proxy.serving import START_SECONDS, spawn_serve, write_config
from tests.proxy.toy_adapters import save_toy

SETTINGS = """
models: {old: {dim: 16}, new: {dim: 24}}
collections: {docs: {index_model: old, query_model: new, adapters: {new: adapters/new}}}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration that is sound until a test spoils something."""
    save_toy(tmp_path / "adapters" / "new")
    grpc, rest, admin = free_ports(3)
    path = tmp_path / "crossfade.yaml"
    ports = {"grpc": grpc, "rest": rest, "admin": admin}
    write_config(path, ports, 'grpc: "127.0.0.1:1", rest: "http://127.0.0.1:1"', SETTINGS)
    return path


def refusal(config: Path) -> str:
    async def start() -> str:
        supervisor = Supervisor(config, 1)
        try:
            await supervisor.start()
        except CrossfadeError as error:
            return str(error)
        finally:
            await supervisor.close()
        raise AssertionError("it started")

    return asyncio.run(start())


def remove(adapter: Path) -> None:
    shutil.rmtree(adapter)


def truncate(adapter: Path) -> None:
    tensors = adapter / "adapter.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-100])


def spoil_card(adapter: Path) -> None:
    (adapter / "card.json").write_text("{")


def make_for_others(adapter: Path) -> None:
    shutil.rmtree(adapter)
    save_toy(adapter, "newer", "older")


def lock(adapter: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root can read everything")
    adapter.chmod(0)


def make_file(adapter: Path) -> None:
    shutil.rmtree(adapter)
    adapter.write_text("no directory")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (remove, "card.json"),
        (truncate, "adapter.safetensors"),
        (spoil_card, "card.json is not JSON"),
        (make_for_others, "'newer'"),
        (lock, "Permission denied"),
        (make_file, "Not a directory"),
    ],
)
def test_an_adapter_that_cannot_be_used_is_named_with_path_and_reason(
    spoil: Callable[[Path], None], reason: str, config: Path
) -> None:
    adapter = config.parent / "adapters" / "new"
    spoil(adapter)
    message = refusal(config)
    assert message.startswith(f"collection 'docs': the adapter from 'new' at {adapter} cannot be used: ")
    assert reason in message
    assert message.endswith("fit it again or correct the path (crossfade check says more)")


def test_a_wrong_key_is_named_with_line_and_the_nearest_known_one(config: Path) -> None:
    config.write_text(config.read_text().replace("index_model", "indx_model"))
    message = refusal(config)
    assert "line 5: collections.docs.indx_model: is no key Crossfade knows; did you mean 'index_model'?" in message


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, config: Path) -> None:
    assert "cannot be read: No such file or directory" in refusal(tmp_path / "absent.yaml")
    config.write_bytes(b"listen: \xff\xfe")
    assert "is not UTF-8" in refusal(config)


def test_ports_that_are_taken_are_named_with_their_keys_and_the_exit_code_is_1(config: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        text = config.read_text()
        start = text.index('rest: "127.0.0.1:') + len('rest: "127.0.0.1:')
        config.write_text(text[:start] + str(port) + text[text.index('"', start) :])
        log = tmp_path / "serve.log"
        assert spawn_serve(config, log).wait(START_SECONDS) == 1
    said = log.read_text()
    assert f"listen.qdrant.rest: 127.0.0.1:{port} cannot be listened on (Address already in use)" in said
    assert "stop what holds it or choose another port" in said
    assert "Traceback" not in said
