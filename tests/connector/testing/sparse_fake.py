"""A sparse encoder for tests that need no model: one weight for each distinct word."""

import asyncio
import hashlib
import time
from collections.abc import Sequence

import numpy as np

from bartizan_connector.base.deadline import heed
from bartizan_connector.base.errors import WrongUse
from bartizan_connector.space.spec import Role, RoleSpec, TowerSpec
from bartizan_connector.space.vectors import SparseVector, Vectors


class WordEncoder:
    """A word's term is a hash of it, its weight grows with how often it stands in the text."""

    def __init__(self, terms: int = 30_000, *, max_tokens: int = 256) -> None:
        role = RoleSpec(max_tokens=max_tokens)
        self._max_tokens = max_tokens
        self.spec = TowerSpec(
            name="words",
            kind="sparse",
            dim=terms,
            pooling="max",
            head="lm",
            normalise=False,
            similarity="dot",
            roles={"query": role, "document": role},
            tokenizer_hash=hashlib.sha256(b"words").hexdigest(),
            architecture_hash=hashlib.sha256(b"counts").hexdigest(),
            weights_hash=hashlib.sha256(b"log").hexdigest(),
        )

    def encode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
        """One sparse vector a text; a text without words gives an empty one."""
        self.spec.role(role)
        deadline = None if timeout is None else time.monotonic() + timeout
        for position, text in enumerate(texts):
            if not text.isascii() and text.encode(errors="ignore") != text.encode(errors="surrogatepass"):
                raise WrongUse(f"text {position} is not valid Unicode")
        words = [text.lower().split() for text in texts]
        values = []
        for each in words:
            heed(deadline)
            values.append(self._vector(each[: self._max_tokens]))
        return Vectors(
            space_id=self.spec.space_id,
            tower_id=self.spec.tower_id,
            values=tuple(values),
            tokens=tuple(len(each) for each in words),
            truncated=tuple(len(each) > self._max_tokens for each in words),
        )

    async def aencode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
        """The same in a thread."""
        return await asyncio.to_thread(self.encode, texts, role, timeout=timeout)

    def close(self) -> None:
        """Nothing to let go."""

    def _vector(self, words: Sequence[str]) -> SparseVector:
        terms = [int.from_bytes(hashlib.sha256(word.encode()).digest()[:8]) % self.spec.dim for word in words]
        indices, counts = np.unique(np.array(terms, dtype=np.int32), return_counts=True)
        return SparseVector(indices, np.log1p(counts).astype(np.float32))
