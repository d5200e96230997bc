"""The retriever: legs side by side, one deadline, a late or lost leg named, and the space contract first."""

import asyncio
import time
from collections.abc import Iterator, Sequence

import pytest

from bartizan_connector.base.errors import Retry, SpaceMismatch, Stop, WrongUse
from bartizan_connector.search.answer import Encoded
from bartizan_connector.search.retriever import Retriever
from bartizan_connector.space.spec import Role
from bartizan_connector.space.vectors import Vectors
from bartizan_connector.store.collection import Collection, FieldSpec, Hit, Leg, Row
from bartizan_connector.store.filters import Filter, matches
from bartizan_connector.store.memory import MemoryBackend, MemoryStore
from bartizan_connector.testing.encoder_fake import HashEncoder

TEXTS = {
    "sleep": "pause the program for some seconds",
    "copy": "copy a file to another place",
    "join": "join parts of a path",
    "walk": "walk through a tree of folders",
}


class SlowEncoder(HashEncoder):
    """Takes its time."""

    seconds = 5.0

    def encode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
        if role == "query":
            time.sleep(self.seconds)
        return super().encode(texts, role, timeout=timeout)


class LostEncoder(HashEncoder):
    """Cannot be reached."""

    def encode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
        if role == "query":
            raise Retry("the encoder at tower:8001 does not answer", after=1.0)
        return super().encode(texts, role, timeout=timeout)


class BrokenEncoder(HashEncoder):
    """Fails for good."""

    def encode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
        raise Stop("the tower is damaged")


class HostLexical:
    """A host stack's own word search, by call-back: counts shared words."""

    def __init__(self, failure: Retry | None = None, seconds: float = 0.0) -> None:
        self.failure = failure
        self.seconds = seconds

    def search(self, text: str, k: int, filter: Filter | None = None, *, timeout: float | None = None) -> list[Hit]:
        time.sleep(self.seconds)
        if self.failure:
            raise self.failure
        words = set(text.split())
        hits = [
            Hit(id=id, chunk=0, score=float(len(words & set(stored.split()))), fields=fields_of(id))
            for id, stored in TEXTS.items()
            if filter is None or matches(filter, {"id": id, **fields_of(id)})
        ]
        return sorted((hit for hit in hits if hit.score), key=lambda hit: (-hit.score, hit.id))[:k]


def fields_of(id: str) -> dict[str, str | int]:
    return {"title": id, "text": TEXTS[id], "length": len(TEXTS[id])}


def collection_for(encoder: HashEncoder) -> Collection:
    fields = (
        FieldSpec(name="title", type="string"),
        FieldSpec(name="text", type="string"),
        FieldSpec(name="length", type="int"),
    )
    return Collection(name="docs", legs=(Leg.of(encoder.spec),), fields=fields)


def filled(encoder: HashEncoder) -> MemoryStore:
    store = MemoryBackend().open(collection_for(encoder))
    vectors = HashEncoder(seed=0).encode(list(TEXTS.values()), "document")
    store.upsert(
        [
            Row(id=id, vectors={"dense": vector}, fields=fields_of(id), version=1, hash=id)
            for id, vector in zip(TEXTS, vectors, strict=True)
        ]
    )
    return store


def retriever(
    encoder: HashEncoder | None = None, words: HostLexical | None = None, lexical_weight: float = 1.0
) -> Retriever:
    encoder = encoder or HashEncoder()
    return Retriever({"dense": encoder}, filled(encoder), words=words, weights={"lexical": lexical_weight})


@pytest.fixture
def dense() -> Iterator[Retriever]:
    with retriever() as opened:
        yield opened


@pytest.fixture
def hybrid() -> Iterator[Retriever]:
    with retriever(words=HostLexical()) as opened:
        yield opened


def test_one_leg_answers_at_its_own_scores(dense: Retriever) -> None:
    answer = dense.search("join parts of a path", k=2)
    assert answer[0].id == "join"
    assert answer[0].score == pytest.approx(1.0, abs=1e-6)
    assert answer[0].legs["dense"].rank == 1
    assert answer[0].fields == fields_of("join")
    assert len(answer) == 2
    assert answer.degraded is None


def test_two_legs_are_fused_and_each_result_keeps_both_places(hybrid: Retriever) -> None:
    answer = hybrid.search("copy a file")
    assert answer[0].id == "copy"
    assert set(answer[0].legs) == {"dense", "lexical"}
    assert answer[0].score == pytest.approx(2 / 61)


def test_the_lexical_leg_counts_as_much_as_its_weight() -> None:
    with retriever(words=HostLexical(), lexical_weight=0.25) as opened:
        for result in opened.search("join some parts of a file"):
            weights = {"dense": 1.0, "lexical": 0.25}
            expected = sum(weights[leg] / (60 + place.rank) for leg, place in result.legs.items())
            assert result.score == pytest.approx(expected)


def test_an_unknown_fusion_is_refused_when_the_retriever_is_made() -> None:
    encoder = HashEncoder()
    with pytest.raises(WrongUse, match="give 'rrf' or 'scores'"):
        Retriever({"dense": encoder}, filled(encoder), fusion="mean")  # type: ignore[arg-type]


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_a_lexical_weight_that_gives_no_order_is_refused(weight: float) -> None:
    with pytest.raises(WrongUse, match="give a number above 0"):
        retriever(words=HostLexical(), lexical_weight=weight)


def test_one_leg_can_be_asked_for_and_answers_at_its_own_scores(hybrid: Retriever, dense: Retriever) -> None:
    assert hybrid.search("copy a file", legs=["dense"]).results == dense.search("copy a file").results
    answer = hybrid.search("copy a file", legs=("lexical",))
    assert [(result.id, result.score) for result in answer] == [("copy", 3.0), ("join", 1.0), ("walk", 1.0)]
    assert set(answer.latency_ms.legs) == {"lexical"}
    assert answer.latency_ms.encode == 0
    both = hybrid.search("copy a file", legs=["lexical", "dense"])
    assert both.results == hybrid.search("copy a file").results


async def test_the_async_search_takes_legs_too(hybrid: Retriever) -> None:
    answer = await hybrid.asearch("copy a file", legs=["lexical"])
    assert answer.results == hybrid.search("copy a file", legs="lexical").results


def test_words_alone_need_no_encoder() -> None:
    with retriever(LostEncoder(), HostLexical()) as opened:
        answer = opened.search("copy a file", legs=["lexical"])
        assert answer[0].id == "copy"
        assert answer.degraded is None
        with pytest.raises(Retry, match="tower:8001"):
            opened.search("copy a file", legs=["dense"])


@pytest.mark.parametrize(
    ("legs", "message"),
    [
        (["sparse", "dense"], "unknown leg 'sparse'; this collection is searched by dense, lexical"),
        ("dense,lexical", "unknown leg 'dense,lexical'"),
        ([], "no leg is named; this collection is searched by dense, lexical"),
    ],
)
def test_a_leg_that_is_not_there_is_refused(hybrid: Retriever, legs: Sequence[str], message: str) -> None:
    with pytest.raises(WrongUse, match=message):
        hybrid.search("copy a file", legs=legs)


def test_asking_for_words_where_there_are_none_says_how_to_have_them(dense: Retriever) -> None:
    with pytest.raises(WrongUse, match=r"no lexical leg: set \[backend\] lexical to a folder and ingest"):
        dense.search("copy a file", legs=["dense", "lexical"])


def test_the_answer_says_which_space_and_tower_and_where_the_time_went(hybrid: Retriever) -> None:
    answer = hybrid.search("copy a file")
    spec = HashEncoder().spec
    assert (answer.space_id, answer.tower_id) == (spec.space_id, spec.tower_id)
    assert answer.encoded == {"dense": Encoded(tower_id=spec.tower_id, space_id=spec.space_id)}
    spent = answer.latency_ms
    assert set(spent.legs) == {"dense", "lexical"}
    assert 0 < spent.encode < spent.total
    assert max(spent.encode + spent.legs["dense"], spent.legs["lexical"]) <= spent.total


async def test_the_async_answer_is_the_same(hybrid: Retriever) -> None:
    answers = await asyncio.gather(*(hybrid.asearch(text, k=3) for text in TEXTS.values()))
    for text, answer in zip(TEXTS.values(), answers, strict=True):
        assert answer.results == hybrid.search(text, k=3).results


def test_a_filter_holds_for_every_leg(hybrid: Retriever) -> None:
    answer = hybrid.search("pause a file", filter="length < 25")
    assert {result.id for result in answer} <= {"join"}
    assert len(hybrid.search("pause a file", filter="id in ['walk', 'copy']")) == 2


@pytest.mark.parametrize("encoder", [LostEncoder(), SlowEncoder()], ids=["lost", "slow"])
def test_a_dense_leg_that_does_not_come_is_named_and_the_other_answers(encoder: HashEncoder) -> None:
    with retriever(encoder, HostLexical()) as opened:
        begun = time.perf_counter()
        answer = opened.search("copy a file", timeout=0.3)
        assert time.perf_counter() - begun < 2.0
    assert answer[0].id == "copy"
    assert set(answer[0].legs) == {"lexical"}
    assert answer.degraded is not None
    assert answer.degraded.startswith("no dense leg: ")


async def test_a_late_leg_is_left_out_of_the_async_answer_too() -> None:
    with retriever(SlowEncoder(), HostLexical()) as opened:
        answer = await opened.asearch("copy a file", timeout=0.3)
    assert answer.degraded == "no dense leg: the dense leg had not answered by the deadline"


@pytest.mark.parametrize("words", [HostLexical(Retry("the host is busy")), HostLexical(seconds=3.0)])
def test_a_lexical_leg_that_does_not_come_is_named_too(words: HostLexical) -> None:
    with retriever(words=words) as opened:
        answer = opened.search("copy a file", timeout=0.3)
    assert answer[0].id == "copy"
    assert answer.degraded is not None
    assert answer.degraded.startswith("no lexical leg: ")


def test_with_no_leg_left_the_reason_is_raised() -> None:
    with retriever(LostEncoder(), HostLexical(Retry("the host is busy"))) as opened, pytest.raises(Retry) as failure:
        opened.search("copy a file")
    assert "tower:8001" in str(failure.value)
    assert failure.value.exit_code == 4


def test_a_broken_tower_is_named_while_the_words_answer_and_raised_when_nothing_does() -> None:
    with retriever(BrokenEncoder(), HostLexical()) as opened:
        answer = opened.search("copy a file")
        assert answer[0].id == "copy"
        assert answer.degraded == "no dense leg: the tower is damaged"
        with pytest.raises(Stop, match="damaged"):
            opened.search("copy a file", legs=["dense"])


def test_a_tower_of_another_space_is_refused_before_it_searches() -> None:
    owner, stranger = HashEncoder(seed=0), HashEncoder(seed=1)
    with pytest.raises(SpaceMismatch) as refusal:
        Retriever({"dense": stranger}, filled(owner))
    assert owner.spec.space_id in str(refusal.value)
    assert stranger.spec.space_id in str(refusal.value)


def test_a_collection_that_does_not_exist_is_refused_and_not_made() -> None:
    encoder, backend = HashEncoder(), MemoryBackend()
    for _ in range(2):
        with pytest.raises(WrongUse, match="docs"):
            backend.open(collection_for(encoder), create=False)


@pytest.mark.parametrize(
    ("query", "k", "filter", "message"),
    [
        ("  ", 3, None, "the query is empty"),
        ("x", 0, None, "out of range"),
        ("x", 1001, None, "out of range"),
        ("x", 3, "colour == 'red'", "unknown field 'colour'"),
        ("x", 3, "length == 'long'", "is a int"),
        ("x", 3, "__import__('os')", "not part of the filter grammar"),
    ],
)
def test_a_request_that_means_nothing_is_refused(
    dense: Retriever, query: str, k: int, filter: str | None, message: str
) -> None:
    with pytest.raises(WrongUse, match=message):
        dense.search(query, k, filter)
