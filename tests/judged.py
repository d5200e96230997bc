"""Small judged collections on disk, and a tower of a few words that answers them, for tests of whatever judges."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from bartizan_connector.space.spec import RoleSpec, TowerSpec
from bartizan_connector.space.vectors import SparseVector, Vectors

WORDS = ("apple", "bread", "cheese", "dates", "eggs", "figs", "grapes", "honey")

Corpus = Mapping[str, str | tuple[str, str]]


def write_collection(
    folder: Path, corpus: Corpus, queries: Mapping[str, str], **splits: Mapping[str, Mapping[str, int]]
) -> Path:
    """A BEIR folder; a document is its text, or its title and text."""
    (folder / "qrels").mkdir(parents=True)
    documents = [
        {"_id": id, "text": text} if isinstance(text, str) else {"_id": id, "title": text[0], "text": text[1]}
        for id, text in corpus.items()
    ]
    write_lines(folder / "corpus.jsonl", documents)
    write_lines(folder / "queries.jsonl", [{"_id": id, "text": text} for id, text in queries.items()])
    for split, qrels in splits.items():
        rows = [f"{query}\t{id}\t{grade}" for query, grades in qrels.items() for id, grade in grades.items()]
        lines = ["query-id\tcorpus-id\tscore", *rows]
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def write_lines(path: Path, records: Sequence[object]) -> None:
    """One JSON record a line."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def spec_of_words(
    *, kind: str = "dense", space: str | None = None, roles: Sequence[str] = ("query", "document")
) -> TowerSpec:
    """The spec of a tower that counts `WORDS`."""
    return TowerSpec.model_validate(
        {
            "name": f"{kind} words",
            "kind": kind,
            "dim": len(WORDS),
            "pooling": "mean",
            "normalise": False,
            "similarity": "dot",
            "roles": {role: RoleSpec(max_tokens=4) for role in roles},
            "tokenizer_hash": "0" * 64,
            "architecture_hash": "1" * 64,
            "weights_hash": "2" * 64,
            "space": space,
        }
    )


class WordEncoder:
    """Counts the known words of a text; remembers what it was asked."""

    def __init__(self, spec: TowerSpec | None = None) -> None:
        self._spec = spec or spec_of_words()
        self.asked: list[tuple[str, ...]] = []

    @property
    def spec(self) -> TowerSpec:
        return self._spec

    def encode(self, texts: Sequence[str], role: str, *, timeout: float | None = None) -> Vectors:
        self.asked.append(tuple(texts))
        counts = np.array([[text.split().count(word) for word in WORDS] for text in texts], dtype=np.float32)
        lengths = tuple(len(text.split()) for text in texts)
        return Vectors(
            space_id=self._spec.space_id,
            tower_id=self._spec.tower_id,
            values=counts if self._spec.kind == "dense" else tuple(_sparse(row) for row in counts),
            tokens=lengths,
            truncated=tuple(length > 4 for length in lengths),
        )

    async def aencode(self, texts: Sequence[str], role: str, *, timeout: float | None = None) -> Vectors:
        return self.encode(texts, role, timeout=timeout)

    def close(self) -> None: ...


def _sparse(counts: np.ndarray) -> SparseVector:
    indices = np.flatnonzero(counts)
    return SparseVector(indices.astype(np.int32), counts[indices])
