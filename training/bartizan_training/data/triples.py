"""Triples: a query, a document that answers it, one that does not or does so less, and maybe a teacher's scores."""

import hashlib
import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bartizan_connector.base.errors import WrongUse
from bartizan_training.data.collections import BeirData
from bartizan_training.data.digests import digest_of_files
from bartizan_training.data.held_out import HeldOut
from bartizan_training.data.lines import lines_of, read_table, records_of
from bartizan_training.data.negatives import read_negatives
from bartizan_training.data.ragged import Indices
from bartizan_training.data.scores import Scores
from bartizan_training.data.triple_tables import Judged, Records, TripleLines

Source = Judged | TripleLines | Records


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Triples:
    """Rows of three numbers. Equal texts are one: a number stands for a text, whatever ids it goes by."""

    queries: tuple[str, ...]
    documents: tuple[str, ...]
    query: Indices
    positive: Indices
    negative: Indices
    scores: tuple[Scores, Scores] | None
    """A teacher's, for the positive and for the negative of each row; none: the data has none."""
    left_out: int
    """Rows of queries that are for testing."""

    def __len__(self) -> int:
        return len(self.query)

    @property
    def fingerprint(self) -> str:
        """Identity of the examples: a resumed run must see the same."""
        digest = hashlib.sha256()
        for text in (*self.queries, "", *self.documents):
            digest.update(text.encode() + b"\0")
        for column in (self.query, self.positive, self.negative, *(self.scores or ())):
            digest.update(np.ascontiguousarray(column).view(np.uint8).data)
        return digest.hexdigest()


def read_triples(table: Source) -> Triples:
    """All rows of the source but those of queries that are for testing."""
    match table:
        case Judged():
            data = BeirData.read(table.path)
            rows = _Rows(HeldOut.read(table.path, table.held_out_split), str(table.path))
            _add_judged(rows, table, data)
        case TripleLines():
            rows = _Rows(HeldOut.read(table.held_out or table.path, table.held_out_split), str(table.lines))
            _add_lines(rows, table)
        case Records():
            rows = _Rows(HeldOut.read(table.held_out, table.held_out_split), str(table.files[0]))
            _add_records(rows, table)
    return rows.made()


def identity_of(table: Source) -> str:
    """Identity of what `read_triples` would read: an artefact that is made from it has another key when it changes."""
    match table:
        case Judged():
            qrels = table.path / "qrels"
            splits = [qrels / f"{name}.tsv" for name in (table.split, table.held_out_split)]
            files = [table.path / "corpus.jsonl", table.path / "queries.jsonl", *(p for p in splits if p.exists())]
            files += [table.negatives] if table.negatives else []
        case TripleLines():
            texts = [table.path / "corpus.jsonl", table.path / "queries.jsonl"] if table.path else []
            files = [table.lines, *texts, *(p for p in (table.queries, table.collection) if p)]
        case Records():
            files = list(table.files)
    held_out = None if isinstance(table, Judged) else table.held_out or getattr(table, "path", None)
    if held_out:
        files += [held_out / "queries.jsonl", *sorted((held_out / "qrels").glob(f"{table.held_out_split}.tsv"))]
    return digest_of_files(files)


class _Rows:
    """Collects rows, each different text once."""

    def __init__(self, held_out: HeldOut, origin: str) -> None:
        self._held_out, self._origin = held_out, origin
        self._queries: dict[str, int] = {}
        self._documents: dict[str, int] = {}
        self._columns = (array("q"), array("q"), array("q"))
        self._scores = (array("f"), array("f"))
        self._left_out = 0

    def keeps(self, text: str, id: str | None) -> bool:
        """Whether the query may be trained on; one that may not is counted."""
        held_out = self._held_out.holds(text, id)
        self._left_out += held_out
        return not held_out

    def add(self, query: str, positive: str, negative: str, scores: tuple[float, float] | None = None) -> None:
        numbers = (
            self._queries.setdefault(query, len(self._queries)),
            self._documents.setdefault(positive, len(self._documents)),
            self._documents.setdefault(negative, len(self._documents)),
        )
        for column, number in zip(self._columns, numbers, strict=True):
            column.append(number)
        if scores:
            self._scores[0].append(scores[0])
            self._scores[1].append(scores[1])

    def made(self) -> Triples:
        if not self._columns[0]:
            out = f"; {self._left_out} were left out: their queries are for testing" if self._left_out else ""
            raise WrongUse(f"{self._origin} has no triple to learn from{out}")
        query, positive, negative = (np.array(column, dtype=np.int64) for column in self._columns)
        better, worse = (np.array(column, dtype=np.float32) for column in self._scores)
        return Triples(
            queries=tuple(self._queries),
            documents=tuple(self._documents),
            query=query,
            positive=positive,
            negative=negative,
            scores=(better, worse) if len(better) else None,
            left_out=self._left_out,
        )


def _add_judged(rows: _Rows, table: Judged, data: BeirData) -> None:
    """Each positive of a query beside each of its negatives."""
    mined = read_negatives(table.negatives) if table.negatives else {}
    judged = data.qrels(table.split)
    by_text: dict[str, set[str]] = {}
    for id, grades in judged.items():
        good = {data.corpus[document] for document, grade in grades.items() if grade >= 1}
        by_text.setdefault(data.queries[id], set()).update(good)
    every = tuple(dict.fromkeys(data.corpus.values()))
    for number, (id, grades) in enumerate(judged.items()):
        query = data.queries[id]
        good = by_text[query]
        own = [data.corpus[document] for document, grade in grades.items() if grade >= 1]
        if not own or not rows.keeps(query, id):
            continue
        hard = [_document(data, document, table) for document in mined.get(id, ())]
        negatives = _enough(hard, good, every, table.negatives_per_query, [table.seed, number])
        for positive in dict.fromkeys(own):
            for negative in negatives:
                rows.add(query, positive, negative)


def _document(data: BeirData, id: str, table: Judged) -> str:
    if id not in data.corpus:
        raise WrongUse(f"{table.negatives} names document '{id}', which {table.path} does not have")
    return data.corpus[id]


def _enough(
    hard: Iterable[str], good: set[str], every: Sequence[str], count: int, seed: Sequence[int]
) -> tuple[str, ...]:
    """The first hard ones that are no positives, then random documents, each once; fewer when there are no more."""
    kept = dict.fromkeys([text for text in dict.fromkeys(hard) if text not in good][:count])
    if len(kept) < count:
        random = np.random.default_rng(seed)
        tries = min(len(every), count + len(kept) + len(good))
        for place in random.choice(len(every), size=tries, replace=False):
            if len(kept) < count and every[place] not in good:
                kept.setdefault(every[place])
    return tuple(kept)


def _add_lines(rows: _Rows, table: TripleLines) -> None:
    queries, documents = _texts_by_id(table)
    fields = 0
    for number, (where, line) in enumerate(lines_of(table.lines)):
        if table.limit is not None and number == table.limit:
            break
        parts = line.split("\t")
        if len(parts) == 1 and len(line.split()) == 5:
            parts = line.split()  # the published scores come with tabs or with spaces
        fields = fields or len(parts)
        if len(parts) != fields or fields not in (3, 5):
            raise WrongUse(f"{where}: expected {_form(fields, queries is not None)}, got {line[:80]!r}")
        scores = _both_scores(parts, where) if fields == 5 else None
        id, *pids = parts[-3:]
        if queries is None or documents is None:
            if scores:
                raise WrongUse(f"{where}: its ids need texts: give path, or queries and collection")
            query, positive, negative = id, *pids
        else:
            query = _text(queries, id, "query", where)
            positive, negative = (_text(documents, pid, "document", where) for pid in pids)
        if not (query.strip() and positive.strip() and negative.strip()):
            raise WrongUse(f"{where}: a text is empty")
        if rows.keeps(query, id if queries is not None else None):
            rows.add(query, positive, negative, scores)


def _texts_by_id(table: TripleLines) -> tuple[dict[str, str] | None, dict[str, str] | None]:
    if table.path is not None:
        data = BeirData.read(table.path)
        return data.queries, data.corpus
    if table.queries is not None and table.collection is not None:
        return read_table(table.queries, "query"), read_table(table.collection, "document")
    return None, None


def _form(fields: int, ids: bool) -> str:
    if fields == 5:
        return "pos_score neg_score qid pos_pid neg_pid"
    if fields == 3:
        return "qid ⇥ pos_pid ⇥ neg_pid" if ids else "query ⇥ positive ⇥ negative"
    return "three fields (qid, pos_pid, neg_pid, or their texts) or five (with pos_score and neg_score in front)"


def _both_scores(parts: Sequence[str], where: str) -> tuple[float, float]:
    try:
        better, worse = float(parts[0]), float(parts[1])
    except ValueError as error:
        raise WrongUse(f"{where}: expected two scores in front, got {parts[0]!r} and {parts[1]!r}") from error
    if not (math.isfinite(better) and math.isfinite(worse)):
        raise WrongUse(f"{where}: a score is missing or no number: {parts[0]!r} and {parts[1]!r}")
    return better, worse


def _text(texts: dict[str, str], id: str, what: str, where: str) -> str:
    if id not in texts:
        raise WrongUse(f"{where}: no {what} has the id '{id}'")
    return texts[id]


def _add_records(rows: _Rows, table: Records) -> None:
    """A record with negatives gives a row for each; one without gets random documents of the file."""
    waiting: list[tuple[str, str]] = []
    positives: dict[str, set[str]] = {}
    every: dict[str, None] = {}
    for number, (where, record) in enumerate(_all_records(table.files)):
        if table.limit is not None and number == table.limit:
            break
        query, positive = _string(record, table.query, where), _string(record, table.positive, where)
        every.setdefault(positive)
        if not rows.keeps(query, None):
            continue
        positives.setdefault(query, set()).add(positive)
        negatives = _negatives(record, table, where)
        for negative in negatives:
            rows.add(query, positive, negative)
        if not negatives:
            waiting.append((query, positive))
    texts = tuple(every)
    for number, (query, positive) in enumerate(waiting):
        found = _enough((), positives[query], texts, table.negatives_per_query, [table.seed, number])
        for negative in found:
            rows.add(query, positive, negative)


def _all_records(files: Iterable[Path]) -> Iterator[tuple[str, Any]]:
    for path in files:
        yield from records_of(path)


def _negatives(record: Any, table: Records, where: str) -> list[str]:
    names = [table.negatives] if table.negatives else [name for name in ("negative", "negatives") if name in record]
    if table.negatives and table.negatives not in record:
        raise WrongUse(f"{where}: it has no '{table.negatives}'; it has {', '.join(record)}")
    value = record[names[0]] if names else []
    found = [value] if isinstance(value, str) else value if value is not None else []
    if not isinstance(found, list) or not all(isinstance(text, str) and text.strip() for text in found):
        raise WrongUse(f"{where}: expected a text or a list of texts as '{names[0]}', got {str(value)[:80]!r}")
    return found


def _string(record: Any, key: str, where: str) -> str:
    value = record.get(key)
    if not isinstance(value, str) or not value.strip():
        came = f"it has {', '.join(record)}" if key not in record else f"got {str(value)[:80]!r}"
        raise WrongUse(f"{where}: expected a text as '{key}'; {came}")
    return value
