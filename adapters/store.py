"""An adapter on disk: a directory with adapter.safetensors (every array) and card.json (everything else).

The card carries the tensors' SHA-256 and the description of each part. A directory is written beside its place and
renamed into it, so that a reader sees the old adapter or the new one, never half of one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from .base import Adapter, Arrays, Card, Map, PairsCard, StoreError
from .calibrate import Calibration
from .place import rename_over
from .registry import describe_map, restore_map, with_prefix, without_prefix

if TYPE_CHECKING:
    from .fingerprint import Fingerprint

FORMAT = 1
TENSORS = "adapter.safetensors"
CARD = "card.json"
MAPS = ("query", "document", "reverse")


def save_adapter(adapter: Adapter, path: str | os.PathLike[str]) -> None:
    """Write an adapter directory, atomically; an adapter that is there already is replaced.

    Raises StoreError when `path` is something else than an adapter directory.
    """
    place = Path(path)
    if place.exists() and not (place / CARD).is_file() and (not place.is_dir() or any(place.iterdir())):
        raise StoreError(f"{place} exists and is not an adapter (no {CARD} in it): choose another path or remove it")
    place.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))
    try:
        fresh.chmod(0o755)
        tensors, aliases = _share(_gather(adapter))
        data = save(tensors)
        _write(fresh / TENSORS, data)
        _write(fresh / CARD, orjson.dumps(_describe(adapter, data, aliases), option=orjson.OPT_INDENT_2))
        rename_over(fresh, place)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)  # after an exchange this is the replaced adapter


def load_adapter(
    path: str | os.PathLike[str], *, source_model: str | None = None, target_model: str | None = None
) -> Adapter:
    """Read and check an adapter directory.

    Raises StoreError when files are missing or corrupt, of a newer format, not finite, of other dimensions than the
    card says, or (where given) made for other models than `source_model` and `target_model`.
    """
    place = Path(path)
    card, data = _read(place)
    if hashlib.sha256(data).hexdigest() != card.get("sha256"):
        card, data = _read(place)  # replaced between the two reads: the second look sees one adapter
    _check_digest(place, card, data)
    tensors = _parse(place, data)
    aliases = card.get("aliases", {})
    tensors |= {name: tensors[of] for name, of in aliases.items()}
    adapter = _restore(place, card, tensors)
    _check_models(place, adapter.card, source_model, target_model)
    return adapter


def _gather(adapter: Adapter) -> dict[str, NDArray[Any]]:
    tensors: dict[str, NDArray[Any]] = {}
    for name in MAPS:
        tensors |= with_prefix(name, getattr(adapter, name).arrays())
    if adapter.calibration is not None:
        tensors |= with_prefix("calibration", adapter.calibration.arrays())
    for at, fingerprint in enumerate(adapter.fingerprints.values()):
        tensors |= with_prefix(f"fingerprint.{at}", fingerprint.arrays())
    for name, array in tensors.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise StoreError(f"{name} has NaN or infinite values: the adapter is not usable and was not written")
    return tensors


def _share(tensors: Arrays) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Keep one of equal arrays (the query and document maps share banks and weights); the others become aliases."""
    kept: dict[str, NDArray[Any]] = {}
    aliases: dict[str, str] = {}
    seen: dict[tuple[str, tuple[int, ...], bytes], str] = {}
    for name, array in tensors.items():
        solid = np.ascontiguousarray(array)
        key = (str(solid.dtype), solid.shape, hashlib.sha256(solid.tobytes()).digest())
        if key in seen:
            aliases[name] = seen[key]
        else:
            seen[key] = name
            kept[name] = solid.reshape(array.shape)
    return kept, aliases


def _describe(adapter: Adapter, data: bytes, aliases: dict[str, str]) -> dict[str, Any]:
    return asdict(adapter.card) | {
        "format": FORMAT,
        "sha256": hashlib.sha256(data).hexdigest(),
        "aliases": aliases,
        "maps": {name: describe_map(getattr(adapter, name)) for name in MAPS},
        "calibration": adapter.calibration is not None,
        "fingerprints": list(adapter.fingerprints),
    }


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _read(place: Path) -> tuple[dict[str, Any], bytes]:
    for name in (CARD, TENSORS):
        if not (place / name).is_file():
            raise StoreError(
                f"{place} is not an adapter: {name} is missing; make one with `crossfade fit` or correct the path"
            )
    try:
        card = orjson.loads((place / CARD).read_bytes())
        data = (place / TENSORS).read_bytes()
    except orjson.JSONDecodeError as error:
        raise StoreError(f"{place / CARD} is not JSON ({error}): fit the adapter again") from error
    except OSError as error:
        raise StoreError(f"{place} cannot be read: {error}") from error
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        found = card.get("format") if isinstance(card, dict) else type(card).__name__
        raise StoreError(
            f"{place / CARD} has format {found!r}, this version reads {FORMAT}: fit it again or update Crossfade"
        )
    return card, data


def _check_digest(place: Path, card: Mapping[str, Any], data: bytes) -> None:
    found = hashlib.sha256(data).hexdigest()
    if found != card.get("sha256"):
        raise StoreError(
            f"{place / TENSORS} is corrupt: its SHA-256 is {found}, the card says {card.get('sha256')}; "
            "copy the directory again or fit the adapter again"
        )


def _parse(place: Path, data: bytes) -> dict[str, NDArray[Any]]:
    try:
        tensors: dict[str, NDArray[Any]] = load(data)
    except SafetensorError as error:
        raise StoreError(f"{place / TENSORS} is not a safetensors file: {error}; fit the adapter again") from error
    for name, array in tensors.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise StoreError(f"{place / TENSORS}: {name} has NaN or infinite values; fit the adapter again")
    return tensors


def _restore(place: Path, stored: Mapping[str, Any], tensors: Arrays) -> Adapter:
    try:
        names = Card.__dataclass_fields__
        card = Card(**{name: stored[name] for name in names} | {"pairs": PairsCard(**stored["pairs"])})
        maps = {name: restore_map(without_prefix(name, tensors), stored["maps"][name]) for name in MAPS}
        adapter = Adapter(
            card=card,
            query=maps["query"],
            document=maps["document"],
            reverse=maps["reverse"],
            calibration=Calibration.restore(without_prefix("calibration", tensors)) if stored["calibration"] else None,
            fingerprints=_restore_fingerprints(stored["fingerprints"], tensors),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{place} is incomplete ({type(error).__name__}: {error}): fit the adapter again") from error
    for name in MAPS:
        _check_dims(place, name, maps[name], card)
    return adapter


def _restore_fingerprints(models: list[str], tensors: Arrays) -> dict[str, Fingerprint]:
    if not models:
        return {}
    from .fingerprint import Fingerprint

    return {model: Fingerprint.restore(without_prefix(f"fingerprint.{at}", tensors)) for at, model in enumerate(models)}


def _check_dims(place: Path, name: str, fitted: Map, card: Card) -> None:
    expected = (card.source_dim, card.target_dim) if name != "reverse" else (card.target_dim, card.source_dim)
    found = (fitted.source_dim, fitted.target_dim)
    if found != expected:
        raise StoreError(
            f"{place}: the {name} map goes from {found[0]} to {found[1]} dimensions, the card says "
            f"{expected[0]} to {expected[1]} ({card.source_model} to {card.target_model}): fit the adapter again"
        )


def _check_models(place: Path, card: Card, source_model: str | None, target_model: str | None) -> None:
    wanted: list[tuple[str, str | None, str]] = [
        ("maps from", source_model, card.source_model),
        ("maps into", target_model, card.target_model),
    ]
    for words, expected, found in wanted:
        if expected is not None and expected != found:
            swapped = (card.source_model, card.target_model) == (target_model, source_model)
            advice = (
                "source and target are swapped: fit it the other way round"
                if swapped
                else "correct the path or fit one"
            )
            raise StoreError(f"{place} {words} {found!r}, the configuration needs {expected!r}: {advice}")
