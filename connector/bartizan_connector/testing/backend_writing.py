"""BackendSuite's tests of writing: rows, heads, deletes, and what must be refused."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from bartizan_connector.base.errors import Reject, SpaceMismatch
from bartizan_connector.space.vectors import Vector
from bartizan_connector.store import filters
from bartizan_connector.store.backend import Store
from bartizan_connector.store.collection import Head, Hit
from bartizan_connector.testing.backend_base import OnBackend
from bartizan_connector.testing.rows import BAD_HEADS, BAD_ROWS, batch, found, queries, row


class Writing(OnBackend):
    """Upsert, touch, delete, heads."""

    def test_what_was_written_is_found_with_its_fields(self, store: Store) -> None:
        store.upsert([row("a", [1, 2, 3, 4], title="A", year=1999, price=0.5, fresh=True), row("b", [0, 0, 0, 1])])
        (hits,) = store.search("dense", queries([1, 1, 1, 1]), 10)
        assert hits == [
            Hit(id="a", chunk=0, score=10.0, fields={"title": "A", "year": 1999, "price": 0.5, "fresh": True}),
            Hit(id="b", chunk=0, score=1.0, fields={"title": "", "year": 0, "price": 0.0, "fresh": False}),
        ]

    def test_writing_the_same_again_changes_nothing(self, store: Store) -> None:
        rows = [row(f"d{i}", [i, 0, 0, 0], chunk=chunk) for i in range(5) for chunk in range(2)]
        for _ in range(3):
            store.upsert(rows)
        assert self.everything(store) == {(f"d{i}", chunk) for i in range(5) for chunk in range(2)}

    def test_a_second_write_replaces_vector_and_fields(self, store: Store) -> None:
        store.upsert([row("a", [1, 0, 0, 0], title="old", year=1, version=1, hash="old")])
        store.upsert([row("a", [0, 5, 0, 0], title="new", version=2, hash="new")])
        (hits,) = store.search("dense", queries([1, 1, 0, 0]), 10)
        assert [(hit.id, hit.score, hit.fields["title"], hit.fields["year"]) for hit in hits] == [("a", 5.0, "new", 0)]
        assert store.heads(["a"]) == {"a": Head(id="a", version=2, hash="new")}

    def test_the_last_of_a_row_given_twice_in_one_batch_wins(self, store: Store) -> None:
        store.upsert([row("a", [i, 0, 0, 0], version=i, hash=str(i)) for i in (1, 2, 3)])
        (hits,) = store.search("dense", queries([1, 0, 0, 0]), 10)
        assert [(hit.id, hit.score) for hit in hits] == [("a", 3.0)]
        assert store.heads(["a"])["a"].version == 3

    def test_a_document_that_shrank_leaves_no_chunk_behind(self, store: Store) -> None:
        store.upsert([row("a", [1, 0, 0, 0], chunk=chunk) for chunk in range(5)] + [row("b", [1, 0, 0, 0])])
        store.upsert([row("a", [2, 0, 0, 0], chunk=chunk, version=2) for chunk in range(2)])
        assert self.everything(store) == {("a", 0), ("a", 1), ("b", 0)}
        store.upsert([row("a", [2, 0, 0, 0], chunk=3, version=3)])
        assert self.everything(store) == {("a", 3), ("b", 0)}

    def test_empty_batches_do_nothing(self, store: Store) -> None:
        store.upsert([])
        store.delete([])
        store.touch([])
        assert store.heads([]) == {}
        assert store.search("dense", batch(np.zeros((0, 4), dtype=np.float32)), 5) == []
        assert self.everything(store) == set()

    def test_a_batch_larger_than_one_request_arrives_whole(self, store: Store) -> None:
        store.upsert([row(f"d{i:04}", [i % 7, 1, 0, 0], title="t" * (60_000 if i < 60 else 1)) for i in range(1201)])
        store.touch([Head(id=f"d{i:04}", version=2, hash="h") for i in range(1201)])
        (hits,) = store.search("dense", queries([0, 1, 0, 0]), 1300)
        assert found(hits) == [(f"d{i:04}", 0) for i in range(1201)]
        heads = store.heads([f"d{i:04}" for i in range(1201)])
        assert len(heads) == 1201
        assert {head.version for head in heads.values()} == {2}

    # ---- heads

    def test_heads_know_own_writes_at_once_and_leave_out_unknown_ids(self, store: Store) -> None:
        for version in range(1, 6):
            store.upsert([row("a", [1, 0, 0, 0], version=version, hash=f"h{version}")])
            heads = store.heads(["a", "never", "a", ""])
            assert heads == {"a": Head(id="a", version=version, hash=f"h{version}")}

    def test_claiming_writes_nothing_and_can_be_done_again(self, store: Store) -> None:
        store.upsert([row("a", [1, 0, 0, 0])])
        before = store.heads(["a"])
        store.claim()
        store.claim()
        assert store.heads(["a"]) == before
        store.upsert([row("b", [1, 0, 0, 0])])
        assert store.count() == 2

    def test_touching_moves_the_version_and_keeps_the_rows(self, store: Store) -> None:
        store.upsert([row("a", [3, 0, 0, 0], chunk=chunk, title="kept") for chunk in range(3)])
        store.touch([Head(id="a", version=9, hash="h")])
        assert store.heads(["a"]) == {"a": Head(id="a", version=9, hash="h")}
        (hits,) = store.search("dense", queries([1, 0, 0, 0]), 10)
        assert [(hit.id, hit.chunk, hit.score, hit.fields["title"]) for hit in hits] == [
            ("a", chunk, 3.0, "kept") for chunk in range(3)
        ]
        store.upsert([row("a", [1, 0, 0, 0], version=10)])
        assert self.everything(store) == {("a", 0)}

    def test_an_empty_hash_is_remembered_as_given_and_keeps_the_rows(self, store: Store) -> None:
        store.upsert([row("a", [3, 0, 0, 0], version=4)])
        store.touch([Head(id="a", version=4, hash="")])
        assert store.heads(["a"]) == {"a": Head(id="a", version=4, hash="")}
        assert self.everything(store) == {("a", 0)}

    def test_a_delete_removes_all_chunks_and_is_remembered(self, store: Store) -> None:
        store.upsert([row("a", [1, 0, 0, 0], chunk=chunk) for chunk in range(3)] + [row("b", [1, 0, 0, 0])])
        store.delete([Head(id="a", version=7)])
        assert self.everything(store) == {("b", 0)}
        assert store.heads(["a", "b"]) == {
            "a": Head(id="a", version=7, deleted=True),
            "b": Head(id="b", version=1, hash="h"),
        }

    def test_deleting_what_never_was_is_remembered_too(self, store: Store) -> None:
        store.delete([Head(id="ghost", version=4), Head(id="ghost", version=5)])
        assert store.heads(["ghost"]) == {"ghost": Head(id="ghost", version=5, deleted=True)}
        assert self.everything(store) == set()

    def test_a_deleted_document_can_come_back(self, store: Store) -> None:
        store.upsert([row("a", [1, 0, 0, 0], chunk=chunk) for chunk in range(3)])
        store.delete([Head(id="a", version=2)])
        store.upsert([row("a", [1, 0, 0, 0], version=3)])
        assert self.everything(store) == {("a", 0)}
        assert store.heads(["a"]) == {"a": Head(id="a", version=3, hash="h")}

    def test_writes_and_deletes_in_turn_end_as_the_last_one_says(self, store: Store) -> None:
        for version in range(1, 21, 2):
            store.upsert([row("a", [1, 0, 0, 0], version=version), row("b", [1, 0, 0, 0], version=version)])
            store.delete([Head(id="a", version=version + 1)])
        assert self.everything(store) == {("b", 0)}
        assert store.heads(["a"])["a"] == Head(id="a", version=20, deleted=True)

    def test_threads_can_write_and_search_at_the_same_time(self, store: Store) -> None:
        def seen_by(thread: int) -> list[tuple[int, float]]:
            (hits,) = store.search("dense", queries([1, 0, 0, 0]), 100, filters.parse(f"id == 't{thread}'"))
            return [(hit.chunk, hit.score) for hit in hits]

        def work(thread: int) -> None:
            for version in range(1, 6):
                store.upsert([row(f"t{thread}", [version, 0, 0, 0], chunk=c, version=version) for c in range(3)])
                store.upsert([row(f"t{thread}", [version, 0, 0, 0], version=version)])
                deadline = time.monotonic() + self.settles
                while (seen := seen_by(thread)) != [(0, version)] and time.monotonic() < deadline:
                    time.sleep(0.05)
                assert seen == [(0, version)]

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
        assert self.everything(store) == {(f"t{thread}", 0) for thread in range(4)}
        assert {head.version for head in store.heads([f"t{thread}" for thread in range(4)]).values()} == {5}

    def test_where_a_change_came_from_is_remembered_with_it(self, store: Store) -> None:
        origins = ("docs/0", "", 'é "quoted" \\', "o" * 256)
        rows = [replace(row(f"d{i}", [1, 0, 0, 0]), origin=text, offset=i * 2**60) for i, text in enumerate(origins)]
        store.upsert(rows)
        assert store.heads([each.id for each in rows]) == {each.id: each.head for each in rows}
        for verb, deleted in ((store.touch, False), (store.delete, True)):
            heads = [Head(id=each.id, version=2, origin=each.origin, offset=7) for each in rows]
            verb(heads)
            assert store.heads([each.id for each in rows]) == {
                head.id: replace(head, deleted=deleted) for head in heads
            }

    # ---- refusals: nothing of the batch is written

    def test_a_bad_head_is_rejected_by_id_and_nothing_is_remembered(self, store: Store) -> None:
        for bad, reason in BAD_HEADS:
            for verb in (store.touch, store.delete):
                with pytest.raises(Reject, match=reason) as raised:
                    verb([Head(id="good", version=1), bad])
                assert raised.value.ids == (bad.id,), reason
        assert store.heads(["good", "bad"]) == {}

    def test_a_bad_row_is_rejected_by_id_and_nothing_is_written(self, store: Store) -> None:
        for bad, reason in BAD_ROWS:
            with pytest.raises(Reject, match=reason) as raised:
                store.upsert([row("good", [1, 0, 0, 0]), bad])
            assert raised.value.ids == (bad.id,), reason
        assert self.everything(store) == set()
        assert store.heads(["good"]) == {}

    def test_a_row_of_another_space_is_refused_and_nothing_is_written(self, store: Store) -> None:
        vector = Vector("another", np.ones(4, dtype=np.float32))
        with pytest.raises(SpaceMismatch, match="another"):
            store.upsert([row("good", [1, 0, 0, 0]), replace(row("bad", [0, 0, 0, 0]), vectors={"dense": vector})])
        assert self.everything(store) == set()
