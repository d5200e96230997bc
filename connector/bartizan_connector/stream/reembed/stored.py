"""A source of what one collection has and another lacks: documents and deletions, each at the place where it stands.

They go the way of every change, so the same fence decides: what the other collection has got from elsewhere and is
newer stays, and a replay of something old finds the deletions too.
"""

import json
from collections.abc import Iterator, Mapping, Sequence

from bartizan_connector.store.backend import Store
from bartizan_connector.store.collection import Document, Head, Scalar
from bartizan_connector.stream.fence import is_torn
from bartizan_connector.stream.reembed.heads import heads_of, relation
from bartizan_connector.stream.source import Batch, Message

_BATCH = 256
_PAGES_AT_ONCE = 16
"""Pages of heads that one poll looks through; then whoever polls may do something else."""


class StoredSource:
    """One pass over everything that `source` knows. What `refused` names is left out while it is the same."""

    def __init__(self, source: Store, target: Store, refused: dict[str, Head]) -> None:
        self._source = source
        self._target = target
        self._refused = refused
        self._pages: Iterator[list[Head]] = heads_of(source)
        self._waiting: list[Head] = []
        self._looked_through = False
        self._given: dict[str, Head] = {}
        """Of what is in flight."""
        self.given = 0
        """Changes so far."""
        self.reasons: dict[str, str] = {}
        """Why an id cannot be written."""
        self.ended = False

    @property
    def dead_letters(self) -> str:
        return "the report: they stay in the collection that is followed"

    def backlog(self) -> int | None:
        return None

    def poll(self, timeout: float) -> Batch | None:
        """The next changes; None where the pages that were looked through hold none."""
        for _ in range(_PAGES_AT_ONCE):
            if len(self._waiting) >= _BATCH:
                break
            page = next(self._pages, None)
            if page is None:
                self._looked_through = True
                break
            self._waiting += self._behind(page)
        some, self._waiting = self._waiting[:_BATCH], self._waiting[_BATCH:]
        self.ended = self._looked_through and not self._waiting
        messages = tuple(self._messages(some)) if some else ()
        self.given += len(messages)
        return Batch(messages=messages) if messages else None

    def owns(self, batch: Batch) -> bool:
        return True

    def commit(self, batch: Batch) -> None:
        """Nothing to remember for the next run: the heads say what is done."""
        for message in batch.messages:
            self._given.pop(message.key or "", None)

    def dead_letter(self, message: Message, reason: str) -> None:
        assert message.key is not None
        self.reasons[message.key] = reason
        self._refused[message.key] = self._given[message.key]

    def close(self) -> None:
        """Nothing to let go of."""

    def _behind(self, page: Sequence[Head]) -> list[Head]:
        theirs = self._target.heads([head.id for head in page])
        return [
            head
            for head in page
            if relation(head, theirs.get(head.id)) == "behind" and self._refused.get(head.id) != head
        ]

    def _messages(self, heads: Sequence[Head]) -> Iterator[Message]:
        """The changes. A document that is changed while it is read comes in the next pass."""
        ids = [head.id for head in heads]
        documents = self._source.get([head.id for head in heads if not head.deleted])
        after = self._source.heads(ids)
        for head in heads:
            document = documents.get(head.id)
            if head.deleted and after.get(head.id) == head:
                yield self._message(head, None)
            elif document is not None and document.head == after.get(head.id) and not is_torn(document.head):
                yield self._message(document.head, whole_text(document))

    def _message(self, head: Head, fields: Mapping[str, Scalar] | None) -> Message:
        self._given[head.id] = head
        return Message(
            position=f"stored {head.id}",
            value=None if fields is None else json.dumps({"_id": head.id, **fields}).encode(),
            key=head.id,
            version=head.version,
            origin=head.origin,
            offset=head.offset,
        )


def whole_text(document: Document) -> Mapping[str, Scalar]:
    """The document's fields with its whole title and text, as it was ingested."""
    return document.rows[0].fields
