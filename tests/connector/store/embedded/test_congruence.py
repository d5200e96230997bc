"""Embedded ≡ memory: the same random writes give the same answers, in every leg, with every filter."""

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from bartizan_connector.space.vectors import Floats, SparseVector, Vector
from bartizan_connector.store.collection import Collection, FieldSpec, Head, Leg, Row
from bartizan_connector.store.embedded import EmbeddedBackend
from bartizan_connector.store.filters import parse
from bartizan_connector.store.memory import MemoryBackend
from bartizan_connector.testing.rows import SPACE, batch
from tests.connector.store.embedded.drawing import (
    COLLECTION,
    compare,
    drawn_document,
    drawn_filter,
    drawn_queries,
    write,
)


@pytest.mark.packaging
@pytest.mark.parametrize("seed", range(6))
def test_random_writes_end_as_in_the_oracle(tmp_path: Path, seed: int) -> None:
    """A second back-end follows as another process would: it must see every write at its next call."""
    dice = random.Random(seed)
    backend, reader = EmbeddedBackend(tmp_path / "index.bartizan"), EmbeddedBackend(tmp_path / "index.bartizan")
    store, oracle = backend.open(COLLECTION), MemoryBackend().open(COLLECTION)
    other = reader.open(COLLECTION, create=False)
    for version in range(1, 101):
        when = f"seed {seed}, {write(dice, (store, oracle), version)}"
        compare(dice, dice.choice((store, other)), oracle, when)
    reader.close()
    backend.close()
    again = EmbeddedBackend(tmp_path / "index.bartizan")
    compare(dice, again.open(COLLECTION, create=False), oracle, f"seed {seed}, opened again")
    again.close()


@pytest.mark.packaging
def test_ten_thousand_rows_with_every_leg_and_filter(tmp_path: Path) -> None:
    """Rows in batches with replacements and deletions between them; then queries with filters over all of them."""
    dice = random.Random(7)
    backend = EmbeddedBackend(tmp_path / "index.bartizan", index="flat")
    store, oracle = backend.open(COLLECTION), MemoryBackend().open(COLLECTION)
    for version in range(1, 17):
        ids = [f"d{number}" for number in (dice.randrange(8_000) for _ in range(800))]
        rows = [row for id in ids for row in drawn_document(dice, id, version)]
        gone = [Head(id=f"d{dice.randrange(8_000)}", version=version) for _ in range(100)]
        for each in (store, oracle):
            each.upsert(rows)
            each.delete(gone)
    assert store.count() == oracle.count() > 10_000
    for number in range(60):
        leg = dice.choice(COLLECTION.legs)
        vectors = drawn_queries(dice, leg, 2)
        filter = drawn_filter(dice) if number % 4 else None
        k = dice.choice((1, 10, 100, 3_000))
        assert store.search(leg.name, vectors, k, filter) == oracle.search(leg.name, vectors, k, filter), filter
        assert store.count(filter) == oracle.count(filter), filter
    backend.close()


@pytest.mark.parametrize("scale", [1e-30, 1e19, 1e30, 1e37])
def test_scores_beyond_what_float32_holds_are_ranked_as_in_the_oracle(tmp_path: Path, scale: float) -> None:
    """Some rows and queries are so large, or so small, in both legs."""
    dice = np.random.default_rng(int(np.log10(scale)) + 40)
    legs = [Leg(name=kind, kind=kind, dim=8, space_id=SPACE) for kind in ("dense", "sparse")]
    collection = Collection(name="far", legs=tuple(legs), fields=(FieldSpec(name="year", type="int"),))
    backend = EmbeddedBackend(tmp_path / "index.bartizan", index="flat")
    stores = [each.open(collection) for each in (backend, MemoryBackend())]

    def drawn(count: int) -> Floats:
        values = dice.standard_normal((count, 8))
        return np.where(dice.random((count, 1)) < 0.5, values, scale * values).astype(np.float32)

    def weights(values: Floats) -> SparseVector:
        terms = np.flatnonzero(values > 0).astype(np.int32)
        return SparseVector(terms, values[terms])

    rows = [
        Row(
            id=f"d{n}",
            vectors={"dense": Vector(SPACE, value), "sparse": Vector(SPACE, weights(value))},
            fields={"year": n % 9},
            version=1,
            hash="h",
        )
        for n, value in enumerate(drawn(200))
    ]
    for store in stores:
        store.upsert(rows)
    for asked in np.split(drawn(12), (1, 2, 3, 4)):
        for leg, vectors in (("dense", batch(asked)), ("sparse", batch(tuple(weights(each) for each in asked)))):
            for k, text in ((1, None), (10, None), (10, "year < 6")):
                found, wanted = (store.search(leg, vectors, k, parse(text) if text else None) for store in stores)
                assert found == wanted, (leg, k, text)
    backend.close()


@pytest.mark.packaging
def test_a_graph_finds_what_is_near_and_scores_it_exactly(tmp_path: Path) -> None:
    """Many rows, half of them replaced or deleted since it was built; no filter and narrow and wide ones."""
    dice = np.random.default_rng(3)
    leg = Leg(name="dense", kind="dense", dim=24, space_id=SPACE)
    collection = Collection(name="many", legs=(leg,), fields=(FieldSpec(name="year", type="int"),))
    backend = EmbeddedBackend(tmp_path / "index.bartizan", index="hnsw")
    store, oracle = backend.open(collection), MemoryBackend().open(collection)

    def rows(numbers: "Sequence[int]", version: int) -> list[Row]:
        values = dice.standard_normal((len(numbers), 24)).astype(np.float32)
        values /= np.linalg.norm(values, axis=1, keepdims=True)
        return [
            Row(
                id=f"d{n}", vectors={"dense": Vector(SPACE, value)}, fields={"year": n % 100}, version=version, hash="h"
            )
            for n, value in zip(numbers, values, strict=True)
        ]

    def compare() -> None:
        asked = batch(dice.standard_normal((20, 24)).astype(np.float32))
        for text, least in ((None, 0.9), ("year < 50", 0.9), ("year == 7", 0.99), ("year == 700", 1.0)):
            filter = parse(text) if text else None
            found, wanted = (each.search("dense", asked, 10, filter) for each in (store, oracle))
            assert [len(hits) for hits in found] == [len(hits) for hits in wanted]
            exact = {hit.id: hit for hits in oracle.search("dense", asked, 5_000, filter)[:1] for hit in hits}
            assert all(hit.score == exact[hit.id].score for hit in found[0])
            same = [len({hit.id for hit in a} & {hit.id for hit in b}) for a, b in zip(found, wanted, strict=True)]
            assert sum(same) >= least * sum(map(len, wanted)), (text, same)

    first = rows(range(4_000), 1)
    for each in (store, oracle):
        each.upsert(first)
    store.reindex()
    compare()
    changed = rows(range(0, 4_000, 3), 2)
    gone = [Head(id=f"d{number}", version=3) for number in range(1, 4_000, 3)]
    for each in (store, oracle):
        each.upsert(changed)
        each.delete(gone)
    compare()
    store.reindex()
    compare()
    backend.close()
