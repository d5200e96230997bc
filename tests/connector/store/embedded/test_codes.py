"""Codes only say where to look: what they prove is what comparing every vector finds, to the last bit and tie."""

from pathlib import Path

import numpy as np
import pytest

from bartizan_connector.space.vectors import Floats, Vector
from bartizan_connector.store import filters
from bartizan_connector.store.collection import Collection, FieldSpec, Head, Leg, Row
from bartizan_connector.store.embedded import EmbeddedBackend
from bartizan_connector.store.embedded.codes import Codes, Coding
from bartizan_connector.store.embedded.deadline import Deadline
from bartizan_connector.store.embedded.tail import Growing, Tail
from bartizan_connector.store.memory import MemoryBackend
from bartizan_connector.testing.rows import SPACE, batch

DIM = 64
"""The library has ways of its own for widths like this, which round the query."""
LEG = Leg(name="dense", kind="dense", dim=DIM, space_id=SPACE)
MANY = Collection(name="many", legs=(LEG,), fields=(FieldSpec(name="year", type="int", default=0),))
DICE = np.random.default_rng(5)
KINDS = {
    "drawn": DICE.standard_normal((3_000, DIM)),
    "clustered": DICE.standard_normal((30, DIM)).repeat(100, axis=0) + 0.01 * DICE.standard_normal((3_000, DIM)),
    "all alike": np.ones((3_000, DIM)),
    "many alike": DICE.integers(-1, 2, (3_000, DIM)),
    "one huge": np.concatenate([DICE.standard_normal((2_999, DIM)), np.full((1, DIM), 1e4)]),
    "later ones huge": np.concatenate([DICE.standard_normal((1_500, DIM)), 900 * DICE.standard_normal((1_500, DIM))]),
    "tiny": 1e-20 * DICE.standard_normal((3_000, DIM)),
    "nothing": np.zeros((3_000, DIM)),
}


@pytest.mark.packaging
@pytest.mark.parametrize("kind", KINDS)
def test_any_vectors_are_found_as_by_the_oracle(tmp_path: Path, kind: str) -> None:
    """In two batches, with replaced and deleted ones between the searches."""
    matrix = KINDS[kind].astype(np.float32)
    backend = EmbeddedBackend(tmp_path / "index.bartizan", index="flat")
    stores = [each.open(MANY) for each in (backend, MemoryBackend())]

    def rows(start: int, end: int, version: int) -> list[Row]:
        return [
            Row(
                id=f"d{n:04}",
                vectors={"dense": Vector(SPACE, matrix[n])},
                fields={"year": n % 9},
                version=version,
                hash="h",
            )
            for n in range(start, end)
        ]

    def compare() -> None:
        asked = np.concatenate([matrix[[7, 2_000]], DICE.standard_normal((2, DIM)), np.zeros((1, DIM))])
        for query in asked.astype(np.float32):
            for k, filter in ((1, None), (10, None), (200, None), (10, filters.parse("year < 3"))):
                found, wanted = (store.search("dense", batch(query[None]), k, filter) for store in stores)
                assert found == wanted, (k, filter)

    for store in stores:
        store.upsert(rows(0, 2_200, 1))
    compare()
    for store in stores:
        store.upsert(rows(2_200, 3_000, 1))
    compare()
    for store in stores:
        store.upsert(rows(100, 200, 2))
        store.delete([Head(id=f"d{n:04}", version=3) for n in range(0, 3_000, 7)])
    compare()
    backend.close()


def proof(codes: Codes, matrix: Floats, query: Floats, count: int) -> None:
    """No row that is left out is better than what the codes say."""
    found, said, margin = codes.best(query, count)
    assert list(said) == sorted(said, reverse=True)
    assert np.abs(matrix[found].astype(np.float64) @ query.astype(np.float64) - said).max() <= margin * (1 + 1e-6)
    others = np.setdiff1d(np.arange(len(matrix)), found)
    products = matrix[others].astype(np.float64) @ query.astype(np.float64)
    assert products.max() <= (said[-1] + margin) * (1 + 1e-6) + 1e-6 * margin


@pytest.mark.parametrize("kind", ["drawn", "clustered", "one huge", "later ones huge"])
def test_what_the_codes_promise_of_the_rest_is_true(kind: str) -> None:
    matrix = KINDS[kind].astype(np.float32)
    coding = Coding()
    assert coding.codes(matrix[:100]) is None, "too few"
    for size in (2_200, 2_201, 2_500, 3_000):
        codes = coding.codes(matrix[:size])
        assert codes is not None
        assert len(codes) == size
        for query in (matrix[3], -matrix[5], DICE.standard_normal(DIM).astype(np.float32)):
            for count in (1, 20, 500):
                proof(codes, matrix[:size], query, count)


@pytest.mark.parametrize("dim", [7, 16, 96, 384, 1024, 1536])
def test_every_width_is_read_right(dim: int) -> None:
    matrix = DICE.standard_normal((2_500, dim)).astype(np.float32)
    codes = Coding().codes(matrix)
    assert codes is not None
    for query in DICE.standard_normal((5, dim)).astype(np.float32):
        found, _, _ = codes.best(query, 30)
        assert len(set(found) & set(np.argsort(-(matrix @ query))[:10])) == 10
        proof(codes, matrix, query, 30)


def test_most_searches_are_proven_at_the_first_look() -> None:
    """Else they would be exact and slow."""
    matrix = DICE.standard_normal((5_000, 384)).astype(np.float32)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    codes = Coding().codes(matrix)
    assert codes is not None
    proven = 0
    for query in DICE.standard_normal((50, 384)).astype(np.float32):
        found, said, margin = codes.best(query, 52)
        proven += int(np.partition(matrix[found] @ query, -10)[-10] > said[-1] + margin)
    assert proven >= 45


def test_a_small_commit_leaves_the_codes_as_they_are_and_its_rows_are_found() -> None:
    """Else every search after a commit would copy them all."""
    matrix = DICE.standard_normal((3_000, DIM)).astype(np.float32)
    growing, tail = Growing(DIM), Tail.empty(DIM)
    made: list[Codes] = []
    for start, end in ((0, 2_500), (2_500, 2_520), (2_520, 2_756), (2_756, 2_757), (2_757, 3_000)):
        tail = growing.coded(growing.appended(tail, np.arange(start, end), matrix[start:end]))
        assert tail.codes is not None
        made.append(tail.codes)
        for query in np.concatenate([matrix[end - 1 : end], -matrix[7:8], matrix[end - 5 : end - 4]]):
            rows, scores = tail.best(query[None], 10, None, Deadline.never())[0]
            exact = (matrix[:end].astype(np.float64) * query).sum(axis=1).astype(np.float32)
            assert sorted(rows) == sorted(np.flatnonzero(exact >= np.partition(exact, -10)[-10]))
            assert (scores == exact[rows]).all()
    assert made[0] is made[1] is made[2]
    assert made[2] is not made[3] is made[4]
    assert [len(codes) for codes in made] == [2_500, 2_500, 2_500, 2_757, 2_757]


@pytest.mark.parametrize("most", [0, 9, 13, 38], ids=lambda most: f"to 1e{most}")
def test_later_rows_and_queries_of_any_size_are_found_with_codes_of_ordinary_ones(most: int) -> None:
    """The codes of such rows are cut off, and products of such queries leave what float32 can hold."""
    dice = np.random.default_rng(most)
    values = dice.standard_normal((2_600, DIM))
    values[2_300:2_500] *= 10.0 ** dice.uniform(-30, most, (200, 1))
    values[2_500] *= 10.0**most
    matrix = np.clip(values, -3e38, 3e38).astype(np.float32)
    growing, tail = Growing(DIM), Tail.empty(DIM)
    for start, end in ((0, 2_100), (2_100, 2_600)):
        tail = growing.coded(growing.appended(tail, np.arange(start, end), matrix[start:end]))
    assert (tail.codes is not None) == (most < 15)
    for scale in (1e-38, 1.0, 1e20, 1e30, 1e37):
        query = (scale * dice.standard_normal(DIM)).astype(np.float32)
        with np.errstate(over="ignore"):
            exact = (matrix.astype(np.float64) * query).sum(axis=1).astype(np.float32)
        for k in (1, 10):
            rows, scores = tail.best(query[None], k, None, Deadline.never())[0]
            assert sorted(rows) == np.flatnonzero(exact >= np.partition(exact, -k)[-k]).tolist()
            assert (scores == exact[rows]).all()


def test_codes_that_could_not_be_finished_are_made_again_for_the_rows_that_came_instead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    matrix = np.random.default_rng(2).standard_normal((3_500, DIM)).astype(np.float32)
    growing = Growing(DIM)
    first = growing.coded(growing.appended(Tail.empty(DIM), np.arange(2_500), matrix[:2_500]))

    def full() -> None:
        raise MemoryError

    lost = growing.appended(first, np.arange(2_500, 3_000), matrix[2_500:3_000])
    with monkeypatch.context() as patch:
        patch.setattr("bartizan_connector.store.embedded.codes.library", full)
        with pytest.raises(MemoryError):
            growing.coded(lost)
    tail = growing.coded(growing.appended(first, np.arange(3_000, 3_500), matrix[3_000:]))
    assert tail.codes is not None
    assert len(tail.codes) == 3_000
    for number in range(3_000, 3_500):
        rows, _ = tail.best(matrix[number][None], 1, None, Deadline.never())[0]
        assert list(rows) == [number]
