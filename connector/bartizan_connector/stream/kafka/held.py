"""What a reader holds of its partitions: how far each is, what was read of it, and who waits for it."""

import re
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
    noted: int | None = None
    """Up to where records were given to a store that may yet forget them; None: not known yet, and none are given."""
    epoch: int = -1
    """Of the leader that wrote the record before `done`."""
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


def metadata_of(offset: int, noted: int) -> str:
    """What is committed beside an offset where records beyond it were given to a store that may yet forget them."""
    return f"written={noted}" if noted > offset else ""


def noted_in(metadata: str) -> int:
    """Up to where records were given already, of what was committed; 0: none. Who rewinds a group leaves nothing."""
    found = _NOTED.fullmatch(metadata)
    return int(found[1]) if found else 0


_NOTED = re.compile(r"written=(\d{1,19})", re.ASCII)


def fitting(records: Sequence[Any], most: int) -> int:
    """How many records make one batch."""
    used = 0
    for count, record in enumerate(records[:most]):
        used += len(record.value or b"")
        if count and used > MOST_BYTES:
            return count
    return min(most, len(records))
