"""Drives a back-end and the oracle through the same random writes, and compares every answer exactly.

Vectors are small whole numbers, so scores are exact, many are equal, and the order of ties is compared too.
"""

import random
from collections.abc import Iterable, Sequence

import numpy as np

from bartizan_connector import MemoryBackend
from bartizan_connector.space.vectors import SparseVector, Vector, Vectors
from bartizan_connector.store.backend import Backend, Store
from bartizan_connector.store.collection import Collection, Document, Head, Leg, Row, Scalar
from bartizan_connector.store.filters import And, Compare, Filter, In, Not, Operator, Or
from bartizan_connector.testing.rows import HOSTILE, batch, sparse

IDS = ("a", "b", "c", "a#1", "id with spaces", "é", "Z", 'quote"', "back\\slash", "z" * 500)
VALUES: dict[str, tuple[Scalar, ...]] = {
    "title": ("", "a", "B", "b", "é", *HOSTILE),
    "year": (-(2**63) + 1, -5, 0, 1, 2019, 2020, 2**53 + 1, 2**63 - 1),
    "price": (-1e300, -0.5, 0.0, -0.0, 0.1, 1.0, 1.5, 2.0**53, 5e-324, 1.6e308),
    "fresh": (True, False),
}
_OPERATORS: tuple[Operator, ...] = ("==", "!=", "<", "<=", ">", ">=")


def random_filter(dice: random.Random, depth: int = 3) -> Filter:
    """Any filter over the suite's fields that `check` takes."""
    if depth and dice.random() < 0.6:
        parts = tuple(random_filter(dice, depth - 1) for _ in range(dice.randrange(4)))
        return dice.choice((And(parts), Or(parts), Not(random_filter(dice, depth - 1))))
    if dice.random() < 0.15:
        return In("id", tuple(dice.sample(IDS, dice.randrange(5))))
    field = dice.choice(sorted(VALUES))
    if dice.random() < 0.3:
        return In(field, tuple(dice.choices(VALUES[field], k=dice.randrange(4))))
    return Compare(field, dice.choice(_OPERATORS[:2] if field == "fresh" else _OPERATORS), dice.choice(VALUES[field]))


def random_document(dice: random.Random, collection: Collection, id: str, version: int) -> list[Row]:
    """All rows of one document: one to four chunks, now and then with a gap or a row given twice."""
    chunks = dice.choice(((0,), (0,), (0, 1), (0, 1, 2), (0, 2, 5), (1,), (0, 0)))
    return [
        Row(
            id=id,
            chunk=chunk,
            vectors={leg.name: Vector(leg.space_id, _random_value(dice, leg)) for leg in collection.legs},
            fields={name: dice.choice(values) for name, values in VALUES.items() if dice.random() < 0.8},
            version=version,
            hash=f"h{version}",
            origin=f"docs/{version % 3}",
            offset=version,
        )
        for chunk in chunks
    ]


def assert_congruent(backend: Backend, collection: Collection, *, seed: int, steps: int) -> None:
    """Random writes to both, and after each the same heads, the same documents and the same answers."""
    dice = random.Random(seed)
    store, oracle = backend.open(collection), MemoryBackend().open(collection)
    for version in range(1, steps + 1):
        ids = dice.sample(IDS, dice.randrange(1, 5))
        verb = dice.choices(("upsert", "delete", "touch", "purge"), (6, 2, 1, 1))[0]
        rows = [row for id in ids for row in random_document(dice, collection, id, version)]
        dice.shuffle(rows)
        for each in (store, oracle):
            if verb == "upsert":
                each.upsert(rows)
            elif verb == "delete":
                each.delete([Head(id=id, version=version) for id in ids])
            elif verb == "purge":
                each.purge(version - 3)
            else:
                known = each.heads(ids)
                each.touch([Head(id=id, version=version, hash=known[id].hash) for id in ids if id in known])
        when = f"seed {seed}, step {version}: {verb} {ids}"
        assert store.heads(IDS) == oracle.heads(IDS), when
        _compare_documents(store, oracle, dice, when)
        _compare_answers(store, oracle, dice, when)


def _compare_documents(store: Store, oracle: Store, dice: random.Random, when: str) -> None:
    ids = dice.sample(IDS, 4)
    assert plain(store.get(ids, vectors=True).values()) == plain(oracle.get(ids, vectors=True).values()), when
    filter = random_filter(dice) if dice.random() < 0.6 else None
    assert store.count(filter) == oracle.count(filter), f"{when}: {filter}"
    assert plain(store.scan(filter)) == plain(oracle.scan(filter)), f"{when}: {filter}"


def _compare_answers(store: Store, oracle: Store, dice: random.Random, when: str) -> None:
    leg = dice.choice(oracle.collection.legs)
    vectors = random_queries(dice, leg, dice.randrange(1, 4))
    k = dice.choice((1, 2, 3, 5, 10, 100))
    filter = random_filter(dice) if dice.random() < 0.6 else None
    assert store.search(leg.name, vectors, k, filter) == oracle.search(leg.name, vectors, k, filter), (
        f"{when}: leg {leg.name}, k {k}, filter {filter}"
    )


def plain(documents: Iterable[Document]) -> list[object]:
    """Everything in the documents as values that compare, in order of id."""
    return [
        (document.head, [(row.head, row.chunk, row.fields, _plain_vectors(row)) for row in document.rows])
        for document in sorted(documents, key=lambda document: document.id)
    ]


def _plain_vectors(row: Row) -> dict[str, object]:
    return {
        leg: (
            vector.space_id,
            [vector.value.indices.tolist(), vector.value.weights.tolist()]
            if isinstance(vector.value, SparseVector)
            else vector.value.tolist(),
        )
        for leg, vector in row.vectors.items()
    }


def random_queries(dice: random.Random, leg: Leg, count: int) -> Vectors:
    """A batch of random query vectors."""
    values = [_random_value(dice, leg) for _ in range(count)]
    return batch(tuple(values) if leg.kind == "sparse" else np.stack(values), leg.space_id)


def _random_value(dice: random.Random, leg: Leg):  # type: ignore[no-untyped-def]
    if leg.kind == "sparse":
        terms: Sequence[int] = dice.sample(range(12), dice.randrange(5))
        return sparse({term: float(dice.randrange(1, 4)) for term in terms})
    return np.array([dice.randrange(-2, 3) for _ in range(leg.dim)], dtype=np.float32)
