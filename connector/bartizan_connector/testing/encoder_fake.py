"""An encoder for tests that need vectors but no model: texts that share words are near each other."""

import asyncio
import hashlib
from collections.abc import Sequence

import numpy as np

from bartizan_connector.space.spec import Role, RoleSpec, TowerSpec
from bartizan_connector.space.vectors import Floats, Vectors


class HashEncoder:
    """Sums one pseudo-random direction a word; deterministic, and a space of its own for every seed."""

    def __init__(self, dim: int = 16, *, seed: int = 0, max_tokens: int = 256) -> None:
        role = RoleSpec(max_tokens=max_tokens)
        self._seed = seed
        self._max_tokens = max_tokens
        self.spec = TowerSpec(
            name=f"hash-{seed}",
            dim=dim,
            pooling="mean",
            roles={"query": role, "document": role},
            tokenizer_hash=hashlib.sha256(b"words").hexdigest(),
            architecture_hash=hashlib.sha256(b"sum of directions").hexdigest(),
            weights_hash=hashlib.sha256(f"directions {seed}".encode()).hexdigest(),
        )

    def encode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
        """One unit vector a text."""
        self.spec.role(role)
        words = [text.lower().split() for text in texts]
        values = [self._vector(each[: self._max_tokens]) for each in words]
        return Vectors(
            space_id=self.spec.space_id,
            tower_id=self.spec.tower_id,
            values=np.array(values, dtype=np.float32).reshape(len(texts), self.spec.dim),
            tokens=tuple(len(each) for each in words),
            truncated=tuple(len(each) > self._max_tokens for each in words),
        )

    async def aencode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
        """The same in a thread."""
        return await asyncio.to_thread(self.encode, texts, role, timeout=timeout)

    def close(self) -> None:
        """Nothing to let go."""

    def _vector(self, words: Sequence[str]) -> Floats:
        total = np.sum([self._direction(word) for word in words or ("",)], axis=0)
        unit: Floats = (total / np.linalg.norm(total)).astype(np.float32)
        return unit

    def _direction(self, word: str) -> Floats:
        digest = hashlib.sha256(f"{self._seed} {word}".encode("utf-8", "surrogatepass")).digest()
        return np.random.default_rng(int.from_bytes(digest[:8])).standard_normal(self.spec.dim).astype(np.float32)
