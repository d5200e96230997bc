"""A topic in memory: partitions, committed places, assignments that move; what a broker is to the pipeline."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from bartizan_connector.stream.source import Batch, Message
from bartizan_connector.stream.versions import stamp
from bartizan_connector.testing.source import DeadLetter


@dataclass
class Topic:
    """What is written, where each partition's readers are, and whose each partition is."""

    partitions: dict[str, list[Message]] = field(default_factory=lambda: {"0": []})
    committed: dict[str, int] = field(default_factory=dict)
    letters: list[DeadLetter] = field(default_factory=list)
    owners: dict[str, tuple["TopicSource", int]] = field(default_factory=dict)
    """Partition → its reader, and the number of the assignment."""

    def append(self, partition: str, value: bytes | None, *, milliseconds: int = 0, key: str | None = None) -> Message:
        """Write one more message."""
        log = self.partitions[partition]
        message = Message(
            position=f"topic[{partition}]@{len(log)}",
            value=value,
            key=key,
            version=stamp(milliseconds, len(log)),
            origin=f"topic/{partition}",
            offset=len(log),
        )
        log.append(message)
        return message

    def assign(self, partition: str, reader: "TopicSource") -> None:
        """The partition is this reader's from now on, even when it was before."""
        number = self.owners[partition][1] + 1 if partition in self.owners else 0
        self.owners[partition] = (reader, number)

    def assign_all(self, reader: "TopicSource") -> None:
        for partition in self.partitions:
            self.assign(partition, reader)


class TopicSource:
    """A reader of a topic. It begins each assignment at what was committed; `before` is called as each verb begins."""

    dead_letters = "the topic's letters"

    def __init__(self, topic: Topic, batch_size: int = 3, *, before: Callable[[str], None] | None = None) -> None:
        self._topic = topic
        self._batch_size = batch_size
        self._before = before or (lambda verb: None)
        self._places: dict[str, tuple[int, int]] = {}
        """Partition → the assignment, and the next offset to be given under it."""
        self._letters: list[tuple[str, DeadLetter]] = []
        self._turn = 0
        self.ends = False
        """Whether the source ends with what is written by now, or is followed."""
        self.closed = False

    @property
    def ended(self) -> bool:
        return self.ends and self.backlog() == 0

    def backlog(self) -> int:
        return sum(len(self._topic.partitions[name]) - self._place(name)[1] for name in self._mine())

    def poll(self, timeout: float) -> Batch | None:
        self._before("poll")
        mine = self._mine()
        for name in mine[self._turn % len(mine) :] + mine[: self._turn % len(mine)] if mine else []:
            number, start = self._place(name)
            messages = self._topic.partitions[name][start : start + self._batch_size]
            if messages:
                self._turn += 1
                self._places[name] = (number, start + len(messages))
                return Batch(messages=tuple(messages), partition=name, generation=number)
        return None

    def owns(self, batch: Batch) -> bool:
        self._before("owns")
        return not self.closed and self._topic.owners[batch.partition] == (self, batch.generation)

    def commit(self, batch: Batch) -> None:
        self._before("commit")
        assert self._topic.owners[batch.partition] == (self, batch.generation), "committed what is another's"
        assert batch.messages[0].offset == self._topic.committed.get(batch.partition, 0), "committed out of order"
        self._topic.letters += [letter for partition, letter in self._letters if partition == batch.partition]
        self._letters = [each for each in self._letters if each[0] != batch.partition]
        self._topic.committed[batch.partition] = batch.messages[-1].offset + 1

    def dead_letter(self, message: Message, reason: str) -> None:
        self._before("dead_letter")
        letter = DeadLetter(position=message.position, reason=reason, value=message.value or b"")
        self._letters.append((message.origin.partition("/")[2], letter))

    def close(self) -> None:
        self.closed = True

    def _mine(self) -> list[str]:
        return [] if self.closed else [name for name, (owner, _) in self._topic.owners.items() if owner is self]

    def _place(self, name: str) -> tuple[int, int]:
        number = self._topic.owners[name][1]
        if self._places.get(name, (-1, 0))[0] != number:
            self._places[name] = (number, self._topic.committed.get(name, 0))
        return self._places[name]


class PoliteSource(TopicSource):
    """Lets the partition that is `asked` for go within `poll`, in good order; then `on_given_up` happens."""

    asked: str | None = None

    def __init__(
        self, topic: Topic, batch_size: int = 3, *, on_given_up: Callable[[str], None] | None = None, **more: Any
    ) -> None:
        super().__init__(topic, batch_size, **more)
        self._on_given_up = on_given_up or (lambda partition: topic.assign(partition, TopicSource(topic)))
        self._settle: Callable[[str], None] | None = None

    def before_yielding(self, settle: Callable[[str], None]) -> None:
        self._settle = settle

    def poll(self, timeout: float) -> Batch | None:
        if self.asked is not None:
            asked, self.asked = self.asked, None
            assert self._settle is not None
            self._settle(asked)
            self._on_given_up(asked)
        return super().poll(timeout)


class TopicMedium:
    """A topic of one partition, as the suite sees it."""

    def __init__(self) -> None:
        self.topic = Topic()

    def fill(self, values: Sequence[bytes]) -> None:
        for value in values:
            self.topic.append("0", value)

    def open(self, batch_size: int) -> TopicSource:
        source = TopicSource(self.topic, batch_size)
        self.topic.assign_all(source)
        return source

    def dead_letters(self) -> Sequence[DeadLetter]:
        return self.topic.letters


def topic_of(*texts: str, partition: str = "0") -> Topic:
    topic = Topic()
    for number, text in enumerate(texts):
        topic.append(partition, b'{"_id": "%d", "text": "%s"}' % (number, text.encode()), milliseconds=1000 + number)
    return topic


def reader_of(topic: Topic, **more: Any) -> TopicSource:
    source = TopicSource(topic, 1, **more)
    source.ends = True
    topic.assign_all(source)
    return source
