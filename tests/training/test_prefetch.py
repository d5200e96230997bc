"""Batches that are made ahead: in order, never too many, errors where they belong, and no thread left behind."""

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from bartizan_training.prefetch import Prefetcher

CPU = torch.device("cpu")


class Numbered:
    """A batch that knows its number and which thread made it."""

    def __init__(self, number: int) -> None:
        self.number, self.thread = number, threading.current_thread()

    def pinned(self) -> "Numbered":
        return self

    def to(self, device: torch.device) -> "Numbered":
        assert device == CPU
        return self


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert not {thread for thread in set(threading.enumerate()) - before if thread.name.startswith("batches")}


def test_batches_come_in_order_and_all_of_them() -> None:
    with Prefetcher(Numbered, range(7, 30), CPU) as batches:
        assert [batch.number for batch in batches] == list(range(7, 30))


def test_batches_are_made_in_another_thread() -> None:
    with Prefetcher(Numbered, range(3), CPU) as batches:
        assert all(batch.thread is not threading.current_thread() for batch in batches)


def test_a_batch_is_made_while_the_one_before_is_used() -> None:
    made = threading.Event()

    def make(number: int) -> Numbered:
        if number == 1:
            made.set()
        return Numbered(number)

    with Prefetcher(make, range(5), CPU) as batches:
        assert next(batches).number == 0
        assert made.wait(timeout=10)


def test_only_a_few_are_made_ahead() -> None:
    made: list[int] = []

    def make(number: int) -> Numbered:
        made.append(number)
        return Numbered(number)

    with Prefetcher(make, range(1000), CPU) as batches:
        for _ in range(3):
            next(batches)
        time.sleep(0.1)
        assert 3 <= len(made) <= 10


def test_an_error_comes_where_its_batch_would_have() -> None:
    def make(number: int) -> Numbered:
        if number == 2:
            raise ValueError("the third is broken")
        return Numbered(number)

    with Prefetcher(make, range(9), CPU) as batches:
        assert [next(batches).number for _ in range(2)] == [0, 1]
        with pytest.raises(ValueError, match="the third is broken"):
            next(batches)


@pytest.mark.parametrize("reason", [KeyboardInterrupt, RuntimeError])
def test_leaving_early_ends_the_threads(reason: type[BaseException]) -> None:
    def leave() -> None:
        with Prefetcher(Numbered, range(1000), CPU) as batches:
            next(batches)
            raise reason

    with pytest.raises(reason):
        leave()


def test_no_numbers_are_no_batches() -> None:
    with Prefetcher(Numbered, range(0), CPU) as batches:
        assert list(batches) == []
