"""A partition that the group wants is given up in time, also where the store it is written to does not answer."""

import asyncio
import itertools
import threading
import time
from types import SimpleNamespace

import pytest

from bartizan_connector.stream.kafka import reader as readers
from bartizan_connector.stream.kafka.reader import Reader

SOON = 10.0


def _reader() -> Reader:
    member = SimpleNamespace(_net=SimpleNamespace(sleep=asyncio.sleep))
    reader = Reader(member, "docs", itertools.count(), yields=True)
    reader.gain([0, 1])
    return reader


def test_what_is_not_settled_in_time_is_given_up_and_nobody_settles_it_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "_YIELD_SECONDS", 0.1)
    reader = _reader()
    asyncio.run(asyncio.wait_for(reader.yield_up([0]), SOON))
    assert set(reader.assigned) == {1}
    assert not reader.requests


def test_the_time_for_it_ends_before_the_group_puts_a_member_out() -> None:
    assert 0 < readers._YIELD_SECONDS < readers.GROUP_SECONDS


def test_what_is_settled_in_time_is_ours_until_then() -> None:
    reader = _reader()
    waiting = threading.Thread(target=lambda: asyncio.run(reader.yield_up([0])))
    waiting.start()
    deadline = time.monotonic() + SOON
    while not reader.requests and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    assert set(reader.assigned) == {0, 1}
    reader.settled(reader.requests[0])
    waiting.join(SOON)
    assert set(reader.assigned) == {1}
