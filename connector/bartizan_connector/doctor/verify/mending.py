"""What can be mended: each by a write of the kind that ingest makes, so a kill in between leaves nothing worse."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from bartizan_connector.doctor.verify.damage import Kind, Tally
from bartizan_connector.doctor.verify.documents import Found
from bartizan_connector.doctor.verify.vectors import Comparison
from bartizan_connector.store.audit import Audit, Stray
from bartizan_connector.store.backend import Store
from bartizan_connector.store.collection import Row
from bartizan_connector.stream.fence import opened
from bartizan_connector.stream.patience import Waiting
from bartizan_connector.stream.words import Words, follow

REOPENED: tuple[Kind, ...] = ("missing row", "stale row", "wrong head")
"""The content that the head speaks of is lost here: the mark of a write that never ended lets it in again."""
ENCODED: tuple[Kind, ...] = ("broken vector", "foreign vector")


class Mending:
    """Mends a page of what was found; the store's lease is held."""

    def __init__(
        self, store: Store, audit: Audit, words: Words | None, towers: Callable[[], Comparison], waiting: Waiting
    ) -> None:
        self._store = store
        self._audit = audit
        self._words = words
        self._towers = towers
        self._waiting = waiting

    def documents(self, found: Sequence[Found], tally: Tally) -> None:
        """In this order: a document that is marked for the next ingest is not encoded again here."""
        reopened = [each for each in found if any(kind in each.kinds for kind in REOPENED)]
        marks = [opened(each.standing.head) for each in reopened if each.standing.head]
        if marks:
            self._store.touch(marks)
            for each in reopened:
                tally.pending.update(kind for kind in REOPENED if kind in each.kinds)
        self._encode([each for each in found if each not in reopened and any(k in each.kinds for k in ENCODED)], tally)
        self._take_back([each for each in found if "half-written" in each.kinds and each.standing.head is None], tally)
        self._bring_up([each for each in found if "words behind" in each.kinds and each not in reopened], tally)

    def strays(self, strays: Sequence[Stray], tally: Tally) -> None:
        self._audit.remove(strays)
        tally.mended["extra row"] += len(strays)

    def words(self, ids: Sequence[str], tally: Tally) -> None:
        """The words follow what is stored of these ids."""
        assert self._words is not None
        follow(self._words, self._store, ids, self._waiting)
        tally.mended["words behind"] += len(ids)

    def _encode(self, found: Sequence[Found], tally: Tally) -> None:
        if not found:
            return
        encoded = self._towers().encoded([each.standing for each in found])
        fresh: list[Row] = []
        for each in found:
            if each.standing.id in encoded:
                assert each.standing.head is not None
                head = each.standing.head
                fresh += [
                    replace(row, vectors=chunk.vectors, origin=head.origin, offset=head.offset)
                    for row, chunk in zip(each.standing.rows, encoded[each.standing.id], strict=True)
                ]
                tally.mended.update(kind for kind in ENCODED if kind in each.kinds)
        if fresh:
            self._store.upsert(fresh)

    def _take_back(self, found: Sequence[Found], tally: Tally) -> None:
        """Rows of which nothing says what they are; a source that has the document writes it again."""
        self._audit.remove([Stray(id=row.id, chunk=row.chunk) for each in found for row in each.standing.rows])
        tally.mended["half-written"] += len(found)

    def _bring_up(self, found: Sequence[Found], tally: Tally) -> None:
        own = [each for each in found if not each.standing.worded]
        again = [
            replace(row, origin=each.standing.head.origin, offset=each.standing.head.offset)
            for each in own
            if each.standing.head
            for row in each.standing.rows
        ]
        if again:
            self._store.upsert(again)
            tally.mended["words behind"] += len(own)
        if self._words is not None and (ids := [each.standing.id for each in found if each.standing.worded]):
            self.words(ids, tally)
