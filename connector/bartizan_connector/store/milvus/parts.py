"""By what names a worker of a group writes: two of its own for each part of the ids, of which it is the only writer.

Whoever begins to write for a part makes its names, and then drops all others of that part, before it asks for heads. Of
two who do that at once at most one keeps its names: each makes before it looks, so one of them sees the other's. What a
former writer of the part still sends, however late it wakes, the server refuses; and what it would decide anew, it
decides by heads that are read after it has become the only one.
"""

import hashlib
from uuid import uuid4

from bartizan_connector.store.milvus.names import EPOCH_DIGITS, PARTS, Names, epoch_of

_LETTERS = 16


class Parts:
    """The parts that one member of a group writes for; rows and ledger have a name each."""

    def __init__(self, names: Names, collections: tuple[str, str]) -> None:
        self._names = names
        self._collections = collections
        self._held: dict[str, tuple[str, str]] = {}

    def holds(self, part: str) -> bool:
        """Whether it has names here; whether they still stand, the server says."""
        return part in self._held

    def aliases(self, part: str) -> tuple[str, str]:
        """By what rows and ledger are written."""
        return self._held[part]

    def make(self, part: str, epoch: int) -> None:
        """Names of its own, beside those that others may have; they count from `clear` on."""
        token = uuid4().hex[:_LETTERS]
        rows, ledger = (part_alias_of(collection, epoch, part, token) for collection in self._collections)
        self._held[part] = rows, ledger  # before they are made: what is made halfway can be left
        for alias, collection in zip((rows, ledger), self._collections, strict=True):
            self._names.claim(alias, collection)

    def clear(self, part: str) -> bool:
        """Drop whatever others write by for this part, and say whether there was something."""
        found = False
        for own, collection in zip(self._held[part], self._collections, strict=True):
            for alias in self._names.every_alias_of(collection):
                if alias != own and _part_in(alias) == _part_in(own) and (epoch_of(alias) or 0) <= (epoch_of(own) or 0):
                    self._names.drop_alias(alias, collection)
                    found = True
        return found

    def stand(self, part: str) -> bool:
        """Whether both of its names are there."""
        return part in self._held and all(self._names.describe(alias) for alias in self._held[part])

    def forget(self, part: str) -> None:
        """Write for it no more; the names stay until somebody drops them."""
        self._held.pop(part, None)

    def leave(self, part: str) -> None:
        """Write for it no more, and leave nothing for the next one to drop."""
        for alias, collection in zip(self._held.pop(part, ()), self._collections, strict=False):
            self._names.drop_alias(alias, collection)

    def leave_all(self) -> None:
        """The same for each."""
        for part in list(self._held):
            self.leave(part)

    def forget_all(self) -> None:
        """Write for none any more."""
        self._held.clear()


def part_alias_of(collection: str, epoch: int, part: str, token: str) -> str:
    """One name of that part. All are of one length, and none is the beginning of another (`lease.alias_of`)."""
    which, of_part = (hashlib.sha256(each.encode()).hexdigest()[:_LETTERS] for each in (collection, part))
    return f"{PARTS}{which}_{epoch:0{EPOCH_DIGITS}d}_{of_part}{token}"


def _part_in(alias: str) -> str:
    """Which part such a name is of; empty for any other name."""
    return alias[-2 * _LETTERS : -_LETTERS] if alias.startswith(PARTS) and epoch_of(alias) is not None else ""
