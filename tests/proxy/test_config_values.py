"""Addresses, origins, durations and sizes: what is written is what is read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.proxy.config_values import (
    Address,
    parse_address,
    parse_duration,
    parse_origin,
    parse_size,
    spell_duration,
    spell_size,
)

HOSTS = st.one_of(
    st.from_regex(r"[a-z][a-z0-9-]{0,10}(\.[a-z]{2,5})?", fullmatch=True),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
)
PORTS = st.integers(0, 65535)


@given(HOSTS, PORTS)
def test_an_address_is_read_back_from_its_own_text(host: str, port: int) -> None:
    assert parse_address(str(Address(host, port))) == Address(host, port)


@given(HOSTS, PORTS.filter(bool), st.sampled_from(["http", "https"]))
def test_an_origin_is_read_back_from_its_own_text(host: str, port: int, scheme: str) -> None:
    origin = parse_origin(f"{scheme}://{Address(host, port)}/")
    assert (origin.scheme, origin.address) == (scheme, Address(host, port))
    assert parse_origin(str(origin)) == origin


def test_an_origin_without_a_port_has_its_schemes() -> None:
    assert parse_origin("https://qdrant.example.com").address.port == 443
    assert parse_origin("http://qdrant").address.port == 80


@given(st.integers(0, 10**6))
def test_a_duration_in_milliseconds_is_read_back_from_its_own_text(milliseconds: int) -> None:
    assert parse_duration(spell_duration(milliseconds / 1000)) == pytest.approx(milliseconds / 1000, rel=1e-5)


@given(st.integers(1, 2**45))
def test_a_size_is_read_back_from_its_own_text(size: int) -> None:
    assert parse_size(spell_size(size)) == size


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), ("30s", 30), ("1.5 m", 90), ("2h", 7200), ("0", 0), (0, 0)]
)
def test_durations(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "size"), [("1B", 1), ("64kB", 64_000), ("512MiB", 512 * 2**20), ("1.5GiB", 3 * 2**29)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["30", 30, "30 seconds", "-1s", "s", True, None, "1e3s", ""])
def test_a_duration_without_a_known_unit_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="unit"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["512", 512, "512 mib", "1KB", "-1MiB"])
def test_a_size_without_a_known_unit_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="unit"):
        parse_size(text)


@pytest.mark.parametrize(
    "text", ["qdrant", "qdrant:", "qdrant:65536", ":6334", "http://qdrant:6334", "::1:6334", 6334, "a b:1"]
)
def test_what_is_no_address_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="host:port"):
        parse_address(text)


@pytest.mark.parametrize(
    "text",
    ["qdrant:6333", "ftp://qdrant", "http://qdrant:6333/api", "http://u:p@qdrant", "http://q?x=1", "http://q:x", 1],
)
def test_what_is_no_origin_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="http://host:port"):
        parse_origin(text)
