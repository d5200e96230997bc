"""Joining: single texts of concurrent tasks share a request, so that a call's own cost is paid once for many.

Nobody waits for company: while fewer calls are under way than the pace allows, a text goes out at once. What comes
meanwhile goes with the next call that becomes free.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from weakref import WeakKeyDictionary

from bartizan_connector.base.deadline import TOO_LATE
from bartizan_connector.base.errors import Retry
from bartizan_connector.encode.engine import Identity, Ran
from bartizan_connector.space.tokens import Tokenized
from bartizan_connector.space.vectors import Floats, SparseVector

Row = tuple[Floats | SparseVector, Identity]
Run = Callable[[Sequence[Tokenized], float], Awaitable[Ran]]
_MOST = 32
"""Texts in one request: beyond that, its own cost is small beside the texts'."""


@dataclass(slots=True, eq=False)
class _Waiting:
    text: Tokenized
    deadline: float
    row: asyncio.Future[Row]


@dataclass(slots=True, eq=False)
class _Lane:
    """The calls of one event loop."""

    waiting: deque[_Waiting] = field(default_factory=deque)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)


class Joiner:
    """May be used from several event loops; only tasks of one are joined."""

    def __init__(self, run: Run, *, calls: int) -> None:
        self._run, self._calls = run, calls
        self._lanes: WeakKeyDictionary[asyncio.AbstractEventLoop, _Lane] = WeakKeyDictionary()

    async def row(self, text: Tokenized, deadline: float) -> Row:
        """The vector of one text, and the tower that gave it. `deadline` is a reading of `time.monotonic()`."""
        loop = asyncio.get_running_loop()
        lane = self._lanes.setdefault(loop, _Lane())
        mine = _Waiting(text, deadline, loop.create_future())
        lane.waiting.append(mine)
        self._fill(lane)
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                return await mine.row
        except TimeoutError as error:
            raise Retry(TOO_LATE) from error

    def _fill(self, lane: _Lane) -> None:
        """Start calls while there is something to send and room for one more."""
        while lane.waiting and len(lane.tasks) < self._calls:
            group: list[_Waiting] = []
            while lane.waiting and len(group) < _MOST:
                one = lane.waiting.popleft()
                if not one.row.done():  # its task was cancelled, or was too late
                    group.append(one)
            if not group:
                return
            task = asyncio.get_running_loop().create_task(self._call(group))
            lane.tasks.add(task)
            task.add_done_callback(lambda done: self._ended(lane, done))
            for one in group:
                one.row.add_done_callback(partial(_end_unless_wanted, group, task))

    async def _call(self, group: list[_Waiting]) -> None:
        try:
            ran = await self._run([one.text for one in group], max(one.deadline for one in group))
        except Exception as error:  # noqa: BLE001  each of them is told, and raises it
            for one in group:
                if not one.row.done():
                    one.row.set_exception(error)
            return
        for one, value in zip(group, ran.values, strict=True):
            if not one.row.done():
                one.row.set_result((value, ran.tower))

    def _ended(self, lane: _Lane, task: asyncio.Task[None]) -> None:
        lane.tasks.discard(task)
        self._fill(lane)


def _end_unless_wanted(group: list[_Waiting], task: asyncio.Task[None], _: object) -> None:
    """A call whose every caller has gone away is cancelled on the server too."""
    if all(one.row.cancelled() for one in group):
        task.cancel()
