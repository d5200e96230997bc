"""One writer a collection on a Milvus server: the second is told who the first is, and the server itself stops one that
slept through its time."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import pytest
from pymilvus import MilvusClient

from bartizan_connector.base.errors import BartizanError, Displaced, Retry
from bartizan_connector.store.audit import Balance
from bartizan_connector.store.checks import MAX_HASH_BYTES
from bartizan_connector.store.collection import Head
from bartizan_connector.store.holder import Holder
from bartizan_connector.store.milvus import MilvusBackend
from bartizan_connector.store.milvus.lease import Record, alias_of
from bartizan_connector.store.milvus.ledger import LEASE_ID, Ledger
from bartizan_connector.store.milvus.names import PARTS, WRITERS, marker_of
from bartizan_connector.store.milvus.parts import part_alias_of
from bartizan_connector.testing.rows import COLLECTION, named, queries, row
from tests.servers.milvus import MilvusServer

HERE = os.getpid()


def backends(where: str, count: int, silence: float = 300.0) -> list[MilvusBackend]:
    return [MilvusBackend(where, consistency="Strong", index="flat", silence=silence) for _ in range(count)]


def texts(store: object) -> set[str]:
    return {hit.id for hit in store.search("dense", queries([1, 0, 0, 0]), 100)[0]}  # type: ignore[attr-defined]


def refused_second(where: str, name: str) -> None:
    first, second = backends(where, 2)
    one, other, late = first.open(named(name)), first.open(named(name)), second.open(named(name))
    one.upsert([row("a", [1, 0, 0, 0])])
    other.upsert([row("b", [1, 0, 0, 0])])
    for write in (
        lambda: late.upsert([row("c", [1, 0, 0, 0])]),
        lambda: late.touch([Head(id="a", version=2)]),
        lambda: late.delete([Head(id="a", version=2)]),
        lambda: late.purge(1),
        late.claim,
    ):
        with pytest.raises(Retry, match=rf"is being written by process {HERE} on .*, since 20"):
            write()
    assert texts(late) == {"a", "b"}, "who may not write may read"
    one.close()
    with pytest.raises(Retry, match="being written"):
        late.claim()
    other.close()
    late.upsert([row("c", [1, 0, 0, 0])])
    assert texts(late) == {"a", "b", "c"}
    assert LEASE_ID not in late.heads([LEASE_ID, "a"])
    assert [document.id for document in late.scan()] == ["a", "b", "c"]
    assert set(second.aliases()) >= {name}
    assert not any(alias.startswith(WRITERS) for alias in second.aliases())
    second.close()
    first.close()


def test_a_second_writer_in_this_process_is_told_who_the_first_is(tmp_path: Path) -> None:
    refused_second(str(tmp_path / "index.db"), "docs")


@pytest.mark.server
def test_a_second_writer_of_a_server_is_told_who_the_first_is(milvus: MilvusServer) -> None:
    refused_second(milvus.uri, named("lease").name)


def shared_by_a_group(where: str, name: str) -> None:
    many = backends(where, 4)
    one, other, stranger, alone = (backend.open(named(name)) for backend in many)
    one.claim("workers")
    other.claim("workers")
    one.upsert([row("a", [1, 0, 0, 0])])
    other.upsert([row("b", [1, 0, 0, 0])])
    for claim in (lambda: stranger.claim("others"), alone.claim):
        with pytest.raises(Retry, match=rf"being written by process {HERE} on behalf of group workers, since 20"):
            claim()
    one.close()
    other.upsert([row("c", [1, 0, 0, 0])])
    with pytest.raises(Retry, match="group workers"):
        alone.claim()
    (patient,) = backends(where, 1, silence=0.0)
    last = patient.open(named(name))
    last.upsert([row("d", [1, 0, 0, 0])])
    with pytest.raises(BartizanError, match="written by"):
        other.upsert([row("e", [1, 0, 0, 0])])
    assert texts(last) == {"a", "b", "c", "d"}
    for backend in (*many, patient):
        backend.close()


@pytest.mark.server
def test_the_last_of_a_group_that_leaves_in_good_order_gives_the_lease_back(milvus: MilvusServer) -> None:
    many = backends(milvus.uri, 4)
    one, other, alone, more = (backend.open(named("leaving")) for backend in many)
    one.claim("workers")
    other.claim("workers")
    one.part("docs[0]").upsert([row("a", [1, 0, 0, 0])])
    one.close()
    with pytest.raises(Retry, match="group workers"):
        alone.claim()
    other.close()
    alone.upsert([row("b", [1, 0, 0, 0])])
    assert texts(alone) == {"a", "b"}
    alone.close()
    more.claim("workers")
    assert not more._prepared.ledger.members().keys() - {more._writer.lease._entry_id}
    for backend in many:
        backend.close()


@pytest.mark.server
def test_of_two_who_leave_at_the_same_time_one_gives_the_lease_back(
    milvus: MilvusServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = backends(milvus.uri, 3)
    one, other, alone = (backend.open(named("together")) for backend in many)
    one.claim("workers")
    other.claim("workers")
    ledger = one._writer.lease._ledger
    remove = ledger.remove

    def beside_the_other(ids: Sequence[str]) -> None:
        other.close()
        remove(ids)

    monkeypatch.setattr(ledger, "remove", beside_the_other)
    one.close()
    alone.claim()
    for backend in many:
        backend.close()


@pytest.mark.server
def test_a_take_is_in_nobodys_way_when_it_fails_and_a_claim_that_was_cut_off_is_not_in_its_way(
    milvus: MilvusServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = backends(milvus.uri, 2)
    one, stranger = (backend.open(named("halfway")) for backend in many)
    one.claim("workers")
    lease = one._writer.lease

    def away(part: str) -> bool:
        raise Retry("away")

    with monkeypatch.context() as failing:
        failing.setattr(lease._parts, "clear", away)
        with pytest.raises(Retry, match="away"):
            one.part("docs[0]")
    made = lease._names.every_alias_of(one.physical_name)
    assert not any(alias.startswith(PARTS) for alias in made)
    assert stranger._writer.lease._move_marker(lease._highest() + 1)
    one.part("docs[0]").upsert([row("a", [1, 0, 0, 0])])
    for backend in many:
        backend.close()


@pytest.mark.server
def test_who_takes_a_part_is_the_only_one_who_writes_for_it(milvus: MilvusServer) -> None:
    many = backends(milvus.uri, 2)
    one, other = (backend.open(named("parts")) for backend in many)
    one.claim("workers")
    other.claim("workers")
    first, beside = one.part("docs[0]"), other.part("docs[1]")
    first.upsert([row("a", [1, 0, 0, 0])])
    second = other.part("docs[0]")
    for write in (
        lambda: first.upsert([row("a", [1, 0, 0, 0], version=2)]),
        lambda: first.touch([Head(id="a", version=2)]),
        lambda: first.delete([Head(id="a", version=2)]),
    ):
        with pytest.raises(Displaced, match=r"docs\[0\] of .* is written by another worker of group workers now"):
            write()
    second.upsert([row("a", [0, 1, 0, 0], version=3)])
    beside.upsert([row("b", [1, 0, 0, 0])])
    one.part("docs[2]").upsert([row("c", [1, 0, 0, 0])])
    assert one.heads(["a"])["a"].version == 3
    again = one.part("docs[0]")
    again.touch([Head(id="a", version=4)])
    with pytest.raises(Displaced):
        second.touch([Head(id="a", version=3)])
    assert other.heads(["a"])["a"].version == 4
    one.leave_part("docs[0]")
    with pytest.raises(Displaced):
        again.touch([Head(id="a", version=5)])
    assert set(many[0].aliases()) >= {named("parts").name}
    assert not any(alias.startswith("bartizan_part") for alias in many[0].aliases())
    many[1].close()
    one.upsert([row("d", [1, 0, 0, 0])])
    many[0].close()


@pytest.mark.server
def test_workers_of_one_group_write_side_by_side_on_a_server(milvus: MilvusServer) -> None:
    shared_by_a_group(milvus.uri, named("group").name)


@pytest.mark.server
def test_a_writer_that_slept_is_stopped_by_the_server(milvus: MilvusServer) -> None:
    """It sleeps between its look at the lease and its write, where no look of its own could help it."""
    (sleeper,), (follower,) = backends(milvus.uri, 1), backends(milvus.uri, 1, silence=0.0)
    asleep, awake = sleeper.open(named("sleeper")), follower.open(named("sleeper"))
    asleep.upsert([row("a", [1, 0, 0, 0]), row("gone", [1, 0, 0, 0])])
    assert asleep.heads(["a", "b", "gone"]).keys() == {"a", "gone"}
    awake.delete([Head(id="gone", version=9)])
    awake.upsert([row("a", [0, 1, 0, 0], version=9)])
    for write in (
        lambda: asleep.upsert([row("a", [1, 0, 0, 0], version=2), row("b", [1, 0, 0, 0])]),
        lambda: asleep.touch([Head(id="a", version=2)]),
    ):
        with pytest.raises(BartizanError, match=f"written by another now .process {HERE}|being written by process"):
            write()
    assert {id: head.version for id, head in awake.heads(["a", "b", "gone"]).items()} == {"a": 9, "gone": 9}
    assert texts(awake) == {"a"}
    follower.close()
    asleep.upsert([row("b", [1, 0, 0, 0])])
    assert texts(asleep) == {"a", "b"}, "once nobody writes, it may again, from what is there now"
    sleeper.close()


WRITER = """
import sys
from bartizan_connector.store.milvus import MilvusBackend
from bartizan_connector.testing.rows import named, row
store = MilvusBackend(sys.argv[1], consistency="Strong", index="flat").open(named(sys.argv[2]))
for number in range(10**6):
    store.upsert([row(f"d{number % 20}", [1, 0, 0, 0], version=number + 1)])
    print(number, flush=True)
"""


@pytest.mark.server
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_writer_that_died_or_stalls_is_succeeded(milvus: MilvusServer, how: signal.Signals) -> None:
    name = named(f"halted{int(how)}").name
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, milvus.uri, name], stdout=subprocess.PIPE, text=True
    ) as worker:
        try:
            assert worker.stdout is not None
            for _ in range(3):
                worker.stdout.readline()
            (impatient,) = backends(milvus.uri, 1)
            with pytest.raises(Retry, match=f"process {worker.pid} on"):
                impatient.open(named(name)).claim()
            os.kill(worker.pid, how)
            if how == signal.SIGKILL:
                worker.wait()
            (patient,) = backends(milvus.uri, 1, silence=300.0 if how == signal.SIGKILL else 0.0)
            store = patient.open(named(name))
            store.delete([Head(id=f"d{number}", version=2**40) for number in range(20)])
            if how == signal.SIGSTOP:
                os.kill(worker.pid, signal.SIGCONT)
                assert worker.wait(60) != 0
            assert texts(store) == set()
            assert all(head.deleted for head in store.heads([f"d{number}" for number in range(20)]).values())
            patient.close()
            impatient.close()
        finally:
            worker.kill()


@pytest.mark.server
def test_of_many_who_claim_at_once_one_writes(milvus: MilvusServer) -> None:
    """Round after round; in the first, they create the collection at once too."""
    name, count = named("crowd").name, 5
    barrier = Barrier(count)
    refused = re.compile(f"being written by process {HERE}|claimed by several")

    def claim(backend: MilvusBackend) -> str:
        store = backend.open(named(name))
        barrier.wait()
        try:
            store.claim()
            store.upsert([row("a", [1, 0, 0, 0])])
        except Retry as error:
            return str(error)
        return "claimed"

    for _ in range(6):
        many = backends(milvus.uri, count)
        with ThreadPoolExecutor(count) as pool:
            told = list(pool.map(claim, many))
        assert told.count("claimed") == 1, told
        assert all(refused.search(each) for each in told if each != "claimed")
        for backend in many:
            backend.close()


@pytest.mark.server
def test_who_claims_by_what_it_saw_long_ago_is_no_writer(milvus: MilvusServer) -> None:
    early, late = backends(milvus.uri, 2)
    name = named("long_ago").name
    slow, quick = early.open(named(name)), late.open(named(name))
    lease = slow._writer.lease
    epoch, _ = lease._standing()
    for _ in range(2):  # and meanwhile two others came and went
        quick.claim()
        quick.close()
        quick = late.open(named(name))
    assert not lease._take(epoch + 1)
    client = MilvusClient(milvus.uri, timeout=30)
    client.create_collection(marker_of(slow.physical_name, epoch), schema=Ledger.marker_schema(), timeout=30)
    assert not lease._take(epoch + 1), "not even by a marker that a race left"
    quick.upsert([row("a", [1, 0, 0, 0])])
    assert texts(quick) == {"a"}
    early.close()
    late.drop(name)
    assert not [
        each for each in client.list_collections(timeout=30) if each.startswith(marker_of(slow.physical_name, 0)[:-10])
    ]
    late.close()
    client.close()


@pytest.mark.server
def test_a_claim_that_was_cut_off_between_its_alias_and_its_name_is_in_nobodys_way(milvus: MilvusServer) -> None:
    (backend,) = backends(milvus.uri, 1)
    store = backend.open(named("cut"))
    client = MilvusClient(milvus.uri, timeout=30)
    client.create_alias(store.physical_name, alias_of(store.physical_name, 1), timeout=30)
    client.create_collection(marker_of(store.physical_name, 2), schema=Ledger.marker_schema(), timeout=30)
    store.upsert([row("a", [1, 0, 0, 0])])
    aliases = client.list_aliases(store.physical_name, timeout=30)["aliases"]
    assert set(aliases) == {alias_of(store.physical_name, 3), named("cut").name}
    backend.drop(named("cut").name)
    assert store.physical_name not in client.list_collections(timeout=30)
    backend.close()
    client.close()


def test_a_record_fits_the_field_that_it_is_in_and_comes_back() -> None:
    us = Holder(token="f" * 32, pid=2**22, host="ä" * 90, begun="9" * 20, since="2026-11-26T20:30:14+00:00", seen=1.5e9)
    for record in (
        Record(epoch=10**6, holder=us),
        Record(epoch=7, balance=Balance(rows=10**12, live=10**12, deleted=0)),
        Record(epoch=1),
    ):
        entry = record.entry()
        assert len(entry.head.hash) <= MAX_HASH_BYTES
        assert entry.head.hash.isascii()
        shown = replace(us, host="?" * 64) if record.holder else None
        assert Record.of(entry) == replace(record, holder=shown)


def test_what_was_there_at_the_end_is_written_down(tmp_path: Path) -> None:
    (backend,) = backends(str(tmp_path / "index.db"), 1)
    store = backend.open(COLLECTION)
    store.upsert([row("a", [1, 0, 0, 0]), row("a", [1, 0, 0, 0], chunk=1), row("b", [1, 0, 0, 0])])
    store.delete([Head(id="b", version=2), Head(id="c", version=2)])
    store.close()
    again = backend.open(COLLECTION)
    record = again._writer.lease.read()
    assert record == Record(epoch=1, balance=Balance(rows=2, live=1, deleted=2))
    assert again.purge(2**62) == 2
    assert again.heads([LEASE_ID]) == {}
    backend.close()


def test_no_alias_of_a_writer_begins_as_another_or_as_a_collection() -> None:
    """A server of 2.3 forgets with an alias all that begin with it."""
    names = ("docs", "docs__0a1b2c3d", "docs__0a1b2c3d__heads")
    aliases = [alias_of(name, epoch) for name in names for epoch in range(12)]
    aliases += [part_alias_of(name, epoch, "docs[1]", "f" * 16) for name in names for epoch in range(12)]
    assert not any(one != other and other.startswith(one) for one in [*aliases, "docs"] for other in aliases)


@pytest.mark.server
def test_a_collection_that_had_many_writers_can_be_dropped(milvus: MilvusServer) -> None:
    name = named("many_writers").name
    client = MilvusClient(milvus.uri, timeout=30)
    (maker,) = backends(milvus.uri, 1)
    physical = maker.open(named(name)).physical_name
    client.create_collection(marker_of(physical, 89), schema=Ledger.marker_schema(), timeout=30)
    for epoch in range(1, 90):
        client.create_alias(physical, alias_of(physical, epoch), timeout=30)
        if epoch > 1:
            client.drop_alias(alias_of(physical, epoch - 1), timeout=30)
    maker.open(named(name)).claim()
    maker.drop(name)
    assert name not in maker.aliases()
    maker.close()
    client.close()
