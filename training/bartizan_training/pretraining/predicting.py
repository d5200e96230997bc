"""Texts cut into blocks, and sums over tokens whose logits are never all held at once: of `adapt` and of `pretrain`.

T tokens that are to be predicted, D dimensions.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.space.spec import Role, RoleSpec
from bartizan_connector.space.tokens import Tokens
from bartizan_encoders.sparse_head import LOGITS_AT_ONCE
from bartizan_training.data.packing import Ids
from bartizan_training.data.token_table import TokenTable

UNLIMITED: Mapping[Role, RoleSpec] = {"document": RoleSpec(max_tokens=1 << 30)}
"""For texts that are cut by blocks alone."""


def cut_into_blocks(tokens: Tokens, texts: Sequence[str], size: int, end: int | None) -> Ids:
    """The texts as `tokens` reads documents, one after the other, each followed by the token `end` where there is one;
    cut into rows of `size`. What does not fill a row at the end is left out."""
    table = TokenTable(tokens, "document", texts)
    picked = table.pick(np.arange(len(table)))
    ends = [] if end is None else [end]
    flat = np.concatenate([np.concatenate([text, np.array(ends, dtype=np.int32)]) for text in picked])
    if len(flat) < size:
        raise WrongUse(f"the texts are {len(flat)} tokens in all, fewer than one block of {size}: lower block")
    cut: Ids = flat[: len(flat) // size * size].reshape(-1, size).astype(np.int32)
    return cut


def summed(
    of_some: Callable[[Tensor, Tensor], Tensor], hidden_TD: Tensor, targets_T: Tensor, *, vocabulary: int
) -> Tensor:
    """The sum of what `of_some` makes of some tokens' states and targets at a time; computed anew for the gradient."""
    step = max(1, LOGITS_AT_ONCE // vocabulary)
    parts: list[Any] = [
        checkpoint(of_some, hidden_TD[start : start + step], targets_T[start : start + step], use_reentrant=False)
        for start in range(0, len(hidden_TD), step)
    ]
    total: Tensor = torch.stack(parts).sum(dim=0)
    return total
