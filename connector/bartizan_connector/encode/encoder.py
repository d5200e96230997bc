"""The seam Encoder: what turns texts into vectors."""

from collections.abc import Sequence
from typing import Protocol

from bartizan_connector.space.spec import Role, TowerSpec
from bartizan_connector.space.vectors import Vectors


class Encoder(Protocol):
    """Turns texts into the vectors of one tower. The same text gives the same vector in any batch."""

    @property
    def spec(self) -> TowerSpec: ...

    def encode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
        """One vector a text, in order. Raises Retry when the engine is unreachable or the timeout (seconds) passed."""
        ...

    async def aencode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
        """The same without blocking the event loop. An encoder that waits for somebody, and holds no thread meanwhile,
        says so by an attribute `natively_async = True`; a search calls any other by `encode`, in a thread."""
        ...

    def close(self) -> None: ...
