"""The same on a real Milvus server, with a topic of a real broker that somebody writes to all the while."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from pymilvus import MilvusClient

from bartizan_connector.config.kafka import KafkaSettings
from bartizan_connector.config.settings import JsonlSettings
from bartizan_connector.config.towers import collection_of
from bartizan_connector.documents.documents import Documents
from bartizan_connector.documents.reembed import Towers
from bartizan_connector.store.milvus import MilvusBackend
from bartizan_connector.store.settings import BackendSettings
from bartizan_connector.stream.kafka.source import KafkaSource
from bartizan_connector.stream.reembed.names import next_name
from bartizan_connector.stream.work import fill
from bartizan_connector.testing.rows import named, row
from tests.connector.stream.reembed.project import Pair, pair, text
from tests.connector.stream.reembed.traffic import Readers
from tests.servers.kafka import KafkaServer
from tests.servers.milvus import MilvusServer, milvus_server

pytestmark = pytest.mark.server


class Producer:
    """Writes puts and deletes to the topic until it is left; `model` is what they come to."""

    def __init__(self, server: KafkaServer, topic: str) -> None:
        self._server, self._topic = server, topic
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._produce)
        self._turn = 0
        self.model: dict[str, str] = {}

    def some(self, count: int) -> None:
        records: list[dict[str, Any]] = []
        for _ in range(count):
            self._turn += 1
            number = self._turn * 7 % 40
            id = f"d{number}"
            if self._turn % 5 == 0:
                records.append({"key": id.encode(), "value": None})
                self.model.pop(id, None)
            else:
                self.model[id] = text(number, self._turn)
                records.append({"key": id.encode(), "value": json.dumps({"_id": id, "text": self.model[id]}).encode()})
        self._server.produce(self._topic, records)

    def _produce(self) -> None:
        while not self._stop.wait(0.1):
            self.some(5)

    def __enter__(self) -> "Producer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


class Worker:
    """A worker of the running configuration, which ends in good order when it is left."""

    def __init__(self, both: Pair, source: KafkaSettings) -> None:
        self._both, self._source = both, source
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self.error: Exception | None = None

    def _work(self) -> None:
        try:
            with (
                closing(self._both.old.backend.open()) as backend,
                closing(backend.open(collection_of(self._both.old))) as store,
                closing(KafkaSource.open(self._source)) as source,
            ):
                fill(store, source, {"dense": self._both.old_tower}, stop=self._stop)
        except Exception as error:  # noqa: BLE001  raised where the worker is left
            self.error = error

    def __enter__(self) -> "Worker":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        assert self.error is None, self.error


def texts(both: Pair, physical: str) -> dict[str, str]:
    with closing(both.old.backend.open()) as backend:
        contract = backend.collections()[physical]
        with closing(backend.open(contract, create=False, name=physical)) as store:
            return {document.id: str(document.rows[0].fields["text"]) for document in store.scan()}


def _is_followed(both: Pair) -> bool:
    """Whether there is something in the collection that is being made: who writes there holds it from before."""
    with closing(both.old.backend.open()) as backend:
        physical = backend.aliases().get(next_name(collection_of(both.new)))
    return physical is not None and bool(texts(both, physical))


def following_in_a_thread(both: Pair) -> tuple[threading.Event, list[BaseException], threading.Thread]:
    """What stops it, what went wrong in it, and the thread, which is not begun."""
    told, failures = threading.Event(), list[BaseException]()

    def follow() -> None:
        try:
            with Towers.opened(both.new) as towers, towers.encoders(both.new) as encoders:
                towers.reembedding.run(encoders, topic=towers.topic(), follow=True, every=2.0, stop=told)
        except Exception as error:  # noqa: BLE001  told by the test
            failures.append(error)

    return told, failures, threading.Thread(target=follow)


def test_a_collection_on_a_server_changes_towers_and_back_while_its_topic_is_written(
    tmp_path: Path, milvus: MilvusServer, kafka_server: KafkaServer
) -> None:
    topic = kafka_server.topic(partitions=2, **{"cleanup.policy": "compact"})
    settings = BackendSettings(uri=milvus.uri, consistency="Strong")
    both = pair(tmp_path, settings, name="reembedded")
    source = KafkaSettings(kind="kafka", bootstrap=kafka_server.bootstrap, topic=topic, group="running", batch_size=20)
    both.new = both.new.model_copy(update={"source": source})
    loaded = JsonlSettings(path=tmp_path / "none.jsonl")
    both.old = both.old.model_copy(update={"source": loaded})
    with Documents(both.old) as documents:  # loaded before there was a topic: only the collection has them
        documents.put({"_id": f"file{n}", "text": text(n)} for n in range(20))
    producer = Producer(kafka_server, topic)
    producer.some(100)
    told, failures, following = following_in_a_thread(both)
    readers = Readers(both)
    with ExitStack() as left, readers, Worker(both, source):
        left.callback(following.join)
        left.callback(told.set)
        following.start()
        with producer:
            _wait(lambda: _is_followed(both), 180)
            with (
                Towers.opened(both.new, both.old, settle=60) as towers,
                towers.searching(None) as searches,
            ):
                swapped = towers.reembedding.swap({"dense": both.new_tower}, searches=searches)
            assert swapped.place.state == "swapped"
            assert "is being written by" in swapped.writer
            readers.wait_for("new", 60)
            time.sleep(2)
        expected = {f"file{n}": text(n) for n in range(20)} | producer.model
        assert swapped.place.former is not None
        _wait(lambda: texts(both, swapped.place.former or "") == expected, 180)
        _wait(lambda: texts(both, swapped.place.serving) == expected, 180)
        told.set()
        following.join()
        assert failures == []
    with Documents(both.new) as documents:
        documents.put([{"_id": "late", "text": "oak late"}])
    again = Readers(both)
    with again, Towers.opened(both.new, both.old, settle=30) as towers:
        again.wait_for("new", 60)
        back = towers.reembedding.rollback({"dense": both.old_tower})
        again.wait_for("old", 60)
        assert back.difference is not None
        assert back.difference.lag == 0
        dropped = towers.reembedding.drop()
    assert readers.failures == again.failures == []
    assert set(readers.spaces) == set(both.spaces.values())
    assert texts(both, back.place.serving) == expected | {"late": "oak late"}
    with closing(both.old.backend.open()) as backend:
        assert backend.aliases()["reembedded"] == back.place.serving
        assert dropped not in backend.collections()
        backend.drop("reembedded")


def _wait(done: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.3)


@pytest.fixture
def own_server(tmp_path: Path, milvus_binaries: Path) -> Iterator[MilvusServer]:
    """One that can be started again."""
    server = milvus_server(tmp_path / "milvus", milvus_binaries)
    yield server
    server.stop()


def test_names_that_begin_with_one_that_is_dropped_outlive_a_restart(own_server: MilvusServer) -> None:
    backend = MilvusBackend(own_server.uri, consistency="Strong")
    kept = backend.open(named("suite_a_long"))
    kept.upsert([row("a", [1, 0, 0, 0])])
    dropped = backend.open(named("suite_a"))
    backend.point("suite_a_long_too", kept.physical_name)
    assert dropped.physical_name != kept.physical_name
    backend.drop("suite_a")
    backend.close()
    own_server.kill()
    own_server.start()
    again = MilvusBackend(own_server.uri, consistency="Strong")
    assert again.aliases() == {"suite_a_long": kept.physical_name, "suite_a_long_too": kept.physical_name}
    with closing(MilvusClient(own_server.uri, timeout=30)) as client:
        _wait(lambda: _answers(client, "suite_a_long"), 90)
    again.close()


def _answers(client: MilvusClient, name: str) -> bool:
    try:
        return bool(client.query(name, filter='id == "a"', output_fields=["id"], timeout=5))
    except Exception:  # noqa: BLE001  it is loaded a while after the start
        return False
