"""Queries that are kept for testing: none of them is ever trained on, under its own id or as an equal text."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from bartizan_connector.base.errors import WrongUse
from bartizan_training.data.lines import lines_of, records_of


@dataclass(frozen=True, slots=True)
class HeldOut:
    """The queries of a split that is for testing."""

    ids: frozenset[str] = frozenset()
    texts: frozenset[str] = frozenset()

    @classmethod
    def read(cls, folder: Path | None, split: str) -> Self:
        """Those that the split of a BEIR folder judges; none, without a folder, or when it has no such split. Its
        documents are not read: they can be many."""
        if folder is None or not (judged := folder / "qrels" / f"{split}.tsv").exists():
            return cls()
        ids = frozenset(line.split("\t")[0] for number, (_, line) in enumerate(lines_of(judged)) if number)
        texts = {str(record.get("_id")): record.get("text") for _, record in records_of(folder / "queries.jsonl")}
        if unknown := [id for id in ids if not isinstance(texts.get(id), str)]:
            raise WrongUse(f"{judged} judges query '{unknown[0]}', which {folder / 'queries.jsonl'} does not have")
        return cls(ids, frozenset(_plain(str(texts[id])) for id in ids))

    def holds(self, text: str, id: str | None = None) -> bool:
        """Whether the query is one of them. Case and white space make no other query."""
        return id in self.ids or _plain(text) in self.texts


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
