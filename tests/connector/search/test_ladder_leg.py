"""A search whose leg came down its ladder: found all the same, and the answer says by which tower, and why."""

import asyncio

import pytest

from bartizan_connector.base.errors import Retry
from bartizan_connector.encode.encoder import Encoder
from bartizan_connector.encode.ladder import Ladder, Rung
from bartizan_connector.search.retriever import Retriever
from bartizan_connector.store.collection import Collection, Leg, Row
from bartizan_connector.store.memory import MemoryBackend
from bartizan_connector.testing.encoder_fake import HashEncoder

TEXTS = {"sleep": "pause the program", "copy": "copy a file", "walk": "walk through folders"}


def away(_: float) -> Encoder:
    raise Retry("nobody listens there")


@pytest.mark.parametrize("blocking", [True, False])
def test_the_answer_says_which_tower_encoded_and_why(blocking: bool) -> None:
    top, below = HashEncoder(), HashEncoder()
    below.spec = top.spec.model_copy(update={"precision": "int8", "space": top.spec.space_id})
    store = MemoryBackend().open(Collection(name="docs", legs=(Leg.of(top.spec, "dense"),)))
    vectors = top.encode(list(TEXTS.values()), "document")
    store.upsert(
        [
            Row(id=id, chunk=0, vectors={"dense": vector}, fields={}, version=1, hash="0" * 64)
            for id, vector in zip(TEXTS, vectors, strict=True)
        ]
    )
    ladder = Ladder(top.spec, [Rung("grpc://tower:8001", away), Rung("exports/query", lambda _: below)])
    with Retriever({"dense": ladder}, store) as retriever:
        answer = retriever.search("copy a file", 1) if blocking else asyncio.run(retriever.asearch("copy a file", 1))
    assert [result.id for result in answer.results] == ["copy"]
    assert answer.tower_id == below.spec.tower_id != top.spec.tower_id
    assert answer.space_id == top.spec.space_id
    assert answer.degraded == f"dense leg by {below.spec.tower_id}, not by grpc://tower:8001: nobody listens there"
