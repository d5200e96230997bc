"""Batches made ahead of the step that needs them, in threads of their own: the device need not wait for Python."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

import torch

_THREADS_ON_A_GPU, _AHEAD = 2, 4


class Movable(Protocol):
    """What can be prepared for, and copied to, a device."""

    def pinned(self) -> Self:
        """The same in memory that a GPU can copy from while the program goes on."""

    def to(self, device: torch.device) -> Self:
        """The same on the device."""


B = TypeVar("B", bound=Movable)


class Prefetcher(Generic[B]):
    """An iterator over the batches of these numbers, in their order, at most a few of them ahead.

    `make` is called in other threads, several at once: it must be a pure function of the number. What it raises is
    raised to the caller where its batch would have come. Leaving the `with` block ends the threads.
    """

    def __init__(self, make: Callable[[int], B], numbers: range, device: torch.device) -> None:
        self._make, self._numbers, self._device = make, iter(numbers), device
        self._on_a_gpu = device.type == "cuda"
        threads = _THREADS_ON_A_GPU if self._on_a_gpu else 1
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="batches", initializer=self._stay_on_the_device)
        self._coming: deque[Future[B]] = deque()

    def __enter__(self) -> Self:
        for _ in range(_AHEAD):
            self._begin_next()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._coming.clear()

    def __iter__(self) -> Iterator[B]:
        return self

    def __next__(self) -> B:
        if not self._coming:
            raise StopIteration
        batch = self._coming.popleft().result()
        self._begin_next()
        return batch.to(self._device)

    def _begin_next(self) -> None:
        number = next(self._numbers, None)
        if number is not None:
            self._coming.append(self._pool.submit(self._prepare, number))

    def _stay_on_the_device(self) -> None:
        """Of several GPUs a new thread would use, and fill with a context, the first."""
        if self._on_a_gpu and self._device.index is not None:
            torch.cuda.set_device(self._device)

    def _prepare(self, number: int) -> B:
        batch = self._make(number)
        return batch.pinned() if self._on_a_gpu else batch
