"""A refused request is narrowed down to exactly the ids at fault: in the abstract, and in a real Milvus Lite file."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bartizan_connector.base.errors import Reject, Stop
from bartizan_connector.store.backend import Store
from bartizan_connector.store.collection import Head
from bartizan_connector.store.milvus import MilvusBackend, ledger, schema
from bartizan_connector.store.narrowing import raise_refused, refused_of
from bartizan_connector.testing.rows import COLLECTION, row

LONG = 700
"""Longer than the strings of a collection that was made with less room than our checks allow."""


@given(st.lists(st.booleans(), max_size=70))
def test_exactly_the_poisonous_are_found_and_all_others_written_once(poisonous: list[bool]) -> None:
    written: list[str] = []
    poison = {f"d{i}" for i, is_poison in enumerate(poisonous) if is_poison}

    def send(ids: Sequence[str]) -> None:
        if poison & set(ids):
            raise Reject(ids, "refused as a whole")
        written.extend(ids)

    ids = [f"d{i}" for i in range(len(poisonous))]
    assert set(refused_of(ids, send, str)) == poison
    assert written == [id for id in ids if id not in poison]


def test_one_of_256_costs_few_requests() -> None:
    requests = 0

    def send(ids: Sequence[int]) -> None:
        nonlocal requests
        requests += 1
        if 77 in ids:
            raise Reject([], "refused as a whole")

    assert list(refused_of(range(256), send, str)) == ["77"]
    assert requests == 17


def test_another_failure_ends_it() -> None:
    def send(_: Sequence[str]) -> None:
        raise Stop("the disk is full")

    with pytest.raises(Stop, match="disk"):
        refused_of(["a", "b"], send, str)


def test_some_refused_are_rejected_and_all_refused_are_a_stop() -> None:
    raise_refused({}, [], "here")
    raise_refused({}, ["a"], "here")
    with pytest.raises(Reject, match=r"'b' \(and 1 more ids\): too long") as raised:
        raise_refused({"b": "too long", "c": "too"}, ["a", "b", "c"], "here")
    assert raised.value.ids == ("b", "c")
    with pytest.raises(Stop, match=r"here refuses every document .*too long"):
        raise_refused({"b": "too long", "c": "too"}, ["b", "c"], "here")


# ---- a real store that refuses what our checks let pass


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """Its collection was made with less room for strings and hashes."""
    backend = MilvusBackend(str(tmp_path / "index.db"))
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MAX_STRING_BYTES", LONG - 1)
        patch.setattr(ledger, "MAX_HASH_BYTES", 100)
        store = backend.open(COLLECTION)
    yield store
    backend.close()


def test_one_poisonous_document_of_256_is_rejected_and_255_are_written(store: Store) -> None:
    ids = [f"d{i:03}" for i in range(256)]
    store.upsert([row("d077", [9, 0, 0, 0], chunk=chunk, title=f"old {chunk}") for chunk in range(3)])
    rows = [row(id, [1, 0, 0, 0], version=2, title="x" * LONG * (id == "d077")) for id in ids]
    rows += [row("d077", [1, 0, 0, 0], chunk=chunk, version=2) for chunk in (1, 2, 3)]
    with pytest.raises(Reject, match=r"'d077'.*exceeds max_length") as raised:
        store.upsert(rows)
    assert raised.value.ids == ("d077",)
    heads = store.heads(ids)
    assert {id for id, head in heads.items() if head.version == 2} == set(ids) - {"d077"}
    assert heads["d077"] == Head(id="d077", version=1, hash="h")
    assert [one.fields["title"] for one in store.get(["d077"])["d077"].rows] == ["old 0", "old 1", "old 2"]
    store.upsert([each for each in rows if each.id != "d077"])
    assert store.count() == 258


def test_a_store_that_refuses_every_document_is_stopped_at(store: Store) -> None:
    with pytest.raises(Stop, match="refuses every document") as raised:
        store.upsert([row(f"d{i}", [1, 0, 0, 0], title="x" * LONG) for i in range(5)])
    assert type(raised.value) is Stop
    assert store.heads([f"d{i}" for i in range(5)]) == {}


def test_a_head_that_the_ledger_refuses_is_rejected_alone(store: Store) -> None:
    store.upsert([row("bad", [1, 0, 0, 0], chunk=chunk) for chunk in range(2)])
    heads = [Head(id=id, version=3, hash="h" * (200 if id == "bad" else 64)) for id in ("a", "bad", "b")]
    with pytest.raises(Reject, match="'bad'") as raised:
        store.touch(heads)
    assert raised.value.ids == ("bad",)
    assert {id: head.version for id, head in store.heads(["a", "bad", "b"]).items()} == {"a": 3, "bad": 1, "b": 3}
    with pytest.raises(Stop, match="refuses every document"):
        store.touch(heads[1:2])


def test_rows_of_which_the_ledger_refuses_the_announcement_are_not_written(store: Store, tmp_path: Path) -> None:
    rows = [row(id, [1, 0, 0, 0], chunk=chunk) for id in ("a", "i" * 300) for chunk in range(2)]
    store.upsert(rows[:1])
    refusing = ledger.Ledger._send

    def send(self: ledger.Ledger, entries: Sequence[ledger.Entry]) -> None:
        if any(entry.head.id == "i" * 300 for entry in entries):
            raise Reject([], "no such ids here")
        refusing(self, entries)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger.Ledger, "_send", send)
        with pytest.raises(Reject, match="no such ids") as raised:
            store.upsert(rows)
    assert raised.value.ids == ("i" * 300,)
    assert store.count() == 2
