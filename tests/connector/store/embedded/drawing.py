"""Random rows, queries and filters, and a comparison of the embedded store with the oracle after each write.

Vectors are small whole numbers, so scores are exact, many are equal, and the order of ties is compared too.
"""

import random
from collections.abc import Sequence

import numpy as np

from bartizan_connector.space.vectors import SparseVector, Vector, Vectors
from bartizan_connector.store.backend import Store
from bartizan_connector.store.collection import Collection, FieldSpec, Head, Leg, Row, Scalar
from bartizan_connector.store.filters import And, Compare, Filter, In, Not, Operator, Or
from bartizan_connector.testing.rows import FIELDS, HOSTILE, SPACE, batch, sparse

DENSE = Leg(name="dense", kind="dense", dim=4, space_id=SPACE)
OTHER = Leg(name="other", kind="dense", dim=3, space_id=SPACE)
SPARSE = Leg(name="sparse", kind="sparse", dim=100, space_id=SPACE)
TEXT = FieldSpec(name="text", type="string", default="")
CASE = FieldSpec(name="Year", type="int", default=7)
"""SQLite takes this name and `year` for one."""
COLLECTION = Collection(name="drawn", legs=(DENSE, SPARSE, OTHER), fields=(*FIELDS, TEXT, CASE))

IDS = (
    "a",
    "b",
    "c",
    "a#1",
    "id with spaces",
    "é",
    "Z",
    'quote"',
    "back\\slash",
    "z" * 500,
    "漢",
    "\U0001f600",
    "nul\x00",
)
VALUES: dict[str, tuple[Scalar, ...]] = {
    "title": ("", "a", "B", "b", "é", *HOSTILE),
    "text": ("", "a", "two words", "zwei Wörter", "x" * 3000, *HOSTILE),
    "year": (-(2**63) + 1, -5, 0, 1, 2019, 2020, 2**53 + 1, 2**63 - 1),
    "Year": (0, 1, 2**53 + 1, 2**53),
    "price": (-1e300, -0.5, -0.0, 0.0, 0, 0.1, 1, 1.0, 1.5, 2.0**53, 5e-324, 1.6e308, 0.1 + 0.2),
    "fresh": (True, False),
}
_OPERATORS: tuple[Operator, ...] = ("==", "!=", "<", "<=", ">", ">=")


def drawn_filter(dice: random.Random, depth: int = 3) -> Filter:
    """Any filter over the fields that `check` takes."""
    if depth and dice.random() < 0.6:
        parts = tuple(drawn_filter(dice, depth - 1) for _ in range(dice.randrange(4)))
        return dice.choice((And(parts), Or(parts), Not(drawn_filter(dice, depth - 1))))
    if dice.random() < 0.15:
        return In("id", tuple(dice.sample(IDS, dice.randrange(5))))
    field = dice.choice(sorted(VALUES))
    if dice.random() < 0.3:
        return In(field, tuple(dice.choices(VALUES[field], k=dice.randrange(4))))
    return Compare(field, dice.choice(_OPERATORS[:2] if field == "fresh" else _OPERATORS), dice.choice(VALUES[field]))


def drawn_document(dice: random.Random, id: str, version: int) -> list[Row]:
    """All rows of one document: one to four chunks, now and then with a gap or a row given twice."""
    chunks = dice.choice(((0,), (0,), (0, 1), (0, 1, 2), (0, 2, 5), (1,), (0, 0)))
    return [
        Row(
            id=id,
            chunk=chunk,
            vectors={leg.name: Vector(SPACE, drawn_value(dice, leg)) for leg in COLLECTION.legs},
            fields={name: dice.choice(values) for name, values in VALUES.items() if dice.random() < 0.8},
            version=version,
            hash=f"h{version}",
            origin=dice.choice(("", "docs.jsonl", "topic/3")),
            offset=dice.choice((0, version, 2**63 - 1)),
        )
        for chunk in chunks
    ]


def drawn_value(dice: random.Random, leg: Leg) -> "np.ndarray | SparseVector":
    if leg.kind == "sparse":
        terms: Sequence[int] = dice.sample(range(12), dice.randrange(5))
        return sparse({term: float(dice.randrange(1, 4)) for term in terms})
    return np.array([dice.randrange(-2, 3) for _ in range(leg.dim)], dtype=np.float32)


def drawn_queries(dice: random.Random, leg: Leg, count: int) -> Vectors:
    values = [drawn_value(dice, leg) for _ in range(count)]
    return batch(tuple(values) if leg.kind == "sparse" else np.stack(values))  # type: ignore[arg-type]


def write(dice: random.Random, stores: Sequence[Store], version: int) -> str:
    """One random write, the same to each."""
    ids = dice.sample(IDS, dice.randrange(1, 5))
    verb = dice.choices(("upsert", "delete", "touch", "purge"), (6, 2, 1, 1))[0]
    rows = [row for id in ids for row in drawn_document(dice, id, version)]
    dice.shuffle(rows)
    for each in stores:
        if verb == "upsert":
            each.upsert(rows)
        elif verb == "delete":
            each.delete([Head(id=id, version=version, origin="o", offset=version) for id in ids])
        elif verb == "touch":
            known = each.heads(ids)
            each.touch([Head(id=id, version=version, hash=known[id].hash) for id in ids if id in known])
        else:
            each.purge(version - 10)
    return f"step {version}: {verb} {ids}"


def compare(dice: random.Random, store: Store, oracle: Store, when: str) -> None:
    """The same heads, documents, counts and hits."""
    assert store.heads(IDS) == oracle.heads(IDS), when
    leg = dice.choice(COLLECTION.legs)
    vectors = drawn_queries(dice, leg, dice.randrange(1, 4))
    k = dice.choice((1, 2, 3, 5, 10, 100))
    filter = drawn_filter(dice) if dice.random() < 0.6 else None
    told = f"{when}: leg {leg.name}, k {k}, filter {filter}"
    assert store.search(leg.name, vectors, k, filter) == oracle.search(leg.name, vectors, k, filter), told
    assert store.count(filter) == oracle.count(filter), told
    for vectors_too in (False, True):
        got, wanted = store.get(IDS, vectors=vectors_too), oracle.get(IDS, vectors=vectors_too)
        assert plain(got.values()) == plain(wanted.values()), told
        scanned = plain(store.scan(filter, vectors=vectors_too))
        assert scanned == plain(oracle.scan(filter, vectors=vectors_too)), told


def plain(documents) -> dict[str, object]:  # type: ignore[no-untyped-def]
    """Documents as values that compare to the last bit and type: -0.0 is not 0.0, and True is not 1."""
    return {
        document.id: (
            document.head,
            [
                (row.chunk, row.version, row.hash, row.origin, row.offset, repr(sorted(row.fields.items())),
                 {leg: _bytes(vector.value) for leg, vector in row.vectors.items()})
                for row in document.rows
            ],
        )
        for document in documents
    }  # fmt: skip


def _bytes(value: "np.ndarray | SparseVector") -> bytes:
    if isinstance(value, SparseVector):
        return value.indices.tobytes() + b"|" + value.weights.tobytes()
    return value.tobytes()
