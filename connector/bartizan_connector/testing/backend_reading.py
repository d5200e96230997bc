"""BackendSuite's tests of reading back: get, scan, count; and of keeping: purge, reindex."""

import numpy as np
import pytest

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.space.vectors import SparseVector
from bartizan_connector.store import filters
from bartizan_connector.store.backend import Backend, Store
from bartizan_connector.store.collection import Collection, Document, Head
from bartizan_connector.testing.backend_base import OnBackend
from bartizan_connector.testing.rows import DENSE, HOSTILE, SPACE, TERMS, found, legs_row, queries, row


class Reading(OnBackend):
    """Get, scan, count, purge, reindex."""

    def test_a_document_comes_back_whole_with_its_head(self, store: Store) -> None:
        store.upsert(
            [row("a", [1, 0, 0, chunk], chunk=chunk, title=f"t{chunk}", year=2**53 + 1) for chunk in range(12)]
        )
        store.upsert([row("b", [1, 0, 0, 0], price=0.1)])
        store.delete([Head(id="gone", version=1)])
        store.touch([Head(id="a", version=7, hash="new", origin="docs/0", offset=9)])
        got = store.get(["b", "never", "a", "gone", "a", ""])
        assert set(got) == {"a", "b"}
        assert got["a"].head == Head(id="a", version=7, hash="new", origin="docs/0", offset=9)
        assert [one.chunk for one in got["a"].rows] == list(range(12))
        assert [one.fields["title"] for one in got["a"].rows] == [f"t{chunk}" for chunk in range(12)]
        assert {(one.id, one.head, one.fields["year"]) for one in got["a"].rows} == {("a", got["a"].head, 2**53 + 1)}
        assert got["b"].rows[0].fields == {"title": "", "year": 0, "price": 0.1, "fresh": False}
        assert all(one.vectors == {} for document in got.values() for one in document.rows)

    def test_own_writes_are_read_at_once(self, store: Store) -> None:
        for version in range(1, 6):
            store.upsert(
                [row("a", [version, 0, 0, 0], chunk=chunk, version=version) for chunk in range(version % 3 + 1)]
            )
            (document,) = store.get(["a"], vectors=True).values()
            assert (document.head.version, len(document.rows)) == (version, version % 3 + 1)
            assert store.count() == version % 3 + 1
        store.delete([Head(id="a", version=9)])
        assert store.get(["a"]) == {}

    def test_vectors_come_back_as_they_were_given(self, store: Store) -> None:
        store.upsert([row("a", [0.1, -2.5, 1e-7, 3e7])])
        for document in (store.get(["a"], vectors=True)["a"], *store.scan(vectors=True)):
            vector = document.rows[0].vectors["dense"]
            assert vector.space_id == SPACE
            assert isinstance(vector.value, np.ndarray)
            assert vector.value.dtype == np.float32
            assert vector.value.tolist() == np.array([0.1, -2.5, 1e-7, 3e7], dtype=np.float32).tolist()

    def test_sparse_vectors_come_back_as_they_were_given(self, backend: Backend) -> None:
        collection = Collection(name="suite_terms", legs=(DENSE, TERMS))
        store = backend.open(collection)
        given: dict[str, dict[int, float]] = {"a": {3: 0.5, 99: 2.0}, "empty": {}}
        store.upsert([legs_row(id, collection, [1, 0, 0, 0], weights) for id, weights in given.items()])
        for id, document in store.get(list(given), vectors=True).items():
            vector = document.rows[0].vectors["terms"]
            assert vector.space_id == TERMS.space_id
            assert isinstance(vector.value, SparseVector)
            assert dict(zip(vector.value.indices.tolist(), vector.value.weights.tolist(), strict=True)) == given[id]

    def test_a_scan_gives_every_document_once_and_whole(self, store: Store) -> None:
        assert list(store.scan()) == []
        ids = [f"d{i:04}" for i in range(1100)] + [f"d0001#{i}" for i in range(12)] + list(HOSTILE)
        store.upsert([row(id, [1, 0, 0, 0], chunk=chunk) for id in ids for chunk in range(1 + (id == "d0001") * 11)])
        store.delete([Head(id="d0002", version=2)])
        scanned = list(store.scan())
        assert len(scanned) == len(ids) - 1
        assert {document.id for document in scanned} == set(ids) - {"d0002"}
        assert {document.id: len(document.rows) for document in scanned if len(document.rows) > 1} == {"d0001": 12}
        some = ["d0001", "d0999", HOSTILE[0]]
        assert {document.id: document for document in scanned if document.id in some} == store.get(some)

    def test_a_scan_passes_a_document_of_which_one_row_passes(self, store: Store) -> None:
        store.upsert([row("a", [1, 0, 0, 0], chunk=chunk, year=2000 + chunk) for chunk in range(3)])
        store.upsert([row("b", [1, 0, 0, 0], year=2002), row("c", [1, 0, 0, 0], year=1999)])
        passed = {document.id: document for document in store.scan(filters.parse("year >= 2002"))}
        assert _chunks(passed) == {"a": [0, 1, 2], "b": [0]}
        assert _chunks({one.id: one for one in store.scan(filters.parse("id == 'a' or year == 1999"))}) == {
            "a": [0, 1, 2],
            "c": [0],
        }

    def test_a_scan_can_be_written_under(self, store: Store) -> None:
        store.upsert([row(f"d{i:04}", [1, 0, 0, 0]) for i in range(700)])
        seen: list[str] = []
        for document in store.scan():
            seen.append(document.id)
            if len(seen) == 1:
                store.delete([Head(id="d0699", version=2)])
                store.upsert([row("d0698", [2, 0, 0, 0], version=2)])
        assert len(seen) == len(set(seen))
        assert set(seen) >= {f"d{i:04}" for i in range(699)}

    def test_rows_are_counted_and_with_a_filter_those_that_pass(self, store: Store) -> None:
        store.upsert([row(f"d{i}", [1, 0, 0, 0], chunk=chunk, year=i) for i in range(20) for chunk in range(2)])
        store.upsert([row("d3", [1, 0, 0, 0], year=100, version=2)])
        store.delete([Head(id="d4", version=2)])
        assert store.count() == 37
        assert store.count(filters.parse("year < 5")) == 6
        assert store.count(filters.parse("year == 100")) == 1
        assert store.count(filters.parse("id in ['d4', 'never']")) == 0

    def test_a_filter_that_does_not_fit_is_refused(self, store: Store) -> None:
        with pytest.raises(WrongUse, match="unknown field"):
            store.count(filters.Compare("nope", "==", 1))
        with pytest.raises(WrongUse, match="unknown field"):
            list(store.scan(filters.Compare("nope", "==", 1)))

    # ---- keeping

    def test_old_deletes_are_forgotten_and_nothing_else(self, store: Store) -> None:
        store.upsert([row("living", [1, 0, 0, 0], version=1)])
        store.delete([Head(id=f"d{version}", version=version) for version in range(1, 8)])
        assert store.purge(1) == store.purge(-(2**70)) == store.purge(2**70, 2**70) == 0
        assert store.purge(5) == 4
        assert set(store.heads([f"d{version}" for version in range(1, 8)])) == {"d5", "d6", "d7"}
        assert store.heads(["living"]) == {"living": Head(id="living", version=1, hash="h")}
        assert store.purge(5) == 0
        assert store.purge(7, since=6) == 1
        assert set(store.heads([f"d{version}" for version in range(1, 8)])) == {"d5", "d7"}
        store.upsert([row("d1", [1, 0, 0, 0], version=1)])
        assert self.everything(store) == {("living", 0), ("d1", 0)}
        assert store.purge(2**63) == 2
        assert set(store.heads(["living", "d1", "d7"])) == {"living", "d1"}

    def test_a_new_collection_has_nothing_to_remark(self, store: Store) -> None:
        assert list(store.remarks) == []

    def test_reindexing_changes_no_answer(self, store: Store) -> None:
        store.upsert([row(f"d{i}", [i, 0, 0, 0], chunk=chunk) for i in range(30) for chunk in range(2)])
        store.delete([Head(id="d29", version=2)])
        before = store.search("dense", queries([1, 0, 0, 0]), 100), store.heads([f"d{i}" for i in range(30)])
        for _ in range(2):
            store.reindex()
            assert (list(store.remarks), store.count()) == ([], 58)
            assert (
                store.search("dense", queries([1, 0, 0, 0]), 100),
                store.heads([f"d{i}" for i in range(30)]),
            ) == before
        store.upsert([row("after", [99, 0, 0, 0])])
        (hits,) = store.search("dense", queries([1, 0, 0, 0]), 1)
        assert found(hits) == [("after", 0)]


def _chunks(documents: dict[str, Document]) -> dict[str, list[int]]:
    return {id: [one.chunk for one in document.rows] for id, document in documents.items()}
