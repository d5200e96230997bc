"""What the thread that polls keeps ready: of each partition what several polls brought, in order, within bounds."""

from collections.abc import Sequence
from itertools import count
from types import SimpleNamespace
from typing import Any

from bartizan_connector.stream.kafka.client import kafka
from bartizan_connector.stream.kafka.reader import Reader


class Member:
    """A consumer that reads what the test gives it."""

    def __init__(self) -> None:
        self.resting: set[Any] = set()

    def group_metadata(self) -> Any:
        return SimpleNamespace(state=kafka.structs.MemberState.STABLE)

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
