"""A path that a caller gives in Python: a text or a Path, and nothing else is one."""

import os
from pathlib import Path

from bartizan_connector.base.errors import WrongUse

AnyPath = str | os.PathLike[str]


def as_path(given: AnyPath, what: str) -> Path:
    """The path; `what` names it in the refusal of something else."""
    if isinstance(given, str | os.PathLike):
        if isinstance(path := os.fspath(given), str) and path:
            return Path(path)
        if path == "":
            raise WrongUse(f"{what} must be a path, but an empty text came")
    raise WrongUse(f"{what} must be a path (a text or a Path), but {given!r:.80} ({type(given).__name__}) came")
