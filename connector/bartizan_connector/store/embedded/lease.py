"""Who writes into a collection: one at a time, known by name, and fenced by an epoch.

The lease lies in the collection's own line and is read in every write transaction. It is free when its holder let go,
has ended, or was silent for SILENCE seconds. Whoever takes it raises the epoch; a holder that was asleep meanwhile
finds another's name there, is stopped, and has written nothing.
"""

import json
import os
import socket
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from uuid import uuid4

from bartizan_connector.base.errors import BartizanError, Retry, Stop
from bartizan_connector.store.embedded.place import Place

SILENCE = 300.0
"""A writer that has not written for so long may be succeeded although it may still live."""

_live: set[str] = set()
"""The tokens of this process that were not let go."""
_lock = Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """One writer."""

    token: str
    pid: int
    host: str
    begun: str
    """When its process began, as the system counts; two processes of one number differ in it."""
    since: str
    seen: float

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


class Lease:
    """The right of one opened back-end to write into one collection."""

    def __init__(self, name: str, path: Path, *, silence: float = SILENCE) -> None:
        self._what = f"collection '{name}' in {path}"
        self._silence = silence
        self._token = uuid4().hex
        self._epoch: int | None = None
        self._since = ""

    @property
    def is_held(self) -> bool:
        return self._epoch is not None

    def claimed(self, epoch: int, holder: str) -> tuple[int, str]:
        """The epoch and the holder to write in this transaction, once it is found that we may write."""
        found = Holder(**json.loads(holder)) if holder else None
        now = time.time()
        if found is None or found.token != self._token:
            if self._epoch not in (None, epoch):  # whoever takes it raises the epoch; a mere giving back does not
                self.forget()
                raise Stop(
                    f"{self._what} is written by another now ({found or 'who has ended since'}): this writer was "
                    "silent for too long and has lost its place; nothing was written. Run again"
                )
            if found is not None and self._is_held_by(found, now):
                raise Retry(f"{self._what} is being written by {found}; wait until that has ended", after=2.0)
            epoch += 1
            self._since = datetime.now(UTC).isoformat(timespec="seconds")
        with _lock:
            _live.add(self._token)
        ours = Holder(
            token=self._token,
            pid=os.getpid(),
            host=socket.gethostname(),
            begun=_begun(os.getpid()),
            since=self._since,
            seen=now,
        )
        return epoch, json.dumps(asdict(ours))

    def committed(self, epoch: int) -> None:
        """The transaction that claimed it is durable."""
        self._epoch = epoch

    def is_ours(self, holder: str) -> bool:
        return bool(holder) and json.loads(holder)["token"] == self._token

    def give_back(self, place: Place, physical: str) -> None:
        """Let others write at once. Where that cannot be written down, all find it free as it is forgotten here."""
        if not self.is_held:
            return
        try:
            with place.writing() as connection:
                found = connection.execute("SELECT holder FROM collections WHERE physical = ?", (physical,)).fetchone()
                if found and self.is_ours(found[0]):
                    connection.execute("UPDATE collections SET holder = '' WHERE physical = ?", (physical,))
        except BartizanError:
            pass  # no room, or no file any more
        finally:
            self.forget()

    def forget(self) -> None:
        """Hold it no more, whatever the file says."""
        self._epoch = None
        with _lock:
            _live.discard(self._token)

    def _is_held_by(self, found: Holder, now: float) -> bool:
        if now - found.seen > self._silence:
            return False
        if found.host != socket.gethostname():
            return True
        if found.pid == os.getpid():
            return found.token in _live
        return _begun(found.pid) == found.begun and _is_running(found.pid)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _begun(pid: int) -> str:
    """When the process began, in the kernel's ticks; empty where the system does not tell, or it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] in ("Z", "X") else fields[19]
