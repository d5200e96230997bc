"""Stories of workers, a broker and stores that die at random, beside the topic as the model.

Each seed is played on a Milvus server and on the embedded store, several at once on the same servers.
"""

import random
import sys
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.connector.stream.kafka.mortals import Nursery
from tests.connector.stream.kafka.story import Cast, Story
from tests.servers.kafka import KafkaServer
from tests.servers.milvus import milvus_server
from tests.soak.piece import Piece

TITLE = "stories"
_AT_ONCE = 4


def pieces(count: int, ends: float) -> Iterator[Piece]:
    """So many stories, half of them on either store."""
    left = [(random.randrange(10**9), store) for _, store in zip(range(count), cycle(("milvus", "embedded")))]
    with TemporaryDirectory() as folder, _casts(Path(folder)) as cast, ThreadPoolExecutor(_AT_ONCE) as stage:
        on: dict[Future[Story], tuple[int, str]] = {}
        while on or (left and time.monotonic() < ends):
            while left and len(on) < _AT_ONCE and time.monotonic() < ends:
                seed, store = left.pop()
                on[stage.submit(_played, seed, cast[store])] = (seed, store)
            for future in wait(on, return_when=FIRST_COMPLETED).done:
                seed, store = on.pop(future)
                story = future.result()
                happened = {**story.happened, "milvus": story.milvus_kills, "late at the end": int(bool(story.late))}
                happened["forgotten by a killed Milvus until given again"] = story.forgotten
                counts = {"changes": story.changes, "observations": story.looks, **happened}
                yield Piece(seed, 1, {f"on {store}": 1, **counts})


def _played(seed: int, cast: Cast) -> Story:
    """The story, once it went well."""
    with TemporaryDirectory() as folder:
        story = Story(seed, cast, Path(folder))
        try:
            story.play()
        except BaseException:
            print(f"seed {seed} on {'milvus' if cast.milvus else 'embedded'}; {story.happened}", file=sys.stderr)
            for log in sorted(Path(folder).glob("*.log")):
                print(f"-- {log.stem}\n{log.read_text()[-2000:]}", file=sys.stderr)
            raise
    return story


@contextmanager
def _casts(folder: Path) -> Iterator[dict[str, Cast]]:
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
