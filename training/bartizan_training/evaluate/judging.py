"""Judging towers on a collection: encode documents and queries, search exactly, measure, time single queries.

1 documents are encoded once, 2 each query tower is judged over them: an exact search, so that nothing but the towers
decides the answers. Equal scores are in order of document id.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.base.progress import progress
from bartizan_connector.encode.encoder import Encoder
from bartizan_connector.space.spec import Role, TowerSpec, require_same_space
from bartizan_connector.space.vectors import SparseVector, Vectors
from bartizan_connector.store import exact
from bartizan_training.data.collections import BeirData, Qrels
from bartizan_training.evaluate.measuring import DEPTH, Measured, measure, without_own
from bartizan_training.evaluate.timing import take_turns

_CHUNK = 128
"""Texts encoded between two steps of the progress bar."""
_TIMED_QUERIES = 100
_WARM_UP = 5
_BLOCK = 256
"""Sparse vectors that are laid out as dense ones together."""

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Documents:
    """A collection's documents as one tower sees them, in order of id."""

    ids: tuple[str, ...]
    vectors: Vectors
    dim: int
    end_to_end: exact.SparseTable | None = field(init=False, repr=False, compare=False)
    """Sparse documents laid out once for all queries; None for dense ones."""

    def __post_init__(self) -> None:
        values = self.vectors.values
        table = exact.SparseTable(values) if isinstance(values, tuple) else None
        object.__setattr__(self, "end_to_end", table)


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Milliseconds for one query at a time."""

    queries: int
    encode_p50: float
    encode_p95: float
    search_p50: float
    """The exact search, which looks at every document."""
    search_p95: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What a query tower achieved over a collection's documents."""

    measured: Measured
    answers: dict[str, list[str]]
    """Query → its documents, best first."""
    latency: Latency
    truncated: int
    """Queries of which the tower saw only the beginning."""


def require_pair(document: TowerSpec, query: TowerSpec) -> None:
    """Refuse two towers that cannot work together, before anything is encoded."""
    document.role("document")
    query.role("query")
    require_same_space(
        f"query tower '{query.name}' and document tower '{document.name}' do not belong together",
        expected=document.space_id,
        came=query.space_id,
        way_out="Give a query tower that was distilled from, or trained with, the document tower.",
    )


def encode_documents(data: BeirData, encoder: Encoder) -> Documents:
    """Every document of the collection."""
    ids = tuple(sorted(data.corpus))
    vectors = _encode([data.corpus[id] for id in ids], encoder, "document", f"{data.name}: documents")
    return Documents(ids, vectors, encoder.spec.dim)


def judge(data: BeirData, qrels: Qrels, documents: Documents, encoder: Encoder, *, relevant_from: int = 1) -> Judged:
    """Answer every judged query with this query tower, and measure."""
    queries = sorted(qrels)
    texts = [data.queries[query] for query in queries]
    vectors = _encode(texts, encoder, "query", f"{data.name}: queries")
    found = search(vectors, documents, DEPTH + 1)
    answers = {
        query: without_own(query, [documents.ids[position] for position in row])
        for query, row in zip(queries, found, strict=True)
    }
    return Judged(
        measured=measure(qrels, answers, relevant_from=relevant_from),
        answers=answers,
        latency=time_queries(texts, documents, encoder),
        truncated=sum(vectors.truncated),
    )


def search(queries: Vectors, documents: Documents, k: int = DEPTH) -> list[list[int]]:
    """Positions of each query's k best documents, by inner product; two spaces never meet."""
    require_same_space(
        "the queries were encoded for other documents",
        expected=documents.vectors.space_id,
        came=queries.space_id,
        way_out="Encode both with towers of one space.",
    )
    if isinstance(queries.values, np.ndarray) and isinstance(documents.vectors.values, np.ndarray):
        found, _ = exact.top_k(queries.values, documents.vectors.values, k)
        return [[int(position) for position in row] for row in found]
    if isinstance(queries.values, tuple) and documents.end_to_end:
        return [_best_sparse(scores, k) for scores in sparse_scores(queries.values, documents)]
    raise WrongUse("dense and sparse vectors cannot be compared; give two towers of one kind")


def time_queries(texts: Sequence[str], documents: Documents, encoder: Encoder) -> Latency:
    """Encode and search a sample of the queries one by one, as a service would; the first few only warm up."""
    sample = np.random.default_rng(0).permutation(len(texts))[:_TIMED_QUERIES]
    block = [texts[position] for position in [*sample[:_WARM_UP], *sample]]
    vectors: list[Vectors] = []
    encode = {"encode": lambda text: vectors.append(encoder.encode([text], "query"))}
    find = {"search": lambda query: search(query, documents)}
    warm_up = len(block) - len(sample)
    times = take_turns(encode, [block], warm_up=warm_up) | take_turns(find, [vectors], warm_up=warm_up)
    quantiles = {name: np.quantile(taken.wall, [0.5, 0.95]) for name, taken in times.items()}
    (encode_p50, encode_p95), (search_p50, search_p95) = (map(float, quantiles[name]) for name in ("encode", "search"))
    return Latency(
        queries=len(sample), encode_p50=encode_p50, encode_p95=encode_p95, search_p50=search_p50, search_p95=search_p95
    )


def _encode(texts: Sequence[str], encoder: Encoder, role: Role, what: str) -> Vectors:
    """One vector a text. Equal texts are encoded once, so that they tie; the long first, so that memory peaks early."""
    distinct = sorted(set(texts), key=lambda text: (-len(text), text))
    parts: list[Vectors] = []
    with progress(what, len(distinct)) as tick:
        for start in range(0, len(distinct), _CHUNK):
            parts.append(encoder.encode(distinct[start : start + _CHUNK], role))
            tick(len(parts[-1]))
    place = {text: position for position, text in enumerate(distinct)}
    order = [place[text] for text in texts]
    tokens = [count for part in parts for count in part.tokens]
    truncated = [cut for part in parts for cut in part.truncated]
    return Vectors(
        space_id=encoder.spec.space_id,
        tower_id=encoder.spec.tower_id,
        values=_gather(parts, order),
        tokens=tuple(tokens[position] for position in order),
        truncated=tuple(truncated[position] for position in order),
    )


def _gather(parts: Sequence[Vectors], order: Sequence[int]) -> np.ndarray | tuple[SparseVector, ...]:
    dense = [part.values for part in parts if isinstance(part.values, np.ndarray)]
    if len(dense) == len(parts):
        return np.concatenate(dense)[list(order)]
    rows = [row for part in parts if isinstance(part.values, tuple) for row in part.values]
    return tuple(rows[position] for position in order)


def sparse_scores(queries: Sequence[SparseVector], documents: Documents) -> Iterator[Scores]:
    """The inner product of each query with each document. Many queries are multiplied as dense matrices, some queries
    and some documents at a time: of towers that weigh half of a vocabulary, one query alone takes a second."""
    rows, table = documents.vectors.values, documents.end_to_end
    assert isinstance(rows, tuple)
    assert table
    if len(queries) == 1:
        yield table.scores(queries[0], documents.dim)
        return
    for start in range(0, len(queries), _BLOCK):
        asked = _dense(queries[start : start + _BLOCK], documents.dim)
        blocks = (_dense(rows[first : first + _BLOCK], documents.dim) for first in range(0, len(rows), _BLOCK))
        yield from np.concatenate([np.zeros((len(asked), 0)), *(asked @ block.T for block in blocks)], axis=1)


def _dense(rows: Sequence[SparseVector], dim: int) -> Scores:
    matrix = np.zeros((len(rows), dim))
    for row, vector in zip(matrix, rows, strict=True):
        row[vector.indices] = vector.weights
    return matrix


def _best_sparse(scores: Scores, k: int) -> list[int]:
    """Documents without a common term are no answer."""
    positions, best = exact.best(scores, k)
    return [int(position) for position in positions[best > 0]]
