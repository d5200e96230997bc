"""The ladder: who answers, in whose time, what is said of it, and that a rung comes back by itself."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from bartizan_connector.base.errors import BartizanError, Retry, SpaceMismatch, Stop, WrongUse
from bartizan_connector.encode.encoder import Encoder
from bartizan_connector.encode.ladder import Breaker, Ladder, Rung
from bartizan_connector.encode.onnx import OnnxEncoder
from bartizan_connector.space.spec import Role, TowerSpec
from bartizan_connector.space.vectors import Vectors
from bartizan_connector.testing.encoder import EncoderSuite
from bartizan_connector.testing.encoder_fake import HashEncoder
from tests.exports import export_folder


class Stubborn(HashEncoder):
    """Fails with what it is given, as long as it is given something."""

    def __init__(self, *, roles: Sequence[Role] = ("query", "document"), small: bool = False) -> None:
        super().__init__()
        top = self.spec
        kept = {role: top.roles[role] for role in roles}
        if small:
            self.spec = top.model_copy(update={"roles": kept, "space": top.space_id, "precision": "int8"})
        self.error: BartizanError | None = None
        self.slow = 0.0
        self.asked = 0
        self.closed = 0

    def encode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
        self.asked += 1
        assert timeout is not None
        time.sleep(min(self.slow, timeout))
        if self.slow > timeout:
            raise Retry("too slow")
        if self.error:
            raise self.error
        return super().encode(texts, role, timeout=timeout)

    def close(self) -> None:
        self.closed += 1


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def made(top: Encoder, below: Encoder, clock: Clock | None = None) -> Ladder:
    breaker = Breaker(failures=2, rest=5.0, clock=clock or Clock())
    rungs = [Rung("the server", lambda _: top, breaker=breaker), Rung("this process", lambda _: below)]
    ladder = Ladder(top.spec, rungs)
    rungs[1].opened(top.spec.space_id, 1.0)
    return ladder


class TestTheSuite(EncoderSuite):
    def make(self) -> Encoder:
        return made(OnnxEncoder.open(export_folder("bert", "fp32")), OnnxEncoder.open(export_folder("bert", "int8")))


def by_thread(ladder: Ladder, text: str, role: Role = "query", timeout: float = 5.0) -> Vectors:
    return ladder.encode([text], role, timeout=timeout)


def by_loop(ladder: Ladder, text: str, role: Role = "query", timeout: float = 5.0) -> Vectors:
    return asyncio.run(ladder.aencode([text], role, timeout=timeout))


Ask = Callable[..., Vectors]
both_ways = pytest.mark.parametrize("ask", [by_thread, by_loop])


@both_ways
def test_the_top_answers_and_nothing_is_said(ask: Ask) -> None:
    top, below = Stubborn(), Stubborn(small=True)
    came = ask(made(top, below), "a")
    assert (came.tower_id, came.degraded, below.asked) == (top.spec.tower_id, None, 0)


@both_ways
def test_the_rung_below_answers_and_says_so(ask: Ask) -> None:
    top, below = Stubborn(), Stubborn(small=True)
    top.error = Retry("away")
    came = ask(made(top, below), "a")
    assert came.tower_id == below.spec.tower_id != top.spec.tower_id
    assert came.space_id == top.spec.space_id
    assert came.degraded == "not by the server: away"


@both_ways
def test_a_slow_top_leaves_time_for_the_rung_below(ask: Ask) -> None:
    top, below = Stubborn(), Stubborn(small=True)
    top.slow = 60.0
    begun = time.monotonic()
    assert ask(made(top, below), "a", timeout=2.0).degraded == "not by the server: too slow"
    assert time.monotonic() - begun < 2.0


@both_ways
def test_a_rung_that_fails_is_left_alone_and_comes_back_by_itself(ask: Ask) -> None:
    top, below, clock = Stubborn(), Stubborn(small=True), Clock()
    ladder = made(top, below, clock)
    top.error = Stop("not there")
    for _ in range(2):
        ask(ladder, "a")
    assert top.asked == 2
    assert ask(ladder, "a").degraded == "not by the server, which is left alone for a while: not there"
    assert top.asked == 2
    clock.now += 6
    ask(ladder, "a")  # one call tries it again, and it is left alone anew
    ask(ladder, "a")
    assert top.asked == 3
    top.error = None
    clock.now += 6
    assert ask(ladder, "a").degraded is None
    assert ask(ladder, "a").tower_id == top.spec.tower_id


@both_ways
def test_a_callers_own_mistake_is_raised_and_held_against_no_rung(ask: Ask) -> None:
    top, below = Stubborn(), Stubborn(small=True)
    ladder = made(top, below)
    top.error = below.error = WrongUse("text 0 is not valid Unicode")
    for _ in range(9):
        with pytest.raises(WrongUse, match="not valid Unicode"):
            ask(ladder, "a")
    top.error = None
    assert ask(ladder, "a").degraded is None


@both_ways
def test_when_all_are_away_the_most_telling_failure_is_raised(ask: Ask) -> None:
    top, below = Stubborn(), Stubborn(small=True)
    top.error, below.error = Stop("no such model"), Retry("late")
    with pytest.raises(Stop, match="no such model"):
        ask(made(top, below), "a")


@both_ways
def test_a_small_query_tower_stands_in_for_queries_only(ask: Ask) -> None:
    top, below = Stubborn(), Stubborn(small=True, roles=("query",))
    top.error = Retry("away")
    ladder = made(top, below)
    assert ask(ladder, "a").degraded
    with pytest.raises(Retry, match="away"):
        ask(ladder, "a", "document")
    assert below.asked == 1


def test_a_tower_of_another_space_is_no_rung() -> None:
    with pytest.raises(SpaceMismatch, match="this process cannot stand in for the tower above it"):
        made(HashEncoder(), HashEncoder(seed=1))


def test_a_top_that_cannot_be_opened_keeps_nobody_from_starting() -> None:
    below = Stubborn(small=True)
    times: list[float] = []

    def away(seconds: float) -> Encoder:
        times.append(seconds)
        raise Retry("nobody there")

    spec: TowerSpec = HashEncoder().spec
    ladder = Ladder(spec, [Rung("the server", away), Rung("this process", lambda _: below)])
    came = ladder.encode(["a"], "query", timeout=2.0)
    assert came.degraded == "not by the server: nobody there"
    assert times[0] <= 1.0
    ladder.close()
    ladder.close()
    assert below.closed == 2


def _away(seconds: float) -> Encoder:
    time.sleep(seconds)
    raise Retry("away")


def _never_reached(top: Encoder, below: Encoder) -> Ladder:
    ladder = Ladder(top.spec, [Rung("the server", _away), Rung("this process", lambda _: below)])
    ladder._rungs[1].opened(top.spec.space_id, 1.0)
    return ladder


@pytest.mark.packaging
def test_many_queries_at_once_are_answered_below_while_the_top_is_being_opened_in_vain() -> None:
    ladder = _never_reached(Stubborn(), Stubborn(small=True))

    async def asked() -> list[Vectors]:
        return await asyncio.gather(*(ladder.aencode(["a"], "query", timeout=2.0) for _ in range(40)))

    begun = time.monotonic()
    answers = asyncio.run(asked())
    assert time.monotonic() - begun < 2.0
    assert {each.degraded for each in answers} <= {
        "not by the server: away",
        "not by the server: the server was still being opened",
    }
    anew = _never_reached(Stubborn(), Stubborn(small=True))
    begun = time.monotonic()
    with ThreadPoolExecutor(20) as threads:
        found = list(threads.map(lambda _: by_thread(anew, "a", timeout=2.0), range(20)))
    assert time.monotonic() - begun < 2.0
    assert all(each.degraded for each in found)


def test_many_queries_at_once_wait_for_a_top_that_opens() -> None:
    top, opened = Stubborn(), []

    def open(seconds: float) -> Encoder:
        opened.append(seconds)
        time.sleep(0.2)
        return top

    ladder = Ladder(top.spec, [Rung("the server", open), Rung("this process", lambda _: Stubborn(small=True))])

    async def asked() -> list[Vectors]:
        return await asyncio.gather(*(ladder.aencode(["a"], "query", timeout=5.0) for _ in range(40)))

    assert {each.degraded for each in asyncio.run(asked())} == {None}
    assert len(opened) == 1


def test_a_query_that_is_given_up_while_it_opens_a_rung_leaves_it_to_the_next() -> None:
    top = Stubborn()

    def open(seconds: float) -> Encoder:
        time.sleep(0.2)
        return top

    ladder = Ladder(top.spec, [Rung("the server", open), Rung("this process", lambda _: Stubborn(small=True))])

    async def given_up() -> None:
        async with asyncio.timeout(0.05):
            await ladder.aencode(["a"], "query", timeout=5.0)

    with pytest.raises(TimeoutError):
        asyncio.run(given_up())
    assert by_loop(ladder, "a").degraded is None
    assert by_thread(ladder, "a").degraded is None


def test_a_rung_for_which_no_thread_can_be_started_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    top = Stubborn()
    rung = Rung("the server", lambda _: top)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", _no_more)
        with pytest.raises(Retry, match="could not be opened: can't start new thread"):
            asyncio.run(rung.aopened(top.spec.space_id, 1.0))
    assert asyncio.run(rung.aopened(top.spec.space_id, 1.0)) is top


def _no_more(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_a_tower_that_is_opened_after_the_end_is_closed() -> None:
    top, gate = Stubborn(), threading.Event()

    def open(seconds: float) -> Encoder:
        gate.wait(10)
        return top

    rung = Rung("the server", open)
    with ThreadPoolExecutor(1) as threads:
        opening = threads.submit(rung.opened, top.spec.space_id, 10.0)
        rung.close()
        gate.set()
        opening.result(10)
    assert top.closed == 1


def test_of_many_calls_one_tries_a_rung_that_has_rested() -> None:
    clock = Clock()
    breaker = Breaker(failures=1, rest=5.0, clock=clock)
    breaker.failed()
    assert not breaker.lets_through()
    clock.now += 5
    assert [breaker.lets_through() for _ in range(4)] == [True, False, False, False]
    breaker.succeeded()
    assert breaker.lets_through()


def test_a_ladder_needs_rungs_and_a_share() -> None:
    with pytest.raises(WrongUse, match="needs a rung"):
        Ladder(HashEncoder().spec, [])
    with pytest.raises(WrongUse, match="share = 1"):
        Ladder(HashEncoder().spec, [Rung("a", lambda _: HashEncoder())], share=1)
    assert np.isfinite(made(HashEncoder(), HashEncoder()).encode(["a"], "query").values).all()
