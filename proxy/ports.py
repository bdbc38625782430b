"""Whether a configuration's ports are free, and whether two processes may serve it beside each other."""

from __future__ import annotations

import socket

from .config import Config
from .config_values import Address
from .envoy import listeners_of
from .errors import ConfigError, Problem


def check_replaceable(config: Config) -> None:
    """Refuse to stand beside another `serve` where both would open one database's files; raises ConfigError."""
    embedded = [name for name, upstream in config.upstreams.items() if upstream.embedded is not None]
    problems = [
        Problem(f"upstreams.{name}.embedded", None, "is opened by one serve alone; end that first, without --replace")
        for name in embedded
    ]
    if problems:
        raise ConfigError(problems)


def check_ports(config: Config) -> None:
    """Refuse ports that others hold; raises ConfigError naming each key.

    Workers share a port by SO_REUSEPORT, so the kernel alone would not say.
    """
    places = [(one.key, one.address) for one in listeners_of(config)]
    places.append(("listen.admin", config.listen.admin))
    problems = [
        Problem(key, None, f"{address} cannot be listened on ({reason}); stop what holds it or choose another port")
        for key, address in places
        if (reason := _busy(address)) is not None
    ]
    if problems:
        raise ConfigError(problems)


def _busy(address: Address) -> str | None:
    try:
        family, kind, proto, _, where = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, proto) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
    except OSError as error:
        return error.strerror or str(error)
    return None
