"""A search that an index is taken away under begins again, whatever the server made of it."""

import time
from types import SimpleNamespace

import pytest

from bartizan_connector.base.errors import Retry
from bartizan_connector.store.collection import Collection, Leg
from bartizan_connector.store.milvus.choices import Choices
from bartizan_connector.store.milvus.indexes import Indexes
from bartizan_connector.testing.rows import DENSE

COLLECTION = Collection(name="c", legs=(Leg(name="dense", kind="dense", dim=4, space_id=DENSE.space_id),), fields=())


@pytest.fixture
def indexes() -> Indexes:
    """Over a client that obeys, and a server that takes no time."""
    client = SimpleNamespace(release_collection=lambda *_, **__: None, load_collection=lambda *_, **__: None)
    connection: object = SimpleNamespace(client=client, timeout=1.0, place="here", version="2.3.5")
    return Indexes(connection, "c_1", COLLECTION, Choices())  # type: ignore[arg-type]


def test_an_answer_of_a_server_that_was_releasing_the_rows_is_not_believed(indexes: Indexes) -> None:
    answers = iter(([], ["a"]))

    def search() -> list[str]:
        answer = next(answers)
        if not answer:
            indexes.reload()
        return answer

    assert indexes.searched(search, time.monotonic() + 60) == ["a"]


def test_a_failure_without_any_rebuilding_is_told_at_once(indexes: Indexes) -> None:
    def search() -> list[str]:
        raise Retry("busy")

    with pytest.raises(Retry, match="busy"):
        indexes.searched(search, time.monotonic() + 60)
