"""A search keeps its deadline while it loads, waits or compares, and what was loaded by then is not loaded again."""

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bartizan_connector.base.errors import Retry
from bartizan_connector.space.vectors import Vector
from bartizan_connector.store import filters
from bartizan_connector.store.collection import Collection, FieldSpec, Head, Leg, Row
from bartizan_connector.store.embedded import EmbeddedBackend
from bartizan_connector.store.embedded.deadline import Deadline
from bartizan_connector.store.memory import MemoryBackend
from bartizan_connector.testing.rows import COLLECTION, SPACE, batch, queries, row, sparse

LEGS = (
    Leg(name="dense", kind="dense", dim=4, space_id=SPACE),
    Leg(name="sparse", kind="sparse", dim=100, space_id=SPACE),
)
BOTH = Collection(
    name="suite", legs=LEGS, fields=(*COLLECTION.fields, FieldSpec(name="text", type="string", default=""))
)
ASKED = {"dense": queries([1, 2, 3, 4]), "sparse": batch((sparse({3: 1.0, 5: 2.0}),))}


def both(id: str, vector: Sequence[float], term: int, **more: Any) -> Row:
    """A row with a vector for each leg."""
    made = row(id, vector, **more)
    return replace(made, vectors={**made.vectors, "sparse": Vector(SPACE, sparse({term: 1.0}))})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    backend = EmbeddedBackend(tmp_path / "index.bartizan")
    backend.open(BOTH).upsert(
        [both(f"d{i:04}", [1, i, 0, 0], i % 50, text=f"word{i % 7}", year=i) for i in range(2_000)]
    )
    backend.close()
    return tmp_path / "index.bartizan"


def test_each_try_goes_on_where_the_one_before_was_cut_off(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Documents go and come between the tries, and at the end every leg finds what one that was never cut off finds."""
    for module in ("dense", "postings"):
        monkeypatch.setattr(f"bartizan_connector.store.embedded.{module}._READ_ROWS", 100)
    writer, cut, whole = (EmbeddedBackend(path) for _ in range(3))
    writing, reader, other = (each.open(BOTH, create=False) for each in (writer, cut, whole))
    tries = dict.fromkeys(("dense", "sparse", "words"), 0)
    looks = iter(range(10**9))
    for leg in tries:
        monkeypatch.setattr(Deadline, "has_passed", property(lambda self: next(looks) % 4 == 3))
        while True:
            tries[leg] += 1
            try:
                if leg == "words":
                    assert reader.words is not None
                    found = reader.words.search("word3", 50, timeout=9)
                else:
                    found = reader.search(leg, ASKED[leg], 50, timeout=9)  # type: ignore[assignment]
                break
            except Retry:
                pass
            number = tries[leg]
            writing.delete([Head(id=f"d{number:04}", version=2)])
            writing.upsert([both(f"new-{leg}-{number}", [9, 9, 9, number], 3, text="word3", version=3)])
        monkeypatch.undo()
        for module in ("dense", "postings"):
            monkeypatch.setattr(f"bartizan_connector.store.embedded.{module}._READ_ROWS", 100)
        assert other.words is not None
        assert found == (other.words.search("word3", 50) if leg == "words" else other.search(leg, ASKED[leg], 50))
    assert min(tries.values()) > 3
    for each in (writer, cut, whole):
        each.close()


def test_a_statement_and_a_wait_are_broken_off(path: Path) -> None:
    backend = EmbeddedBackend(path)
    store = backend.open(BOTH, create=False)
    late = Deadline(0.05, "it")
    began = time.monotonic()
    with (
        backend._place.reading() as connection,
        pytest.raises(Retry, match="it had not answered"),
        late.over(connection),
    ):
        connection.execute(
            "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n"
        ).fetchone()
    lock = store._locks["dense"]
    with lock, pytest.raises(Retry, match="had not answered by the deadline"):
        store.search("dense", ASKED["dense"], 5, timeout=0.05)
    assert time.monotonic() - began < 5
    assert store.search("dense", ASKED["dense"], 5, timeout=60) == store.search("dense", ASKED["dense"], 5)
    assert store.count() == 2_000, "the connection is as good as before"
    backend.close()


def test_others_are_not_held_up_by_one_whose_time_is_over(path: Path) -> None:
    backend = EmbeddedBackend(path)
    store = backend.open(BOTH, create=False)
    answers: list[int] = []

    def look(seconds: float) -> None:
        try:
            answers.append(len(store.search("dense", ASKED["dense"], 5, timeout=seconds)[0]))
        except Retry:
            answers.append(0)

    threads = [threading.Thread(target=look, args=(seconds,)) for seconds in (60.0, 1e-6, 60.0, 1e-6, 60.0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers)[2:] == [5, 5, 5]
    backend.close()


@pytest.mark.parametrize("index", ["flat", "hnsw"])
def test_numbers_at_the_end_of_float32_are_as_in_the_oracle(
    tmp_path: Path, index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bartizan_connector.store.embedded.building._FEWEST", 0)
    backend, oracle = EmbeddedBackend(tmp_path / "i.bartizan", index=index), MemoryBackend()  # type: ignore[arg-type]
    dice = np.random.default_rng(4)
    matrix = dice.standard_normal((200, 4)).astype(np.float32)
    large = matrix.copy()
    large[::10] *= np.float32(1e38)
    for name, values in (("suite", matrix), ("wide", large)):
        collection = COLLECTION.model_copy(update={"name": name})
        stores = [each.open(collection) for each in (backend, oracle)]
        for store in stores:
            store.upsert([row(f"d{i:03}", value.tolist()) for i, value in enumerate(values)])
        stores[0].reindex() if name == "suite" else None
        for query in ([3e38] * 4, [3e38, -3e38, 1, 0], [-3e38, 1e-38, 3e38, 2], [1e-38] * 4, [0] * 4):
            for filter in (None, filters.parse("id < 'd100'")):
                found, wanted = (store.search("dense", queries(query), 20, filter) for store in stores)
                if index == "hnsw":  # of many that tie, a graph picks some
                    found, wanted = ([[hit.score for hit in hits] for hits in each] for each in (found, wanted))
                assert found == wanted, (name, query)
    backend.close()


def test_a_list_of_fifty_thousand_values_means_what_it_means_in_memory(tmp_path: Path) -> None:
    backend, oracle = EmbeddedBackend(tmp_path / "i.bartizan"), MemoryBackend()
    stores = [each.open(COLLECTION) for each in (backend, oracle)]
    prices = [0.1 + 0.2, -0.0, 5e-324, 1.6e308, 3.0]
    for store in stores:
        store.upsert(
            [
                row(f"d{i}\x00", [1, i, 0, 0], title=f"ü{i}\x00", year=i * 2**40, price=prices[i % 5], fresh=i % 2 == 0)
                for i in range(40)
            ]
        )
    many = tuple(i * 2**40 for i in range(0, 100_000, 2))
    for filter in (
        filters.In("year", many),
        filters.Not(filters.In("year", many)),
        filters.And((filters.In("year", many[:300]), filters.In("year", many[5:400]))),
        filters.In("id", tuple(f"d{i}\x00" for i in range(3, 50_000))),
        filters.In("title", tuple(f"ü{i}\x00" for i in range(0, 900, 3))),
        filters.In("price", (0.0, 0.1 + 0.2, *range(10, 1_000))),
        filters.In("price", (0.3, 5e-324, 3, *(float(i) for i in range(10, 1_000)))),
        filters.In("fresh", (True,) * 500),
    ):
        one, other = (store.search("dense", queries([1, 1, 1, 1]), 100, filter) for store in stores)
        assert one == other
        assert [document.id for document in stores[0].scan(filter)] == sorted(
            document.id for document in stores[1].scan(filter)
        )
        assert stores[0].count(filter) == stores[1].count(filter)
    assert stores[0].purge(-(2**70)) == stores[1].purge(-(2**70)) == 0
    backend.close()
