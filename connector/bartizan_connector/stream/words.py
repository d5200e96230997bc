"""The words that follow the rows: what the pipeline asks of a word index, and how it comes to agree with the store."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from bartizan_connector.store.backend import Store
from bartizan_connector.store.collection import Row
from bartizan_connector.stream.patience import Waiting

_AT_ONCE = 256


class Words(Protocol):
    """What the pipeline asks of the word index."""

    def hashes(self, ids: Sequence[str]) -> Mapping[str, str]:
        """The hash of each of these ids that is indexed."""
        ...

    def filled_from(self) -> str | None:
        """The physical collection whose words these are; None where nobody has said so yet."""
        ...

    def fill_from(self, physical: str) -> None:
        """These are that collection's words from now on."""
        ...

    def pages(self) -> Iterator[Mapping[str, str]]:
        """Id → hash of everything that is indexed, as it was at the beginning, in bounded memory."""
        ...

    def announced(self) -> Sequence[str]:
        """Which ids were announced and not settled: the store may have changed without the words."""
        ...

    def announce(self, ids: Sequence[str]) -> None:
        """The rows of these ids are about to change; remembered, durably, until `settle`."""
        ...

    def settle(self) -> None:
        """The words have followed the store in all that was announced."""
        ...

    def upsert(self, rows: Sequence[Row]) -> None: ...

    def delete(self, ids: Sequence[str]) -> None: ...


def agree(words: Words, store: Store, waiting: Waiting) -> int:
    """Make the words hold what the store holds of the ids that were announced and not settled, and say of how many:
    what whoever was killed between rows and words left apart is mended here, whether its changes come again or not.
    Words of a collection that stood here before are compared whole."""
    former = waiting(words.filled_from)
    if former != store.physical_name:
        if former is not None:
            for page in words.pages():
                compare(words, store, page, waiting)
        waiting(lambda: words.fill_from(store.physical_name))
    ids = waiting(words.announced)
    for start in range(0, len(ids), _AT_ONCE):
        follow(words, store, ids[start : start + _AT_ONCE], waiting)
    if ids:
        waiting(words.settle)
    return len(ids)


def compare(words: Words, store: Store, held: Mapping[str, str], waiting: Waiting) -> list[str]:
    """Make the words of these ids, whose hashes are given, follow the store where they differ; the ids that did."""
    differing = differing_from(store, held, waiting)
    if differing:
        follow(words, store, differing, waiting)
    return differing


def differing_from(store: Store, held: Mapping[str, str], waiting: Waiting) -> list[str]:
    """The ids that are not stored with the hash that the words hold."""
    heads = waiting(lambda: store.heads(list(held)))
    stored = {id: head.hash for id, head in heads.items() if not head.deleted}
    return [id for id, hash in held.items() if stored.get(id) != hash]


def follow(words: Words, store: Store, ids: Sequence[str], waiting: Waiting) -> None:
    """The words of these ids become those of the rows that are stored."""
    stored = waiting(lambda: store.get(ids))
    rows = [row for document in stored.values() for row in document.rows]
    gone = [id for id in ids if id not in stored]
    if rows:
        waiting(lambda: words.upsert(rows))
    if gone:
        waiting(lambda: words.delete(gone))
