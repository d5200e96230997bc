"""Runs a soak: `python -m tests.soak embedded --count 300 --minutes 14`; all of them: `make soak`.

The first thing that is lost, doubled, torn or brought back ends it with its seed. What was survived is a dated result.
"""

import argparse
import sys
import time
from collections import Counter

from benchmarks.record import Record
from tests.soak import embedded, words, writers

SOAKS = {"embedded": (embedded, 300), "words": (words, 120), "writers": (writers, 25)}
"""With how much of it is asked for."""


def main() -> int:
    """0 when all of it was survived in time."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("soak", choices=SOAKS)
    parser.add_argument("--count", type=int, help="how much of it; more than the tests do by default")
    parser.add_argument("--minutes", type=float, default=60.0, help="begin nothing else after so long")
    given = parser.parse_args()
    soak, usual = SOAKS[given.soak]
    wanted = given.count or usual
    record = Record(f"soak_{given.soak}", "tests.soak")
    seeds: list[int] = []
    total: Counter[str] = Counter()
    for piece in soak.pieces(wanted, time.monotonic() + 60 * given.minutes):
        seeds.append(piece.seed)
        total.update({soak.TITLE: piece.survived, **piece.counts})
        print(", ".join(f"{name}: {count}" for name, count in total.items()), flush=True)
        found = {**total, "lost, doubled, torn, brought back": 0}
        record.write({**found, "seeds": seeds}, {soak.__doc__ or "": [{key: str(each) for key, each in found.items()}]})
    return int(total[soak.TITLE] < wanted)


if __name__ == "__main__":
    sys.exit(main())
