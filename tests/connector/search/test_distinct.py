"""k documents come back, not k chunks: out of every ranked list, with one question where no document has two rows."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.search import distinct
from bartizan_connector.search.distinct import check_of_document, documents
from bartizan_connector.store.collection import Hit
from bartizan_connector.store.filters import Compare, Filter, matches


class Ranked:
    """Rows in an order, asked for as a leg is."""

    def __init__(self, rows: Sequence[tuple[str, int]]) -> None:
        self.hits = [
            Hit(id=id, chunk=chunk, score=float(-rank), fields={"odd": bool(rank % 2)})
            for rank, (id, chunk) in enumerate(rows)
        ]
        self.asked: list[int] = []

    def __call__(self, k: int, filter: Filter | None) -> list[Hit]:
        assert 1 <= k <= distinct.MAX_RESULTS
        self.asked.append(k)
        passing = [
            hit
            for hit in self.hits
            if filter is None or matches(filter, {"id": hit.id, "chunk": hit.chunk, **hit.fields})
        ]
        return passing[:k]


ranked = st.permutations(
    [(id, chunk) for id, chunks in zip("abcdefg", (1, 9, 2, 1, 5, 3, 1), strict=True) for chunk in range(chunks)]
)


@given(ranked, st.integers(1, 9), st.booleans(), st.sampled_from(["max", "first"]), st.sampled_from([9, 16_384]))
@settings(max_examples=300, deadline=None)
def test_it_gives_what_looking_at_every_row_gives(
    rows: list[tuple[str, int]], k: int, filtered: bool, how: str, most: int
) -> None:
    """`most`: 9 rows at most in one answer, fewer than the longest document and its followers have."""
    before, distinct.MAX_RESULTS = distinct.MAX_RESULTS, most
    try:
        leg = Ranked(rows)
        filter = Compare("odd", "==", True) if filtered else None
        found = documents(leg, k, filter, how)  # type: ignore[arg-type]
    finally:
        distinct.MAX_RESULTS = before
    expected: dict[str, Hit] = {}
    for hit in leg.hits:
        if (how == "max" or hit.chunk == 0) and (not filtered or hit.fields["odd"]):
            expected.setdefault(hit.id, hit)
    assert found == list(expected.values())[:k]


def test_rows_of_different_documents_are_asked_for_once() -> None:
    leg = Ranked([(f"d{n}", 0) for n in range(50)])
    assert len(documents(leg, 10, None)) == 10
    assert len(documents(leg, 60, None)) == 50
    assert leg.asked == [10, 60]


def test_a_long_document_in_front_costs_a_few_questions_of_growing_size() -> None:
    leg = Ranked([("long", n) for n in range(900)] + [(f"d{n}", 0) for n in range(100)])
    assert [hit.id for hit in documents(leg, 3, None)] == ["long", "d0", "d1"]
    assert len(leg.asked) <= 6
    assert leg.asked == sorted(leg.asked)


def test_first_asks_once_and_only_for_first_chunks() -> None:
    leg = Ranked([("a", 2), ("b", 1), ("a", 0), ("b", 0)])
    assert [(hit.id, hit.chunk) for hit in documents(leg, 2, None, "first")] == [("a", 0), ("b", 0)]
    assert leg.asked == [2]


def test_another_way_is_refused() -> None:
    with pytest.raises(WrongUse, match="of_document = 'mean' is not known; give 'max' or 'first'"):
        check_of_document("mean")
