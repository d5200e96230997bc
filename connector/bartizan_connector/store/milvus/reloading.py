"""Asks a server to load again what it has let go of: nobody else does, and its "not loaded" would never end."""

import logging
import time
from collections.abc import Sequence
from threading import Lock

from bartizan_connector.base.errors import BartizanError
from bartizan_connector.store.milvus.connection import Connection
from bartizan_connector.store.milvus.failures import calling

log = logging.getLogger(__name__)

_BORNE = 5.0
"""Seconds for which "not loaded" is what passes by itself: after a restart, or while another builds an index anew,
which takes the rows away for less than that and loads them itself."""
_AGAIN = 30.0
"""Seconds between two times that the server is asked."""
_ANOTHER = 300.0
"""Seconds without any "not loaded" after which the next one is another matter."""


class Reloading:
    """Of one collection: its rows and its ledger, which can only be read while they are loaded."""

    def __init__(self, connection: Connection, names: Sequence[str], building: Lock) -> None:
        """`building`: held by who takes the rows away here on purpose."""
        self._connection = connection
        self._names = names
        self._building = building
        self._lock = Lock()
        self._first = self._last = self._asked = -_ANOTHER
        """When it was met for the first time, met for the last time, and asked for."""

    def missed(self) -> None:
        """A call was told "not loaded": ask for it where that has lasted. Waits for no answer but the order's own, so
        the call is still to be made again."""
        if self._is_due(time.monotonic()) and self._building.acquire(blocking=False):
            self._asked = time.monotonic()
            try:
                self._ask()
            finally:
                self._building.release()

    def _is_due(self, now: float) -> bool:
        with self._lock:
            if now - self._last > _ANOTHER:
                self._first = now
            self._last = now
            return now - self._first >= _BORNE and now - self._asked >= _AGAIN

    def _ask(self) -> None:
        log.warning("%s of Milvus at %s stays not loaded; it is loaded again", self._names[0], self._connection.place)
        for name in self._names:
            try:
                with calling(self._connection.place):
                    self._connection.client.load_collection(name, timeout=self._connection.timeout, _async=True)
            except BartizanError as error:
                log.warning("%s could not be loaded again: %s", name, error)
