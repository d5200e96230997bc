"""TorchEncoder: a tower in this process; the numerical reference for every other engine."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np

from bartizan_connector.base.errors import Retry, require_installed
from bartizan_connector.encode.batches import by_length, padded
from bartizan_connector.space.spec import Role, TowerSpec
from bartizan_connector.space.vectors import Vectors
from bartizan_encoders import NEEDED

require_installed(NEEDED, "train")

import torch  # noqa: E402

from bartizan_encoders.tower import Tower  # noqa: E402

_ON_A_CPU = 512
_ON_A_GPU = 32_768
"""Tokens at once: what stays in a core's cache, and what keeps a GPU busy."""


class TorchEncoder:
    """Encodes with the weights that the tower has when it is made into an encoder; runs where they lie."""

    def __init__(self, tower: Tower, *, threads: int = 0, batch_tokens: int | None = None) -> None:
        if threads:
            torch.set_num_threads(threads)  # one setting for the whole process
        self._tower = tower
        self._spec = tower.spec
        self._batch_tokens = batch_tokens

    @classmethod
    def open(cls, folder: Path, *, threads: int = 0, batch_tokens: int | None = None) -> Self:
        """The tower in `folder`, on the GPU when there is one. `threads` 0: torch's own choice."""
        tower = Tower.load(folder)
        if torch.cuda.is_available():
            tower = tower.cuda()
        return cls(tower, threads=threads, batch_tokens=batch_tokens)

    @property
    def spec(self) -> TowerSpec:
        """What the vectors are."""
        return self._spec

    def encode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
        """One vector a text, in order. The timeout is looked at between batches."""
        deadline = None if timeout is None else time.monotonic() + timeout
        most = self._spec.role(role).max_tokens
        tokenized = self._tower.tokens.encode(texts, role)
        values = np.zeros((len(texts), self._spec.dim), dtype=np.float32)
        device = next(self._tower.parameters()).device
        budget = self._batch_tokens or (_ON_A_CPU if device.type == "cpu" else _ON_A_GPU)
        training = self._tower.training
        self._tower.eval()
        try:
            with torch.inference_mode():
                for batch in by_length(tokenized, budget):
                    if deadline is not None and time.monotonic() > deadline:
                        raise Retry(f"encoding {len(texts)} texts took longer than {timeout} s")
                    ids, mask = padded([tokenized[position] for position in batch], most=most)
                    vectors = self._tower(torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device))
                    values[batch] = vectors.cpu().numpy()
        finally:
            self._tower.train(training)
        return Vectors(
            space_id=self._spec.space_id,
            tower_id=self._spec.tower_id,
            values=values,
            tokens=tuple(text.length for text in tokenized),
            truncated=tuple(text.truncated for text in tokenized),
        )

    async def aencode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
        """The same in a thread."""
        return await asyncio.to_thread(self.encode, texts, role, timeout=timeout)

    def close(self) -> None:
        """Nothing is held beyond memory."""
