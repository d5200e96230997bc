"""Triples as three columns of numbers: a query, a document that answers it, one that does not or does so less."""

import hashlib
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from bartizan_connector.base.errors import WrongUse
from bartizan_training.data.held_out import HeldOut
from bartizan_training.data.ragged import Indices
from bartizan_training.data.scores import Scores


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Triples:
    """Rows of three numbers. Equal texts are one: a number stands for a text, whatever ids it goes by."""

    queries: tuple[str, ...]
    documents: tuple[str, ...]
    query: Indices
    positive: Indices
    negative: Indices
    scores: tuple[Scores, Scores] | None
    """A teacher's, for the positive and for the negative of each row; none: the data has none."""
    left_out: int
    """Rows of queries that are for testing."""

    def __len__(self) -> int:
        return len(self.query)

    @property
    def fingerprint(self) -> str:
        """Identity of the examples: a resumed run must see the same."""
        digest = hashlib.sha256()
        for text in (*self.queries, "", *self.documents):
            digest.update(text.encode() + b"\0")
        for column in (self.query, self.positive, self.negative, *(self.scores or ())):
            digest.update(np.ascontiguousarray(column).view(np.uint8).data)
        return digest.hexdigest()


class Rows:
    """Collects rows, each different text once."""

    def __init__(self, held_out: HeldOut, origin: str) -> None:
        self._held_out, self._origin = held_out, origin
        self._queries: dict[str, int] = {}
        self._documents: dict[str, int] = {}
        self._columns = (array("q"), array("q"), array("q"))
        self._scores = (array("f"), array("f"))
        self._left_out = 0

    def keeps(self, text: str, id: str | None) -> bool:
        """Whether the query may be trained on; one that may not is counted."""
        held_out = self._held_out.holds(text, id)
        self._left_out += held_out
        return not held_out

    def add(self, query: str, positive: str, negative: str, scores: tuple[float, float] | None = None) -> None:
        """One row; a teacher's scores of both documents, when it has them, as all rows then do."""
        numbers = (
            self._queries.setdefault(query, len(self._queries)),
            self._documents.setdefault(positive, len(self._documents)),
            self._documents.setdefault(negative, len(self._documents)),
        )
        for column, number in zip(self._columns, numbers, strict=True):
            column.append(number)
        if scores:
            self._scores[0].append(scores[0])
            self._scores[1].append(scores[1])

    def made(self) -> Triples:
        """What was collected."""
        if not self._columns[0]:
            out = f"; {self._left_out} were left out: their queries are for testing" if self._left_out else ""
            raise WrongUse(f"{self._origin} has no triple to learn from{out}")
        query, positive, negative = (np.array(column, dtype=np.int64) for column in self._columns)
        better, worse = (np.array(column, dtype=np.float32) for column in self._scores)
        return Triples(
            queries=tuple(self._queries),
            documents=tuple(self._documents),
            query=query,
            positive=positive,
            negative=negative,
            scores=(better, worse) if len(better) else None,
            left_out=self._left_out,
        )


def enough(
    hard: Iterable[str], good: set[str], every: Sequence[str], count: int, seed: Sequence[int]
) -> tuple[str, ...]:
    """The first hard ones that are no positives, then random documents, each once; fewer when there are no more."""
    kept = dict.fromkeys([text for text in dict.fromkeys(hard) if text not in good][:count])
    if len(kept) < count:
        random = np.random.default_rng(seed)
        tries = min(len(every), count + len(kept) + len(good))
        for place in random.choice(len(every), size=tries, replace=False):
            if len(kept) < count and every[place] not in good:
                kept.setdefault(every[place])
    return tuple(kept)
