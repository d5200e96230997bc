"""Pairs of query and document, judged or of a title and its text, with hard negatives: what contrast learns from."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

from bartizan_connector.base.errors import WrongUse
from bartizan_training.data.collections import BeirData, titled
from bartizan_training.data.held_out import HeldOut
from bartizan_training.data.negatives import read_negatives
from bartizan_training.settings import PairsTable

_TEST = "test"
"""Queries that this split judges are never learned from, under their own id or as an equal text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Judged queries. Equal texts are one: an index stands for a text, whatever ids it goes by."""

    queries: tuple[str, ...]
    documents: tuple[str, ...]
    positives: tuple[tuple[int, ...], ...]
    """For each query, the documents judged positive."""
    negatives: tuple[tuple[int, ...], ...] | None
    """For each query, its hard negatives: none for some, and never one of its positives."""

    @property
    def fingerprint(self) -> str:
        """Identity of the examples: a resumed run must see the same."""
        facts = [self.queries, self.documents, self.positives, self.negatives]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def read_pairs(table: PairsTable) -> Pairs:
    """The queries of a split that have a positive document (score 1 or more), with their hard negatives if asked; or
    titles and what stands below them."""
    if table.pairs == "titles":
        return _titles(table)
    data = BeirData.read(table.path)
    mined = read_negatives(table.negatives) if table.negatives else None
    queries, documents = _Texts(), _Texts()
    positives: list[dict[int, None]] = []
    negatives: list[dict[int, None]] = []
    held_out, left_out = HeldOut.read(table.path, _TEST) if table.split != _TEST else HeldOut(), 0
    for query_id, grades in data.qrels(table.split).items():
        good = [document_id for document_id, grade in grades.items() if grade >= 1]
        if not good:
            continue
        if held_out.holds(data.queries[query_id], query_id):
            left_out += 1
            continue
        query = queries.index(data.queries[query_id])
        if query == len(positives):
            positives.append({})
            negatives.append({})
        positives[query].update(dict.fromkeys(documents.index(data.corpus[document_id]) for document_id in good))
        if mined is not None:
            found = _known_documents(mined.get(query_id, []), data, table)
            negatives[query].update(dict.fromkeys(documents.index(text) for text in found))
    if not positives:
        out = f" but for {left_out} queries that are for testing, and are left out" if left_out else ""
        raise WrongUse(
            f"split '{table.split}' of {table.path} judges no document positive{out}; there is nothing to learn"
        )
    kept = tuple(tuple(n for n in bad if n not in good) for bad, good in zip(negatives, positives, strict=True))
    if mined is not None and not any(kept):
        raise WrongUse(
            f"{table.negatives} has no negative for any of the {len(kept)} queries of split '{table.split}'; "
            "mine them for this split, or leave `negatives` out"
        )
    return Pairs(
        queries=tuple(queries.texts),
        documents=tuple(documents.texts),
        positives=tuple(tuple(good) for good in positives),
        negatives=kept if mined is not None else None,
    )


def _titles(table: PairsTable) -> Pairs:
    """Each title that has a text below it, and that text; equal titles are one query with several documents. A title
    that is the text of a query that is for testing is left out."""
    held_out = HeldOut.read(table.path, _TEST)
    queries, documents = _Texts(), _Texts()
    positives: list[dict[int, None]] = []
    for title, text in titled(table.path):
        if held_out.holds(title):
            continue
        query = queries.index(title)
        if query == len(positives):
            positives.append({})
        positives[query][documents.index(text)] = None
    if not positives:
        raise WrongUse(f"{table.path} has no document with both a title and a text, which pairs = 'titles' needs")
    return Pairs(
        queries=tuple(queries.texts),
        documents=tuple(documents.texts),
        positives=tuple(tuple(good) for good in positives),
        negatives=None,
    )


def _known_documents(ids: Iterable[str], data: BeirData, table: PairsTable) -> list[str]:
    try:
        return [data.corpus[document_id] for document_id in ids]
    except KeyError as error:
        raise WrongUse(f"{table.negatives} names document {error}, which {table.path} does not have") from error


class _Texts:
    """Gives each different text a number."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def index(self, text: str) -> int:
        return self._numbers.setdefault(text, len(self._numbers))

    @property
    def texts(self) -> list[str]:
        return list(self._numbers)
