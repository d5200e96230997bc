"""When a member that shall not follow has caught up: what the group was given at the beginning is read, by whomever."""

from itertools import count
from typing import Any, cast

import pytest

from bartizan_connector.stream.kafka import reader as module
from bartizan_connector.stream.kafka.client import kafka
from bartizan_connector.stream.kafka.reader import Reader


class Consumer:
    """Of a topic of two partitions with ten records each."""

    def __init__(self) -> None:
        self.commits: dict[int, int | None] = {0: 10, 1: None}

    def end_offsets(self, places: list[Any], timeout_ms: int) -> dict[Any, int]:
        return dict.fromkeys(places, 10)

    def committed(self, place: Any, timeout_ms: int) -> int | None:
        return self.commits[place.partition]

    def group_metadata(self) -> Any:
        return kafka.structs.ConsumerGroupMetadata("g", 1, "m", None, kafka.structs.MemberState.STABLE)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(module, "partitions_of", lambda *_: {0, 1})
    return now


def look(reader: Reader, now: list[float]) -> bool:
    now[0] += 1.5
    reader._take_in({})
    reader._look_at_others()
    return reader.caught_up


def reading(consumer: Consumer, *ours: int) -> Reader:
    reader = Reader(cast(Any, consumer), "docs", count(1), yields=False, session=10.0)
    reader.gain(list(ours))
    for each in reader.assigned.values():
        each.reached = True
    return reader


def test_who_has_all_partitions_has_caught_up_with_its_own(now: list[float]) -> None:
    reader = reading(Consumer(), 0, 1)
    assert look(reader, now)
    reader.assigned[1].reached = False
    assert not look(reader, now)


def test_what_another_has_not_committed_is_waited_for(now: list[float]) -> None:
    consumer = Consumer()
    reader = reading(consumer, 0)
    assert not look(reader, now)
    consumer.commits[1] = 9
    assert not look(reader, now)
    consumer.commits[1] = 10
    assert look(reader, now)


def test_who_died_is_known_when_the_group_was_still_for_longer_than_a_session(now: list[float]) -> None:
    reader = reading(Consumer(), 0)
    assert not look(reader, now)
    now[0] += 9.0
    reader.gain([1])  # the dead one's
    assert not look(reader, now)
    reader.assigned[1].reached = True
    assert look(reader, now)
    reader.lose([1])
    assert not look(reader, now), "a live one's, which commits or dies"
    now[0] += 14.0
    assert look(reader, now)


def test_who_gets_no_partition_waits_for_those_who_have_them(now: list[float]) -> None:
    consumer = Consumer()
    reader = reading(consumer)
    assert not look(reader, now)
    consumer.commits[1] = 10
    assert look(reader, now)


def test_a_member_that_dies_just_before_this_one_is_done_is_waited_for(now: list[float]) -> None:
    reader = reading(Consumer(), 0)
    reader.assigned[0].reached = False
    assert not look(reader, now)
    now[0] += 600.0
    reader.assigned[0].reached = True
    assert not look(reader, now), "the group counts the other as alive for a session yet"
    now[0] += 14.0
    assert look(reader, now)


def test_what_the_brokers_took_away_is_not_read_to_its_end(now: list[float]) -> None:
    reader = reading(Consumer(), 0, 1)
    assert look(reader, now)
    reader.drop(1)
    assert not reader.caught_up
