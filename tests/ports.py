"""Ports for servers of tests, also where several test processes run beside each other."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack

# Below what Linux and macOS give to outgoing connections, one of which may else take a port before its server does.
_PORTS = range(10_000, 32_000)
_chance = random.SystemRandom()  # tests that run beside this one must not draw the same


def free_ports(count: int) -> list[int]:
    """Ports that nobody holds at the moment."""
    with ExitStack() as stack:
        ports: list[int] = []
        while len(ports) < count:
            port = _chance.choice(_PORTS)
            probe = stack.enter_context(socket.socket())
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            ports.append(port)
        return ports
