"""What became of the documents that a program gave: counted, and each refused one with its reason."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from bartizan_connector.stream.report import Report


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One document that cannot be stored."""

    number: int
    """Its place among those that were given, from 0."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Each document that was given is in exactly one of the five counts."""

    written: int = 0
    """New or changed: encoded and stored."""
    unchanged: int = 0
    """Stored already with this content."""
    deleted: int = 0
    """Removed, and remembered as removed."""
    stale: int = 0
    """Older than what is stored, by a `_version` of its own; or given again later in the same call."""
    refused: tuple[Refusal, ...] = ()
    truncated: int = 0
    """Among the written: longer than a tower reads, so only the beginning counts."""
    undeclared: Mapping[str, int] = field(default_factory=dict)
    """Keys that the collection has no field for: not stored. How many documents have each."""

    @classmethod
    def of(cls, report: Report, refused: tuple[Refusal, ...]) -> "Outcome":
        """What the stream reports, with the reasons."""
        return cls(
            written=report.written,
            unchanged=report.unchanged,
            deleted=report.deleted,
            stale=report.stale,
            refused=refused,
            truncated=report.truncated,
            undeclared=report.undeclared,
        )
