"""Judged pairs of query and document, with hard negatives: what contrastive training learns from."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from bartizan_connector.base.errors import WrongUse
from bartizan_training.data.collections import BeirData
from bartizan_training.data.held_out import HeldOut
from bartizan_training.data.negatives import read_negatives
from bartizan_training.data.pair_tables import PairRecords
from bartizan_training.data.triple_records import all_records, id_in, negatives_in, text_in
from bartizan_training.data.weak import weak_pairs
from bartizan_training.settings import TEST, PairsTable, Weak


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


def read_pairs(table: PairsTable | PairRecords) -> Pairs:
    """The queries that have a positive document, with their hard negatives if there are any; or weak pairs, which are
    made of the documents alone. None is for testing."""
    if isinstance(table, PairRecords):
        pairs = _of_records(table)
    else:
        pairs = _of_documents(table.path, table.weak) if table.weak else _of_judged(table)
    return pairs if table.share == 1 else _share_of(pairs, table.share)


def _of_judged(table: PairsTable) -> Pairs:
    """The queries of a split that have a document of score 1 or more."""
    data = BeirData.read(table.path)
    mined = read_negatives(table.negatives) if table.negatives else None
    queries, documents = _Texts(), _Texts()
    positives: list[dict[int, None]] = []
    negatives: list[dict[int, None]] = []
    held_out, left_out = HeldOut.read(table.path, TEST) if table.split != TEST else HeldOut(), 0
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


def _share_of(pairs: Pairs, share: float) -> Pairs:
    """The queries whose text has the lowest digests: so a smaller share is part of a larger one."""
    digests = [hashlib.sha256(text.encode()).digest() for text in pairs.queries]
    lowest = sorted(range(len(digests)), key=lambda query: digests[query])
    kept = sorted(lowest[: max(1, round(share * len(digests)))])
    documents = _Texts()

    def renumbered(rows: Iterable[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(documents.index(pairs.documents[n]) for n in row) for row in rows)

    positives = renumbered(pairs.positives[query] for query in kept)
    negatives = None if pairs.negatives is None else renumbered(pairs.negatives[query] for query in kept)
    queries = tuple(pairs.queries[query] for query in kept)
    return Pairs(queries=queries, documents=tuple(documents.texts), positives=positives, negatives=negatives)


def _of_documents(folder: Path, table: Weak) -> Pairs:
    """Titles and sentences in the place of judged queries."""
    queries, documents = _Texts(), _Texts()
    positives: list[dict[int, None]] = []
    held_out = HeldOut.read(folder, TEST)
    for asked, answer in weak_pairs(folder, table):
        if held_out.holds(asked):
            continue
        if (query := queries.index(asked)) == len(positives):
            positives.append({})
        positives[query].setdefault(documents.index(answer))
    if not positives:
        raise WrongUse(f"no document of {folder} has a title beside its text, or a second sentence, to make a pair of")
    return Pairs(
        queries=tuple(queries.texts),
        documents=tuple(documents.texts),
        positives=tuple(tuple(good) for good in positives),
        negatives=None,
    )


def _of_records(table: PairRecords) -> Pairs:
    """The records of all files; those of one query together."""
    held_out, left_out = HeldOut.read(table.held_out, table.held_out_split), 0
    queries, documents = _Texts(), _Texts()
    positives: list[dict[int, None]] = []
    negatives: list[dict[int, None]] = []
    for where, record in islice(all_records(table.files), table.limit):
        query, positive = text_in(record, table.query, where), text_in(record, table.positive, where)
        if held_out.holds(query, None if table.id is None else id_in(record, table.id, where)):
            left_out += 1
            continue
        number = queries.index(query)
        if number == len(positives):
            positives.append({})
            negatives.append({})
        positives[number][documents.index(positive)] = None
        found = negatives_in(record, table.negatives, where)
        negatives[number].update(dict.fromkeys(documents.index(text) for text in found))
    if not positives:
        out = f": its {left_out} queries are for testing, and are left out" if left_out else ""
        raise WrongUse(f"{table.files[0]} has no pair to learn from{out}")
    kept = tuple(tuple(n for n in bad if n not in good) for bad, good in zip(negatives, positives, strict=True))
    return Pairs(
        queries=tuple(queries.texts),
        documents=tuple(documents.texts),
        positives=tuple(tuple(good) for good in positives),
        negatives=kept if any(kept) else None,
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
