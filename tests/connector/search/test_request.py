"""What is asked of a retriever in a wrong way is refused with what was expected, what came and the way out."""

from typing import Any

import pytest

from bartizan_connector.base.errors import Stop, WrongUse
from bartizan_connector.search.retriever import Retriever
from bartizan_connector.space.spec import Role
from bartizan_connector.space.vectors import Vectors
from bartizan_connector.testing.encoder_fake import HashEncoder
from tests.connector.search.test_retriever import filled

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"query": None}, r"query must be a text, but None \(NoneType\) came; give a text"),
    ({"query": ["copy"]}, r"query must be a text, but \['copy'\] \(list\) came"),
    ({"query": b"copy"}, "query must be a text"),
    ({"k": "3"}, r"k must be a whole number from 1 to 1000, but '3' \(str\) came"),
    ({"k": 2.5}, "k must be a whole number"),
    ({"k": True}, r"k must be a whole number from 1 to 1000, but True \(bool\) came"),
    ({"k": None}, "k must be a whole number"),
    ({"filter": {"year": 2}}, r"filter must be a text such as .year >= 2020., .*but \{'year': 2\} \(dict\) came"),
    ({"filter": 5}, "filter must be a text"),
    ({"legs": 5}, r"legs must be a list of names .*but 5 \(int\) came"),
    ({"legs": [["dense"]]}, "legs must be a list of names"),
    ({"timeout": "5"}, r"timeout must be seconds, a number above 0, but '5' \(str\) came"),
    ({"timeout": True}, "timeout must be seconds"),
    ({"timeout": 0}, "timeout = 0 is no deadline; give seconds, a finite number above 0"),
    ({"timeout": -1.0}, "timeout = -1.0 is no deadline"),
    ({"timeout": float("nan")}, "timeout = nan is no deadline"),
    ({"timeout": float("inf")}, "timeout = inf is no deadline"),
]


class Untouched(HashEncoder):
    """Says when a query is encoded after all."""

    def encode(self, texts: Any, role: Role, *, timeout: float | None = None) -> Vectors:
        if role == "query":
            raise Stop("something was searched")
        return super().encode(texts, role, timeout=timeout)


@pytest.mark.parametrize(("wrong", "message"), WRONG, ids=[str(wrong) for wrong, _ in WRONG])
async def test_a_request_of_a_wrong_type_is_refused_before_anything_is_searched(
    wrong: dict[str, Any], message: str
) -> None:
    encoder = Untouched()
    request = {"query": "copy a file"} | wrong
    with Retriever({"dense": encoder}, filled(encoder)) as opened:
        with pytest.raises(WrongUse, match=message) as refusal:
            opened.search(**request)
        assert refusal.value.exit_code == 2
        with pytest.raises(WrongUse, match=message):
            await opened.asearch(**request)


async def test_a_closed_retriever_says_that_it_is_closed() -> None:
    encoder = HashEncoder()
    opened = Retriever({"dense": encoder}, filled(encoder))
    opened.close()
    opened.close()
    with pytest.raises(WrongUse, match="this retriever is closed; open another"):
        opened.search("copy a file")
    with pytest.raises(WrongUse, match="this retriever is closed"):
        await opened.asearch("copy a file")


def test_a_deadline_beyond_all_clocks_is_taken() -> None:
    encoder = HashEncoder()
    with Retriever({"dense": encoder}, filled(encoder)) as opened:
        assert opened.search("copy a file", timeout=1e300)[0].id == "copy"


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), "5"])
def test_a_retriever_without_a_deadline_is_refused(timeout: Any) -> None:
    encoder = HashEncoder()
    with pytest.raises(WrongUse, match="timeout"):
        Retriever({"dense": encoder}, filled(encoder), timeout=timeout)
