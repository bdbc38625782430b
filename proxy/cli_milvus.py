"""A Milvus behind a configuration, opened for background work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .cli_output import need_extra
from .config import Upstream
from .config_values import Address

if TYPE_CHECKING:
    from crossfade.backends.milvus.index import MilvusIndex

_TIMEOUT_SECONDS = 60  # for opening a connection


@contextmanager
def open_milvus(upstream: Upstream) -> Iterator[MilvusIndex]:
    """Open a Milvus; an embedded one is started for as long as it is open. Raises UsageProblem without pymilvus."""
    if upstream.grpc is not None:
        yield _open(upstream, upstream.grpc)
        return
    assert upstream.embedded is not None  # the configuration refuses a Milvus with neither
    with need_extra("milvus", "milvus_lite"):
        from crossfade.backends.embedded.milvus import MilvusServer
    with MilvusServer(upstream.embedded) as server:
        yield _open(upstream, Address("127.0.0.1", server.port))


def _open(upstream: Upstream, address: Address) -> MilvusIndex:
    with need_extra("milvus", "pymilvus"):
        from pymilvus import MilvusClient

        from crossfade.backends.milvus.index import MilvusIndex

    key = upstream.api_key.get_secret_value() if upstream.api_key else ""
    scheme = "https" if upstream.tls is not None else "http"
    settings: dict[str, Any] = {"uri": f"{scheme}://{address}", "token": key, "timeout": _TIMEOUT_SECONDS}
    tls = upstream.tls
    if tls is not None:
        files = {"ca_pem_path": tls.ca, "client_pem_path": tls.cert, "client_key_path": tls.key}
        settings |= {name: str(path) for name, path in files.items() if path is not None}
        settings |= {"server_name": tls.server_name} if tls.server_name is not None else {}
    return MilvusIndex(lambda database: MilvusClient(**settings, db_name=database))
