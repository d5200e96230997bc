"""Judging with a tower of counted words, whose answers can be worked out by hand."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bartizan_connector.base.errors import SpaceMismatch, WrongUse
from bartizan_connector.space.vectors import Vectors
from bartizan_training.data.collections import BeirData
from bartizan_training.evaluate.judging import Documents, encode_documents, judge, require_pair, search, time_queries
from tests.judged import WORDS, WordEncoder, spec_of_words, write_collection

texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map(" ".join)


def collection(folder: Path, corpus: dict[str, str], queries: dict[str, str]) -> BeirData:
    return BeirData.read(write_collection(folder, corpus, queries))


@pytest.fixture
def kitchen(tmp_path: Path) -> BeirData:
    corpus = {
        "d3": "apple apple bread",
        "d1": "apple",
        "d2": "apple",
        "d4": "cheese",
        "d5": "dates dates eggs figs grapes honey",
    }
    return collection(tmp_path / "kitchen", corpus, {"q1": "apple", "q2": "cheese bread", "q3": "figs"})


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_documents_are_ranked_by_inner_product_and_equal_ones_by_id(kitchen: BeirData, kind: str) -> None:
    encoder = WordEncoder(spec_of_words(kind=kind))
    judged = judge(kitchen, {"q1": {"d2": 1}, "q2": {"d4": 1}}, encode_documents(kitchen, encoder), encoder)
    assert judged.answers["q1"][:3] == ["d3", "d1", "d2"]
    assert judged.answers["q2"][:2] == ["d3", "d4"]
    assert judged.measured.per_query["q1"]["RR@10"] == pytest.approx(1 / 3)
    assert judged.measured.per_query["q2"]["RR@10"] == pytest.approx(1 / 2)


def test_a_sparse_answer_holds_only_documents_with_a_common_term(kitchen: BeirData) -> None:
    encoder = WordEncoder(spec_of_words(kind="sparse"))
    judged = judge(kitchen, {"q3": {"d4": 1}}, encode_documents(kitchen, encoder), encoder)
    assert judged.answers["q3"] == ["d5"]


@given(st.lists(texts, min_size=1, max_size=150), st.lists(texts, min_size=1, max_size=4), st.integers(1, 12))
def test_the_search_agrees_with_sorting_everything(corpus: list[str], queries: list[str], k: int) -> None:
    ids = tuple(f"d{number:03}" for number in range(len(corpus)))
    for kind in ("dense", "sparse"):
        encoder = WordEncoder(spec_of_words(kind=kind))
        documents = Documents(ids, encoder.encode(corpus, "document"), len(WORDS))
        for query, found in zip(queries, search(encoder.encode(queries, "query"), documents, k), strict=True):
            scores = [sum(text.split().count(word) for word in query.split()) for text in corpus]
            expected = sorted(range(len(corpus)), key=lambda position: (-scores[position], position))[:k]
            assert found == [position for position in expected if kind == "dense" or scores[position]]


def test_every_document_gets_its_own_vector_however_the_texts_are_ordered_for_encoding(tmp_path: Path) -> None:
    generator = np.random.default_rng(2)
    corpus = {f"d{n}": " ".join(generator.choice(WORDS, size=generator.integers(1, 30))) for n in range(200)}
    encoder = WordEncoder()
    documents = encode_documents(collection(tmp_path / "many", corpus, {"q": "apple"}), encoder)
    assert documents.ids == tuple(sorted(corpus))
    straight = WordEncoder().encode([corpus[id] for id in documents.ids], "document")
    assert np.array_equal(np.asarray(documents.vectors.values), np.asarray(straight.values))
    assert documents.vectors.tokens == straight.tokens
    assert documents.vectors.truncated == straight.truncated


def test_equal_texts_are_encoded_once(kitchen: BeirData) -> None:
    encoder = WordEncoder()
    encode_documents(kitchen, encoder)
    asked = [text for texts in encoder.asked for text in texts]
    assert sorted(asked) == sorted(set(kitchen.corpus.values()))
    assert len(asked) == 4


def test_cut_off_texts_are_counted(kitchen: BeirData) -> None:
    encoder = WordEncoder()
    documents = encode_documents(kitchen, encoder)
    assert sum(documents.vectors.truncated) == 1
    assert judge(kitchen, {"q1": {"d1": 1}}, documents, encoder).truncated == 0


def test_queries_are_timed_one_by_one(kitchen: BeirData) -> None:
    encoder = WordEncoder()
    documents = encode_documents(kitchen, encoder)
    encoder.asked.clear()
    latency = judge(kitchen, {"q1": {"d1": 1}, "q3": {"d5": 1}}, documents, encoder).latency
    assert latency.queries == 2
    assert 0 < latency.encode_p50 <= latency.encode_p95
    assert 0 < latency.search_p50 <= latency.search_p95
    batch, *single = encoder.asked
    assert len(batch) == 2
    assert all(len(texts) == 1 for texts in single)
    assert {texts[0] for texts in single} == set(batch)


def test_the_first_queries_only_warm_up_and_are_not_counted(kitchen: BeirData) -> None:
    class SlowToStart(WordEncoder):
        def encode(self, texts: Sequence[str], role: str, *, timeout: float | None = None) -> Vectors:
            if len(texts) == 1 and sum(len(asked) == 1 for asked in self.asked) < 3:
                time.sleep(0.05)
            return super().encode(texts, role, timeout=timeout)

    texts = ["apple", "bread", "figs"]
    latency = time_queries(texts, encode_documents(kitchen, WordEncoder()), SlowToStart())
    assert latency.encode_p95 < 50


def test_towers_of_two_spaces_are_refused(kitchen: BeirData) -> None:
    document, stranger = spec_of_words(), spec_of_words(space="tw-" + "9" * 32)
    with pytest.raises(SpaceMismatch, match=r"do not belong together: expected space tw-.*, but tw-9{32} came"):
        require_pair(document, stranger)
    documents = encode_documents(kitchen, WordEncoder(document))
    with pytest.raises(SpaceMismatch, match="the queries were encoded for other documents"):
        judge(kitchen, {"q1": {"d1": 1}}, documents, WordEncoder(stranger))


def test_a_tower_is_refused_for_a_role_that_it_does_not_play() -> None:
    both, query_only = spec_of_words(), spec_of_words(roles=["query"])
    with pytest.raises(WrongUse, match="encodes query only, but was asked for document vectors"):
        require_pair(query_only, both)
    with pytest.raises(WrongUse, match="encodes document only, but was asked for query vectors"):
        require_pair(both, spec_of_words(roles=["document"]))


def test_dense_queries_never_meet_sparse_documents(kitchen: BeirData) -> None:
    space = spec_of_words().space_id
    documents = encode_documents(kitchen, WordEncoder(spec_of_words(kind="sparse", space=space)))
    with pytest.raises(WrongUse, match="dense and sparse vectors cannot be compared"):
        judge(kitchen, {"q1": {"d1": 1}}, documents, WordEncoder())
