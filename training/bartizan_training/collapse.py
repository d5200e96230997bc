"""How sparse vectors fail: all zero, all alike, or all of one term; figures that show it while a tower is trained."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_MOST_ZERO, _MOST_ALIKE, _MOST_OF_ONE = 0.001, 0.9, 0.5
_FEWEST = 8
"""Texts in a batch from which on one shared term says something."""


@torch.no_grad()
def figures(weights_BV: Tensor, role: str) -> dict[str, Tensor]:
    """Of one batch of vectors: terms that are not 0, share of vectors of zeros, mean cosine of two different texts, and
    the share of texts that have the most frequent heaviest term as theirs."""
    size = len(weights_BV)
    unit_BV = F.normalize(weights_BV, dim=1)
    together = unit_BV.sum(dim=0).square().sum() - unit_BV.square().sum()
    top = weights_BV.argmax(dim=1)[weights_BV.amax(dim=1) > 0]
    same = top.bincount().max() / size if len(top) else torch.zeros((), device=weights_BV.device)
    return {
        f"{role}_active_terms": (weights_BV > 0).sum(dim=1).float().mean(),
        f"{role}_zero_share": (weights_BV.amax(dim=1) <= 0).float().mean(),
        f"{role}_cosine": together / max(1, size * (size - 1)),
        f"{role}_same_top_term": same if size >= _FEWEST else torch.zeros_like(same),
    }


def alarms(record: Mapping[str, Any]) -> Mapping[str, str]:
    """Where a tower has collapsed, or is about to: which figure says so, and what it says in words."""
    found: dict[str, str] = {}
    for role in ("query", "document"):
        zero, alike = record.get(f"{role}_zero_share", 0.0), record.get(f"{role}_cosine", 0.0)
        same = record.get(f"{role}_same_top_term", 0.0)
        if zero >= _MOST_ZERO:
            found[f"{role}_zero_share"] = (
                f"{zero:.1%} of the {role} vectors are all zero and find nothing: adapt longer before, or lower flops"
            )
        if alike >= _MOST_ALIKE:
            found[f"{role}_cosine"] = (
                f"{role} vectors are all alike (mean cosine {alike:.2f}): adapt longer before, or lower the rate"
            )
        if same >= _MOST_OF_ONE:
            found[f"{role}_same_top_term"] = (
                f"{same:.0%} of the {role} vectors have one term as their heaviest: a first token <s> does that "
                "(special_tokens = 'none'), or too short an adaptation"
            )
    return found
