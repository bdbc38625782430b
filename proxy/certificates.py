"""The certificates of Crossfade's own ports: read and checked from their files, and noticed when they are replaced."""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path

from .config import Config, ListenTls
from .envoy_secrets import Pems
from .errors import ConfigError, Problem
from .rundir import publish_secrets

_POLL_SECONDS = 1.0

log = logging.getLogger("crossfade.certificates")


def read_certificates(config: Config) -> dict[str, Pems]:
    """The certificates of every listener that has TLS, by its kind; raises ConfigError naming the key of each fault."""
    if problems := find_problems(config):
        raise ConfigError(problems)
    listeners = config.listen.kinds.items()
    return {kind: _read(listener.tls) for kind, listener in listeners if listener.tls is not None}


def find_problems(config: Config) -> list[Problem]:
    """What is wrong with the files of listeners that have TLS."""
    return [
        Problem(f"listen.{kind}.tls.{key}", None, reason)
        for kind, listener in config.listen.kinds.items()
        if listener.tls is not None
        for key, reason in _find_faults(listener.tls)
    ]


def stamp_certificates(config: Config) -> list[tuple[int, int, int]]:
    """What tells the files as they are from what they were or will be; nothing of one that is not there."""
    stamps = []
    for listener in config.listen.kinds.values():
        for path in _paths(listener.tls).values():
            try:
                stat = path.stat()
            except OSError:
                stamps.append((0, 0, 0))
            else:
                stamps.append((stat.st_mtime_ns, stat.st_ino, stat.st_size))
    return stamps


def _paths(tls: ListenTls | None) -> dict[str, Path]:
    given = {} if tls is None else {"cert": tls.cert, "key": tls.key, "client_ca": tls.client_ca}
    return {key: path for key, path in given.items() if path is not None}


def _read(tls: ListenTls) -> Pems:
    texts = {key: path.read_text("ascii", "replace") for key, path in _paths(tls).items()}
    return Pems(texts["cert"], texts["key"], texts.get("client_ca"))


def _find_faults(tls: ListenTls) -> list[tuple[str, str]]:
    """(key, what is wrong and what to do) of the files of one listener."""
    unread = [(key, reason) for key, path in _paths(tls).items() if (reason := _unreadable(path)) is not None]
    if unread:
        return unread
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    faults = []
    try:
        context.load_cert_chain(tls.cert, tls.key, _refuse_password)
    except _EncryptedKeyError:
        faults.append(("key", f"{tls.key} is encrypted; decrypt it (openssl pkey), and protect the file itself"))
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            faults.append(("key", f"{tls.key} is not the key of {tls.cert}; give the pair that belongs together"))
        else:
            faults.append(("cert", f"{tls.cert} and {tls.key} are no PEM certificate and key: {_spell(error)}"))
    if tls.client_ca is not None:
        try:
            context.load_verify_locations(tls.client_ca)
        except ssl.SSLError as error:
            faults.append(("client_ca", f"{tls.client_ca} has no PEM certificate: {_spell(error)}"))
    return faults


class _EncryptedKeyError(ValueError):
    pass


def _refuse_password() -> str:
    raise _EncryptedKeyError


def _unreadable(path: Path) -> str | None:
    try:
        path.read_bytes()
    except OSError as error:
        return f"{path}: {error.strerror}; correct the path, or make the file readable"
    return None


def _spell(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).replace("_", " ").lower()


async def watch_certificates(config: Config, run_dir: Path) -> None:
    """Hand Envoy the certificates anew whenever a file of theirs is replaced; unusable ones leave the old ones serving.

    A certificate and its key are two files: between the first and the second they do not fit, which is told and passes.
    """
    seen, version = stamp_certificates(config), 1
    while True:
        await asyncio.sleep(_POLL_SECONDS)
        current = stamp_certificates(config)
        if current == seen:
            continue
        seen = current
        try:
            certificates = await asyncio.to_thread(read_certificates, config)
        except ConfigError as error:
            log.error("the certificates were not taken, those read before serve on: %s", error)
            continue
        version += 1
        publish_secrets(run_dir, certificates, version)
        log.info("new certificates serve on %s", ", ".join(f"listen.{kind}" for kind in certificates))
