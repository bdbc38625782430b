"""`python -m crossfade.backends.embedded --data DIR`: serve the embedded Qdrant as a process of its own."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import serve_qdrant


def main() -> int:
    """Run the server; prints one line with both ports when it is ready."""
    parser = argparse.ArgumentParser(prog="crossfade.backends.embedded", description="Embedded Qdrant")
    parser.add_argument("--data", type=Path, required=True, help="data folder, made when missing")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--grpc-port", type=int, default=6334, help="0 takes a free one")
    parser.add_argument("--rest-port", type=int, default=6333, help="0 takes a free one")
    parser.add_argument("--api-key", default=None)
    parser.add_argument("--with-parent", action="store_true", help="end when the starting process ends")
    asked = parser.parse_args()
    try:
        serve_qdrant(asked.data, asked.host, asked.grpc_port, asked.rest_port, asked.api_key, asked.with_parent)
    except (OSError, ValueError) as error:
        print(f"embedded Qdrant: {error}", file=sys.stderr)  # noqa: T201  # a command's complaint
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
