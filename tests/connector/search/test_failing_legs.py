"""A leg that fails for a reason of its own costs only itself; the caller's mistakes are raised; logs stay short."""

import asyncio
import logging
from collections.abc import Sequence

import pytest

from bartizan_connector.base.errors import BartizanError, NotAText, Retry, SpaceMismatch, Stop, WrongUse
from bartizan_connector.search.retriever import Retriever
from bartizan_connector.space.spec import Role
from bartizan_connector.space.vectors import Vectors
from bartizan_connector.store.collection import Hit
from bartizan_connector.store.filters import Filter
from bartizan_connector.testing.encoder_fake import HashEncoder
from tests.connector.search.test_retriever import HostLexical, filled, retriever

FAILURES = [
    Stop("the index must be rebuilt"),
    WrongUse("there is no index here"),
    Retry("busy"),
    ZeroDivisionError("by zero"),
    OSError(5, "the disk is gone"),
    AssertionError(),
    TimeoutError("slow"),
]


class FailingLexical(HostLexical):
    """Raises what it is told, while it is told so."""

    def __init__(self, error: Exception | None) -> None:
        super().__init__()
        self.error = error

    def search(self, text: str, k: int, filter: Filter | None = None, *, timeout: float | None = None) -> list[Hit]:
        if self.error:
            raise self.error
        return super().search(text, k, filter, timeout=timeout)


class FailingEncoder(HashEncoder):
    """Raises what it is told for every query."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def encode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
        if role == "query":
            raise self.error
        return super().encode(texts, role)


@pytest.mark.parametrize("error", FAILURES, ids=[type(error).__name__ for error in FAILURES])
async def test_whatever_the_word_search_raises_costs_its_leg_only(error: Exception) -> None:
    told = (
        str(error) if isinstance(error, BartizanError) else f"the lexical leg failed: {type(error).__name__}: {error}"
    )
    with retriever(words=FailingLexical(error)) as opened:
        for answer in (opened.search("copy a file"), await opened.asearch("copy a file")):
            assert (answer[0].id, set(answer[0].legs)) == ("copy", {"dense"})
            assert answer.degraded == f"no lexical leg: {told}".rstrip()
        with pytest.raises(BartizanError) as alone:
            opened.search("copy a file", legs=["lexical"])
        assert str(alone.value) == told.rstrip()


@pytest.mark.parametrize("error", [Stop("broken"), Retry("busy"), ZeroDivisionError("by zero")])
async def test_whatever_the_store_raises_costs_its_legs_only(error: Exception) -> None:
    encoder = HashEncoder()
    store = filled(encoder)

    def fail(*_: object, **__: object) -> list[list[Hit]]:
        raise error

    store.search = fail  # type: ignore[method-assign]
    with Retriever({"dense": encoder}, store, words=HostLexical()) as opened:
        for answer in (opened.search("copy a file"), await opened.asearch("copy a file")):
            assert set(answer[0].legs) == {"lexical"}
            assert str(answer.degraded).startswith("no dense leg: ")
            assert answer.encoded.keys() == {"dense"}, "the query was encoded before"


@pytest.mark.parametrize(
    "error",
    [
        NotAText("text 0 is not valid Unicode"),
        SpaceMismatch("the server runs another tower", expected="a", came="b", way_out="Serve the right one."),
    ],
)
async def test_the_callers_own_mistakes_are_raised_whatever_the_others_answer(error: Exception) -> None:
    with retriever(FailingEncoder(error), HostLexical()) as opened:
        for search in (lambda: asyncio.to_thread(opened.search, "copy a file"), lambda: opened.asearch("copy a file")):
            with pytest.raises(type(error)) as raised:
                await search()
            assert raised.value is error


@pytest.mark.parametrize(
    ("dense", "lexical", "told"),
    [
        (Retry("unreachable"), Stop("to be rebuilt"), "to be rebuilt"),
        (Stop("damaged"), Retry("unreachable"), "damaged"),
        (ZeroDivisionError("by zero"), Stop("to be rebuilt"), "to be rebuilt"),
        (Retry("unreachable"), ZeroDivisionError("by zero"), "ZeroDivisionError"),
        (Retry("unreachable"), Retry("busy"), "unreachable"),
    ],
)
def test_when_no_leg_answered_the_most_telling_error_is_raised(dense: Exception, lexical: Exception, told: str) -> None:
    words = FailingLexical(lexical)
    with retriever(FailingEncoder(dense), words) as opened, pytest.raises(BartizanError, match=told):
        opened.search("copy a file")


def test_being_late_is_the_least_telling() -> None:
    words = HostLexical(seconds=2.0)
    with retriever(FailingEncoder(Retry("unreachable")), words) as opened, pytest.raises(Retry, match="unreachable"):
        opened.search("copy a file", timeout=0.2)


def test_a_leg_that_goes_on_failing_is_remarked_once(caplog: pytest.LogCaptureFixture) -> None:
    words = FailingLexical(ZeroDivisionError("by zero"))
    with caplog.at_level(logging.DEBUG, "bartizan_connector"), retriever(words=words) as opened:
        for _ in range(5):
            assert opened.search("copy a file").degraded
        (record,) = caplog.records
        assert record.getMessage() == "no lexical leg: the lexical leg failed: ZeroDivisionError: by zero"
        assert record.exc_info
        assert isinstance(record.exc_info[1], ZeroDivisionError)
        words.error = None
        assert opened.search("copy a file").degraded is None
        words.error = Retry("busy")
        for _ in range(5):
            assert opened.search("copy a file").degraded
        assert [each.getMessage() for each in caplog.records[1:]] == ["no lexical leg: busy"]
        assert "copy a file" not in caplog.text
