"""Dead letters in a topic: the record as it came, with Kafka Connect's headers for what went wrong.

Two headers of ours keep the place that the record was read at. A letter that was given again stays where it is; a
receipt after it says that it is done (docs/decisions/025).
"""

from dataclasses import dataclass
from typing import Any

from bartizan_connector.config.kafka import KafkaSettings
from bartizan_connector.stream.kafka.client import (
    KafkaAdminClient,
    errors,
    opened,
    producer,
    translated,
    translating,
)
from bartizan_connector.stream.kafka.messages import KafkaMessage

PREFIX = "__connect.errors."
VERSION, ORIGIN, SETTLED = "bartizan.letter.version", "bartizan.letter.origin", "bartizan.letter.settled"
_OURS = (VERSION, ORIGIN, SETTLED)
_SECONDS = 45.0

Headers = list[tuple[str, bytes]]


@dataclass(slots=True, kw_only=True)
class _Waiting:
    """What is to be written."""

    key: bytes | None
    value: bytes | None
    headers: Headers
    sent: Any = None
    """Its acknowledgement to be."""


class Letters:
    """What was handed over is on its way; `settle` makes it durable. The topic is made when the first letter is
    written and it is not there."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._producer: Any = None
        self._waiting: list[_Waiting] = []

    def add(self, message: KafkaMessage, reason: str) -> None:
        """Hand one over."""
        record = message.record
        value = b"" if record.key is None and record.value is None else record.value
        headers = headers_of(message, reason, self._settings.group)
        self._waiting.append(_Waiting(key=record.key, value=value, headers=headers))

    def receipt(self, place: str) -> None:
        """The letter at that place of the topic is done."""
        mark = place.encode()
        self._waiting.append(_Waiting(key=b"receipt " + mark, value=b"", headers=[(SETTLED, mark)]))

    def settle(self) -> None:
        """All that was handed over is acknowledged by the brokers; where one is not, it is sent again next time."""
        if not self._waiting:
            return
        what = f"dead letters for topic {self._settings.letters}"
        with translating(what, self._settings):
            if self._producer is None:
                self._make_topic()
                self._producer = producer(self._settings)
            for waiting in self._waiting:
                if waiting.sent is None:
                    waiting.sent = self._send(waiting)
        failure = None
        for waiting in list(self._waiting):
            try:
                waiting.sent.get(timeout=_SECONDS)
                self._waiting.remove(waiting)
            except errors.KafkaError as error:
                waiting.sent, failure = None, error
        if failure is not None:
            raise translated(failure, what, self._settings) from failure

    def close(self) -> None:
        """Let go; what was not settled comes again with its batch."""
        if self._producer is not None:
            self._producer.close(timeout=1.0)
            self._producer = None

    def _send(self, waiting: _Waiting) -> Any:
        return self._producer.send(
            self._settings.letters, key=waiting.key, value=waiting.value, headers=waiting.headers
        )  # with a time of now: by its own, retention could remove it at once

    def _make_topic(self) -> None:
        """With the brokers' own number of partitions and replicas."""
        admin = opened(KafkaAdminClient, self._settings)
        try:
            if self._settings.letters not in admin.list_topics():
                admin.create_topics([self._settings.letters], wait_for_metadata=True)
        except errors.TopicAlreadyExistsError:
            pass
        finally:
            admin.close()


def headers_of(message: KafkaMessage, reason: str, group: str) -> Headers:
    """The record's own headers, what Kafka Connect says of a dead letter (KIP-298), and the place it was read at."""
    record = message.record
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
    connect = [(PREFIX + name, str(value).encode(errors="backslashreplace")) for name, value in told.items()]
    place = [(VERSION, str(message.stamped).encode()), (ORIGIN, message.sequence.encode())]
    return [*own_headers(record), *connect, *place]


def own_headers(record: Any) -> Headers:
    """A record's headers without those that made a letter of it."""
    return [(name, value or b"") for name, value in record.headers if not name.startswith(PREFIX) and name not in _OURS]
