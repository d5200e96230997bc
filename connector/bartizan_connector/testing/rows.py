"""What BackendSuite writes and asks: rows, queries, filters, and everything that must be refused.

All vectors are small whole numbers, so that every score is exact and equal scores are equal in every engine.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bartizan_connector.space.vectors import SparseVector, Vector, Vectors
from bartizan_connector.store.collection import (
    MAX_ID_BYTES,
    MAX_STRING_BYTES,
    Collection,
    FieldSpec,
    Head,
    Hit,
    Leg,
    Row,
    Scalar,
)

SPACE = "space-of-the-suite"
DENSE = Leg(name="dense", kind="dense", dim=4, space_id=SPACE)
SPARSE = Leg(name="sparse", kind="sparse", dim=100, space_id=SPACE)
FIELDS = (
    FieldSpec(name="title", type="string", default=""),
    FieldSpec(name="year", type="int", default=0),
    FieldSpec(name="price", type="float", default=0.0),
    FieldSpec(name="fresh", type="bool", default=False),
)
COLLECTION = Collection(name="suite", legs=(DENSE,), fields=FIELDS)
"""Whatever else the suite makes has a name that begins with `suite_`."""
NARROW = Leg(name="narrow", kind="dense", dim=3, space_id="space-of-a-second-tower")
TERMS = Leg(name="terms", kind="sparse", dim=100, space_id="space-of-a-sparse-tower")
"""Legs of other towers than the collection's first."""

HOSTILE = (
    'quote " and \' quote', "back\\slash\\", "new\nline\r", "tab\t", "nul\x00", "é 😀 \u2028 漢字", "a#1", "#", " ",
    '" or pk != "', "%", "{0}", "\\n", "it's", "../../etc", "\x01\x1f\x7f",
)  # fmt: skip
"""Texts that something, somewhere, takes for syntax."""


FILTERS = {
    "year >= 2020": "bcd",
    "year > 2019 and year <= 2021": "bc",
    "2019 < year < 2022": "bc",
    "year in [2019, 2022]": "ad",
    "year not in [2019, 2022]": "bc",
    "year in []": "",
    "year not in []": "abcd",
    "title == 'two'": "b",
    "title != 'two'": "acd",
    "title < 'three'": "ad",
    "id in ['a', 'd', 'nope']": "ad",
    "not id == 'a'": "bcd",
    "fresh": "ac",
    "not fresh": "bd",
    "fresh == false and price < 2": "b",
    "fresh or year == 2022": "acd",
    "not (fresh or year == 2022)": "b",
    "price == 1": "b",
    "price >= -0.5 and price < 1.5": "ab",
    "price == -0.5 or (price == 2.25 and (fresh or year == 0))": "ac",
    "year == -2019": "",
    "chunk == 0": "abcd",
    "chunk > 0 or id == 'b'": "b",
    "not (not (fresh))": "ac",
    " or ".join(f"year == {year}" for year in range(1900, 2020)): "a",
}
"""Filter → ids of the four rows a, b, c, d that pass it."""


def row(
    id: str, vector: Sequence[float], *, chunk: int = 0, version: int = 1, hash: str = "h", **fields: Scalar
) -> Row:
    """A row of the suite's collection."""
    vectors = {"dense": Vector(SPACE, np.array(vector, dtype=np.float32))}
    return Row(id=id, chunk=chunk, vectors=vectors, fields=fields, version=version, hash=hash)


def named(name: str, *, space_id: str = SPACE) -> Collection:
    """The suite's collection under another name, or of another space."""
    return COLLECTION.model_copy(update={"name": name, "legs": (DENSE.model_copy(update={"space_id": space_id}),)})


def legs_row(id: str, collection: Collection, *values: Sequence[float] | dict[int, float]) -> Row:
    """A row with one value for each leg of that collection, in order."""
    vectors = {
        leg.name: Vector(leg.space_id, sparse(value) if isinstance(value, dict) else np.array(value, dtype=np.float32))
        for leg, value in zip(collection.legs, values, strict=True)
    }
    return Row(id=id, vectors=vectors, version=1, hash="h")


def queries(*vectors: Sequence[float], space_id: str = SPACE) -> Vectors:
    """Query vectors as a tower of that space would give them."""
    values = np.array(vectors, dtype=np.float32).reshape(len(vectors), -1)
    return batch(values, space_id)


def sparse(weights: dict[int, float]) -> SparseVector:
    """A sparse vector from a dictionary."""
    terms = sorted(weights)
    return SparseVector(np.array(terms, dtype=np.int32), np.array([weights[t] for t in terms], dtype=np.float32))


def batch(values: np.ndarray | tuple[SparseVector, ...], space_id: str = SPACE) -> Vectors:
    count = len(values)
    return Vectors(space_id=space_id, tower_id="tw", values=values, tokens=(1,) * count, truncated=(False,) * count)


def found(hits: Sequence[Hit]) -> list[tuple[str, int]]:
    """What was found, in order."""
    return [(hit.id, hit.chunk) for hit in hits]


BAD_ROWS = [
    (row("bad", [1, 0, 0]), "length 4"),
    (row("bad", [1, float("nan"), 0, 0]), "NaN"),
    (row("bad", [1, float("inf"), 0, 0]), "infinity"),
    (row("", [1, 0, 0, 0]), "empty"),
    (row("é" * (MAX_ID_BYTES // 2 + 1), [1, 0, 0, 0]), str(MAX_ID_BYTES)),
    (row("half \ud800", [1, 0, 0, 0]), "UTF-8"),
    (row("bad", [1, 0, 0, 0], chunk=-1), "chunk"),
    (row("bad", [1, 0, 0, 0], chunk=10**9), "chunk"),
    (row("bad", [1, 0, 0, 0], version=-1), "version"),
    (row("bad", [1, 0, 0, 0], hash="h" * 1000), "hash"),
    (row("bad", [1, 0, 0, 0], title="é" * (MAX_STRING_BYTES // 2 + 1)), str(MAX_STRING_BYTES)),
    (row("bad", [1, 0, 0, 0], title="half \ud800"), "title"),
    (row("bad", [1, 0, 0, 0], year="2020"), "year"),
    (row("bad", [1, 0, 0, 0], year=2**63), "year"),
    (row("bad", [1, 0, 0, 0], year=True), "year"),
    (row("bad", [1, 0, 0, 0], price=float("nan")), "price"),
    (row("bad", [1, 0, 0, 0], price=10**400), "price"),
    (row("bad", [1, 0, 0, 0], fresh=1), "fresh"),
    (row("bad", [1, 0, 0, 0], colour="red"), "colour"),
    (replace(row("bad", [1, 0, 0, 0]), vectors={}), "dense"),
]
"""Rows that no back-end may take, and a word of the reason."""

BAD_HEADS = [
    (Head(id="", version=1), "empty"),
    (Head(id="bad", version=-1), "version"),
    (Head(id="bad", version=2**63), "version"),
    (Head(id="bad", version=1, hash="é"), "hash"),
    (Head(id="bad", version=1, origin="o" * 300), "origin"),
    (Head(id="bad", version=1, offset=-1), "offset"),
]
"""Heads that no back-end may take, and a word of the reason."""
