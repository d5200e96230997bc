"""What a token of a decoder may see: only what stands before it, as published; all of the text; or all of a first copy.

Shapes: B texts, L tokens. Texts are padded on the right; a mask is 1 for a token and 0 for padding.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from bartizan_connector.base.errors import WrongUse


def see_all(backbone: PreTrainedModel) -> None:
    """Let every token of this decoder see every other. A family that does not follow is refused, never half done."""
    backbone.config.is_causal = False  # the library's masks ask the configuration, its kernels each module
    for module in backbone.modules():
        if getattr(module, "is_causal", None) is True:
            unchecked: Any = module
            unchecked.is_causal = False
    if not sees_later_tokens(backbone):
        raise WrongUse(
            f"a {backbone.config.model_type} keeps to causal attention in the installed transformers; leave "
            "attention = 'bidirectional' out, or take echo"
        )


@torch.no_grad()
def sees_later_tokens(backbone: PreTrainedModel) -> bool:
    """Whether the last token of a text changes what the first one becomes."""
    device = next(backbone.parameters()).device
    ids = torch.tensor([[1, 2, 3], [1, 2, 4]], device=device)
    training = backbone.training
    untyped: Any = backbone
    states: Tensor = untyped.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    untyped.train(training)
    return not torch.equal(states[0, 0], states[1, 0])


def twice(input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Each text twice in a row with its padding behind both: ids and mask [B, 2L], and where each token of the second
    copy stands [B, L]. What a text becomes so depends on no other text of the batch."""
    length_B1 = (attention_mask > 0).sum(dim=1, keepdim=True)
    first_1L = torch.arange(input_ids.shape[1], device=input_ids.device).unsqueeze(0)
    place_1M = torch.cat([first_1L, first_1L + input_ids.shape[1]], dim=1)
    within_BM = place_1M < 2 * length_B1
    source_BM = torch.where(place_1M < length_B1, place_1M, place_1M - length_B1)
    source_BM = torch.where(within_BM, source_BM, torch.zeros_like(source_BM))
    second_BL = torch.where(first_1L < length_B1, first_1L + length_B1, torch.zeros_like(first_1L))
    return input_ids.gather(1, source_BM), within_BM.to(attention_mask.dtype), second_BL
