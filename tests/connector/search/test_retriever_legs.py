"""Which leg a tower searches, and what a leg that hangs may cost the others: nothing."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from threading import Event

import numpy as np
import pytest

from bartizan_connector.base.errors import Retry, SpaceMismatch, Stop, WrongUse
from bartizan_connector.search.legs import THREADS, LegThreads
from bartizan_connector.search.retriever import Retriever
from bartizan_connector.space.spec import Role
from bartizan_connector.space.vectors import Vectors
from bartizan_connector.store.collection import Collection, Hit, Leg, Row
from bartizan_connector.store.filters import Filter
from bartizan_connector.store.memory import MemoryBackend
from bartizan_connector.testing.encoder_fake import HashEncoder
from tests.connector.search.test_retriever import TEXTS, HostLexical, collection_for, fields_of, filled, retriever
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


def test_the_leg_is_chosen_by_what_it_holds_not_by_its_name() -> None:
    encoder, backend = HashEncoder(), MemoryBackend()
    collection = Collection(
        name="docs",
        legs=(Leg.of(WordEncoder().spec, "terms"), Leg.of(encoder.spec, "body")),
        fields=collection_for(encoder).fields,
    )
    backend.ensure(collection)
    dense, sparse = (
        encoder.encode(list(TEXTS.values()), "document"),
        WordEncoder().encode(list(TEXTS.values()), "document"),
    )
    backend.upsert(
        [
            Row(id=id, vectors={"body": body, "terms": terms}, fields=fields_of(id), version=1, hash=id)
            for id, body, terms in zip(TEXTS, dense, sparse, strict=True)
        ]
    )
    with Retriever(encoder, backend, collection) as opened:
        assert set(opened.search("copy a file")[0].legs) == {"body"}
    with Retriever(WordEncoder(), backend, collection) as opened:
        assert [(result.id, set(result.legs)) for result in opened.search("copy")] == [("copy", {"terms"})]


def test_a_tower_of_another_kind_is_another_space() -> None:
    owner, stranger = HashEncoder(), WordEncoder()
    with pytest.raises(
        SpaceMismatch, match=r"sparse tower 'words' cannot search .* with the legs dense \(dense\)"
    ) as no:
        Retriever(stranger, filled(owner), collection_for(owner))
    assert (no.value.expected, no.value.came) == (owner.spec.space_id, stranger.spec.space_id)
    assert no.value.exit_code == 3


def test_legs_that_nothing_tells_apart_are_refused() -> None:
    spec = HashEncoder().spec
    for legs, words, message in (
        ((Leg.of(spec, "title_leg"), Leg.of(spec, "body")), None, "the legs title_leg, body .* are all of"),
        ((Leg.of(spec, "lexical"),), HostLexical(), "have one name"),
    ):
        with pytest.raises(WrongUse, match=message):
            Retriever(HashEncoder(), MemoryBackend(), Collection(name="docs", legs=legs), words=words)


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
            with pytest.raises(Stop, match=rf"tower 'hash-0' \(tw-\w+\) is broken: it gives vectors {how}") as stop:
                await search()
            assert stop.value.exit_code == 1
            assert "Export it again" in str(stop.value)
