"""Loopback ports for servers that are started here, each block of them for one process only."""

import random
import socket

from bartizan_connector.base.errors import Stop

_PORTS_FROM, _PORTS_TO = 20_000, 32_000
"""Below the range from which the kernel hands out ports, so that no outgoing connection takes one meanwhile."""
_BLOCK = 20


def free_ports(count: int) -> list[int]:
    """Loopback ports that nothing listens on, and that no other process is given here while this one lives: a server
    takes its ports seconds after they were chosen, and gives them up while it is started again."""
    assert count <= _BLOCK
    blocks = range(_PORTS_FROM, _PORTS_TO, _BLOCK)
    for first in random.SystemRandom().sample(blocks, len(blocks)):
        ports = list(range(first, first + count))
        guard = socket.socket(type=socket.SOCK_DGRAM)  # servers listen by TCP: the same number is free for them
        if _binds(guard, first) and all(map(_is_free, ports)):
            guard.detach()  # open until the process ends
            return ports
        guard.close()
    raise Stop(f"no {count} free ports in a row between {_PORTS_FROM} and {_PORTS_TO}; end some of what listens there")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return _binds(probe, port)


def _binds(probe: socket.socket, port: int) -> bool:
    try:
        probe.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True
