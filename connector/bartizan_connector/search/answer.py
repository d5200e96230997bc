"""An answer: the results of one query, who encoded it, what is missing, and where the time went."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bartizan_connector.search.fusion import Result


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Where the time of one call went, in milliseconds."""

    open: float
    """Opening what this call was the first to need: towers, the store, the word index; the longest leg's."""
    encode: float
    """All towers together, side by side as they are."""
    legs: Mapping[str, float]
    """Each leg's search; of one that failed, all it took."""
    fuse: float
    total: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """The tower that encoded the query for one leg, as its vectors name it, and the space they are of."""

    tower_id: str
    space_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The results of one query, and under which contract they were found."""

    results: tuple[Result, ...]
    encoded: Mapping[str, Encoded]
    """Leg → the tower that really encoded; the lexical leg, and one that failed before, are not in it."""
    space_id: str | None
    tower_id: str | None
    """Of the one tower that encoded; None where none did, or several."""
    truncated: bool
    """Whether a tower saw only the beginning of the query."""
    degraded: str | None
    """Why legs are missing, when some are."""
    latency_ms: Latency

    def __iter__(self) -> Iterator[Result]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    def __getitem__(self, index: int) -> Result:
        return self.results[index]
