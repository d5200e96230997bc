"""Dead letters: the record as it came, to a topic beside its own, with Kafka Connect's headers for what went wrong."""

from dataclasses import dataclass
from typing import Any

from bartizan_connector.config.kafka import KafkaSettings
from bartizan_connector.stream.kafka.client import (
    KafkaAdminClient,
    connection,
    errors,
    producer,
    translated,
    translating,
)

PREFIX = "__connect.errors."
_SECONDS = 45.0


@dataclass(slots=True, kw_only=True)
class _Letter:
    record: Any
    reason: str
    sent: Any = None
    """Its acknowledgement to be."""


class Letters:
    """What was handed over is on its way; `settle` makes it durable. The topic is made when the first letter is
    written and it is not there."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._producer: Any = None
        self._waiting: list[_Letter] = []

    def add(self, record: Any, reason: str) -> None:
        """Hand one over."""
        self._waiting.append(_Letter(record=record, reason=reason))

    def settle(self) -> None:
        """All that was handed over is acknowledged by the brokers; where one is not, it is sent again next time."""
        if not self._waiting:
            return
        what = f"dead letters for topic {self._settings.letters}"
        with translating(what, self._settings):
            if self._producer is None:
                self._make_topic()
                self._producer = producer(self._settings)
            for letter in self._waiting:
                if letter.sent is None:
                    letter.sent = self._send(letter)
        failure = None
        for letter in list(self._waiting):
            try:
                letter.sent.get(timeout=_SECONDS)
                self._waiting.remove(letter)
            except errors.KafkaError as error:
                letter.sent, failure = None, error
        if failure is not None:
            raise translated(failure, what, self._settings) from failure

    def close(self) -> None:
        """Let go; what was not settled comes again with its batch."""
        if self._producer is not None:
            self._producer.close(timeout=1.0)
            self._producer = None

    def _send(self, letter: _Letter) -> Any:
        record = letter.record
        return self._producer.send(
            self._settings.letters,
            key=record.key,
            value=b"" if record.key is None and record.value is None else record.value,
            headers=headers_of(record, letter.reason, self._settings.group),
        )  # with a time of now: by its own, retention could remove it at once

    def _make_topic(self) -> None:
        """With the brokers' own number of partitions and replicas."""
        admin = KafkaAdminClient(**connection(self._settings))
        try:
            if self._settings.letters not in admin.list_topics():
                admin.create_topics([self._settings.letters], wait_for_metadata=True)
        except errors.TopicAlreadyExistsError:
            pass
        finally:
            admin.close()


def headers_of(record: Any, reason: str, group: str) -> list[tuple[str, bytes]]:
    """The record's own headers, and what Kafka Connect says of a dead letter (KIP-298)."""
    told = {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "connector.name": group,
        "task.id": 0,
        "stage": "TASK_PUT",
        "class.name": "bartizan_connector.stream.kafka.source.KafkaSource",
        "exception.class.name": "bartizan_connector.base.errors.Reject",
        "exception.message": reason,
        "exception.stacktrace": reason,
    }
    own = [(name, value or b"") for name, value in record.headers if not name.startswith(PREFIX)]
    return [*own, *((PREFIX + name, str(value).encode(errors="backslashreplace")) for name, value in told.items())]
