"""`bartizan study quantised`: one tower in several numeric forms: quality, latency of single queries, and size.

1 the documents are encoded once, in fp32: the index, 2 the test queries in each form, 3 single queries are timed in
turns, so that other work on the machine hits all forms alike. A form that cannot be made is a line with its reason.
"""

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bartizan_connector.base import console
from bartizan_connector.base.aside import write_aside
from bartizan_connector.base.errors import BartizanError
from bartizan_connector.encode.encoder import Encoder
from bartizan_connector.space.spec import TowerSpec
from bartizan_connector.space.vectors import SparseVector
from bartizan_training.data.collections import BeirData
from bartizan_training.evaluate.judging import Judged, encode_documents, judge, require_pair
from bartizan_training.evaluate.significance import Difference, compare
from bartizan_training.evaluate.timing import one_query, take_turns
from bartizan_training.studies.forms import REFERENCE, Opened, open_form

_MEASURE = "nDCG@10"
_ROUNDS, _BLOCK, _WARM_UP = 4, 20, 3
"""Rounds of single queries, and how many each form is given before the next one has its turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One form of the tower."""

    form: str
    refused: str | None = None
    """Why there is no such form; then nothing else is there."""
    megabytes: float | None = None
    ndcg: float | None = None
    against: Difference | None = None
    """nDCG@10 against fp32, query by query."""
    cosine: float | None = None
    """Of the query vectors to those of fp32, the mean."""
    active_terms: float | None = None
    """Of a query, the mean; sparse towers alone."""
    p50: float | None = None
    p95: float | None = None
    """Milliseconds to encode one query."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantised:
    """What is to be compared, and on what."""

    tower: Path
    data: Path
    query_tower: Path | None = None
    split: str = "test"
    forms: tuple[str, ...]
    threads: int = 1

    def run(self) -> tuple[Row, ...]:
        """Every form, the reference first."""
        queries = self.query_tower or self.tower
        require_pair(TowerSpec.read(self.tower), TowerSpec.read(queries))
        data = BeirData.read(self.data)
        qrels = data.qrels(self.split)
        texts = [data.queries[query] for query in sorted(qrels)]
        names = (REFERENCE, *(form for form in self.forms if form != REFERENCE))
        with ExitStack() as stack:
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bartizan-forms-")))
            made: dict[str, Opened | str] = {name: _made(name, queries, scratch, self.threads) for name in names}
            opened = {name: form for name, form in made.items() if isinstance(form, Opened)}
            for form in opened.values():
                stack.enter_context(closing(form.encoder))
            with _documents(self.tower, queries, opened[REFERENCE], scratch, self.threads) as encoder:
                documents = encode_documents(data, encoder)
            judged = {name: judge(data, qrels, documents, form.encoder) for name, form in opened.items()}
            times = take_turns(
                {name: one_query(form.encoder) for name, form in opened.items()}, _blocks(texts), warm_up=_WARM_UP
            )
            plain = _values(opened[REFERENCE].encoder, texts)
            rows = []
            for name in names:
                outcome = made[name]
                if isinstance(outcome, str):
                    rows.append(Row(form=name, refused=outcome))
                    continue
                values = _values(outcome.encoder, texts)
                p50, p95 = (float(value) for value in np.quantile(times[name].wall, [0.5, 0.95]))
                rows.append(
                    Row(
                        form=name,
                        megabytes=outcome.megabytes,
                        ndcg=judged[name].measured.metrics[_MEASURE],
                        against=compare(_each(judged[name]), _each(judged[REFERENCE])),
                        cosine=float(np.mean([_cosine(a, b) for a, b in zip(values, plain, strict=True)])),
                        active_terms=_active(values),
                        p50=p50,
                        p95=p95,
                    )
                )
        return tuple(rows)


def write(rows: tuple[Row, ...], path: Path, facts: Mapping[str, Any]) -> None:
    """All figures as JSON."""
    write_aside(path, json.dumps({**facts, "forms": [asdict(row) for row in rows]}, indent=2) + "\n")


def table(rows: tuple[Row, ...]) -> list[tuple[str, ...]]:
    """A line a form, as it is shown."""
    return [_cells(row) for row in rows]


COLUMNS = ("form", "nDCG@10", "against fp32 (95 %)", "cosine", "active terms", "p50 ms", "p95 ms", "MB")


def _cells(row: Row) -> tuple[str, ...]:
    if row.refused is not None:
        return (row.form, f"not made: {row.refused}", *[""] * (len(COLUMNS) - 2))
    against = row.against
    assert against is not None
    active = "" if row.active_terms is None else f"{row.active_terms:,.0f}"
    interval = f"{against.mean:+.4f} ({against.low:+.3f} … {against.high:+.3f})"
    measured = f"{row.cosine:.4f}", active, f"{row.p50:.2f}", f"{row.p95:.2f}", f"{row.megabytes:,.1f}"
    return row.form, f"{row.ndcg:.4f}", interval, *measured


def _made(form: str, tower: Path, scratch: Path, threads: int) -> Opened | str:
    """The form, or why it cannot be made; without the reference there is nothing to compare."""
    console.err.print(f"making {form} …", markup=False)
    try:
        return open_form(form, tower, scratch, threads=threads)
    except BartizanError as error:
        if form == REFERENCE:
            raise
        return str(error).split("\n")[0]


@contextmanager
def _documents(tower: Path, queries: Path, opened: Opened, scratch: Path, threads: int) -> Iterator[Encoder]:
    """The document tower in fp32; the query tower's encoder when they are one."""
    if tower.resolve() == queries.resolve():
        yield opened.encoder
        return
    with closing(open_form(REFERENCE, tower, scratch / "documents", threads=threads).encoder) as encoder:
        yield encoder


def _blocks(texts: list[str]) -> list[list[str]]:
    random = np.random.default_rng(0)
    return [[texts[n] for n in random.permutation(len(texts))[:_BLOCK]] for _ in range(_ROUNDS)]


def _values(encoder: Encoder, texts: list[str]) -> list[np.ndarray | SparseVector]:
    return list(encoder.encode(texts, "query").values)


def _each(judged: Judged) -> dict[str, float]:
    return {query: values[_MEASURE] for query, values in judged.measured.per_query.items()}


def _active(values: list[np.ndarray | SparseVector]) -> float | None:
    counts = [len(value.indices) for value in values if isinstance(value, SparseVector)]
    return float(np.mean(counts)) if counts else None


def _cosine(a: np.ndarray | SparseVector, b: np.ndarray | SparseVector) -> float:
    """Of two vectors of one kind; of two zeros 1, of one zero 0."""
    if isinstance(a, SparseVector) and isinstance(b, SparseVector):
        size = 1 + max([0, *a.indices, *b.indices])
        return _cosine(_dense(a, int(size)), _dense(b, int(size)))
    assert isinstance(a, np.ndarray)
    assert isinstance(b, np.ndarray)
    lengths = float(np.linalg.norm(a)), float(np.linalg.norm(b))
    if 0.0 in lengths:
        return float(lengths[0] == lengths[1])
    return float(np.asarray(a, dtype=np.float64) @ b / (lengths[0] * lengths[1]))


def _dense(vector: SparseVector, size: int) -> np.ndarray:
    values = np.zeros(size)
    values[vector.indices] = vector.weights
    return values
