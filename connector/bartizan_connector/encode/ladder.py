"""The ladder: towers of one space, best first; what the first cannot answer in its share of the time, the next does.

A rung that has failed several times running is left alone for a while (a circuit breaker), then one call tries it
again, and it is back when that one is answered. The vectors say which tower really encoded, and why it was not the
first one. When no rung is left, the search's other legs remain: that is not decided here.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace

from bartizan_connector.base.errors import BartizanError, Retry, SpaceMismatch, WrongUse
from bartizan_connector.encode.encoder import Encoder
from bartizan_connector.space.spec import Role, TowerSpec, require_same_space
from bartizan_connector.space.vectors import Vectors

Clock = Callable[[], float]
_SHARE = 0.5
"""Of the time that is left, what a rung may take that has another below it."""
_FAILURES, _REST = 3, 5.0
_USUAL_SECONDS = 30.0
_LEAST = 1e-4
_LOOK_SECONDS = 0.01


class Breaker:
    """Open after some failures running; lets one call through when it has rested; closed by the first success."""

    def __init__(self, *, failures: int = _FAILURES, rest: float = _REST, clock: Clock = time.monotonic) -> None:
        self._most, self._rest, self._clock = failures, rest, clock
        self._lock = threading.Lock()
        self._failures = 0
        self._again = 0.0

    def lets_through(self) -> bool:
        """Whether a call may try; of many that come when it has rested, one."""
        with self._lock:
            if self._failures < self._most:
                return True
            now = self._clock()
            if now < self._again:
                return False
            self._again = now + self._rest  # until the one that tries now has told
            return True

    def succeeded(self) -> None:
        """Closed."""
        with self._lock:
            self._failures = 0

    def failed(self) -> None:
        """One more; the last that is borne opens it."""
        with self._lock:
            self._failures += 1
            self._again = self._clock() + self._rest


class Rung:
    """One tower, opened when it is first needed, so that a server that is away keeps nobody from starting."""

    def __init__(self, name: str, open: Callable[[float], Encoder], *, breaker: Breaker | None = None) -> None:
        """`open` is given the seconds that it may take."""
        self.name = name
        self._open = open
        self.breaker = breaker or Breaker()
        self._opening = threading.Lock()
        self._is_closed = False
        self.encoder: Encoder | None = None
        self.why = ""
        """What the last failure was."""

    def opened(self, space_id: str, seconds: float) -> Encoder:
        """The encoder; refused when it is of another space. While another call opens it, it is waited for."""
        end = time.monotonic() + seconds
        if not self._opening.acquire(timeout=seconds):
            raise self._late()
        return self._opened(space_id, end)

    async def aopened(self, space_id: str, seconds: float) -> Encoder:
        """The same. Those who wait take no thread: of the loop's few they would leave none for other work."""
        end = time.monotonic() + seconds
        while not self._opening.acquire(blocking=False):
            if time.monotonic() > end:
                raise self._late()
            await asyncio.sleep(_LOOK_SECONDS)
        opening: Future[Encoder] = Future()
        opening.set_running_or_notify_cancel()  # whoever gives up meanwhile, it goes on, and lets the others in
        try:
            about = (opening, space_id, end)
            threading.Thread(target=self._open_for, args=about, name="bartizan-open", daemon=True).start()
        except RuntimeError as error:  # there is no room for one more
            self._opening.release()
            raise Retry(f"{self.name} could not be opened: {error}") from error
        return await asyncio.wrap_future(opening)

    def _open_for(self, opening: "Future[Encoder]", space_id: str, end: float) -> None:
        try:
            opening.set_result(self._opened(space_id, end))
        except BaseException as error:  # noqa: BLE001  raised where it is waited for
            opening.set_exception(error)

    def _late(self) -> Retry:
        return Retry(f"{self.name} was still being opened")

    def _opened(self, space_id: str, end: float) -> Encoder:
        """Called by the one who holds the lock, which it gives back."""
        try:
            if self.encoder is None:
                encoder = self._open(max(end - time.monotonic(), _LEAST))
                try:
                    require_same_space(
                        f"{self.name} cannot stand in for the tower above it",
                        expected=space_id,
                        came=encoder.spec.space_id,
                        way_out="Give a tower that was distilled from, or trained with, the same document tower.",
                    )
                except SpaceMismatch:
                    encoder.close()
                    raise
                self.encoder = encoder
            if self._is_closed:  # meanwhile
                self.encoder.close()
            return self.encoder
        finally:
            self._opening.release()

    def has_failed(self, error: BartizanError) -> None:
        """Remembered, and told while the rung is left alone."""
        self.why = str(error)
        self.breaker.failed()

    def close(self) -> None:
        """Closing twice is fine."""
        self._is_closed = True
        if self.encoder is not None:
            self.encoder.close()


@dataclass(frozen=True, slots=True)
class Step:
    """A rung to try, and until when."""

    rung: Rung
    until: float

    def left(self) -> float:
        """Seconds."""
        return max(self.until - time.monotonic(), _LEAST)


Climb = Generator[Step, Vectors | BartizanError, Vectors]


class Ladder:
    """An Encoder made of others. `spec` is that of the tower at the top. Safe to share between threads."""

    natively_async = True

    def __init__(self, spec: TowerSpec, rungs: Sequence[Rung], *, share: float = _SHARE) -> None:
        if not rungs:
            raise WrongUse("a ladder needs a rung: give the towers, best first")
        if not 0 < share < 1:
            raise WrongUse(f"share = {share} makes no sense; expected a part of the time between 0 and 1")
        self._spec, self._rungs, self._share = spec, tuple(rungs), share

    @property
    def spec(self) -> TowerSpec:
        """The tower at the top, as it is served now."""
        top = self._rungs[0].encoder
        return top.spec if top else self._spec

    def encode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
        """One vector a text, by the first rung that answers in its share of the time."""
        climb = self._climb(role, timeout)
        step = next(climb)
        while True:
            try:
                try:
                    encoder = step.rung.opened(self._spec.space_id, step.left())
                    came: Vectors | BartizanError = encoder.encode(texts, role, timeout=step.left())
                except BartizanError as error:
                    came = error
                step = climb.send(came)
            except StopIteration as end:
                vectors: Vectors = end.value
                return vectors

    async def aencode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
        """The same in the caller's event loop."""
        climb = self._climb(role, timeout)
        step = next(climb)
        while True:
            try:
                try:
                    encoder = step.rung.encoder
                    if encoder is None:
                        encoder = await step.rung.aopened(self._spec.space_id, step.left())
                    came: Vectors | BartizanError = await encoder.aencode(texts, role, timeout=step.left())
                except BartizanError as error:
                    came = error
                step = climb.send(came)
            except StopIteration as end:
                vectors: Vectors = end.value
                return vectors

    def close(self) -> None:
        """Every rung. Closing twice is fine."""
        for rung in self._rungs:
            rung.close()

    def _climb(self, role: Role, timeout: float | None) -> Climb:
        """Down from the top: yields the rung to try, is sent what came of it, returns the answer."""
        deadline = time.monotonic() + (_USUAL_SECONDS if timeout is None else timeout)
        able = [rung for rung in self._rungs if rung.encoder is None or role in rung.encoder.spec.roles]
        rungs = able or self._rungs[:1]
        failed: list[tuple[Rung, BartizanError]] = []
        skipped: list[str] = []
        for rung in rungs:
            last = rung is rungs[-1]
            if not last and not rung.breaker.lets_through():
                skipped.append(f"not by {rung.name}, which is left alone for a while: {rung.why}")
                continue
            left = deadline - time.monotonic()
            if left <= 0 and failed:
                break
            came = yield Step(rung, time.monotonic() + (left if last else left * self._share))
            if isinstance(came, Vectors):
                rung.breaker.succeeded()
                for above, error in failed:  # this rung could, so it was not the texts
                    above.has_failed(error)
                told = [*skipped, *(f"not by {above.name}: {error}" for above, error in failed)]
                return replace(came, degraded="; ".join(told) or None)
            if isinstance(came, SpaceMismatch):
                raise came
            failed.append((rung, came))
        for rung, error in failed:
            if isinstance(error, Retry):
                rung.has_failed(error)
        raise _most_telling([error for _, error in failed])


def _most_telling(failures: Sequence[BartizanError]) -> BartizanError:
    """The last rung was asked the same: what it says is of the texts, unless it was only late."""
    last = failures[-1]
    return next((each for each in failures if not isinstance(each, Retry)), last) if isinstance(last, Retry) else last
