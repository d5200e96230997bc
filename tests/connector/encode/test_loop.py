"""The one encode loop, over an engine without a model: order, batches, truncation, deadline, side by side, identity."""

import asyncio
import threading
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from bartizan_connector.base.errors import Retry, SpaceMismatch, Stop
from bartizan_connector.encode.batches import Ids
from bartizan_connector.encode.encoder import Encoder
from bartizan_connector.encode.engine import Identity, Pace
from bartizan_connector.space.spec import Kind
from bartizan_connector.space.vectors import NotFinite, SparseVector, sparse_rows
from bartizan_connector.testing.encoder import TEXTS, EncoderSuite
from tests.connector.encode.engines import TERMS, WORDS, counting, spec_of

PACES = [
    Pace(batch_tokens=64, least_tokens=16, multiple=8, calls=3),
    Pace(batch_tokens=1, least_tokens=1),
    Pace(batch_tokens=10_000, least_tokens=10_000),
]


class TestDense(EncoderSuite):
    def make(self) -> Encoder:
        return counting("dense")[0]


class TestSparse(EncoderSuite):
    def make(self) -> Encoder:
        return counting("sparse")[0]


class TestSparseByTheEngine(EncoderSuite):
    def make(self) -> Encoder:
        return counting("sparse", answers=sparse_rows)[0]


@pytest.mark.parametrize("kind", ["dense", "sparse"])
@pytest.mark.parametrize("pace", PACES, ids=["parallel", "one by one", "all at once"])
@given(texts=st.lists(st.text(st.sampled_from("atheow ,7é"), max_size=60), max_size=30))
@settings(max_examples=15, deadline=None)
def test_each_text_gets_the_counts_of_its_own_tokens_in_its_own_place(kind: Kind, pace: Pace, texts: list[str]) -> None:
    loop, _ = counting(kind, pace=pace)
    vectors = loop.encode(texts, "query")
    loop.close()
    tokenizer = Tokenizer.from_str(WORDS)
    for position, text in enumerate(texts):
        whole = tokenizer.encode("ask: " + text).ids
        seen = whole if len(whole) <= 20 else [*whole[:19], whole[-1]]
        counts = np.bincount(seen, minlength=TERMS).astype(np.float32)
        value = vectors.values[position]
        if isinstance(value, SparseVector):
            assert value.indices.tolist() == np.flatnonzero(counts).tolist()
            assert value.weights.tolist() == counts[counts > 0].tolist()
        else:
            np.testing.assert_allclose(value, counts / np.linalg.norm(counts), atol=1e-6)
        assert (vectors.tokens[position], vectors.truncated[position]) == (len(whole), len(whole) > 20)
    assert len(vectors) == len(texts)


def test_batches_keep_to_the_pace_of_the_engine() -> None:
    shapes: list[tuple[int, ...]] = []
    pace = Pace(batch_tokens=100, least_tokens=40, multiple=8, calls=4)
    loop, _ = counting(pace=pace, sees=lambda ids: shapes.append(ids.shape))
    loop.encode([f"a {'the ' * (i % 20)}" for i in range(200)], "document")
    assert all(rows == 1 or rows * width <= 100 + rows * 8 for rows, width in shapes)
    assert {width % 8 for rows, width in shapes if rows > 1} == {0}
    shapes.clear()
    loop.encode(["a"] * 20, "document")  # sixty tokens over four calls: no thinner than forty
    assert sorted(rows for rows, _ in shapes) == [7, 13]
    shapes.clear()
    loop.encode(["a"], "document")
    assert shapes == [(1, 3)]
    loop.close()


def test_as_many_calls_run_side_by_side_as_the_engine_says_and_no_more() -> None:
    together = threading.Barrier(3)
    running, most, lock = 0, 0, threading.Lock()

    def sees(ids: Ids) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        together.wait(10)
        with lock:
            running -= 1

    loop, _ = counting(pace=Pace(batch_tokens=3, least_tokens=3, calls=3), sees=sees)
    loop.encode(["a"] * 12, "document")
    assert most == 3
    loop.close()


def test_a_sparse_tower_never_has_more_rows_at_once_than_a_small_batch() -> None:
    rows: list[int] = []
    loop, _ = counting(
        "sparse", pace=Pace(batch_tokens=10**6, least_tokens=10**6), sees=lambda ids: rows.append(len(ids))
    )
    assert len(loop.encode(["a"] * 500, "document")) == 500
    assert max(rows) <= 32


def test_the_deadline_is_looked_at_before_each_batch_and_given_to_the_engine() -> None:
    begun: list[float] = []
    pace = Pace(batch_tokens=3, least_tokens=3)
    loop, _ = counting(pace=pace, sees=lambda ids: begun.append(time.monotonic()), seconds=0.1)
    start = time.monotonic()
    with pytest.raises(Retry):
        loop.encode(["a"] * 100, "document", timeout=0.5)
    assert time.monotonic() - start < 9  # all of them take 10
    assert 1 <= len(begun) <= 6
    assert len(loop.encode(["a"] * 3, "document", timeout=600)) == 3


def test_waiting_for_a_thread_counts_as_well() -> None:
    loop, _ = counting()

    async def late() -> None:
        running = asyncio.get_running_loop()
        running.set_default_executor(pool)
        task = asyncio.create_task(loop.aencode(["a"], "document", timeout=0.05))
        await asyncio.sleep(0.2)
        free.set()
        await task

    from concurrent.futures import ThreadPoolExecutor

    free = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(free.wait)
        with pytest.raises(Retry, match="longer than its timeout"):
            asyncio.run(late())


def test_a_failing_batch_fails_the_call_and_the_loop_goes_on() -> None:
    broken = True

    def answers(counts: Any) -> Any:
        if broken and len(counts) < 5:
            raise Stop("the engine failed")
        return counts

    loop, _ = counting(answers=answers)
    with pytest.raises(Stop, match="the engine failed"):
        loop.encode(TEXTS * 5, "document")
    broken = False
    assert len(loop.encode(TEXTS * 5, "document")) == len(TEXTS) * 5
    loop.close()


@pytest.mark.parametrize(
    ("kind", "answers", "why"),
    [
        ("dense", lambda counts: counts[:, :-1], r"an array of shape \(1, 99\) for 1 texts"),
        ("dense", lambda counts: counts[:0], r"an array of shape \(0, 100\)"),
        ("dense", sparse_rows, "1 sparse vectors"),
        ("sparse", lambda counts: -counts, "weights below zero"),
        ("sparse", lambda counts: sparse_rows(counts) * 2, "2 sparse vectors for 1 texts"),
    ],
)
def test_an_answer_that_the_spec_does_not_promise_is_refused(kind: Kind, answers: Any, why: str) -> None:
    loop, _ = counting(kind, answers=answers)
    with pytest.raises(Stop, match=why):
        loop.encode(["a"], "document")
    with pytest.raises(Stop, match="the engine of tower 'counts' gives"):
        loop.encode(["a", "a tower"], "document")
    loop.close()


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_what_is_not_finite_is_told(kind: Kind) -> None:
    loop, _ = counting(kind, answers=lambda counts: counts * np.float32("nan"))
    with pytest.raises(NotFinite):
        loop.encode(["a"], "document")


def test_the_answer_names_the_tower_that_really_encoded() -> None:
    spec = spec_of("dense")
    served = Identity("tw-served", spec.space_id)
    loop, _ = counting(tower=lambda: served)
    for texts in (["a"], ["a"] * 90):
        vectors = loop.encode(texts, "document")
        assert (vectors.tower_id, vectors.space_id) == ("tw-served", spec.space_id)
    served = Identity("tw-served", "tw-stranger")
    for texts in (["a"], ["a"] * 90):
        with pytest.raises(SpaceMismatch, match="runs a tower of another space") as refusal:
            loop.encode(texts, "document")
        assert (refusal.value.expected, refusal.value.came) == (spec.space_id, "tw-stranger")
    loop.close()


def test_a_tower_that_is_replaced_between_two_batches_of_one_call_is_asked_again() -> None:
    spec, calls = spec_of("dense"), iter(range(1000))
    loop, _ = counting(
        pace=Pace(batch_tokens=3, least_tokens=3), tower=lambda: Identity(f"tw-{next(calls) // 3}", spec.space_id)
    )
    with pytest.raises(Retry, match="was replaced while the texts were encoded"):
        loop.encode(["a"] * 5, "document")


def test_closing_closes_the_engine() -> None:
    loop, engine = counting()
    loop.close()
    assert engine.closed == 1


def test_rows_of_weights_become_sparse_vectors() -> None:
    weights = np.array([[0, 1.5, 0, 2], [0, 0, 0, 0], [3, 0, 0, 0]], dtype=np.float32)
    one, two, three = sparse_rows(weights)
    assert (one.indices.tolist(), one.weights.tolist()) == ([1, 3], [1.5, 2.0])
    assert (two.indices.tolist(), three.indices.tolist()) == ([], [0])
    assert one.indices.dtype == np.int32
    assert sparse_rows(np.zeros((0, 4), dtype=np.float32)) == ()
