"""What became of letters that were given again is told once, however often telling it fails."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from bartizan_connector.base.errors import Retry
from bartizan_connector.config.kafka import KafkaSettings
from bartizan_connector.stream.again import Again
from bartizan_connector.stream.kafka.letterbox import TopicLetters
from bartizan_connector.stream.kafka.letters import Letters
from bartizan_connector.stream.kafka.messages import KafkaMessage
from bartizan_connector.stream.letters import Letter, Outcome


class Written(Letters):
    """Keeps what was handed to it, and fails at the settlements that are told."""

    def __init__(self, failing: Sequence[int]) -> None:
        self.handed: list[str] = []
        self._failing, self._count = failing, 0

    def add(self, message: KafkaMessage, reason: str) -> None:
        self.handed.append(f"letter {message.position}")

    def receipt(self, place: str) -> None:
        self.handed.append(f"receipt {place}")

    def settle(self) -> None:
        self._count += 1
        if self._count in self._failing:
            raise Retry("away")


def _letter(place: str) -> Letter:
    message = KafkaMessage(position=place, value=b"{}", version=1, record=SimpleNamespace(partition=0))
    return Letter(place=place, source=place, message=message, id=place, reason="before")


@pytest.mark.parametrize("failing", [(), (1,), (2,), (1, 3), (1, 2, 3)])
def test_letters_and_receipts_are_handed_over_once(failing: Sequence[int]) -> None:
    box, writer = TopicLetters(KafkaSettings(kind="kafka", bootstrap="h:1", topic="t", group="g")), Written(failing)
    box._writer = writer
    anything: Any = box
    source = Again(anything, lambda letter: True, box._settle)
    batch = source.batch([_letter("0@1"), _letter("0@2"), _letter("0@3")])
    source.dead_letter(batch.messages[0], "now")
    source.dead_letter(batch.messages[1], "before")  # as it was: its letter stays
    for _ in failing:
        with pytest.raises(Retry):
            source.commit(batch)
    source.commit(batch)
    assert writer.handed == ["letter 0@1", "receipt 0@1", "receipt 0@3"]


def test_what_was_not_told_is_told_with_the_next_commit() -> None:
    told: list[Sequence[Outcome]] = []

    def settle(outcomes: Sequence[Outcome]) -> None:
        told.append(outcomes)
        if len(told) == 1:
            raise Retry("away")

    anything: Any = None
    source = Again(anything, lambda letter: True, settle)
    batch = source.batch([_letter("0@1"), _letter("0@2")])
    source.dead_letter(batch.messages[1], "now")
    with pytest.raises(Retry):
        source.commit(batch)
    source.commit(batch)
    assert told[0] == told[1]
    assert [reason for _, reason in told[1]] == [None, "now"]
