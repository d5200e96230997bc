"""The words of a collection: BM25 over postings, from counted terms that the transaction of the rows writes too.

Every figure in a score is counted over the rows that are there, so it depends on what is stored and on nothing else.
"""

import math
import sqlite3
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bartizan_connector.store.collection import Hit
from bartizan_connector.store.embedded.allowed import Passing
from bartizan_connector.store.embedded.layout import Layout
from bartizan_connector.store.embedded.postings import Postings, PostingsView, Segment
from bartizan_connector.store.embedded.rows import hits
from bartizan_connector.store.embedded.stems import asked

_SATURATION = 1.2
_LENGTH = 0.75
"""BM25's k1 and b, at the values that everybody uses."""


@dataclass(frozen=True, slots=True, eq=False)
class Lengths:
    """How many rows there are, and for each row what its length adds to BM25's denominator."""

    view: PostingsView
    rows: int
    norms: tuple[npt.NDArray[np.float64], ...]


class WordIndex(Postings):
    """Follows the truth; `view` is called with the owner's lock held, `search` without."""

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout, layout.words)
        self._lengths: Lengths | None = None

    def search(
        self, connection: sqlite3.Connection, view: PostingsView, text: str, k: int, allowed: Passing | None
    ) -> list[Hit]:
        """The k best rows, in the moment of the connection, which is the view's; only rows that share a word."""
        query = asked(text)
        lengths = self._measured(view)
        spans = [each.spans(query.indices) for each in view.segments]
        counts = np.zeros(len(query.indices), np.int64)
        for each, parts in zip(view.segments, spans, strict=True):
            for which, part in parts:
                counts[which] += _alive(each, part)
        scored: dict[int, float] = {}
        for each, parts, norms in zip(view.segments, spans, lengths.norms, strict=True):
            added = []
            for which, part in parts:
                rarity = math.log(1 + (lengths.rows - counts[which] + 0.5) / (counts[which] + 0.5))
                often = each.weights[part].astype(np.float64)
                weight = float(query.weights[which]) * rarity * (_SATURATION + 1)
                added.append((part, weight * often / (often + norms[each.owners[part]])))
            rows, scores = each.best(added, k, allowed)
            scored.update(zip(rows.tolist(), scores.tolist(), strict=True))
        return hits(connection, self._layout, scored, k)

    def _measured(self, view: PostingsView) -> Lengths:
        known = self._lengths
        if known is not None and known.view is view:
            return known
        alive = [each.sums if each.alive is None else each.sums[each.alive] for each in view.segments]
        rows = sum(map(len, alive))
        mean = float(sum(each.sum(dtype=np.float64) for each in alive)) / max(rows, 1) or 1.0
        norms = tuple(
            _SATURATION * (1 - _LENGTH + _LENGTH * each.sums.astype(np.float64) / mean) for each in view.segments
        )
        self._lengths = known = Lengths(view, rows, norms)
        return known


def _alive(segment: Segment, part: slice) -> int:
    if segment.alive is None:
        return int(part.stop - part.start)
    return int(np.count_nonzero(segment.alive[segment.owners[part]]))
