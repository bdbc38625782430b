"""Which requests the routes send through Python: configured collections, however written, and no others."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfade.backends.qdrant import QdrantDialect
from crossfade.backends.qdrant.reading import QdrantReading
from crossfade.proxy.config import Config
from crossfade.proxy.envoy import FILTER, build_bootstrap, listeners_of
from crossfade.proxy.envoy_clusters import build_clusters
from crossfade.proxy.envoy_routes import NOTHING_LED, build_routes
from crossfade.proxy.leading import Led, read_led, write_led
from crossfade.proxy.loading import read_config

NAMES = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=8)


def config_with(*collections: str) -> Config:
    settings = {
        "listen": {"qdrant": {"grpc": "127.0.0.1:1", "rest": "127.0.0.1:2"}},
        "upstreams": {"only": {"kind": "qdrant", "grpc": "127.0.0.1:3", "rest": "http://127.0.0.1:4"}},
        "models": {"old": {"dim": 2}},
        "collections": {name: {"index_model": "old"} for name in collections},
    }
    return read_config(orjson.dumps(settings).decode(), Path("/etc"), {})


def routes_of(config: Config, transport: str, led: Led = NOTHING_LED) -> list[dict[str, Any]]:
    listener = next(one for one in listeners_of(config) if one.transport == transport)
    built = build_routes(config, QdrantDialect(), listener, "1", led)
    routes: list[dict[str, Any]] = built["resources"][0]["virtual_hosts"][0]["routes"]
    return routes


def goes_through_python(routes: list[dict[str, Any]], method: str, path: str) -> bool:
    """What Envoy does: the first route that matches, its expressions against the whole path."""
    for route in routes:
        match = route["match"]
        if "safe_regex" in match:
            wanted = match["headers"][0]["string_match"]["exact"] if "headers" in match else method
            matches = wanted == method and re.fullmatch(match["safe_regex"]["regex"], path) is not None
        else:
            matches = match.get("path") == path or path.startswith(match.get("prefix", "\0"))
        if matches:
            return FILTER in route.get("typed_per_filter_config", {})
    raise AssertionError("no route matches")


@given(NAMES, st.data())
@settings(deadline=None)
def test_a_configured_collection_is_found_however_its_bytes_are_written(name: str, data: st.DataObject) -> None:
    routes = routes_of(config_with(name, "docs"), "rest")
    safe = "".join(data.draw(st.sets(st.sampled_from("abc.-_~!$&'()*+,;=:@"))))
    written = quote(name, safe=safe)
    for spelling in (written, written.replace("%C3", "%c3"), "".join(f"%{byte:02x}" for byte in name.encode())):
        assert goes_through_python(routes, "POST", f"/collections/{spelling}/points/query")
        assert goes_through_python(routes, "PUT", f"/collections/{spelling}/points")
    assert not goes_through_python(routes, "POST", f"/collections/{written}/points/count")
    assert not goes_through_python(routes, "GET", f"/collections/{written}")


@settings(deadline=None)
@given(NAMES.filter(lambda name: name not in ("docs", "a.c")))
def test_other_collections_go_past_python(name: str) -> None:
    routes = routes_of(config_with("docs", "a.c"), "rest")
    assert not goes_through_python(routes, "POST", f"/collections/{quote(name, safe='')}/points/query")


@pytest.mark.parametrize("operation", QdrantDialect.operations, ids=lambda one: f"{one.transport} {one.path}")
def test_every_operation_goes_through_python_and_only_by_its_own_method(operation: Any) -> None:
    routes = routes_of(config_with("docs"), operation.transport)
    path = operation.path.replace("{collection}", "docs").replace("{id}", "7").replace("{shard}", "3")
    assert "{" not in path
    assert goes_through_python(routes, operation.method, path)
    if operation.transport == "rest":
        assert not goes_through_python(routes, "OPTIONS", path)


def test_without_collections_nothing_goes_through_python() -> None:
    for transport in ("grpc", "rest"):
        (route,) = routes_of(config_with(), transport)
        assert route["match"] == {"prefix": "/"}
        assert "typed_per_filter_config" not in route


def test_a_hundred_collections_of_long_names_stay_within_the_bound_on_expressions() -> None:
    names = [f"collection-with-a-rather-long-name-{number:04d}" for number in range(100)]
    longest = max(len(str(route["match"])) for route in routes_of(config_with(*names), "rest"))
    bootstrap = build_bootstrap(config_with(*names), "/run", "module.so")
    (layer,) = bootstrap["layered_runtime"]["layers"]
    assert longest < layer["static_layer"]["re2.max_program_size.error_level"]


LED = Led({"docs": "docs", "d.": "docs", "gone": "missing"}, 3, (1, 2))


@pytest.mark.parametrize("operation", QdrantReading.others, ids=lambda one: f"{one.transport} {one.path}")
def test_what_carries_no_vector_goes_through_python_only_for_collections_that_are_led(operation: Any) -> None:
    config = config_with("docs", "others")
    led, before = routes_of(config, operation.transport, LED), routes_of(config, operation.transport)

    def path(collection: str) -> str:
        return re.sub(r"\{\w+\}", "7", operation.path.replace("{collection}", collection))

    for name in ("docs", "d%2E"):
        assert goes_through_python(led, operation.method, path(name))
    assert not goes_through_python(before, operation.method, path("docs"))
    if "{collection}" in operation.path:
        for name in ("others", "docs2", "d", "gone"):
            assert not goes_through_python(led, operation.method, path(name))


def test_methods_that_nobody_knows_yet_go_through_python_for_a_collection_that_is_led() -> None:
    config = config_with("docs", "others")
    rest = routes_of(config, "rest", LED)
    assert goes_through_python(rest, "POST", "/collections/docs/points/replace")
    assert goes_through_python(rest, "PUT", "/collections/d./")
    assert not goes_through_python(rest, "POST", "/collections/others/points/replace")
    assert goes_through_python(routes_of(config, "grpc", LED), "POST", "/qdrant.Points/Replace")
    assert not goes_through_python(routes_of(config, "grpc"), "POST", "/qdrant.Points/Replace")


def test_each_epoch_has_clusters_of_its_own_and_earlier_ones_stay_until_they_are_empty() -> None:
    config = config_with("docs")
    used = {route["route"]["cluster"] for route in routes_of(config, "grpc", LED)}
    assert used == {"only-grpc-3"}
    assert {route["route"]["cluster"] for route in routes_of(config, "grpc")} == {"only-grpc"}
    names = [cluster["name"] for cluster in build_clusters(config, "1", LED.epochs)["resources"]]
    assert names == ["only-grpc-1", "only-rest-1", "only-grpc-2", "only-rest-2", "only-grpc-3", "only-rest-3"]
    assert LED.moved({}, drained=False).epochs == (1, 2, 3, 4)
    assert LED.moved({}, drained=True).epochs == (3, 4)


def test_what_is_led_is_stated_in_the_run_directory(tmp_path: Path) -> None:
    assert read_led(tmp_path) == Led()
    write_led(tmp_path, LED)
    assert read_led(tmp_path) == LED
    assert (Led().version(7), LED.version(7)) == ("7", "7.3")
