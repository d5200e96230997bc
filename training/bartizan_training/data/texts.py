"""Bare query texts to distil with: query logs, queries of a collection, and short spans of its documents."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from bartizan_connector.base.errors import WrongUse
from bartizan_training.data.collections import BeirData
from bartizan_training.data.held_out import HeldOut
from bartizan_training.data.lines import RECORDS, lines_of, records_of
from bartizan_training.data.triple_records import text_in
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
            apart = source.split == source.held_out_split
            held_out = HeldOut() if apart else HeldOut.read(source.path, source.held_out_split)
            return (data.queries[id] for id in ids if not held_out.holds(data.queries[id], id))
        case Documents():
            return BeirData.read(source.path).corpus.values()
        case Lines():
            held_out = HeldOut.read(source.held_out, source.held_out_split)
            return (text for text in _log(source) if not held_out.holds(text))
        case CorpusSentences():
            return _draw_sentences(tuple(BeirData.read(source.path).corpus.values()), source, seed)


def _log(source: Lines) -> Iterable[str]:
    if source.path.suffix not in RECORDS:
        return (text for _, text in lines_of(source.path))
    return (text_in(record, source.column, where) for where, record in records_of(source.path))


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
