"""Loopback ports for servers that are started here."""

import random
import socket

from bartizan_connector.base.errors import Stop

_PORTS_FROM, _PORTS_TO = 20_000, 32_000
"""Below the range from which the kernel hands out ports, so that no outgoing connection takes one meanwhile."""


def free_ports(count: int) -> list[int]:
    """Loopback ports that nothing listens on at this moment."""
    ports: list[int] = []
    for port in random.SystemRandom().sample(range(_PORTS_FROM, _PORTS_TO), 50 * count):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        ports.append(port)
        if len(ports) == count:
            return ports
    raise Stop(f"no {count} free ports between {_PORTS_FROM} and {_PORTS_TO}; end some of what listens there")
