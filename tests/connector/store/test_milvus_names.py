"""Names and physical names in a Milvus Lite file: races, creators that are killed, aliases of others, indexes."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import grpc
import pytest
from pymilvus import DataType, MilvusClient

from bartizan_connector.base.errors import Retry, SpaceMismatch, Stop, WrongUse
from bartizan_connector.store.collection import Head
from bartizan_connector.store.milvus import MilvusBackend, lite
from bartizan_connector.store.milvus.indexes import Indexes
from bartizan_connector.store.milvus.names import Names
from bartizan_connector.testing.rows import COLLECTION, found, named, queries, row


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "index.db"


@pytest.fixture
def backend(path: Path) -> Iterator[MilvusBackend]:
    backend = MilvusBackend(str(path))
    yield backend
    backend.close()


@pytest.fixture
def client(path: Path) -> Iterator[MilvusClient]:
    """Somebody else, at the same file."""
    client = MilvusClient(lite.serve(path, create=True))
    yield client
    client.close()
    lite.release(path)


# ---- two first writers


def _come_second(backend: MilvusBackend, patch: pytest.MonkeyPatch, *, space_id: str = "") -> list[str]:
    """The next who creates finds at the last step that somebody has been quicker; what that one made is noted."""
    claim, made = Names.claim, list[str]()

    def claimed(self: Names, name: str, physical: str) -> bool:
        patch.setattr(Names, "claim", claim)
        first = backend.open(named(name, space_id=space_id) if space_id else COLLECTION)
        first.upsert([row("first", [1, 0, 0, 0])] if not space_id else [])
        made.append(first.physical_name)
        return claim(self, name, physical)

    patch.setattr(Names, "claim", claimed)
    return made


def test_who_comes_second_opens_what_the_first_made_and_drops_only_its_own(
    backend: MilvusBackend, client: MilvusClient, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = _come_second(backend, monkeypatch)
    second = MilvusBackend(str(path))
    store = second.open(COLLECTION)
    assert [store.physical_name] == made
    assert store.heads(["first"])["first"].version == 1
    assert sorted(client.list_collections()) == [made[0], f"{made[0]}__heads"]
    second.close()


def test_who_comes_second_with_another_tower_is_refused(
    backend: MilvusBackend, client: MilvusClient, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = _come_second(backend, monkeypatch, space_id="another")
    second = MilvusBackend(str(path))
    with pytest.raises(SpaceMismatch, match="another"):
        second.open(COLLECTION)
    assert sorted(client.list_collections()) == [made[0], f"{made[0]}__heads"]
    assert client.list_aliases()["aliases"] == [COLLECTION.name]


def test_many_back_ends_at_once_make_one(path: Path, client: MilvusClient) -> None:
    backends = [MilvusBackend(str(path)) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        stores = list(pool.map(lambda each: each.open(COLLECTION), backends))
    (physical,) = {store.physical_name for store in stores}
    assert sorted(client.list_collections()) == [physical, f"{physical}__heads"]
    for each in backends:
        each.close()


@pytest.mark.parametrize("error", [Retry("too slow"), Stop("no room"), KeyboardInterrupt()])
def test_what_could_not_be_made_whole_is_taken_away(
    backend: MilvusBackend, client: MilvusClient, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(Indexes, "complete", fail)
        with pytest.raises(type(error)):
            backend.open(COLLECTION)
    assert client.list_collections() == []
    assert backend.open(COLLECTION).heads(["a"]) == {}


def test_a_name_that_may_have_been_given_is_not_taken_away(
    backend: MilvusBackend, client: MilvusClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer was lost, not the call: others may have opened the collection by now, and written to it."""
    claim = Names.claim

    def lose_the_answer(self: Names, name: str, physical: str) -> bool:
        claim(self, name, physical)
        raise Retry("deadline exceeded")

    with monkeypatch.context() as patch:
        patch.setattr(Names, "claim", lose_the_answer)
        with pytest.raises(Retry):
            backend.open(COLLECTION)
    (physical,) = backend.aliases().values()
    assert sorted(client.list_collections()) == [physical, f"{physical}__heads"]
    assert backend.open(COLLECTION).physical_name == physical


def test_a_name_that_somebody_took_for_a_collection_is_told_and_nothing_is_left(
    backend: MilvusBackend, client: MilvusClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = Names.claim

    def too_late(self: Names, name: str, physical: str) -> bool:
        client.create_collection(name, dimension=4)
        return claim(self, name, physical)

    monkeypatch.setattr(Names, "claim", too_late)
    with pytest.raises(Stop, match="conflicts with an existing collection"):
        backend.open(COLLECTION)
    assert client.list_collections() == [COLLECTION.name]


def test_what_is_dropped_while_it_is_opened_is_made_anew(
    backend: MilvusBackend, client: MilvusClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = backend.open(COLLECTION)
    find = Names.find

    def find_and_lose(self: Names, name: str) -> Any:
        monkeypatch.setattr(Names, "find", find)
        found = find(self, name)
        backend.drop(COLLECTION.name)
        return found

    monkeypatch.setattr(Names, "find", find_and_lose)
    second = backend.open(COLLECTION)
    assert second.physical_name != first.physical_name
    assert sorted(client.list_collections()) == [second.physical_name, f"{second.physical_name}__heads"]


@pytest.mark.packaging
@pytest.mark.parametrize(
    ("dies_in", "orphans"), [("schema_of", 0), ("properties_of", 0), ("complete", 1), ("claim", 1)]
)
def test_a_creator_that_is_killed_halfway_is_in_nobodys_way(path: Path, dies_in: str, orphans: int) -> None:
    program = f"""
import os, signal
from bartizan_connector.store.milvus import MilvusBackend, indexes, names, preparation
from bartizan_connector.testing.rows import COLLECTION
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
for owner in (preparation, indexes.Indexes, names.Names):
    if hasattr(owner, {dies_in!r}):
        setattr(owner, {dies_in!r}, die)
MilvusBackend({str(path)!r}).open(COLLECTION)
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == -signal.SIGKILL
    backend = MilvusBackend(str(path))
    assert backend.aliases() == {}
    assert list(backend.collections().values()) == [COLLECTION] * orphans
    left = list(backend.collections())
    with pytest.raises(WrongUse, match="suite"):
        backend.open(COLLECTION, create=False)
    store = backend.open(COLLECTION)
    store.upsert([row("a", [1, 0, 0, 0])])
    assert store.count() == 1
    for physical in left:
        backend.drop(physical)
    assert list(backend.collections()) == [store.physical_name]
    backend.close()


# ---- names of others


def test_an_alias_that_somebody_made_is_a_name_like_any_other(backend: MilvusBackend, client: MilvusClient) -> None:
    store = backend.open(COLLECTION)
    store.upsert([row("a", [1, 0, 0, 0])])
    client.create_alias(store.physical_name, "live")
    live = backend.open(named("live"), create=False)
    assert live.physical_name == store.physical_name
    live.upsert([row("b", [1, 0, 0, 0])])
    assert set(store.heads(["a", "b"])) == {"a", "b"}
    assert backend.aliases() == {"live": store.physical_name, COLLECTION.name: store.physical_name}


def test_what_is_not_ours_is_neither_listed_nor_dropped(backend: MilvusBackend, client: MilvusClient) -> None:
    schema = MilvusClient.create_schema()
    schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=10)
    schema.add_field("dense", DataType.FLOAT_VECTOR, dim=4)
    client.create_collection("theirs", schema=schema)
    client.create_alias("theirs", "also_theirs")
    assert backend.collections() == {}
    assert backend.aliases() == {}
    for name in ("theirs", "also_theirs"):
        for call in (backend.drop, lambda name: backend.open(named(name)), lambda name: backend.point("mine", name)):
            with pytest.raises(Stop, match="not made by Bartizan"):
                call(name)
    assert client.list_collections() == ["theirs"]


def test_dropping_takes_the_ledger_too(backend: MilvusBackend, client: MilvusClient) -> None:
    store = backend.open(COLLECTION)
    backend.drop(COLLECTION.name)
    assert client.list_collections() == []
    store.close()


def test_a_file_that_is_not_there_holds_nothing_and_is_not_made(path: Path) -> None:
    backend = MilvusBackend(str(path))
    assert (backend.collections(), backend.aliases()) == ({}, {})
    for call in (lambda: backend.drop("suite"), lambda: backend.point("suite", "suite__01234567")):
        with pytest.raises(WrongUse, match="no Milvus Lite file"):
            call()
    assert not path.exists()


def test_a_store_that_was_closed_says_so(backend: MilvusBackend) -> None:
    store = backend.open(COLLECTION)
    backend.close()
    with pytest.raises(WrongUse, match="closed"):
        store.upsert([row("a", [1, 0, 0, 0])])
    with pytest.raises(WrongUse, match="closed"):
        store.search("dense", queries([1, 0, 0, 0]), 1)
    assert backend.open(COLLECTION).count() == 0


# ---- indexes


def test_a_changed_index_setting_is_said_and_applied_on_demand(path: Path, client: MilvusClient) -> None:
    first = MilvusBackend(str(path))
    store = first.open(COLLECTION)
    store.upsert([row(f"d{i}", [i, 0, 0, 0]) for i in range(20)])
    first.close()
    second = MilvusBackend(str(path), index="hnsw")
    store = second.open(COLLECTION)
    (remark,) = store.remarks
    for word in ("dense leg", "'suite'", "FLAT", '[backend] index = "hnsw"', "HNSW", "reindex"):
        assert word in remark
    assert client.describe_index(store.physical_name, "dense")["index_type"] == "FLAT"
    before = store.search("dense", queries([1, 0, 0, 0]), 5)
    store.reindex()
    assert store.remarks == []
    assert client.describe_index(store.physical_name, "dense")["index_type"] == "HNSW"
    assert store.search("dense", queries([1, 0, 0, 0]), 5) == before
    second.close()
    third = MilvusBackend(str(path))
    assert "asks for FLAT" in third.open(COLLECTION).remarks[0]
    third.close()


def test_a_search_waits_for_an_index_that_is_built_anew(
    backend: MilvusBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = backend.open(COLLECTION)
    store.upsert([row("a", [1, 0, 0, 0])])
    complete = Indexes.complete

    def slowly(self: Indexes, *given: float) -> None:
        time.sleep(0.7)
        complete(self, *given)

    monkeypatch.setattr(Indexes, "complete", slowly)
    with ThreadPoolExecutor() as pool:
        rebuilding = pool.submit(store.reindex)
        while store._indexes.is_searchable:
            time.sleep(0.01)
        with pytest.raises(Retry, match="deadline"):
            store.search("dense", queries([1, 0, 0, 0]), 1, timeout=0.1)
        assert not rebuilding.done()
        (hits,) = store.search("dense", queries([1, 0, 0, 0]), 1)
        assert found(hits) == [("a", 0)]
        rebuilding.result()


@pytest.mark.packaging
def test_searches_that_are_under_way_when_an_index_is_built_anew_are_answered(backend: MilvusBackend) -> None:
    store = backend.open(COLLECTION)
    store.upsert([row("a", [1, 0, 0, 0])])

    def search_until(done: Event) -> int:
        answers = 0
        while not done.is_set():
            (hits,) = store.search("dense", queries([1, 0, 0, 0]), 1)
            answers += found(hits) == [("a", 0)]
        return answers

    done = Event()
    with ThreadPoolExecutor() as pool:
        searching = [pool.submit(search_until, done) for _ in range(2)]
        for _ in range(10):
            store.reindex()
        done.set()
        assert all(each.result() > 0 for each in searching)


def test_an_index_that_a_kill_left_unbuilt_is_built_when_it_is_opened_next(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = MilvusBackend(str(path))
    store = backend.open(COLLECTION)
    store.upsert([row("a", [1, 0, 0, 0])])

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Indexes, "complete", die)
        with pytest.raises(KeyboardInterrupt):
            store.reindex()
    backend.close()
    (hits,) = backend.open(COLLECTION, create=False).search("dense", queries([1, 0, 0, 0]), 1)
    assert found(hits) == [("a", 0)]
    backend.close()


# ---- answers that are too long for one message


class _TooLong(grpc.RpcError, grpc.Call):
    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.RESOURCE_EXHAUSTED

    def details(self) -> str:
        return "grpc: trying to send message larger than max (91013288 vs. 67108864)"

    add_callback = cancel = initial_metadata = is_active = time_remaining = trailing_metadata = None  # type: ignore


def test_what_is_too_long_for_one_answer_comes_in_several(
    backend: MilvusBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a server, whose limit is 64 MiB; here it is 50 titles."""
    store = backend.open(COLLECTION)
    store.upsert([row(f"d{i:03}", [1, i % 5, 0, 0], title=f"t{i}") for i in range(120)])
    vectors = queries([1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0])
    whole = store.search("dense", vectors, 100), list(store.scan()), store.get([f"d{i:03}" for i in range(70)])
    refused = 0

    def short(verb: str) -> Any:
        asked = getattr(MilvusClient, verb)

        def answer(self: MilvusClient, *arguments: Any, output_fields: Sequence[str], **options: Any) -> Any:
            nonlocal refused
            found = asked(self, *arguments, output_fields=output_fields, **options)
            rows = sum(map(len, found)) if verb == "search" else len(found)
            if "title" in output_fields and rows > 50:
                refused += 1
                raise _TooLong
            return found

        return answer

    for verb in ("search", "query"):
        monkeypatch.setattr(MilvusClient, verb, short(verb))
    assert store.search("dense", vectors, 100) == whole[0]
    assert list(store.scan()) == whole[1]
    assert store.get([f"d{i:03}" for i in range(70)]) == whole[2]
    assert refused > 5
    assert store.heads(["d000"]) == {"d000": Head(id="d000", version=1, hash="h")}
