"""A server may read out what was just replaced as it was, or as gone: a writer goes by what it wrote itself."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bartizan_connector.store.collection import Head
from bartizan_connector.store.milvus.ledger import Entry
from bartizan_connector.store.milvus.writing import Writer


class Ledger:
    """Keeps what is written, and can be told to show something else."""

    name = "docs__1__heads"

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.shown: dict[str, Entry] | None = None

    def read(self, ids: Sequence[str]) -> dict[str, Entry]:
        entries = self.entries if self.shown is None else self.shown
        return {id: entries[id] for id in ids if id in entries}

    def write(self, entries: Sequence[Entry]) -> dict[str, str]:
        self.entries |= {entry.head.id: entry for entry in entries}
        return {}


class Lease:
    is_new = True

    def claim(self) -> bool:
        is_new, self.is_new = self.is_new, False
        return is_new

    @contextmanager
    def by(self, part: str | None) -> Iterator[None]:
        assert part is None
        yield


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def writer(ledger: Ledger) -> Writer:
    found = SimpleNamespace(physical="docs__1", contract=None)
    prepared: Any = SimpleNamespace(found=found, ledger=ledger)
    client = SimpleNamespace(flush=lambda *_, **__: None, describe_replica=lambda *_, **__: [])
    connection = SimpleNamespace(file=None, place="here", timeout=1.0, client=client)
    writer = Writer(cast(Any, connection), prepared, "docs", 300.0)
    writer.lease = cast(Any, Lease())
    return writer


def head(version: int, hash: str = "h", **more: Any) -> Head:
    return Head(id="a", version=version, hash=hash, **more)


@pytest.mark.parametrize("shown", [{}, {"a": Entry(head(1))}])
def test_what_was_written_is_not_taken_for_older_or_gone(
    writer: Writer, ledger: Ledger, shown: dict[str, Entry]
) -> None:
    writer.touch([head(1)])
    writer.touch([head(2)])
    ledger.shown = shown
    assert writer.heads(["a", "b"]) == {"a": head(2)}


def test_what_others_wrote_since_is_newer(writer: Writer, ledger: Ledger) -> None:
    writer.touch([head(2)])
    ledger.entries["a"] = Entry(head(3, "theirs"))
    assert writer.heads(["a"]) == {"a": head(3, "theirs")}
    ledger.entries["a"] = Entry(head(2, ""))  # somebody began with this version, and died
    assert writer.heads(["a"]) == {"a": head(2, "")}


def test_of_one_version_what_is_torn_counts(writer: Writer, ledger: Ledger) -> None:
    writer.touch([head(2)])
    writer.touch([head(2, "")])
    ledger.shown = {"a": Entry(head(2))}
    assert writer.heads(["a"]) == {"a": head(2, "")}


def test_after_a_new_claim_only_what_is_read_counts(writer: Writer, ledger: Ledger) -> None:
    writer.touch([head(2)])
    ledger.shown = {"a": Entry(head(1))}
    writer.lease = cast(Any, Lease())
    writer.touch([])
    assert writer.heads(["a"]) == {"a": head(1)}
