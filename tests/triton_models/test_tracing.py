"""A tower is traced in few plain operators, computes the same meanwhile, and is as it was afterwards."""

import onnx
import pytest
import torch
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from bartizan_encoders.tower import Tower
from bartizan_triton.graph import graph_of
from bartizan_triton.tracing import plainly
from tests.encoders import tiny

IDS = torch.tensor([[1, 2, 3, 4, 5, 6], [1, 2, 3, 0, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]])


@pytest.mark.parametrize("kind", sorted(tiny.ARCHITECTURES))
def test_the_vectors_are_the_same_meanwhile(kind: str) -> None:
    tower = tiny.tower(kind)
    expected = tower(IDS, MASK)
    with plainly(tower.backbone):
        torch.testing.assert_close(tower(IDS, MASK), expected, atol=2e-6, rtol=0)


def test_everything_is_put_back_even_after_a_failure() -> None:
    tower = tiny.tower()
    attention, mask = tower.backbone.config._attn_implementation, ALL_MASK_ATTENTION_FUNCTIONS["eager"]
    with pytest.raises(ValueError, match="while tracing"):
        _fail_within(tower)
    assert tower.backbone.config._attn_implementation == attention != "eager"
    assert ALL_MASK_ATTENTION_FUNCTIONS["eager"] is mask
    assert not tower.backbone._forward_pre_hooks


def test_a_layer_costs_its_arithmetic_and_the_rest_is_fixed() -> None:
    """Products, sums, norms and the like: what a query pays for each layer, and nothing for masks or shapes."""
    three, two = (_operators(tower) for tower in (tiny.tower(), tiny.tower().cut([0, 1])))
    assert three - two <= 40
    assert two - 2 * (three - two) <= 40


def _fail_within(tower: Tower) -> None:
    with plainly(tower.backbone):
        assert tower.backbone.config._attn_implementation == "eager"
        raise ValueError("while tracing")


def _operators(tower: Tower) -> int:
    model: onnx.ModelProto = graph_of(tower)
    return sum(node.op_type != "Constant" for node in model.graph.node)
