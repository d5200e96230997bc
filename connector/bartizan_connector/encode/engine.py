"""The seam Engine: what runs one padded batch of token ids; all else of encoding is the loop's (`loop`)."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self

from bartizan_connector.encode.batches import Ids
from bartizan_connector.space.spec import TowerSpec
from bartizan_connector.space.vectors import Floats, SparseVector


class Identity(NamedTuple):
    """Which tower a vector is from, and in which space it lies."""

    tower_id: str
    space_id: str

    @classmethod
    def of(cls, spec: TowerSpec) -> Self:
        """Hashes the spec: made once for each tower, not for each call."""
        return cls(spec.tower_id, spec.space_id)


class Ran(NamedTuple):
    """What a batch gave, and the tower that gave it: a server may run another one from one call to the next."""

    values: Floats | tuple[SparseVector, ...]
    """A float32 matrix, one row a text, for a sparse tower too (its weights, zero or more), or SparseVectors."""
    tower: Identity


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How an engine likes its batches."""

    batch_tokens: int
    """Most tokens in one batch, padding included; a longer text is a batch of its own."""
    least_tokens: int
    """Fewer are not worth a call of their own: texts are spread over parallel calls no thinner than that."""
    multiple: int = 1
    """Widths of batches are multiples of this; a text alone is never padded."""
    calls: int = 1
    """How many batches may run side by side."""


class Engine(Protocol):
    """Runs a tower on token ids. May be called from as many threads at once as its pace says."""

    @property
    def pace(self) -> Pace: ...

    def run(self, ids: Ids, mask: Ids, *, deadline: float | None) -> Ran:
        """The vectors of one batch. `ids` and `mask` are [batch, length], padded on the right; the mask is 1 for a
        token. `deadline` is a reading of `time.monotonic()`. The loop looks at it before each batch, so an engine that
        cannot break off a batch ignores it; one that can, or that waits for somebody, raises Retry when it has passed.
        """
        ...

    def close(self) -> None:
        """Let go of what is held. Closing twice is fine."""
        ...
