"""Bringing one collection up to another: pass after pass over what is stored, and a topic in between.

A pass looks at every head of the collection that is followed and encodes what the follower lacks. So it needs no place
of its own to go on from: after a kill the next pass finds what is there, and encodes none of it again. Changes that the
running worker makes meanwhile are found by the next pass. Where documents come from a topic, the follower reads it as
well, under a group of its own and from its beginning: then what is new is there within moments, and passes find little.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from threading import Event

from bartizan_connector.base.errors import Retry
from bartizan_connector.encode.encoder import Encoder
from bartizan_connector.store.backend import Store
from bartizan_connector.store.collection import Head
from bartizan_connector.stream.chunks import Cutter
from bartizan_connector.stream.pace import Pace
from bartizan_connector.stream.patience import Patience
from bartizan_connector.stream.reembed.stored import StoredSource
from bartizan_connector.stream.report import Report
from bartizan_connector.stream.source import Sized, Source
from bartizan_connector.stream.words import Words
from bartizan_connector.stream.work import fill

log = logging.getLogger(__name__)

_PASSES = 50
"""Of a run that ends: under steady writes each pass is shorter than the one before, and there is always something."""
_AWAY_SECONDS = 5.0
"""Until a topic that failed is opened anew."""
_SHARE = 9
"""Between two looks a follower waits so many times as long as a look takes that finds nothing."""


@dataclass(slots=True, kw_only=True)
class Follower:
    """What fills the collection that follows, and what became of it so far."""

    source: Store
    """The one that is followed."""
    target: Store
    encoders: Mapping[str, Encoder]
    """Leg → the document tower of the one that follows."""
    cutter: Cutter | None = None
    """How that one cuts long documents into chunks."""
    words: Words | None = None
    patience: Patience | None = None
    stop: Event = field(default_factory=Event)
    on_batch: Callable[[Report], None] | None = None
    report: Report = field(default_factory=Report)
    refused: dict[str, Head] = field(default_factory=dict)
    """What the new towers, or the back-end, do not take: at which head."""
    reasons: dict[str, str] = field(default_factory=dict)
    _looking: float = 0.0
    """Seconds that the last pass took that found nothing."""

    def catch_up(self) -> int:
        """Passes until one finds nothing; the number of changes."""
        changes = 0
        for _ in range(_PASSES):
            began = time.monotonic()
            source = StoredSource(self.source, self.target, self.refused)
            self._fill(source, self.stop)
            self.reasons |= source.reasons
            changes += source.given
            if not source.given or self.stop.is_set():
                self._looking = time.monotonic() - began
                break
        return changes

    def read(self, topic: Source) -> None:
        """What the topic says by now; it ends by itself."""
        self._fill(topic, self.stop)

    def follow(self, open_topic: Callable[[], Source] | None, *, every: float) -> None:
        """Until told to stop: passes, at least `every` seconds apart, and the topic in between."""
        if open_topic is None:
            while not self.stop.is_set():
                self.stop.wait(self._timed_pass(every))
            return
        first: Source | None = open_topic()  # what is away at the start is told at once
        while not self.stop.is_set():
            with self._forgiving(), closing(first or open_topic()) as topic:
                first = None
                pace = Pace(topic.batch_size) if isinstance(topic, Sized) else None
                while not self.stop.is_set():
                    self._fill(topic, _Until(self.stop, time.monotonic() + self._timed_pass(every)), pace)
            self.stop.wait(_AWAY_SECONDS)  # then it is opened anew, from what was committed

    def _timed_pass(self, every: float) -> float:
        """Catch up, and say for how long to do something else: a share of what it takes to look and find nothing."""
        with self._forgiving():
            self.catch_up()
        return max(every, _SHARE * self._looking)

    @contextmanager
    def _forgiving(self) -> Iterator[None]:
        """Somebody else writes, or something is away: who follows has all the time."""
        try:
            yield
        except Retry as error:
            log.warning("%s", error)

    def _fill(self, source: Source, stop: Event, pace: Pace | None = None) -> None:
        self.report += fill(
            self.target,
            source,
            self.encoders,
            words=self.words,
            cutter=self.cutter,
            patience=self.patience,
            on_batch=self.on_batch,
            pace=pace,
            stop=stop,
        )


class _Until(Event):
    """Set when the other is, or when it is late enough."""

    def __init__(self, other: Event, deadline: float) -> None:
        super().__init__()
        self._other, self._deadline = other, deadline

    def is_set(self) -> bool:
        return self._other.is_set() or time.monotonic() >= self._deadline
