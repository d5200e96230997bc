"""Weakly paired text out of a collection alone: a title asks for its text, a sentence for the rest of its document."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bartizan_training.data.collections import documents_of
from bartizan_training.settings import Weak

SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")


def weak_pairs(folder: Path, table: Weak) -> Iterator[tuple[str, str]]:
    """Question and answer, document by document. A document that is one sentence long has no rest, and gives none."""
    for number, (title, text) in enumerate(documents_of(folder)):
        if table.titles and title and text:
            yield title, text
        random = np.random.default_rng([table.seed, number])
        sentences = [part.strip() for part in SENTENCE_END.split(text) if part.strip()]
        able = [place for place, part in enumerate(sentences) if len(part.split()) >= table.min_words]
        if len(sentences) < 2:
            continue
        for place in random.permutation(able)[: table.sentences]:
            stays = random.random() < table.kept
            rest = [part for other, part in enumerate(sentences) if stays or other != place]
            yield sentences[place], " ".join([title, *rest]).strip()
