"""A judged set in BEIR layout, and what two ways to search make of its queries."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bartizan_connector.base.errors import WrongUse

Search = Callable[[str, int], Sequence[str]]
"""A query and k → the ids of the k best documents."""
K = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Queries, and how relevant which documents are to each."""

    queries: Mapping[str, str]
    grades: Mapping[str, Mapping[str, int]]

    @classmethod
    def read(cls, folder: Path, split: str = "test") -> "Judged":
        """`queries.jsonl` and `qrels/<split>.tsv` of a BEIR folder; a query without judgements is left out."""
        grades: dict[str, dict[str, int]] = {}
        for number, line in enumerate(_lines(folder / "qrels" / f"{split}.tsv"), start=1):
            parts = line.split("\t")
            try:
                query, document, grade = parts
                grades.setdefault(query, {})[document] = int(grade)
            except ValueError:
                if number > 1:  # the first may name the columns
                    raise WrongUse(
                        f"{folder / 'qrels' / split}.tsv:{number}: expected query, document and grade, parted by tabs, "
                        f"but {line!r:.80} came"
                    ) from None
        queries = {str(record["_id"]): str(record["text"]) for record in _records(folder / "queries.jsonl")}
        judged = {id: queries[id] for id in grades if id in queries}
        if not judged:
            raise WrongUse(f"{folder} judges none of its queries in split '{split}'; give another folder or split")
        return cls(queries=judged, grades={id: grades[id] for id in judged})

    def ndcg(self, search: Search) -> float:
        """nDCG@10, the mean over the queries."""
        return sum(ndcg(self.grades[id], search(text, K)) for id, text in self.queries.items()) / len(self.queries)


def ndcg(grades: Mapping[str, int], found: Sequence[str], k: int = K) -> float:
    """Of one query: the gain that was found at the places where it was found, as a share of the most there is."""
    gains = [max(0, grades.get(id, 0)) for id in found[:k]]
    ideal = sorted((max(0, grade) for grade in grades.values()), reverse=True)[:k]
    most = _discounted(ideal)
    return _discounted(gains) / most if most else 0.0


def agreement(queries: Sequence[str], one: Search, other: Search, k: int = K) -> float | None:
    """The share of the k best that both find; the mean over the queries. None where neither finds anything."""
    shares = []
    for text in queries:
        first, second = set(one(text, k)), set(other(text, k))
        if first or second:
            shares.append(len(first & second) / max(len(first), len(second)))
    return sum(shares) / len(shares) if shares else None


def _discounted(gains: Sequence[int]) -> float:
    return sum(gain / math.log2(place + 1) for place, gain in enumerate(gains, start=1))


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except OSError as error:
        raise WrongUse(f"cannot read the judged set: {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise WrongUse(f"{path} is not UTF-8: {error}") from error


def _records(path: Path) -> list[Mapping[str, Any]]:
    records = []
    for number, line in enumerate(_lines(path), start=1):
        try:
            record = json.loads(line)
            record["_id"], record["text"]
        except (ValueError, KeyError, TypeError) as error:
            raise WrongUse(f'{path}:{number}: expected a query, {{"_id": …, "text": …}}: {error}') from error
        records.append(record)
    return records
