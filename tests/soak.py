"""The soak of the embedded store: writers killed at random, in commits and while indexes are built, by the hundred.

    python -m tests.soak --kills 300 --minutes 14       make soak

Each round begins with a new file, kills its writer a few times, and after each kill compares heads, rows, vectors and
every leg, the words too, with an oracle; the first difference ends it. What was survived is added to the day's result,
so a soak may be run in pieces.
"""

import argparse
import random
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

from bartizan_connector.store.embedded import EmbeddedBackend
from bartizan_connector.store.memory import MemoryBackend
from benchmarks.record import Record
from tests.connector.store.embedded.test_kills import assert_same, killed, started
from tests.connector.store.embedded.worker import COLLECTION, DOCUMENTS, apply, changes

_ROUND = 10
"""Kills of one file: the changes up to the last one are made anew each time."""


def survived(path: Path, seed: int, kills: int, ends: float) -> tuple[int, int]:
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
        assert reached in (done, done + 1), f"seed {seed}: {done} changes were said to be durable, {reached} are there"
        for verb, rows in islice(coming, reached - applied):
            apply(oracle, verb, rows)
        applied = reached
        assert_same(store, oracle, dice)
        backend.close()
    return kills, applied


def main() -> int:
    """0 when every kill was survived."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--minutes", type=float, default=60.0, help="begin no other kill after so long")
    given = parser.parse_args()
    ends, kills, written, seeds = time.monotonic() + 60 * given.minutes, 0, 0, []
    record = Record("soak_embedded")
    while kills < given.kills and time.monotonic() < ends:
        seed = random.randrange(10**9)
        with tempfile.TemporaryDirectory() as folder:
            try:
                ours, durable = survived(Path(folder) / "index.bartizan", seed, min(_ROUND, given.kills - kills), ends)
            except BaseException:
                print(f"seed {seed}, after {kills} kills", file=sys.stderr)
                raise
        kills, written, seeds = kills + ours, written + durable, [*seeds, seed]
        print(f"{kills} kills, {written} changes of 250 documents durable: nothing lost, doubled, torn or brought back")
        wrong = dict.fromkeys(("lost", "doubled", "torn", "brought_back"), 0)
        found = {"kills": kills, "durable changes": written, **wrong}
        row = {name: str(value) for name, value in found.items()}
        record.write(found | {"seeds": seeds}, {"Kills of one writer beside an oracle": [row]})
    return int(kills < given.kills)


if __name__ == "__main__":
    sys.exit(main())
