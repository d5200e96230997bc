"""A process that ingests and kills itself with SIGKILL at the n-th effect, for the crash tests.

Run as a program it is a nursery: it imports everything once, then forks one worker for each job that it reads from
stdin, so that a worker costs milliseconds. A job names the medium, the store, and at which effect to die. Effects are
counted around every call of a seam and, inside the back-end, around every call that changes something on Milvus, so
death also comes between the rows and their heads.
"""

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from multiprocessing.managers import BaseManager
from pathlib import Path
from typing import Any, cast

import pymilvus

from bartizan_connector.jsonl import JsonlSource
from bartizan_connector.memory import MemoryBackend
from bartizan_connector.milvus import MilvusBackend
from bartizan_connector.pipeline import run
from bartizan_connector.seams import Batch, SearchBackend, Source
from bartizan_connector.testing.encoder_fake import HashEncoder
from bartizan_connector.words import WordIndex
from tests.connector.streams import CONTENTS, collection_for

ENCODER = HashEncoder(dim=8)
QUERIES = ("fruit", "apple banana cherry")
EVERYTHING = 1000
MEMORY_KEY = b"loopback only"
_SEAM = ("ensure", "heads", "upsert", "touch", "delete", "close", "hashes", "dead_letter", "commit")
_MILVUS = (
    "create_collection", "drop_collection", "create_index", "load_collection", "alter_collection_properties",
    "insert", "upsert", "delete", "flush",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Job:
    """What one worker does."""

    log: str
    """The source: a JSON Lines file."""
    cursor: bool
    """Whether the source remembers what was committed, as a broker does; JsonlSource does not."""
    batch_size: int = 100
    collection: str
    words: str
    memory: str | None = None
    """The socket of the process that keeps the memory, or else …"""
    milvus: str | None = None
    """… the file or address of Milvus."""
    kill_at: int | None = None
    observe: Sequence[str] | None = None
    """When all is done, look at these ids and at everything that can be found."""
    result: str = ""


class LogSource:
    """A log with a durable cursor: what a broker is to the pipeline."""

    def __init__(self, log: Path, batch_size: int) -> None:
        self._inner = JsonlSource(log, batch_size=1)
        self._batch_size = batch_size
        self._cursor = cursor_of(log)

    def batches(self) -> Iterator[Batch]:
        start = int(self._cursor.read_text()) if self._cursor.exists() else 0
        messages = [message for batch in self._inner.batches() for message in batch.messages]
        for first in range(start, len(messages), self._batch_size):
            yield Batch(messages=tuple(messages[first : first + self._batch_size]))

    def commit(self, batch: Batch) -> None:
        self._inner.commit(batch)
        aside = self._cursor.with_suffix(".aside")
        aside.write_text(batch.messages[-1].position.rpartition(":")[2])
        aside.replace(self._cursor)

    def dead_letter(self, message: Any, reason: str) -> None:
        self._inner.dead_letter(message, reason)

    def close(self) -> None:
        self._inner.close()


def cursor_of(log: Path) -> Path:
    return log.with_suffix(".cursor")


class Bombed:
    """Anything of which every effect counts down to SIGKILL, before and after it happens."""

    left: int | None = None

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._inner, name)
        return Bombed.around(attribute) if name in _SEAM else attribute

    @classmethod
    def around(cls, call: Callable[..., Any]) -> Callable[..., Any]:
        def bombed(*args: Any, **more: Any) -> Any:
            cls.tick()
            result = call(*args, **more)
            cls.tick()
            return result

        return bombed

    @classmethod
    def tick(cls) -> None:
        if cls.left is None:
            return
        cls.left -= 1
        if cls.left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)


def work(job: Job) -> None:
    """Run the pipeline over the source; then, where asked, write down what the index holds."""
    Bombed.left = job.kill_at
    for name in _MILVUS:
        setattr(pymilvus.MilvusClient, name, Bombed.around(getattr(pymilvus.MilvusClient, name)))
    log = Path(job.log)
    source: Source = LogSource(log, job.batch_size) if job.cursor else JsonlSource(log, batch_size=job.batch_size)
    backend, words = _open(job), WordIndex(Path(job.words))
    collection = collection_for(ENCODER.spec, job.collection)
    run(Bombed(source), ENCODER, Bombed(backend), collection, words=Bombed(words))
    if job.observe is not None:
        Path(job.result).write_text(json.dumps(_observation(backend, words, job.observe)))
    for each in (source, Bombed(words), Bombed(backend)):
        each.close()


def _open(job: Job) -> SearchBackend:
    if job.milvus is not None:
        return MilvusBackend(job.milvus, consistency="Strong", index="flat")
    host = memory_host(job.memory)
    host.connect()
    return cast(SearchBackend, host.backend(job.collection))  # type: ignore[attr-defined]


def _observation(backend: SearchBackend, words: WordIndex, ids: Sequence[str]) -> dict[str, Any]:
    hits = backend.search("dense", ENCODER.encode(QUERIES, "query"), EVERYTHING)
    found = [[[hit.id, dict(hit.fields), hit.score] for hit in each if hit.id in ids] for each in hits]
    heads = {id: [head.version, head.hash, head.deleted] for id, head in backend.heads(ids).items()}
    by_word = {word: [hit.id for hit in words.search(word, EVERYTHING)] for word in ("fruit", *CONTENTS)}
    return {"found": found, "heads": heads, "words": by_word}


def memory_host(address: str | None) -> BaseManager:
    """The process in which memory survives the death of the workers, or a connection to it."""
    backends: dict[str, MemoryBackend] = {}

    class Host(BaseManager):
        pass

    exposed = ("ensure", "heads", "upsert", "touch", "delete", "search", "close")
    Host.register("backend", lambda name: backends.setdefault(name, MemoryBackend()), exposed=exposed)
    return Host(address=address, authkey=MEMORY_KEY)


def nursery() -> None:
    """Fork a worker for each line of stdin; answer with the exit status, negative for a signal."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                work(Job(**json.loads(line)))
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def line_of(job: Job) -> str:
    return json.dumps(asdict(job)) + "\n"


def observing(job: Job, ids: Sequence[str], result: Path) -> Job:
    """The same job, lived to its end and looked at."""
    return replace(job, kill_at=None, observe=list(ids), result=str(result))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        memory_host(sys.argv[1]).get_server().serve_forever()
    else:
        nursery()
