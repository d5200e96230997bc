"""What a writer asked while it was not sure yet is not remembered, however late the answer comes."""

import threading
import time
from collections.abc import Sequence
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from bartizan_connector.store.collection import Head
from bartizan_connector.store.milvus import writing
from bartizan_connector.store.milvus.ledger import Entry


def entry(version: int, chunks: int) -> Entry:
    return Entry(Head(id="x", version=version, hash=f"h{version}", origin="k#1", offset=version), chunks)


FORMER, STANDING = entry(1, 1), entry(2, 5)
"""What the writer before has just replaced, and by what."""


class LateLedger:
    """Answers the thread that is to be late by what was, and only when it is let go."""

    name = written = "ledger"

    def __init__(self) -> None:
        self.late: threading.Thread | None = None
        self.asked, self.let_go = threading.Event(), threading.Event()

    def read(self, ids: Sequence[str]) -> dict[str, Entry]:
        if threading.current_thread() is self.late:
            self.asked.set()
            assert self.let_go.wait(20)
            return {"x": FORMER}
        return {"x": STANDING} if "x" in ids else {}


def lease() -> Any:
    return SimpleNamespace(
        rows="rows", is_held=True, claim=lambda: False, take=lambda _: True, by=lambda _: nullcontext()
    )


def late(monkeypatch: pytest.MonkeyPatch) -> tuple[writing.Writer, LateLedger]:
    """A writer that has just taken a part, and whose question for the heads is under way."""
    monkeypatch.setattr(writing, "_UNSURE_SECONDS", 0.2)
    ledger = LateLedger()
    connection: Any = SimpleNamespace(file=None, place="here", timeout=1, client=None)
    prepared: Any = SimpleNamespace(found=SimpleNamespace(physical="rows", contract=None), ledger=ledger)
    writer = writing.Writer(connection, prepared, "docs", 300)
    writer.lease = lease()
    writer.take("docs[0]")
    ledger.late = threading.Thread(target=writer.heads, args=(["x"],))
    ledger.late.start()
    assert ledger.asked.wait(20)
    return writer, ledger


def answered(ledger: LateLedger) -> None:
    ledger.let_go.set()
    assert ledger.late is not None
    ledger.late.join()


def test_an_answer_that_comes_when_the_writer_is_sure_is_not_what_it_decides_by(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    writer, ledger = late(monkeypatch)
    time.sleep(0.25)
    assert writer.heads_for("docs[0]", ["other"]) == {}
    answered(ledger)
    assert writer.heads_for("docs[0]", ["x"])["x"].version == 2


def test_an_answer_that_comes_between_decision_and_write_does_not_say_how_many_chunks_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    writer, ledger = late(monkeypatch)
    assert writer.heads_for("docs[0]", ["x"])["x"].version == 2
    answered(ledger)
    assert writer._read(["x"])["x"].chunks == 5
