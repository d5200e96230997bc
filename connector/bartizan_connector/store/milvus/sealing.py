"""Has a server write down what it keeps in memory: from its own log it may not read all of that again (decision 029).

Rows that a server has acknowledged stand in its log, and in a segment that grows in memory. One that was killed reads
its log anew, and may let go again of what it has read, until that is written as a segment that is sealed. So rows and
ledger are sealed when a writer begins, when it leaves, when nothing was written for a while, and after the server was
away: at once, and again when it has had the time to let go.
"""

import logging
import time
from collections.abc import Sequence
from threading import Lock

from bartizan_connector.base.errors import BartizanError, Retry
from bartizan_connector.store.milvus.connection import Connection
from bartizan_connector.store.milvus.failures import calling

log = logging.getLogger(__name__)

_AGAIN = 20.0
"""Seconds after which a server that came back has let go of what it lets go of; some 16 were seen."""
_QUIET = 60.0
"""Seconds without a write after which what was written is sealed."""


class Sealing:
    """Of one collection. A file needs none of it: Milvus Lite reads its own log as it was written."""

    def __init__(self, connection: Connection, names: Sequence[str]) -> None:
        self._connection = connection
        self._names = names
        self._lock = Lock()
        self._due: list[float] = []
        """From when on it is to be done, each once."""
        self._written: float | None = None
        """When something was written that is not sealed; None: nothing."""

    def doubt(self) -> None:
        """A writer begins here, or the server was away: what is in its memory may be less than it acknowledged."""
        if self._connection.file is None:
            with self._lock:
                now = time.monotonic()
                self._due = [now, now + _AGAIN]

    def met(self, error: Retry) -> None:
        """A call has failed for now; where that was the server's doing, it may have been killed."""
        if error.__cause__ is not None:
            self.doubt()

    def wrote(self) -> None:
        """Something was acknowledged that stands in memory only."""
        self._written = time.monotonic()

    def see(self, *, is_last: bool = False) -> None:
        """Seal what is due, once a call went well; what cannot be sealed stays due, and stops nobody. `is_last`: seal
        what is not due yet, too."""
        now = time.monotonic()
        with self._lock:
            due = [at for at in self._due if at <= now]
        rests = self._written is not None and now - self._written >= _QUIET
        open_ = is_last and (self._written is not None or bool(self._due))
        if (due or rests or open_) and self._connection.file is None and self._seal():
            with self._lock:
                self._due = [at for at in self._due if at not in due]
            self._written = None

    def _seal(self) -> bool:
        """Whether the server has taken the order; it is carried out while others write and search."""
        for name in self._names:
            try:
                with calling(self._connection.place):
                    self._connection.client.flush(name, timeout=self._connection.timeout, _async=True)
            except BartizanError as error:
                log.info("%s could not be sealed now: %s", name, error)
                return False
        return True
