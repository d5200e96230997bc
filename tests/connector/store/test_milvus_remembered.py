"""On a Milvus server, who writes for a part of the ids asks for a head once, and anew where somebody else may know
better."""

from collections.abc import Iterable, Iterator
from contextlib import closing

import pytest

from bartizan_connector.base.errors import Displaced, Retry
from bartizan_connector.store.collection import Head
from bartizan_connector.store.milvus import MilvusBackend
from bartizan_connector.store.milvus.ledger import Entry, Ledger
from bartizan_connector.store.milvus.store import MilvusStore
from bartizan_connector.testing.rows import named, row
from tests.servers.milvus import MilvusServer

pytestmark = pytest.mark.server
PART = "docs[0]"


@pytest.fixture(autouse=True)
def _long_unsure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has to be sure says so: a busy server must not make it so."""
    monkeypatch.setattr("bartizan_connector.store.milvus.writing._UNSURE_SECONDS", 600.0)


@pytest.fixture
def workers(milvus: MilvusServer) -> Iterator[tuple[MilvusStore, MilvusStore]]:
    """Two of one group."""
    with closing(MilvusBackend(milvus.uri)) as first, closing(MilvusBackend(milvus.uri)) as second:
        one, other = first.open(named("remembered")), second.open(named("remembered"))
        one.claim("workers")
        other.claim("workers")
        yield one, other


@pytest.fixture
def asked(workers: tuple[MilvusStore, MilvusStore], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the first asks its server for."""
    ledger, ids = workers[0]._writer._ledger, list[str]()
    read = ledger.read

    def noted(some: Iterable[str]) -> dict[str, Entry]:
        ids.extend(some)
        return read(some)

    monkeypatch.setattr(ledger, "read", noted)
    return ids


def be_sure(store: MilvusStore) -> None:
    """As if the part had been taken a while ago."""
    store._writer._sure_from, store._writer._is_unsure = 0.0, False


def test_what_was_read_or_written_since_the_part_was_taken_is_not_asked_for_again(
    workers: tuple[MilvusStore, MilvusStore], asked: list[str]
) -> None:
    one, _ = workers
    mine = one.part(PART)
    mine.upsert([row("a", [1, 0, 0, 0])])
    be_sure(one)
    asked.clear()
    assert one.heads(["a", "new"])["a"].version == 1
    assert asked == ["a", "new"], "the collection's heads are those of now"
    asked.clear()
    assert {id: head.version for id, head in mine.heads(["a", "new"]).items()} == {"a": 1}
    mine.upsert([row("a", [0, 1, 0, 0], version=2), row("new", [0, 1, 0, 0], version=2)])
    mine.delete([Head(id="a", version=3)])
    heads = mine.heads(["a", "new"])
    assert (heads["a"].deleted, heads["a"].version, heads["new"].version) == (True, 3, 2)
    assert asked == []
    assert not one.get(["a"])


def test_right_after_the_part_was_taken_all_is_asked_for(
    workers: tuple[MilvusStore, MilvusStore], asked: list[str]
) -> None:
    one, _ = workers
    mine = one.part(PART)
    mine.upsert([row("a", [1, 0, 0, 0])])
    for _ in range(2):
        asked.clear()
        assert mine.heads(["a"])["a"].version == 1
        assert asked == ["a"]
    one._writer._sure_from = 0.0
    asked.clear()
    assert mine.heads(["a"])["a"].version == 1
    assert asked == ["a"], "what is remembered is from then"
    asked.clear()
    assert mine.heads(["a"])["a"].version == 1
    assert asked == []


def test_what_another_wrote_meanwhile_is_found_when_the_part_is_taken_again(
    workers: tuple[MilvusStore, MilvusStore],
) -> None:
    one, other = workers
    mine = one.part(PART)
    mine.upsert([row("a", [1, 0, 0, 0])])
    be_sure(one)
    assert mine.heads(["a"])["a"].version == 1
    other.part(PART).upsert([row("a", [0, 1, 0, 0], version=2)])
    assert mine.heads(["a"])["a"].version == 1, "what it remembers; whatever it decides by that is refused"
    with pytest.raises(Displaced):
        mine.touch([Head(id="a", version=3)])
    with pytest.raises(Displaced):
        mine.heads(["a"])
    assert one.part(PART).heads(["a"])["a"].version == 2


def test_after_a_call_that_failed_the_server_says_what_it_has_done(
    workers: tuple[MilvusStore, MilvusStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = workers
    mine = one.part(PART)
    mine.upsert([row("a", [1, 0, 0, 0])])
    be_sure(one)
    assert mine.heads(["a"])["a"].version == 1
    ledger: Ledger = one._writer._ledger
    write = ledger.write

    def without_answer(entries: list[Entry]) -> dict[str, str]:
        write(entries)
        raise Retry("no answer")

    with monkeypatch.context() as failing:
        failing.setattr(ledger, "write", without_answer)
        with pytest.raises(Retry):
            mine.touch([Head(id="a", version=2)])
    assert mine.heads(["a"])["a"].version == 2
