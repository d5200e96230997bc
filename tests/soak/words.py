"""Writers of the word index killed inside its commits: every resume succeeds, no id stands twice or apart."""

import random
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.connector.stream.test_crashes import Nursery
from tests.connector.stream.test_word_kills import survive
from tests.soak.piece import Piece

TITLE = "kills inside commits of the word index"
_ROUND = 10


def pieces(kills: int, ends: float) -> Iterator[Piece]:
    """Indexes, each with a writer that is killed some times."""
    left = kills
    with closing(Nursery()) as nursery:
        while left > 0 and time.monotonic() < ends:
            seed, some = random.randrange(10**6), min(_ROUND, left)
            with TemporaryDirectory() as folder, Piece.named(seed):
                runs = survive(nursery, Path(folder), some, seed)
            left -= some
            yield Piece(seed, some, {"runs": runs})
