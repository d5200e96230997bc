"""Stored vectors held against what the towers give for the stored texts: a sample, or all."""

from collections.abc import Mapping, Sequence

import numpy as np

from bartizan_connector.doctor.verify.documents import put_of
from bartizan_connector.space.vectors import SparseVector, Vector
from bartizan_connector.store.audit import Standing
from bartizan_connector.store.collection import Row
from bartizan_connector.stream.records import Put
from bartizan_connector.stream.towers import Encoded, Towers

LEAST_COSINE = 0.9
"""Two precisions of one tower, or two engines, are much nearer; two towers are not near at all."""


class Comparison:
    """Encodes again what is asked for."""

    def __init__(self, towers: Towers) -> None:
        self._towers = towers

    def foreign(self, standings: Sequence[Standing]) -> dict[str, str]:
        """Id → how far off, of those whose vectors are not their texts'."""
        rows = {standing.id: standing.rows[0] for standing in standings}
        encoded = self.encoded(list(rows.values()))
        return {
            id: told for id, row in rows.items() if id in encoded and (told := _far(row.vectors, encoded[id].vectors))
        }

    def encoded(self, rows: Sequence[Row]) -> dict[str, Encoded]:
        """Id → what the towers give; none for what stands in several rows, or what a tower refuses."""
        puts: dict[str, Put] = {row.id: put for row in rows if (put := put_of(row))}
        found: dict[str, Encoded] = {}
        self._towers.encode(list(puts.values()), found, {})
        return {id: found[put.hash] for id, put in puts.items() if put.hash in found}


def _far(stored: Mapping[str, Vector], given: Mapping[str, Vector]) -> str:
    for leg, vector in given.items():
        if leg in stored and (near := _cosine(stored[leg].value, vector.value)) < LEAST_COSINE:
            return f"the {leg} leg: cosine {near:.2f}"
    return ""


def _cosine(one: object, other: object) -> float:
    if isinstance(one, SparseVector) and isinstance(other, SparseVector):
        shared, mine, theirs = np.intersect1d(one.indices, other.indices, return_indices=True)
        product = float(one.weights[mine] @ other.weights[theirs]) if shared.size else 0.0
        norms = float(np.linalg.norm(one.weights) * np.linalg.norm(other.weights))
        return product / norms if norms else float(not one.indices.size and not other.indices.size)
    assert isinstance(one, np.ndarray)
    assert isinstance(other, np.ndarray)
    norms = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / norms if norms else 0.0
