"""What the stores of a benchmark hold: drawn vectors in clusters, with about 1 KB of drawn text each."""

import random
from collections.abc import Iterator

import numpy as np

from bartizan_connector.space.vectors import Floats, Vector, Vectors
from bartizan_connector.store.collection import Collection, FieldSpec, Leg, Row

DIM = 384
_BATCH = 1_000
_SPACE = "drawn"
_WORDS = [f"word{number}" for number in range(5_000)]
SPEC = Collection(
    name="bench",
    legs=(Leg(name="dense", kind="dense", dim=DIM, space_id=_SPACE),),
    fields=(
        FieldSpec(name="title", type="string", default=""),
        FieldSpec(name="text", type="string", default=""),
        FieldSpec(name="year", type="int", default=0),
    ),
)


def drawn(count: int, seed: int, clusters: int) -> Floats:
    """Unit vectors around centres that depend on the number of clusters only."""
    centres = np.random.default_rng(clusters).standard_normal((clusters, DIM)).astype(np.float32)
    dice = np.random.default_rng(seed)
    values = centres[dice.integers(0, clusters, count)] + dice.standard_normal((count, DIM)).astype(np.float32)
    unit: Floats = (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)
    return unit


def rows(matrix: Floats) -> Iterator[list[Row]]:
    """Rows in batches."""
    dice = random.Random(0)
    for start in range(0, len(matrix), _BATCH):
        yield [
            Row(
                id=f"d{number:08}",
                vectors={"dense": Vector(_SPACE, matrix[number])},
                fields={
                    "title": f"title {number}",
                    "text": " ".join(dice.choices(_WORDS, k=110)),
                    "year": number % 100,
                },
                version=1,
                hash="h",
            )
            for number in range(start, min(start + _BATCH, len(matrix)))
        ]


def query(vector: Floats) -> Vectors:
    return Vectors(space_id=_SPACE, tower_id="none", values=vector[None], tokens=(1,), truncated=(False,))
