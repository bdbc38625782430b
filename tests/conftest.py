"""Servers that tests of several rooms share; each is started when the first test asks for it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.milvus_servers import start_cpp_lite, start_real


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
