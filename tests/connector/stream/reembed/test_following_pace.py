"""A follower reads its topic again and again; the size of its batches goes down and up as of one reading, and brokers
that are away end nothing."""

from collections.abc import Sequence
from threading import Event
from typing import Any

import pytest

from bartizan_connector.base.errors import Retry
from bartizan_connector.stream.pace import Pace
from bartizan_connector.stream.reembed import copying
from bartizan_connector.stream.report import Report
from tests.connector.stream.streams import ListSource


def test_a_topic_that_is_read_again_and_again_keeps_its_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    stop, sizes, paces = Event(), list[int](), list[Pace]()

    def fill(target: Any, source: Any, encoders: Any, *, pace: Pace | None, **more: Any) -> Report:
        if isinstance(source, ListSource):
            assert pace is not None
            paces.append(pace)
            seconds: Sequence[float] = (30.0, 0.1, 0.1)
            source.batch_size = pace.took(source.batch_size, seconds[len(sizes)])
            sizes.append(source.batch_size)
            if len(sizes) == len(seconds):
                stop.set()
        return Report()

    monkeypatch.setattr(copying, "fill", fill)
    monkeypatch.setattr(copying.Follower, "catch_up", lambda self: 0)
    nothing: Any = None
    follower = copying.Follower(source=nothing, target=nothing, encoders={}, stop=stop)
    topic = ListSource([], batch_size=64)
    topic.close = lambda: None  # type: ignore[method-assign]
    follower.follow(lambda: topic, every=0.0)
    assert sizes == [32, 64, 64]
    assert len({id(pace) for pace in paces}) == 1


def test_brokers_that_are_away_are_told_at_the_start_and_waited_for_later(monkeypatch: pytest.MonkeyPatch) -> None:
    stop, events = Event(), list[str]()

    def fill(target: Any, source: Any, encoders: Any, **more: Any) -> Report:
        events.append("read")
        if events.count("read") == 1:
            raise Retry("away")
        stop.set()
        return Report()

    def open_topic() -> ListSource:
        events.append("open")
        if events.count("open") in (1, 3):
            raise Retry("no broker answered")
        topic = ListSource([])
        topic.close = lambda: events.append("close")  # type: ignore[method-assign]
        return topic

    monkeypatch.setattr(copying, "_AWAY_SECONDS", 0.0)
    monkeypatch.setattr(copying, "fill", fill)
    monkeypatch.setattr(copying.Follower, "catch_up", lambda self: 0)
    nothing: Any = None
    follower = copying.Follower(source=nothing, target=nothing, encoders={}, stop=stop)
    with pytest.raises(Retry, match="no broker answered"):
        follower.follow(open_topic, every=0.0)
    follower.follow(open_topic, every=0.0)
    assert events == ["open", "open", "read", "close", "open", "open", "read", "close"]
