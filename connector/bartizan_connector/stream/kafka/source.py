"""KafkaSource: one topic, shared with the other workers of its group.

At least once: a batch is committed by hand once it is durable elsewhere, dead letters first. Where that comes later
than the write, it is noted before the write, beside the group's place, up to where records are given to the store:
whoever reads on from that place is told that those are doubtful. A partition that the group moves is settled before it
goes; one that was lost meanwhile is told by `owns`. A member that fails is made anew.
"""

import hashlib
import itertools
import time
from collections.abc import Callable, Mapping
from typing import Any, Self

from bartizan_connector.base.errors import Retry, WrongUse
from bartizan_connector.config.kafka import KafkaSettings
from bartizan_connector.stream.kafka.client import consumer, errors, leave, partitions_of, translated, translating
from bartizan_connector.stream.kafka.held import Read
from bartizan_connector.stream.kafka.letters import Letters
from bartizan_connector.stream.kafka.messages import Decoder, KafkaMessage, decoder, message_of
from bartizan_connector.stream.kafka.reader import Reader
from bartizan_connector.stream.source import Batch, Message

_COMMIT_SECONDS = 10.0
_REBALANCE_SECONDS = 0.05
_SILENT_SECONDS = 15.0
"""After so long without an answer, what was heard of the brokers counts no more."""


class KafkaSource:
    """`follow`: never ends; else it ends when the group has read what was there at the beginning, whichever member."""

    def __init__(self, settings: KafkaSettings, decode: Decoder, first: Any, *, follow: bool = True) -> None:
        self._settings = settings
        self._decode = decode
        self._consumer: Any = first
        """Connected, and not yet a member."""
        self._follow = follow
        self._letters = Letters(settings)
        self.batch_size = settings.batch_size
        self.restarts = 0
        """How often a member had to be made anew."""
        self._generations = itertools.count(1)
        self._reader: Reader | None = None
        self._settle: Callable[[str], None] | None = None
        self._sequence = _sequence_of(first, settings.topic)
        self._closed = False

    @classmethod
    def open(cls, settings: KafkaSettings, *, follow: bool = True) -> Self:
        """Connected; refused unless the topic is there. The group is joined with the first `poll`."""
        decode = decoder(settings.decoder)
        with translating("the first call", settings):
            member = consumer(settings)
        try:
            with translating(f"to describe topic {settings.topic}", settings):
                if not partitions_of(member, settings.topic, settings.connect_timeout):
                    raise WrongUse(
                        f"{settings.bootstrap} has no topic {settings.topic} that this worker may describe; make it, "
                        "correct [source] topic, or let the worker describe it"
                    )
            return cls(settings, decode, member, follow=follow)
        except BaseException:
            leave(member, 1.0)
            raise

    @property
    def ended(self) -> bool:
        """Whether a source that is not followed has caught up, as of now: what is lost in flight comes again."""
        if self._follow or self._reader is None:
            return False
        with self._reader.changed:
            return self._reader.failure is None and self._reader.caught_up

    @property
    def group(self) -> str:
        """The consumer group: its workers write into one collection at the same time, each what its partitions say."""
        return f"{self._settings.group} of {self._settings.topic} at {self._settings.bootstrap}"

    @property
    def dead_letters(self) -> str:
        """The topic of the dead letters."""
        return f"topic {self._settings.letters} at {self._settings.bootstrap}"

    def backlog(self) -> int | None:
        """Records that are still to be given; None before the group has given us a partition."""
        if self._reader is None or self._reader.failure is not None:
            return None
        try:
            return self._reader.backlog()
        except errors.KafkaError:
            return None

    @property
    def lags(self) -> Mapping[str, int] | None:
        """Of the partitions that are ours."""
        reader = self._reader
        if reader is None:
            return None
        with reader.changed:
            away = time.monotonic() - reader.heard > _SILENT_SECONDS
            if reader.failure is not None or not reader.joined or away:
                return None
            return {self._name(number): each.lag for number, each in reader.assigned.items()}

    def before_yielding(self, settle: Callable[[str], None]) -> None:
        """Let the pipeline finish with a partition before it goes."""
        self._settle = settle

    def poll(self, timeout: float) -> Batch | None:
        """Records of one partition; None when none came in time."""
        reader = self._running()
        deadline = time.monotonic() + timeout
        while True:
            self._settle_what_is_wanted(reader)
            with reader.changed:
                if reader.failure is not None:
                    break
                read = reader.take(self.batch_size)
                if read is not None:
                    return self._batch_of(read, reader.assigned[read.number].noted or 0)
                left = deadline - time.monotonic()
                if left <= 0 or self._closed:
                    return None
                if not reader.requests:
                    reader.changed.wait(min(left, 0.1))
        raise self._failed(reader)

    def hold(self, timeout: float) -> Mapping[int, int]:
        """Be a member without reading: settle what is wanted, wait so long, and give partition → the assignment under
        which it is ours. What the member has read meanwhile is not handed out."""
        reader = self._running()
        self._settle_what_is_wanted(reader)
        with reader.changed:
            if reader.failure is None:
                if timeout and not reader.requests:
                    reader.changed.wait(timeout)
                return {number: assigned.generation for number, assigned in reader.assigned.items()}
        raise self._failed(reader)

    def _failed(self, reader: Reader) -> BaseException:
        """What became of the member, which is let go; the next call makes another."""
        failure, self._reader = reader.failure, None
        self.restarts += 1
        reader.close()
        assert failure is not None
        if isinstance(failure, errors.KafkaError):
            error = translated(failure, f"reading topic {self._settings.topic}", self._settings)
            error.__cause__ = failure
            return error
        return failure

    def owns(self, batch: Batch) -> bool:
        """Whether the batch's partition is ours under the assignment that it was read under."""
        reader = self._reader
        if reader is None or self._closed:
            return False
        with reader.changed:
            return reader.is_ours(_number_in(batch.partition), batch.generation)

    def commit(self, batch: Batch) -> None:
        """Dead letters become durable, then the group's place moves behind the batch. A partition that is not ours any
        more keeps the place that its new owner goes by."""
        self._letters.settle()
        number, offset, epoch = _end_of(batch)
        self._put(number, lambda reader: reader.commit(number, offset, epoch, _COMMIT_SECONDS))

    def note(self, batch: Batch) -> None:
        """The group's place stays, and says up to where records are given to the store."""
        number, offset, _ = _end_of(batch)
        self._put(number, lambda reader: reader.note(number, offset, _COMMIT_SECONDS))

    def give_again(self, partition: str) -> None:
        """It is read anew from the group's place."""
        if self._reader is not None:
            self._reader.drop(_number_in(partition))

    def _put(self, number: int, call: Callable[[Reader], None]) -> None:
        """What the group is to remember of a partition, if that is ours."""
        reader = self._reader
        if reader is None:
            return
        deadline = time.monotonic() + _COMMIT_SECONDS
        while True:
            try:
                with translating(f"a commit of topic {self._settings.topic}", self._settings):
                    return call(reader)
            except Retry as error:
                if isinstance(error.__cause__, errors.CommitFailedError):
                    return reader.drop(number)
                if not isinstance(error.__cause__, errors.RebalanceInProgressError) or time.monotonic() > deadline:
                    raise
                time.sleep(_REBALANCE_SECONDS)  # the reader goes on with it meanwhile

    def dead_letter(self, message: Message, reason: str) -> None:
        """Hand it over; durable with the batch's commit."""
        assert isinstance(message, KafkaMessage)
        self._letters.add(message, reason)

    def close(self) -> None:
        """Leave the group at once; what was not committed comes again, here or elsewhere."""
        self._closed = True
        reader, self._reader = self._reader, None
        first, self._consumer = self._consumer, None
        if reader is not None:
            reader.close()
        if first is not None:
            leave(first, 1.0)
        self._letters.close()

    def _running(self) -> Reader:
        """The member that reads; made anew where the former one failed."""
        if self._closed:
            raise WrongUse("the source is closed")
        if self._reader is None:
            with translating("joining again", self._settings):
                member = self._consumer or consumer(self._settings)
            self._consumer = None
            self._sequence = _sequence_of(member, self._settings.topic)
            self._reader = Reader(
                member,
                self._settings.topic,
                self._generations,
                yields=self._settle is not None,
                session=None if self._follow else self._settings.session_timeout,
            )
            self._reader.start()
        return self._reader

    def _settle_what_is_wanted(self, reader: Reader) -> None:
        """Finish with partitions that the group waits for."""
        while True:
            with reader.changed:
                if not reader.requests:
                    return
                request = reader.requests[0]
            try:
                for number in request.numbers:
                    if self._settle is not None and not request.done:
                        self._settle(self._name(number))
            finally:
                reader.settled(request)

    def _batch_of(self, read: Read, noted: int) -> Batch:
        origin = f"kafka:{self._sequence[0]}/{read.number}#{self._sequence[1]}"
        messages = [
            message_of(
                record,
                origin=origin,
                decode=self._decode,
                version_header=self._settings.version_header,
                doubtful=record.offset < noted,
            )
            for record in read.records
        ]
        return Batch(messages=tuple(messages), partition=self._name(read.number), generation=read.generation)

    def _name(self, number: int) -> str:
        return f"{self._settings.topic}[{number}]"


def _number_in(partition: str) -> int:
    return int(partition.rpartition("[")[2].removesuffix("]"))


def _end_of(batch: Batch) -> tuple[int, int, int]:
    """Its partition, the offset behind it, and the epoch of the leader that wrote its last record."""
    last = batch.messages[-1]
    assert isinstance(last, KafkaMessage)
    epoch = last.record.leader_epoch
    return last.record.partition, last.record.offset + 1, -1 if epoch is None else epoch


def _sequence_of(member: Any, topic: str) -> tuple[str, str]:
    """The topic of this cluster, and its present life: a topic that was deleted and made again has another id."""
    cluster = member._cluster
    facts = f"{cluster.cluster_id}/{topic}".encode()
    return hashlib.sha256(facts).hexdigest()[:16], str(cluster.topic_id(topic) or "")
