"""A process that ingests and kills itself with SIGKILL at the n-th effect, for the crash tests.

Run as a program it is a nursery: it imports everything once, then forks one worker for each job that it reads from
stdin, so that a worker costs milliseconds. A job names the medium, the store, and after which effect to die. An effect
is a call of a seam that changes something, or, inside the back-end, a call that changes something in Milvus, so death
also comes between the rows and their heads. A timer lets it come in the middle of an effect.
"""

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import pymilvus

from bartizan_connector.search.words.index import WordIndex
from bartizan_connector.store.backend import Backend, Store
from bartizan_connector.store.embedded import EmbeddedBackend
from bartizan_connector.store.milvus import MilvusBackend
from bartizan_connector.stream.jsonl import JsonlSource
from bartizan_connector.stream.source import Batch, Message, Source
from bartizan_connector.stream.work import run
from bartizan_connector.testing.encoder_fake import HashEncoder
from tests.connector.store.memory_host import host_at
from tests.connector.stream.streams import CONTENTS, collection_for

ENCODER = HashEncoder(dim=8)
QUERIES = ("fruit", "apple banana cherry")
EVERYTHING = 1000
_EFFECTS = frozenset({"upsert", "touch", "delete", "close", "dead_letter", "commit", "announce", "settle"})
_MILVUS = (
    "create_collection", "drop_collection", "create_index", "create_alias", "alter_alias", "drop_alias",
    "insert", "upsert", "delete", "flush",
)  # fmt: skip
_LATE = ("bartizan_connector.store.milvus.lite", "faiss", "pyarrow.dataset", "pyarrow.parquet", "scipy.sparse")
"""What Milvus Lite imports when it is first used, and each worker would again."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What one worker does."""

    log: str
    """The source: a JSON Lines file."""
    cursor: bool
    """Whether the source remembers what was committed, as a broker does; JsonlSource does not."""
    batch_size: int = 100
    in_flight: int = 4
    collection: str
    words: str
    memory: str | None = None
    """The socket of the process that keeps the memory, or else …"""
    milvus: str | None = None
    """… the file or address of Milvus, or …"""
    embedded: str | None = None
    """… the file of the embedded store."""
    kill_in_commit: Sequence[float] = ()
    """Which commit of the word index, from 1, and seconds after it began."""
    kill_after: int | None = None
    """Effects."""
    kill_in: float = 0.0
    """Seconds; 0: never."""
    observe: Sequence[str] | None = None
    """When all is done, look at these ids and at everything that can be found."""
    result: str = ""


class LogSource:
    """A log with a durable cursor: what a broker is to the pipeline."""

    def __init__(self, log: Path, batch_size: int) -> None:
        self._inner = JsonlSource(log, batch_size=1)
        self._name = log.name
        self._batch_size = batch_size
        self._cursor = cursor_of(log)

        self._given = 0
        self._messages: list[Message] | None = None

    dead_letters = "beside the log"

    @property
    def ended(self) -> bool:
        return self._given >= len(self._all())

    def backlog(self) -> int:
        return len(self._all()) - self._given

    def poll(self, timeout: float) -> Batch | None:
        messages = self._all()[self._given : self._given + self._batch_size]
        self._given += len(messages)
        return Batch(messages=tuple(messages), partition="log") if messages else None

    def owns(self, batch: Batch) -> bool:
        return True

    def commit(self, batch: Batch) -> None:
        self._inner.commit(replace(batch, partition=self._name))
        aside = self._cursor.with_suffix(".aside")
        aside.write_text(batch.messages[-1].position.rpartition(":")[2])
        aside.replace(self._cursor)

    def dead_letter(self, message: Message, reason: str) -> None:
        self._inner.dead_letter(message, reason)

    def _all(self) -> list[Message]:
        """Every line of the log; the first time, what was committed counts as given."""
        if self._messages is None:
            self._messages = []
            while (batch := self._inner.poll(0.0)) is not None:
                self._messages += batch.messages
            self._given = int(self._cursor.read_text()) if self._cursor.exists() else 0
        return self._messages

    def close(self) -> None:
        self._inner.close()


def cursor_of(log: Path) -> Path:
    return log.with_suffix(".cursor")


class Bombed:
    """Anything of which every effect counts down to SIGKILL."""

    left: int | None = None

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._inner, name)
        if name == "open":
            return lambda *args, **more: Bombed(Bombed.counting(attribute)(*args, **more))
        return Bombed.counting(attribute) if name in _EFFECTS else attribute

    @classmethod
    def counting(cls, effect: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **more: Any) -> Any:
            result = effect(*args, **more)
            if cls.left is not None:
                cls.left -= 1
                if cls.left <= 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return result

        return counted


def work(job: Job) -> None:
    """Run the pipeline over the source; then, where asked, write down what the index holds."""
    Bombed.left = job.kill_after
    signal.setitimer(signal.ITIMER_REAL, job.kill_in)  # nobody handles the signal: the kernel ends the process
    for name in _MILVUS:
        setattr(pymilvus.MilvusClient, name, Bombed.counting(getattr(pymilvus.MilvusClient, name)))
    _time_commits(job)
    log = Path(job.log)
    source: Source = LogSource(log, job.batch_size) if job.cursor else JsonlSource(log, batch_size=job.batch_size)
    backend, words = _open(job), WordIndex(Path(job.words), job.collection)
    collection = collection_for(ENCODER.spec, name=job.collection)
    counted = backend if job.milvus else Bombed(backend)  # in Milvus, each part of an effect counts by itself
    run(Bombed(source), {"dense": ENCODER}, counted, collection, words=Bombed(words), in_flight=job.in_flight)
    if job.observe is not None:
        seen = _observation(backend.open(collection, create=False), words, job.observe)
        Path(job.result).write_text(json.dumps(seen))
    source.close()
    words.close()
    backend.close()


class TimedCommits:
    """A writer of the word index; at the n-th commit the kernel is told when to end the process."""

    left = 0
    seconds = 0.0

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def commit(self) -> None:
        TimedCommits.left -= 1
        if TimedCommits.left == 0:
            signal.setitimer(signal.ITIMER_REAL, TimedCommits.seconds)
        self._writer.commit()
        if TimedCommits.left == 0:
            signal.setitimer(signal.ITIMER_REAL, 0.0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)


def _time_commits(job: Job) -> None:
    if job.kill_in_commit:
        TimedCommits.left, TimedCommits.seconds = int(job.kill_in_commit[0]), job.kill_in_commit[1]
        open_writer = WordIndex._open_writer
        WordIndex._open_writer = lambda self: TimedCommits(open_writer(self))  # type: ignore[method-assign]


def _open(job: Job) -> Backend:
    if job.embedded is not None:
        return EmbeddedBackend(job.embedded, index="flat")
    if job.milvus is not None:
        return MilvusBackend(job.milvus, consistency="Strong", index="flat")
    assert job.memory is not None
    host = host_at(job.memory)
    host.connect()
    return cast(Backend, host.backend(job.collection))  # type: ignore[attr-defined]


def _observation(store: Store, words: WordIndex, ids: Sequence[str]) -> dict[str, Any]:
    hits = store.search("dense", ENCODER.encode(QUERIES, "query"), EVERYTHING)
    found = [[[hit.id, dict(hit.fields), hit.score] for hit in each if hit.id in ids] for each in hits]
    heads = {id: [head.version, head.hash, head.deleted] for id, head in store.heads(ids).items()}
    held = any(words.hashes(ids))  # an index that never held a word refuses to be searched
    by_word = {
        word: [hit.id for hit in words.search(word, EVERYTHING)] if held else [] for word in ("fruit", *CONTENTS)
    }
    return {"found": found, "heads": heads, "words": by_word}


def nursery() -> None:
    """Fork a worker for each line of stdin; answer with the exit status, negative for a signal."""
    for name in _LATE:
        with suppress(ModuleNotFoundError):
            import_module(name)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                work(Job(**json.loads(line)))
                status = 0
            finally:  # nothing of the nursery's may run in the child, so the traceback is printed here
                if status:
                    traceback.print_exc()
                sys.stderr.flush()
                os._exit(status)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def line_of(job: Job) -> str:
    return json.dumps(asdict(job)) + "\n"


def observing(job: Job, ids: Sequence[str], result: Path) -> Job:
    """The same job, lived to its end and looked at."""
    return replace(job, kill_after=None, kill_in=0.0, observe=list(ids), result=str(result))


if __name__ == "__main__":
    nursery()
