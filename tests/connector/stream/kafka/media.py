"""A topic as the suite of sources sees it, and what the tests of Kafka share."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from bartizan_connector.config.kafka import KafkaSettings
from bartizan_connector.stream.kafka.letters import PREFIX
from bartizan_connector.stream.kafka.source import KafkaSource
from bartizan_connector.testing.source import DeadLetter
from tests.servers.kafka import KafkaServer

SESSION = 3.0
"""Seconds after which a silent worker counts as dead."""


def settings_for(server: KafkaServer, topic: str, **more: Any) -> KafkaSettings:
    """A table for that topic."""
    facts = {"kind": "kafka", "bootstrap": server.bootstrap, "topic": topic, "group": f"of-{topic}"}
    return KafkaSettings.model_validate(facts | {"session_timeout": SESSION, "connect_timeout": 20.0} | more)


class TopicMedium:
    """A topic of one partition."""

    def __init__(self, server: KafkaServer) -> None:
        self._server = server
        self.topic = server.topic()

    def fill(self, values: Sequence[bytes]) -> None:
        self._server.produce(self.topic, [{"value": value} for value in values])

    def open(self, batch_size: int) -> KafkaSource:
        return KafkaSource.open(settings_for(self._server, self.topic, batch_size=batch_size))

    def dead_letters(self) -> Sequence[DeadLetter]:
        return letters_in(self._server, f"{self.topic}.DLQ")


def letters_in(server: KafkaServer, topic: str) -> list[DeadLetter]:
    """The dead letters of a topic, by the headers of Kafka Connect."""
    found = []
    for record in server.read(topic):
        told = {name.removeprefix(PREFIX): value.decode() for name, value in record.headers if name.startswith(PREFIX)}
        position = f"{told['topic']}[{told['partition']}]@{told['offset']}"
        found.append(DeadLetter(position=position, reason=told["exception.message"], value=record.value))
    return found


def wait_for(what: Callable[[], Any], seconds: float = 20.0) -> None:
    """Until it is true."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, f"not so within {seconds} seconds"
        time.sleep(0.05)
