"""The admin listener of a running `crossfade serve`, asked by the command line."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx

from .config_values import Address
from .errors import CrossfadeError

if TYPE_CHECKING:
    from .config import Config

_TIMEOUT_SECONDS = 120.0  # plan and start read a sample of the collection
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class NotServing(CrossfadeError):
    """Nobody answers at the admin listener."""


class Refused(CrossfadeError):
    """The admin listener refused what was asked; `kind` names the error."""

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


class AdminClient:
    """Calls of the migrations' API. Every method raises NotServing and Refused."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        # Loading the authorities costs more than the question.
        tls = self.url.startswith("https:")
        self._client = httpx.Client(base_url=self.url, timeout=_TIMEOUT_SECONDS, trust_env=False, verify=tls)

    def get(self, *path: str, **query: Any) -> Any:
        """What stands under a path below /migrations."""
        return self._ask("GET", path, params={key: value for key, value in query.items() if value is not None})

    def say(self, collection: str, verb: str, body: Mapping[str, Any]) -> Any:
        """Say a verb to a collection's migration, as the user of this machine."""
        return self._ask("POST", (collection, verb), json={"actor": who_asks(), **body})

    def _ask(self, method: str, path: tuple[str, ...], **rest: Any) -> Any:
        place = "/migrations/" + "/".join(quote(part, safe="") for part in path)
        try:
            answer = self._client.request(method, place, **rest)
        except httpx.HTTPError as error:
            raise NotServing(
                f"no crossfade serve answers at {self.url} ({error}); start it, or name its admin listener with --admin"
            ) from error
        try:
            data = answer.json()
        except ValueError:
            raise Refused(f"{self.url}{place} answered HTTP {answer.status_code}, not JSON", "http") from None
        if answer.status_code >= 400:
            raise Refused(str(data["error"]), str(data["kind"]))
        return data


def find_admin(config: Path | None, url: str | None) -> str:
    """The URL that is given, or that of a configuration's admin listener. Raises ConfigError."""
    if url is not None:
        return url if "://" in url else f"http://{url}"
    if config is None:
        return "http://127.0.0.1:6380"
    from .loading import load_config

    return admin_url(load_config(config))


def admin_url(config: Config) -> str:
    """Where a configuration's admin listener is reached from this machine."""
    address = config.listen.admin
    return f"http://{Address(_WILDCARDS.get(address.host, address.host), address.port)}"


def who_asks() -> str:
    """user@host, for the history."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
