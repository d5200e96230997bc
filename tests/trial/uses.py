"""One wrong use as a new user would make it, and what it has to get."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """`words` are typed after `bartizan`; or `call` is done in Python. Either happens in a folder of its own that holds
    `bartizan.toml`, `corpus.jsonl` and `index.bartizan`; `{place}` stands for what `world.py` made."""

    area: str
    name: str
    words: str = ""
    call: Callable[[Mapping[str, Path]], Any] | None = None
    code: int = 2
    """The exit code; of a call, that of the error it has to raise. 0: it is done all the same, and a remark is made."""
    told: str = ""
    """A pattern that what is said must match: what came, what was expected, the way out."""
    swap: Mapping[str, str] = field(default_factory=dict)
    """Text of `bartizan.toml` that stands there otherwise."""
    more: str = ""
    """What is added at its end."""
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    """Files that are written first."""
    environment: Mapping[str, str] = field(default_factory=dict)


def uses(area: str, *rows: tuple[Any, ...], **common: Any) -> list[Use]:
    """Rows of (words or call, code, told) or (words, code, told, how it differs); the name is what was typed."""
    made = []
    for given, code, told, *rest in rows:
        how = common | (rest[0] if rest else {})
        name = how.pop("name", None) or (given if isinstance(given, str) else told)
        asked = {"words": given} if isinstance(given, str) else {"call": given}
        made.append(Use(area=area, name=name, code=code, told=told, **asked, **how))
    return made
