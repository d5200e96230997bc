"""From a topic to a store on a real broker: nothing lost, nothing twice, whatever happens to workers and partitions."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from bartizan_connector.__main__ import main
from bartizan_connector.base.errors import Stop, WrongUse
from bartizan_connector.config import Config
from bartizan_connector.config.towers import collection_of
from bartizan_connector.doctor.configuration import examine
from bartizan_connector.store.backend import Store
from bartizan_connector.store.memory import MemoryBackend
from bartizan_connector.stream.kafka.source import KafkaSource
from tests.connector.stream.faults import stored
from tests.connector.stream.kafka.media import letters_in, settings_for, wait_for
from tests.connector.stream.kafka.workers import Model, Worker, after, changes
from tests.exports import export_folder
from tests.servers.kafka import KafkaServer

pytestmark = pytest.mark.server
POISON = b'{"_id": "poison", "text": '


class Project:
    """A folder with a configuration, as a user has it: a topic, a tower, an embedded store."""

    def __init__(self, folder: Path, server: KafkaServer, topic: str, session: int = 4) -> None:
        self.config = folder / "bartizan.toml"
        self.config.write_text(
            f'[collection]\nname = "docs"\n[spaces.dense]\ndocument_tower = "{export_folder("bert", "int8")}"\n'
            f'[backend]\nuri = "index"\n[source]\nkind = "kafka"\nbootstrap = "{server.bootstrap}"\n'
            f'topic = "{topic}"\ngroup = "of-{topic}"\nbatch_size = 50\nsession_timeout = {session}\n'
        )

    def catch_up(self, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
        """The report of a run to the end of what is there."""
        with pytest.raises(SystemExit) as end:
            main(["ingest", str(self.config), "--until-caught-up", "--json"])
        assert end.value.code == 0
        report: dict[str, Any] = json.loads(capsys.readouterr().out)
        return report

    def worker(self) -> "subprocess.Popen[str]":
        """The command in a process of its own."""
        command = [sys.executable, "-m", "bartizan_connector", "ingest", str(self.config), "--follow", "--json"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    @property
    def stored(self) -> Model:
        config = Config.load(self.config)
        with suppress(WrongUse), closing(config.backend.open()) as backend, closing(opened(backend, config)) as store:
            return {each.id: str(each.rows[0].fields["text"]) for each in store.scan() if each.rows}
        return {}  # nobody has made it yet


def opened(backend: Any, config: Config) -> Store:
    found: Store = backend.open(collection_of(config), create=False)
    return found


def test_a_topic_becomes_a_collection_and_one_poison_among_a_thousand_stops_nothing(
    kafka_server: KafkaServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    topic = kafka_server.topic(partitions=3)
    records = changes(1, 1000, 120)
    poisoned = [*records[:500], {"key": b"poison", "value": POISON, "headers": [("trace", b"7")]}, *records[500:]]
    kafka_server.produce(topic, poisoned)
    project = Project(tmp_path, kafka_server, topic, session=30)  # counted: nobody is put out
    (seen,) = [each for each in examine(project.config) if each.area == "source"]
    assert (seen.status, seen.what) == ("ok", f"topic {topic} at {kafka_server.bootstrap}")
    report = project.catch_up(capsys)
    assert (report["read"], report["dead"], report["dropped"]) == (1001, 1, 0)
    assert project.stored == after(records)
    (letter,) = letters_in(kafka_server, f"{topic}.DLQ")
    assert letter.value == POISON
    assert letter.position.startswith(f"{topic}[")
    assert letter.reason.startswith("not JSON")
    (record,) = kafka_server.read(f"{topic}.DLQ")
    assert (record.key, dict(record.headers)["trace"]) == (b"poison", b"7")
    assert project.catch_up(capsys)["read"] == 0  # all of it was committed
    more = changes(2, 60, 120)
    kafka_server.produce(topic, more)
    assert project.catch_up(capsys)["read"] == 60
    assert project.stored == after(more, after(records))


def test_a_killed_worker_is_succeeded_and_a_told_one_ends_in_good_order(
    kafka_server: KafkaServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    topic = kafka_server.topic(partitions=2)
    project = Project(tmp_path, kafka_server, topic)
    records = changes(3, 1500, 200)
    kafka_server.produce(topic, records)
    worker = project.worker()
    try:
        wait_for(lambda: (tmp_path / "index").exists() and len(project.stored) > 20, 60)
    finally:
        worker.send_signal(signal.SIGKILL)
        worker.communicate()
    assert project.catch_up(capsys)["dead"] == 0
    assert project.stored == after(records)
    worker = project.worker()
    more = changes(4, 100, 200)
    kafka_server.produce(topic, more)
    wait_for(lambda: project.stored == after(more, after(records)), 60)
    worker.terminate()
    out, told = worker.communicate(timeout=30)
    assert worker.returncode == 0, told
    assert json.loads(out)["read"] == 100


@pytest.fixture
def publisher() -> Iterator[list[threading.Thread]]:
    threads: list[threading.Thread] = []
    yield threads
    for thread in threads:
        thread.join()


def test_two_workers_share_the_partitions_and_what_moves_is_read_once(
    kafka_server: KafkaServer, publisher: list[threading.Thread]
) -> None:
    topic, backend = kafka_server.topic(partitions=4), MemoryBackend()
    parts = [changes(seed, 400, 60) for seed in range(5, 9)]
    everything = [record for part in parts for record in part]
    kafka_server.produce(topic, parts[0])
    one = Worker(kafka_server, topic, backend)
    wait_for(lambda: one.read > 100)
    publisher.append(threading.Thread(target=kafka_server.produce, args=(topic, parts[1])))
    publisher[-1].start()
    other = Worker(kafka_server, topic, backend)
    wait_for(lambda: len(one.partitions) == len(other.partitions) == 2)
    assert not one.partitions & other.partitions
    kafka_server.produce(topic, parts[2])
    wait_for(lambda: one.read + other.read >= 1200)
    one.end()
    wait_for(lambda: len(other.partitions) == 4)
    kafka_server.produce(topic, parts[3])
    wait_for(lambda: one.read + other.read >= 1600)
    other.end()
    assert stored(backend) == after(everything)
    assert one.read + other.read == 1600  # in good order, so that nothing was read by both
    assert min(one.read, other.read) > 0


def test_a_broker_that_was_away_is_read_on_from_where_it_was(tmp_path: Path) -> None:
    server = KafkaServer(tmp_path / "kafka")
    server.start()
    try:
        topic, backend = server.topic(), MemoryBackend()
        first, second = changes(10, 200, 30), changes(11, 200, 30)
        server.produce(topic, first)
        worker = Worker(server, topic, backend)
        wait_for(lambda: worker.read >= 200)
        server.kill()
        server.start()
        server.produce(topic, second)
        wait_for(lambda: worker.read >= 400, 90)
        worker.end()
        assert stored(backend) == after(second, after(first))
    finally:
        server.stop()


def test_records_that_were_deleted_before_they_were_read_are_told(kafka_server: KafkaServer) -> None:
    from kafka import TopicPartition
    from kafka.admin import KafkaAdminClient

    topic = kafka_server.topic()
    kafka_server.produce(topic, changes(12, 20, 5))
    with closing(KafkaSource.open(settings_for(kafka_server, topic, batch_size=5))) as source:
        batch = None
        while batch is None:
            batch = source.poll(0.2)
        source.commit(batch)
    with closing(KafkaAdminClient(bootstrap_servers=kafka_server.bootstrap)) as admin:
        admin.delete_records({TopicPartition(topic, 0): 15})
    with (
        closing(KafkaSource.open(settings_for(kafka_server, topic))) as source,
        pytest.raises(Stop, match=r"not in topic .* any more .* read it anew under another \[source\] group"),
    ):
        wait_for(lambda: source.poll(0.2))
