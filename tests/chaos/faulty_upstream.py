"""The embedded Qdrant with faults: a share of its calls fails, half of them before and half after it was carried out.

The calls that tests and the server itself need to start (collections, their indexes, liveness) never fail.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import Any

import grpc

from crossfade.backends.embedded.qdrant import server, service
from crossfade.backends.embedded.qdrant.errors import ServiceError
from crossfade.backends.embedded.qdrant.service import Call

_SPARED = ("/qdrant.Collections/", "/qdrant.Qdrant/")
_SEED = 7


class Injected(ServiceError):
    """A fault that was put in: a server that is overloaded or going down says so."""

    http_status = 503
    grpc_code = grpc.StatusCode.UNAVAILABLE


def faulty(path: str, call: Call, share: float, chance: random.Random) -> Call:
    """The call, failing now and then."""

    def answer(request: Any) -> Any:
        drawn = chance.random()
        if drawn < share / 2:
            raise Injected(f"injected before {path}")
        answered = call(request)
        if drawn < share:
            raise Injected(f"injected after {path}")
        return answered

    return answer


def main() -> None:
    """As `python -m crossfade.backends.embedded`, and --faults."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--faults", type=float, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--grpc-port", type=int, required=True)
    parser.add_argument("--rest-port", type=int, required=True)
    parser.add_argument("--with-parent", action="store_true")
    asked = parser.parse_args()
    honest = service.service_calls
    chance = random.Random(_SEED)

    def calls(store: Any) -> dict[str, Call]:
        return {
            path: call if path.startswith(_SPARED) else faulty(path, call, asked.faults, chance)
            for path, call in honest(store).items()
        }

    setattr(server, "service_calls", calls)  # noqa: B010 # the name is an import there
    server.serve_qdrant(asked.data, "127.0.0.1", asked.grpc_port, asked.rest_port, None, asked.with_parent)


if __name__ == "__main__":
    main()
