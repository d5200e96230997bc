"""Several towers in a collection: two dense legs and a sparse one are searched, weighted and refused as one."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from bartizan_connector.base.errors import Retry, SpaceMismatch, WrongUse
from bartizan_connector.config.settings import TEXT_FIELDS, SearchSettings
from bartizan_connector.config.towers import collection_of
from bartizan_connector.search.fusion import fuse
from bartizan_connector.search.retriever import Retriever
from bartizan_connector.space.spec import Role
from bartizan_connector.space.vectors import Vectors
from bartizan_connector.store.collection import Collection, Leg
from bartizan_connector.store.memory import MemoryBackend, MemoryStore
from bartizan_connector.testing.encoder_fake import HashEncoder
from tests.connector.search.configured import configured, fill, towers
from tests.connector.search.test_retriever import HostLexical
from tests.connector.testing.sparse_fake import WordEncoder

QUERY = "copy a tree of folders"


def store_of(fakes: dict[str, HashEncoder | WordEncoder]) -> MemoryStore:
    legs = tuple(Leg.of(fake.spec, name) for name, fake in fakes.items())
    store = MemoryBackend().open(Collection(name="docs", legs=legs, fields=TEXT_FIELDS))
    fill(store, fakes)
    return store


def test_every_leg_is_searched_by_default_and_fused(tmp_path: Path) -> None:
    fakes = towers()
    with Retriever.open(configured(tmp_path, fakes, words=True)) as opened:
        answer = opened.search(QUERY, k=4)
        assert opened.legs == ("dense", "other", "terms", "lexical")
        assert set(answer.latency_ms.legs) == set(opened.legs)
        alone = {leg: opened.search(QUERY, k=4, legs=[leg]) for leg in opened.legs}
    assert answer.degraded is None
    for result in answer:
        for leg, place in result.legs.items():
            assert alone[leg][place.rank - 1].id == result.id
            assert alone[leg][place.rank - 1].score == place.score
        assert result.score == pytest.approx(sum(1 / (60 + place.rank) for place in result.legs.values()))
    assert set(answer[0].legs) == set(opened.legs)


def test_the_answer_names_the_tower_of_each_leg_that_encoded(tmp_path: Path) -> None:
    fakes = towers()
    with Retriever.open(configured(tmp_path, fakes, words=True)) as opened:
        answer = opened.search(QUERY)
        assert {leg: (each.tower_id, each.space_id) for leg, each in answer.encoded.items()} == {
            leg: (fake.spec.tower_id, fake.spec.space_id) for leg, fake in fakes.items()
        }
        assert (answer.tower_id, answer.space_id) == (None, None)
        one = opened.search(QUERY, legs=["terms", "lexical"])
        assert (one.tower_id, one.space_id) == (fakes["terms"].spec.tower_id, fakes["terms"].spec.space_id)
        assert opened.search(QUERY, legs=["lexical"]).tower_id is None


def test_the_tower_that_is_named_is_the_one_that_encoded() -> None:
    class Replaced(HashEncoder):
        """A server that runs another tower of the space by now."""

        def encode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
            vectors = super().encode(texts, role)
            values, tokens, cut = vectors.values, vectors.tokens, vectors.truncated
            return Vectors(space_id=vectors.space_id, tower_id="tw-newer", values=values, tokens=tokens, truncated=cut)

    encoder = Replaced()
    with Retriever({"dense": encoder}, store_of({"dense": encoder})) as opened:
        assert opened.search(QUERY).tower_id == "tw-newer"


def test_each_leg_counts_as_much_as_its_weight_says(tmp_path: Path) -> None:
    weights = {"terms": 2.0, "other": 0.25}
    config = configured(tmp_path, towers(), search=SearchSettings(fusion="scores", weights=weights))
    with Retriever.open(config) as opened:
        answer = opened.search(QUERY, k=4)
    fakes = towers()
    store = store_of(fakes)  # type: ignore[arg-type]
    hits = {
        leg: store.search(leg, fake.encode([QUERY], "query"), 100)[0]  # type: ignore[attr-defined]
        for leg, fake in fakes.items()
    }
    expected = fuse(hits, 4, weights=weights, fusion="scores")
    assert [(each.id, each.score) for each in answer] == [(each.id, each.score) for each in expected]


def test_a_weight_for_a_leg_that_is_not_there_is_refused() -> None:
    encoder = HashEncoder()
    with pytest.raises(WrongUse, match="a weight for the leg 'spare', which is not there; this is searched by dense"):
        Retriever({"dense": encoder}, store_of({"dense": encoder}), weights={"spare": 2.0})


def test_some_of_the_legs_can_be_asked_for_and_a_retriever_may_have_some_encoders_only() -> None:
    encoder, words = HashEncoder(), WordEncoder()
    store = store_of({"terms": words, "body": encoder})
    with Retriever({"body": encoder, "terms": words}, store) as both:
        assert set(both.search(QUERY, legs=["body"])[0].legs) == {"body"}
    with Retriever({"body": encoder}, store) as opened:
        assert set(opened.search("copy a file")[0].legs) == {"body"}
    with Retriever({"terms": words}, store) as opened:
        assert [(result.id, set(result.legs)) for result in opened.search("copy")] == [("copy", {"terms"})]


def test_each_leg_refuses_its_own_foreigner() -> None:
    fakes = {"one": HashEncoder(), "two": HashEncoder(seed=1), "terms": WordEncoder()}
    store = store_of(fakes)
    for leg in fakes:
        stranger = HashEncoder(seed=7) if leg != "terms" else WordEncoder(terms=20_000)
        with pytest.raises(SpaceMismatch, match=f"cannot search the {leg} leg") as refusal:
            Retriever(fakes | {leg: stranger}, store)
        assert (refusal.value.expected, refusal.value.came) == (fakes[leg].spec.space_id, stranger.spec.space_id)
    with pytest.raises(SpaceMismatch, match="cannot search the one leg"):
        Retriever({"one": fakes["two"], "two": fakes["one"]}, store)
    with pytest.raises(WrongUse, match="has no leg 'three'; it has one, two, terms"):
        Retriever(fakes | {"three": HashEncoder()}, store)
    with pytest.raises(WrongUse, match="nothing to search by"):
        Retriever({}, store)


async def test_a_query_of_another_space_is_never_degraded_away() -> None:
    class Drifted(HashEncoder):
        """Says one space, and gives vectors of another."""

        def encode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
            return HashEncoder(seed=9).encode(texts, role)

    fakes = {"dense": Drifted(), "terms": WordEncoder()}
    store = store_of({"dense": HashEncoder(), "terms": fakes["terms"]})
    with Retriever(fakes, store, words=HostLexical()) as opened:
        for search in (lambda: asyncio.to_thread(opened.search, QUERY), lambda: opened.asearch(QUERY)):
            with pytest.raises(SpaceMismatch, match="cannot search the dense leg"):
                await search()


async def test_a_leg_that_is_lost_is_named_and_the_others_answer() -> None:
    class Lost(WordEncoder):
        """Cannot be reached."""

        def encode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
            if role == "query":
                raise Retry("the sparse tower does not answer")
            return super().encode(texts, role)

    fakes = {"dense": HashEncoder(), "terms": Lost()}
    with Retriever(fakes, store_of(fakes)) as opened:
        for answer in (opened.search(QUERY), await opened.asearch(QUERY)):
            assert answer.degraded == "no terms leg: the sparse tower does not answer"
            assert set(answer[0].legs) == {"dense"}
            assert answer.tower_id == fakes["dense"].spec.tower_id


def test_one_space_under_two_names_is_refused_for_writing_and_for_searching(tmp_path: Path) -> None:
    config = configured(tmp_path, towers())
    twice = config.model_copy(update={"spaces": config.spaces | {"again": config.spaces["dense"]}})
    for opened in (collection_of, Retriever.open):
        with pytest.raises(
            SpaceMismatch, match=r"\[spaces\.again\]: expected space other than .*, which \[spaces\.dense\] has"
        ):
            opened(twice)
