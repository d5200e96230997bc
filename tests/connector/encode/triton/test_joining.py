"""Joined texts: each gets its own vector, nobody waits for company, and who leaves takes nothing from the others."""

import asyncio
import time
from collections.abc import Sequence

import numpy as np
import pytest

from bartizan_connector.base.errors import Retry, Stop
from bartizan_connector.encode.engine import Identity, Ran
from bartizan_connector.encode.triton.joining import Joiner
from bartizan_connector.space.tokens import Tokenized

TOWER = Identity("tw-1", "tw-1")
FAR = time.monotonic() + 1000


class Engine:
    """Gives each text its first id; may be held back."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.going = asyncio.Event()
        self.going.set()
        self.cancelled = 0
        self.error: Exception | None = None

    async def run(self, texts: Sequence[Tokenized], deadline: float) -> Ran:
        self.batches.append([text.ids[0] for text in texts])
        try:
            await self.going.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error:
            raise self.error
        return Ran(np.array([[text.ids[0]] for text in texts], dtype=np.float32), TOWER)


def text(number: int) -> Tokenized:
    return Tokenized([number], 1)


async def asked(joiner: Joiner, number: int, deadline: float = FAR) -> float:
    value, tower = await joiner.row(text(number), deadline)
    assert tower == TOWER
    assert isinstance(value, np.ndarray)
    return float(value[0])


async def test_what_comes_while_calls_are_under_way_goes_with_the_next() -> None:
    engine = Engine()
    engine.going.clear()
    joiner = Joiner(engine.run, calls=2)
    tasks = [asyncio.create_task(asked(joiner, number)) for number in range(50)]
    await asyncio.sleep(0.01)
    assert engine.batches == [[0], [1]]  # nobody waits while there is room
    engine.going.set()
    assert await asyncio.gather(*tasks) == [float(number) for number in range(50)]
    assert engine.batches == [[0], [1], list(range(2, 34)), list(range(34, 50))]


async def test_who_is_cancelled_or_too_late_takes_nothing_from_the_others() -> None:
    engine = Engine()
    engine.going.clear()
    joiner = Joiner(engine.run, calls=1)
    first = asyncio.create_task(asked(joiner, 0))
    await asyncio.sleep(0)
    leaving, late, staying = (
        asyncio.create_task(asked(joiner, 1)),
        asyncio.create_task(asked(joiner, 2, time.monotonic() + 0.02)),
        asyncio.create_task(asked(joiner, 3)),
    )
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(Retry, match="longer than its timeout"):
        await late
    engine.going.set()
    assert (await first, await staying) == (0.0, 3.0)
    assert engine.batches == [[0], [3]]
    assert leaving.cancelled()


async def test_a_call_that_nobody_waits_for_any_more_is_cancelled() -> None:
    engine = Engine()
    engine.going.clear()
    joiner = Joiner(engine.run, calls=1)
    tasks = [asyncio.create_task(asked(joiner, number)) for number in range(3)]
    await asyncio.sleep(0.01)
    tasks[0].cancel()
    await asyncio.sleep(0.01)
    assert engine.cancelled == 1
    assert engine.batches == [[0], [1, 2]]
    tasks[1].cancel()
    await asyncio.sleep(0.01)
    assert engine.cancelled == 1  # one still waits
    engine.going.set()
    assert await tasks[2] == 2.0


async def test_an_error_reaches_everybody_and_the_next_call_works() -> None:
    engine = Engine()
    engine.error = Stop("broken")
    joiner = Joiner(engine.run, calls=1)
    tasks = [asyncio.create_task(asked(joiner, number)) for number in range(5)]
    for task in tasks:
        with pytest.raises(Stop, match="broken"):
            await task
    engine.error = None
    assert await asked(joiner, 7) == 7.0


def test_tasks_of_several_event_loops_are_kept_apart() -> None:
    async def ask() -> float:
        engine = Engine()
        engines.append(engine)
        return await asked(joiner, 5)

    engines: list[Engine] = []

    async def run(texts: Sequence[Tokenized], deadline: float) -> Ran:
        return await engines[-1].run(texts, deadline)

    joiner = Joiner(run, calls=1)
    assert [asyncio.run(ask()) for _ in range(3)] == [5.0, 5.0, 5.0]
