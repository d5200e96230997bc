"""One piece of a soak: what it survived, under the seed by which it can be tried again."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Piece:
    """A seed, and how much was survived under it; a piece that survives nothing whole raises instead."""

    seed: int
    survived: int
    counts: Mapping[str, int] = field(default_factory=dict)

    @staticmethod
    @contextmanager
    def named(seed: int) -> Iterator[None]:
        """Say the seed of what fails inside."""
        try:
            yield
        except BaseException:
            print(f"seed {seed}", file=sys.stderr)
            raise
