"""Damages: what can stand wrong in a collection, what it means, and what becomes of it."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal[
    "missing row", "extra row", "stale row", "wrong head", "missing tombstone", "half-written", "broken vector",
    "foreign vector", "words behind", "foreign words", "contract", "name",
]  # fmt: skip

MEANING: Mapping[Kind, str] = {
    "missing row": "its head says that it is stored, and a row of it is not there",
    "extra row": "a row for which no head accounts, so nothing says what it is or may replace it",
    "stale row": "its row holds other content than the head says",
    "wrong head": "its head says other content than row and words hold",
    "missing tombstone": "deletes that the last writer left remembered are not any more: a replay can undo them",
    "half-written": "a write of it began and did not end",
    "broken vector": "a vector that is missing, of a wrong length, or holds NaN or infinity",
    "foreign vector": "a vector that is not what the leg's document tower gives for the text",
    "words behind": "the word index does not hold what is stored",
    "foreign words": "the word index is another collection's",
    "contract": "the stored contract is not the configuration's",
    "name": "the name stands for a collection that was made under another one",
}

WAY_OUT: Mapping[Kind, str] = {
    "missing row": "bartizan verify --repair, then bartizan ingest, which writes it again",
    "extra row": "bartizan verify --repair takes it away",
    "stale row": "bartizan verify --repair, then bartizan ingest, which writes it again",
    "wrong head": "bartizan verify --repair, then bartizan ingest, which writes it again",
    "missing tombstone": "ingest again from the source that holds the deletes; which ids they were, nothing tells",
    "half-written": "bartizan ingest completes it, where its change comes again",
    "broken vector": "bartizan verify --repair encodes it again",
    "foreign vector": "bartizan verify --repair encodes it again; where it is every document, another tower filled the "
    "collection: ingest into a new one",
    "words behind": "bartizan verify --repair brings the words up",
    "foreign words": "set [backend] lexical to a folder of this collection's own, and ingest",
    "contract": "point the configuration at the towers and fields that the collection was made with, or restore it",
    "name": "bartizan verify --repair gives it back to that collection; or set [collection] name to the name that is "
    "meant",
}

EXAMPLES = 20
"""Ids that are named of each kind."""


@dataclass(slots=True)
class Tally:
    """What was looked at and found, in bounded memory."""

    documents: int = 0
    rows: int = 0
    compared: int = 0
    """Vectors that were encoded again."""
    found: Counter[Kind] = field(default_factory=Counter)
    mended: Counter[Kind] = field(default_factory=Counter)
    pending: Counter[Kind] = field(default_factory=Counter)
    """Made ready for the next ingest to write again."""
    examples: defaultdict[Kind, list[str]] = field(default_factory=lambda: defaultdict(list))
    notes: list[str] = field(default_factory=list)
    exit_code: int = 0

    def add(self, kind: Kind, example: str, count: int = 1, *, exit_code: int = 1) -> None:
        """One more of that kind."""
        self.found[kind] += count
        if len(self.examples[kind]) < EXAMPLES:
            self.examples[kind].append(example)
        self.exit_code = max(self.exit_code, exit_code)

    @property
    def left(self) -> Counter[Kind]:
        """What was found and not mended."""
        return self.found - self.mended

    def code(self) -> int:
        """0: all is well, or was mended."""
        return self.exit_code if self.left else 0
