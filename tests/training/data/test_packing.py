"""Packing: a batch in pieces of like length gives the vectors of the texts one by one, in their order."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bartizan_encoders.tower import Tower
from bartizan_training.data.packing import Budget, Packed
from bartizan_training.data.token_table import TokenTable
from bartizan_training.embedding import encode
from tests.training import toy


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Tower:
    return Tower.load(toy.tower(tmp_path_factory.mktemp("packing") / "tower"))


@settings(max_examples=25)
@given(lengths=st.lists(st.integers(0, 20), min_size=1, max_size=12), budget=st.integers(1, 200))
def test_packed_vectors_are_those_of_each_text_alone(tower: Tower, lengths: list[int], budget: int) -> None:
    texts = [" ".join(f"thing{(i + j) % toy.THINGS}" for j in range(length)) for i, length in enumerate(lengths)]
    table = TokenTable(tower.tokens, "document", texts)
    with torch.no_grad():
        packed = Packed.of(table.pick(np.arange(len(texts))), Budget(tokens=budget))
        together = encode(tower, packed, precision="fp32")
        alone = [
            encode(tower, Packed.of(table.pick(np.array([i])), Budget(tokens=budget)), precision="fp32")
            for i in range(len(texts))
        ]
    # The order of sums differs with the batch's shape: a few units in the last place of unit vectors.
    assert torch.allclose(together, torch.cat(alone), atol=1e-6)
    assert all(ids.numel() <= max(budget, ids.shape[1]) for ids, _ in packed.pieces)
    assert packed.tokens == sum(int(mask.sum()) for _, mask in packed.pieces)


def test_a_token_table_gives_back_the_tokens_of_any_text(tower: Tower) -> None:
    texts = ["thing1", "", "thing2 thing3", "ask5 " * 40]
    table = TokenTable(tower.tokens, "query", texts)
    expected = [text.ids for text in tower.tokens.encode(texts, "query")]
    assert len(table) == 4
    assert [ids.tolist() for ids in table.pick(np.array([3, 0, 2, 1]))] == [expected[i] for i in (3, 0, 2, 1)]
