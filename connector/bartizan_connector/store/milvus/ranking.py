"""The k best rows in a fixed order, out of an index that cuts equal scores anywhere."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from bartizan_connector.base.errors import Retry
from bartizan_connector.store.checks import MAX_RESULTS
from bartizan_connector.store.collection import Collection, Hit, Leg
from bartizan_connector.store.milvus.connection import Connection
from bartizan_connector.store.milvus.failures import calling
from bartizan_connector.store.milvus.ledger import in_portions
from bartizan_connector.store.milvus.schema import search_parameters

_ROWS_AT_ONCE = 20_000
"""Rows of one answer, which carry their texts; a server refuses to send more than some hundred megabytes."""


class Search:
    """One search of one leg: where, with which filter, until when."""

    def __init__(
        self, connection: Connection, collection: Collection, leg: Leg, index_type: str, consistency: str, filter: str
    ) -> None:
        self._connection = connection
        self._collection = collection
        self._leg = leg
        self._index_type = index_type
        self._consistency = consistency
        self._filter = filter

    def run(self, queries: Sequence[Any], k: int, timeout: float) -> list[list[Hit]]:
        """The k best for each query, ties in order of (id, chunk)."""
        return self._best(queries, k, min(k + 1, MAX_RESULTS), time.monotonic() + timeout)

    def _best(self, queries: Sequence[Any], k: int, limit: int, deadline: float) -> list[list[Hit]]:
        """Asks for `limit` > k rows; a query whose k-th score reaches to the end of them is asked again, for more."""
        found = self._ask(queries, limit, deadline)
        cut = [i for i, hits in enumerate(found) if len(hits) == limit > k and hits[k - 1].score == hits[-1].score]
        if cut and limit < MAX_RESULTS:
            longer = self._best([queries[i] for i in cut], k, min(4 * limit, MAX_RESULTS), deadline)
            for i, hits in zip(cut, longer, strict=True):
                found[i] = hits
        return [hits[:k] for hits in found]

    def _ask(self, queries: Sequence[Any], limit: int, deadline: float) -> list[list[Hit]]:
        answers: list[list[Hit]] = []
        for some in in_portions(queries, max(1, _ROWS_AT_ONCE // limit)):
            left = deadline - time.monotonic()
            if left <= 0:
                raise Retry(f"Milvus at {self._connection.place} had not answered by the deadline", after=0.0)
            with calling(self._connection.place):
                found = self._connection.client.search(
                    self._collection.name,
                    data=list(some),
                    anns_field=self._leg.name,
                    limit=limit,
                    filter=self._filter,
                    output_fields=["id", "chunk", *(spec.name for spec in self._collection.fields)],
                    search_params=search_parameters(self._index_type, limit),
                    consistency_level=self._consistency,
                    timeout=left,
                )
            answers.extend(sorted(map(self._hit, hits), key=_place) for hits in found)
        return answers

    def _hit(self, found: Mapping[str, Any]) -> Hit:
        entity = found["entity"]
        return Hit(
            id=entity["id"],
            chunk=entity["chunk"],
            score=found["distance"],
            fields={spec.name: entity[spec.name] for spec in self._collection.fields},
        )


def _place(hit: Hit) -> tuple[float, str, int]:
    return -hit.score, hit.id, hit.chunk
