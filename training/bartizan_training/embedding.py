"""A tower's vectors of packed texts, in the arithmetic that the recipe asks for, with as little in memory."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from bartizan_connector.space.tokens import Tokens
from bartizan_encoders.tower import Tower
from bartizan_training.data.packing import Packed

T = TypeVar("T")


def encode(tower: Tower, packed: Packed, *, precision: str, raw: bool = False) -> Tensor:
    """Vectors [texts, D] in fp32, in the texts' order; `raw`: before normalisation."""
    run = tower.raw if raw else tower
    with arithmetic(packed, precision):
        vectors = by_piece(packed, run)
    return torch.cat(vectors).float()[packed.back]


def by_piece(packed: Packed, run: Callable[..., T], *beside: Sequence[Tensor]) -> list[T]:
    """What `run` gives for the ids and the mask of each piece, and for what stands beside it.

    Where the budget says so nothing else of a piece is kept, and it is run again, with the same random numbers, when
    the gradient of what it gave is there: a loss over a batch of any size takes the memory of one piece (GradCache).
    """
    if not (packed.anew and torch.is_grad_enabled()):
        return [run(*piece, *more) for piece, *more in zip(packed.pieces, *beside, strict=True)]
    pieces = zip(packed.pieces, *beside, strict=True)
    found: list[T] = [checkpoint(run, *piece, *more, use_reentrant=False) for piece, *more in pieces]
    return found


def arithmetic(packed: Packed, precision: str) -> torch.autocast:
    """Within it, towers compute in this precision, `fp32` or `bf16`."""
    return torch.autocast(packed.back.device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def capped(tower: Tower, max_tokens: int | None) -> Tokens:
    """The tower's tokenizer with the shorter of both limits."""
    roles = {
        role: spec.model_copy(update={"max_tokens": min(spec.max_tokens, max_tokens or spec.max_tokens)})
        for role, spec in tower.spec.roles.items()
    }
    return tower.tokens.serving(roles, tower.spec.special_tokens)
