"""How long one query takes: several engines are timed in turns, so that other work on the machine hits all alike."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from bartizan_connector.base.progress import progress
from bartizan_connector.encode.encoder import Encoder

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Times:
    """Milliseconds for one item, of every timed one: on the clock, and of the thread's own work."""

    wall: list[float]
    cpu: list[float]


def take_turns(
    engines: Mapping[str, Callable[[T], Any]], blocks: Iterable[Sequence[T]], *, warm_up: int
) -> dict[str, Times]:
    """Time single items: every engine is given each block, one item after the other, in another order each time; the
    first `warm_up` items of a block are not counted."""
    times = {name: Times([], []) for name in engines}
    names = list(engines)
    for turn, block in enumerate(blocks):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            for number, item in enumerate(block):
                wall, cpu = time.perf_counter(), time.thread_time()
                engines[name](item)
                if number >= warm_up:
                    times[name].wall.append((time.perf_counter() - wall) * 1000)
                    times[name].cpu.append((time.thread_time() - cpu) * 1000)
    return times


def with_progress(blocks: Sequence[Sequence[T]]) -> Iterator[Sequence[T]]:
    """The blocks, with a bar that moves when one has been timed."""
    with progress("timing single queries", len(blocks)) as tick:
        for block in blocks:
            yield block
            tick()


def one_query(encoder: Encoder) -> Callable[[str], Any]:
    """The encoder as an engine that is given one query at a time."""
    return lambda text: encoder.encode([text], "query")
