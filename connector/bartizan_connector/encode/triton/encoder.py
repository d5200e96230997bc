"""TritonEncoder: a tower that a Triton server runs; the texts are tokenised here, so that only ids travel."""

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, Self

import numpy as np

from bartizan_connector.base.deadline import heed
from bartizan_connector.base.errors import Retry
from bartizan_connector.encode.batches import by_length, padded
from bartizan_connector.encode.engine import Identity, Ran
from bartizan_connector.encode.loop import EncodeLoop
from bartizan_connector.encode.triton.calls import Access, Server
from bartizan_connector.encode.triton.contract import model_name
from bartizan_connector.encode.triton.engine import TritonEngine
from bartizan_connector.encode.triton.joining import Joiner
from bartizan_connector.space.spec import Role, TowerSpec
from bartizan_connector.space.tokens import Tokenized, Tokens
from bartizan_connector.space.vectors import Vectors

Row = Any
"""A row of a matrix, or a SparseVector."""
_OPENING_SECONDS = 10.0
_FEW = 32
"""Texts that are tokenised before the event loop could miss the time."""
_SWAPS = 3
"""Times that one call is begun anew because its tower was replaced halfway."""


class TritonEncoder(EncodeLoop):
    """May be shared between threads and event loops. Follows the server from version to version within one space."""

    natively_async = True
    _engine: TritonEngine

    def __init__(self, engine: TritonEngine, tokens: Tokens, spec: TowerSpec, *, timeout: float = 30.0) -> None:
        super().__init__(engine, tokens, spec)
        self._timeout = timeout
        self._longest = max(role.max_tokens for role in spec.roles.values())
        self._joiner = Joiner(self._run_batch, calls=self._pace.calls)

    @classmethod
    def open(
        cls,
        access: Access,
        tokens: Tokens,
        spec: TowerSpec,
        *,
        model: str | None = None,
        version: int | None = None,
        timeout: float = 30.0,
        calls: int = 4,
        batch_tokens: int | None = None,
        opening: float | None = None,
    ) -> Self:
        """The model at that address; refused unless it serves the tower of `spec`, or one that may replace it. It is
        looked at within `opening` seconds."""
        engine = TritonEngine(
            Server(access),
            model or model_name(spec),
            spec,
            timeout=timeout,
            version=version,
            calls=calls,
            batch_tokens=batch_tokens,
        )
        encoder = cls(engine, tokens, spec, timeout=timeout)
        try:
            engine.look(opening or min(timeout, _OPENING_SECONDS))
        except BaseException:
            encoder.close()
            raise
        return encoder

    @property
    def spec(self) -> TowerSpec:
        """The tower that was served when the server was last asked."""
        served = self._engine.served
        return served.spec if served else self._spec

    def encode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
        """One vector a text, in order, all from one tower: a call that a swap has caught halfway is begun anew."""
        deadline = self._deadline(timeout)
        for _ in range(_SWAPS):
            before = self._engine.looks
            try:
                return self._encode(texts, role, deadline)
            except Retry:
                if self._engine.looks == before or time.monotonic() > deadline:
                    raise
        return self._encode(texts, role, deadline)

    async def aencode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
        """The same without a thread: calls run side by side in the event loop, single texts of several tasks share one,
        and whoever is cancelled leaves."""
        deadline = self._deadline(timeout)
        self._spec.role(role)
        few = len(texts) <= _FEW or isinstance(texts, str)
        tokenize = partial(self._tokens.encode, texts, role, deadline=deadline)
        tokenized = tokenize() if few else await asyncio.to_thread(tokenize)
        if len(tokenized) == 1:
            row, tower = await self._joiner.row(tokenized[0], deadline)
            return self._vectors([row], tokenized, tower)
        batches = list(by_length(tokenized, self._pace.batch_tokens))
        for _ in range(_SWAPS):
            parts = await self._side_by_side([[tokenized[at] for at in batch] for batch in batches], deadline)
            towers = {part.tower for part in parts} or {Identity.of(self.spec)}
            if len(towers) == 1:
                rows: dict[int, Row] = {}
                for batch, part in zip(batches, parts, strict=True):
                    rows.update(zip(batch, part.values, strict=True))
                return self._vectors([rows[at] for at in range(len(tokenized))], tokenized, towers.pop())
        raise Retry("the tower is replaced again and again while the texts are encoded; ask again")

    async def _side_by_side(self, batches: Sequence[Sequence[Tokenized]], deadline: float) -> list[Ran]:
        """Every batch, as many at a time as the pace allows; the first that fails ends the others."""
        room = asyncio.Semaphore(self._pace.calls)

        async def run(batch: Sequence[Tokenized]) -> Ran:
            async with room:
                return await self._run_batch(batch, deadline)

        tasks = [asyncio.ensure_future(run(batch)) for batch in batches]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def _run_batch(self, batch: Sequence[Tokenized], deadline: float) -> Ran:
        heed(deadline)
        multiple = 1 if len(batch) == 1 else self._pace.multiple
        ids, mask = padded(batch, multiple=multiple, most=self._longest)
        return await self._engine.arun(ids, mask, deadline=deadline)

    def _deadline(self, timeout: float | None) -> float:
        return time.monotonic() + (self._timeout if timeout is None else timeout)

    def _vectors(self, rows: Sequence[Row], tokenized: Sequence[Tokenized], tower: Identity) -> Vectors:
        dense = self._spec.kind == "dense"
        return Vectors(
            space_id=tower.space_id,
            tower_id=tower.tower_id,
            values=np.array(rows, dtype=np.float32).reshape(len(rows), self._spec.dim) if dense else tuple(rows),
            tokens=tuple(text.length for text in tokenized),
            truncated=tuple(text.truncated for text in tokenized),
        )
