"""The lexical leg of the embedded store beside Tantivy and SQLite's FTS5, at 5,000 and at 200,000 texts.

The texts are those of the judged collections; for the larger size their passages are cut into windows of words until
there are enough, which overlap in half of what they say. Every engine answers the same judged queries for the best
100, in blocks that take turns.
"""

import json
import random
import sqlite3
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from bartizan_connector.base.console import err
from bartizan_connector.search.words.index import WordIndex
from bartizan_connector.space.vectors import Vector
from bartizan_connector.store.collection import Collection, FieldSpec, Leg, Row
from bartizan_connector.store.embedded import EmbeddedBackend
from benchmarks.collections import data_folder
from benchmarks.record import Record, Table

SIZES = (5_000, 200_000)
_QUERIES = 150
_BLOCK = 25
_K = 100
_BATCH = 1_000
_WINDOW, _STEP = 40, 16
"""Words of a text of the larger size, and from where on the next one begins."""
_SPACE = "none"
_SPEC = Collection(
    name="texts",
    legs=(Leg(name="dense", kind="dense", dim=2, space_id=_SPACE),),
    fields=(FieldSpec(name="title", type="string", default=""), FieldSpec(name="text", type="string", default="")),
)
Search = Callable[[str], list[str]]
"""A query → the ids of the best, in their order."""


def run() -> None:
    """Measure at both sizes."""
    record = Record("words")
    results: dict[str, Any] = {}
    tables: dict[str, Table] = {}
    asked = list(islice(_asked(), _QUERIES))
    for size in SIZES:
        texts = list(islice(_texts(whole=size <= 5_000), size))
        err.print(f"{len(texts):,} texts", markup=False)
        with tempfile.TemporaryDirectory() as aside:
            results[str(len(texts))], tables[f"{len(texts):,} texts, best {_K}"] = _measured(texts, asked, Path(aside))
        record.write(results, tables)
    record.show()


def _measured(texts: Sequence[str], asked: Sequence[str], aside: Path) -> tuple[dict[str, Any], Table]:
    engines: dict[str, Search] = {}
    facts: dict[str, dict[str, float]] = {}
    makers = {"postings (embedded store)": _postings, "Tantivy": _tantivy, "FTS5": _fts5}
    for name, make in makers.items():
        begun = time.perf_counter()
        engines[name] = make(aside / name[:7], texts)
        filled = time.perf_counter() - begun
        begun = time.perf_counter()
        engines[name](asked[0])
        facts[name] = {"texts_per_second": len(texts) / filled, "first_search_s": time.perf_counter() - begun}
    times: dict[str, list[float]] = defaultdict(list)
    found: dict[str, list[list[str]]] = defaultdict(list)
    dice, names = random.Random(0), list(engines)
    for start in range(0, len(asked), _BLOCK):
        dice.shuffle(names)
        for name in names:
            for text in asked[start : start + _BLOCK]:
                begun = time.perf_counter()
                answer = engines[name](text)
                times[name].append(time.perf_counter() - begun)
                found[name].append(answer[:10])
    ours = found["postings (embedded store)"]
    for name, each in facts.items():
        each["p50_ms"], each["p95_ms"] = (float(np.percentile(times[name], at)) * 1e3 for at in (50, 95))
        each["best 10 as ours"] = float(
            np.mean([len(set(a) & set(b)) / max(1, len(b)) for a, b in zip(found[name], ours, strict=True)])
        )
    return facts, [
        {
            "engine": name,
            "p50 ms": f"{each['p50_ms']:.2f}",
            "p95 ms": f"{each['p95_ms']:.2f}",
            "first search, s": f"{each['first_search_s']:.2f}",
            "texts/s": f"{each['texts_per_second']:,.0f}",
            "of the best 10 as ours": f"{each['best 10 as ours']:.0%}",
        }
        for name, each in facts.items()
    ]


def _postings(place: Path, texts: Sequence[str]) -> Search:
    backend = EmbeddedBackend(place / "index.bartizan", index="flat")
    store = backend.open(_SPEC)
    for batch in _rows(texts):
        store.upsert(batch)
    words = store.words
    assert words is not None
    return lambda text: [hit.id for hit in words.search(text, _K)]


def _tantivy(place: Path, texts: Sequence[str]) -> Search:
    index = WordIndex(place, "texts")
    for batch in _rows(texts):
        index.upsert(batch)
    return lambda text: [hit.id for hit in index.search(text, _K)]


def _fts5(place: Path, texts: Sequence[str]) -> Search:
    """With the same endings and without accents, as its own function ranks."""
    place.mkdir()
    base = sqlite3.connect(place / "texts.sqlite", isolation_level=None)
    base.execute("PRAGMA journal_mode = WAL")
    base.execute("CREATE VIRTUAL TABLE texts USING fts5(id UNINDEXED, text, tokenize = 'porter unicode61')")
    for batch in _rows(texts):
        base.execute("BEGIN")
        base.executemany("INSERT INTO texts VALUES (?, ?)", [(row.id, row.fields["text"]) for row in batch])
        base.execute("COMMIT")

    def search(text: str) -> list[str]:
        words = {word for part in text.split() if (word := "".join(filter(str.isalnum, part)))}
        either = " OR ".join(f'"{word}"' for word in sorted(words))
        found = base.execute(
            "SELECT id, text FROM texts WHERE texts MATCH ? ORDER BY bm25(texts) LIMIT ?", (either, _K)
        )
        return [id for id, _ in found]

    return search


def _rows(texts: Sequence[str]) -> Iterator[list[Row]]:
    vector = {"dense": Vector(_SPACE, np.array([1, 0], np.float32))}
    for start in range(0, len(texts), _BATCH):
        yield [
            Row(
                id=f"d{start + number:08}",
                vectors=vector,
                fields={"title": "", "text": text},
                version=1,
                hash="h",
            )
            for number, text in enumerate(texts[start : start + _BATCH])
        ]


def _texts(*, whole: bool) -> Iterator[str]:
    for line in _lines("scifact", "corpus.jsonl"):
        yield from [line["text"]] if whole else _windows(line["text"])
    if not whole:
        for name in ("trec-dl-2019-2020-pool", "nfcorpus", "wikiqa"):
            for line in _lines(name, "corpus.jsonl"):
                yield from _windows(line["text"])


def _windows(text: str) -> Iterator[str]:
    words = text.split()
    for start in range(0, max(1, len(words) - _WINDOW + _STEP), _STEP):
        yield " ".join(words[start : start + _WINDOW])


def _asked() -> Iterator[str]:
    for line in _lines("scifact", "queries.jsonl"):
        yield line["text"]


def _lines(collection: str, file: str) -> Iterator[dict[str, str]]:
    with closing((data_folder() / collection / file).open(encoding="utf-8")) as lines:
        for line in lines:
            yield json.loads(line)
