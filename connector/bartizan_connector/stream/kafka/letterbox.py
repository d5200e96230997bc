"""The letters of a topic, read beside its workers, and given again by a member of their group.

The worker that owns a partition is the one that writes its ids; a replay beside it could write what it has just seen
to be older. So a replay joins the group, and gives again what came from partitions that are its own (decision 025).
"""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from bartizan_connector.base.errors import Retry, Stop
from bartizan_connector.config.kafka import KafkaSettings
from bartizan_connector.stream.again import SIZE, Again
from bartizan_connector.stream.kafka.client import kafka, opened, partitions_of, translating
from bartizan_connector.stream.kafka.letters import ORIGIN, PREFIX, SETTLED, VERSION, Letters, own_headers
from bartizan_connector.stream.kafka.messages import KafkaMessage, decoder, message_of
from bartizan_connector.stream.kafka.source import KafkaSource
from bartizan_connector.stream.letters import Chosen, Letter, Outcome, id_in
from bartizan_connector.stream.source import Batch, Source

_POLL_MS = 500
_SILENT_SECONDS = 30.0
"""After so long without a record that is there, the brokers count as away."""
_JOIN_SECONDS = 5.0
"""How long to wait for partitions beyond the time after which a worker that was killed counts as dead."""
_FOREIGN = (
    "no header says which version the record had (another program wrote this letter): it cannot be placed among later "
    "changes of its id. Produce the record anew, if it is still meant"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    """A letter's record as it stood in its own topic."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


class TopicLetters:
    """The letterbox of a topic of dead letters."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._decode = decoder(settings.decoder)
        self._writer = Letters(settings)
        self._added: set[str] = set()
        self._received: set[str] = set()
        """Places of which the writer has the new letter, and the receipt, should settling them be tried again."""

    @property
    def place(self) -> str:
        """The topic."""
        return f"topic {self._settings.letters} at {self._settings.bootstrap}"

    def letters(self) -> Generator[Letter, None, None]:
        """Those without a receipt. The topic is read twice: receipts come after their letters."""
        with translating(f"reading topic {self._settings.letters}", self._settings), closing(self._reader()) as reader:
            numbers = partitions_of(reader, self._settings.letters, self._settings.connect_timeout)
            if not numbers:
                return
            places = [kafka.TopicPartition(self._settings.letters, number) for number in sorted(numbers)]
            reader.assign(places)
            ends = reader.end_offsets(places, int(_SILENT_SECONDS * 1000))
            done = {_settled(record) for record in self._records(reader, ends)}
            for record in self._records(reader, ends):
                if _settled(record) is None and _place(record) not in done:
                    yield self._letter(record)

    def again(self, chosen: Chosen) -> Source:
        return _AgainAsMember(self, chosen, self._settle, self._settings)

    def flush(self) -> None:
        """Every commit is durable already."""

    def close(self) -> None:
        self._writer.close()

    def _settle(self, outcomes: Sequence[Outcome]) -> None:
        """What is refused for another reason becomes a letter with it, durable before the receipts of the old ones."""
        known = [(letter, reason) for letter, reason in outcomes if _is_placed(letter)]
        done = [(letter, reason) for letter, reason in known if reason != letter.reason]
        for letter, reason in done:
            if reason is not None and letter.place not in self._added:
                assert isinstance(letter.message, KafkaMessage)
                self._writer.add(letter.message, reason)
                self._added.add(letter.place)
        self._writer.settle()
        for letter, _ in done:
            if letter.place not in self._received:
                self._writer.receipt(letter.place)
                self._received.add(letter.place)
        self._writer.settle()
        self._added, self._received = set(), set()

    def _reader(self) -> Any:
        return opened(
            kafka.KafkaConsumer,
            self._settings,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            allow_auto_create_topics=False,
        )

    def _records(self, reader: Any, ends: dict[Any, int]) -> Iterator[Any]:
        """Everything before these ends."""
        reader.seek_to_beginning(*ends)
        heard = time.monotonic()
        left = {place for place, end in ends.items() if end}
        while left:
            came = reader.poll(_POLL_MS)
            for place, records in came.items():
                yield from (record for record in records if record.offset < ends[place])
            before = len(left)
            left = {place for place in left if (reader.position(place, _POLL_MS) or 0) < ends[place]}
            if came or len(left) < before:
                heard = time.monotonic()
            elif time.monotonic() - heard > _SILENT_SECONDS:
                raise Retry(f"{self._settings.bootstrap} gives no records of topic {self._settings.letters}")

    def _letter(self, record: Any) -> Letter:
        told = {name: (value or b"").decode(errors="replace") for name, value in record.headers}
        topic, partition, offset = (told.get(PREFIX + name, "") for name in ("topic", "partition", "offset"))
        version, origin = told.get(VERSION, ""), told.get(ORIGIN, "")
        stood = topic == self._settings.topic and all(map(str.isdigit, (partition, offset, version))) and origin
        original = _Record(
            topic=topic,
            partition=int(partition) if stood else -1,
            offset=int(offset) if stood else -1,
            timestamp=-1,
            key=record.key,
            value=record.value,
            headers=own_headers(record),
        )
        message = message_of(
            original,
            origin=origin,
            decode=self._decode,
            version_header=self._settings.version_header,
            stamped=int(version) if stood else 0,
        )
        if not stood:
            message = replace(message, fault=_FOREIGN)
        return Letter(
            place=_place(record),
            source=f"{topic}[{partition}]@{offset}",
            message=replace(message, position=_place(record), late=True),
            id=id_in(message.key or (record.key and record.key.decode(errors="replace")), record.value),
            reason=told.get(f"{PREFIX}exception.message", ""),
            time=record.timestamp / 1000 if record.timestamp >= 0 else None,
        )


class _AgainAsMember(Again):
    """Gives letters again while the partitions that they came from are ours."""

    def __init__(
        self,
        box: TopicLetters,
        chosen: Chosen,
        settle: Callable[[Sequence[Outcome]], None],
        settings: KafkaSettings,
    ) -> None:
        super().__init__(box, chosen, settle)
        self._settings = settings
        self._member = KafkaSource.open(settings)
        self._ours: dict[int, int] = {}
        """Partition → the assignment under which its letters are given."""

    @property
    def group(self) -> str:
        """The workers', since this is one of them meanwhile."""
        return self._member.group

    def before_yielding(self, settle: Callable[[str], None]) -> None:
        self._member.before_yielding(settle)

    def poll(self, timeout: float) -> Batch | None:
        self._member.hold(0.0)
        return super().poll(timeout)

    def batches(self, letters: Iterator[Letter]) -> Iterator[Batch]:
        """Each of letters from one partition."""
        parts: dict[int, list[Letter]] = {}
        for letter in letters:
            number = _number_of(letter)
            part = parts.setdefault(number, [])
            part.append(letter)
            if len(part) >= SIZE:
                yield self._batch_from(number, parts.pop(number))
        for number, part in sorted(parts.items()):
            yield self._batch_from(number, part)

    def owns(self, batch: Batch) -> bool:
        return batch.partition == "" or self._member.owns(batch)

    def close(self) -> None:
        super().close()
        self._member.close()

    def _batch_from(self, number: int, letters: list[Letter]) -> Batch:
        """What has no place writes nothing, and is nobody's."""
        if number < 0:
            return self.batch(letters, partition="")
        if number not in self._ours:
            self._ours[number] = self._assignment(number)
        return self.batch(letters, f"{self._settings.topic}[{number}]", self._ours[number])

    def _assignment(self, number: int) -> int:
        """Under which the partition is ours; waited for."""
        deadline = time.monotonic() + self._settings.session_timeout + _JOIN_SECONDS
        while time.monotonic() < deadline:
            found = self._member.hold(0.1).get(number)
            if found is not None:
                return found
        raise Stop(
            f"the letters came from partition {number} of {self._settings.topic}, which a worker of group "
            f"{self._settings.group} holds; stop the workers while letters are given again. What was given "
            "again before is stored"
        )


def _is_placed(letter: Letter) -> bool:
    return letter.message.fault != _FOREIGN


def _number_of(letter: Letter) -> int:
    assert isinstance(letter.message, KafkaMessage)
    return int(letter.message.record.partition)


def _place(record: Any) -> str:
    return f"{record.partition}@{record.offset}"


def _settled(record: Any) -> str | None:
    """The place that a receipt is about; None for a letter."""
    for name, value in record.headers:
        if name == SETTLED:
            return (value or b"").decode(errors="replace")
    return None
