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


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What there was at one time."""

    life: int
    """Of the server, from 0."""
    heads: Mapping[str, Head]
    rows: Mapping[str, str]
    """Texts, read after the heads."""


@dataclass
class Seen:
    """What an observer found, in the order of finding."""

    ids: Sequence[str]
    looks: list[Look] = field(default_factory=list)
    floors: list[Mapping[int, int]] = field(default_factory=lambda: [{}])
    """Of each life of the server: partition → up to where the group had ever committed before it."""
    blinks: int = 0
    """How often a look had to be taken again."""
    _committed: dict[int, int] = field(default_factory=dict)

    def committed(self, places: Mapping[int, int]) -> None:
        """The group has got so far; that it is rewound takes nothing from it."""
        self._committed |= {number: max(place, self._committed.get(number, 0)) for number, place in places.items()}

    def lives_again(self) -> None:
        """The server was killed, and is not back yet."""
        self.floors.append(dict(self._committed))

    def look(self, store: Store) -> None:
        """Once more. A Milvus of 2.3 may, when it is read by several at once, show what was just replaced as it was or
        as gone, for a moment (docs/decisions/029): what went back is looked at again, and counts if it stays so. A look
        that was begun in one life of the server and ended in another is none."""
        life, known = len(self.floors) - 1, self.looks[-1].heads if self.looks else {}
        for _ in range(_LOOKS):
            heads = store.heads(self.ids)
            if not went_back(known, heads):
                break
            self.blinks += 1
            time.sleep(0.1)
        rows = {id: _text(each) for id, each in store.get(self.ids).items()}
        if life == len(self.floors) - 1:
            self.looks.append(Look(life=life, heads=heads, rows=rows))


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

    def judge_order(self, seen: Seen, *, by_rows: bool) -> int:
        """Heads never go back; and once a change was complete, no row of an earlier one is seen again. A server that
        was killed may forget what was not sealed: so the first look after a kill may show older heads, but none older
        than what had been committed. Says in how many lives of the server that happened."""
        places = {id: [place for place, _ in changes] for id, changes in self.changes.items()}
        numbers = {(id, text): i for id, changes in self.changes.items() for i, (_, text) in enumerate(changes)}
        last, forgot = Look(life=0, heads={}, rows={}), 0
        for look in seen.looks:
            back = went_back(last.heads, look.heads)
            assert not back or look.life > last.life, (
                f"went back: {[(last.heads[id], look.heads.get(id)) for id in back]}"
            )
            lost = self._behind(seen.floors[look.life], look.heads)
            assert not lost, f"was committed, and forgotten: {lost}"
            forgot += bool(back)
            last = look
            for id, text in look.rows.items() if by_rows else ():
                head = look.heads.get(id)
                if head is None or not text[-1].isdigit() or not (head.hash or head.deleted):
                    continue  # nothing of it was complete, or its text says not which change it is
                complete = places[id].index((_partition(head), head.offset))
                assert numbers[id, text] >= complete, f"{id}: {text!r} is older than {head}, which was complete"
        return forgot

    def _behind(self, floor: Mapping[int, int], heads: Mapping[str, Head]) -> list[str]:
        """The heads that are older than the last change below the floor, or gone."""
        return [
            f"{id} at {heads.get(id)}, and not {max(due)}"
            for id, changes in self.changes.items()
            if (due := [offset for (partition, offset), _ in changes if offset < floor.get(partition, 0)])
            and ((head := heads.get(id)) is None or head.offset < max(due))
        ]


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
