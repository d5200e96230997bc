"""How a tower that reads words reads a text: for tests of cutting, without a tokenizer's file."""

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass
class WordReading:
    """One token a word, as HashEncoder and WordEncoder count them; or one for each letter."""

    room: int = 256
    pattern: str = r"\S+"

    def lengths(self, texts: Sequence[str]) -> list[int]:
        return [len(self.spans(text)) for text in texts]

    def spans(self, text: str) -> list[tuple[int, int]]:
        return [found.span() for found in re.finditer(self.pattern, text)]
