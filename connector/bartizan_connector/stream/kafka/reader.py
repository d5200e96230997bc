"""The member of the group: a thread that polls without a pause, whatever the pipeline does meanwhile.

It keeps a few batches ahead; when there are enough of one partition, it pauses all and goes on polling. What is ready
of a partition is handed out together, as far as it fits into one batch, however many polls brought it. When a partition
is to be given up, the group waits in `on_partitions_revoked` until whoever reads the batches has settled it
(`request`), while heartbeats go on. It does not wait for ever: where the store is away, the partition goes as it is,
and what was read of it is not ours any more.
"""

import logging
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from threading import Condition, Thread
from typing import Any

from bartizan_connector.stream.kafka.client import GROUP_SECONDS, errors, kafka, leave, partitions_of
from bartizan_connector.stream.kafka.held import MOST_BYTES, Assigned, Read, Request, fitting, metadata_of, noted_in

log = logging.getLogger(__name__)
_POLL_MS = 100
_AHEAD = 2
"""Batches of a partition that are kept ready."""
_LOOK_SECONDS = 0.02
_YIELD_SECONDS = GROUP_SECONDS / 2
"""How long a partition that is to be given up may take to settle."""
_LAG_SECONDS = 2.0
"""Between two looks at where the partitions end."""
_OTHERS_SECONDS = 1.0
"""Between two looks at what the other members have committed."""
_DEAD_SECONDS = 3.0
"""So long beyond the session's time-out a group that did not change has no dead member any more."""
_ANSWER_MS = 5_000
_END_SECONDS = 15.0
"""How long an end waits for the thread that polls."""


class Reader:
    """Owns the consumer; made anew after a failure. `generations` numbers assignments across readers."""

    def __init__(
        self, consumer: Any, topic: str, generations: Iterator[int], *, yields: bool, session: float | None = None
    ) -> None:
        """`session`: after so long a silent member counts as dead, where it matters when the group has caught up."""
        self._consumer = consumer
        self._topic = topic
        self._generations = generations
        self.changed = Condition()
        """Guards what follows, and is notified when some of it changes."""
        self.assigned: dict[int, Assigned] = {}
        self.ready: deque[Read] = deque()
        """At most one of each assignment."""
        self._most = 1
        """Records of a batch, as last asked for."""
        self.requests: deque[Request] = deque()
        self.failure: Exception | None = None
        self.joined = False
        """Whether the group has given us what we get, if anything."""
        self._yields = yields
        self._session = session
        self._stable_since: float | None = None
        """Since when the group, and what is ours of it, has not changed, and all of ours is handed out."""
        self._others_behind = True
        """Whether partitions that are not ours held records at the beginning that nobody has committed yet."""
        self._first_ends: dict[int, int] | None = None
        self._looked_at_others = 0.0
        self._closing = False
        self._looked = 0.0
        self.heard = 0.0
        """When the brokers last said where the partitions end."""
        self._thread = Thread(target=self._run, name="bartizan-kafka", daemon=True)

    def start(self) -> None:
        """Join the group and read."""
        self._consumer.subscribe([self._topic], listener=_Listener(self))
        self._thread.start()

    def close(self) -> None:
        """Leave the group, and give up what is ours without settling it."""
        with self.changed:
            self._closing = True
            self.changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(_END_SECONDS)
            if self._thread.is_alive():
                log.warning("the thread that reads topic %s does not end; it is left", self._topic)
        leave(self._consumer, 2.0)

    def commit(self, number: int, offset: int, leader_epoch: int, timeout: float) -> None:
        """Move the group's place in a partition; may be called from another thread."""
        with self.changed:
            assigned = self.assigned.get(number)
        if assigned is None:
            return
        self._put(number, offset, metadata_of(offset, assigned.noted or 0), leader_epoch, timeout)
        with self.changed:
            assigned.done, assigned.epoch = offset, leader_epoch

    def note(self, number: int, offset: int, timeout: float) -> None:
        """Leave the group's place where it is, and say beside it up to where records are given to the store; may be
        called from another thread."""
        with self.changed:
            assigned = self.assigned.get(number)
            if assigned is None or assigned.done is None:
                return
            noted = max(offset, assigned.noted or 0)
            done, epoch = assigned.done, assigned.epoch
        if noted > (assigned.noted or 0):
            self._put(number, done, metadata_of(done, noted), epoch, timeout)
            with self.changed:
                assigned.noted = noted

    def _put(self, number: int, offset: int, metadata: str, leader_epoch: int, timeout: float) -> None:
        place = kafka.structs.OffsetAndMetadata(offset, metadata, leader_epoch)
        self._consumer.commit({kafka.TopicPartition(self._topic, number): place}, timeout_ms=int(timeout * 1000))

    def backlog(self) -> int | None:
        """Records between our places and the ends, those that are ready included; None before anything is ours."""
        with self.changed:
            numbers, ready = list(self.assigned), sum(len(read.records) for read in self.ready)
        if not numbers:
            return None
        places = [kafka.TopicPartition(self._topic, number) for number in numbers]
        ends = self._consumer.end_offsets(places)
        behind = [ends[place] - (self._consumer.position(place, timeout_ms=1000) or 0) for place in places]
        return ready + sum(max(0, int(each)) for each in behind)

    def take(self, most: int) -> Read | None:
        """The next records of a partition that is still ours, at most so many (and so many bytes); to be called with
        `changed` held."""
        self._most = most
        for _ in range(len(self.ready)):
            read = self.ready.popleft()
            if self.is_ours(read.number, read.generation) and self.assigned[read.number].noted is None:
                self.ready.append(read)
                continue
            count = fitting(read.records, most)
            if count < len(read.records):  # the other partitions come first
                self.ready.append(replace(read, records=read.records[count:]))
                read = replace(read, records=read.records[:count])
            self.changed.notify_all()
            if self.is_ours(read.number, read.generation):
                return read
        return None

    def is_ours(self, number: int, generation: int) -> bool:
        """Whether the partition is ours under that very assignment."""
        assigned = self.assigned.get(number)
        return assigned is not None and assigned.generation == generation and not self._closing

    def drop(self, number: int) -> None:
        """The brokers say that the partition is not ours any more."""
        self.lose([number])

    @property
    def caught_up(self) -> bool:
        """Whether all that was there when it became ours was handed out, and what was there of the other partitions is
        committed by their owners. Whose owner died comes to a live one first. To be called with `changed` held."""
        if self.ready or self.requests or not self.joined or not all(each.reached for each in self.assigned.values()):
            return False
        since = self._stable_since
        if since is None or not self._others_behind:
            return since is not None
        return time.monotonic() - since > (self._session or 0.0) + _DEAD_SECONDS

    def _run(self) -> None:
        try:
            while not self._closing:
                self._go_on_joining()
                self._regain()
                self._look_at_notes()
                self._pace()
                self._take_in(self._polled())
                self._look_at_ends()
                self._look_at_lag()
                with suppress(errors.KafkaTimeoutError):
                    self._look_at_others()
        except Exception as error:  # noqa: BLE001  told by whoever reads the batches
            with self.changed:
                self.failure = error
                self.assigned.clear()
                self.changed.notify_all()

    def _polled(self) -> dict[Any, list[Any]]:
        try:
            records: dict[Any, list[Any]] = self._consumer.poll(_POLL_MS)
        except errors.NoOffsetForPartitionError as error:  # a group that was never here begins at the beginning
            self._consumer.seek_to_beginning(*error.args[0])
            return {}
        return records

    def _go_on_joining(self) -> None:
        """A leader that rejoins since the topic's description changed forgets, when a poll ends halfway, that it does
        (kafka-python 3.0.12): commits would be refused for ever."""
        coordinator = self._consumer._coordinator
        halfway = self._consumer.group_metadata().state == kafka.structs.MemberState.REBALANCING
        if halfway and not coordinator.need_rejoin():
            coordinator.request_rejoin()

    def _regain(self) -> None:
        """A partition that was dropped, and that the group has left with us after all, is read again from its place."""
        with self.changed:
            dropped = [place for place in self._consumer.assignment() if place.partition not in self.assigned]
        for place in dropped:
            committed = self._consumer.committed(place, timeout_ms=_ANSWER_MS)
            if committed is None:
                self._consumer.seek_to_beginning(place)
            else:
                self._consumer.seek(place, committed)
        self.gain([place.partition for place in dropped])

    def _look_at_notes(self) -> None:
        """Up to where records of what is newly ours were given to a store already, by us or by a former owner."""
        with self.changed:
            unknown = {number: each for number, each in self.assigned.items() if each.noted is None}
        with suppress(errors.KafkaTimeoutError):
            for number, assigned in unknown.items():
                place = kafka.TopicPartition(self._topic, number)
                found = self._consumer.committed(place, metadata=True, timeout_ms=_ANSWER_MS)
                with self.changed:
                    assigned.noted = noted_in(found.metadata or "") if found is not None else 0
                    assigned.epoch = found.leader_epoch if found is not None else -1
                    self.changed.notify_all()

    def _pace(self) -> None:
        """Enough is ready: partitions rest, and polling goes on. All of them or none: what kafka-python 3.0.12 has
        fetched of one that rests while others do not, it may never give."""
        ours = self._consumer.assignment()
        with self.changed:
            longest = max((len(read.records) for read in self.ready), default=0)
            held = sum(len(record.value or b"") for read in self.ready for record in read.records)
        if longest >= _AHEAD * self._most or held >= _AHEAD * MOST_BYTES:
            self._consumer.pause(*(ours - self._consumer.paused()))
        else:
            self._consumer.resume(*self._consumer.paused())

    def _take_in(self, came: dict[Any, list[Any]]) -> None:
        with self.changed:
            for place, records in came.items():
                assigned = self.assigned.get(place.partition)
                if assigned is not None and records:
                    if assigned.done is None:
                        assigned.done = records[0].offset
                    self._add(Read(number=place.partition, generation=assigned.generation, records=records))
            stable = self._consumer.group_metadata().state == kafka.structs.MemberState.STABLE
            self.joined = self.joined or stable
            if not stable or self.ready or not all(each.reached for each in self.assigned.values()):
                self._stable_since = None
            elif self._stable_since is None:
                self._stable_since = time.monotonic()
            self.changed.notify_all()

    def _add(self, read: Read) -> None:
        """To what is ready of the same assignment already, if anything is."""
        for ready in self.ready:
            if (ready.number, ready.generation) == (read.number, read.generation):
                ready.records.extend(read.records)
                return
        self.ready.append(read)

    def _look_at_ends(self) -> None:
        """Which partitions were read up to where they ended."""
        with self.changed:
            unknown = [number for number, each in self.assigned.items() if each.end is None]
            open_ends = {number: each.end for number, each in self.assigned.items() if not each.reached}
        if unknown:
            places = [kafka.TopicPartition(self._topic, number) for number in unknown]
            ends: dict[Any, int] = {}
            with suppress(errors.KafkaTimeoutError):
                ends = self._consumer.end_offsets(places, timeout_ms=_ANSWER_MS)
            with self.changed:
                for place, last in ends.items():
                    if place.partition in self.assigned:
                        self.assigned[place.partition].end = last
        for number, end in open_ends.items():
            place = kafka.TopicPartition(self._topic, number)
            if end is None or place not in self._consumer.assignment():
                continue
            position = 0 if end == 0 else self._consumer.position(place, timeout_ms=_POLL_MS)
            with self.changed:
                if number in self.assigned and position is not None and position >= end:
                    self.assigned[number].reached = True
                    self.changed.notify_all()

    def _look_at_others(self) -> None:
        """Whether the group has committed what was there at the beginning of partitions that are not ours."""
        now = time.monotonic()
        if self._session is None or not self.joined or now - self._looked_at_others < _OTHERS_SECONDS:
            return
        self._looked_at_others = now
        numbers = partitions_of(self._consumer, self._topic, _ANSWER_MS / 1000)
        with self.changed:
            others = numbers - set(self.assigned)
        if self._first_ends is None and others:
            places = [kafka.TopicPartition(self._topic, number) for number in sorted(numbers)]
            ends = self._consumer.end_offsets(places, timeout_ms=_ANSWER_MS)
            self._first_ends = {place.partition: end for place, end in ends.items()}
        ends_of_others = {number: (self._first_ends or {}).get(number, 0) for number in others}
        behind = any(end and (self._committed(number) or 0) < end for number, end in ends_of_others.items())
        with self.changed:
            if others == numbers - set(self.assigned):
                self._others_behind = behind
                self.changed.notify_all()

    def _committed(self, number: int) -> int | None:
        place = kafka.TopicPartition(self._topic, number)
        committed: int | None = self._consumer.committed(place, timeout_ms=_ANSWER_MS)
        return committed

    def _look_at_lag(self) -> None:
        """How far behind we are. Where the brokers do not answer, what was known stays."""
        now = time.monotonic()
        if now - self._looked < _LAG_SECONDS:
            return
        self._looked = now
        ours = list(self._consumer.assignment())
        with suppress(errors.KafkaError):
            ends = self._consumer.end_offsets(ours, timeout_ms=_POLL_MS * 5) if ours else {}
            self.heard = time.monotonic()
            with self.changed:
                begun = {read.number: read.records[0].offset for read in reversed(self.ready)}
            for place, end in ends.items():
                position = self._consumer.position(place, timeout_ms=_POLL_MS)
                with self.changed:
                    assigned = self.assigned.get(place.partition)
                    if assigned is not None:
                        assigned.newest = end
                        if assigned.done is None:
                            assigned.done = begun.get(place.partition, position)

    async def yield_up(self, numbers: list[int]) -> None:
        """The group wants these partitions: wait until they are settled, or for as long as a group may wait; then they
        are not ours."""
        request = Request(numbers=numbers)
        with self.changed:
            if self._yields:
                self.requests.append(request)
            self.changed.notify_all()
        deadline = time.monotonic() + _YIELD_SECONDS
        while self._yields and not (request.done or self._closing):
            if time.monotonic() > deadline:
                log.warning(
                    "partitions %s of %s were not settled in %g s and are given up undone; their next owner does it",
                    sorted(numbers), self._topic, _YIELD_SECONDS,
                )  # fmt: skip
                break
            await self._consumer._net.sleep(_LOOK_SECONDS)
        self.lose(numbers)
        self.settled(request)

    def settled(self, request: Request) -> None:
        """Nobody waits for these partitions any more."""
        with self.changed:
            request.done = True
            if request in self.requests:
                self.requests.remove(request)

    def lose(self, numbers: list[int]) -> None:
        """These partitions are not ours."""
        with self.changed:
            for number in numbers:
                self.assigned.pop(number, None)
            self._stable_since, self._others_behind, self._looked_at_others = None, True, 0.0
            self.changed.notify_all()

    def gain(self, numbers: list[int]) -> None:
        """These partitions are ours."""
        with self.changed:
            for number in numbers:
                self.assigned[number] = Assigned(generation=next(self._generations))
            if numbers:
                self._stable_since, self._others_behind, self._looked_at_others = None, True, 0.0
            self.changed.notify_all()


class _Listener(kafka.AsyncConsumerRebalanceListener):  # type: ignore[misc]  # the library has no types
    """What the group tells; called in the library's own thread, while `poll` waits."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def on_partitions_revoked(self, revoked: Any) -> None:
        if revoked:
            await self._reader.yield_up([place.partition for place in revoked])

    async def on_partitions_assigned(self, assigned: Any) -> None:
        self._reader.gain([place.partition for place in assigned])

    async def on_partitions_lost(self, lost: Any) -> None:
        log.warning("the group gave partitions %s to others", sorted(place.partition for place in lost))
        self._reader.lose([place.partition for place in lost])
