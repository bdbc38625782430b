"""`crossfade serve` and `crossfade embedded qdrant` as processes: start, answer, end by signal."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

from qdrant_client import QdrantClient, models

COMMAND = Path(sys.executable).with_name("crossfade")


def test_embedded_qdrant_serves_until_it_is_told_to_stop(tmp_path: Path) -> None:
    words: list[str | Path] = [
        COMMAND,
        "embedded",
        "qdrant",
        "--data",
        tmp_path / "data",
        "--grpc-port",
        "0",
        "--rest-port",
        "0",
    ]
    with subprocess.Popen([*words, "--api-key", "secret"], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            ready = re.search(r"grpc 127\.0\.0\.1:(\d+) rest 127\.0\.0\.1:(\d+)", process.stdout.readline())
            assert ready is not None
            client = QdrantClient(
                host="127.0.0.1", grpc_port=int(ready[1]), port=int(ready[2]), api_key="secret", https=False, timeout=60
            )
            client.create_collection("docs", models.VectorParams(size=2, distance=models.Distance.DOT))
            assert client.collection_exists("docs")
            client.close()
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_serve_ends_with_1_and_says_why_when_the_configuration_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "crossfade.yaml").write_text("listen: {}\nupstreams: {}\n")
    ran = subprocess.run([COMMAND, "serve", tmp_path / "crossfade.yaml"], capture_output=True, text=True)
    assert ran.returncode == 1
    assert "listen: opens no port for a database" in ran.stderr
    assert "Traceback" not in ran.stderr
