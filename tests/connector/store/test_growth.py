"""What 0.1.0 wrote opens, and goes on being written; a field that is added with a default changes nothing of it."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymilvus import MilvusClient

from bartizan_connector.base.errors import SpaceMismatch, Stop
from bartizan_connector.space.vectors import Vector
from bartizan_connector.store import filters
from bartizan_connector.store.backend import Store
from bartizan_connector.store.collection import Collection, FieldSpec, Head, Leg, Row
from bartizan_connector.store.milvus import MilvusBackend, lite, schema
from bartizan_connector.testing.rows import batch

FIXTURES = Path(__file__).parents[2] / "fixtures/0.1.0"
KNOWN: dict[str, Any] = json.loads((FIXTURES / "known.json").read_bytes())
COLLECTION = Collection.model_validate(KNOWN["collection"])
HEADS = {id: Head(id=id, **facts) for id, facts in KNOWN["heads"].items()}
OTHER = COLLECTION.model_copy(update={"legs": (COLLECTION.legs[0].model_copy(update={"space_id": "another"}),)})


class GrownLeg(Leg):
    weight: float = 1.0


class GrownField(FieldSpec):
    is_indexed: bool = False


class GrownCollection(Collection):
    """The contract as a later version may have it."""

    legs: tuple[GrownLeg, ...]
    fields: tuple[GrownField, ...] = ()
    language: str = "any"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A copy: opening it writes into it."""
    return Path(shutil.copytree(FIXTURES / "index.db", tmp_path / "index.db"))


@pytest.fixture
def backend(path: Path) -> Iterator[MilvusBackend]:
    backend = MilvusBackend(str(path))
    yield backend
    backend.close()


@pytest.fixture(params=["as it was", "grown"])
def store(backend: MilvusBackend, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Store:
    if request.param == "as it was":
        return backend.open(COLLECTION)
    monkeypatch.setattr(schema, "Collection", GrownCollection)
    return backend.open(GrownCollection.model_validate(KNOWN["collection"]), create=False)


def _row(id: str, value: float, *, version: int = 2**61, year: int = 0) -> Row:
    vector = Vector(COLLECTION.legs[0].space_id, np.full(8, value, dtype=np.float32))
    return Row(
        id=id, vectors={"dense": vector}, fields={"year": year}, version=version, hash="h", origin="docs/0", offset=3
    )


def _search(store: Store, filter: str | None = None) -> list[str]:
    vectors = batch(np.ones((1, 8), dtype=np.float32), COLLECTION.legs[0].space_id)
    (hits,) = store.search("dense", vectors, 10, filters.parse(filter) if filter else None)
    return [hit.id for hit in hits]


def test_what_0_1_0_wrote_is_read_by_its_name(backend: MilvusBackend, store: Store) -> None:
    assert store.physical_name == "docs"
    assert store.remarks == []
    assert backend.collections() == {"docs": store.collection}
    assert backend.aliases() == {}
    assert store.heads([*HEADS, "never"]) == HEADS
    assert sorted(_search(store)) == ["a", "b"]
    assert _search(store, "year == 2019") == ["a"]
    assert {document.id: document.head for document in store.scan()} == {id: HEADS[id] for id in ("a", "b")}
    assert store.get(["a"])["a"].rows[0].fields == {"title": "The tower", "text": "a tower of two", "year": 2019}
    assert (store.count(), store.count(filters.parse("year > 2019"))) == (2, 1)


def test_what_0_1_0_wrote_goes_on_being_written(path: Path, backend: MilvusBackend, store: Store) -> None:
    store.upsert([_row("a", 5.0, year=1), _row("new", 7.0)])
    store.touch([Head(id="b", version=2**61, hash=HEADS["b"].hash)])
    store.delete([Head(id="gone", version=2**61)])
    backend.close()
    second = MilvusBackend(str(path))
    again = second.open(COLLECTION, create=False)
    assert again.heads(["a", "b", "c", "new", "gone"]) == {
        "a": Head(id="a", version=2**61, hash="h"),  # its ledger has no place for an origin
        "b": Head(id="b", version=2**61, hash=HEADS["b"].hash),
        "c": HEADS["c"],
        "new": Head(id="new", version=2**61, hash="h"),
        "gone": Head(id="gone", version=2**61, deleted=True),
    }
    assert _search(again) == ["new", "a", "b"]
    assert again.purge(2**62) == 2
    assert set(again.heads(["c", "gone"])) == set()
    second.close()


def test_another_contract_is_refused_as_by_0_1_0(backend: MilvusBackend) -> None:
    with pytest.raises(SpaceMismatch, match="another"):
        backend.open(OTHER)
    with pytest.raises(Stop, match="fields"):
        backend.open(COLLECTION.model_copy(update={"fields": ()}))


def test_it_can_be_given_another_name_but_its_own_cannot_be_given_away(backend: MilvusBackend) -> None:
    backend.point("live", "docs")
    assert backend.open(COLLECTION.model_copy(update={"name": "live"})).physical_name == "docs"
    fresh = backend.open(COLLECTION.model_copy(update={"name": "fresh"}))
    with pytest.raises(Stop, match="collection of its own"):
        backend.point("docs", fresh.physical_name)
    assert backend.open(COLLECTION).physical_name == "docs"


@pytest.mark.parametrize("name", ["docs", "live"])
@pytest.mark.parametrize(
    ("successor", "error", "told"),
    [(None, Stop, "dropped"), (COLLECTION, Stop, "replaced"), (OTHER, SpaceMismatch, "another")],
    ids=["dropped", "replaced", "replaced by another space"],
)
def test_its_plain_name_is_pinned_too(
    backend: MilvusBackend, name: str, successor: Collection | None, error: type[Stop], told: str
) -> None:
    """The name, which was the physical one, becomes an alias: what is written by it would land in the successor."""
    backend.point("live", "docs")
    store = backend.open(COLLECTION.model_copy(update={"name": name}))
    backend.drop("docs")
    fresh = successor and backend.open(successor)
    if fresh and name == "live":
        backend.point("live", fresh.physical_name)
    for call in (
        lambda: store.upsert([_row("x", 1.0)]),
        lambda: store.touch([Head(id="x", version=1)]),
        lambda: store.delete([Head(id="a", version=2**61)]),
        lambda: store.heads(["a"]),
        lambda: store.get(["a"]),
        lambda: list(store.scan()),
        store.count,
        lambda: _search(store),
    ):
        with pytest.raises(error, match=told) as raised:
            call()
        assert type(raised.value) is error
    if fresh:
        assert (fresh.count(), fresh.heads(["x", "a"])) == (0, {})


def test_a_collection_that_stood_there_before_a_name_is_reindexed_like_any_other(path: Path) -> None:
    backend = MilvusBackend(str(path), index="hnsw")
    store = backend.open(COLLECTION)
    (remark,) = store.remarks
    assert "FLAT" in remark
    store.reindex()
    assert store.remarks == []
    client = MilvusClient(lite.serve(path, create=False))
    assert client.describe_index("docs", "dense")["index_type"] == "HNSW"
    assert sorted(_search(store)) == ["a", "b"]
    backend.close()
    client.close()
    lite.release(path)
