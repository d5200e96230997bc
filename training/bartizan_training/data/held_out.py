"""Queries that are kept for testing: none of them is ever trained on, under its own id or as an equal text."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from bartizan_training.data.collections import BeirData


@dataclass(frozen=True, slots=True)
class HeldOut:
    """The queries of a split that is for testing."""

    ids: frozenset[str] = frozenset()
    texts: frozenset[str] = frozenset()

    @classmethod
    def of(cls, data: BeirData, split: str) -> Self:
        """Those that the split judges; none, when the collection has no such split."""
        if split not in data.splits:
            return cls()
        judged = data.qrels(split)
        return cls(frozenset(judged), frozenset(_plain(data.queries[query]) for query in judged))

    @classmethod
    def read(cls, folder: Path | None, split: str) -> Self:
        """The same of a BEIR folder; no folder, none."""
        return cls() if folder is None else cls.of(BeirData.read(folder), split)

    def holds(self, text: str, id: str | None = None) -> bool:
        """Whether the query is one of them. Case and white space make no other query."""
        return id in self.ids or _plain(text) in self.texts


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
