"""The soak of the embedded store: writers killed at random, in commits and while indexes are built, by the hundred.

    python -m tests.soak --kills 300 --minutes 14       make soak

Each round begins with a new file, kills its writer a few times, and after each kill compares heads, rows, vectors and
every leg, the words too, with an oracle; the first difference ends it. What was survived is added to the day's result,
so a soak may be run in pieces.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from bartizan_connector.store.embedded import EmbeddedBackend
from bartizan_connector.store.memory import MemoryBackend
from tests.connector.store.embedded.test_kills import assert_same, killed, started
from tests.connector.store.embedded.worker import COLLECTION, DOCUMENTS, apply, changes

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"
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
    ends, kills, written = time.monotonic() + 60 * given.minutes, 0, 0
    while kills < given.kills and time.monotonic() < ends:
        seed = random.randrange(10**9)
        with tempfile.TemporaryDirectory() as folder:
            try:
                ours, durable = survived(Path(folder) / "index.bartizan", seed, min(_ROUND, given.kills - kills), ends)
            except BaseException:
                print(f"seed {seed}, after {kills} kills", file=sys.stderr)
                raise
        kills, written = kills + ours, written + durable
        print(f"{kills} kills, {written} changes of 250 documents durable: nothing lost, doubled, torn or brought back")
        _record(ours, durable, seed)
    return int(kills < given.kills)


def _record(kills: int, durable: int, seed: int) -> None:
    path = RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-soak.json"
    told = (
        json.loads(path.read_text()) if path.exists() else {"benchmark": "soak", "kills": 0, "changes": 0, "seeds": []}
    )
    told["kills"] += kills
    told["changes"] += durable
    told |= dict.fromkeys(("lost", "doubled", "torn", "brought_back"), 0)
    told["seeds"].append(seed)
    path.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
