"""Stored vectors held against what the towers give for the stored texts: a sample, or all."""

from collections.abc import Sequence

import numpy as np

from bartizan_connector.doctor.verify.documents import put_of
from bartizan_connector.space.vectors import SparseVector
from bartizan_connector.store.audit import Standing
from bartizan_connector.store.collection import Row
from bartizan_connector.stream.towers import Chunk, Encoded, Towers

LEAST_COSINE = 0.9
"""Two precisions of one tower, or two engines, are much nearer; two towers are not near at all."""


class Comparison:
    """Encodes again what is asked for."""

    def __init__(self, towers: Towers) -> None:
        self._towers = towers

    def foreign(self, standings: Sequence[Standing]) -> dict[str, str]:
        """Id → how far off, of those whose vectors are not their texts'."""
        encoded = self.encoded(standings)
        told = {
            standing.id: next(filter(None, map(_far, standing.rows, encoded[standing.id])), "")
            for standing in standings
            if standing.id in encoded
        }
        return {id: far for id, far in told.items() if far}

    def encoded(self, standings: Sequence[Standing]) -> dict[str, tuple[Chunk, ...]]:
        """Id → what the towers give for its rows; none for what a tower refuses, or what is cut otherwise now."""
        puts = {standing.id: put for standing in standings if (put := put_of(standing))}
        found: dict[str, Encoded] = {}
        self._towers.encode(list(puts.values()), found, {})
        return {
            standing.id: found[put.hash].chunks
            for standing in standings
            if (put := puts.get(standing.id)) and put.hash in found and _are_of(found[put.hash].chunks, standing.rows)
        }


def _are_of(chunks: Sequence[Chunk], rows: Sequence[Row]) -> bool:
    return [chunk.text for chunk in chunks] == [row.fields["text"] for row in rows]


def _far(row: Row, given: Chunk) -> str:
    for leg, vector in given.vectors.items():
        if leg in row.vectors and (near := _cosine(row.vectors[leg].value, vector.value)) < LEAST_COSINE:
            return f"the {leg} leg: cosine {near:.2f}" + (f" (chunk {row.chunk})" if row.chunk else "")
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
