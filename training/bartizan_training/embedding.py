"""A tower's vectors of packed texts, in the arithmetic that the recipe asks for."""

import torch
from torch import Tensor

from bartizan_connector.space.tokens import Tokens
from bartizan_encoders.tower import Tower
from bartizan_training.data.packing import Packed
from bartizan_training.settings import Training


def encode(tower: Tower, packed: Packed, *, precision: str, raw: bool = False) -> Tensor:
    """Vectors [texts, D] in fp32, in the texts' order; `raw`: before normalisation."""
    run = tower.raw if raw else tower
    with arithmetic(packed, precision):
        vectors = [run(ids, mask) for ids, mask in packed.pieces]
    return torch.cat(vectors).float()[packed.back]


def arithmetic(packed: Packed, precision: str) -> torch.autocast:
    """Within it, towers compute in this precision, `fp32` or `bf16`."""
    return torch.autocast(packed.back.device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def capped(tower: Tower, table: Training) -> Tokens:
    """The tower's tokenizer as it is used in training: with the shorter of both limits."""
    roles = {
        role: spec.model_copy(update={"max_tokens": min(spec.max_tokens, table.max_tokens or spec.max_tokens)})
        for role, spec in tower.spec.roles.items()
    }
    return tower.tokens.serving(roles, tower.spec.special_tokens)
