"""A process that keeps MemoryBackends, so that they outlive the workers that are killed over them."""

import sys
from collections import defaultdict
from multiprocessing.managers import BaseManager

from bartizan_connector.store.memory import MemoryBackend

_KEY = b"loopback only"
_EXPOSED = ("ensure", "heads", "upsert", "touch", "delete", "search", "close")
_backends: defaultdict[str, MemoryBackend] = defaultdict(MemoryBackend)


class Host(BaseManager):
    """Gives proxies of a back-end by name."""


def backend_named(name: str) -> MemoryBackend:
    return _backends[name]


Host.register("backend", backend_named, exposed=_EXPOSED)


def host_at(socket: str) -> Host:
    return Host(address=socket, authkey=_KEY)


if __name__ == "__main__":
    host_at(sys.argv[1]).get_server().serve_forever()
