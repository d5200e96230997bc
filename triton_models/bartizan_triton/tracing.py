"""How a tower is traced: attention and masks as few plain operators, and everything put back afterwards.

The library's own way to compute masks and token types is made for generality: traced, it leaves some seventy small
operators that every query pays for (docs/decisions/006). What stands in for it here gives the same numbers, which the
parity gate checks on every export.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, bidirectional_mask_function, eager_mask

_PLAIN = "eager"
"""The library's name for attention as two products and a softmax."""


@contextmanager
def plainly(backbone: PreTrainedModel) -> Iterator[None]:
    """Within it, the backbone computes the same with fewer operators."""
    with ExitStack() as undo:
        attention = backbone.config._attn_implementation
        if attention != _PLAIN:
            backbone.set_attn_implementation(_PLAIN)
            undo.callback(backbone.set_attn_implementation, attention)
        masks: Any = ALL_MASK_ATTENTION_FUNCTIONS
        masks[_PLAIN] = _mask
        undo.callback(masks.__delitem__, _PLAIN)  # the library's own function shows again
        for name, module in backbone.named_modules():
            if name.endswith("token_type_embeddings"):
                undo.callback(module.register_forward_hook(_first_row).remove)
        yield


def _mask(*, mask_function: Any, attention_mask: Tensor | None, dtype: torch.dtype, **rest: Any) -> Any:
    """Where every token sees every other, padding alone decides; all else is left to the library."""
    if mask_function is bidirectional_mask_function and attention_mask is not None:
        seen, unseen = torch.zeros((), dtype=dtype), torch.full((), torch.finfo(dtype).min, dtype=dtype)
        return torch.where(attention_mask[:, None, None, :].bool(), seen, unseen)
    return eager_mask(mask_function=mask_function, attention_mask=attention_mask, dtype=dtype, **rest)


def _first_row(types: nn.Module, *_: Any) -> Tensor:
    """A tower encodes single texts: every token is of the first type."""
    row: Tensor = types.get_parameter("weight")[0]
    return row
