"""As many documents as are asked for, out of legs that rank rows: a document of many chunks leaves room for others."""

from collections.abc import Callable
from math import ceil
from typing import get_args

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.config.settings import OfDocument
from bartizan_connector.search.fusion import best_chunks
from bartizan_connector.store.checks import MAX_RESULTS
from bartizan_connector.store.collection import Hit
from bartizan_connector.store.filters import And, Compare, Filter, In, Not

Ask = Callable[[int, Filter | None], list[Hit]]
"""The best rows that pass, best first: as many as are asked for, or all there are."""

_FIRST = Compare("chunk", "==", 0)
_SPARE = 1.25
"""Rows are asked for beyond what the share of distinct documents so far says."""


def check_of_document(of_document: str) -> None:
    """Refuse what is none of the ways, rather than take it for another."""
    if of_document not in get_args(OfDocument):
        raise WrongUse(
            f"of_document = {of_document!r:.80} is not known; give {' or '.join(map(repr, get_args(OfDocument)))}"
        )


def documents(ask: Ask, k: int, filter: Filter | None, of_document: OfDocument = "max") -> list[Hit]:
    """The k best documents, each at its best chunk (`max`) or its `first`. Where no document has a second chunk among
    the rows, they are asked for once. Else for more of them, until there are k documents or no more rows; and beyond
    the most rows of one answer, for those of other documents."""
    if of_document == "first":
        return best_chunks(ask(k, _both(filter, _FIRST)))[:k]
    found: list[Hit] = []
    others = filter
    while True:
        fresh, is_all = _grown(ask, k - len(found), others)
        found += fresh
        if is_all or len(found) >= k:
            return found[:k]
        others = _both(filter, Not(In("id", tuple(hit.id for hit in found))))


def _grown(ask: Ask, k: int, filter: Filter | None) -> tuple[list[Hit], bool]:
    """Documents of the best rows, k or as many as the most rows give; and whether these are all rows there are."""
    rows = k
    while True:
        hits = ask(rows, filter)
        found = best_chunks(hits)
        if len(found) >= k or len(hits) < rows:
            return found, len(hits) < rows
        if rows >= MAX_RESULTS:
            return found, False
        wanted = ceil(_SPARE * k * rows / len(found))
        rows = min(MAX_RESULTS, max(2 * rows, min(wanted, 4 * rows)))


def _both(one: Filter | None, other: Filter) -> Filter:
    return other if one is None else And((one, other))
