"""BackendSuite: what every search back-end must do; subclass it, give an empty back-end, inherit the tests.

    class TestMyBackend(BackendSuite):
        def make(self) -> SearchBackend:
            return MyBackend(...)

`make` gives a back-end that holds nothing and whose searches see every write at once. A known gap is the inherited test
overridden with `@pytest.mark.xfail(strict=True, reason=…)`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from bartizan_connector.base.errors import Reject, SpaceMismatch, Stop, WrongUse
from bartizan_connector.space.vectors import Vector
from bartizan_connector.store import filters
from bartizan_connector.store.backend import SearchBackend
from bartizan_connector.store.collection import Collection, FieldSpec, Head, Hit, Row
from bartizan_connector.testing.rows import (
    BAD_ROWS,
    COLLECTION,
    DENSE,
    FIELDS,
    FILTERS,
    HOSTILE,
    SPACE,
    SPARSE,
    batch,
    found,
    queries,
    row,
    sparse,
)  # fmt: skip


class BackendSuite(ABC):
    """The conformance tests of the seam SearchBackend."""

    @abstractmethod
    def make(self) -> SearchBackend:
        """An empty back-end."""

    @pytest.fixture
    def backend(self) -> Iterator[SearchBackend]:
        backend = self.make()
        backend.ensure(COLLECTION)
        yield backend
        backend.close()

    def everything(self, backend: SearchBackend) -> set[tuple[str, int]]:
        """All rows that a search can reach."""
        (hits,) = backend.search("dense", queries([1, 0, 0, 0]), 1000)
        return set(found(hits))

    # ---- the collection and its contract

    def test_it_starts_empty(self, backend: SearchBackend) -> None:
        """When this fails, `make` gives a back-end that still holds another test's rows."""
        assert self.everything(backend) == set()
        assert backend.heads(["a"]) == {}

    def test_ensuring_twice_changes_nothing(self, backend: SearchBackend) -> None:
        backend.upsert([row("a", [1, 0, 0, 0])])
        backend.ensure(COLLECTION)
        backend.ensure(COLLECTION, create=False)
        assert self.everything(backend) == {("a", 0)}

    def test_another_space_is_refused_and_nothing_changes(self, backend: SearchBackend) -> None:
        backend.upsert([row("a", [1, 0, 0, 0])])
        other = COLLECTION.model_copy(update={"legs": (DENSE.model_copy(update={"space_id": "another"}),)})
        with pytest.raises(SpaceMismatch, match=r"another(.|\n)*collection name") as raised:
            backend.ensure(other)
        assert (raised.value.expected, raised.value.came) == (SPACE, "another")
        assert self.everything(backend) == {("a", 0)}

    @pytest.mark.parametrize(
        "change",
        [
            {"legs": (DENSE.model_copy(update={"dim": 5}),)},
            {"legs": (DENSE.model_copy(update={"name": "other"}),)},
            {"legs": (DENSE, DENSE.model_copy(update={"name": "second"}))},
            {"fields": FIELDS[:-1]},
            {"fields": (*FIELDS, FieldSpec(name="more", type="int", default=1))},
            {"fields": (*FIELDS[:-1], FieldSpec(name="fresh", type="int", default=1))},
        ],
    )
    def test_another_leg_or_field_is_refused(self, backend: SearchBackend, change: dict[str, object]) -> None:
        with pytest.raises(Stop, match="suite"):
            backend.ensure(COLLECTION.model_copy(update=change))

    def test_a_missing_collection_is_not_made_for_a_reader(self, backend: SearchBackend) -> None:
        absent = COLLECTION.model_copy(update={"name": "absent"})
        for _ in range(2):
            with pytest.raises(WrongUse, match="absent"):
                backend.ensure(absent, create=False)

    def test_nothing_works_before_ensure(self) -> None:
        backend = self.make()
        with pytest.raises(WrongUse, match="ensure"):
            backend.upsert([row("a", [1, 0, 0, 0])])
        with pytest.raises(WrongUse, match="ensure"):
            backend.search("dense", queries([1, 0, 0, 0]), 1)
        backend.close()

    def test_closing_twice_is_fine(self) -> None:
        backend = self.make()
        backend.ensure(COLLECTION)
        backend.close()
        backend.close()

    # ---- writing

    def test_what_was_written_is_found_with_its_fields(self, backend: SearchBackend) -> None:
        backend.upsert([row("a", [1, 2, 3, 4], title="A", year=1999, price=0.5, fresh=True), row("b", [0, 0, 0, 1])])
        (hits,) = backend.search("dense", queries([1, 1, 1, 1]), 10)
        assert hits == [
            Hit(id="a", chunk=0, score=10.0, fields={"title": "A", "year": 1999, "price": 0.5, "fresh": True}),
            Hit(id="b", chunk=0, score=1.0, fields={"title": "", "year": 0, "price": 0.0, "fresh": False}),
        ]

    def test_writing_the_same_again_changes_nothing(self, backend: SearchBackend) -> None:
        rows = [row(f"d{i}", [i, 0, 0, 0], chunk=chunk) for i in range(5) for chunk in range(2)]
        for _ in range(3):
            backend.upsert(rows)
        assert self.everything(backend) == {(f"d{i}", chunk) for i in range(5) for chunk in range(2)}

    def test_a_second_write_replaces_vector_and_fields(self, backend: SearchBackend) -> None:
        backend.upsert([row("a", [1, 0, 0, 0], title="old", year=1, version=1, hash="old")])
        backend.upsert([row("a", [0, 5, 0, 0], title="new", version=2, hash="new")])
        (hits,) = backend.search("dense", queries([1, 1, 0, 0]), 10)
        assert [(hit.id, hit.score, hit.fields["title"], hit.fields["year"]) for hit in hits] == [("a", 5.0, "new", 0)]
        assert backend.heads(["a"]) == {"a": Head(id="a", version=2, hash="new")}

    def test_the_last_of_a_row_given_twice_in_one_batch_wins(self, backend: SearchBackend) -> None:
        backend.upsert([row("a", [i, 0, 0, 0], version=i, hash=str(i)) for i in (1, 2, 3)])
        (hits,) = backend.search("dense", queries([1, 0, 0, 0]), 10)
        assert [(hit.id, hit.score) for hit in hits] == [("a", 3.0)]
        assert backend.heads(["a"])["a"].version == 3

    def test_a_document_that_shrank_leaves_no_chunk_behind(self, backend: SearchBackend) -> None:
        backend.upsert([row("a", [1, 0, 0, 0], chunk=chunk) for chunk in range(5)] + [row("b", [1, 0, 0, 0])])
        backend.upsert([row("a", [2, 0, 0, 0], chunk=chunk, version=2) for chunk in range(2)])
        assert self.everything(backend) == {("a", 0), ("a", 1), ("b", 0)}
        backend.upsert([row("a", [2, 0, 0, 0], chunk=3, version=3)])
        assert self.everything(backend) == {("a", 3), ("b", 0)}

    def test_empty_batches_do_nothing(self, backend: SearchBackend) -> None:
        backend.upsert([])
        backend.delete([])
        backend.touch([])
        assert backend.heads([]) == {}
        assert backend.search("dense", batch(np.zeros((0, 4), dtype=np.float32)), 5) == []
        assert self.everything(backend) == set()

    def test_a_batch_larger_than_one_request_arrives_whole(self, backend: SearchBackend) -> None:
        backend.upsert([row(f"d{i:04}", [i % 7, 1, 0, 0], title="t" * (60_000 if i < 60 else 1)) for i in range(1201)])
        backend.touch([Head(id=f"d{i:04}", version=2, hash="h") for i in range(1201)])
        (hits,) = backend.search("dense", queries([0, 1, 0, 0]), 1300)
        assert found(hits) == [(f"d{i:04}", 0) for i in range(1201)]
        heads = backend.heads([f"d{i:04}" for i in range(1201)])
        assert len(heads) == 1201
        assert {head.version for head in heads.values()} == {2}

    # ---- heads

    def test_heads_know_own_writes_at_once_and_leave_out_unknown_ids(self, backend: SearchBackend) -> None:
        for version in range(1, 6):
            backend.upsert([row("a", [1, 0, 0, 0], version=version, hash=f"h{version}")])
            heads = backend.heads(["a", "never", "a", ""])
            assert heads == {"a": Head(id="a", version=version, hash=f"h{version}")}

    def test_touching_moves_the_version_and_keeps_the_rows(self, backend: SearchBackend) -> None:
        backend.upsert([row("a", [3, 0, 0, 0], chunk=chunk, title="kept") for chunk in range(3)])
        backend.touch([Head(id="a", version=9, hash="h")])
        assert backend.heads(["a"]) == {"a": Head(id="a", version=9, hash="h")}
        (hits,) = backend.search("dense", queries([1, 0, 0, 0]), 10)
        assert [(hit.id, hit.chunk, hit.score, hit.fields["title"]) for hit in hits] == [
            ("a", chunk, 3.0, "kept") for chunk in range(3)
        ]
        backend.upsert([row("a", [1, 0, 0, 0], version=10)])
        assert self.everything(backend) == {("a", 0)}

    def test_an_empty_hash_is_remembered_as_given_and_keeps_the_rows(self, backend: SearchBackend) -> None:
        backend.upsert([row("a", [3, 0, 0, 0], version=4)])
        backend.touch([Head(id="a", version=4, hash="")])
        assert backend.heads(["a"]) == {"a": Head(id="a", version=4, hash="")}
        assert self.everything(backend) == {("a", 0)}

    def test_a_delete_removes_all_chunks_and_is_remembered(self, backend: SearchBackend) -> None:
        backend.upsert([row("a", [1, 0, 0, 0], chunk=chunk) for chunk in range(3)] + [row("b", [1, 0, 0, 0])])
        backend.delete([Head(id="a", version=7)])
        assert self.everything(backend) == {("b", 0)}
        assert backend.heads(["a", "b"]) == {
            "a": Head(id="a", version=7, deleted=True),
            "b": Head(id="b", version=1, hash="h"),
        }

    def test_deleting_what_never_was_is_remembered_too(self, backend: SearchBackend) -> None:
        backend.delete([Head(id="ghost", version=4), Head(id="ghost", version=5)])
        assert backend.heads(["ghost"]) == {"ghost": Head(id="ghost", version=5, deleted=True)}
        assert self.everything(backend) == set()

    def test_a_deleted_document_can_come_back(self, backend: SearchBackend) -> None:
        backend.upsert([row("a", [1, 0, 0, 0], chunk=chunk) for chunk in range(3)])
        backend.delete([Head(id="a", version=2)])
        backend.upsert([row("a", [1, 0, 0, 0], version=3)])
        assert self.everything(backend) == {("a", 0)}
        assert backend.heads(["a"]) == {"a": Head(id="a", version=3, hash="h")}

    def test_writes_and_deletes_in_turn_end_as_the_last_one_says(self, backend: SearchBackend) -> None:
        for version in range(1, 21, 2):
            backend.upsert([row("a", [1, 0, 0, 0], version=version), row("b", [1, 0, 0, 0], version=version)])
            backend.delete([Head(id="a", version=version + 1)])
        assert self.everything(backend) == {("b", 0)}
        assert backend.heads(["a"])["a"] == Head(id="a", version=20, deleted=True)

    def test_threads_can_write_and_search_at_the_same_time(self, backend: SearchBackend) -> None:
        def work(thread: int) -> None:
            for version in range(1, 6):
                backend.upsert([row(f"t{thread}", [version, 0, 0, 0], chunk=c, version=version) for c in range(3)])
                backend.upsert([row(f"t{thread}", [version, 0, 0, 0], version=version)])
                (hits,) = backend.search("dense", queries([1, 0, 0, 0]), 100, filters.parse(f"id == 't{thread}'"))
                assert [(hit.chunk, hit.score) for hit in hits] == [(0, version)]

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
        assert self.everything(backend) == {(f"t{thread}", 0) for thread in range(4)}
        assert {head.version for head in backend.heads([f"t{thread}" for thread in range(4)]).values()} == {5}

    # ---- refusals: nothing of the batch is written

    def test_a_bad_row_is_rejected_by_id_and_nothing_is_written(self, backend: SearchBackend) -> None:
        for bad, reason in BAD_ROWS:
            with pytest.raises(Reject, match=reason) as raised:
                backend.upsert([row("good", [1, 0, 0, 0]), bad])
            assert raised.value.ids == (bad.id,), reason
        assert self.everything(backend) == set()
        assert backend.heads(["good"]) == {}

    def test_a_row_of_another_space_is_refused_and_nothing_is_written(self, backend: SearchBackend) -> None:
        vector = Vector("another", np.ones(4, dtype=np.float32))
        with pytest.raises(SpaceMismatch, match="another"):
            backend.upsert([row("good", [1, 0, 0, 0]), replace(row("bad", [0, 0, 0, 0]), vectors={"dense": vector})])
        assert self.everything(backend) == set()

    def test_a_query_of_another_space_is_refused(self, backend: SearchBackend) -> None:
        backend.upsert([row("a", [1, 0, 0, 0])])
        with pytest.raises(SpaceMismatch, match="another"):
            backend.search("dense", queries([1, 0, 0, 0], space_id="another"), 1)

    def test_a_query_that_cannot_mean_anything_is_refused(self, backend: SearchBackend) -> None:
        with pytest.raises(WrongUse, match="no leg 'nope'"):
            backend.search("nope", queries([1, 0, 0, 0]), 1)
        with pytest.raises(WrongUse, match="length 4"):
            backend.search("dense", queries([1, 0, 0]), 1)
        with pytest.raises(WrongUse, match="dense"):
            backend.search("dense", batch((sparse({1: 1.0}),)), 1)
        for k in (0, -1, 10**6):
            with pytest.raises(WrongUse, match="k = "):
                backend.search("dense", queries([1, 0, 0, 0]), k)
        for filter in (filters.Compare("nope", "==", 1), filters.Compare("year", "==", "1"), filters.In("fresh", (1,))):
            with pytest.raises(WrongUse, match="field"):
                backend.search("dense", queries([1, 0, 0, 0]), 1, filter)

    # ---- searching

    def test_bigger_scores_come_first_also_below_zero(self, backend: SearchBackend) -> None:
        backend.upsert([row(f"d{i}", [i, 0, 0, 0]) for i in (-3, 5, 0, -1, 2)])
        (hits,) = backend.search("dense", queries([1, 0, 0, 0]), 10)
        assert [(hit.id, hit.score) for hit in hits] == [
            ("d5", 5.0), ("d2", 2.0), ("d0", 0.0), ("d-1", -1.0), ("d-3", -3.0)
        ]  # fmt: skip

    def test_ties_are_in_order_of_id_and_chunk_even_where_k_cuts_them(self, backend: SearchBackend) -> None:
        ids = [f"t{(7 * i) % 10}" for i in range(10)]
        backend.upsert([row(id, [1, 1, 0, 0], chunk=chunk) for id in ids for chunk in (2, 0, 1)])
        for k in (1, 3, 10, 29, 30):
            (hits,) = backend.search("dense", queries([1, 0, 0, 0]), k)
            assert found(hits) == [(id, chunk) for id in sorted(ids) for chunk in range(3)][:k]

    def test_more_results_than_rows_gives_all_rows(self, backend: SearchBackend) -> None:
        backend.upsert([row("a", [1, 0, 0, 0]), row("b", [2, 0, 0, 0])])
        (hits,) = backend.search("dense", queries([1, 0, 0, 0]), 5000)
        assert found(hits) == [("b", 0), ("a", 0)]

    def test_each_query_of_a_batch_gets_its_own_answer(self, backend: SearchBackend) -> None:
        backend.upsert([row("x", [1, 0, 0, 0]), row("y", [0, 1, 0, 0]), row("z", [0, 0, 1, 0])])
        answers = backend.search("dense", queries([0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 9, 0]), 1)
        assert [[hit.id for hit in hits] for hits in answers] == [["y"], ["x"], ["z"]]

    def test_filters_pass_exactly_the_rows_that_they_describe(self, backend: SearchBackend) -> None:
        backend.upsert(
            [
                row("a", [1, 0, 0, 0], title="one", year=2019, price=-0.5, fresh=True),
                row("b", [2, 0, 0, 0], title="two", year=2020, price=1, fresh=False),
                row("c", [3, 0, 0, 0], title="three", year=2021, price=2.25, fresh=True),
                row("d", [4, 0, 0, 0], title="", year=2022, price=1e300, fresh=False),
            ]
        )
        for filter, expected in FILTERS.items():
            (hits,) = backend.search("dense", queries([1, 0, 0, 0]), 10, filters.parse(filter))
            assert [hit.id for hit in hits] == sorted(expected, reverse=True), filter

    def test_a_filter_is_applied_before_k_cuts(self, backend: SearchBackend) -> None:
        backend.upsert([row(f"d{i:03}", [i, 0, 0, 0], year=i) for i in range(200)])
        (hits,) = backend.search("dense", queries([1, 0, 0, 0]), 3, filters.parse("year < 5"))
        assert [hit.id for hit in hits] == ["d004", "d003", "d002"]

    def test_hostile_texts_are_ids_fields_and_constants_like_any_other(self, backend: SearchBackend) -> None:
        backend.upsert([row(text, [1, 0, 0, 0], title=text, hash="h") for text in HOSTILE])
        assert self.everything(backend) == {(text, 0) for text in HOSTILE}
        assert set(backend.heads(HOSTILE)) == set(HOSTILE)
        for text in HOSTILE:
            for filter in (filters.Compare("title", "==", text), filters.In("id", (text, "other"))):
                (hits,) = backend.search("dense", queries([1, 0, 0, 0]), 10, filter)
                assert [(hit.id, hit.fields["title"]) for hit in hits] == [(text, text)]
        backend.delete([Head(id=text, version=2) for text in HOSTILE[1:]])
        assert self.everything(backend) == {(HOSTILE[0], 0)}

    def test_ids_that_differ_only_in_what_looks_like_a_chunk_number_are_apart(self, backend: SearchBackend) -> None:
        backend.upsert([row("a", [1, 0, 0, 0], chunk=1), row("a#1", [1, 0, 0, 0], chunk=0), row("a#1#0", [1, 0, 0, 0])])
        backend.delete([Head(id="a", version=2)])
        assert self.everything(backend) == {("a#1", 0), ("a#1#0", 0)}

    # ---- sparse vectors

    def test_a_sparse_leg_ranks_by_inner_product_and_leaves_out_what_shares_no_term(self) -> None:
        backend = self.make()
        backend.ensure(Collection(name="sparse_suite", legs=(SPARSE,), fields=()))
        weights: dict[str, dict[int, float]] = {
            "a": {1: 1, 5: 2}, "b": {1: 3}, "c": {99: 1}, "empty": {}, "d": {5: 1, 7: 1}
        }  # fmt: skip
        backend.upsert(
            [
                Row(id=id, vectors={"sparse": Vector(SPACE, sparse(one))}, version=1, hash="h")
                for id, one in weights.items()
            ]
        )
        asked: list[dict[int, float]] = [{1: 1, 5: 1}, {0: 1}, {}, {99: 2}]
        answers = backend.search("sparse", batch(tuple(sparse(one) for one in asked)), 10)
        assert [[(hit.id, hit.score) for hit in hits] for hits in answers] == [
            [("a", 3.0), ("b", 3.0), ("d", 1.0)], [], [], [("c", 2.0)]
        ]  # fmt: skip
        with pytest.raises(WrongUse, match="vocabulary of 100"):
            backend.search("sparse", batch((sparse({100: 1.0}),)), 1)
        beyond = Row(id="x", vectors={"sparse": Vector(SPACE, sparse({100: 1.0}))}, version=1, hash="h")
        with pytest.raises(Reject, match="vocabulary of 100"):
            backend.upsert([beyond])
        backend.close()

    def test_one_row_can_be_searched_by_a_dense_and_by_a_sparse_leg(self) -> None:
        backend = self.make()
        backend.ensure(Collection(name="both_suite", legs=(DENSE, SPARSE), fields=FIELDS))
        for id, dense_value, sparse_value in (("a", 1, {1: 5.0}), ("b", 2, {1: 4.0}), ("c", 3, {2: 1.0})):
            vectors = {
                "dense": Vector(SPACE, np.array([dense_value, 0, 0, 0], dtype=np.float32)),
                "sparse": Vector(SPACE, sparse(sparse_value)),
            }
            backend.upsert([Row(id=id, vectors=vectors, version=1, hash="h", fields={"year": dense_value})])
        (by_dense,) = backend.search("dense", queries([1, 0, 0, 0]), 10)
        (by_sparse,) = backend.search("sparse", batch((sparse({1: 1.0}),)), 10, filters.parse("year > 1"))
        assert [hit.id for hit in by_dense] == ["c", "b", "a"]
        assert [hit.id for hit in by_sparse] == ["b"]
        backend.close()
