"""Milvus servers that come as PyPI packages and are no dependency: the real 2.3.5, and milvus-lite's C++ engine.

They are installed into a folder that later runs find again; without a way to install them, tests that need them are
skipped and say so. CROSSFADE_MILVUS names a running Milvus to be used instead of the installed 2.3.5.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc
import pytest
import yaml

from tests.ports import free_ports
from tests.proxy.serving import wait_until

_CACHE = Path(tempfile.gettempdir()) / f"crossfade-tests-{os.getuid()}"
_REAL = """
import os, signal, sys, time
from milvus import MilvusServer, MilvusServerConfig
ended, parent = [], os.getppid()
signal.signal(signal.SIGTERM, lambda *told: ended.append(told))
config = MilvusServerConfig()
ports = [key for key in config.configurable_items if key.endswith("_port")]
config.update(**dict(zip(ports, sys.argv[2:])))
server = MilvusServer(config)
server.set_base_dir(sys.argv[1])
try:
    server.start()
    print("port", server.listen_port, flush=True)
    while not ended and os.getppid() == parent:
        time.sleep(0.2)
finally:
    server.stop()
"""
_PORTS = 12  # at least as many as its parts listen on


def install(requirement: str) -> Path:
    """The folder with a package, installed now or by an earlier run; skips the test where it cannot be installed."""
    folder = _CACHE / requirement
    done = folder / ".installed"
    if not done.exists():
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder), requirement]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if ran.returncode != 0:
            pytest.skip(f"{requirement} cannot be installed here: {ran.stderr.strip().splitlines()[-1:]}")
        done.touch()
    return folder


@contextmanager
def start_real(data: Path) -> Iterator[str]:
    """Run the real Milvus 2.3.5; gives its address."""
    package = install("milvus==2.3.5")
    data.mkdir(parents=True)
    (data / "bin").symlink_to(_unpack(package))
    *own, metrics, clients, peers = free_ports(_PORTS + 3)
    command = [sys.executable, "-c", _REAL, str(data), *map(str, own)]
    places = _place_beside_others(data.with_suffix(".etcd.yaml"), metrics, clients, peers)
    log = data.with_suffix(".log")

    def told_port() -> str | None:
        found = re.search(r"^port (\d+)$", log.read_text(errors="replace"), re.MULTILINE)
        return found and found[1]

    with _run(command, log, lambda: told_port() is not None, {"PYTHONPATH": str(package), **places}):
        yield f"127.0.0.1:{told_port()}"


def _unpack(package: Path) -> Path:
    """The folder with the server's programs, unpacked now or by an earlier run: each start would take seconds."""
    folder = package / "unpacked"
    if not folder.exists():
        fresh = tempfile.mkdtemp(dir=package)
        command = [sys.executable, "-c", "import milvus, sys; milvus._initialize_data_files(sys.argv[1])", fresh]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(package)}, timeout=300)
        with suppress(OSError):  # another process was faster
            Path(fresh).rename(folder)
    return folder / "bin"


def _place_beside_others(etcd: Path, metrics: int, clients: int, peers: int) -> dict[str, str]:
    """What moves the ports that are the same for every Milvus: 9091 for metrics, 2379 and 2380 for its etcd."""
    settings = {
        "name": "default",
        "listen-client-urls": f"http://127.0.0.1:{clients}",
        "advertise-client-urls": f"http://127.0.0.1:{clients}",
        "listen-peer-urls": f"http://127.0.0.1:{peers}",
        "initial-advertise-peer-urls": f"http://127.0.0.1:{peers}",
        "initial-cluster": f"default=http://127.0.0.1:{peers}",
    }
    etcd.write_text(yaml.safe_dump(settings))
    return {"METRICS_PORT": str(metrics), "ETCD_CONFIG_PATH": str(etcd)}


@contextmanager
def start_cpp_lite(data: Path) -> Iterator[str]:
    """Run milvus-lite 2.5's engine, which stores half-precision vectors; gives its address."""
    libraries = install("milvus-lite==2.5.1") / "milvus_lite" / "lib"
    (port,) = free_ports(1)
    command = [str(libraries / "milvus"), str(data.with_suffix(".db")), f"127.0.0.1:{port}", "ERROR"]
    environment = {"LD_LIBRARY_PATH": str(libraries)}
    with _run(command, data.with_suffix(".log"), lambda: _is_ready(port), environment):
        yield f"127.0.0.1:{port}"


@contextmanager
def _run(command: list[str], log: Path, ready: Callable[[], bool], environment: dict[str, str]) -> Iterator[None]:
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream, env={**os.environ, **environment})
    try:
        told = f"{command[0]} serves; see {log}"
        wait_until(lambda: process.poll() is not None or ready(), 90, told)
        assert process.poll() is None, log.read_text(errors="replace")[-2000:]
        yield
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _is_ready(port: int) -> bool:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=0.5)
        except grpc.FutureTimeoutError:
            return False
    return True
