"""The recall of a leg: what its index finds beside what comparing every vector finds, at bounded memory."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bartizan_connector.space.vectors import Floats, SparseVector, Vector, Vectors
from bartizan_connector.store.backend import Indexed, Store
from bartizan_connector.store.checks import checked_leg
from bartizan_connector.store.collection import Hit, Leg
from bartizan_connector.store.exact import SparseTable

QUERIES, K = 64, 10
Key = tuple[str, int]
Page = tuple[list[Key], Sequence[Vector]]
"""The keys of some rows, and their vectors."""

_TIES = 4
"""Rows that score as the k-th does count as right; so many times k are remembered."""
_SLACK = 1e-5
"""Of the best score: scores that differ by less are one, whatever the length of the vectors."""
_AT_ONCE = 32
"""Documents that are looked up again in one call."""
_BESIDE = 0.3
"""Half of the queries lie between two stored vectors, by so much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recall:
    """Measured with stored vectors and with vectors between two of them."""

    recall: float
    """The share of the k nearest rows that a search finds; 1 where there are no rows."""
    queries: int
    """0 where there is nothing to ask: no rows, or none of a sparse leg with a term."""
    k: int
    rows: int


def recall_of(store: Store, leg: str, *, queries: int = QUERIES, k: int = K, seed: int = 0) -> Recall:
    """The recall of one leg, measured now. Every vector of the leg is read once or twice, so it takes as long as a
    scan; every search sees what the store's consistency shows."""
    exam = Exam.of(store, leg, queries=queries, k=k, seed=seed)
    return exam.taken(lambda vectors, count: store.search(leg, vectors, count))


class Exam:
    """Queries, and the rows that a right answer holds; taken as often as a search is changed."""

    def __init__(
        self, store: Store, leg: Leg, asked: Vectors | None, k: int, rows: int, right: Sequence[dict[Key, float]]
    ) -> None:
        self._store = store
        self._leg = leg
        self._asked = asked
        self._k = k
        self._rows = rows
        self._right = right

    @classmethod
    def of(cls, store: Store, leg: str, *, queries: int = QUERIES, k: int = K, seed: int = 0) -> "Exam":
        """Drawn from all rows of the leg, alike each time that the same rows stand there."""
        which = checked_leg(store.collection, leg)
        asked = _questions(which, _sample(store, which, queries, np.random.default_rng(seed)))
        best = _Best(which, asked, _TIES * k)
        for keys, vectors in _pages(store, which):
            best.add(keys, vectors)
        k = min(k, best.rows)
        return cls(store, which, _vectors(which, asked) if asked and k else None, k, best.rows, best.right(k))

    def taken(self, search: Callable[[Vectors, int], list[list[Hit]]]) -> Recall:
        """How well that search does. A row that was changed or removed since the exam was drawn is no loss, and one
        that came since and is as near as the right ones is as good as they are."""
        if self._asked is None:
            return Recall(recall=1.0, queries=0, k=self._k, rows=self._rows)
        answers = search(self._asked, self._k)
        shares = [
            self._share(query, {(hit.id, hit.chunk): hit.score for hit in hits}, right)
            for query, hits, right in zip(self._asked, answers, self._right, strict=True)
            if right
        ]
        mean = float(np.mean(shares)) if shares else 1.0
        return Recall(recall=mean, queries=len(shares), k=self._k, rows=self._rows)

    def _share(self, query: Vector, hits: Mapping[Key, float], right: Mapping[Key, float]) -> float:
        """Of one query: which of the right rows were found. What does not agree is looked up as it is stored now."""
        slack = _slack(right.values())
        least = min(right.values()) - slack
        good = len(hits.keys() & right.keys())
        expected = min(self._k, len(right))
        if good >= expected:
            return 1.0
        strange = {key for key, score in hits.items() if key not in right and score >= least}
        lost = right.keys() - hits.keys()
        now = self._scores_now(query, strange | lost)
        good += sum(now.get(key, -np.inf) >= least for key in strange)
        gone = sum(abs(now.get(key, np.inf) - right[key]) > slack for key in lost)
        expected = min(self._k, len(right) - gone)
        return min(1.0, good / expected) if expected else 1.0

    def _scores_now(self, query: Vector, keys: Iterable[Key]) -> dict[Key, float]:
        """Of those rows that are stored."""
        wanted = set(keys)
        ids, found = sorted({id for id, _ in wanted}), dict[Key, float]()
        for at in range(0, len(ids), _AT_ONCE):
            for document in self._store.get(ids[at : at + _AT_ONCE], vectors=True).values():
                rows = [row for row in document.rows if (row.id, row.chunk) in wanted]
                if rows:
                    scores = _scores(self._leg, [query], [row.vectors[self._leg.name] for row in rows])[0]
                    found |= {(row.id, row.chunk): float(score) for row, score in zip(rows, scores, strict=True)}
        return found


class _Best:
    """The best rows for each query among all that were added."""

    def __init__(self, leg: Leg, asked: Sequence[Vector], keep: int) -> None:
        self._leg = leg
        self._asked = asked
        self._keep = keep
        self._found: list[list[tuple[float, Key]]] = [[] for _ in asked]
        self.rows = 0

    def add(self, keys: Sequence[Key], vectors: Sequence[Vector]) -> None:
        self.rows += len(keys)
        if not self._asked or not keys:
            return
        for found, scores in zip(self._found, _scores(self._leg, self._asked, vectors), strict=True):
            for at in _largest(scores, self._keep):
                if self._leg.kind == "dense" or scores[at] > 0:  # a sparse search shows no row without a common term
                    found.append((float(scores[at]), keys[at]))
            found.sort(key=lambda each: -each[0])
            del found[self._keep :]

    def right(self, k: int) -> list[dict[Key, float]]:
        """The k best of each with their scores, and what scores as the last of them does."""
        each = []
        for found in self._found:
            first = [score for score, _ in found[:k]]
            least = min(first) - _slack(first) if first else 0.0
            each.append({key: score for score, key in found if score >= least})
        return each


def _slack(scores: Iterable[float]) -> float:
    return _SLACK * max(map(abs, scores))


def _scores(leg: Leg, asked: Sequence[Vector], vectors: Sequence[Vector]) -> npt.NDArray[np.float64]:
    if leg.kind == "dense":
        matrix, queries = (np.stack([_floats(vector) for vector in some]) for some in (vectors, asked))
        return np.asarray((queries.astype(np.float64) @ matrix.T.astype(np.float64)), np.float64)
    table = SparseTable([_sparse(vector) for vector in vectors])
    return np.stack([table.scores(_sparse(query), leg.dim) for query in asked])


def _largest(scores: npt.NDArray[np.float64], count: int) -> list[int]:
    if len(scores) <= count:
        return list(range(len(scores)))
    return [int(at) for at in np.argpartition(scores, len(scores) - count)[-count:]]


def _questions(leg: Leg, drawn: Sequence[Vector]) -> list[Vector]:
    """The vectors as they are, and every other one of a dense leg drawn towards the next."""
    if leg.kind == "sparse" or len(drawn) < 2:
        return list(drawn)
    asked = []
    for number, vector in enumerate(drawn):
        value = _floats(vector)
        if number % 2:
            between = (1 - _BESIDE) * value.astype(np.float64) + _BESIDE * _floats(drawn[number - 1])
            length = float(np.linalg.norm(between))
            value = (between * (float(np.linalg.norm(value)) / length if length else 1.0)).astype(np.float32)
        asked.append(Vector(leg.space_id, value))
    return asked


def _vectors(leg: Leg, asked: Sequence[Vector]) -> Vectors:
    values: Floats | tuple[SparseVector, ...]
    values = np.stack([_floats(each) for each in asked]) if leg.kind == "dense" else tuple(map(_sparse, asked))
    count = len(asked)
    return Vectors(space_id=leg.space_id, tower_id="", values=values, tokens=(0,) * count, truncated=(False,) * count)


def _pages(store: Store, leg: Leg) -> Iterator[Page]:
    if isinstance(store, Indexed):
        yield from store.vectors(leg.name)
        return
    for document in store.scan(vectors=True):
        yield [(row.id, row.chunk) for row in document.rows], [row.vectors[leg.name] for row in document.rows]


def _sample(store: Store, leg: Leg, count: int, dice: np.random.Generator) -> list[Vector]:
    """So many rows, each as likely as any other (a reservoir)."""
    if isinstance(store, Indexed) and (drawn := store.sample(leg.name, count, dice)) is not None:
        return list(drawn)
    kept: list[Vector] = []
    seen = 0
    for _, vectors in _pages(store, leg):
        for vector in vectors:
            seen += 1
            if len(kept) < count:
                kept.append(vector)
            elif (at := int(dice.integers(0, seen))) < count:
                kept[at] = vector
    return kept


def _floats(vector: Vector) -> Floats:
    assert isinstance(vector.value, np.ndarray)
    return vector.value


def _sparse(vector: Vector) -> SparseVector:
    assert isinstance(vector.value, SparseVector)
    return vector.value
