"""Workers as processes of their own, which can be killed at any moment or kill themselves at the n-th effect.

Run as a program it is a nursery: it imports everything once and forks a worker for each job that it reads from stdin.
"""

import faulthandler
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

import kafka
import pymilvus

from bartizan_connector.base.errors import Retry
from bartizan_connector.base.stopping import told_to_stop
from bartizan_connector.config.kafka import KafkaSettings
from bartizan_connector.store.backend import Backend
from bartizan_connector.store.embedded import EmbeddedBackend
from bartizan_connector.store.milvus import MilvusBackend
from bartizan_connector.store.milvus.store import MilvusStore
from bartizan_connector.stream.kafka.source import KafkaSource
from bartizan_connector.stream.patience import Patience
from bartizan_connector.stream.work import run
from bartizan_connector.testing.encoder_fake import HashEncoder
from tests.connector.stream.streams import collection_for
from tests.connector.stream.test_crashes import start
from tests.connector.stream.worker import Bombed

ENCODER = HashEncoder(dim=8)
PATIENCE = Patience(attempts=1000, seconds=120.0, longest_wait=0.5)
_MILVUS = ("create_collection", "rename_collection", "create_alias", "drop_alias", "upsert", "delete")
_LATE = ("faiss", "scipy.sparse")
_AGAIN = 0.3


@dataclass(frozen=True, kw_only=True)
class Post:
    """What one worker does."""

    name: str
    """Of the worker; what it says lies beside the others' under it."""
    folder: str
    bootstrap: str
    topic: str
    uri: str
    follow: bool = True
    session: float = 3.0
    batch_size: int = 10
    kill_after: int | None = None
    """Effects."""
    gate: str = ""
    """A file; while it is not there, a Milvus server is asked for no seal that is waited for."""

    @property
    def collection(self) -> str:
        return self.topic.replace("-", "_")

    @property
    def is_served(self) -> bool:
        """By a Milvus server."""
        return "://" in self.uri


def opened(uri: str) -> Backend:
    """The back-end at that address, as workers and observers open it."""
    if "://" in uri:
        return MilvusBackend(uri, consistency="Strong", index="flat", timeout=10.0)
    return EmbeddedBackend(uri, index="flat")


def settings_of(post: Post) -> KafkaSettings:
    facts = {"kind": "kafka", "bootstrap": post.bootstrap, "topic": post.topic, "group": f"of-{post.topic}"}
    return KafkaSettings.model_validate(
        facts | {"session_timeout": post.session, "connect_timeout": 20.0, "batch_size": post.batch_size}
    )


class Worker:
    """A worker as the test sees it."""

    def __init__(self, post: Post, pid: int) -> None:
        self.post = post
        self.pid = pid
        self._ended = Path(post.folder, f"{post.name}.ended")

    @property
    def lives(self) -> bool:
        with suppress(ProcessLookupError):
            os.kill(self.pid, 0)
            return True
        return False

    @property
    def failure(self) -> str:
        """What ended it, if that was an error."""
        return self._ended.read_text() if self._ended.exists() else ""

    def signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self.lives:
            if time.monotonic() > deadline:
                self.signal(signal.SIGUSR1)  # where it stands
                time.sleep(1)
                self.signal(signal.SIGKILL)
                told = Path(self.post.folder, f"{self.post.name}.log").read_text()[-6000:]
                raise AssertionError(f"worker {self.post.name} did not end in {seconds:g} s:\n{told}")
            time.sleep(0.02)


class Nursery:
    """The process that forks the workers."""

    def __init__(self) -> None:
        self._process = start(
            "-m", "tests.connector.stream.kafka.mortals", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._lock = threading.Lock()

    def worker(self, post: Post) -> Worker:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            self._process.stdin.write(json.dumps(asdict(post)) + "\n")
            self._process.stdin.flush()
            return Worker(post, int(self._process.stdout.readline()))

    def close(self) -> None:
        self._process.communicate(timeout=30)


def work(post: Post) -> None:
    """Follow the topic, or catch up; begin anew, as a supervisor would, where something cannot be reached."""
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    Bombed.left = post.kill_after
    for name in _MILVUS if post.is_served else ():
        setattr(pymilvus.MilvusClient, name, Bombed.counting(getattr(pymilvus.MilvusClient, name)))
    if post.gate:
        MilvusStore.seal = _gated(MilvusStore.seal, Path(post.gate))  # type: ignore[method-assign]
    with told_to_stop() as stop:
        while not stop.is_set():
            try:
                _worked(post, stop)
                return
            except Retry as error:
                print(f"again: {error}", file=sys.stderr, flush=True)
                stop.wait(_AGAIN)


def _gated(seal: Callable[[MilvusStore], None], gate: Path) -> Callable[[MilvusStore], None]:
    def gated(store: MilvusStore) -> None:
        while not gate.exists():
            time.sleep(0.05)
        seal(store)

    return gated


def _worked(post: Post, stop: threading.Event) -> None:
    with (
        closing(opened(post.uri)) as backend,
        closing(KafkaSource.open(settings_of(post), follow=post.follow)) as source,
    ):
        run(
            source,
            {"dense": ENCODER},
            backend if post.is_served else Bombed(backend),
            collection_for(ENCODER.spec, name=post.collection),
            patience=PATIENCE,
            stop=stop,
        )


def _born(post: Post) -> None:
    """In the child: its own words, and how it ended."""
    log = os.open(Path(post.folder, f"{post.name}.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in (1, 2):
        os.dup2(log, number)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s", stream=sys.stderr)
    logging.getLogger("kafka").setLevel(logging.ERROR)
    try:
        work(post)
    except BaseException:  # noqa: BLE001  nothing of the nursery's may run in the child
        told = traceback.format_exc()
        print(told, file=sys.stderr, flush=True)
        Path(post.folder, f"{post.name}.ended").write_text(told)
        os._exit(1)
    os._exit(0)


def nursery() -> None:
    """Fork a worker for each line of stdin, and say its pid."""
    for name in _LATE:
        import_module(name)
    assert kafka.__version__
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries them at once: a dead holder of a lease is seen
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _born(Post(**json.loads(line)))
        print(child, flush=True)


if __name__ == "__main__":
    nursery()
