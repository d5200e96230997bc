"""The words of the embedded store: what is found, in which order, and that no text is a syntax error."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.space.vectors import Vector
from bartizan_connector.store import filters
from bartizan_connector.store.collection import Collection, FieldSpec, Head, Leg, Row
from bartizan_connector.store.embedded import EmbeddedBackend
from bartizan_connector.store.embedded.store import EmbeddedStore
from bartizan_connector.testing.rows import HOSTILE, SPACE

LEG = Leg(name="dense", kind="dense", dim=2, space_id=SPACE)
FIELDS = tuple(FieldSpec(name=name, type="string", default="") for name in ("title", "text", "kind"))
COLLECTION = Collection(name="worded", legs=(LEG,), fields=(*FIELDS, FieldSpec(name="year", type="int", default=0)))


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
