"""EncodeLoop: an Encoder out of an Engine: lengths, batches, order, truncation, deadline and parallel calls for all.

1 tokenise by the spec   2 texts of like length into batches   3 the engine runs them, several side by side where it can
4 each vector back to its text's place. A sparse tower's matrix [batch, vocabulary] becomes SparseVectors at once, so
that there are never more of its rows than one small batch a call.
"""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from bartizan_connector.base.deadline import heed
from bartizan_connector.base.errors import Retry, SpaceMismatch, Stop
from bartizan_connector.encode.batches import by_length, padded
from bartizan_connector.encode.engine import Engine, Identity, Ran
from bartizan_connector.space.spec import Role, TowerSpec
from bartizan_connector.space.tokens import Tokenized, Tokens
from bartizan_connector.space.vectors import Floats, SparseVector, Vectors, sparse_rows

_SPARSE_TEXTS = 32
"""Most texts of a batch whose rows are as long as a vocabulary."""


class EncodeLoop:
    """Encodes with one engine. May be shared between threads; a single text runs on the caller's own."""

    def __init__(self, engine: Engine, tokens: Tokens, spec: TowerSpec) -> None:
        self._engine = engine
        self._tokens = tokens
        self._spec = spec
        self._tower = Identity.of(spec)
        self._pace = engine.pace
        self._texts = _SPARSE_TEXTS if spec.kind == "sparse" else None
        self._pool = ThreadPoolExecutor(self._pace.calls, "bartizan-encode") if self._pace.calls > 1 else None

    @property
    def spec(self) -> TowerSpec:
        """What the vectors are."""
        return self._spec

    def encode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
        """One vector a text, in order."""
        return self._encode(texts, role, None if timeout is None else time.monotonic() + timeout)

    async def aencode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
        """The same in a thread; the time spent waiting for one counts."""
        deadline = None if timeout is None else time.monotonic() + timeout
        return await asyncio.to_thread(self._encode, texts, role, deadline)

    def close(self) -> None:
        """Let the threads and the engine go. Closing twice is fine."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._engine.close()

    def _encode(self, texts: Sequence[str], role: Role, deadline: float | None) -> Vectors:
        most = self._spec.role(role).max_tokens
        tokenized = self._tokens.encode(texts, role, deadline=deadline)
        values, tower = (self._run if len(tokenized) == 1 else self._many)(tokenized, most, deadline)
        if tower is not self._tower and tower.space_id != self._tower.space_id:
            raise SpaceMismatch(
                f"the engine of tower '{self._spec.name}' runs a tower of another space ({tower.tower_id})",
                expected=self._tower.space_id,
                came=tower.space_id,
                way_out="Serve the tower that the configuration names, or name the one that is served.",
            )
        return Vectors(
            space_id=tower.space_id,
            tower_id=tower.tower_id,
            values=values,
            tokens=tuple([text.length for text in tokenized]),
            truncated=tuple([text.truncated for text in tokenized]),
        )

    def _many(self, tokenized: Sequence[Tokenized], most: int, deadline: float | None) -> Ran:
        pace = self._pace
        share = -(-sum(len(text.ids) for text in tokenized) // pace.calls)
        budget = min(pace.batch_tokens, max(pace.least_tokens, share))
        batches = list(by_length(tokenized, budget, most_texts=self._texts))
        places = _Dense(len(tokenized), self._spec.dim) if self._spec.kind == "dense" else _Sparse(len(tokenized))

        def run(batch: list[int]) -> Identity:
            ran = self._run([tokenized[position] for position in batch], most, deadline)
            places.put(batch, ran.values)
            return ran.tower

        side_by_side = self._pool.map if self._pool is not None and len(batches) > 1 else map
        towers = set(side_by_side(run, batches)) or {self._tower}
        if len(towers) > 1:
            names = ", ".join(sorted(tower.tower_id for tower in towers))
            raise Retry(f"the tower was replaced while the texts were encoded ({names}); ask again")
        return Ran(places.all(), towers.pop())

    def _run(self, batch: Sequence[Tokenized], most: int, deadline: float | None) -> Ran:
        """One batch; the answer is of the kind and size that the spec promises."""
        heed(deadline)
        ids, mask = padded(batch, multiple=1 if len(batch) == 1 else self._pace.multiple, most=most)
        ran = self._engine.run(ids, mask, deadline=deadline)
        values = ran.values
        if isinstance(values, np.ndarray):
            if values.shape != (len(batch), self._spec.dim):
                raise self._broken(f"an array of shape {values.shape} for {len(batch)} texts")
            if self._spec.kind == "dense":
                return ran
            if values.size and values.min() < 0:
                raise self._broken("weights below zero")
            return Ran(sparse_rows(values), ran.tower)
        if self._spec.kind == "dense" or len(values) != len(batch):
            raise self._broken(f"{len(values)} sparse vectors for {len(batch)} texts")
        return ran

    def _broken(self, came: str) -> Stop:
        spec = self._spec
        return Stop(
            f"the engine of tower '{spec.name}' gives {came}; expected a {spec.kind} vector of {spec.dim} "
            "for each text. Export the tower again; if that gives the same, import or train it again"
        )


class _Dense:
    """The places of dense vectors; batches may be put from several threads."""

    def __init__(self, texts: int, dim: int) -> None:
        self._values: Floats = np.zeros((texts, dim), dtype=np.float32)

    def put(self, batch: list[int], values: Floats | tuple[SparseVector, ...]) -> None:
        assert isinstance(values, np.ndarray)
        self._values[batch] = values

    def all(self) -> Floats:
        return self._values


class _Sparse:
    """The places of sparse vectors."""

    def __init__(self, texts: int) -> None:
        self._values: dict[int, SparseVector] = {}
        self._texts = texts

    def put(self, batch: list[int], values: Floats | tuple[SparseVector, ...]) -> None:
        for position, value in zip(batch, values, strict=True):
            assert isinstance(value, SparseVector)
            self._values[position] = value

    def all(self) -> tuple[SparseVector, ...]:
        return tuple([self._values[position] for position in range(self._texts)])
