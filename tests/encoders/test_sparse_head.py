"""The sparse head against loops in numpy in float64, in value and in gradient, however it is cut into chunks."""

import io
import warnings
from collections.abc import Callable, Sequence
from typing import get_args

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bartizan_encoders import sparse_head
from bartizan_encoders.pooling import Pooling
from bartizan_encoders.sparse_head import chunked, plain
from bartizan_encoders.tower import Tower
from tests.encoders import tiny

POOLED: dict[Pooling, Callable[[np.ndarray], np.ndarray]] = {
    "cls": lambda weights: weights[0],
    "mean": lambda weights: weights.mean(axis=0),
    "last": lambda weights: weights[-1],
    "max": lambda weights: weights.max(axis=0),
    "sum": lambda weights: weights.sum(axis=0),
}
POOLINGS = sorted(get_args(Pooling))


def _same(values: Tensor) -> Tensor:
    return values


def _capped(values: Tensor) -> Tensor:
    return torch.tanh(values / 2) * 2


def _case(seed: int, lengths: Sequence[int], terms: int, *, bias: bool = True) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Hidden states, mask, and the head's weight and bias, in float64."""
    source = torch.Generator().manual_seed(seed)
    hidden = torch.randn(len(lengths), max(lengths) + 1, 5, dtype=torch.float64, generator=source)
    mask = (torch.arange(hidden.shape[1]) < torch.tensor(lengths)[:, None]).long()
    head = [torch.randn(terms, 5, dtype=torch.float64, generator=source)]
    if bias:
        head.append(torch.randn(terms, dtype=torch.float64, generator=source) - 1)
    return hidden, mask, head


def _oracle(hidden: Tensor, length: int, head: list[Tensor], pooling: Pooling) -> np.ndarray:
    """In the classic order: log1p and relu on each logit, then the pooling."""
    weight, *bias = (part.numpy() for part in head)
    logits = hidden[:length].numpy() @ weight.T + (bias[0] if bias else 0.0)
    return POOLED[pooling](np.log1p(np.maximum(logits, 0.0)))


def _run(
    form: Callable[..., Tensor],
    hidden: Tensor,
    mask: Tensor,
    head: list[Tensor],
    pooling: Pooling,
    rise: object = _same,
) -> tuple[Tensor, list[Tensor]]:
    """Value and the gradient of everything that has one."""
    leaves = [part.clone().requires_grad_() for part in (hidden, *head)]
    value = form(leaves[0], mask, (leaves[1], leaves[2] if len(leaves) > 2 else None), pooling, rise)
    upstream = torch.randn(value.shape, dtype=value.dtype, generator=torch.Generator().manual_seed(5))
    return value.detach(), list(torch.autograd.grad((value * upstream).sum(), leaves))


@pytest.fixture(params=[1, 150, 1 << 20], ids=["one term at a time", "some", "all"])
def _chunks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse_head, "_FEWEST_TERMS", 1)
    monkeypatch.setattr(sparse_head, "_LOGITS_ON_A_CPU", request.param)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("form", [chunked, plain])
@given(lengths=st.lists(st.integers(1, 7), min_size=1, max_size=4), seed=st.integers(0, 99), bias=st.booleans())
@settings(max_examples=15, deadline=None)
def test_it_is_its_definition(
    form: Callable[..., Tensor], pooling: Pooling, lengths: list[int], seed: int, bias: bool
) -> None:
    hidden, mask, head = _case(seed, lengths, 23, bias=bias)
    value, _ = _run(form, hidden, mask, head, pooling)
    for row, length in enumerate(lengths):
        np.testing.assert_allclose(value[row].numpy(), _oracle(hidden[row], length, head, pooling), atol=1e-12)


@pytest.mark.packaging
@pytest.mark.usefixtures("_chunks")
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("rise", [_same, _capped])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("dtype", "near"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_chunks_change_neither_value_nor_gradient(
    pooling: Pooling, rise: object, bias: bool, dtype: torch.dtype, near: float
) -> None:
    hidden, mask, head = _case(1, [4, 1, 7], 37, bias=bias)
    hidden, head = hidden.to(dtype), [part.to(dtype) for part in head]
    expected, expected_gradients = _run(plain, hidden, mask, head, pooling, rise)
    value, gradients = _run(chunked, hidden, mask, head, pooling, rise)
    torch.testing.assert_close(value, expected, rtol=0, atol=near)
    for gradient, other in zip(gradients, expected_gradients, strict=True):
        assert other.abs().sum() > 0
        torch.testing.assert_close(gradient, other, rtol=near, atol=near)
    with torch.no_grad():  # encoding keeps no places
        bias_V = head[1] if bias else None
        torch.testing.assert_close(chunked(hidden, mask, (head[0], bias_V), pooling, rise), expected, rtol=0, atol=near)


@pytest.mark.usefixtures("_chunks")
def test_gradients_are_those_of_finite_differences() -> None:
    hidden, mask, head = _case(3, [3, 2], 11)
    leaves = [part.requires_grad_() for part in (hidden, *head)]
    assert torch.autograd.gradcheck(lambda h, w, b: chunked(h, mask, (w, b), "max", _capped), leaves)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), 1e30])
def test_padding_never_contributes(pooling: Pooling, garbage: float) -> None:
    hidden, mask, head = _case(2, [3, 6], 19)
    spoilt = hidden.clone()
    spoilt[0, 3:] = garbage
    value, gradients = _run(chunked, hidden, mask, head, pooling)
    spoilt_value, spoilt_gradients = _run(chunked, spoilt, mask, head, pooling)
    assert torch.equal(value, spoilt_value)
    for gradient, other in zip(gradients, spoilt_gradients, strict=True):
        torch.testing.assert_close(gradient, other, rtol=0, atol=1e-12)
    assert gradients[0][0, 3:].abs().sum() == 0


@pytest.mark.parametrize("pooling", ["max", "mean", "sum"])
def test_a_text_without_tokens_or_without_active_terms_is_empty_and_a_broken_one_is_seen(pooling: Pooling) -> None:
    hidden, mask, head = _case(2, [3, 0, 2], 19)
    head[1] -= 1_000 * (torch.arange(19) % 2)
    value, gradients = _run(chunked, hidden, mask, head, pooling)
    assert (value[:, 1::2] == 0).all()
    assert (value[1] == 0).all()
    assert (gradients[1][1::2] == 0).all()
    hidden[0, 1] = float("nan")
    assert _run(chunked, hidden, mask, head, pooling)[0][0].isnan().all()


@pytest.mark.parametrize("pooling", POOLINGS)
def test_the_logits_of_all_tokens_are_never_held(pooling: Pooling, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []
    whole = sparse_head.logits

    def counted(*parts: Tensor) -> Tensor:
        made = whole(*parts)
        held.append(made.numel())
        return made

    monkeypatch.setattr(sparse_head, "logits", counted)
    monkeypatch.setattr(sparse_head, "_LOGITS_ON_A_CPU", 8 * 64)
    hidden, mask, head = _case(4, [4, 3], 500)  # 10 places: 5,000 logits
    _run(chunked, hidden, mask, head, pooling)
    assert max(held) <= 10 * 64


@pytest.mark.parametrize("pooling", ["max", "sum"])
def test_weights_kept_in_bf16_are_used_in_fp32(pooling: Pooling) -> None:
    hidden, mask, head = _case(6, [4, 2], 300)
    hidden, coarse = hidden.float(), [part.bfloat16() for part in head]
    value, gradients = _run(chunked, hidden, mask, coarse, pooling)
    expected, expected_gradients = _run(plain, hidden, mask, [part.float() for part in coarse], pooling)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, expected, rtol=0, atol=1e-5)
    assert [gradient.dtype for gradient in gradients] == [torch.float32, torch.bfloat16, torch.bfloat16]
    for gradient, other in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient.float(), other, rtol=1e-2, atol=1e-2)


def test_a_tied_weight_gets_both_of_its_gradients() -> None:
    ids, mask = torch.tensor([[2, 5, 6, 7, 3], [2, 8, 3, 0, 0]]), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    tower = tiny.sparse_tower("bert").double()
    tied = tower.backbone.get_input_embeddings().weight
    with torch.no_grad():
        tied[0] = tied[1] / 2  # the library starts padding's row with zeros: equal logits, and no one greatest
    upstream = torch.randn(2, tiny.VOCABULARY, dtype=torch.float64)
    (ours,) = torch.autograd.grad((tower(ids, mask) * upstream).sum(), [tied])
    whole = tower.head(tower.hidden(ids, mask)).masked_fill(mask.unsqueeze(-1) == 0, -1e9)
    (expected,) = torch.autograd.grad((torch.log1p(torch.relu(whole)).amax(dim=1) * upstream).sum(), [tied])
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-12)


class _Pooled(nn.Module):
    """What comes after the backbone."""

    def __init__(self, tower: Tower) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        return self.tower.pooled(hidden, mask)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("kind", ["bert", "gemma2"])
def test_its_graph_is_traced_and_serves_any_batch(kind: str, pooling: Pooling) -> None:
    tower = tiny.sparse_tower(kind, pooling=pooling)

    hidden, mask, _ = _case(1, [4, 2], 3)
    hidden = torch.randn(2, 5, 16)
    file = io.BytesIO()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of its own age
        torch.onnx.export(
            _Pooled(tower), (hidden, mask), file, input_names=["hidden", "mask"], opset_version=17, dynamo=False,
            dynamic_axes={"hidden": {0: "batch", 1: "length"}, "mask": {0: "batch", 1: "length"}},
        )  # fmt: skip
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    hidden, mask = torch.randn(3, 9, 16), (torch.arange(9) < torch.tensor([[9], [1], [4]])).long()
    given = {"hidden": hidden.numpy(), "mask": mask.numpy()}
    (came,) = session.run(None, {taken.name: given[taken.name] for taken in session.get_inputs()})
    with torch.no_grad():
        expected = tower.pooled(hidden, mask)
    assert (expected > 0).any()
    np.testing.assert_allclose(came, expected.numpy(), atol=1e-5)
