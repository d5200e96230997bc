"""BackendSuite's tests of searching: order, filters, hostile texts, and queries that must be refused."""

from dataclasses import replace

import numpy as np
import pytest

from bartizan_connector.base.errors import Reject, SpaceMismatch, WrongUse
from bartizan_connector.space.vectors import Vector
from bartizan_connector.store import filters
from bartizan_connector.store.backend import Backend, Store
from bartizan_connector.store.collection import Collection, Head, Leg, Row
from bartizan_connector.testing.backend_base import OnBackend
from bartizan_connector.testing.rows import (
    DENSE,
    FIELDS,
    FILTERS,
    HOSTILE,
    NARROW,
    SPACE,
    SPARSE,
    TERMS,
    batch,
    found,
    legs_row,
    queries,
    row,
    sparse,
)  # fmt: skip


class Searching(OnBackend):
    """Search, on one leg and on several."""

    def test_bigger_scores_come_first_also_below_zero(self, store: Store) -> None:
        store.upsert([row(f"d{i}", [i, 0, 0, 0]) for i in (-3, 5, 0, -1, 2)])
        (hits,) = store.search("dense", queries([1, 0, 0, 0]), 10)
        assert [(hit.id, hit.score) for hit in hits] == [
            ("d5", 5.0), ("d2", 2.0), ("d0", 0.0), ("d-1", -1.0), ("d-3", -3.0)
        ]  # fmt: skip

    def test_ties_are_in_order_of_id_and_chunk_even_where_k_cuts_them(self, store: Store) -> None:
        ids = [f"t{(7 * i) % 10}" for i in range(10)]
        store.upsert([row(id, [1, 1, 0, 0], chunk=chunk) for id in ids for chunk in (2, 0, 1)])
        for k in (1, 3, 10, 29, 30):
            (hits,) = store.search("dense", queries([1, 0, 0, 0]), k)
            assert found(hits) == [(id, chunk) for id in sorted(ids) for chunk in range(3)][:k]

    def test_more_results_than_rows_gives_all_rows(self, store: Store) -> None:
        store.upsert([row("a", [1, 0, 0, 0]), row("b", [2, 0, 0, 0])])
        (hits,) = store.search("dense", queries([1, 0, 0, 0]), 5000)
        assert found(hits) == [("b", 0), ("a", 0)]

    def test_each_query_of_a_batch_gets_its_own_answer(self, store: Store) -> None:
        store.upsert([row("x", [1, 0, 0, 0]), row("y", [0, 1, 0, 0]), row("z", [0, 0, 1, 0])])
        answers = store.search("dense", queries([0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 9, 0]), 1)
        assert [[hit.id for hit in hits] for hits in answers] == [["y"], ["x"], ["z"]]

    def test_filters_pass_exactly_the_rows_that_they_describe(self, store: Store) -> None:
        store.upsert(
            [
                row("a", [1, 0, 0, 0], title="one", year=2019, price=-0.5, fresh=True),
                row("b", [2, 0, 0, 0], title="two", year=2020, price=1, fresh=False),
                row("c", [3, 0, 0, 0], title="three", year=2021, price=2.25, fresh=True),
                row("d", [4, 0, 0, 0], title="", year=2022, price=1e300, fresh=False),
            ]
        )
        for filter, expected in FILTERS.items():
            (hits,) = store.search("dense", queries([1, 0, 0, 0]), 10, filters.parse(filter))
            assert [hit.id for hit in hits] == sorted(expected, reverse=True), filter

    def test_a_filter_can_name_the_chunk_and_leave_documents_out(self, store: Store) -> None:
        chunks = [("a", 0, 1), ("a", 1, 5), ("b", 0, 2), ("b", 1, 3), ("b", 11, 9), ("c", 0, 0)]
        store.upsert([row(id, [score, 0, 0, 0], chunk=chunk) for id, chunk, score in chunks])
        for filter, expected in (
            ("chunk == 0", [("b", 0), ("a", 0), ("c", 0)]),
            ("chunk > 1", [("b", 11)]),
            ("chunk in [0, 11] and not id in ['a']", [("b", 11), ("b", 0), ("c", 0)]),
        ):
            (hits,) = store.search("dense", queries([1, 0, 0, 0]), 10, filters.parse(filter))
            assert found(hits) == expected, filter
        assert store.count(filters.parse("chunk == 0")) == 3

    def test_zero_has_no_sign_in_a_filter(self, store: Store) -> None:
        store.upsert([row(id, [1, 0, 0, 0], price=price) for id, price in (("a", 0.0), ("b", -0.0), ("c", 1.0))])
        for filter in ("price in [0.0]", "price in [2, -0.0]", "price == 0", "price == -0.0", "price not in [1]"):
            (hits,) = store.search("dense", queries([1, 0, 0, 0]), 10, filters.parse(filter))
            assert [hit.id for hit in hits] == ["a", "b"], filter
        (hits,) = store.search("dense", queries([1, 0, 0, 0]), 10, filters.parse("price not in [0, 3]"))
        assert [hit.id for hit in hits] == ["c"]

    def test_a_filter_is_applied_before_k_cuts(self, store: Store) -> None:
        store.upsert([row(f"d{i:03}", [i, 0, 0, 0], year=i) for i in range(200)])
        (hits,) = store.search("dense", queries([1, 0, 0, 0]), 3, filters.parse("year < 5"))
        assert [hit.id for hit in hits] == ["d004", "d003", "d002"]

    def test_hostile_texts_are_ids_fields_and_constants_like_any_other(self, store: Store) -> None:
        store.upsert([row(text, [1, 0, 0, 0], title=text, hash="h") for text in HOSTILE])
        assert self.everything(store) == {(text, 0) for text in HOSTILE}
        assert set(store.heads(HOSTILE)) == set(HOSTILE)
        for text in HOSTILE:
            for filter in (filters.Compare("title", "==", text), filters.In("id", (text, "other"))):
                (hits,) = store.search("dense", queries([1, 0, 0, 0]), 10, filter)
                assert [(hit.id, hit.fields["title"]) for hit in hits] == [(text, text)]
        store.delete([Head(id=text, version=2) for text in HOSTILE[1:]])
        assert self.everything(store) == {(HOSTILE[0], 0)}

    def test_ids_that_differ_only_in_what_looks_like_a_chunk_number_are_apart(self, store: Store) -> None:
        store.upsert([row("a", [1, 0, 0, 0], chunk=1), row("a#1", [1, 0, 0, 0], chunk=0), row("a#1#0", [1, 0, 0, 0])])
        store.delete([Head(id="a", version=2)])
        assert self.everything(store) == {("a#1", 0), ("a#1#0", 0)}

    # ---- refusals

    def test_a_query_of_another_space_is_refused(self, store: Store) -> None:
        store.upsert([row("a", [1, 0, 0, 0])])
        with pytest.raises(SpaceMismatch, match="another"):
            store.search("dense", queries([1, 0, 0, 0], space_id="another"), 1)

    def test_a_query_that_cannot_mean_anything_is_refused(self, store: Store) -> None:
        with pytest.raises(WrongUse, match="no leg 'nope'"):
            store.search("nope", queries([1, 0, 0, 0]), 1)
        with pytest.raises(WrongUse, match="length 4"):
            store.search("dense", queries([1, 0, 0]), 1)
        with pytest.raises(WrongUse, match="dense"):
            store.search("dense", batch((sparse({1: 1.0}),)), 1)
        for k in (0, -1, 10**6):
            with pytest.raises(WrongUse, match="k = "):
                store.search("dense", queries([1, 0, 0, 0]), k)
        for filter in (filters.Compare("nope", "==", 1), filters.Compare("year", "==", "1"), filters.In("fresh", (1,))):
            with pytest.raises(WrongUse, match="field"):
                store.search("dense", queries([1, 0, 0, 0]), 1, filter)

    # ---- several legs

    def test_a_sparse_leg_ranks_by_inner_product_and_leaves_out_what_shares_no_term(self, backend: Backend) -> None:
        store = backend.open(Collection(name="suite_sparse", legs=(SPARSE,), fields=()))
        weights: dict[str, dict[int, float]] = {
            "a": {1: 1, 5: 2}, "b": {1: 3}, "c": {99: 1}, "empty": {}, "d": {5: 1, 7: 1}
        }  # fmt: skip
        store.upsert(
            [
                Row(id=id, vectors={"sparse": Vector(SPACE, sparse(one))}, version=1, hash="h")
                for id, one in weights.items()
            ]
        )
        asked: list[dict[int, float]] = [{1: 1, 5: 1}, {0: 1}, {}, {99: 2}]
        answers = store.search("sparse", batch(tuple(sparse(one) for one in asked)), 10)
        assert [[(hit.id, hit.score) for hit in hits] for hits in answers] == [
            [("a", 3.0), ("b", 3.0), ("d", 1.0)], [], [], [("c", 2.0)]
        ]  # fmt: skip
        with pytest.raises(WrongUse, match="vocabulary of 100"):
            store.search("sparse", batch((sparse({100: 1.0}),)), 1)
        beyond = Row(id="x", vectors={"sparse": Vector(SPACE, sparse({100: 1.0}))}, version=1, hash="h")
        with pytest.raises(Reject, match="vocabulary of 100"):
            store.upsert([beyond])

    def test_one_row_can_be_searched_by_a_dense_and_by_a_sparse_leg(self, backend: Backend) -> None:
        store = backend.open(Collection(name="suite_both", legs=(DENSE, SPARSE), fields=FIELDS))
        for id, dense_value, sparse_value in (("a", 1, {1: 5.0}), ("b", 2, {1: 4.0}), ("c", 3, {2: 1.0})):
            vectors = {
                "dense": Vector(SPACE, np.array([dense_value, 0, 0, 0], dtype=np.float32)),
                "sparse": Vector(SPACE, sparse(sparse_value)),
            }
            store.upsert([Row(id=id, vectors=vectors, version=1, hash="h", fields={"year": dense_value})])
        (by_dense,) = store.search("dense", queries([1, 0, 0, 0]), 10)
        (by_sparse,) = store.search("sparse", batch((sparse({1: 1.0}),)), 10, filters.parse("year > 1"))
        assert [hit.id for hit in by_dense] == ["c", "b", "a"]
        assert [hit.id for hit in by_sparse] == ["b"]

    @pytest.mark.parametrize("second", [NARROW, TERMS], ids=["two dense", "dense and sparse"])
    def test_legs_of_several_towers_keep_to_their_spaces(self, backend: Backend, second: Leg) -> None:
        collection = Collection(name=f"suite_{second.name}", legs=(DENSE, second))
        store = backend.open(collection)
        values: list[tuple[str, list[float], list[float] | dict[int, float]]] = (
            [("a", [1, 0, 0, 0], [0, 0, 3]), ("b", [2, 0, 0, 0], [0, 0, 1])]
            if second.kind == "dense"
            else [("a", [1, 0, 0, 0], {7: 3.0}), ("b", [2, 0, 0, 0], {7: 1.0})]
        )
        store.upsert([legs_row(id, collection, *each) for id, *each in values])
        asked = queries([0, 0, 1]).values if second.kind == "dense" else (sparse({7: 1.0}),)
        (by_first,) = store.search("dense", queries([1, 0, 0, 0]), 10)
        (by_second,) = store.search(second.name, batch(asked, second.space_id), 10)
        assert [(hit.id, hit.score) for hit in by_first] == [("b", 2.0), ("a", 1.0)]
        assert [(hit.id, hit.score) for hit in by_second] == [("a", 3.0), ("b", 1.0)]

        with pytest.raises(SpaceMismatch, match=f"{second.name} leg"):
            store.search(second.name, batch(asked, SPACE), 1)
        with pytest.raises(SpaceMismatch, match="dense leg"):
            store.search("dense", queries([1, 0, 0, 0], space_id=second.space_id), 1)
        good = legs_row("good", collection, *values[0][1:])
        astray = replace(good.vectors[second.name], space_id=SPACE)
        with pytest.raises(SpaceMismatch, match=f"leg {second.name}"):
            store.upsert([good, replace(good, id="bad", vectors={**good.vectors, second.name: astray})])
        with pytest.raises(Reject, match="legs"):
            store.upsert([good, replace(good, id="bad", vectors={"dense": good.vectors["dense"]})])
        assert set(store.heads(["a", "b", "good", "bad"])) == {"a", "b"}
        moved = collection.model_copy(update={"legs": (DENSE, second.model_copy(update={"space_id": "another"}))})
        with pytest.raises(SpaceMismatch, match=f"its {second.name} leg"):
            backend.open(moved)
