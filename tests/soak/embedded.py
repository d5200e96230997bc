"""Writers of the embedded store killed at random, in commits and while indexes are built, beside an oracle.

After each kill heads, rows, vectors and every leg, the words too, are compared; the first difference ends it.
"""

import random
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from bartizan_connector.store.embedded import EmbeddedBackend
from bartizan_connector.store.memory import MemoryBackend
from tests.connector.store.embedded.test_kills import assert_same, killed, started
from tests.connector.store.embedded.worker import COLLECTION, DOCUMENTS, apply, changes
from tests.soak.piece import Piece

TITLE = "kills of one writer beside an oracle"
_ROUND = 10
"""Kills of one file: the changes up to the last one are made anew each time."""


def pieces(kills: int, ends: float) -> Iterator[Piece]:
    """Files, each with a writer that is killed some times."""
    left = kills
    while left > 0 and time.monotonic() < ends:
        seed = random.randrange(10**9)
        with TemporaryDirectory() as folder, Piece.named(seed):
            survived, durable = _survived(Path(folder) / "index.bartizan", seed, min(_ROUND, left), ends)
        left -= survived
        yield Piece(seed, survived, {"durable changes": durable})


def _survived(path: Path, seed: int, kills: int, ends: float) -> tuple[int, int]:
    """How many kills one file survived, and how many changes were durable by then."""
    dice, coming = random.Random(seed), changes(seed)
    oracle = MemoryBackend().open(COLLECTION)
    applied = done = 0
    for number in range(kills):
        if time.monotonic() > ends:
            return number, applied
        done = killed(started(path, seed, applied, 100_000), dice, applied)
        backend = EmbeddedBackend(path, index="hnsw")
        store = backend.open(COLLECTION, create=False)
        reached = max(head.version for head in store.heads([f"d{i:05}" for i in range(DOCUMENTS)]).values())
        assert reached in (done, done + 1), f"{done} changes were said to be durable, {reached} are there"
        for verb, rows in islice(coming, reached - applied):
            apply(oracle, verb, rows)
        applied = reached
        assert_same(store, oracle, dice)
        backend.close()
    return kills, applied
