"""What stands in a stage: only what the source holds now counts, and what was encoded before is not encoded again.

What was read while the source was another, or nobody knows what it was, is marked as left. The pipeline is told of it
as of something older than any change: a document that comes with the same content is stored without being encoded, one
that comes with another is written, and neither is ever stale. What does not come again is taken away at the end, so the
stage holds then what it would hold had it been empty.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from bartizan_connector.store.collection import Head, Row
from bartizan_connector.store.embedded.store import EmbeddedStore

log = logging.getLogger(__name__)
_LEFT = "bartizan:left"
"""The origin of what an earlier run has left; no source has it."""
_OLDEST = -1
_PAGES = 40
"""That are marked in one transaction."""


class Staged:
    """The store of a stage, which rejects what the store that it is for would reject."""

    def __init__(self, store: EmbeddedStore, refuse: Callable[[Sequence[str]], None]) -> None:
        self.collection = store.collection
        self._store = store
        self._refuse = refuse

    @property
    def writes_whole(self) -> bool:
        return self._store.writes_whole

    def renew(self) -> float:
        return self._store.renew()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def begin_anew(self) -> None:
        """What is there by now counts only where it comes again."""
        heads: list[Head] = []
        for number, page in enumerate(self._store.audit().heads(), 1):
            heads += [replace(head, origin=_LEFT, offset=0) for head in page if head.origin != _LEFT]
            if number % _PAGES == 0:
                self._store.touch(heads)
                heads.clear()
        self._store.touch(heads)

    def heads(self, ids: Sequence[str]) -> Mapping[str, Head]:
        return {id: shown for id, head in self._store.heads(ids).items() if (shown := _shown(head))}

    def upsert(self, rows: Sequence[Row]) -> None:
        self._refuse([row.id for row in rows])
        self._store.upsert(rows)

    def delete(self, heads: Sequence[Head]) -> None:
        self._refuse([head.id for head in heads])
        self._store.delete(heads)

    @property
    def holds_any(self) -> bool:
        """Whether anything is there, of whatever run."""
        return any(self._store.audit().heads())

    def told(self, *, deleted: bool) -> Iterator[list[Head]]:
        """The heads that count: of documents, or of what is deleted."""
        for page in self._store.audit().heads():
            if heads := [head for head in page if head.origin != _LEFT and head.deleted is deleted]:
                yield heads

    def sweep(self) -> None:
        """Take the documents away that did not come again."""
        count = 0
        for page in self._store.audit().heads():
            if left := [head for head in page if head.origin == _LEFT and not head.deleted]:
                self._store.delete(left)
                count += len(left)
        if count:
            log.info("%d documents that an earlier run encoded are not in the source any more, and left out", count)


def _shown(head: Head) -> Head | None:
    """As the pipeline is to know it."""
    if head.origin != _LEFT:
        return head
    return None if head.deleted else replace(head, version=_OLDEST, origin="")
