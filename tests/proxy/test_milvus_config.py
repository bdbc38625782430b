"""What a configuration says of Milvus: one address for both protocols, ports by model, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from crossfade.backends.milvus import MilvusDialect
from crossfade.proxy.config import Config
from crossfade.proxy.envoy import listeners_of
from crossfade.proxy.envoy_routes import build_routes
from crossfade.proxy.errors import ConfigError
from crossfade.proxy.loading import read_config

TEXT = """
listen: {milvus: {address: "127.0.0.1:19530", by_model: {org/new: "127.0.0.1:19531"}}}
upstreams: {main: {kind: milvus, grpc: "milvus:19530"}}
models: {old: {dim: 4}, org/new: {dim: 8}}
collections: {tenant/docs: {index_model: old}}
"""


def read(text: str) -> Config:
    return read_config(text, Path("/nowhere"), {})


def test_grpc_and_rest_are_on_one_port_and_each_model_has_one_of_its_own() -> None:
    first, second = listeners_of(read(TEXT))
    assert (first.name, first.transport, first.declares) == ("milvus-0", None, None)
    assert (second.name, second.key, second.declares) == ("milvus-1", "listen.milvus.by_model.org/new", "org/new")
    assert first.transports == ("grpc", "rest")


def test_the_address_alone_is_a_listener() -> None:
    text = TEXT.replace('{address: "127.0.0.1:19530", by_model: {org/new: "127.0.0.1:19531"}}', '"127.0.0.1:19530"')
    assert (
        read(text).listen.milvus
        == read(text.replace('"127.0.0.1:19530"', '{address: "127.0.0.1:19530"}')).listen.milvus
    )


def test_milvuss_rest_is_where_its_grpc_is_unless_it_is_said() -> None:
    assert str(read(TEXT).upstreams["main"].rest) == "http://milvus:19530"
    assert str(read(TEXT.replace('19530"}}', '19530", tls: {}}}')).upstreams["main"].rest) == "https://milvus:19530"
    said = TEXT.replace('grpc: "milvus:19530"', 'grpc: "milvus:19530", rest: "http://web:80"')
    assert str(read(said).upstreams["main"].rest) == "http://web:80"


def test_what_is_not_looked_into_goes_to_the_cluster_of_its_protocol() -> None:
    config = read(TEXT)
    routes = build_routes(config, MilvusDialect(), listeners_of(config)[0], "1")["resources"][0]["virtual_hosts"][0][
        "routes"
    ]
    grpc, rest = routes[-2:]
    assert (grpc["match"], grpc["route"]["cluster"]) == ({"prefix": "/", "grpc": {}}, "main-grpc")
    assert (rest["match"], rest["route"]["cluster"]) == ({"prefix": "/"}, "main-rest")
    assert len(routes) == len(MilvusDialect.operations) + 2


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("by_model: {org/new:", "by_model: {newer:", "listen.milvus.by_model.newer: names the model 'newer'"),
        ("127.0.0.1:19531", "127.0.0.1:19530", "one port cannot be opened twice"),
        ('grpc: "milvus:19530"', 'rest: "http://milvus:19530"', "Milvus has gRPC and REST on one port: give it grpc"),
        ('grpc: "milvus:19530"', "embedded: ./data, api_key: k", "knows no keys; leave out api_key"),
        ("kind: milvus, grpc", "kind: qdrant, grpc", "there is none of kind milvus"),
    ],
)
def test_what_cannot_be_is_refused_with_its_key(old: str, new: str, said: str) -> None:
    assert old in TEXT
    with pytest.raises(ConfigError) as raised:
        read(TEXT.replace(old, new))
    assert said in str(raised.value)
