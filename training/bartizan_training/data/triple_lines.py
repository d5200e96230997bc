"""Triples out of MS MARCO lines: texts or ids, and maybe the scores that a teacher gave."""

import math
from collections.abc import Sequence

from bartizan_connector.base.errors import WrongUse
from bartizan_training.data.collections import BeirData
from bartizan_training.data.lines import lines_of, read_table
from bartizan_training.data.triple_rows import Rows
from bartizan_training.data.triple_tables import TripleLines


def add_lines(rows: Rows, table: TripleLines) -> None:
    """A row a line."""
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
