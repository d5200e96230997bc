"""The words of the embedded store: what is found, in which order, and that no text is a syntax error."""

import math
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.space.vectors import SparseVector, Vector
from bartizan_connector.store import filters
from bartizan_connector.store.collection import Collection, FieldSpec, Head, Leg, Row
from bartizan_connector.store.embedded import EmbeddedBackend
from bartizan_connector.store.embedded.layout import vector_bytes
from bartizan_connector.store.embedded.stems import counted, stem, terms_of
from bartizan_connector.store.embedded.store import EmbeddedStore
from bartizan_connector.testing.rows import HOSTILE, SPACE

LEG = Leg(name="dense", kind="dense", dim=2, space_id=SPACE)
FIELDS = tuple(FieldSpec(name=name, type="string", default="") for name in ("title", "text", "kind"))
COLLECTION = Collection(name="worded", legs=(LEG,), fields=(*FIELDS, FieldSpec(name="year", type="int", default=0)))

VOCABULARY = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta")


def row(id: str, text: str, *, chunk: int = 0, version: int = 1, **fields: str | int) -> Row:
    vectors = {"dense": Vector(SPACE, np.ones(2, np.float32))}
    return Row(id=id, chunk=chunk, vectors=vectors, fields={"text": text, **fields}, version=version, hash="h")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EmbeddedStore]:
    backend = EmbeddedBackend(tmp_path / "index.bartizan")
    yield backend.open(COLLECTION)
    backend.close()


def found(store: EmbeddedStore, text: str, k: int = 10, filter: str | None = None) -> list[tuple[str, int]]:
    assert store.words is not None
    return [(hit.id, hit.chunk) for hit in store.words.search(text, k, filters.parse(filter) if filter else None)]


def test_title_and_text_are_found_by_their_stems_without_accents(store: EmbeddedStore) -> None:
    store.upsert([row("a", "the dogs were running"), row("b", "nothing", title="Café"), row("c", "else", kind="cafe")])
    assert found(store, "a dog runs") == [("a", 0)]
    assert found(store, "CAFE") == [("b", 0)]
    assert found(store, "cafes") == [("b", 0)]


@pytest.mark.parametrize("text", ["the dogs were running, running, RUNNING", "Café, 東京 x2 x2", " .,- ", ""])
def test_words_are_stored_as_a_sparse_leg_would_store_them(text: str) -> None:
    counts = sorted(terms_of(text).items())
    indices = np.array([term for term, _ in counts], np.int32)
    weights = np.array([count for _, count in counts], np.float32)
    assert counted(text) == vector_bytes(Vector(SPACE, SparseVector(indices, weights)))


def test_the_rarer_word_and_the_shorter_text_rank_higher_and_bigger_is_better(store: EmbeddedStore) -> None:
    store.upsert([row(f"d{i}", "common filler words here") for i in range(20)] + [row("rare", "common unusual")])
    assert store.words is not None
    hits = store.words.search("common unusual", 3)
    assert hits[0].id == "rare"
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert all(hit.score > 0 for hit in hits)
    assert hits[0].fields == {"title": "", "text": "common unusual", "kind": "", "year": 0}


def test_ties_are_in_order_of_id_and_chunk_even_where_k_cuts_them(store: EmbeddedStore) -> None:
    ids = [f"t{(7 * i) % 60:02}" for i in range(60)]
    store.upsert([row(id, "the same text", chunk=chunk) for id in ids for chunk in (1, 0)])
    for k in (1, 3, 50, 119, 120, 500):
        assert found(store, "same", k) == [(id, chunk) for id in sorted(ids) for chunk in (0, 1)][:k]


def test_a_filter_is_applied_before_k_cuts(store: EmbeddedStore) -> None:
    store.upsert([row(f"d{i:03}", "fruit " * (200 - i), year=i) for i in range(200)])
    assert found(store, "fruit", 3, "year >= 190 and text != ''") == [("d190", 0), ("d191", 0), ("d192", 0)]
    assert found(store, "fruit", 3, "kind == 'none'") == []


def test_what_is_replaced_or_deleted_is_not_found_any_more(store: EmbeddedStore) -> None:
    store.upsert([row("a", "apple", chunk=0), row("a", "banana", chunk=1), row("b", "apple")])
    store.upsert([row("a", "cherry", version=2)])
    assert [found(store, word) for word in ("apple", "banana", "cherry")] == [[("b", 0)], [], [("a", 0)]]
    store.delete([Head(id="b", version=3)])
    assert found(store, "apple banana cherry") == [("a", 0)]
    store.touch([Head(id="a", version=4, hash="")])
    assert found(store, "cherry") == [("a", 0)]


@pytest.mark.parametrize(
    "text",
    [
        *HOSTILE,
        "",
        "AND",
        "NOT a",
        "a NEAR/2 b",
        "text: apple",
        "title:",
        '"',
        "a*",
        "^a",
        "(",
        "{a b} : c",
        "-a",
        "a" * 9999,
        "\ud800",
    ],
)
def test_no_text_is_a_syntax_error(store: EmbeddedStore, text: str) -> None:
    store.upsert([row("x", "unrelated")])
    assert found(store, text) == []


def test_hostile_texts_can_be_stored_found_and_taken_out_again(store: EmbeddedStore) -> None:
    store.upsert([row(f"h{i}", f"{text} needle{i}") for i, text in enumerate(HOSTILE)])
    for i in range(len(HOSTILE)):
        assert found(store, f"needle{i}") == [(f"h{i}", 0)]
    store.delete([Head(id=f"h{i}", version=2) for i in range(len(HOSTILE))])
    assert found(store, " ".join(f"needle{i}" for i in range(len(HOSTILE))), 100) == []


def test_a_very_long_query_is_answered(store: EmbeddedStore) -> None:
    store.upsert([row("a", "apple")])
    assert found(store, "apple " + " ".join(f"w{i}" for i in range(5000)) + " apple") == [("a", 0)]


def test_what_cannot_mean_anything_is_refused(store: EmbeddedStore, tmp_path: Path) -> None:
    assert store.words is not None
    with pytest.raises(WrongUse, match="k = 0"):
        store.words.search("a", 0)
    with pytest.raises(WrongUse, match="unknown field"):
        store.words.search("a", 1, filters.parse("nope == 1"))


def test_a_collection_without_texts_has_no_words(tmp_path: Path) -> None:
    backend = EmbeddedBackend(tmp_path / "other.bartizan")
    assert backend.open(Collection(name="bare", legs=(LEG,))).words is None
    backend.close()


def test_scores_are_bm25_over_the_rows_that_are_there(store: EmbeddedStore, tmp_path: Path) -> None:
    """Beside a slow sum over all texts, after replacements and deletions, here and in a process that comes later."""
    dice = random.Random(5)
    texts: dict[str, str] = {}
    for version in range(1, 40):
        rows = []
        for id in {f"d{dice.randrange(60)}" for _ in range(12)}:
            texts[id] = " ".join(dice.choices(VOCABULARY, k=dice.randrange(1, 9)))
            rows.append(row(id, texts[id], version=version, year=version % 3))
        store.upsert(rows)
        for id in dice.sample(sorted(texts), 2):
            del texts[id]
            store.delete([Head(id=id, version=version)])
    later = EmbeddedBackend(tmp_path / "index.bartizan")
    reader = later.open(COLLECTION, create=False)
    for query in ("alpha", "beta gamma", "zeta zeta eta nothing", "delta " * 3 + "epsilon"):
        wanted = slow_bm25(texts, query)
        for each in (store, reader):
            assert each.words is not None
            hits = each.words.search(query, 1000)
            assert {hit.id: hit.score for hit in hits} == pytest.approx(wanted, rel=1e-6)
            assert hits == sorted(hits, key=lambda hit: (-hit.score, hit.id))
    later.close()


def slow_bm25(texts: dict[str, str], query: str) -> dict[str, float]:
    mean = sum(len(text.split()) for text in texts.values()) / len(texts)
    scores = {}
    for id, text in texts.items():
        score, words = 0.0, text.split()
        for word in query.split():
            having = sum(word in other.split() for other in texts.values())
            often = words.count(word)
            rarity = math.log(1 + (len(texts) - having + 0.5) / (having + 0.5))
            score += rarity * often * 2.2 / (often + 1.2 * (0.25 + 0.75 * len(words) / mean))
        if score:
            scores[id] = score
    return scores


STEMS = """
caresses caress ponies poni ties ti cats cat feed feed agreed agre plastered plaster bled bled motoring motor sing sing
conflated conflat troubled troubl sized size hopping hop tanned tan falling fall hissing hiss fizzed fizz failing fail
filing file happy happi sky sky relational relat conditional condit rational ration valenci valenc digitizer digit
radically radic differently differ vilely vile analogously analog vietnamization vietnam predication predic
feudalism feudal decisiveness decis hopefulness hope callousness callous formality formal sensitivity sensit
triplicate triplic formative form formalize formal electrical electr hopeful hope goodness good revival reviv
allowance allow inference infer airliner airlin gyroscopic gyroscop adjustable adjust defensible defens irritant irrit
operator oper replacement replac adoption adopt homologous homolog communism commun activate activ effective effect
bowdlerize bowdler probate probat rate rate cease ceas controll control roll roll be be x86 x86 naïve naïve
"""
"""Each word and what is left of it, out of Porter's paper."""


def test_endings_are_cut_as_porter_says() -> None:
    words = STEMS.split()
    assert [stem(word) for word in words[::2]] == words[1::2]
