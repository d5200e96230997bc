"""Which leg a tower searches, and what a leg that hangs may cost the others: nothing."""

import asyncio
import re
import time
from collections.abc import Iterator, Sequence
from threading import Event

import numpy as np
import pytest

from bartizan_connector.base.errors import Retry, SpaceMismatch, Stop, WrongUse
from bartizan_connector.search.retriever import Retriever
from bartizan_connector.search.threads import THREADS, LegThreads
from bartizan_connector.space.spec import Role
from bartizan_connector.space.vectors import Vectors
from bartizan_connector.store.collection import Collection, Hit, Leg
from bartizan_connector.store.filters import Filter
from bartizan_connector.store.memory import MemoryBackend
from bartizan_connector.testing.encoder_fake import HashEncoder
from tests.connector.search.test_retriever import HostLexical, filled, retriever
from tests.connector.testing.sparse_fake import WordEncoder

MORE_THAN_THREADS = THREADS + 4


class HangingLexical(HostLexical):
    """A call-back that takes no notice of its timeout."""

    def __init__(self) -> None:
        super().__init__()
        self.released = Event()
        self.calls = 0

    def search(self, text: str, k: int, filter: Filter | None = None, *, timeout: float | None = None) -> list[Hit]:
        self.calls += 1
        self.released.wait(60)
        return super().search(text, k, filter)


class HangingEncoder(HashEncoder):
    """A tower that takes no notice of its timeout."""

    def __init__(self) -> None:
        super().__init__()
        self.released = Event()

    def encode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
        if role == "query":
            self.released.wait(60)
        return super().encode(texts, role)


@pytest.fixture
def hanging() -> Iterator[HangingLexical]:
    words = HangingLexical()
    yield words
    words.released.set()


@pytest.mark.packaging
def test_a_leg_that_hangs_in_more_calls_than_it_has_threads_costs_the_other_nothing(hanging: HangingLexical) -> None:
    with retriever(words=hanging) as opened:
        answers = [opened.search("copy a file", timeout=0.25) for _ in range(MORE_THAN_THREADS)]
        assert all(set(answer[0].legs) == {"dense"} for answer in answers)
        reasons = [answer.degraded for answer in answers]
        assert set(reasons[:THREADS]) == {"no lexical leg: the lexical leg had not answered by the deadline"}
        assert set(reasons[THREADS:]) == {
            f"no lexical leg: the lexical leg hangs: {THREADS} earlier calls are past their deadline and have not ended"
        }
        assert hanging.calls == THREADS
        begun = time.perf_counter()
        assert opened.search("copy a file", timeout=30).degraded
        assert time.perf_counter() - begun < 5, "a leg that hangs is not waited for"
        hanging.released.set()
        while opened.search("copy a file", timeout=30).degraded:
            time.sleep(0.01)


async def test_the_same_holds_for_the_async_search(hanging: HangingLexical) -> None:
    with retriever(words=hanging) as opened:
        searches = [opened.asearch("copy a file", timeout=0.3) for _ in range(MORE_THAN_THREADS)]
        for answer in await asyncio.gather(*searches):
            assert (set(answer[0].legs), answer[0].id) == ({"dense"}, "copy")
            assert answer.degraded == "no lexical leg: the lexical leg had not answered by the deadline"
        assert "the lexical leg hangs: 8" in str((await opened.asearch("copy a file", timeout=30)).degraded)
        hanging.released.set()


@pytest.mark.packaging
def test_a_tower_that_hangs_costs_the_words_nothing() -> None:
    encoder = HangingEncoder()
    with retriever(encoder, HostLexical()) as opened:
        for _ in range(MORE_THAN_THREADS):
            answer = opened.search("copy a file", timeout=0.25)
            assert (answer[0].id, set(answer[0].legs)) == ("copy", {"lexical"})
        with pytest.raises(Retry, match="the dense leg hangs: 8 earlier calls"):
            opened.search("copy a file", legs="dense", timeout=30)
        encoder.released.set()


def test_a_leg_that_is_busy_within_its_deadlines_is_waited_for() -> None:
    threads, release = LegThreads("busy", threads=1), Event()
    later = time.perf_counter() + 60
    first = threads.submit(lambda: release.wait(60), later)
    second = threads.submit(lambda: True, later)
    assert not second.done()
    release.set()
    assert (first.result(60), second.result(60)) == (True, True)
    threads.close()


async def test_an_async_search_asks_an_async_tower_in_its_own_way() -> None:
    class Native(HashEncoder):
        """Answers asynchronously only."""

        natively_async = True

        def encode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
            raise AssertionError("the event loop's own way was there")

        async def aencode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
            await asyncio.sleep(0)
            return HashEncoder.encode(self, texts, role)

    with retriever(Native()) as opened:
        assert (await opened.asearch("copy a file"))[0].id == "copy"


async def test_a_cancelled_search_cancels_the_async_tower() -> None:
    class Native(HashEncoder):
        """Never answers, and says when it is let go."""

        natively_async = True
        cancelled = False

        async def aencode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled = True
                raise
            raise AssertionError

    encoder = Native()
    with retriever(encoder, HostLexical()) as opened:
        assert "no dense leg" in str((await opened.asearch("copy a file", timeout=0.05)).degraded)
        await asyncio.sleep(0)
        assert encoder.cancelled


def test_a_tower_of_another_kind_is_another_space() -> None:
    owner, stranger = HashEncoder(), WordEncoder()
    with pytest.raises(
        SpaceMismatch, match=r"tower 'words' cannot search the dense leg .* which is dense, as the tower is sparse"
    ) as no:
        Retriever({"dense": stranger}, filled(owner))
    assert (no.value.expected, no.value.came) == (owner.spec.space_id, stranger.spec.space_id)
    assert no.value.exit_code == 3


def test_a_leg_that_is_called_as_the_words_are_is_refused_beside_them() -> None:
    encoder = HashEncoder()
    store = MemoryBackend().open(Collection(name="docs", legs=(Leg.of(encoder.spec, "lexical"),)))
    with pytest.raises(WrongUse, match="have one name"):
        Retriever({"lexical": encoder}, store, words=HostLexical())


class BrokenTower(HashEncoder):
    """Gives one value in every component, of as many as told."""

    def __init__(self, value: float, length: int = 16) -> None:
        super().__init__()
        self.value = value
        self.length = length

    def encode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
        values = np.full((len(texts), self.length), self.value, dtype=np.float32)
        marks = (1,) * len(texts), (False,) * len(texts)
        return Vectors(
            space_id=self.spec.space_id, tower_id=self.spec.tower_id, values=values, tokens=marks[0], truncated=marks[1]
        )


@pytest.mark.parametrize(
    ("tower", "how"),
    [
        (BrokenTower(float("nan")), "that hold NaN or infinity"),
        (BrokenTower(float("inf")), "that hold NaN or infinity"),
        (BrokenTower(1.0, length=3), "of length 3, its spec promises 16"),
    ],
)
async def test_a_query_vector_that_cannot_be_right_names_the_tower(tower: BrokenTower, how: str) -> None:
    with retriever(tower, HostLexical()) as opened:
        for search in (lambda: asyncio.to_thread(opened.search, "copy a file"), lambda: opened.asearch("copy a file")):
            answer = await search()
            assert answer[0].id == "copy"
            assert re.search(rf"tower 'hash-0' \(tw-\w+\) is broken: it gives vectors {how}", str(answer.degraded))
            assert "Export it again" in str(answer.degraded)
    with retriever(tower) as opened:
        for search in (lambda: asyncio.to_thread(opened.search, "copy a file"), lambda: opened.asearch("copy a file")):
            with pytest.raises(Stop, match=rf"tower 'hash-0' \(tw-\w+\) is broken: it gives vectors {how}") as stop:
                await search()
            assert stop.value.exit_code == 1
            assert "Export it again" in str(stop.value)
