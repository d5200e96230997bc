"""What a batch holds: every example once an epoch, nothing that depends on what came before."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bartizan_connector.base.errors import WrongUse
from bartizan_training.data.pairs import Pairs
from bartizan_training.data.samplers import Order, PairSampler, share
from bartizan_training.settings import PairsTable

PAIRS = Pairs(
    queries=tuple(f"q{i}" for i in range(10)),
    documents=tuple(f"d{i}" for i in range(30)),
    positives=tuple((i, 10 + i) if i % 2 else (i,) for i in range(10)),
    negatives=tuple((20 + i, 29 - i) for i in range(10)),
)


def sampler(pairs: Pairs = PAIRS, **keys: object) -> PairSampler:
    return PairSampler(pairs, PairsTable.model_validate({"path": "x", **keys}), 5, seed=(0, 1))


@given(examples=st.integers(1, 200), batch_size=st.integers(1, 50), seed=st.integers(0, 5), epoch=st.integers(0, 3))
def test_an_epoch_holds_every_example_once(examples: int, batch_size: int, seed: int, epoch: int) -> None:
    if examples < batch_size:
        with pytest.raises(WrongUse, match="lower batch_size"):
            Order(examples, batch_size, seed=[seed])
        return
    order = Order(examples, batch_size, seed=[seed])
    per_epoch = order.batches_per_epoch
    seen = np.concatenate([order.batch(epoch * per_epoch + i) for i in range(per_epoch)])
    assert len(seen) == per_epoch * batch_size == len(set(seen.tolist()))
    assert seen.max() < examples


def test_a_batch_depends_on_seed_and_number_alone() -> None:
    walked = sampler(sampler="queries", negatives_per_query=2)
    for number in range(7):
        walked.batch(number)
    late, fresh = walked.batch(7), sampler(sampler="queries", negatives_per_query=2).batch(7)
    assert np.array_equal(late.queries, fresh.queries)
    assert np.array_equal(late.documents, fresh.documents)


def test_epochs_and_seeds_differ_in_order() -> None:
    first, second = Order(50, 50, seed=[0]), Order(50, 50, seed=[1])
    assert not np.array_equal(first.batch(0), first.batch(1))
    assert not np.array_equal(first.batch(0), second.batch(0))


def test_each_query_stands_beside_its_own_document_and_its_own_negatives() -> None:
    drawn = sampler(negatives_per_query=2)
    for number in range(6):
        batch = drawn.batch(number)
        assert batch.documents.shape == (15,)
        for i, query in enumerate(batch.queries):
            assert batch.documents[i] in PAIRS.positives[query]
            assert set(batch.documents[5 + 2 * i : 7 + 2 * i]) == set(PAIRS.negatives[query])  # type: ignore[index]


def test_a_query_with_too_few_negatives_uses_them_again() -> None:
    batch = sampler(negatives_per_query=5).batch(0)
    assert set(batch.documents[5:10]) == set(PAIRS.negatives[batch.queries[0]])  # type: ignore[index]


def test_a_query_without_negatives_gets_those_of_others() -> None:
    some = dataclasses.replace(PAIRS, negatives=((7, 8), *[()] * 9))
    batch = sampler(some, negatives_per_query=2).batch(0)
    assert set(batch.documents[5:]) == {7, 8}
    assert batch.documents.shape == (15,)


def test_the_pair_sampler_goes_through_pairs_and_the_query_sampler_through_queries() -> None:
    by_pair, by_query = sampler(), sampler(sampler="queries")
    assert (by_pair.batches_per_epoch, by_query.batches_per_epoch) == (3, 2)
    queries = np.concatenate([by_query.batch(i).queries for i in range(2)])
    assert sorted(queries) == list(range(10))
    own = {
        int(by_query.batch(i).documents[list(by_query.batch(i).queries).index(1)])
        for i in range(40)
        if 1 in by_query.batch(i).queries
    }
    assert own == {1, 11}


def test_every_further_document_judged_positive_is_known() -> None:
    shared = Pairs(
        queries=("a", "b", "c", "d", "e"),
        documents=("x", "y"),
        positives=((0, 1), (0,), (1,), (0,), (1,)),
        negatives=None,
    )
    batch = sampler(shared, sampler="queries").batch(0)
    for i, query in enumerate(batch.queries):
        for j, document in enumerate(batch.documents):
            assert batch.known[i, j] == (document in shared.positives[query])


@given(st.integers(1, 8), st.integers(1, 8))
def test_the_processes_share_a_batch_without_overlap(processes: int, size: int) -> None:
    batch = np.arange(processes * size)
    parts = [share(batch, rank, processes) for rank in range(processes)]
    assert np.array_equal(np.concatenate(parts), batch)


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(WrongUse, match="batch_size = 5 cannot be shared evenly by 2"):
        share(np.arange(5), 0, 2)
