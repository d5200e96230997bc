"""What a stage learns from: judged pairs of query and document, and bare query texts for distillation."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bartizan_connector.base.errors import WrongUse
from bartizan_training.data.collections import BeirData
from bartizan_training.settings import CorpusSentences, Lines, PairsTable, Queries, TextSource

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")


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
    """The queries of a split that have a positive document (score 1 or more), with their hard negatives if asked."""
    data = BeirData.read(table.path)
    mined = _read_negatives(table.negatives) if table.negatives else None
    queries, documents = _Texts(), _Texts()
    positives: list[dict[int, None]] = []
    negatives: list[dict[int, None]] = []
    for query_id, grades in data.qrels(table.split).items():
        good = [document_id for document_id, grade in grades.items() if grade >= 1]
        if not good:
            continue
        query = queries.index(data.queries[query_id])
        if query == len(positives):
            positives.append({})
            negatives.append({})
        positives[query].update(dict.fromkeys(documents.index(data.corpus[document_id]) for document_id in good))
        if mined is not None:
            found = _known_documents(mined.get(query_id, []), data.corpus, table)
            negatives[query].update(dict.fromkeys(documents.index(text) for text in found))
    if not positives:
        raise WrongUse(f"split '{table.split}' of {table.path} judges no document positive; there is nothing to learn")
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


def read_texts(sources: Sequence[TextSource], *, seed: Sequence[int]) -> tuple[str, ...]:
    """The texts of all sources in order, each text once."""
    texts: dict[str, None] = {}
    for number, source in enumerate(sources):
        before = len(texts)
        texts.update(dict.fromkeys(text for text in _texts_of(source, [*seed, number]) if text.strip()))
        if len(texts) == before:
            raise WrongUse(f"text source {number + 1} ({source.kind}, {source.path}) adds no text")
    return tuple(texts)


def _texts_of(source: TextSource, seed: list[int]) -> Iterable[str]:
    match source:
        case Queries():
            data = BeirData.read(source.path)
            ids = data.queries if source.split == "all" else data.qrels(source.split)
            return (data.queries[query_id] for query_id in ids)
        case Lines():
            return _read_lines(source.path)
        case CorpusSentences():
            return _draw_sentences(tuple(BeirData.read(source.path).corpus.values()), source, seed)


def _draw_sentences(documents: Sequence[str], source: CorpusSentences, seed: list[int]) -> Iterator[str]:
    """Spans of random length inside one random sentence of one random document, as many as asked."""
    random = np.random.default_rng(seed)
    sentences = [kept for text in documents if (kept := _sentences(text, source.min_words))]
    if not sentences:
        raise WrongUse(f"no document of {source.path} has a sentence of {source.min_words} words or more")
    for _ in range(source.count):
        of_one = sentences[random.integers(len(sentences))]
        words = of_one[random.integers(len(of_one))]
        length = random.integers(source.min_words, min(source.max_words, len(words)) + 1)
        start = random.integers(len(words) - length + 1)
        yield " ".join(words[start : start + length])


def _sentences(text: str, min_words: int) -> list[list[str]]:
    return [words for part in _SENTENCE_END.split(text) if len(words := part.split()) >= min_words]


def _read_negatives(path: Path) -> dict[str, list[str]]:
    mined: dict[str, list[str]] = {}
    for number, line in enumerate(_read_lines(path), start=1):
        try:
            record = json.loads(line)
            query, negatives = record["query"], record["negatives"]
            if not isinstance(query, str) or not all(isinstance(document_id, str) for document_id in negatives):
                raise TypeError("ids must be strings")
        except (ValueError, KeyError, TypeError) as error:
            form = '{"query": id, "negatives": [document ids]}'
            raise WrongUse(f"{path}:{number}: expected {form}: {type(error).__name__} {error}") from error
        mined[query] = negatives
    return mined


def _known_documents(ids: Iterable[str], corpus: Mapping[str, str], table: PairsTable) -> list[str]:
    try:
        return [corpus[document_id] for document_id in ids]
    except KeyError as error:
        raise WrongUse(f"{table.negatives} names document {error}, which {table.path} does not have") from error


def _read_lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # splitlines() would also cut at U+2028 inside a text
        return [line for line in lines if line.strip()]
    except OSError as error:
        raise WrongUse(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise WrongUse(f"{path} is not UTF-8: {error}") from error


class _Texts:
    """Gives each different text a number."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def index(self, text: str) -> int:
        return self._numbers.setdefault(text, len(self._numbers))

    @property
    def texts(self) -> list[str]:
        return list(self._numbers)
