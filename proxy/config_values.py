"""The values that stand in a configuration as text: addresses, origins, durations, sizes and paths.

Each is a plain immutable value with the parser that makes it; the `...Value` names are what the models annotate with.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, ValidationInfo, WithJsonSchema

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_BYTES = (
    {"B": 1}
    | {p + "B": 1000**i for i, p in enumerate("kMGT", 1)}
    | {p + "iB": 1024**i for i, p in enumerate("KMGT", 1)}
)
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?) ?([A-Za-z]*)")
_ADDRESS = re.compile(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^\s:/\[\]@]+)):(\d{1,5})")


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a TCP port; `str` gives "host:port", with an IPv6 host in brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where HTTP is spoken: scheme ("http" or "https") and address; `str` gives the URL without a path."""

    scheme: str
    address: Address

    def __str__(self) -> str:
        return f"{self.scheme}://{self.address}"


def parse_address(text: Any) -> Address:
    """Read "host:port"; raises ValueError."""
    if isinstance(text, Address):
        return text
    found = _ADDRESS.fullmatch(text) if isinstance(text, str) else None
    if not found or int(found[3]) > 65535:
        raise ValueError('is no address; write "host:port" with a port up to 65535, for example "127.0.0.1:6334"')
    return Address(found[1] or found[2], int(found[3]))


def parse_origin(text: Any) -> Origin:
    """Read "http://host:port" or "https://host[:port]" without a path; raises ValueError."""
    if isinstance(text, Origin):
        return text
    try:
        url = urlsplit(text if isinstance(text, str) else "")
        port = url.port or {"http": 80, "https": 443}[url.scheme]
    except (KeyError, ValueError):
        raise ValueError('is no URL of a server; write "http://host:port" or "https://host:port"') from None
    if not url.hostname or url.path not in ("", "/") or url.query or url.fragment or url.username is not None:
        raise ValueError('must be only "http://host:port": no path, no query, no user name')
    return Origin(url.scheme, Address(url.hostname, port))


def parse_duration(text: Any) -> float:
    """Read "500ms", "30s", "2m" or "1h" as seconds; raises ValueError."""
    return _amount(text, _SECONDS, "a duration", "500ms, 30s, 2m or 1h")


def parse_size(text: Any) -> int:
    """Read "64kB", "512MiB" or "2GiB" as bytes; raises ValueError."""
    return int(_amount(text, _BYTES, "a size", "64kB, 512MiB or 2GiB"))


def _amount(text: Any, units: dict[str, float] | dict[str, int], what: str, examples: str) -> float:
    """A number with its unit; a bare number is refused because nobody can tell what it counts."""
    found = _AMOUNT.fullmatch(str(text)) if isinstance(text, str | int | float) else None
    if not found or isinstance(text, bool):
        raise ValueError(f"is not {what}; write it with its unit: {examples}")
    if found[2] not in units and float(found[1]) != 0:
        unit = f"has the unit {found[2]!r}" if found[2] else "has no unit"
        raise ValueError(f"{unit}; units are {', '.join(units)} ({examples})")
    return float(found[1]) * units.get(found[2], 1)


def spell_duration(seconds: float) -> str:
    """Seconds as the configuration writes them; what `parse_duration` reads."""
    return f"{seconds:g}s" if seconds >= 1 or seconds == 0 else f"{seconds * 1000:g}ms"


def spell_size(size: int) -> str:
    """Bytes as the configuration writes them, in the largest unit that holds them exactly; what `parse_size` reads."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size % _BYTES[unit] == 0:
            return f"{size // _BYTES[unit]}{unit}"
    return f"{size}B"


def _positive(amount: float) -> float:
    if amount <= 0:
        raise ValueError("must be more than 0")
    return amount


def _from_base(path: Path, info: ValidationInfo) -> Path:
    base = (info.context or {}).get("base")
    return base / path if base is not None else path


_DURATION_SCHEMA = WithJsonSchema({"type": "string", "pattern": r"^\d+(\.\d+)? ?(ms|s|m|h)$|^0$", "examples": ["30s"]})
_SIZE_SCHEMA = WithJsonSchema(
    {"type": "string", "pattern": r"^\d+(\.\d+)? ?([kMGT]B|[KMGT]iB|B)$", "examples": ["512MiB"]}
)

AddressValue = Annotated[
    Address,
    BeforeValidator(parse_address),
    PlainSerializer(str),
    WithJsonSchema({"type": "string", "pattern": r"^.+:\d{1,5}$", "examples": ["0.0.0.0:6334"]}),
]
OriginValue = Annotated[
    Origin,
    BeforeValidator(parse_origin),
    PlainSerializer(str),
    WithJsonSchema({"type": "string", "pattern": r"^https?://[^/]+/?$", "examples": ["http://qdrant:6333"]}),
]
Seconds = Annotated[float, BeforeValidator(parse_duration), PlainSerializer(spell_duration), _DURATION_SCHEMA]
PositiveSeconds = Annotated[Seconds, AfterValidator(_positive)]
Bytes = Annotated[
    int, BeforeValidator(parse_size), AfterValidator(_positive), PlainSerializer(spell_size), _SIZE_SCHEMA
]
PathValue = Annotated[Path, AfterValidator(_from_base)]
