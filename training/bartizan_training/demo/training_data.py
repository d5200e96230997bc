"""What the demo's towers learn from: pairs and short texts derived from the documents, and the training queries.

A docstring's first sentence says what the thing is for, much as a person would ask for it: it becomes a query, and its
document is the rest: the name, the parameters and what else the docstring says. Held-out queries are nowhere in it.
"""

import random
import re
import string
from pathlib import Path

from bartizan_training.data.collections import write_collection
from bartizan_training.demo.corpus import Corpus, Document

MIN_WORDS = 3
MAX_WORDS = 16
"""Queries are short; a sentence is cut to its first words."""
SPANS, SPAN_WORDS = 4, 12
"""Drawn from each document, and the length of the longest."""
REST = "/rest"
"""Marks a document without its first sentence."""

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n\s*\n")
_PUNCTUATION = string.punctuation + string.whitespace
_WORD_BORDER = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[._]+")


def write(corpus: Corpus, folder: Path) -> None:
    """Save the pairs in BEIR layout, and beside them `texts.txt`: short texts for distillation, one a line."""
    held_out = {normal(query.text) for query in corpus.queries if query.split != "train"}
    derived = [
        (document, first, rest)
        for document in corpus.documents
        for first, rest in [halves(document["text"])]
        if len(first.split()) >= MIN_WORDS and normal(first) not in held_out
    ]
    train = corpus.split("train")
    judged = {name for query in train for name in query.relevant}
    whole = [document for document in corpus.documents if document["_id"] in judged]
    rests = [{"_id": f"{d['_id']}{REST}", "title": d["title"], "text": rest} for d, _, rest in derived]
    queries = [{"_id": query.id, "text": query.text} for query in train]
    queries += [{"_id": f"first-{number}", "text": first} for number, (_, first, _) in enumerate(derived)]
    pairs = [(query.id, name) for query in train for name in query.relevant]
    pairs += [(f"first-{number}", f"{document['_id']}{REST}") for number, (document, _, _) in enumerate(derived)]
    documents = [*({key: document[key] for key in ("_id", "title", "text")} for document in whole), *rests]
    write_collection(folder, documents, queries, {"train": pairs})
    short = dict.fromkeys(text for document in corpus.documents for text in [in_words(document), *spans(document)])
    lines = [text for text in short if normal(text) not in held_out]
    (folder / "texts.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def halves(text: str) -> tuple[str, str]:
    """A docstring's first sentence, cut to the length of a query, and everything after that sentence."""
    first, *rest = _SENTENCE_END.split(text, maxsplit=1)
    return " ".join(first.split()[:MAX_WORDS]).rstrip("."), " ".join(" ".join(rest).split())


def in_words(document: Document) -> str:
    """`os.path.getsize` → `os path getsize`, `queue.SimpleQueue` → `queue Simple Queue`."""
    return " ".join(_WORD_BORDER.sub(" ", document["_id"]).split())


def spans(document: Document) -> list[str]:
    """A few runs of words out of the document's sentences, always the same."""
    chance = random.Random(document["_id"])
    sentences = [words for part in _SENTENCE_END.split(document["text"]) if len(words := part.split()) >= MIN_WORDS]
    drawn = []
    for _ in range(SPANS if sentences else 0):
        words = chance.choice(sentences)
        length = chance.randint(MIN_WORDS, min(SPAN_WORDS, len(words)))
        start = chance.randint(0, len(words) - length)
        span = " ".join(words[start : start + length]).strip(_PUNCTUATION)
        if len(span.split()) >= MIN_WORDS:
            drawn.append(span)
    return drawn


def normal(text: str) -> str:
    """The same for texts that differ in case, spacing or a full stop only."""
    return " ".join(text.lower().split()).rstrip(".")
