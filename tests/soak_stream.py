"""The soak of the stream: stories of workers, broker and Milvus that die at random, by the hundred.

    python -m tests.soak_stream --seeds 200 --minutes 14       make soak

Each seed is played on a Milvus server and on the embedded store, several at once on the same servers; the first
difference from what the topic says ends it. What was survived is added to the day's result, so that a soak may be run
in pieces, until so many seeds are there.
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.record import Record
from tests.connector.stream.kafka.mortals import Nursery
from tests.connector.stream.kafka.story import Cast, Story
from tests.servers.kafka import KafkaServer
from tests.servers.milvus import milvus_server

STORES = ("milvus", "embedded")
_WRONG = ("lost", "doubled", "brought_back", "out_of_order")


@contextmanager
def casts(folder: Path) -> Iterator[dict[str, Cast]]:
    """One broker and one Milvus server for all stories."""
    broker, nursery = KafkaServer(folder / "kafka"), Nursery()
    broker.start()
    milvus = milvus_server(folder / "milvus", folder / "programs")
    try:
        with_milvus = Cast(broker=broker, nursery=nursery, milvus=milvus)
        alone = Cast(broker=broker, nursery=nursery, milvus=None, turn=with_milvus.turn)
        yield {"milvus": with_milvus, "embedded": alone}
    finally:
        nursery.close()
        milvus.stop()
        broker.stop()


def played(seed: int, cast: Cast) -> Story:
    """The story, once it went well."""
    with tempfile.TemporaryDirectory() as folder:
        story = Story(seed, cast, Path(folder))
        try:
            story.play()
        except BaseException:
            print(f"seed {seed} on {'milvus' if cast.milvus else 'embedded'}; {story.happened}", file=sys.stderr)
            for log in sorted(Path(folder).glob("*.log")):
                print(f"-- {log.stem}\n{log.read_text()[-2000:]}", file=sys.stderr)
            raise
    return story


class Tally:
    """What was survived today."""

    def __init__(self) -> None:
        self._record = Record("soak_stream", goes_on=True)
        before = self._record.before
        self.seeds: dict[str, list[int]] = {store: list(before.get("seeds", {}).get(store, ())) for store in STORES}
        self._deeds: Counter[str] = Counter(before.get("happened", {}))
        self._changes = int(before.get("changes", 0))
        self._looks = int(before.get("observations", 0))

    def add(self, store: str, seed: int, story: Story) -> None:
        self.seeds[store].append(seed)
        self._deeds.update(story.happened)
        self._changes += story.changes
        self._looks += story.looks
        counts: dict[str, Any] = {"changes": self._changes, "observations": self._looks}
        counts |= {"happened": dict(self._deeds), **dict.fromkeys(_WRONG, 0)}
        row = {f"seeds on {name}": str(len(seeds)) for name, seeds in self.seeds.items()}
        row |= {"changes": str(self._changes), "observations": str(self._looks)}
        row |= {name: str(count) for name, count in self._deeds.items()} | dict.fromkeys(_WRONG, "0")
        title = "Stories beside the topic as the model"
        self._record.write({"seeds": self.seeds, **counts}, {title: [row]})
        print(", ".join(f"{count} {name}" for name, count in row.items()), flush=True)


def main() -> int:
    """0 when so many seeds were survived on each store."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak_stream", description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=200, help="that the day's result shall hold, of each store")
    parser.add_argument("--minutes", type=float, default=120.0, help="begin no other story after so long")
    parser.add_argument("--at-once", type=int, default=3)
    parser.add_argument("--seed", type=int, action="append", default=[], help="play this one; may be given again")
    given = parser.parse_args()
    ends, tally, dice = time.monotonic() + 60 * given.minutes, Tally(), random.SystemRandom()
    left = [(seed, store) for seed in given.seed for store in STORES]
    for store in STORES if not left else ():
        left += [(dice.randrange(10**9), store) for _ in range(given.seeds - len(tally.seeds[store]))]
    left.sort()
    with (
        tempfile.TemporaryDirectory() as folder,
        casts(Path(folder)) as cast,
        ThreadPoolExecutor(given.at_once) as stage,
    ):
        on: dict[Future[Story], tuple[int, str]] = {}
        while on or (left and time.monotonic() < ends):
            while left and len(on) < given.at_once and time.monotonic() < ends:
                seed, store = left.pop()
                on[stage.submit(played, seed, cast[store])] = (seed, store)
            for future in wait(on, return_when=FIRST_COMPLETED).done:
                seed, store = on.pop(future)
                tally.add(store, seed, future.result())
    return int(bool(left))


if __name__ == "__main__":
    sys.exit(main())
