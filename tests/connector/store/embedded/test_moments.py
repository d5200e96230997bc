"""An answer is of one moment: what a later search remembered of a filter is not used for an earlier moment."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from bartizan_connector.space.vectors import Vector
from bartizan_connector.store import filters
from bartizan_connector.store.backend import Store
from bartizan_connector.store.collection import Collection, Head, Hit, Row
from bartizan_connector.store.embedded import EmbeddedBackend
from bartizan_connector.store.embedded.store import EmbeddedStore
from bartizan_connector.store.memory import MemoryBackend
from bartizan_connector.testing.rows import DENSE, FIELDS, TERMS, batch, queries, row, sparse

COLLECTION = Collection(name="moments", legs=(DENSE, TERMS), fields=FIELDS)
FILTER = filters.parse("year >= 2000")
ASKED = {"dense": queries([1, 0, 0, 0]), "terms": batch((sparse({1: 1.0}),), TERMS.space_id)}
Write = Callable[[Store], None]


def _row(id: str, score: float, *, year: int = 2020, version: int = 1) -> Row:
    dense = row(id, [score, 1, 0, 0], version=version, hash=f"h{version}", year=year)
    vectors = {**dense.vectors, "terms": Vector(TERMS.space_id, sparse({1: 1.0 + score}))}
    return Row(id=id, chunk=0, vectors=vectors, fields=dense.fields, version=version, hash=dense.hash)


@pytest.fixture(params=["flat", "hnsw"])
def stores(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Store]]:
    """The store and the oracle, with the same rows."""
    monkeypatch.setattr("bartizan_connector.store.embedded.building._FEWEST", 0)
    backend = EmbeddedBackend(tmp_path / "index.bartizan", index=request.param)
    both: list[Store] = [backend.open(COLLECTION), MemoryBackend().open(COLLECTION)]
    for store in both:
        store.upsert([_row(f"d{i:02}", i / 64, year=1990 + i) for i in range(60)])
        store.reindex()
    yield both
    backend.close()


def _replace(store: Store) -> None:
    store.upsert([_row("d58", 0.25, year=1990, version=2), _row("d57", 2.0, version=2)])


def _delete(store: Store) -> None:
    store.delete([Head(id="d59", version=2), Head(id="d31", version=2)])


def _both(store: Store) -> None:
    _delete(store)
    _replace(store)


@pytest.mark.parametrize("leg", ["dense", "terms"])
@pytest.mark.parametrize("write", [_replace, _delete, _both])
def test_a_search_that_a_later_one_overtakes_answers_as_of_its_own_moment(
    stores: list[Store], leg: str, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, oracle = stores
    assert isinstance(store, EmbeddedStore)
    wanted = oracle.search(leg, ASKED[leg], 100, FILTER)
    passing, overtaking = store._allowed.passing, list[list[list[Hit]]]()

    def overtaken(*words: Any) -> Any:
        """The moment is taken; before the filter is asked for, another writes and searches by the same filter."""
        if not overtaking:
            overtaking.append([])
            with ThreadPoolExecutor(1) as other:
                other.submit(write, store).result()
                overtaking.append(other.submit(store.search, leg, ASKED[leg], 100, FILTER).result())
        return passing(*words)

    monkeypatch.setattr(store._allowed, "passing", overtaken)
    assert store.search(leg, ASKED[leg], 100, FILTER) == wanted
    write(oracle)
    assert overtaking[1] == oracle.search(leg, ASKED[leg], 100, FILTER) != wanted
    assert store.search(leg, ASKED[leg], 100, FILTER) == overtaking[1]
