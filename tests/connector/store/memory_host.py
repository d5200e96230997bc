"""A process that keeps MemoryBackends, so that they outlive the workers that are killed over them."""

import sys
from collections import defaultdict
from multiprocessing.managers import BaseManager, IteratorProxy, NamespaceProxy

from bartizan_connector.store.memory import MemoryBackend

_KEY = b"loopback only"
_BACKEND = ("open", "collections", "aliases", "point", "drop", "close")
_STORE = (
    "heads", "claim", "upsert", "touch", "delete", "search", "get", "scan", "count", "purge", "reindex", "close",
    "__getattribute__",
)  # fmt: skip
_backends: defaultdict[str, MemoryBackend] = defaultdict(MemoryBackend)


class StoreProxy(NamespaceProxy):
    """A store that lies in another process: its verbs are called there, its values are asked for there."""

    _exposed_ = _STORE

    def __getattr__(self, key: str) -> object:
        if key in _STORE:
            call = object.__getattribute__(self, "_callmethod")
            return lambda *arguments, **options: call(key, arguments, options)
        return super().__getattr__(key)


class Host(BaseManager):
    """Gives proxies of a back-end by name."""


def backend_named(name: str) -> MemoryBackend:
    return _backends[name]


Host.register("Iterator", proxytype=IteratorProxy, create_method=False)
Host.register("Store", proxytype=StoreProxy, exposed=_STORE, method_to_typeid={"scan": "Iterator"}, create_method=False)
Host.register("backend", backend_named, exposed=_BACKEND, method_to_typeid={"open": "Store"})


def host_at(socket: str) -> Host:
    return Host(address=socket, authkey=_KEY)


if __name__ == "__main__":
    host_at(sys.argv[1]).get_server().serve_forever()
