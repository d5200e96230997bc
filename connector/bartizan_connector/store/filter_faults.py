"""What is wrong with the text of a filter: the piece at fault, and what was probably meant."""

import io
import tokenize
from itertools import pairwise

_FORM = "year >= 2020 and kind in ['class', 'function'] and not deprecated"
_MEANT = (
    ("==", "a comparison has something on both sides"),
    ("=", "equality is written =="),
    ("&", "write and"),
    ("|", "write or"),
    ("!", "write not, or !="),
    (";", "a filter is one condition"),
)
_WORDS = {"and", "or", "not", "in"}
_SHOWN = 40


def told(text: str, why: str) -> str:
    """The whole message."""
    return f"cannot read the filter {text[:80]!r}: {why}; write it like: {_FORM}"


def of_syntax(text: str, error: SyntaxError) -> str:
    """Where the text stops to be a filter."""
    said = str(error.msg)
    if "never closed" in said or "unmatched" in said or "does not match" in said:
        return said
    if "unterminated" in said:
        return "a quote is not closed"
    lines = text.split("\n")
    line = min(max((error.lineno or 1) - 1, 0), len(lines) - 1)
    start = max((error.offset or 1) - 1, 0)
    while 0 < start < len(lines[line]) and lines[line][start] == lines[line][start - 1] in "&|":
        start -= 1
    rest = "\n".join([lines[line][start:], *lines[line + 1 :]]).strip()
    if not text.strip():
        return "it is empty"
    if not rest or text.split()[-1].lower() in _WORDS | {">", "<", "==", ">=", "<=", "!=", "-", "not"}:
        return f"it ends after {text.split()[-1]!r:.{_SHOWN}}, where something must follow"
    word = rest.split()[0]
    meant = next((meant for sign, meant in _MEANT if rest.startswith(sign)), "")
    if word.lower() in _WORDS and word not in _WORDS:
        meant = f"write {word.lower()} in small letters"
    return f"it goes wrong at {rest[:_SHOWN]!r}" + (f": {meant}" if meant else "")


def joined_texts(text: str) -> str | None:
    """Two texts side by side, which Python would join without a word: a comma that is missing, or SQL's `''`."""
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    except (tokenize.TokenError, SyntaxError, IndentationError):
        return None
    for one, other in pairwise(tokens):
        if one.type == other.type == tokenize.STRING:
            return (
                f"{one.string} and {other.string} stand side by side: put a comma between two texts, or \\' for a quote"
            )
    return None
