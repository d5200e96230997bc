"""Findings: one fact about this installation each, and the way out of a problem."""

import re
from dataclasses import dataclass
from typing import Literal

from bartizan_connector.base.errors import BartizanError

Status = Literal["ok", "note", "problem"]

WAYS_OUT = {
    "config": "correct the file, or name another by --config; docs/configuration.md lists every key",
    "source": "correct [source] path, or put the documents there",
    "words": "see that the folder can be read and written, or set [backend] lexical to another",
    "space": "point [spaces] document_tower and query_tower at towers or exports that were made together",
    "document tower": "export the tower again, or correct [spaces] document_tower and its table under [encoders]",
    "query tower": "export the tower again, or correct [spaces] query_tower and its table under [encoders]",
    "collection": "see what is at [backend] uri, and in its log; if nothing is wanted there, ingest into another",
}
"""What to do about a problem of that kind whose error does not say it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One fact about this installation, and the way out when it is a problem."""

    area: str
    status: Status
    what: str
    way_out: str = ""
    exit_code: int = 0


def problem(kind: str, error: BartizanError, area: str | None = None) -> Finding:
    """What is wrong and what to do about it, apart; every kind of problem has a way out."""
    what, way_out = parted(str(error), error.way_out)
    way_out = way_out or WAYS_OUT[kind]
    return Finding(area=area or kind, status="problem", what=what, way_out=way_out, exit_code=error.exit_code)


def parted(told: str, way_out: str = "") -> tuple[str, str]:
    """A message ends with its way out: as a part of its own, as a sentence, or after a semicolon."""
    if way_out:
        return told.removesuffix(way_out).rstrip(" .;:"), way_out
    *before, last = re.split(r"\. (?=[A-Z])", told)
    if before:
        return ". ".join(before), last
    what, _, last = told.rpartition("; ")
    return (what, last) if what else (told, "")
