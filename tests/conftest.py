"""Servers that tests of several rooms share, each started when the first test asks for it; what is tested first."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from httpx._transports import default as httpx_transports

from tests.milvus_servers import start_cpp_lite, start_real

# Each httpx client reads the authorities of the internet anew, 50 ms of work: tests that poll a server until it is
# ready took the processor from it, and clients of Qdrant are made by the hundred. No test changes the authorities.
_authorities = httpx_transports.create_ssl_context  # type: ignore[attr-defined]  # it is not exported
httpx_transports.create_ssl_context = cache(_authorities)  # type: ignore[attr-defined]  # as above

# The files that take longest, in the order of the time they take: begun last, one would go on alone while nothing else
# is left to do. `make test` keeps pytest-xdist from its own order, files of many tests first, which does just that.
FIRST = (
    "chaos/test_chaos.py",
    "proxy/test_demo.py",
    "proxy/test_migrate_invariants_milvus.py",
    "proxy/test_mixed_requests.py",
    "proxy/migration/test_migration_popular.py",
    "proxy/test_milvus_unmodified.py",
    "proxy/test_serve_lifecycle.py",
    "proxy/test_serve_handover.py",
    "conformance/test_conformance_quality.py",
    "proxy/test_milvus_kinds.py",
    "backends/test_embedded_qdrant_durability.py",
    "proxy/test_capturing_breaks.py",
    "proxy/test_cli_migrate.py",
    "proxy/test_observing.py",
    "proxy/migration/test_migration_process.py",
    "proxy/test_crossfade_milvus.py",
    "proxy/migration/test_migration_kills.py",
    "proxy/migration/test_migration_postgres.py",
    "conformance/test_invariants.py",
    "proxy/test_capturing_whole.py",
    "proxy/test_capturing_replicas.py",
    "test_wheel.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, the others as they were found."""
    places = {Path(__file__).parent / name: place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.fixture(scope="session")
def real_milvus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real Milvus 2.3."""
    named = os.environ.get("CROSSFADE_MILVUS")
    if named:
        yield named
        return
    with start_real(tmp_path_factory.mktemp("real-milvus") / "data") as address:
        yield address


@pytest.fixture(scope="module")
def cpp_milvus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of milvus-lite 2.5, whose engine stores float16 and bfloat16.

    One for each module: it hangs up on who pings as often as pymilvus does, and gRPC shares connections in a process.
    """
    with start_cpp_lite(tmp_path_factory.mktemp("cpp-milvus") / "data") as address:
        yield address
