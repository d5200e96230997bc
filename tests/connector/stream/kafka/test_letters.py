"""Dead letters of a real topic, given again beside real workers: whatever came meanwhile stays."""

import json
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bartizan_connector.base.errors import Retry, Stop
from bartizan_connector.store.memory import MemoryBackend
from bartizan_connector.stream.kafka.letterbox import TopicLetters
from bartizan_connector.stream.kafka.letters import Letters
from bartizan_connector.stream.letters import chooser
from bartizan_connector.stream.replay import foreseen, replay
from bartizan_connector.stream.report import Report
from tests.connector.stream.faults import COLLECTION, Backend, Encoder, stored
from tests.connector.stream.kafka.media import settings_for, wait_for
from tests.connector.stream.kafka.workers import Worker
from tests.servers.kafka import KafkaServer

pytestmark = pytest.mark.server
BAD = "cherry"


def record(id: str, text: str | None, **more: Any) -> dict[str, Any]:
    return {"key": id.encode(), "value": None if text is None else json.dumps({"text": text}).encode(), **more}


def worked(server: KafkaServer, topic: str, backend: MemoryBackend, records: list[dict[str, Any]]) -> None:
    """A worker has read these."""
    server.produce(topic, records)
    worker = Worker(server, topic, backend)
    try:
        wait_for(lambda: worker.read >= len(records))
    finally:
        worker.end()


def given_again(server: KafkaServer, topic: str, backend: MemoryBackend, **chosen: Any) -> Report:
    settings = settings_for(server, topic)
    with closing(TopicLetters(settings)) as box, closing(backend.open(COLLECTION)) as store:
        return replay(box, chooser(**chosen), store, {"dense": Encoder()})


def listed(server: KafkaServer, topic: str) -> list[tuple[str, str]]:
    with closing(TopicLetters(settings_for(server, topic))) as box:
        return [(letter.id, letter.reason) for letter in box.letters()]


def test_a_newer_update_and_a_delete_in_between_stay_and_nothing_is_given_twice(kafka_server: KafkaServer) -> None:
    topic, backend = kafka_server.topic(partitions=3), Backend()
    backend.refused = frozenset({BAD})
    ids = ("updated", "deleted", "left", "other")
    worked(kafka_server, topic, backend, [record(id, BAD, headers=[("trace", b"7")]) for id in ids])
    worked(kafka_server, topic, backend, [record("updated", "apple"), record("deleted", None)])
    assert sorted(listed(kafka_server, topic)) == sorted((id, "the store refuses it") for id in ids)
    backend.refused = frozenset()
    with closing(TopicLetters(settings_for(kafka_server, topic))) as box, closing(backend.open(COLLECTION)) as store:
        told = foreseen(box, chooser(), store)
    assert (told.read, told.written, told.stale) == (4, 2, 2)
    assert given_again(kafka_server, topic, backend, ids=["left"]).written == 1
    assert sorted(id for id, _ in listed(kafka_server, topic)) == ["deleted", "other", "updated"]
    report = given_again(kafka_server, topic, backend)
    assert (report.read, report.written, report.stale) == (3, 1, 2)
    assert stored(backend) == {"updated": "apple", "left": BAD, "other": BAD}
    assert listed(kafka_server, topic) == []
    assert given_again(kafka_server, topic, backend).read == 0
    worked(kafka_server, topic, backend, [record("left", "apple")])
    assert stored(backend)["left"] == "apple", "the place of what was given again is its own, so this is newer"


def test_what_is_refused_again_stays_with_the_reason_of_now(kafka_server: KafkaServer) -> None:
    topic, backend = kafka_server.topic(), Backend()
    backend.refused = frozenset({BAD})
    worked(kafka_server, topic, backend, [record("a", BAD), {"key": b"b", "value": b"{"}])
    before = listed(kafka_server, topic)
    assert given_again(kafka_server, topic, backend).dead == 2
    assert listed(kafka_server, topic) == before  # for the same reason: not written once more
    backend.refused = frozenset()
    with closing(TopicLetters(settings_for(kafka_server, topic))) as box, closing(backend.open(COLLECTION)) as store:
        assert replay(box, chooser(ids=["a"]), store, {"dense": Encoder(poison=BAD)}).dead == 1
    assert dict(listed(kafka_server, topic)) == dict(before) | {"a": "this text cannot be encoded"}
    assert given_again(kafka_server, topic, backend, reasons=["cannot be encoded"]).written == 1
    assert [id for id, _ in listed(kafka_server, topic)] == ["b"]


def test_a_letter_of_another_program_is_told_and_left(kafka_server: KafkaServer) -> None:
    topic, backend = kafka_server.topic(), Backend()
    worked(kafka_server, topic, backend, [{"key": b"b", "value": b"{"}])
    kafka_server.produce(f"{topic}.DLQ", [record("a", "apple")])
    assert sorted(id for id, _ in listed(kafka_server, topic)) == ["a", "b"]
    assert given_again(kafka_server, topic, backend).dead == 2
    assert stored(backend) == {}
    assert sorted(id for id, _ in listed(kafka_server, topic)) == ["a", "b"]


def test_a_worker_that_holds_the_partition_is_not_overtaken(kafka_server: KafkaServer) -> None:
    topic, backend = kafka_server.topic(), Backend()
    backend.refused = frozenset({BAD})
    kafka_server.produce(topic, [record("a", BAD)])
    worker = Worker(kafka_server, topic, backend)
    try:
        wait_for(lambda: worker.read >= 1)
        backend.refused = frozenset()
        begun = time.monotonic()
        with pytest.raises(Stop, match=r"which a worker of group .* holds; stop the workers"):
            given_again(kafka_server, topic, backend)
        assert time.monotonic() - begun < 20
        kafka_server.produce(topic, [record("a", "apple")])
        wait_for(lambda: worker.read >= 2)
    finally:
        worker.end()
    assert given_again(kafka_server, topic, backend).stale == 1
    assert stored(backend) == {"a": "apple"}


def test_letters_are_written_when_brokers_come_back_that_were_longer_away_than_a_letter_lives(tmp_path: Path) -> None:
    server = KafkaServer(tmp_path / "kafka")
    server.start()
    try:
        topic = server.topic()
        writer = Letters(settings_for(server, topic))

        def settled(place: str) -> bool:
            writer.receipt(place)
            try:
                writer.settle()
            except Retry:
                return False
            return True

        assert settled("one")
        before = threading.active_count()
        server.kill()
        assert not settled("two")  # its producer would not send again, whoever is back
        assert threading.active_count() < before
        server.start()
        wait_for(lambda: settled("three"), 60)
        writer.close()
        keys = [record.key for record in server.read(f"{topic}.DLQ")]
        assert keys[0] == b"receipt one"
        assert {b"receipt two", b"receipt three"} <= set(keys)
    finally:
        server.stop()


def test_an_end_with_letters_that_nobody_takes_leaves_no_thread(tmp_path: Path) -> None:
    server = KafkaServer(tmp_path / "kafka")
    server.start()
    try:
        writer = Letters(settings_for(server, server.topic()))
        before = threading.active_count()
        writer.receipt("one")
        writer.settle()
        server.kill()
        assert writer._producer is not None
        writer.receipt("two")
        for waiting in writer._waiting:
            waiting.sent = writer._send(waiting)
        writer.close()
        assert threading.active_count() <= before
    finally:
        server.stop()
