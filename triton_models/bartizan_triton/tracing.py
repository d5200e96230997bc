"""How a tower is traced: attention and masks as few plain operators, and everything put back afterwards.

The library's own way to compute masks and token types is made for generality: traced, it leaves some seventy small
operators that every query pays for (docs/decisions/006). What stands in for it here gives the same numbers, which the
parity gate checks on every export.
"""

import inspect
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
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
        # Beside these, GPT-2 takes token types too, but has none of its own: with none given it adds nothing.
        takes_types = "token_type_ids" in inspect.signature(backbone.forward).parameters
        if takes_types and getattr(backbone.config, "type_vocab_size", None):
            undo.callback(backbone.register_forward_pre_hook(_of_one_type, with_kwargs=True).remove)
        yield


def _mask(*, mask_function: Any, attention_mask: Tensor | None, dtype: torch.dtype, **rest: Any) -> Any:
    """Where every token sees every other, padding alone decides; all else is left to the library."""
    if mask_function is bidirectional_mask_function and attention_mask is not None:
        return (1 - attention_mask[:, None, None, :].to(dtype)) * torch.finfo(dtype).min
    return eager_mask(mask_function=mask_function, attention_mask=attention_mask, dtype=dtype, **rest)


def _of_one_type(_: PreTrainedModel, positional: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """A tower encodes single texts: every token is of the first type."""
    return positional, named | {"token_type_ids": torch.zeros_like(named["input_ids"])}
