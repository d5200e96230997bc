"""The sparse index of one leg: inner products by postings, summed exactly in the order of the terms."""

import sqlite3

import numpy as np

from bartizan_connector.space.vectors import SparseVector
from bartizan_connector.store.collection import Hit, Leg
from bartizan_connector.store.embedded.allowed import Passing
from bartizan_connector.store.embedded.deadline import Deadline
from bartizan_connector.store.embedded.layout import Layout
from bartizan_connector.store.embedded.postings import Postings, PostingsView
from bartizan_connector.store.embedded.rows import hits


class SparseIndex(Postings):
    """Follows the truth; `view` is called with the owner's lock held, `search` without."""

    def __init__(self, layout: Layout, leg: Leg) -> None:
        super().__init__(layout, layout.vectors(leg.name))

    def search(
        self,
        connection: sqlite3.Connection,
        view: PostingsView,
        queries: tuple[SparseVector, ...],
        k: int,
        allowed: Passing | None,
        deadline: Deadline,
    ) -> list[list[Hit]]:
        """The k best rows for each query, in the moment of the connection, which is the view's."""
        answers = []
        for query in queries:
            deadline.check()
            scored: dict[int, float] = {}
            for each in view.segments:
                parts = [
                    (part, each.weights[part].astype(np.float64) * float(query.weights[which]))
                    for which, part in each.spans(query.indices)
                ]
                rows, scores = each.best(parts, k, allowed)
                scored.update(zip(rows.tolist(), scores.tolist(), strict=True))
            answers.append(hits(connection, self._layout, scored, k))
        return answers
