"""The demo's judged queries: written by hand, and split by a hash of their text."""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

Split = Literal["train", "dev", "test"]

_TENTHS: dict[Split, range] = {"test": range(5), "dev": range(5, 8), "train": range(8, 10)}
"""Test: held out. Dev: what the recipe's settings were chosen by. Train: what the towers may see."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A query and the names of what answers it."""

    text: str
    relevant: tuple[str, ...]

    @property
    def id(self) -> str:
        """Follows from the text alone, so that a new query changes no other."""
        return f"q-{self._digest}"

    @property
    def split(self) -> Split:
        """Follows from the text alone, too."""
        tenth = int(self._digest, 16) % 10
        return next(split for split, tenths in _TENTHS.items() if tenth in tenths)

    @property
    def _digest(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()[:8]


def read() -> list[Query]:
    """All queries as they were written."""
    lines = files("bartizan_training").joinpath("demo/queries.tsv").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("\t") for line in lines)
    return [Query(text=text, relevant=tuple(names.split())) for text, names in pairs]


def known(queries: list[Query], names: Collection[str]) -> tuple[list[Query], list[str]]:
    """The queries with the answers that this Python has, and the names that it does not have; a query without any
    answer is left out."""
    kept = [
        Query(text=query.text, relevant=present)
        for query in queries
        if (present := tuple(name for name in query.relevant if name in names))
    ]
    return kept, sorted({name for query in queries for name in query.relevant if name not in names})
