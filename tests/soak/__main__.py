"""Runs a soak: `python -m tests.soak embedded --count 300 --minutes 14`; all of them: `make soak`.

The first thing that is lost, doubled, torn or brought back ends it with its seed. What was survived is added to the
day's result, so that a soak may be run in pieces, until so much is there.
"""

import argparse
import sys
import time
from collections import Counter

from benchmarks.record import Record
from tests.soak import embedded, stream, words, writers

SOAKS = {"embedded": (embedded, 300), "words": (words, 120), "writers": (writers, 25), "stream": (stream, 400)}
"""With how much of it is asked for."""
_WRONG = "lost, doubled, torn, brought back, out of order"


def main() -> int:
    """0 when all of it was survived in time."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("soak", choices=SOAKS)
    parser.add_argument("--count", type=int, help="how much of it the day's result shall hold")
    parser.add_argument("--minutes", type=float, default=60.0, help="begin nothing else after so long")
    given = parser.parse_args()
    soak, usual = SOAKS[given.soak]
    wanted = given.count or usual
    record = Record(f"soak_{given.soak}", goes_on=True)
    seeds = list(record.before.get("seeds", ()))
    total = Counter({name: count for name, count in record.before.items() if name not in (_WRONG, "seeds")})
    ends = time.monotonic() + 60 * given.minutes
    for piece in soak.pieces(wanted - total[soak.TITLE], ends):
        seeds.append(piece.seed)
        total.update({soak.TITLE: piece.survived, **piece.counts})
        print(", ".join(f"{name}: {count}" for name, count in total.items()), flush=True)
        found = {**total, _WRONG: 0}
        record.write(
            {**found, "seeds": seeds}, {_title(soak.__doc__): [{key: str(each) for key, each in found.items()}]}
        )
    return int(total[soak.TITLE] < wanted)


def _title(doc: str | None) -> str:
    return (doc or "").partition("\n")[0].rstrip(".")


if __name__ == "__main__":
    sys.exit(main())
