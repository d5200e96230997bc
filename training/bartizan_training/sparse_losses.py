"""Losses of learned sparse towers (CSPLADE): pure functions of logits and of term weights.

B texts, V terms of the vocabulary, T tokens with a next one.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def flops(weights_BV: Tensor) -> Tensor:
    """The squared mean weight of each term over the batch, summed over the terms: what a term costs grows with how many
    texts have it."""
    return weights_BV.abs().mean(dim=0).square().sum()


def ramp(step: int, length: int) -> float:
    """Share of a weight at a step counted from 0: grows with the square of the step, and stays 1 after `length`."""
    return 1.0 if step + 1 >= length else ((step + 1) / length) ** 2


def next_token_losses(logits_TV: Tensor, next_T: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of the cross entropy of the next token over the tokens: of the logits, and of log1p(relu(logits)), which a
    tower that has learned it cannot leave at 0."""
    plain = F.cross_entropy(logits_TV, next_T, reduction="sum")
    return plain, F.cross_entropy(torch.log1p(torch.relu(logits_TV)), next_T, reduction="sum")
