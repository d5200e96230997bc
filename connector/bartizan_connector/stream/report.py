"""What became of the messages: counted, so that none is skipped silently."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from bartizan_connector.stream.source import Judging, Source

MAX_NAMED_KEYS = 20
"""Undeclared keys that a report names; made-up keys must not fill the memory."""
OTHER_KEYS = "…"
MANY = 1000
"""From so many lines on, what was stale or dead is no matter of single lines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What became of the messages: read = written + unchanged + stale + deleted + dead + dropped."""

    read: int = 0
    written: int = 0
    unchanged: int = 0
    """Content that was stored already, at this version or an older one."""
    stale: int = 0
    """Older than what is stored, or than another line of the same batch."""
    deleted: int = 0
    dead: int = 0
    """Set aside as dead letters, each with its reason."""
    dropped: int = 0
    """In batches that were given up before they were committed: they are read again, here or by the reader that their
    partition went to."""
    truncated: int = 0
    """Among the written: longer than a tower reads, so only the beginning was encoded."""
    undeclared: Mapping[str, int] = field(default_factory=dict)
    """Keys that records carry and the collection does not declare: not stored. How many records carry each."""
    stages: Mapping[str, float] = field(default_factory=dict)
    """Seconds spent in each step; steps of different batches go on at the same time."""
    stale_example: str = ""
    """The first stale line: where it stands, and what stands against it."""
    seconds: float = 0.0

    def __add__(self, other: "Report") -> "Report":
        return Report(
            read=self.read + other.read,
            written=self.written + other.written,
            unchanged=self.unchanged + other.unchanged,
            stale=self.stale + other.stale,
            deleted=self.deleted + other.deleted,
            dead=self.dead + other.dead,
            dropped=self.dropped + other.dropped,
            truncated=self.truncated + other.truncated,
            undeclared=_capped(Counter(self.undeclared) + Counter(other.undeclared)),
            stages={
                stage: self.stages.get(stage, 0.0) + other.stages.get(stage, 0.0)
                for stage in (*self.stages, *other.stages)
            },
            stale_example=self.stale_example or other.stale_example,
            seconds=self.seconds + other.seconds,
        )

    def too_many_missed(self, fail_above: float) -> bool:
        """Whether so many lines were stale or dead that the run has failed: thousands, and more than that share."""
        missed = self.stale + self.dead
        return missed >= MANY and missed > fail_above * self.read


def verdict(report: Report, source: Source) -> str | None:
    """What is wrong with the source as a whole: nothing that came out of it, or out of a part, could be stored."""
    if isinstance(source, Judging):
        return source.verdict()
    return "every message was refused" if report.read and report.dead == report.read else None


def _capped(counts: Counter[str]) -> dict[str, int]:
    """The first keys keep their names; the rest are counted together."""
    names = list(counts)[:MAX_NAMED_KEYS]
    rest = sum(counts.values()) - sum(counts[name] for name in names)
    return {name: counts[name] for name in names} | ({OTHER_KEYS: rest} if rest else {})
