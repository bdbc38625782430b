"""TLS on Crossfade's own ports: real handshakes, mutual TLS, certificates that are replaced, and wrong files."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import trustme
from qdrant_client import QdrantClient
from qdrant_client import grpc as qdrant
from starlette.responses import Response

from crossfade.proxy.certificates import find_problems, read_certificates, stamp_certificates
from crossfade.proxy.config import Config
from crossfade.proxy.envoy_secrets import Pems, build_secrets
from crossfade.proxy.errors import ConfigError
from crossfade.proxy.loading import read_config
from tests.proxy.recording import Recorders
from tests.proxy.serving import Serving, start_serving, wait_until
from tests.proxy.toy_adapters import NEW, OLD, save_toy, toy_vectors

SETTINGS = """
models: {old: {dim: 16}, new: {dim: 24}}
collections:
  docs: {index_model: old, query_model: new, adapters: {new: adapters/new}}
"""
VECTOR = toy_vectors(1, 1, NEW)[0].tolist()
AUTHORITY, STRANGER = trustme.CA(), trustme.CA()
TLS = ", tls: {cert: server.pem, key: server.key, client_ca: clients.pem}"


def issue(directory: Path, name: str, authority: trustme.CA = AUTHORITY) -> Path:
    """A certificate with its key, NAME.pem and NAME.key; the path of the former."""
    issued = authority.issue_cert("localhost", "127.0.0.1")
    cert = directory / f"{name}.pem"
    cert.write_bytes(b"".join(one.bytes() for one in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(directory / f"{name}.key")
    return cert


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tls")
    save_toy(directory / "adapters" / "new")
    AUTHORITY.cert_pem.write_to_path(directory / "clients.pem")
    for name in ("server", "client"):
        issue(directory, name)
    issue(directory, "stranger", STRANGER)
    return directory


@pytest.fixture(scope="module")
def serving(directory: Path, recorders: Recorders) -> Iterator[Serving]:
    upstream = f'grpc: "{recorders.grpc.address}", rest: "{recorders.rest.address}"'
    with start_serving(directory, upstream, SETTINGS, tls=TLS) as serving:
        yield serving


def trusting(directory: Path, shown: str | None) -> ssl.SSLContext:
    """A client's TLS; `shown` names the certificate it shows."""
    context = ssl.create_default_context(cafile=str(directory / "clients.pem"))
    if shown is not None:
        context.load_cert_chain(directory / f"{shown}.pem", directory / f"{shown}.key")
    return context


def pems(directory: Path, shown: str) -> dict[str, bytes]:
    return {
        "root_certificates": (directory / "clients.pem").read_bytes(),
        "private_key": (directory / f"{shown}.key").read_bytes(),
        "certificate_chain": (directory / f"{shown}.pem").read_bytes(),
    }


def test_an_unmodified_client_asks_over_mutual_tls_on_both_ports(
    serving: Serving, directory: Path, recorded: Recorders
) -> None:
    client = QdrantClient(
        host="localhost",
        port=serving.rest_port,
        grpc_port=serving.grpc_port,
        prefer_grpc=True,
        https=True,
        verify=trusting(directory, "client"),
        grpc_options=pems(directory, "client"),
        check_compatibility=False,
        timeout=10,
    )
    client.query_points("docs", query=VECTOR)
    client.count("docs")
    recorded.rest.answer = lambda call: Response(b'{"result": {"collections": []}, "status": "ok", "time": 0.1}')
    client.http.collections_api.get_collections()
    client.close()
    query, count = recorded.grpc.calls
    assert len(qdrant.QueryPoints.FromString(query.body).query.nearest.dense.data) == OLD
    assert count.method == "/qdrant.Points/Count"
    assert not recorded.rest.last.values("x-forwarded-proto")
    with httpx.Client(verify=trusting(directory, "client")) as rest:
        url = f"https://127.0.0.1:{serving.rest_port}/collections/docs/points/query"
        assert rest.post(url, json={"query": VECTOR}).status_code == 200
    assert len(json.loads(recorded.rest.last.body)["query"]) == OLD


@pytest.mark.parametrize("shown", [None, "stranger"])
def test_a_client_without_a_certificate_of_the_authority_is_not_let_in(
    shown: str | None, serving: Serving, directory: Path, recorded: Recorders
) -> None:
    with httpx.Client(verify=trusting(directory, shown)) as client, pytest.raises(httpx.TransportError):
        client.get(f"https://127.0.0.1:{serving.rest_port}/collections")
    assert not recorded.rest.calls


def test_plain_text_is_not_answered_on_a_port_with_tls(serving: Serving) -> None:
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{serving.rest_port}/collections")


def shown_by(serving: Serving, directory: Path) -> int:
    """The serial number of the certificate that the gRPC port shows."""
    context = trusting(directory, "client")
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", serving.grpc_port), 5) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        assert secure.selected_alpn_protocol() == "h2"
        certificate = secure.getpeercert()
        assert certificate is not None
        return int(str(certificate["serialNumber"]), 16)


def test_certificates_that_are_replaced_are_shown_and_unusable_ones_are_not(serving: Serving, directory: Path) -> None:
    first = shown_by(serving, directory)
    key = (directory / "server.key").read_bytes()
    issue(directory, "server")
    fresh = (directory / "server.key").read_bytes()
    (directory / "server.key").write_bytes(key)  # half way: the certificate is new, its key is not there yet
    told = "server.key is not the key of"
    wait_until(lambda: told in serving.written(), 10, "it is told that they do not fit")
    assert shown_by(serving, directory) == first
    (directory / "server.key").write_bytes(fresh)
    wait_until(lambda: shown_by(serving, directory) != first, 10, "the new certificate")
    assert "new certificates serve on listen.qdrant" in serving.written()
    assert (serving.process.poll(), serving.status()["workers"][0]["restarts"]) == (None, 0)


def config_of(directory: Path, tls: str) -> Config:
    text = (
        f'listen: {{qdrant: {{grpc: "127.0.0.1:1", tls: {tls}}}}}\nupstreams: {{main: {{kind: qdrant, grpc: "a:1"}}}}\n'
    )
    return read_config(text + "models: {}\ncollections: {}\n", directory)


@pytest.mark.parametrize(
    ("tls", "key", "said"),
    [
        ("{cert: none.pem, key: server.key}", "cert", "none.pem: No such file or directory; correct the path"),
        ("{cert: stranger.pem, key: client.key}", "key", "client.key is not the key of"),
        ("{cert: empty.pem, key: client.key}", "cert", "are no PEM certificate and key"),
        ("{cert: client.pem, key: locked.key}", "key", "locked.key is encrypted; decrypt it (openssl pkey)"),
        ("{cert: client.pem, key: client.key, client_ca: empty.pem}", "client_ca", "empty.pem has no PEM certificate"),
    ],
)
def test_files_that_cannot_serve_are_named_with_their_key(directory: Path, tls: str, key: str, said: str) -> None:
    (directory / "empty.pem").write_text("")
    command = ["openssl", "pkey", "-aes256", "-passout", "pass:x", "-in", str(directory / "client.key")]
    subprocess.run([*command, "-out", str(directory / "locked.key")], check=True)
    config = config_of(directory, tls)
    (problem,) = find_problems(config)
    assert problem.path == f"listen.qdrant.tls.{key}"
    assert said in problem.message
    with pytest.raises(ConfigError, match=rf"listen\.qdrant\.tls\.{key}"):
        read_certificates(config)


def test_a_replaced_file_has_another_stamp(directory: Path) -> None:
    issue(directory, "other")
    config = config_of(directory, "{cert: other.pem, key: other.key}")
    before = stamp_certificates(config)
    assert before == stamp_certificates(config)
    issue(directory, "other")
    assert before != stamp_certificates(config)
    (directory / "other.key").unlink()
    assert stamp_certificates(config)[1] == (0, 0, 0)


def test_secrets_hold_authorities_only_where_clients_are_asked() -> None:
    assert set(build_secrets(Pems("cert", "key", None), "1")) == {"certificate"}
    assert set(build_secrets(Pems("cert", "key", "ca"), "1")) == {"certificate", "authorities"}
