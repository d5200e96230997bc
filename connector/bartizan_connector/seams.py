"""Two of the three seams: what stores and searches, what documents come from."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from bartizan_connector.space.vectors import Vectors
from bartizan_connector.store.collection import Collection, Head, Hit, Row
from bartizan_connector.store.filters import Filter


class SearchBackend(Protocol):
    """Stores rows and finds the nearest. For every leg a bigger score is better, and ties are in order of (id, chunk);
    the conformance suite (`bartizan_connector.testing`) holds every back-end to it."""

    def ensure(self, collection: Collection, *, create: bool = True) -> None:
        """Check that the stored collection has this contract; must be called first. A leg of another space raises
        SpaceMismatch, another field or leg Stop; nothing is changed then. A missing collection is created, or, with
        `create=False` (who only reads must not make an empty one), refused as WrongUse."""
        ...

    def heads(self, ids: Sequence[str]) -> Mapping[str, Head]:
        """What is known of these ids, as of now (own writes included); unknown ids are left out."""
        ...

    def upsert(self, rows: Sequence[Row]) -> None:
        """Replace each id that occurs by exactly the rows given for it, and remember its version and hash.
        A row given twice (same id and chunk): the last wins. Visible to `heads` at once, to `search` at the
        back-end's consistency. An id that is rejected keeps the rows it had."""
        ...

    def touch(self, heads: Sequence[Head]) -> None:
        """Remember these heads exactly as given; the rows stay. A newer version with the same hash says that the
        content did not change; an empty hash says that the rows are about to change, so that after a crash halfway
        nothing is taken for unchanged."""
        ...

    def delete(self, heads: Sequence[Head]) -> None:
        """Remove these ids' rows and remember the version at which each was deleted. Missing ids are remembered too."""
        ...

    def search(
        self,
        leg: str,
        vectors: Vectors,
        k: int,
        filter: Filter | None = None,
        *,
        timeout: float | None = None,
    ) -> list[list[Hit]]:
        """The k best rows for each vector. Vectors of another space raise SpaceMismatch before anything is searched.
        A sparse vector finds only rows that share a term with it."""
        ...

    def close(self) -> None:
        """Make what was written durable and fast to search, then let go. Closing twice is fine."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One raw change as the source holds it. A missing value deletes the key."""

    position: str
    """Where it came from, for people: `corpus.jsonl:17`, `docs[3]@1204`."""
    value: bytes | None
    key: str | None = None
    version: int
    """Grows with every change of the same id, unless the record carries a version of its own."""
    fault: str | None = None
    """Why the source itself cannot deliver the change (a line too long to read); `value` is its beginning then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Messages that are written and committed together."""

    messages: tuple[Message, ...]


class Source(Protocol):
    """Where changes come from, at least once, in order of each key."""

    def batches(self) -> Iterator[Batch]:
        """What is not committed yet, oldest first; ends when the source does."""
        ...

    def commit(self, batch: Batch) -> None:
        """Everything in the batch is durable elsewhere; batches are committed in the order they were given."""
        ...

    def dead_letter(self, message: Message, reason: str) -> None:
        """Set a message aside that can never be written, with the reason; durable by the batch's commit."""
        ...

    def close(self) -> None: ...
