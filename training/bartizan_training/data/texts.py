"""Bare query texts to distil with: query logs, queries of a collection, and short spans of its documents."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from bartizan_connector.base.errors import WrongUse
from bartizan_training.data.collections import BeirData, read_lines
from bartizan_training.data.weak import SENTENCE_END
from bartizan_training.settings import CorpusSentences, Documents, Lines, Queries, TextSource


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
        case Documents():
            return BeirData.read(source.path).corpus.values()
        case Lines():
            return read_lines(source.path)
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
    return [words for part in SENTENCE_END.split(text) if len(words := part.split()) >= min_words]
