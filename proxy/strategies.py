"""How a read of a collection that is being migrated is answered, decided before anything is awaited. Pure.

adapt          the old index, asked with mapped vectors
crossfade      both, merged: adapted candidates of the old index, true ones of what the new one holds so far
legacy-encode  the old index, asked with the text encoded by both models; merged with what the new one holds
native         the new index, with true vectors of the new model and mapped ones of others

`auto` is adapt while nothing is migrated, crossfade from then on, and native for the share that is switched. At the
shares where a probe's verdict has found that better it is legacy-encode for texts, or adapt, and both models count as
much as the probe found best. Clients of other models stay on the old index until the migration is completed, unless
they ask for native themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from ipaddress import ip_address
from typing import Final, Literal, NamedTuple, get_args

from crossfade.adapters.weights import Weights, usual_weights

from .errors import UnknownStrategy
from .migration.machine import OVER
from .migration.record import MigrationView, Strategy
from .verdicts import Verdict

HEADER: Final = "x-crossfade-strategy"
KNOWN: Final[tuple[Strategy, ...]] = get_args(Strategy)
Way = Literal["old", "adapt", "crossfade", "legacy-encode", "legacy-crossfade", "native"]
"""What is done: a strategy, spelled out; "old": as if there were no migration, for clients of other models."""


class Request(NamedTuple):
    """What the choice depends on in a request."""

    model: str | None  # of its queries, or of the vectors it would be given
    key: bytes  # whose request it is
    plain: bool  # nothing but plain searches in the field that is re-encoded
    texts: bool  # asked with texts that the old model's encoder can encode here


def read_wanted(headers: Mapping[str, str], collection: str) -> Strategy | None:
    """The strategy that a request asks for by its header; raises UnknownStrategy."""
    wanted = headers.get(HEADER)
    if wanted is None:
        return None
    for strategy in KNOWN:
        if wanted == strategy:
            return strategy
    raise UnknownStrategy(strategy=wanted, collection=collection, known=KNOWN)


def find_key(headers: Mapping[str, str], header: str, peer: str, vector: bytes | None) -> bytes:
    """Whose request it is: the client's identity, else its address, else the query itself.

    An address of this machine tells nobody apart (a sidecar, a test), so there the query counts before it.
    """
    client = headers.get(header)
    if client is not None:
        return b"client " + client.encode("utf-8", "surrogateescape")
    if vector is not None and (not peer or _is_local(peer)):
        return b"query " + vector
    return b"peer " + peer.encode()


def _is_local(peer: str) -> bool:
    try:
        return ip_address(peer).is_loopback
    except ValueError:  # a socket has no address
        return True


def find_position(migration: str, key: bytes) -> float:
    """Where a key stands among a hundred, 0 to 100: it reads the new index once the share is greater.

    The same for ever in one migration, so that a greater share only moves keys from the old index to the new.
    """
    digest = blake2b(key, digest_size=8, key=migration.encode()[:64]).digest()
    return int.from_bytes(digest, "big") / 2**64 * 100


def adapts_every(view: MigrationView, wanted: Strategy | None) -> bool:
    """Whether `choose_way` says adapt for each read of the new model but those of texts, whoever asks and for what."""
    strategy = wanted or view.strategy
    if view.state in OVER or (wanted is None and view.percent > 0):
        return False
    return strategy == "adapt" or (strategy in ("auto", "crossfade") and view.migrated == 0)


def choose_way(view: MigrationView, wanted: Strategy | None, request: Request, verdict: Verdict | None = None) -> Way:
    """What is to be done for a read."""
    if wanted == "native":
        return "native"
    if request.model != view.to_model:
        return "old"
    if wanted is None and view.percent > find_position(view.id, request.key):
        return "native"
    strategy = wanted or view.strategy
    if strategy == "native":
        return "native"
    merges = view.migrated > 0 and request.plain
    if strategy == "auto" and verdict is not None:
        chosen = verdict.choose(view.migrated if merges else 0.0, texts=request.texts)
        strategy = "adapt" if chosen is None else "legacy-encode" if chosen.adapted < 1 else "crossfade"
    if strategy == "legacy-encode" and request.texts:
        return "legacy-crossfade" if merges else "legacy-encode"
    return "crossfade" if merges and strategy != "adapt" else "adapt"


def find_weights(
    view: MigrationView, wanted: Strategy | None, way: Way, texts: bool, verdict: Verdict | None = None
) -> Weights:
    """How much each model counts in a way that was chosen: what the probe found for `auto`, else what is usual."""
    legacy = way in ("legacy-encode", "legacy-crossfade")
    if (wanted or view.strategy) == "auto" and verdict is not None:
        chosen = verdict.choose(0.0 if way == "legacy-encode" else view.migrated, texts=texts)
        if chosen is not None:
            return chosen
    return usual_weights(view.migrated, texts=legacy)
