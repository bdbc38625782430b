"""`crossfade serve` with Milvus's listener: on a recording upstream, or on an embedded one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from tests.ports import free_ports
from tests.proxy.serving import OPTIONS, ROOT, Serving, spawn_serve, wait_serving, wait_until

SERVICE = "/milvus.proto.milvus.MilvusService"


@dataclass
class MilvusServing(Serving):
    """A running Crossfade in front of Milvus; gRPC and REST are on one port."""

    model_port: int  # what comes in here is of the model `new`

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.grpc_port}"

    @property
    def model_uri(self) -> str:
        return f"http://127.0.0.1:{self.model_port}"

    def open_channel(self, port: int | None = None) -> grpc.Channel:
        """A gRPC channel of its own."""
        return grpc.insecure_channel(f"127.0.0.1:{port or self.grpc_port}", options=OPTIONS)


@contextmanager
def start_milvus_serving(directory: Path, upstream: str, rest: str, workers: int = 1) -> Iterator[MilvusServing]:
    """Run `crossfade serve` in front of one upstream of kind milvus."""
    port, model_port, admin = free_ports(3)
    config, log = directory / "crossfade.yaml", directory / "serve.log"
    config.write_text(
        f'listen: {{milvus: {{address: "127.0.0.1:{port}", by_model: {{new: "127.0.0.1:{model_port}"}}}}, '
        f'admin: "127.0.0.1:{admin}"}}\n'
        f"upstreams: {{main: {{kind: milvus, {upstream}}}}}\n{rest}\n"
    )
    process = spawn_serve(config, log, workers)
    serving = MilvusServing(process, config, log, port, port, admin, model_port)
    try:
        wait_serving(serving)
        yield serving
    finally:
        serving.end()


@contextmanager
def start_embedded(data: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    """Run an embedded Milvus as a process of its own."""
    command = [
        sys.executable,
        "-m",
        "crossfade.backends.embedded.milvus",
        "--data",
        str(data),
        "--grpc-port",
        str(port),
    ]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "serves" in process.stdout.readline()
        try:
            yield process
        finally:
            process.terminate()
            wait_until(lambda: process.poll() is not None, 20, "the embedded Milvus ends")
