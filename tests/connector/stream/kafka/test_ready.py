"""What the thread that polls keeps ready: of each partition what several polls brought, in order, within bounds."""

from collections.abc import Sequence
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest

from bartizan_connector.stream.kafka.client import errors, kafka
from bartizan_connector.stream.kafka.reader import Reader


class Member:
    """A consumer that reads what the test gives it."""

    def __init__(self) -> None:
        self.resting: set[Any] = set()
        self.committed_at: dict[int, Any] = {}
        self.is_away = False

    def group_metadata(self) -> Any:
        return SimpleNamespace(state=kafka.structs.MemberState.STABLE)

    def committed(self, place: Any, *, metadata: bool, timeout_ms: int) -> Any:
        assert metadata
        if self.is_away:
            raise errors.KafkaTimeoutError
        return self.committed_at.get(place.partition)

    def commit(self, places: Any, timeout_ms: int) -> None:
        self.committed_at |= {place.partition: put for place, put in places.items()}

    def assignment(self) -> set[Any]:
        return {place(0), place(1)}

    def paused(self) -> set[Any]:
        return set(self.resting)

    def pause(self, *places: Any) -> None:
        self.resting |= set(places)

    def resume(self, *places: Any) -> None:
        self.resting -= set(places)


def place(number: int) -> Any:
    return kafka.TopicPartition("docs", number)


def records(offsets: Sequence[int], size: int = 1) -> list[Any]:
    return [SimpleNamespace(offset=offset, value=b"x" * size) for offset in offsets]


def reader_of(member: Member) -> Reader:
    reader = Reader(member, "docs", count(1), yields=False)
    reader.gain([0, 1])
    reader._look_at_notes()
    return reader


def taken(reader: Reader, most: int) -> tuple[int, list[int]] | None:
    with reader.changed:
        read = reader.take(most)
    return None if read is None else (read.number, [record.offset for record in read.records])


def test_what_several_polls_brought_of_a_partition_is_one_batch() -> None:
    reader = reader_of(Member())
    for came in ({place(0): records([1])}, {place(1): records([7])}, {place(0): records([2, 3])}):
        reader._take_in(came)
    assert [taken(reader, 10) for _ in range(3)] == [(0, [1, 2, 3]), (1, [7]), None]


def test_a_batch_is_no_longer_than_asked_and_the_other_partitions_come_before_the_rest() -> None:
    reader = reader_of(Member())
    reader._take_in({place(0): records([1, 2, 3]), place(1): records([7])})
    assert taken(reader, 2) == (0, [1, 2])
    reader._take_in({place(0): records([4])})
    assert [taken(reader, 2) for _ in range(3)] == [(1, [7]), (0, [3, 4]), None]


def test_what_was_read_under_another_assignment_is_not_put_together_with_it() -> None:
    reader = reader_of(Member())
    reader._take_in({place(0): records([1])})
    reader.lose([0])
    reader.gain([0])
    reader._take_in({place(0): records([1, 2])})
    reader._look_at_notes()
    assert [taken(reader, 10) for _ in range(2)] == [(0, [1, 2]), None]


def test_all_rest_once_two_batches_of_one_are_ready_and_are_read_on_when_one_was_taken() -> None:
    """Never some of them: the library keeps what it has fetched of those until the others rest too."""
    member = Member()
    reader = reader_of(member)
    assert taken(reader, 2) is None
    reader._take_in({place(0): records([1, 2, 3]), place(1): records([7, 8, 9])})
    reader._pace()
    assert not member.resting
    reader._take_in({place(0): records([4])})
    reader._pace()
    assert member.resting == {place(0), place(1)}
    assert taken(reader, 2) == (0, [1, 2])
    reader._pace()
    assert not member.resting


def test_all_rest_when_what_is_ready_is_large() -> None:
    member = Member()
    reader = reader_of(member)
    assert taken(reader, 100) is None
    reader._take_in({place(0): records(range(4), size=8 * 2**20)})
    reader._pace()
    assert member.resting == {place(0), place(1)}


def test_nothing_is_given_before_it_is_known_what_was_given_of_it_to_a_store() -> None:
    member = Member()
    member.is_away = True
    reader = reader_of(member)
    reader._take_in({place(0): records([1])})
    assert taken(reader, 10) is None
    member.is_away = False
    reader._look_at_notes()
    assert taken(reader, 10) == (0, [1])


def test_what_was_given_is_told_beside_the_place_until_the_place_is_behind_it() -> None:
    member = Member()
    member.committed_at[0] = kafka.structs.OffsetAndMetadata(1, "written=3", 7)
    reader = reader_of(member)
    assert [reader.assigned[number].noted for number in (0, 1)] == [3, 0]
    reader._take_in({place(0): records([1, 2, 3, 4])})

    def told() -> tuple[int, str]:
        put = member.committed_at[0]
        return put.offset, put.metadata

    reader.note(0, 2, 1.0)
    assert told() == (1, "written=3"), "it was given further already"
    reader.note(0, 5, 1.0)
    assert told() == (1, "written=5")
    reader.commit(0, 3, 7, 1.0)
    assert told() == (3, "written=5")
    reader.commit(0, 5, 7, 1.0)
    assert told() == (5, "")


@pytest.mark.parametrize("metadata", ["", "by hand", "written=", "written=-1", "written=7 ", "written=٧"])
def test_what_somebody_else_left_beside_the_place_says_nothing(metadata: str) -> None:
    member = Member()
    member.committed_at[0] = kafka.structs.OffsetAndMetadata(1, metadata, -1)
    assert reader_of(member).assigned[0].noted == 0
