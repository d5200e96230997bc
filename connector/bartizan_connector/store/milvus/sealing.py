"""Has a server write down what it keeps in memory: from its own log it may not read all of that again (decision 029).

Rows that a server has acknowledged stand in its log, and in a segment that grows in memory. One that was killed reads
its log anew, and may let go again of what it has read, until that is written as a segment that is sealed. Who has to
know that it is waits for `seal`. For all others rows and ledger are ordered to be sealed when a writer begins, when it
leaves, when nothing was written for a while, and after the server was away: at once, and again when it has had the time
to let go.
"""

import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

from bartizan_connector.base.errors import BartizanError, Forgotten, Retry
from bartizan_connector.store.milvus.connection import Connection
from bartizan_connector.store.milvus.failures import calling, is_away, is_missing, is_unloaded

log = logging.getLogger(__name__)

_AGAIN = 20.0
"""Seconds after which a server that came back has let go of what it lets go of; some 16 were seen. Nothing is ordered
within so long of the last order, but when a writer leaves."""
_QUIET = 60.0
"""Seconds without a write after which what was written is sealed."""
_ORDER_SECONDS = 2.0
"""How long an order may take: a write waits behind it."""
Life = frozenset[tuple[str, int]]
"""Channel → the number of the node that answers for it. A server that was started again, or another that has taken
over, has another number; both read what is not sealed from the log."""


class Sealing:
    """Of one collection. A file needs none of it: Milvus Lite reads its own log as it was written."""

    def __init__(self, connection: Connection, names: Sequence[str]) -> None:
        self._connection = connection
        self._names = names
        self._lock = Lock()
        self._due: list[float] = []
        """From when on it is to be ordered, each once."""
        self._written: float | None = None
        """When something was written that is not sealed; None: nothing."""
        self._ordered = -_AGAIN
        self._life: Life | None = None
        """Of the server, since the writer began or last found it to be another; None: it does not say."""
        self._was_away = False
        """Whether it was found away since the last seal, or could not be told from another when the writer began."""

    def begin(self) -> None:
        """A writer begins here: what is in the server's memory may be less than it acknowledged."""
        if self._connection.file is None:
            self._doubt()
            try:
                self._life = self._life or self._lives()
            except BartizanError as error:
                self._was_away = True
                log.debug("not known which server it is: %s", error)

    def met(self, error: Retry) -> None:
        """A call has failed for now; where the server was away, or has let go of the collection, it may have been
        killed."""
        if self._connection.file is not None:
            return
        if is_away(error):
            self._was_away = True
        if is_away(error) or is_unloaded(error):
            self._doubt()

    def wrote(self) -> None:
        """Something is acknowledged that stands in memory only."""
        self._written = time.monotonic()

    def see(self, *, is_last: bool = False) -> None:
        """Order what is due, once a call went well; what the server does not take stays due, and stops nobody.
        `is_last`: order what is not due yet, too."""
        if self._connection.file is not None:
            return
        now = time.monotonic()
        with self._lock:
            due = [at for at in self._due if at <= now]
        rests = self._written is not None and now - self._written >= _QUIET
        if is_last:
            wanted = self._written is not None or bool(self._due)
        else:
            wanted = (bool(due) or rests) and now - self._ordered >= _AGAIN
        if wanted and self._order():
            self._done(now)

    def seal(self) -> None:
        """Wait until all that was written before is sealed. Forgotten where the server was away since the last time."""
        begun = time.monotonic()
        with ThreadPoolExecutor(len(self._names), "bartizan-flush") as threads:
            flushes = [threads.submit(self._flush, name, self._connection.timeout) for name in self._names]
        for flush in flushes:
            flush.result()
        life = self._lives()
        is_other = life != self._life if life and self._life else self._was_away
        self._was_away, self._life = False, life
        self._done(begun)
        if is_other:
            raise Forgotten(
                f"Milvus at {self._connection.place} was away or was started again, and may have forgotten what it "
                "had not sealed: that has to be written again"
            )

    def _doubt(self) -> None:
        with self._lock:
            now = time.monotonic()
            self._due = [now, now + _AGAIN]

    def _done(self, begun: float) -> None:
        """What was written before that is taken care of."""
        with self._lock:
            self._due = [at for at in self._due if at > begun]
            self._ordered = begun
            if self._written is not None and self._written < begun:
                self._written = None

    def _flush(self, name: str, seconds: float, *, waits: bool = True) -> None:
        """A server that wants fewer of them says so at once, and is not asked again by the library."""
        with calling(self._connection.place):
            self._connection.client.flush(name, timeout=seconds, retry_on_rate_limit=False, _async=not waits)

    def _lives(self) -> Life | None:
        """The server's present life. Where we may not ask, there is only what was met to go by."""
        client, timeout = self._connection.client, self._connection.timeout
        try:
            with calling(self._connection.place):
                groups = [group for name in self._names for group in client.describe_replica(name, timeout=timeout)]
        except Retry:
            raise
        except BartizanError as error:
            if is_missing(error) or is_unloaded(error):  # both are said while it is being loaded
                raise Retry(str(error)) from error.__cause__
            return None
        shards = [shard for group in groups for shard in group.shards]
        if not shards:
            raise Retry(f"Milvus at {self._connection.place} has not loaded {self._names[0]} yet")
        return frozenset((shard.channel_name, shard.shard_leader) for shard in shards)

    def _order(self) -> bool:
        """Whether the server has taken the order; it is carried out while others write and search."""
        for name in self._names:
            try:
                self._flush(name, min(self._connection.timeout, _ORDER_SECONDS), waits=False)
            except BartizanError as error:
                log.info("%s could not be sealed now: %s", name, error)
                return False
        return True
