"""What a reader holds of its partitions: how far each is, what was read of it, and who waits for it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

MOST_BYTES = 16 * 2**20
"""A batch ends here even when it has few records: what is held in memory is bounded by bytes, not by luck."""


@dataclass(slots=True, kw_only=True)
class Assigned:
    """A partition that is ours."""

    generation: int
    end: int | None = None
    """Where it ended when it became ours; None: not known yet."""
    reached: bool = False
    """Whether everything before that end has been read."""
    done: int | None = None
    """Up to where it is committed; None: not known yet."""
    newest: int = 0
    """Where it ended when that was last asked."""

    @property
    def lag(self) -> int:
        """Records that are not committed yet."""
        return 0 if self.done is None else max(0, self.newest - self.done)


@dataclass(slots=True, kw_only=True)
class Read:
    """Records of one partition, as they came."""

    number: int
    generation: int
    records: list[Any]


@dataclass(slots=True, kw_only=True, eq=False)
class Request:
    """Partitions that the group waits for."""

    numbers: list[int] = field(default_factory=list)
    done: bool = False
    """Whether nobody waits any more: it is settled, or took too long."""


def fitting(records: Sequence[Any], most: int) -> int:
    """How many records make one batch."""
    used = 0
    for count, record in enumerate(records[:most]):
        used += len(record.value or b"")
        if count and used > MOST_BYTES:
            return count
    return min(most, len(records))
