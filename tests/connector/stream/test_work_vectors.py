"""Vectors that cannot be right: a text that is to blame is set aside, a broken tower stops the run."""

from collections.abc import Sequence

import numpy as np
import pytest

from bartizan_connector.base.errors import SpaceMismatch, Stop
from bartizan_connector.space.spec import Role
from bartizan_connector.space.vectors import SparseVector, Vectors
from bartizan_connector.store.collection import Collection, Leg
from bartizan_connector.store.memory import MemoryBackend
from bartizan_connector.stream.work import run
from bartizan_connector.testing.encoder_fake import HashEncoder
from tests.connector.stream.faults import COLLECTION, ENCODER, run_dense, stored
from tests.connector.stream.streams import FIELDS, ListSource, collection_for, message
from tests.connector.testing.sparse_fake import WordEncoder


class Overflowing(HashEncoder):
    """Gives no finite vector for some texts, as a tower of low precision may."""

    def __init__(self, *texts: str, value: float = float("nan"), everything: bool = False) -> None:
        super().__init__(dim=8, max_tokens=3)
        self.texts = set(texts)
        self.value = value
        self.everything = everything

    def encode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
        vectors = super().encode(texts, role)
        values = np.array(vectors.values)
        for position, text in enumerate(texts):
            if self.everything or text in self.texts:
                values[position, 3] = self.value
        return Vectors(
            space_id=vectors.space_id,
            tower_id=vectors.tower_id,
            values=values,
            tokens=vectors.tokens,
            truncated=vectors.truncated,
        )


class OverflowingWords(WordEncoder):
    """The same of a sparse tower."""

    def _vector(self, words: Sequence[str]) -> SparseVector:
        whole = super()._vector(words)
        return SparseVector(whole.indices, whole.weights * np.float32("inf")) if "thirteen" in words else whole


REASON = "the tower gives NaN or infinity for this text; change the text, or ingest it with another tower"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_text_without_a_finite_vector_is_set_aside_and_the_rest_goes_on(value: float) -> None:
    texts = [f"text {number}" for number in range(20)]
    source, backend = ListSource([message(text[5:], text, 1) for text in texts]), MemoryBackend()
    report = run_dense(source, Overflowing("text 13", "text 4", value=value), backend, COLLECTION)
    assert sorted(source.dead) == [("list:13@1", REASON), ("list:4@1", REASON)]
    assert (report.written, report.dead, source.committed) == (18, 2, 20)
    assert set(stored(backend)) == {text[5:] for text in texts} - {"13", "4"}


def test_a_sparse_tower_is_treated_alike() -> None:
    encoder, backend = OverflowingWords(), MemoryBackend()
    collection = collection_for(encoder.spec)
    source = ListSource([message("a", "one", 1), message("b", "thirteen", 1), message("c", "two", 1)])
    report = run_dense(source, encoder, backend, collection)
    assert (source.dead, report.written) == ([("list:b@1", REASON)], 2)
    assert set(backend.open(collection).heads(["a", "b", "c"])) == {"a", "c"}


def test_the_next_run_meets_the_bad_text_alone_and_sets_it_aside_again() -> None:
    backend, encoder = MemoryBackend(), Overflowing("bad")
    messages = [message("a", "one", 1), message("b", "bad", 1)]
    for _ in range(2):
        source = ListSource(messages)
        assert run_dense(source, encoder, backend, COLLECTION).dead == 1
        assert [position for position, _ in source.dead] == ["list:b@1"]
    assert stored(backend) == {"a": "one"}


def test_a_tower_that_gives_nothing_finite_stops_the_run_and_no_document_is_blamed() -> None:
    source, backend = ListSource([message("a", "one", 1), message("b", "two", 1)]), MemoryBackend()
    with pytest.raises(Stop, match=r"tower 'hash-0' \(tw-\w+\) is broken: .*NaN or infinity\. Export it again") as stop:
        run_dense(source, Overflowing(everything=True), backend, COLLECTION)
    assert stop.value.exit_code == 1
    assert (source.dead, source.committed, stored(backend)) == ([], 0, {})


@pytest.mark.parametrize(
    ("answer", "how"),
    [
        (HashEncoder(dim=5).encode(["one", "two"], "document"), "vectors of length 5, its spec promises 8"),
        (HashEncoder(dim=8).encode(["one"], "document"), "1 vectors for 2 texts"),
        (WordEncoder().encode(["one", "two"], "document"), "is dense by its spec, but gives sparse vectors"),
    ],
)
def test_a_tower_that_does_not_keep_its_spec_stops_the_run(answer: Vectors, how: str) -> None:
    class Wrong(HashEncoder):
        """Gives that answer to everything."""

        def encode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
            return answer

    source, backend = ListSource([message("a", "one", 1), message("b", "two", 1)]), MemoryBackend()
    with pytest.raises(Stop, match=how) as stop:
        run_dense(source, Wrong(dim=8, max_tokens=3), backend, COLLECTION)
    assert "tower 'hash-0'" in str(stop.value)
    assert stop.value.exit_code == 1
    assert (source.dead, source.committed, stored(backend)) == ([], 0, {})


def test_a_tower_fills_the_leg_of_its_kind_and_space_whatever_it_is_called() -> None:
    backend = MemoryBackend()
    body = Collection(name="docs", legs=(Leg.of(ENCODER.spec, "body"),), fields=FIELDS)
    run_dense(ListSource([message("a", "one", 1)]), ENCODER, backend, body)
    (hits,) = backend.open(body).search("body", ENCODER.encode(["one"], "query"), 5)
    assert [hit.id for hit in hits] == ["a"]


def test_a_tower_of_another_kind_or_space_is_refused_before_anything_is_written() -> None:
    backend, words = MemoryBackend(), WordEncoder()
    with pytest.raises(SpaceMismatch, match=r"tower 'words' cannot fill the dense leg of .*is sparse") as refusal:
        run_dense(ListSource([message("a", "one", 1)]), words, backend, COLLECTION)
    assert (refusal.value.expected, refusal.value.came) == (ENCODER.spec.space_id, words.spec.space_id)
    both = collection_for(ENCODER.spec, words.spec)
    with pytest.raises(SpaceMismatch, match="tower 'words' cannot fill the dense leg of collection 'docs'"):
        run(ListSource([]), {"dense": words, "sparse": ENCODER}, backend, both)
    other = HashEncoder(dim=8, seed=1)
    with pytest.raises(SpaceMismatch, match="tower 'hash-1' cannot fill the dense leg of collection 'docs'"):
        run(ListSource([]), {"dense": other, "sparse": words}, backend, both)
    assert backend.collections() == {}
