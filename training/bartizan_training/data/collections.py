"""Judged collections in the BEIR layout: documents, queries, and for each split which documents answer which query.

corpus.jsonl     {"_id": "d1", "title": "…", "text": "…"}      one document a line; the title may be missing
queries.jsonl    {"_id": "q1", "text": "…"}
qrels/test.tsv   query-id ⇥ corpus-id ⇥ score                  one file a split; a grade is a whole number
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.space.canonical import digest_of
from bartizan_connector.stream.records import text_of
from bartizan_training.data.lines import json_lines, lines_of

Qrels = dict[str, dict[str, int]]
"""Query → document → grade."""

_HASH_DOMAIN = "bartizan.judged/1"
_NEEDED = "a BEIR folder needs it"
_QRELS_HEADER = ["query-id", "corpus-id", "score"]


@dataclass(frozen=True)
class BeirData:
    """One collection; the judgements of a split are read, and checked against the ids, when they are asked for."""

    folder: Path
    corpus: dict[str, str]
    """Each document as it is encoded: title, one space, text."""
    queries: dict[str, str]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read and check the documents and the queries of a BEIR folder."""
        if not folder.is_dir():
            raise WrongUse(f"{folder} is not a folder; give one in BEIR layout (corpus.jsonl, queries.jsonl, qrels/)")
        corpus = {id: _document(record, where) for id, record, where in _records(folder / "corpus.jsonl")}
        queries = {id: _string(record, "text", where) for id, record, where in _records(folder / "queries.jsonl")}
        return cls(folder, corpus, queries)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.resolve().name

    @cached_property
    def splits(self) -> tuple[str, ...]:
        """The splits that have judgements, by name."""
        return tuple(sorted(path.stem for path in (self.folder / "qrels").glob("*.tsv")))

    def qrels(self, split: str) -> Qrels:
        """The judgements of one split; each points at a known query and document."""
        if split not in self.splits:
            known = f"it has {', '.join(self.splits)}" if self.splits else "it has no qrels/*.tsv at all"
            raise WrongUse(f"{self.folder} has no split '{split}'; {known}")
        qrels: Qrels = {}
        for query, document, grade, where in _judgements(self.folder / "qrels" / f"{split}.tsv"):
            if query not in self.queries:
                raise WrongUse(f"{where}: query '{query}' is judged but not in queries.jsonl")
            if document not in self.corpus:
                raise WrongUse(f"{where}: document '{document}' is judged but not in corpus.jsonl")
            if qrels.setdefault(query, {}).setdefault(document, grade) != grade:
                raise WrongUse(f"{where}: query '{query}' and document '{document}' were judged before, otherwise")
        if not qrels:
            raise WrongUse(f"split '{split}' of {self.folder} holds no judgements")
        return qrels

    def digest(self, split: str) -> str:
        """Identity of the task: the documents, the judged queries and their judgements."""
        qrels = self.qrels(split)
        queries = {query: self.queries[query] for query in qrels}
        return digest_of({"corpus": self.corpus, "queries": queries, "qrels": qrels}, domain=_HASH_DOMAIN)


def titled(folder: Path) -> Iterator[tuple[str, str]]:
    """Title and text, apart, of each document of a BEIR folder that has both."""
    for _, record, where in _records(folder / "corpus.jsonl"):
        title = _string(record, "title", where).strip() if record.get("title") else ""
        text = _string(record, "text", where).strip()
        if title and text:
            yield title, text


def write_collection(
    folder: Path,
    documents: Iterable[Mapping[str, Any]],
    queries: Iterable[Mapping[str, Any]],
    splits: Mapping[str, Iterable[tuple[str, str]]],
) -> None:
    """Save a BEIR folder; a split's judgements are pairs of a query and a document that answers it."""
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    write_lines(folder / "corpus.jsonl", documents)
    write_lines(folder / "queries.jsonl", queries)
    for split, judged in splits.items():
        lines = ["\t".join(_QRELS_HEADER), *(f"{query}\t{document}\t1" for query, document in judged)]
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """One JSON object a line."""
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not blank."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # splitlines() would also cut at U+2028 inside a text
        return [line for line in lines if line.strip()]
    except OSError as error:
        raise WrongUse(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise WrongUse(f"{path} is not UTF-8: {error}") from error


def _records(path: Path) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Each JSON object of the file with its id and its place; an id comes once."""
    seen: set[str] = set()
    for where, record in json_lines(path, _NEEDED):
        id = _id(record, where)
        if id in seen:
            raise WrongUse(f"{where}: the id '{id}' was used before")
        seen.add(id)
        yield id, record, where
    if not seen:
        raise WrongUse(f"{path} is empty")


def _document(record: dict[str, Any], where: str) -> str:
    title = _string(record, "title", where) if record.get("title") else ""
    return text_of(title, _string(record, "text", where))


def _id(record: dict[str, Any], where: str) -> str:
    """A string, or a whole number as its digits, as it stands in the judgements."""
    value = record.get("_id")
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else _string(record, "_id", where)


def _string(record: dict[str, Any], key: str, where: str) -> str:
    value = record.get(key)
    if not isinstance(value, str):
        came = "nothing" if key not in record else type(value).__name__
        raise WrongUse(f'{where}: expected a string "{key}", got {came}')
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise WrongUse(f'{where}: "{key}" is not valid Unicode ({error.reason} at character {error.start})') from error
    return value


def _judgements(path: Path) -> Iterator[tuple[str, str, int, str]]:
    lines = lines_of(path, _NEEDED)
    where, header = next(lines, (f"{path}:1", ""))
    if header.split("\t") != _QRELS_HEADER:
        raise WrongUse(f"{where}: expected the header {' ⇥ '.join(_QRELS_HEADER)} (tabs between), got {header[:80]!r}")
    for where, line in lines:
        try:
            query, document, grade = line.split("\t")
            yield query, document, int(grade), where
        except ValueError as error:
            raise WrongUse(f"{where}: expected query-id ⇥ corpus-id ⇥ whole number, got {line[:80]!r}") from error
