"""Learned sparse pooling: log1p(relu(logits)) pooled over the tokens, without ever holding the logits of a whole batch.

Shapes: B texts, L tokens, D dimensions, V terms of the vocabulary, C terms of one chunk of it. Texts are padded on the
right. `relu`, `log1p` and what a language model does to its logits are monotone, so that the maximum may come first.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from bartizan_encoders.pooling import POOLINGS, Pooling

Head = tuple[Tensor, Tensor | None]
"""A weight [V, D], and perhaps a bias [V]."""

Rise = Callable[[Tensor], Tensor]
"""What a model does to its logits: grows with them, keeps their sign, and 0 stays 0."""

_LOGITS_ON_A_CPU = 1 << 20
_LOGITS_ON_A_GPU = 1 << 27
"""Logits held at once: what stays in a core's cache, and half a gigabyte."""
_FEWEST_TERMS = 64
LOGITS_AT_ONCE = 1 << 25
"""For who needs all logits of a token: 128 MB of them."""


def plain(hidden_BLD: Tensor, mask_BL: Tensor, head: Head, pooling: Pooling, rise: Rise) -> Tensor:
    """The definition [B, V], all logits at once: what a graph is traced from, and what the chunked form must equal."""
    weight_VD, bias_V = head
    if pooling in ("cls", "last"):
        return _activated(logits(POOLINGS[pooling](hidden_BLD, mask_BL), weight_VD, bias_V), rise)
    all_BLV = logits(hidden_BLD, weight_VD, bias_V)
    if pooling == "max":
        return _activated(POOLINGS["max"](all_BLV, mask_BL), rise)
    return POOLINGS[pooling](_activated(all_BLV, rise), mask_BL)


def chunked(hidden_BLD: Tensor, mask_BL: Tensor, head: Head, pooling: Pooling, rise: Rise) -> Tensor:
    """The same in value and gradient, a chunk of the vocabulary at a time."""
    weight_VD, bias_V = head
    if pooling in ("cls", "last"):
        hidden_BLD, mask_BL = POOLINGS[pooling](hidden_BLD, mask_BL).unsqueeze(1), mask_BL[:, :1]
        pooling = "max"  # of one token
    # Padding becomes a copy of the first token: that moves no maximum, which saves masking the logits, and brings no
    # infinity into a gradient.
    hidden_BLD = torch.where(mask_BL.unsqueeze(-1) > 0, hidden_BLD, hidden_BLD[:, :1])
    if pooling == "max":
        if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (hidden_BLD, *head)):
            top_BV: Tensor = _Top.apply(hidden_BLD, weight_VD, bias_V)
        else:
            top_BV = _top(hidden_BLD, weight_VD, bias_V)
        return _activated(top_BV, rise).masked_fill((mask_BL > 0).sum(dim=1, keepdim=True) == 0, 0.0)
    parts = []
    for start, end in _chunks(hidden_BLD, weight_VD):
        piece = _terms(weight_VD, bias_V, start, end)
        parts.append(checkpoint(plain, hidden_BLD, mask_BL, piece, pooling, rise, use_reentrant=False))
    return torch.cat(parts, dim=1)


def heaviest(weights_BV: Tensor, top_terms: int) -> Tensor:
    """The weights [B, V] with 0 for all but the heaviest terms of each text."""
    top_BK, terms_BK = weights_BV.topk(min(top_terms, weights_BV.shape[1]), dim=1)
    return torch.zeros_like(weights_BV).scatter(1, terms_BK, top_BK)


def _activated(logits: Tensor, rise: Rise) -> Tensor:
    return torch.log1p(rise(torch.relu(logits)))


def _chunks(hidden_BLD: Tensor, weight_VD: Tensor) -> Iterator[tuple[int, int]]:
    held = _LOGITS_ON_A_CPU if hidden_BLD.device.type == "cpu" else _LOGITS_ON_A_GPU
    tokens = max(1, hidden_BLD.shape[0] * hidden_BLD.shape[1])
    step = max(_FEWEST_TERMS, held // tokens)
    for start in range(0, weight_VD.shape[0], step):
        yield start, min(start + step, weight_VD.shape[0])


def _terms(weight_VD: Tensor, bias_V: Tensor | None, start: int, end: int) -> Head:
    return weight_VD[start:end], None if bias_V is None else bias_V[start:end]


def logits(hidden: Tensor, weight_VD: Tensor, bias_V: Tensor | None) -> Tensor:
    """As fine as the hidden states are; coarser weights are widened, in the chunked form a chunk at a time."""
    return F.linear(hidden, weight_VD.to(hidden.dtype), None if bias_V is None else bias_V.to(hidden.dtype))


def _top(hidden_BLD: Tensor, weight_VD: Tensor, bias_V: Tensor | None) -> Tensor:
    """The greatest logit of each term, or 0."""
    top_BV = hidden_BLD.new_empty(hidden_BLD.shape[0], weight_VD.shape[0])
    for start, end in _chunks(hidden_BLD, weight_VD):
        top_BV[:, start:end] = logits(hidden_BLD, *_terms(weight_VD, bias_V, start, end)).amax(dim=1)
    return top_BV.relu_()


class _Top(torch.autograd.Function):
    """The greatest logit of each term, or 0; only the token that gave it, when above 0, gets a gradient."""

    @staticmethod
    def forward(ctx: Any, hidden_BLD: Tensor, weight_VD: Tensor, bias_V: Tensor | None) -> Tensor:
        top_BV = hidden_BLD.new_empty(hidden_BLD.shape[0], weight_VD.shape[0])
        place_BV = torch.empty(top_BV.shape, dtype=torch.int32, device=top_BV.device)
        for start, end in _chunks(hidden_BLD, weight_VD):
            top, place = logits(hidden_BLD, *_terms(weight_VD, bias_V, start, end)).max(dim=1)
            top_BV[:, start:end], place_BV[:, start:end] = top, place
        top_BV.relu_()
        ctx.save_for_backward(hidden_BLD, weight_VD, top_BV, place_BV)
        ctx.bias_dtype = None if bias_V is None else bias_V.dtype
        return top_BV

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        hidden_BLD, weight_VD, top_BV, place_BV = ctx.saved_tensors
        for_hidden, for_weight, for_bias = ctx.needs_input_grad
        active_BV = torch.where(top_BV > 0, gradients[0], 0.0)
        hidden_TD = hidden_BLD.flatten(0, 1)
        hidden_grad = torch.zeros_like(hidden_TD) if for_hidden else None
        weight_grad = torch.empty_like(weight_VD) if for_weight else None
        for start, end in _chunks(hidden_BLD, weight_VD):
            cells_TC = _cells(active_BV[:, start:end], place_BV[:, start:end], hidden_BLD.shape[1])
            if hidden_grad is not None:
                hidden_grad += torch.sparse.mm(cells_TC, weight_VD[start:end].to(hidden_TD.dtype))
            if weight_grad is not None:
                weight_grad[start:end] = torch.sparse.mm(cells_TC.t(), hidden_TD)
        return (
            None if hidden_grad is None else hidden_grad.view_as(hidden_BLD),
            weight_grad,
            active_BV.sum(dim=0).to(ctx.bias_dtype) if for_bias else None,
        )


def _cells(active_BC: Tensor, place_BC: Tensor, length: int) -> Tensor:
    """The gradient of these terms' logits, tokens × terms, as a sparse matrix: one cell a text and active term."""
    texts, terms = active_BC.nonzero(as_tuple=True)
    tokens = texts * length + place_BC[texts, terms]
    size = (active_BC.shape[0] * length, active_BC.shape[1])
    return torch.sparse_coo_tensor(torch.stack([tokens, terms]), active_BC[texts, terms], size, check_invariants=False)
