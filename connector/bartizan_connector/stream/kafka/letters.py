"""Dead letters in a topic: the record as it came, with Kafka Connect's headers for what went wrong.

Two headers of ours keep the place that the record was read at. A letter that was given again stays where it is; a
receipt after it says that it is done (docs/decisions/025).
"""

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from bartizan_connector.base.errors import BartizanError
from bartizan_connector.config.kafka import KafkaSettings
from bartizan_connector.stream.kafka.client import (
    KafkaAdminClient,
    errors,
    opened,
    producer,
    translating,
)
from bartizan_connector.stream.kafka.messages import KafkaMessage

PREFIX = "__connect.errors."
VERSION, ORIGIN, SETTLED = "bartizan.letter.version", "bartizan.letter.origin", "bartizan.letter.settled"
_OURS = (VERSION, ORIGIN, SETTLED)
_SECONDS = 20.0
"""So long all that was handed over may take to be acknowledged; the producer gives one letter up after 15."""
_END_SECONDS = 2.0

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
        try:
            with translating(f"dead letters for topic {self._settings.letters}", self._settings):
                self._hand_over()
        except BartizanError:
            self.close()
            raise

    def close(self) -> None:
        """Let go; what was not settled is sent anew, or comes again with its batch. A producer whose letter was not
        acknowledged in time may never send again, nor end by itself."""
        producer, self._producer = self._producer, None
        self._waiting = [each for each in self._waiting if each.sent is None or not each.sent.succeeded()]
        for waiting in self._waiting:
            waiting.sent = None
        if producer is not None:
            producer._sender.force_close()
            with suppress(errors.KafkaError):
                producer.close(timeout=_END_SECONDS)

    def _hand_over(self) -> None:
        if self._producer is None:
            self._make_topic()
            self._producer = producer(self._settings)
        for waiting in self._waiting:
            waiting.sent = waiting.sent or self._send(waiting)
        end = time.monotonic() + _SECONDS
        for waiting in self._waiting:
            waiting.sent.get(timeout=max(0.0, end - time.monotonic()))
        self._waiting.clear()

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
