"""Who writes into a collection: one at a time, known by name, and fenced by an epoch.

The lease lies in the collection's own line and is read in every write transaction. It is free when its holder let go,
has ended, or was silent for SILENCE seconds. Whoever takes it raises the epoch; a holder that was asleep meanwhile
finds another's name there, is stopped, and has written nothing.
"""

import json
import sqlite3
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from uuid import uuid4

from bartizan_connector.base.errors import BartizanError, Retry, Stop
from bartizan_connector.store.embedded.place import Place
from bartizan_connector.store.holder import SILENCE, Holder, let_go, ours

Left = Callable[[sqlite3.Connection, str], str]


def _nothing(connection: sqlite3.Connection, physical: str) -> str:
    return ""


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

    @property
    def renewal(self) -> float:
        """After so many seconds our name is written again: others may count by the usual silence, whatever ours is."""
        return min(self._silence, SILENCE) / 10

    def claimed(self, epoch: int, holder: str) -> tuple[int, str]:
        """The epoch and the holder to write in this transaction, once it is found that we may write."""
        found = holder_in(holder)
        if found is None or found.token != self._token:
            if self._epoch not in (None, epoch):  # whoever takes it raises the epoch; a mere giving back does not
                self.forget()
                raise Stop(
                    f"{self._what} is written by another now ({found or 'who has ended since'}): this writer was "
                    "silent for too long and has lost its place; nothing was written. Run again"
                )
            if found is not None and found.may_live(time.time(), self._silence):
                raise Retry(f"{self._what} is being written by {found}; wait until that has ended", after=2.0)
            epoch += 1
            self._since = ""
        us = ours(self._token, self._since)
        self._since = us.since
        return epoch, json.dumps(asdict(us))

    def committed(self, epoch: int) -> None:
        """The transaction that claimed it is durable."""
        self._epoch = epoch

    def is_ours(self, holder: str) -> bool:
        found = holder_in(holder)
        return found is not None and found.token == self._token

    def give_back(self, place: Place, physical: str, *, left: Left = _nothing) -> None:
        """Let others write at once, and leave word of what stands there. Where that cannot be written down, all find
        it free as it is forgotten here."""
        if not self.is_held:
            return
        try:
            with place.writing() as connection:
                found = connection.execute("SELECT holder FROM collections WHERE physical = ?", (physical,)).fetchone()
                if found and self.is_ours(found[0]):
                    word = left(connection, physical)
                    connection.execute("UPDATE collections SET holder = ? WHERE physical = ?", (word, physical))
        except BartizanError:
            pass  # no room, or no file any more
        finally:
            self.forget()

    def forget(self) -> None:
        """Hold it no more, whatever the file says."""
        self._epoch = None
        let_go(self._token)


def holder_in(line: str) -> Holder | None:
    """Who holds it; None where nobody does, and what stands there is what the last one left."""
    facts = json.loads(line) if line else {}
    return Holder(**facts) if "token" in facts else None
