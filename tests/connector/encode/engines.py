"""An engine without a model: a text's vector is counted from its ids, so that every place and mask shows."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from bartizan_connector.base.errors import Retry
from bartizan_connector.encode.batches import Ids
from bartizan_connector.encode.engine import Identity, Pace, Ran
from bartizan_connector.encode.loop import EncodeLoop
from bartizan_connector.space.spec import Kind, Precision, Role, RoleSpec, TowerSpec
from bartizan_connector.space.tokens import Tokens, tokenizer_hash
from bartizan_connector.space.vectors import Floats
from tests.encoders.tiny import words_tokenizer

WORDS = words_tokenizer()
ROLES: dict[Role, RoleSpec] = {"query": RoleSpec(prefix="ask: ", max_tokens=20), "document": RoleSpec(max_tokens=32)}
TERMS = 100


class CountingEngine:
    """Row i counts how often each id stands in text i; `sees` is called with each batch."""

    def __init__(
        self,
        spec: TowerSpec,
        pace: Pace,
        *,
        answers: Callable[[Floats], Any] = lambda counts: counts,
        sees: Callable[[Ids], object] = lambda ids: None,
        tower: Callable[[], Identity] | None = None,
        seconds: float = 0.0,
    ) -> None:
        self.pace = pace
        self.closed = 0
        self._spec, self._answers, self._sees, self._seconds = spec, answers, sees, seconds
        self._tower = tower or (lambda: Identity.of(spec))

    def run(self, ids: Ids, mask: Ids, *, deadline: float | None) -> Ran:
        self._sees(ids)
        time.sleep(self._seconds)
        if deadline is not None and time.monotonic() > deadline:
            raise Retry("broken off at the deadline")
        counts = np.zeros((len(ids), self._spec.dim), dtype=np.float32)
        for row in range(len(ids)):
            np.add.at(counts[row], ids[row][mask[row] == 1], 1)
        if self._spec.normalise:
            counts /= np.linalg.norm(counts, axis=1, keepdims=True)
        return Ran(self._answers(counts), self._tower())

    def close(self) -> None:
        self.closed += 1


def spec_of(kind: Kind, *, precision: Precision = "fp32") -> TowerSpec:
    dense = kind == "dense"
    return TowerSpec(
        name="counts", kind=kind, dim=TERMS, pooling="mean", normalise=dense, similarity="cosine" if dense else "dot",
        roles=ROLES, tokenizer_hash=tokenizer_hash(WORDS), architecture_hash="0" * 64, weights_hash="0" * 64,
        precision=precision,
    )  # fmt: skip


def counting(kind: Kind = "dense", *, pace: Pace | None = None, **how: Any) -> tuple[EncodeLoop, CountingEngine]:
    """A loop over such an engine."""
    spec = spec_of(kind)
    engine = CountingEngine(spec, pace or Pace(batch_tokens=64, least_tokens=16, multiple=8, calls=3), **how)
    return EncodeLoop(engine, Tokens(WORDS, roles=ROLES), spec), engine
