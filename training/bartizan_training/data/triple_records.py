"""Triples out of records of a query, a positive and maybe negatives, and out of judged queries."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bartizan_connector.base.errors import WrongUse
from bartizan_training.data.collections import BeirData
from bartizan_training.data.lines import records_of
from bartizan_training.data.negatives import read_negatives
from bartizan_training.data.triple_rows import Rows, enough
from bartizan_training.data.triple_tables import Judged, Records


def add_judged(rows: Rows, table: Judged, data: BeirData) -> None:
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
        negatives = enough(hard, good, every, table.negatives_per_query, [table.seed, number])
        for positive in dict.fromkeys(own):
            for negative in negatives:
                rows.add(query, positive, negative)


def add_records(rows: Rows, table: Records) -> None:
    """A record with negatives gives a row for each; one without gets random documents of the file."""
    waiting: list[tuple[str, str]] = []
    positives: dict[str, set[str]] = {}
    every: dict[str, None] = {}
    for number, (where, record) in enumerate(all_records(table.files)):
        if table.limit is not None and number == table.limit:
            break
        query, positive = text_in(record, table.query, where), text_in(record, table.positive, where)
        every.setdefault(positive)
        if not rows.keeps(query, None):
            continue
        positives.setdefault(query, set()).add(positive)
        negatives = negatives_in(record, table.negatives, where)
        for negative in negatives:
            rows.add(query, positive, negative)
        if not negatives:
            waiting.append((query, positive))
    texts = tuple(every)
    for number, (query, positive) in enumerate(waiting):
        found = enough((), positives[query], texts, table.negatives_per_query, [table.seed, number])
        for negative in found:
            rows.add(query, positive, negative)


def _document(data: BeirData, id: str, table: Judged) -> str:
    if id not in data.corpus:
        raise WrongUse(f"{table.negatives} names document '{id}', which {table.path} does not have")
    return data.corpus[id]


def all_records(files: Iterable[Path]) -> Iterator[tuple[str, Any]]:
    """The records of some files, each with its place."""
    for path in files:
        yield from records_of(path)


def negatives_in(record: Any, column: str | None, where: str) -> list[str]:
    """What a record says of documents that do not answer its query: in that column, else where they usually are."""
    names = [column] if column else [name for name in ("negative", "negatives") if name in record]
    if column and column not in record:
        raise WrongUse(f"{where}: it has no '{column}'; it has {', '.join(record)}")
    value = record[names[0]] if names else []
    found = [value] if isinstance(value, str) else value if value is not None else []
    if not isinstance(found, list) or not all(isinstance(text, str) and text.strip() for text in found):
        raise WrongUse(f"{where}: expected a text or a list of texts as '{names[0]}', got {str(value)[:80]!r}")
    return found


def id_in(record: Any, column: str, where: str) -> str:
    """An id: a text, or a whole number as its digits."""
    value = record.get(column)
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else text_in(record, column, where)


def text_in(record: Any, key: str, where: str) -> str:
    """The text in that column."""
    value = record.get(key)
    if not isinstance(value, str) or not value.strip():
        came = f"it has {', '.join(record)}" if key not in record else f"got {str(value)[:80]!r}"
        raise WrongUse(f"{where}: expected a text as '{key}'; {came}")
    return value
