"""How far one collection has followed another, and what is carried over."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.space.vectors import Vectors
from bartizan_connector.store.backend import Store
from bartizan_connector.store.collection import Collection, Head, Row
from bartizan_connector.store.memory import MemoryBackend
from bartizan_connector.stream.fence import is_torn, version_after
from bartizan_connector.stream.records import Remove
from bartizan_connector.stream.reembed.heads import compare, heads_of, relation
from bartizan_connector.stream.reembed.stored import StoredSource
from bartizan_connector.testing.encoder_fake import HashEncoder
from bartizan_connector.testing.rows import COLLECTION, row
from tests.connector.stream.streams import collection_for

HEADS = st.builds(
    Head,
    id=st.just("a"),
    version=st.integers(0, 3),
    hash=st.sampled_from(["", "x", "y"]),
    deleted=st.booleans(),
    origin=st.sampled_from(["", "file#1", "file#2", "topic/0"]),
    offset=st.integers(0, 2),
)


@given(head=HEADS, theirs=st.none() | HEADS)
def test_what_is_behind_is_just_what_the_fence_lets_through_as_newer(head: Head, theirs: Head | None) -> None:
    """Else a pass would bring over, again and again, what is not taken; or leave out what would be."""
    if is_torn(head):
        assert relation(head, theirs) == "agrees"
        return
    change = Remove(id="a", version=head.version, origin=head.origin, offset=head.offset)
    passes = version_after(change, theirs, now=10**18) is not None
    if relation(head, theirs) == "behind":
        assert passes
    elif passes:  # of two states of one file the fence takes the one that arrives; a follower goes by the newer one
        assert theirs is not None
        assert head.origin.partition("#")[0] == theirs.origin.partition("#")[0] != ""
        assert head.version <= theirs.version


@given(head=HEADS, theirs=HEADS)
def test_of_two_heads_at_most_one_is_behind(head: Head, theirs: Head) -> None:
    both = {relation(head, theirs), relation(theirs, head)}
    if not is_torn(head) and not is_torn(theirs):
        assert both in ({"behind", "ahead"}, {"agrees"}, {"unlike"})


def opened(name: str = "suite") -> Store:
    return MemoryBackend().open(COLLECTION.model_copy(update={"name": name}))


def test_a_difference_counts_each_kind_once() -> None:
    source, target = opened(), opened("other")
    for id, version in (("same", 1), ("newer", 2), ("missing", 1), ("older", 1)):
        source.upsert([row(id, [1, 0, 0, 0], version=version, hash=f"h{version}")])
    source.delete([Head(id="gone", version=3), Head(id="back", version=3)])
    for id, version in (("same", 1), ("newer", 1), ("older", 4), ("back", 2), ("own", 1)):
        target.upsert([row(id, [1, 0, 0, 0], version=version, hash=f"h{version}")])
    found = compare(source, target)
    counts = (found.documents, found.copied, found.deleted)
    assert counts == (4, 5, 2)
    # `gone` was never there, but that it is deleted has to be known
    assert (found.missing, found.extra, found.own, found.behind, found.lag) == (1, 1, 1, 2, 4)
    assert set(found.examples) == {"newer", "missing", "gone", "back", "own"}


def test_at_one_version_the_content_decides_wherever_it_came_from() -> None:
    source, target = opened(), opened("other")
    for id in ("same", "other"):
        source.upsert([replace(row(id, [1, 0, 0, 0], version=2, hash="h"), origin="file#1", offset=1)])
    target.upsert([replace(row("same", [1, 0, 0, 0], version=2, hash="h"), origin="topic/0", offset=9)])
    target.upsert([replace(row("other", [1, 0, 0, 0], version=2, hash="else"), origin="topic/0", offset=10)])
    source.delete([Head(id="gone", version=3)])
    target.upsert([row("gone", [1, 0, 0, 0], version=3)])
    found = compare(source, target)
    assert (found.unlike, found.lag, set(found.examples)) == (2, 0, {"other", "gone"})


def test_what_is_written_meanwhile_is_waited_for() -> None:
    source, target = opened(), opened("other")
    source.upsert([row("a", [1, 0, 0, 0], version=1)])
    waits = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        target.upsert([row("a", [1, 0, 0, 0], version=7)])

    assert compare(source, target, settle=60, sleep=sleep).lag == 0
    assert len(waits) == 1


def test_a_back_end_that_cannot_tell_its_heads_is_named() -> None:
    class Plain:
        collection = COLLECTION

    with pytest.raises(WrongUse, match=r"suite.*nobody can follow"):
        heads_of(Plain())  # type: ignore[arg-type]


def written(store: Store, texts: dict[str, str]) -> None:
    vectors: Vectors = HashEncoder().encode(list(texts.values()), "document")
    store.upsert(
        [
            Row(id=id, vectors={"dense": vectors[n]}, fields={"text": text}, version=1, hash=text)
            for n, (id, text) in enumerate(texts.items())
        ]
    )


def followed() -> tuple[Store, Store]:
    collection: Collection = collection_for(HashEncoder().spec)
    return MemoryBackend().open(collection), MemoryBackend().open(collection)


def test_a_pass_gives_what_is_ahead_in_batches_and_ends() -> None:
    source, target = followed()
    written(source, {f"d{n:04}": f"text {n}" for n in range(700)})
    one = StoredSource(source, target, {})
    batches = []
    while not one.ended:
        if batch := one.poll(0.0):
            batches.append(len(batch.messages))
            one.commit(batch)
    assert sum(batches) == one.given == 700
    assert max(batches) <= 256


def test_a_document_that_is_changed_while_it_is_read_comes_in_the_next_pass() -> None:
    source, target = followed()
    written(source, {"a": "one", "b": "two"})

    class Busy:
        def __getattr__(self, name: str) -> object:
            return getattr(source, name)

        collection = source.collection

        def get(self, ids: list[str]) -> object:
            found = source.get(ids)
            source.touch([replace(found["a"].head, hash="")])
            return found

    one = StoredSource(Busy(), target, {})  # type: ignore[arg-type]
    batch = one.poll(0.0)
    assert batch is not None
    assert [message.key for message in batch.messages] == ["b"]
