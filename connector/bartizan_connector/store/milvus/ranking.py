"""The k best rows in a fixed order, out of an index that cuts equal scores anywhere."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from bartizan_connector.base.errors import Retry, Stop, WrongUse
from bartizan_connector.store.checks import MAX_RESULTS
from bartizan_connector.store.collection import Collection, Hit, Leg
from bartizan_connector.store.milvus.connection import Connection
from bartizan_connector.store.milvus.failures import calling, is_oversize
from bartizan_connector.store.milvus.ledger import in_portions
from bartizan_connector.store.milvus.preparation import Prepared
from bartizan_connector.store.milvus.reading import Reader
from bartizan_connector.store.milvus.schema import primary_key

_ROWS_AT_ONCE = 20_000
"""Rows of one answer, which carry their texts."""


class Search:
    """One search of one leg: where, with which filter, until when."""

    def __init__(self, connection: Connection, prepared: Prepared, leg: Leg, consistency: str, filter: str) -> None:
        self._connection = connection
        self._physical = prepared.found.physical
        self._collection: Collection = prepared.found.contract
        self._indexes = prepared.indexes
        self._reader = Reader(connection, prepared)
        self._leg = leg
        self._consistency = consistency
        self._filter = filter
        self._most = MAX_RESULTS

    def run(self, queries: Sequence[Any], k: int, deadline: float) -> list[list[Hit]]:
        """The k best for each query, ties in order of (id, chunk)."""
        self._most = min(MAX_RESULTS, self._indexes.most_results(self._leg))
        if k > self._most:
            kind = self._indexes.standing(self._leg.name).name
            raise WrongUse(
                f"k = {k} is out of range; the {kind} index of the {self._leg.name} leg gives at most {self._most} rows"
            )
        return self._best(queries, k, min(k + 1, self._most), deadline)

    def _best(self, queries: Sequence[Any], k: int, limit: int, deadline: float) -> list[list[Hit]]:
        """Asks for `limit` > k rows; a query whose k-th score reaches to the end of them is asked again, for more."""
        found = self._ask(queries, limit, deadline)
        cut = [i for i, hits in enumerate(found) if len(hits) == limit > k and hits[k - 1].score == hits[-1].score]
        if cut and limit < self._most:
            longer = self._best([queries[i] for i in cut], k, min(4 * limit, self._most), deadline)
            for i, hits in zip(cut, longer, strict=True):
                found[i] = hits
        return [hits[:k] for hits in found]

    def _ask(self, queries: Sequence[Any], limit: int, deadline: float) -> list[list[Hit]]:
        answers: list[list[Hit]] = []
        for some in in_portions(queries, max(1, _ROWS_AT_ONCE // limit)):
            answers.extend(self._answers(some, limit, deadline))
        return [sorted(hits, key=_place) for hits in answers]

    def _answers(self, queries: Sequence[Any], limit: int, deadline: float) -> list[list[Hit]]:
        """Where they are too long for one message, half of the queries at a time; where one query's is, its hits first
        and their fields, which have the length, after that."""
        fields = [spec.name for spec in self._collection.fields]
        try:
            return self._found(queries, limit, deadline, fields)
        except Stop as error:
            if not is_oversize(error) or not fields:
                raise
        if len(queries) == 1:
            (bare,) = self._found(queries, limit, deadline, [])
            keys = [primary_key(hit.id, hit.chunk) for hit in bare]
            stored = self._reader.fields_of(keys, fields, self._left(deadline))
            pairs = ((hit, stored.get(key)) for key, hit in zip(keys, bare, strict=True))
            return [[replace(hit, fields={name: row[name] for name in fields}) for hit, row in pairs if row]]
        middle = len(queries) // 2
        first = self._answers(queries[:middle], limit, deadline)
        return first + self._answers(queries[middle:], limit, deadline)

    def _found(self, queries: Sequence[Any], limit: int, deadline: float, fields: Sequence[str]) -> list[list[Hit]]:
        left = self._left(deadline)
        with calling(self._connection.place):
            found = self._connection.client.search(
                self._physical,
                data=list(queries),
                anns_field=self._leg.name,
                limit=limit,
                filter=self._filter,
                output_fields=["id", "chunk", *fields],
                search_params=self._indexes.search_parameters(self._leg, limit),
                consistency_level=self._consistency,
                timeout=left,
            )
        return [[_hit(hit, fields) for hit in hits] for hits in found]

    def _left(self, deadline: float) -> float:
        left = deadline - time.monotonic()
        if left <= 0:
            raise Retry(f"Milvus at {self._connection.place} had not answered by the deadline", after=0.0)
        return left


def _hit(found: Mapping[str, Any], fields: Sequence[str]) -> Hit:
    entity = found["entity"]
    return Hit(
        id=entity["id"],
        chunk=entity["chunk"],
        score=found["distance"],
        fields={name: entity[name] for name in fields},
    )


def _place(hit: Hit) -> tuple[float, str, int]:
    return -hit.score, hit.id, hit.chunk
