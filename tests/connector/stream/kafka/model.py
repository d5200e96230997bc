"""What a topic comes to, and what an index that follows it must never show: the judgement of a story."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bartizan_connector.store.backend import Store
from bartizan_connector.store.collection import Document, Head
from tests.connector.stream.kafka.mortals import ENCODER

_LOOKS = 20
Place = tuple[int, int]
"""Partition and offset."""


@dataclass
class Seen:
    """What an observer found, in the order of finding."""

    ids: Sequence[str]
    heads: list[Mapping[str, Head]] = field(default_factory=list)
    rows: list[Mapping[str, str]] = field(default_factory=list)
    """Read after the heads of the same number."""
    blinks: int = 0
    """How often a look had to be taken again."""

    def look(self, store: Store) -> None:
        """Once more. A Milvus of 2.3 may, when it is read by several at once, show what was just replaced as it was or
        as gone, for a moment (docs/decisions/029): what went back is looked at again, and counts if it stays so."""
        known = self.heads[-1] if self.heads else {}
        for _ in range(_LOOKS):
            heads = store.heads(self.ids)
            if not went_back(known, heads):
                break
            self.blinks += 1
            time.sleep(0.1)
        self.rows.append({id: _text(each) for id, each in store.get(self.ids).items()})
        self.heads.append(heads)


class Model:
    """Of a topic's records, read by another program."""

    def __init__(self, records: Sequence[Any]) -> None:
        self.texts: dict[str, str] = {}
        """What each document must say in the end."""
        self.changes: dict[str, list[tuple[Place, str | None]]] = {}
        """Of each key, in their order."""
        for record in sorted(records, key=lambda record: (record.partition, record.offset)):
            id = record.key.decode()
            text = json.loads(record.value).get("text") if record.value else None
            self.changes.setdefault(id, []).append(((record.partition, record.offset), text))
            if text is None:
                self.texts.pop(id, None)
            else:
                self.texts[id] = text

    def unlike(self, store: Store) -> list[str]:
        """What is not as the topic says, by every way of reading."""
        found = {each.id: each for each in store.scan(vectors=True)}
        wrong = list(self._unlike(found, store.heads(list(self.changes))))
        if (count := store.count()) != len(self.texts):
            wrong.append(f"{count} rows of {len(self.texts)} documents")
        hits = store.search("dense", ENCODER.encode(["anything"], "query"), 1000)[0]
        if sorted(hit.id for hit in hits) != sorted(self.texts):
            wrong.append(f"a search finds {sorted(hit.id for hit in hits)}")
        return wrong

    def _unlike(self, found: Mapping[str, Document], heads: Mapping[str, Head]) -> Iterator[str]:
        for id in sorted({*found, *self.changes}):
            there, due, head = found.get(id), self.texts.get(id), heads.get(id)
            text = " and ".join(str(row.fields["text"]) for row in there.rows) if there else None
            last = self.changes[id][-1][0] if id in self.changes else None
            place = (_partition(head), head.offset) if head else None
            if text != due or place != last or (head is not None and head.deleted != (due is None)):
                yield f"{id} is {text!r} and not {due!r}: {head}, changed by {self.changes.get(id, [])[-4:]}"
            elif there is not None:
                (vector,) = ENCODER.encode([str(due)], "document")
                if not np.allclose(there.rows[0].vectors["dense"].value, vector.value, atol=1e-6):
                    yield f"{id} has another's vector"

    def judge_order(self, seen: Seen, *, by_rows: bool) -> None:
        """Heads never go back; and once a change was complete, no row of an earlier one is seen again."""
        places = {id: [place for place, _ in changes] for id, changes in self.changes.items()}
        numbers = {(id, text): i for id, changes in self.changes.items() for i, (_, text) in enumerate(changes)}
        newest: Mapping[str, Head] = {}
        for heads, rows in zip(seen.heads, seen.rows, strict=True):
            assert not (back := went_back(newest, heads)), f"went back: {[(newest[id], heads.get(id)) for id in back]}"
            newest = heads
            for id, text in rows.items() if by_rows else ():
                head = newest.get(id)
                if head is None or not text[-1].isdigit() or not (head.hash or head.deleted):
                    continue  # nothing of it was complete, or its text says not which change it is
                complete = places[id].index((_partition(head), head.offset))
                assert numbers[id, text] >= complete, f"{id}: {text!r} is older than {head}, which was complete"


def went_back(known: Mapping[str, Head], heads: Mapping[str, Head]) -> list[str]:
    """The ids whose heads are older than they were, or gone."""
    return [
        id
        for id, before in known.items()
        if (now := heads.get(id)) is None or (now.version, now.offset) < (before.version, before.offset)
    ]


def _partition(head: Head) -> int:
    return int(head.origin.partition("#")[0].rpartition("/")[2])


def _text(document: Document) -> str:
    assert len(document.rows) == 1, "a document of one chunk has several"
    return str(document.rows[0].fields["text"])
