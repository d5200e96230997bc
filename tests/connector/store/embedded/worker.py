"""A process that writes into an embedded store, change after change, until it has done them all or is killed."""

import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from bartizan_connector.space.vectors import Vector
from bartizan_connector.store.backend import Store
from bartizan_connector.store.collection import Collection, FieldSpec, Head, Leg, Row
from bartizan_connector.store.embedded import EmbeddedBackend
from bartizan_connector.testing.rows import SPACE, sparse

COLLECTION = Collection(
    name="killed",
    legs=(
        Leg(name="dense", kind="dense", dim=16, space_id=SPACE),
        Leg(name="sparse", kind="sparse", dim=100, space_id=SPACE),
    ),
    fields=(FieldSpec(name="text", type="string", default=""), FieldSpec(name="year", type="int", default=0)),
)
WORDS = [f"word{letter}" for letter in "abcdefghij"]
DOCUMENTS = 4_000
_BATCH = 250


def changes(seed: int) -> Iterator[tuple[str, list[Row]]]:
    """The same for the same seed: first all documents, then replacements and deletions for ever."""
    dice = random.Random(seed)
    version = 0
    while True:
        version += 1
        first = (version - 1) * _BATCH
        if first < DOCUMENTS:
            yield "upsert", [row(dice, number, version) for number in range(first, first + _BATCH)]
        else:
            numbers = dice.sample(range(DOCUMENTS), _BATCH)
            yield dice.choice(("upsert", "delete")), [row(dice, number, version) for number in numbers]


def row(dice: random.Random, number: int, version: int) -> Row:
    dense = np.array([dice.randrange(-9, 10) for _ in range(16)], np.float32)
    terms = sparse({term: float(dice.randrange(1, 5)) for term in dice.sample(range(100), 6)})
    return Row(
        id=f"d{number:05}",
        vectors={"dense": Vector(SPACE, dense), "sparse": Vector(SPACE, terms)},
        fields={"text": " ".join(dice.sample(WORDS, 3)), "year": dice.randrange(10)},
        version=version,
        hash=f"h{version}",
    )


def apply(store: Store, verb: str, rows: Sequence[Row]) -> None:
    if verb == "upsert":
        store.upsert(rows)
    else:
        store.delete([Head(id=row.id, version=row.version) for row in rows])


def main(path: Path, seed: int, done: int, last: int) -> None:
    """Go on after the change `done`, and say the number of each change that is durable."""
    backend = EmbeddedBackend(path, index="hnsw")
    store = backend.open(COLLECTION)
    for number, (verb, rows) in enumerate(changes(seed), 1):
        if number > last:
            break
        if number > done:
            apply(store, verb, rows)
            print(number, flush=True)
    backend.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
