"""Pooling: one vector a text out of one vector a token; whatever stands in padded places never contributes.

Shapes: B texts, L tokens, D dimensions. Texts are padded on the right; `mask` is 1 for a token and 0 for padding.
"""

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor

Pooling = Literal["cls", "mean", "last", "max", "sum"]


def cls(hidden_BLD: Tensor, mask_BL: Tensor) -> Tensor:
    """The first token's vector."""
    return hidden_BLD[:, 0]


def mean(hidden_BLD: Tensor, mask_BL: Tensor) -> Tensor:
    """The average over the tokens."""
    count_B1 = mask_BL.sum(dim=1, keepdim=True).clamp(min=1)
    return sum(hidden_BLD, mask_BL) / count_B1


def sum(hidden_BLD: Tensor, mask_BL: Tensor) -> Tensor:
    """The sum over the tokens."""
    return hidden_BLD.masked_fill(mask_BL.unsqueeze(-1) == 0, 0.0).sum(dim=1)


def last(hidden_BLD: Tensor, mask_BL: Tensor) -> Tensor:
    """The last token's vector: the only one that a causal model computes from the whole text."""
    last_B11 = (mask_BL.sum(dim=1) - 1).clamp(min=0).view(-1, 1, 1)
    return hidden_BLD.gather(1, last_B11.expand(-1, 1, hidden_BLD.shape[-1])).squeeze(1)


def max(hidden_BLD: Tensor, mask_BL: Tensor) -> Tensor:
    """The greatest value of each dimension over the tokens."""
    lowest = torch.finfo(hidden_BLD.dtype).min
    return hidden_BLD.masked_fill(mask_BL.unsqueeze(-1) == 0, lowest).amax(dim=1)


POOLINGS: Mapping[Pooling, Callable[[Tensor, Tensor], Tensor]] = {
    "cls": cls,
    "mean": mean,
    "last": last,
    "max": max,
    "sum": sum,
}
